"""User namespaces: the ids inside and what they are outside."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.errors import InvalidArgument, KernelError
from minidocker.linux import namespaces, process
from minidocker.linux.namespaces import CloneFlag
from minidocker.linux.userns import IdMap, format_id_map, write_id_maps

pytestmark = pytest.mark.needs_root


class Unmapped:
    """A child in a new user namespace whose maps nobody has written yet; told to go on, it says who it is."""

    def __init__(self) -> None:
        ready, child_ready = os.pipe()
        child_go, self._go = os.pipe()
        self._answer, child_answer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._go)  # else its end of file never comes
                namespaces.unshare(CloneFlag.NEWUSER)
                os.write(child_ready, b"1")
                os.read(child_go, 1)
                os.write(child_answer, f"{os.getuid()} {os.getgid()}".encode())
            finally:
                os._exit(0)
        for fd in (child_ready, child_go, child_answer):
            os.close(fd)
        assert os.read(ready, 1) == b"1"
        os.close(ready)

    def ids(self) -> str:
        os.write(self._go, b"1")
        return os.read(self._answer, 100).decode()

    def close(self) -> None:
        os.close(self._go)
        os.close(self._answer)
        os.waitpid(self.pid, 0)


@pytest.fixture
def unmapped() -> Iterator[Unmapped]:
    child = Unmapped()
    yield child
    child.close()


def test_without_a_map_everybody_is_nobody(unmapped: Unmapped) -> None:
    assert unmapped.ids() == "65534 65534"


def test_a_mapped_process_is_root_inside(unmapped: Unmapped) -> None:
    # Its ids outside are ours, so they have to be in the map to be seen at all.
    write_id_maps(
        unmapped.pid,
        [IdMap(0, os.getuid(), 1), IdMap(1, 200001, 65535)],
        [IdMap(7, os.getgid(), 1), IdMap(8, 300001, 9)],
    )
    assert Path(f"/proc/{unmapped.pid}/uid_map").read_text().split() == ["0", "0", "1", "1", "200001", "65535"]
    assert Path(f"/proc/{unmapped.pid}/setgroups").read_text() == "allow\n"
    assert unmapped.ids() == "0 7"


def test_setgroups_can_be_denied_for_ever(unmapped: Unmapped) -> None:
    write_id_maps(unmapped.pid, [IdMap(0, 100000, 10)], [IdMap(0, 100000, 10)], setgroups=False)
    assert Path(f"/proc/{unmapped.pid}/setgroups").read_text() == "deny\n"


def test_a_second_map_is_refused_and_the_error_says_why(unmapped: Unmapped) -> None:
    one = [IdMap(0, 100000, 10)]
    write_id_maps(unmapped.pid, one, one)
    with pytest.raises(KernelError, match="written already") as caught:
        write_id_maps(unmapped.pid, one, one)
    assert caught.value.errno == errno.EPERM


def test_an_unprivileged_writer_maps_its_own_id_only_with_setgroups_denied(in_child: Callable[..., Any]) -> None:
    def as_user() -> tuple[int | None, str]:
        os.setgroups([])
        os.setgid(12345)
        os.setuid(12345)
        # The change of uid made us non-dumpable, so /proc/PID files are root's; a user's own process is not.
        process.set_dumpable(True)
        child = Unmapped()
        own = [IdMap(0, 12345, 1)]
        with pytest.raises(KernelError) as caught:
            write_id_maps(child.pid, own, own)  # uid_map is taken, gid_map is not: setgroups was not denied
        child.close()
        child = Unmapped()
        write_id_maps(child.pid, own, own, setgroups=False)
        ids = child.ids()
        child.close()
        return caught.value.errno, ids

    assert in_child(as_user) == (errno.EPERM, "0 0")


@pytest.mark.parametrize(
    ("ranges", "reason"),
    [
        ([], "1 to 340 ranges"),
        ([IdMap(n, n, 1) for n in range(341)], "1 to 340 ranges"),
        ([IdMap(0, 0, 0)], "empty"),
        ([IdMap(-1, 0, 5)], "beyond"),
        ([IdMap(0, 2**32 - 3, 3)], "beyond"),
        ([IdMap(0, 1000, 10), IdMap(9, 5000, 1)], "overlap inside"),
        ([IdMap(0, 1000, 10), IdMap(50, 1005, 1)], "overlap outside"),
    ],
)
def test_ranges_that_no_kernel_takes_are_refused_before_anything_is_written(ranges: list[IdMap], reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        format_id_map(ranges)


def test_the_largest_range_is_one_that_the_kernel_takes(unmapped: Unmapped) -> None:
    everything = [IdMap(0, 0, 2**32 - 1)]
    write_id_maps(unmapped.pid, everything, everything)
    assert Path(f"/proc/{unmapped.pid}/uid_map").read_text().split() == ["0", "0", str(2**32 - 1)]
