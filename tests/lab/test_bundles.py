"""A place for bundles: a runtime runs what is made there, and all of it goes, also when the kernel is killed."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker.errors import NotFound
from minidocker.lab.props import bundles
from minidocker.lab.session import LABEL
from minidocker.lab.setup import base_image

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def rootfs() -> bytes:
    """A root filesystem with busybox in it, as a tar archive."""
    try:
        busybox = base_image.find_busybox()
    except NotFound as error:
        pytest.skip(str(error))
    return base_image.layer_tar(busybox, ["bin/sh", "bin/sleep", "bin/echo"])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[bundles.Place]:
    made = bundles.Place(tmp_path / "place")
    yield made
    bundles.remove(made.directory)


def test_a_bundle_runs_and_its_output_and_status_are_kept(place: bundles.Place, rootfs: bytes) -> None:
    bundle = place.make("one", ["sh", "-c", "echo out; exit 7"], [rootfs[:1000], rootfs[1000:]])
    answer = place.runtime("run", "--bundle", bundle, "first")
    assert (answer.status, answer.text, place.output("first")) == (7, "out", "out\n")
    assert place.runtime("state", "first").status == 1


def test_containers_of_two_places_may_have_the_same_id(place: bundles.Place, rootfs: bytes, tmp_path: Path) -> None:
    other = bundles.Place(tmp_path / "other")
    try:
        pids = []
        for each in (place, other):
            assert each.runtime("create", "--bundle", each.make("b", ["sleep", "9"], [rootfs]), "same").status == 0
            pids.append(each.runtime("state", "same").document()["pid"])
        place.runtime("delete", "--force", "same")
        assert _ended(pids[0]) and other.runtime("state", "same").document()["status"] == "created"
    finally:
        bundles.remove(other.directory)


def test_what_edit_does_not_name_stays(place: bundles.Place, rootfs: bytes) -> None:
    bundle = place.make("one", ["true"], [rootfs])
    before = json.loads((bundle / "config.json").read_text())
    bundles.edit(bundle, hostname="other", process={"args": ["echo"]})
    after = json.loads((bundle / "config.json").read_text())
    assert after == before | {"hostname": "other", "process": before["process"] | {"args": ["echo"]}}


def test_a_bundles_files_have_the_modes_of_the_archive(place: bundles.Place) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("tmp")
        entry.type, entry.mode, entry.uid = tarfile.DIRTYPE, 0o1777, 33
        tar.addfile(entry)
    made = (place.make("one", ["true"], [buffer.getvalue()]) / "rootfs/tmp").stat()
    assert (made.st_mode & 0o7777, made.st_uid) == (0o1777, 33)


def test_remove_kills_what_runs_and_forgets_what_was_only_created(place: bundles.Place, rootfs: bytes) -> None:
    bundle = place.make("one", ["sleep", "600"], [rootfs])
    pids = []
    for id in ("running", "created"):
        assert place.runtime("create", "--bundle", bundle, id).status == 0
        pids.append(place.runtime("state", id).document()["pid"])
    place.runtime("start", "running")
    bundles.remove(place.directory)
    assert not place.directory.exists()
    for pid in pids:
        assert _ended(pid)
    bundles.remove(place.directory)  # what is not there is fine


KERNEL = """
import sys
from minidocker.lab.props import bundles
place = bundles.begin({sys.argv[1]: sys.argv[2]})
bundle = place.make("one", ["sleep", "600"], [sys.stdin.buffer.read()])
assert place.runtime("create", "--bundle", bundle, "one").status == 0
print(place.directory, place.runtime("state", "one").document()["pid"], flush=True)
import time; time.sleep(60)
"""


def test_all_of_it_goes_when_the_kernel_is_killed(rootfs: bytes) -> None:
    owner = f"0-{os.getpid()}-0"
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, LABEL, owner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False
    )
    assert kernel.stdin is not None and kernel.stdout is not None
    kernel.stdin.write(rootfs)
    kernel.stdin.close()
    directory, pid = kernel.stdout.readline().decode().split()
    assert Path(directory).exists() and not _ended(int(pid))
    kernel.send_signal(signal.SIGKILL)
    kernel.wait()
    kernel.stdout.close()
    deadline = time.monotonic() + 10
    while Path(directory).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(directory).exists() and _ended(int(pid))


def _ended(pid: int) -> bool:
    """Gone, or waiting to be reaped by its parent, within some seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True
        if text[text.rindex(")") + 2] in "ZX":
            return True
        time.sleep(0.02)
    return False
