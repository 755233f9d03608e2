"""JSON in and out for all documents: strict where strangers write, with the field named in each error.

Source  RFC 8259; msgspec's documentation (structs, hooks).
Rules   - every document is read through `decode` and written through `encode`, so Digest works as a field type.
        - unknown fields are ignored, as the OCI specifications require; wrong types are errors.
        - nesting deep enough to exhaust the parser is an error like any other, never a crash.
"""

from typing import Any, TypeVar

import msgspec

from minidocker import typed
from minidocker.errors import InvalidArgument
from minidocker.oci.digest import Digest

T = TypeVar("T")


def _decode_digest(kind: type, value: Any) -> Any:
    if kind is Digest:
        if not isinstance(value, str):
            raise ValueError(f"expected a digest, got {type(value).__name__}")
        return Digest(value)
    raise NotImplementedError(f"cannot read {kind!r} from JSON")


def _encode_digest(value: Any) -> Any:
    if isinstance(value, Digest):
        return str(value)
    raise NotImplementedError(f"cannot write {type(value)!r} as JSON")


def decode(content: bytes | str, kind: type[T], what: str = "document") -> T:
    """Read JSON `content` as a `kind` (a msgspec struct or any type msgspec knows).

    what    names the document in the error, for instance "manifest of busybox:latest".
    Raises  InvalidArgument: not JSON, a field of a wrong type (its path is in the text), or nested too deeply.
    """
    try:
        value: T = typed.decoder(kind, _decode_digest).decode(content)
        return value
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise InvalidArgument(f"invalid {what}: {error}") from None
    except RecursionError:
        raise InvalidArgument(f"invalid {what}: nested too deeply") from None


def encode(document: Any) -> bytes:
    """Compact JSON of a document."""
    return msgspec.json.encode(document, enc_hook=_encode_digest)


def encode_pretty(document: Any) -> bytes:
    """Indented JSON, for files that people read."""
    return msgspec.json.format(encode(document), indent=2)
