"""Digests: the name of some bytes, computed from the bytes themselves.

Source  OCI image-spec, descriptor.md#digests.
Rules   - only sha256 is accepted: every registry and tool speaks it, and one algorithm is one code path to trust.
        - a Digest is a str, so it prints, sorts and hashes as its text; it can only be made from valid text.
"""

from typing import Protocol


class Digest(str):
    """`sha256:` and 64 lower-case hexadecimal digits.

    Raises  ValueError: the text is not such a digest.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> "Digest":
        algorithm, _, hex_part = text.partition(":")
        if algorithm != "sha256" or len(hex_part) != 64 or not set(hex_part) <= set("0123456789abcdef"):
            raise ValueError(f"invalid digest {text[:100]!r}: expected sha256: and 64 lower-case hexadecimal digits")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, content: bytes) -> "Digest":
        """The digest of `content`."""
        import hashlib  # half a megabyte, which the launcher does without

        return cls("sha256:" + hashlib.sha256(content).hexdigest())

    @classmethod
    def finish(cls, hasher: "Hasher") -> "Digest":
        """The digest of all that a `hashlib.sha256()` object was fed."""
        return cls("sha256:" + hasher.hexdigest())

    @property
    def hex(self) -> str:
        """The 64 digits: the file name of a blob."""
        return self[7:]

    @property
    def short(self) -> str:
        """The first 12 digits, as listings show them."""
        return self[7:19]


class Hasher(Protocol):
    """What hashlib.sha256() returns, as far as a digest needs it."""

    def hexdigest(self) -> str: ...


def chain_id(diff_ids: tuple[Digest, ...]) -> Digest:
    """The name of a stack of layers, base first.

    ChainID(L0) = DiffID(L0);  ChainID(L0..Ln) = sha256(ChainID(L0..Ln-1) + " " + DiffID(Ln)).
    Raises  ValueError: no layers.
    Source  OCI image-spec, config.md#layer-chainid.
    """
    if not diff_ids:
        raise ValueError("a chain ID needs at least one diff ID")
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = Digest.of(f"{chain} {diff_id}".encode())
    return chain
