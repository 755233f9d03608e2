"""Who the command is: user, groups, capabilities, and the promise of no new privileges.

Source  credentials(7), capabilities(7), prctl(2); the order is DESIGN's, its reasons are at the lines below.
Rules   - groups first: after the change of uid nobody may set them.
        - uid with keepcaps: the capabilities are still needed to cut the bounding set and to load the filter.
        - the permitted set is left to execve, which cuts it to the bounding set (root) or to nothing (all others):
          dropped earlier, the filter could not be loaded.
        - parent-death signal last: a change of uid clears it.
"""

import errno
import json
import os
import select
import signal
import struct

from minidocker.errors import KernelError
from minidocker.linux import capabilities, process
from minidocker.linux.syscall import syscall
from minidocker.oci import runtime_spec
from minidocker.runtime.step import Inside, Step, StepFailed
from minidocker.runtime.users import Identity, home_of, read_file, resolve

_NEEDED_FOR_FILTER = "CAP_SYS_ADMIN"
_KEYCTL_JOIN_SESSION_KEYRING = 1
_CAPABILITY_VERSION_3 = 0x20080522


def permitted_mask() -> int:
    """The caller's permitted set, asked without /proc: what is mounted there may be the image's."""
    header, sets = struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytearray(24)
    syscall("capget", header, sets, path="permitted set")
    _, low, _, _, high, _ = struct.unpack("6I", sets)
    return int(low | high << 32)


class FindUser(Step, frozen=True):
    """Look the user up in the image's own files, and complete the environment with HOME.

    user       Docker's string, or None: `numeric` is the answer already.
    """

    numeric: runtime_spec.User
    user: str | None = None
    group_add: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"find user {self.numeric.uid if self.user is None else self.user or 'root'}"

    def apply(self, inside: Inside) -> None:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

        def read(path: str) -> str:
            return read_file(root, path)

        try:
            if self.user is None:
                numeric = self.numeric
                home = "/" if "HOME" in inside.env else home_of(numeric.uid, read)
                inside.identity = Identity(numeric.uid, numeric.gid, tuple(numeric.additional_gids), home)
            else:
                inside.identity = resolve(self.user, self.group_add, read)
        finally:
            os.close(root)
        if not inside.env.get("HOME"):
            inside.env["HOME"] = inside.identity.home


class SessionKeyring(Step, frozen=True):
    """A session keyring of the container's own: the launcher's is not for it to read."""

    @property
    def name(self) -> str:
        return "join a new session keyring"

    def apply(self, inside: Inside) -> None:
        try:
            syscall("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None, path="session keyring")
        except KernelError as error:
            if error.errno not in (errno.ENOSYS, errno.EDQUOT):
                raise


class BecomeUser(Step, frozen=True):
    """Change groups and uid, cut the capabilities, ask to die with the monitor."""

    sets: runtime_spec.Capabilities
    no_new_privileges: bool = False
    die_with_monitor: bool = True

    @property
    def name(self) -> str:
        return "become user"

    def apply(self, inside: Inside) -> None:
        identity = inside.identity
        self._set_groups(identity)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        process.set_keep_caps(True)
        os.setresuid(identity.uid, identity.uid, identity.uid)
        self._cut(inside)
        if self.no_new_privileges:
            process.set_no_new_privs()
        if self.die_with_monitor:
            process.set_parent_death_signal(signal.SIGKILL)
            self._check_monitor(inside)

    @staticmethod
    def _set_groups(identity: Identity) -> None:
        try:
            os.setgroups(identity.groups)
        except PermissionError:
            if (
                identity.groups or os.getgroups()
            ):  # a user namespace may forbid setgroups; without groups nothing is lost
                raise

    def _cut(self, inside: Inside) -> None:
        """The bounding set as asked; effective only what the caller may use in between; the rest empty unless asked."""
        permitted = capabilities.names(permitted_mask())
        wanted = self.sets
        # The uid change emptied the effective set; cutting the bounding set needs CAP_SETPCAP.
        capabilities.set_sets(permitted, permitted)
        capabilities.drop_bounding(wanted.bounding, last=inside.host.last_cap)
        capabilities.clear_ambient()
        effective = [name for name in wanted.effective if name in permitted]
        if _NEEDED_FOR_FILTER in permitted and _NEEDED_FOR_FILTER not in effective:
            effective.append(_NEEDED_FOR_FILTER)
        inheritable = [name for name in wanted.inheritable if name in permitted]
        capabilities.set_sets(effective, permitted, inheritable)
        capabilities.raise_ambient(name for name in wanted.ambient if name in inheritable)

    @staticmethod
    def _check_monitor(inside: Inside) -> None:
        """The signal comes only for a death after it was asked for: look whether the monitor is still there."""
        poll = select.poll()
        poll.register(inside.channel.fileno(), 0)
        if any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0)):
            raise StepFailed("become user", "the monitor is gone")


def user_step(process_spec: runtime_spec.Process, annotations: dict[str, str]) -> FindUser:
    """The step for config.json: the annotations name the user as Docker does, else process.user has the numbers."""
    user = annotations.get(runtime_spec.USER)
    group_add = json.loads(annotations.get(runtime_spec.GROUP_ADD) or "[]")
    if user is None and group_add:
        user = f"{process_spec.user.uid}:{process_spec.user.gid}"
    return FindUser(process_spec.user, user, tuple(str(group) for group in group_add))
