"""Capabilities: root's power cut into some forty pieces, each of which a process has or lacks.

Source  capabilities(7), capget(2), prctl(2); kernel include/uapi/linux/capability.h; the defaults are Docker's (moby,
        oci/caps).
Rules   - five sets a thread. bounding: the most that execve can give; permitted: what it may use; effective: what
          counts now; inheritable and ambient: what outlives execve without a file's help (kept empty: CVE-2022-24769).
        - order when a container starts: keepcaps, change uid, cut bounding, capset, ambient. After the cut nothing
          comes back.
        - cutting the bounding set needs CAP_SETPCAP; so does a larger inheritable set.
        - names are as in the kernel and in OCI documents: "CAP_NET_RAW". A user may write "net_raw".
"""

import errno
import struct
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from minidocker.errors import InvalidArgument, KernelError
from minidocker.linux.process import prctl
from minidocker.linux.syscall import syscall

_IN_ORDER = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID
    SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER
    SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE
    SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
    MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
    CHECKPOINT_RESTORE
"""
NAMES: tuple[str, ...] = tuple(f"CAP_{name}" for name in _IN_ORDER.split())  # the index is the capability's number
_NUMBER = {name: number for number, name in enumerate(NAMES)}

# What root in a container keeps unless asked otherwise: mask 0xa80425fb.
DEFAULT: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
_CAPABILITY_VERSION_3 = 0x20080522


def last_cap() -> int:
    """The highest capability number that this kernel knows."""
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def resolve(
    default: Sequence[str], add: Sequence[str], drop: Sequence[str], *, known: Sequence[str] = NAMES
) -> tuple[str, ...]:
    """The capabilities that `--cap-add` and `--cap-drop` leave, by Docker's rules.

    add, drop  names with or without CAP_, in any case, or ALL. Add ALL: everything known but the dropped.
               Drop ALL: only the added. Otherwise drop first, then add, so a name in both is added.
    known      what ALL means: pass `available()` to grant only what the engine has itself.
    Raises     InvalidArgument for a name that is no capability.

    >>> resolve(("CAP_CHOWN", "CAP_KILL"), ["net_admin"], ["CAP_KILL"])
    ('CAP_CHOWN', 'CAP_NET_ADMIN')
    """
    added, dropped = [normalize(name) for name in add], [normalize(name) for name in drop]
    if "ALL" in added:
        kept = [name for name in known if name not in dropped]
    elif "ALL" in dropped:
        kept = added
    else:
        kept = [name for name in default if name not in dropped] + added
    return tuple(dict.fromkeys(kept))


def normalize(name: str) -> str:
    """The kernel's name ("CAP_NET_RAW") of a name as users write it ("net_raw"); "ALL" stays.

    Raises  InvalidArgument for a name that is no capability.
    """
    upper = name.upper()
    full = upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
    if full != "ALL" and full not in _NUMBER:
        raise InvalidArgument(f'unknown capability: "{full}"; capabilities(7) lists them')
    return full


def mask(names: Iterable[str]) -> int:
    """The bit mask of kernel names, as /proc/PID/status shows it.

    >>> f"{mask(DEFAULT):016x}"
    '00000000a80425fb'
    """
    bits = 0
    for name in names:
        if name not in _NUMBER:
            raise InvalidArgument(f'unknown capability: "{name}"; expected a name like CAP_NET_RAW')
        bits |= 1 << _NUMBER[name]
    return bits


def names(bits: int) -> tuple[str, ...]:
    """The kernel names of a bit mask, lowest number first; bits that have no name are left out."""
    return tuple(name for number, name in enumerate(NAMES) if bits >> number & 1)


def available() -> tuple[str, ...]:
    """The capabilities in our own bounding set: no process that we start can have more."""
    return names(read()["CapBnd"])


def read(pid: int | str = "self") -> dict[str, int]:
    """The masks of a process: CapInh, CapPrm, CapEff, CapBnd, CapAmb.

    Raises  KernelError: ENOENT no such process.
    Source  proc_pid_status(5).
    """
    path = f"/proc/{pid}/status"
    try:
        lines = Path(path).read_text(errors="surrogateescape").split("\n")
    except OSError as error:
        raise KernelError("open", path, error.errno or 0) from error
    return {key: int(value, 16) for key, _, value in (line.partition(":") for line in lines) if key.startswith("Cap")}


def drop_bounding(keep: Collection[str], *, last: int | None = None) -> None:
    """Cut the bounding set down to `keep`, for good, of this thread and of all that it starts.

    last    the kernel's highest number, known from before; None: asked now, of /proc, which must be the kernel's.
    Raises  KernelError: EPERM without CAP_SETPCAP.
    Source  PR_CAPBSET_DROP in prctl(2).
    """
    kept = mask(keep)
    for number in range((last_cap() if last is None else last) + 1):
        if not kept >> number & 1:
            prctl(_PR_CAPBSET_DROP, number, subject=_name(number), hint="needs CAP_SETPCAP")


def set_sets(effective: Iterable[str], permitted: Iterable[str], inheritable: Iterable[str] = ()) -> None:
    """Set the three old sets of this thread. What leaves permitted cannot return except by execve.

    Raises  KernelError: EPERM when permitted would grow, or effective is not within it.
    Source  capset(2), version 3: two 32-bit words a set.
    """
    sets = [mask(effective), mask(permitted), mask(inheritable)]
    words = [bits >> shift & 0xFFFFFFFF for shift in (0, 32) for bits in sets]
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)  # 0: the calling thread
    hint = {errno.EPERM: "the permitted set never grows, and effective must lie within it"}
    syscall("capset", header, struct.pack("6I", *words), path=" ".join(names(sets[1])) or "none", hint=hint)


def clear_ambient() -> None:
    """Empty the ambient set, so that execve of an ordinary file by an ordinary user gives nothing."""
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def raise_ambient(names_to_raise: Iterable[str]) -> None:
    """Add to the ambient set: kept over execve even by a user who is not root.

    Raises  KernelError: EPERM if one is not both permitted and inheritable.
    Source  PR_CAP_AMBIENT in prctl(2).
    """
    for name in names_to_raise:
        number = mask([name]).bit_length() - 1
        prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, subject=name, hint="must be permitted and inheritable")


def _name(number: int) -> str:
    return NAMES[number] if number < len(NAMES) else f"capability {number}"
