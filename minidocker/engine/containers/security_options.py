"""What a request may loosen or tighten of a container's confinement: --security-opt, --cap-add, --cap-drop.

Source  Docker Engine API 1.44, ContainerCreate; moby daemon/daemon_unix.go (parseSecurityOpt), oci/caps (texts).
Rules   - pure. What this engine cannot enforce (AppArmor, SELinux) is refused, never ignored.
"""

import msgspec

from minidocker import typed
from minidocker.engine.containers.config import HostConfig
from minidocker.errors import InvalidArgument
from minidocker.linux import capabilities


def check(host: HostConfig) -> None:
    """Raises InvalidArgument: an option or a capability that does not exist, or cannot be had here."""
    for option in host.security_opt or []:
        key, separator, value = option.partition("=") if "=" in option else option.partition(":")
        if key == "no-new-privileges" and value in ("", "true", "false"):
            continue
        if key == "seccomp" and value:
            if value not in ("unconfined", "builtin"):
                _check_seccomp(value)
            continue
        if key == "apparmor" and value:
            if value != "unconfined":
                raise InvalidArgument("AppArmor profiles are not supported; use apparmor=unconfined")
            continue
        if key == "label" and value == "disable":
            continue
        if key == "writable-cgroups" and value in ("true", "false"):
            continue
        if key == "label":
            raise InvalidArgument("SELinux labels are not supported; use label=disable")
        raise InvalidArgument(
            f"invalid --security-opt 2: {option!r}" if not separator else f"invalid --security-opt: {option!r}"
        )
    for field, names in (("CapAdd", host.cap_add), ("CapDrop", host.cap_drop)):
        try:
            capabilities.resolve((), names or [], [])
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid {field}: {error}") from None


def _check_seccomp(text: str) -> None:
    """Raises InvalidArgument: not a seccomp profile in JSON (clients send the file's content)."""
    try:
        profile = typed.decode(text, dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgument(f"opening seccomp profile failed: Decoding seccomp profile failed: {error}") from None
    if "defaultAction" not in profile:
        raise InvalidArgument("Decoding seccomp profile failed: it has no defaultAction")
