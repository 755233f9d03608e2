"""`./lab doctor`: what this machine can do, and for each thing it cannot do the reason and the cure.

Source  namespaces(7), cgroups(7), kernel Documentation/filesystems/overlayfs.rst, seccomp(2), capabilities(7).
Rules   - each probe tries the thing itself, in a process that ends at once; a version number proves nothing.
        - a probe never leaves anything behind and never raises.
"""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minidocker.errors import MinidockerError
from minidocker.lab.cell import CellFailed
from minidocker.lab.isolated import Isolation
from minidocker.linux import capabilities, cgroups

SOCKET = Path("/run/minidocker/minidocker.sock")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `cure` is empty where nothing is wrong."""

    subject: str
    fine: bool
    observed: str
    cure: str = ""


def _isolated(isolation: Isolation, code: str) -> str:
    """Run `code` in a cell of its own; "" if it went well, else why not."""
    try:
        isolation.run(code, timeout_seconds=10, on_output=lambda _kind, _content: None)
        return ""
    except (CellFailed, MinidockerError, OSError) as error:
        return str(error)


def _by_trying(subject: str, code: str, cure: str) -> Callable[[Isolation], Finding]:
    def probe(isolation: Isolation) -> Finding:
        problem = _isolated(isolation, code)
        return Finding(subject, not problem, problem or "works", cure if problem else "")

    return probe


def privileges(_isolation: Isolation) -> Finding:
    """Root, and which capabilities are cut off."""
    if os.geteuid() != 0:
        return Finding("privileges", False, f"user {os.geteuid()}", "run it as root, or through sudo")
    full = (1 << (capabilities.last_cap() + 1)) - 1
    missing = [
        name for number, name in enumerate(capabilities.NAMES) if full & ~capabilities.read()["CapBnd"] & (1 << number)
    ]
    if "CAP_SYS_ADMIN" in missing:
        return Finding("privileges", False, "root without CAP_SYS_ADMIN", "start the outer container with --privileged")
    note = f"root, without {', '.join(missing)}" if missing else "root with all capabilities"
    return Finding("privileges", True, note)


def control_groups(_isolation: Isolation) -> Finding:
    """Which version, and whether the controllers that limits need are there."""
    version, there = cgroups.version(), set(cgroups.controllers())
    missing = {"memory", "pids", "cpu"} - there
    if version == "none":
        return Finding("control groups", False, "no tree is writable", "mount -t cgroup2 none /sys/fs/cgroup")
    if missing:
        cure = "boot with cgroup_enable=memory, or let the parent group hand its controllers down"
        return Finding("control groups", False, f"{version}, without {', '.join(sorted(missing))}", cure)
    return Finding("control groups", True, f"{version}: {' '.join(sorted(there))}")


def programs(_isolation: Isolation) -> Finding:
    """Debian programs that set-up, lessons and --init use."""
    wanted = {
        "dot": "graphviz",
        "busybox": "busybox-static",
        "tini-static": "tini",
        "docker-registry": "docker-registry",
        "strace": "strace",
    }
    missing = [package for program, package in wanted.items() if not shutil.which(program)]
    if missing:
        return Finding("programs", False, f"missing: {', '.join(missing)}", "./lab setup installs them")
    return Finding("programs", True, ", ".join(wanted))


def disk(_isolation: Isolation) -> Finding:
    """Room for images."""
    place = Path("/var/lib/minidocker")
    while not place.exists():
        place = place.parent
    free_gib = shutil.disk_usage(place).free / (1 << 30)
    return Finding("disk", free_gib > 1, f"{free_gib:.1f} GiB free", "" if free_gib > 1 else f"make room below {place}")


def daemon(_isolation: Isolation) -> Finding:
    """Whether the course's daemon listens."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(SOCKET))
        return Finding("daemon", True, f"listens on {SOCKET}")
    except OSError as error:
        return Finding("daemon", False, f"{SOCKET}: {error.strerror}", "./lab setup starts it")


_MOUNT = "from minidocker.linux.mounts import mount; import os; os.chdir('/run'); mount('tmpfs', '/run', 'tmpfs')\n"
_OVERLAY = _MOUNT + (
    "[os.mkdir('/run/' + d) for d in 'luwm']\n"
    "mount('overlay', '/run/m', 'overlay', 0, 'lowerdir=/run/l,upperdir=/run/u,workdir=/run/w')"
)
_USER = (
    "import os; from minidocker.linux.namespaces import *\n"
    "pid = os.fork()\nif pid == 0:\n    unshare(CloneFlag.NEWUSER); os._exit(0)\n"
    "assert os.waitpid(pid, 0)[1] == 0, 'unshare(CLONE_NEWUSER) was refused'"
)
_SECCOMP = "from minidocker.linux import seccomp; seccomp.load(seccomp.compile({'defaultAction': 'SCMP_ACT_ALLOW'}))"
_LINKS = (
    "import os; from minidocker.linux import netlink\n"
    "index = netlink.create_bridge('br0', '10.9.9.1/24', '02:42:0a:09:09:01', 1500)\n"
    "netlink.create_veth('v0', index, 'eth0', os.getpid(), '02:42:0a:09:09:02', 1500)"
)
_NFTABLES = "from minidocker.network.nftables import Nftables; Nftables().run('add table ip probe')"

PROBES: tuple[Callable[[Isolation], Finding], ...] = (
    privileges,
    control_groups,
    _by_trying("namespaces", "pass", "run it as root on Linux, outside of a restricted container"),
    _by_trying("overlayfs", _OVERLAY, "modprobe overlay; inside a container, use a volume for /var/lib/minidocker"),
    _by_trying(
        "user namespaces",
        _USER,
        "sysctl -w user.max_user_namespaces=10000, on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    _by_trying("seccomp", _SECCOMP, "a kernel with CONFIG_SECCOMP_FILTER"),
    _by_trying("bridge and veth", _LINKS, "modprobe bridge veth"),
    _by_trying("nftables", _NFTABLES, "apt-get install libnftables1; modprobe nf_tables nft_nat nft_masq"),
    programs,
    disk,
    daemon,
)


def examine() -> list[Finding]:
    """Run all probes, in order."""
    isolation = Isolation()
    try:
        return [probe(isolation) for probe in PROBES]
    finally:
        isolation.close()


def main() -> int:
    """Print the report; 1 if something is missing."""
    print(f"Linux {platform.release()} on {platform.machine()}, Python {platform.python_version()}")
    findings = examine()
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{'ok ' if finding.fine else 'NO '} {finding.subject:<{width}}  {finding.observed}")
        if finding.cure:
            print(f"    {'':<{width}}  cure: {finding.cure}")
    return 0 if all(finding.fine for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
