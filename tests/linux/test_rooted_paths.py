"""Paths that cannot leave their root, whatever links an image holds."""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker.errors import KernelError
from minidocker.linux import rooted_paths
from minidocker.linux.rooted_paths import (
    ANYWHERE,
    Resolve,
    fd_path,
    mkdirs_in_root,
    open_beneath,
    open_in_root,
    openat2,
)
from minidocker.linux.syscall import syscall


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A root with /etc/passwd of its own, beside which an `outside` stands."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/passwd").write_text("of the image")
    fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def _read(root: int, path: str) -> str:
    with open(open_in_root(root, path, os.O_RDONLY)) as file:
        return file.read()


def _where(fd: int) -> str:
    try:
        return os.readlink(fd_path(fd))
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("link", "path"),
    [
        (None, "/etc/passwd"),
        (None, "../../../../etc/passwd"),
        ("/etc/passwd", "link"),
        ("../../../etc/passwd", "/link"),
        ("/etc", "link/passwd"),
    ],
)
def test_absolute_names_dots_and_links_end_at_the_root(link: str | None, path: str, root: int, tmp_path: Path) -> None:
    if link:
        (tmp_path / "root/link").symlink_to(link)
    assert _read(root, path) == "of the image"


def test_a_magic_link_of_proc_is_refused(root: int) -> None:
    proc = os.open("/proc", os.O_PATH)
    try:
        with pytest.raises(KernelError) as caught:
            open_in_root(proc, "self/root/etc/passwd", os.O_RDONLY)
        assert caught.value.errno == errno.ELOOP
    finally:
        os.close(proc)


def test_beneath_refuses_what_in_root_redirects(root: int) -> None:
    for path in ("/etc/passwd", "../root/etc/passwd"):
        with pytest.raises(KernelError, match="leaves its root") as caught:
            openat2(root, path, os.O_RDONLY, resolve=Resolve.BENEATH)
        assert caught.value.errno == errno.EXDEV


def test_a_descriptor_is_closed_on_exec(root: int) -> None:
    fd = open_in_root(root, "etc/passwd", os.O_RDONLY)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_new_file_gets_its_mode(root: int) -> None:
    fd = open_in_root(root, "etc/new", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    os.close(fd)


def test_the_kernel_is_asked_again_when_the_tree_changed_meanwhile(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = [errno.EAGAIN, errno.EINTR, errno.EAGAIN]

    def busy(name: str, *arguments: object, **named: object) -> int:
        if refusals:
            raise KernelError(name, None, refusals.pop())
        return syscall(name, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(rooted_paths, "syscall", busy)
    assert _read(root, "etc/passwd") == "of the image"
    assert refusals == []


def test_missing_directories_are_made_and_the_last_is_returned(root: int, tmp_path: Path) -> None:
    assert _where(mkdirs_in_root(root, "/a/./b//../c", 0o750)) == str(tmp_path / "root/a/c")
    assert stat.S_IMODE((tmp_path / "root/a").stat().st_mode) == 0o750
    assert not (tmp_path / "root/a/c").is_symlink()


def test_the_root_itself_is_a_directory_of_the_root(root: int, tmp_path: Path) -> None:
    for path in ("/", "", "..", "/new/../.."):
        assert _where(mkdirs_in_root(root, path)) == str(tmp_path / "root")


@pytest.mark.parametrize("target", ["/outside/x", "../../outside/x", "../../../../outside/x"])
def test_a_dangling_link_is_followed_within_the_root(target: str, root: int, tmp_path: Path) -> None:
    (tmp_path / "root/etc/link").symlink_to(target)
    assert _where(mkdirs_in_root(root, "/etc/link/y")) == str(tmp_path / "root/outside/x/y")
    assert os.listdir(tmp_path / "outside") == []


def test_links_that_lead_nowhere_but_to_each_other_are_an_error(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/a").symlink_to("b")
    (tmp_path / "root/b").symlink_to("a")
    with pytest.raises(KernelError) as caught:
        mkdirs_in_root(root, "a/x")
    assert caught.value.errno == errno.ELOOP


def test_more_dangling_links_than_the_kernel_follows_are_an_error(root: int, tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"root/{number}").symlink_to(f"{number + 1}")
    with pytest.raises(KernelError) as caught:
        mkdirs_in_root(root, "0")
    assert caught.value.errno == errno.ELOOP


def test_a_file_in_the_way_is_an_error(root: int) -> None:
    for path in ("etc/passwd", "etc/passwd/x", "etc/passwd/x/y"):
        with pytest.raises(KernelError) as caught:
            mkdirs_in_root(root, path)
        assert caught.value.errno == errno.ENOTDIR


@pytest.mark.parametrize("target", ["../outside", "/outside"])
def test_a_directory_exchanged_for_a_link_right_after_it_was_looked_at_is_refused(
    target: str, root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "root/swap"
    directory.mkdir()

    def exchange_then_open(dir_fd: int, path: str, flags: int, mode: int = 0, resolve: Resolve = ANYWHERE) -> int:
        if path == "swap" and flags & os.O_DIRECTORY and not directory.is_symlink():  # seen as a directory by now
            directory.rmdir()
            directory.symlink_to(str(tmp_path) + target if target.startswith("/") else target)
        return openat2(dir_fd, path, flags, mode, resolve)

    monkeypatch.setattr(rooted_paths, "openat2", exchange_then_open)
    with pytest.raises(KernelError) as caught:
        mkdirs_in_root(root, "swap/new")
    assert caught.value.errno in (errno.ELOOP, errno.EXDEV)
    assert os.listdir(tmp_path / "outside") == []


def test_a_directory_that_is_exchanged_for_a_link_all_the_time_never_leads_outside(root: int, tmp_path: Path) -> None:
    swap, link = tmp_path / "root/swap", tmp_path / "root/link"
    swap.mkdir()
    link.symlink_to(tmp_path / "outside")
    at_fdcwd, rename_exchange = -100, 2
    done = threading.Event()

    def exchange() -> None:
        while not done.is_set():
            syscall("renameat2", at_fdcwd, bytes(swap), at_fdcwd, bytes(link), rename_exchange)

    attacker = threading.Thread(target=exchange)
    attacker.start()
    made = 0
    try:
        for number in range(2000):
            try:
                assert _where(mkdirs_in_root(root, f"swap/{number}/x")).startswith(str(tmp_path / "root"))
                made += 1
            except KernelError:
                continue  # caught in the middle: refused is as good as inside
    finally:
        done.set()
        attacker.join()
    assert os.listdir(tmp_path / "outside") == []
    assert made > 0


def test_beneath_a_directory_links_that_stay_are_followed_and_no_others(tmp_path: Path) -> None:
    root = tmp_path / "volume"
    (root / "a/b").mkdir(parents=True)
    for name, target in (("inner", "a/b"), ("outer", "../x"), ("absolute", str(root / "a")), ("back", "../volume/a")):
        (root / name).symlink_to(target)
    assert _where(open_beneath(root, "a/b/../../inner", os.O_PATH)) == str(root / "a/b")
    for path in ("outer", "absolute", "back", "..", "/etc", "inner/../../.."):
        with pytest.raises(KernelError) as told:
            open_beneath(root, path, os.O_PATH)
        assert told.value.errno == errno.EXDEV, path
    with pytest.raises(KernelError) as told:
        open_beneath(root, "a/missing", os.O_PATH)
    assert told.value.errno == errno.ENOENT
    with pytest.raises(KernelError):
        open_beneath(tmp_path / "missing", "a", os.O_PATH)


def test_beneath_holds_while_a_directory_is_exchanged_for_a_link(tmp_path: Path) -> None:
    root, outside = tmp_path / "volume", tmp_path / "outside"
    (root / "part").mkdir(parents=True)
    outside.mkdir()
    (root / "link").symlink_to(outside)
    done = threading.Event()

    def exchange() -> None:
        while not done.is_set():
            for one, other in (("part", "spare"), ("link", "part"), ("part", "link"), ("spare", "part")):
                (root / one).rename(root / other)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(2000):
            try:
                fd = open_beneath(root, "part", os.O_PATH)
            except KernelError:
                continue
            assert _where(fd).startswith(str(root))
    finally:
        done.set()
        thread.join()
