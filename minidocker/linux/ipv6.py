"""IPv6 of the interfaces of a network namespace: on where an interface has an address of it, off elsewhere.

Source  kernel Documentation/networking/ip-sysctl.rst (disable_ipv6): /proc/sys/net shows the reader's own namespace;
        moby daemon/libnetwork/osl (namespace_linux.go), what it does seen from inside.
Rules   - off means no link-local address either: neighbours on a network without IPv6 can't be reached by it.
        - loopback keeps ::1.
"""

import errno
import os
from collections.abc import Mapping
from typing import Any

from minidocker.errors import KernelError
from minidocker.linux.rooted_paths import Resolve, openat2

_BENEATH = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS


def switch_namespace(proc_fd: int, plan: Mapping[str, Any]) -> None:
    """Set a new namespace up: off by default, on for loopback; then `switch`. Raises OSError."""
    _write(proc_fd, "all", on=False)
    _write(proc_fd, "lo", on=True)
    switch(proc_fd, plan)


def switch(proc_fd: int, plan: Mapping[str, Any]) -> None:
    """Switch IPv6 on or off for the interfaces of a plan (see `netlink.configure_interfaces`), before they are up.

    proc_fd  a procfs; a kernel without IPv6 has nothing to switch.
    Raises   OSError.
    """
    for interface in plan.get("interfaces") or ():
        addresses = interface.get("addresses") or ()
        _write(proc_fd, str(interface["name"]), on=any(":" in str(address) for address in addresses))


def _write(proc_fd: int, name: str, *, on: bool) -> None:
    try:
        fd = openat2(proc_fd, f"sys/net/ipv6/conf/{name}/disable_ipv6", os.O_WRONLY, 0, _BENEATH)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return
        raise
    try:
        os.write(fd, b"0" if on else b"1")
    finally:
        os.close(fd)
