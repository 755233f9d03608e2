"""A bundle: a directory with config.json, and usually the root filesystem beside it.

Source  OCI runtime-spec, bundle.md.
Rules   - config.json is all that the runtime knows of a container.
"""

from pathlib import Path

from minidocker.errors import NotFound
from minidocker.oci import codec, runtime_spec


def read_spec(bundle: Path) -> runtime_spec.Spec:
    """The bundle's config.json.

    Raises  NotFound: there is none. InvalidArgument: it is not one.
    """
    try:
        content = (bundle / "config.json").read_bytes()
    except OSError as error:
        raise NotFound(f"no config.json in bundle {bundle}: {error.strerror}") from None
    return codec.decode(content, runtime_spec.Spec, f"config.json of {bundle}")
