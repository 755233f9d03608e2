"""System calls: words of 64 bits, buffers, errors that name what and why."""

import errno
import os
import platform
import re
from pathlib import Path

import pytest

from minidocker.errors import InvalidArgument, KernelError
from minidocker.linux import syscall as module
from minidocker.linux.syscall import NUMBERS, c_string, syscall


def test_a_number_of_more_than_32_bits_arrives_whole(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        syscall("ftruncate", file.fileno(), (1 << 33) + 5)
        assert os.fstat(file.fileno()).st_size == (1 << 33) + 5


def test_the_kernel_fills_a_bytearray() -> None:
    name = bytearray(65)
    assert syscall("gethostname", name, len(name)) == 0
    assert name.rstrip(b"\0").decode() == os.uname().nodename


def test_a_raw_number_is_used_for_what_libc_lacks() -> None:
    pidfd = syscall("pidfd_open", os.getpid(), 0)
    try:
        assert f"Pid:\t{os.getpid()}" in Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    finally:
        os.close(pidfd)


def test_an_error_names_the_call_the_object_the_reason_and_the_cure() -> None:
    with pytest.raises(KernelError) as caught:
        syscall("umount2", b"/no/such/place", 0, path="/no/such/place", hint="mount it first")
    assert caught.value.errno == errno.ENOENT
    assert str(caught.value) == "umount2 /no/such/place: ENOENT (No such file or directory); mount it first"


def test_a_hint_can_depend_on_the_errno() -> None:
    with pytest.raises(KernelError) as caught:
        syscall("close", -1, hint={errno.EBADF: "is it open?", errno.EIO: "is the disk well?"})
    assert caught.value.hint == "is it open?"
    with pytest.raises(KernelError) as caught:
        syscall("close", -1, hint={errno.EIO: "is the disk well?"})
    assert caught.value.hint == ""


def test_an_unknown_call_is_a_mistake_of_the_program() -> None:
    with pytest.raises(AttributeError):
        syscall("no_such_call")


def test_a_zero_byte_in_a_path_is_refused_instead_of_cutting_it() -> None:
    assert c_string(Path("/etc")) == b"/etc"
    with pytest.raises(InvalidArgument, match="zero byte"):
        c_string("/etc\0/shadow")


def test_every_machine_knows_the_same_calls() -> None:
    x86, arm = (set(module._BY_MACHINE[machine]) for machine in ("x86_64", "aarch64"))
    assert x86 == arm


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_numbers_are_those_of_the_kernels_headers(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"needs the kernel's headers: {header}")
    official = dict(re.findall(r"^#define __NR_(\w+)\s+(\d+)", Path(header).read_text(), re.MULTILINE))
    ours = module._EVERYWHERE | module._BY_MACHINE[machine]
    known = {name: number for name, number in ours.items() if name in official}
    assert len(known) >= len(ours) - 3  # an old header may lack the youngest
    assert known == {name: int(official[name]) for name in known}


def test_the_table_is_of_this_machine() -> None:
    assert NUMBERS["pivot_root"] == module._BY_MACHINE[platform.machine()]["pivot_root"]
