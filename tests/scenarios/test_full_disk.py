"""A full disk: what cannot be done says so and names what it could not write; nothing else suffers, nothing stays."""

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import docker
import pytest
import requests

from minidocker.lab.setup import registry as real_registry

from .conftest import Daemon, wait_until

SIZE_BYTES = 48 << 20
BALLAST = "ballast"


@pytest.fixture
def small(image_root: Path) -> Iterator[Daemon]:
    """A daemon whose data root is a file system of 48 MiB."""
    root = Path(tempfile.mkdtemp(prefix="md-full-", dir="/tmp"))
    (root / "data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", root / "data"], check=True)
    daemon = Daemon(root, ["--bridge", "none"])
    try:
        shutil.copytree(image_root / "data", root / "data", symlinks=True, dirs_exist_ok=True)
        daemon.start()
        yield daemon
        free(daemon)
        if daemon.process is None:
            daemon.start()
        daemon.remove_all()
        daemon.end()
    finally:
        if daemon.process is not None:
            daemon.end()
        subprocess.run(["umount", root / "data"], check=True)
        wait_until(lambda: not daemon.leftovers())
        shutil.rmtree(root)


def fill(daemon: Daemon, leave_bytes: int = 0) -> None:
    """Use up all space but `leave_bytes`."""
    with open(daemon.data_root / BALLAST, "ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    if leave_bytes:
        path = daemon.data_root / BALLAST
        os.truncate(path, path.stat().st_size - leave_bytes)


def free(daemon: Daemon) -> None:
    (daemon.data_root / BALLAST).unlink(missing_ok=True)


def used_bytes(daemon: Daemon) -> int:
    status = os.statvfs(daemon.data_root)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def archive(size_bytes: int) -> bytes:
    """A docker-archive with one layer of that many random bytes."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as inner:
        entry = tarfile.TarInfo("big")
        entry.size = size_bytes
        inner.addfile(entry, io.BytesIO(os.urandom(size_bytes)))
    diff_id = subprocess.run(["sha256sum"], input=layer.getvalue(), capture_output=True, check=True).stdout.split()[0]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id.decode()}"]},
    }
    listing = [{"Config": "config.json", "RepoTags": ["big:1"], "Layers": ["layer.tar"]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as outer:
        members = (("layer.tar", layer.getvalue()), ("config.json", json.dumps(config).encode()))
        for name, content in (*members, ("manifest.json", json.dumps(listing).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            outer.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def load(daemon: Daemon, content: bytes) -> str:
    """The last line of a load's answer."""
    client = daemon.client()
    answer = client.api._post(client.api._url("/images/load"), data=content)
    return str(answer.text.strip().splitlines()[-1])


def test_a_load_that_does_not_fit_names_what_and_gives_the_space_back(small: Daemon) -> None:
    before = used_bytes(small)
    for size in (12 << 20, 40 << 20):  # while it is unpacked; while it is received
        fill(small, leave_bytes=18 << 20)
        answer = load(small, archive(size))
        assert "ENOSPC" in answer and ("entry" in answer or "archive" in answer)
        free(small)
        assert used_bytes(small) <= before + (64 << 10)
        assert not list((small.data_root / "layers" / "staged").iterdir())
        assert not list((small.data_root / "blobs" / "partial").iterdir())
    assert [image.tags for image in small.client().images.list()] == [["busybox:latest"]]
    assert "Loaded image" in load(small, archive(1 << 20))
    small.client().images.remove("big:1")
    assert used_bytes(small) <= before + (64 << 10)


def test_a_pull_that_does_not_fit_leaves_nothing(small: Daemon, tmp_path: Path) -> None:
    if shutil.which("docker-registry", path="/usr/bin:/usr/sbin:/usr/local/bin") is None:
        pytest.skip("docker-registry is not installed (apt-get install docker-registry)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    real_registry.start(tmp_path / "registry", port)
    try:
        client, name = small.client(), f"127.0.0.1:{port}/big"
        assert "Loaded image" in load(small, archive(10 << 20))
        client.images.get("big:1").tag(name, "1")
        client.images.push(name, "1")
        client.images.remove(f"{name}:1")
        client.images.remove("big:1")
        before = used_bytes(small)
        for leave in (5 << 20, 15 << 20):  # while it is fetched; while it is unpacked
            fill(small, leave_bytes=leave)
            with pytest.raises(docker.errors.APIError, match="ENOSPC"):
                list(progress(client.api.pull(name, "1", stream=True, decode=True)))
            free(small)
            assert used_bytes(small) <= before + (64 << 10)
        assert client.images.pull(name, "1").tags == [f"{name}:1"]
    finally:
        real_registry.stop(tmp_path / "registry")


def progress(lines: Iterable[dict[str, str]]) -> Iterator[dict[str, str]]:
    """A stream's lines; its error is raised."""
    for line in lines:
        if "error" in line:
            raise docker.errors.APIError(line["error"])
        yield line


def test_create_and_start_say_what_they_could_not_write(small: Daemon) -> None:
    client = small.client()
    made = client.containers.create("busybox", "true", name="made")
    fill(small)
    with pytest.raises(docker.errors.APIError, match="ENOSPC") as refused:
        client.containers.create("busybox", "true", name="refused", volumes=["/a", "/b"])
    assert str(small.data_root) in str(refused.value) or "volume" in str(refused.value)
    with pytest.raises(docker.errors.APIError, match="ENOSPC"):
        made.start()
    assert [c.name for c in client.containers.list(all=True)] == ["made"]
    assert len(list((small.data_root / "containers").iterdir())) == 1
    assert not list((small.data_root / "volumes").iterdir())
    assert not list(small.exec_root.glob("containers/*"))
    with pytest.raises(docker.errors.APIError, match="ENOSPC"):
        client.images.get("busybox").tag("other", "1")
    assert client.images.get("busybox").tags == ["busybox:latest"]
    free(small)
    made.start()
    assert made.wait()["StatusCode"] == 0
    client.containers.create("busybox", "true", name="refused").remove()


def test_a_container_that_runs_lives_on_and_its_exit_is_told(small: Daemon) -> None:
    client = small.client()
    script = "while read line; do echo got $line; [ $line = end ] && exit 7; done"
    box = client.containers.run("busybox", ["sh", "-c", script], detach=True, stdin_open=True)
    sock = box.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    say(sock, b"before")
    fill(small)
    say(sock, b"during" + b"x" * 9000)  # the log loses that, the attached client does not
    assert client.ping() and len(client.containers.list()) == 1
    temporary = client.containers.list()[0]
    assert temporary.exec_run("echo fine").output == b"fine\n"
    free(small)
    say(sock, b"after")
    assert box.logs().splitlines()[0] == b"got before" and box.logs().splitlines()[-1] == b"got after"
    fill(small)
    waiting = box.client.api.wait
    say(sock, b"end")
    assert waiting(box.id)["StatusCode"] == 7
    box.reload()
    assert (box.status, box.attrs["State"]["ExitCode"]) == ("exited", 7)
    box.remove()
    assert client.containers.list(all=True) == []


def say(sock: object, line: bytes) -> None:
    """Send a line and wait until it comes back."""
    sock._sock.sendall(line + b"\n")  # type: ignore[attr-defined]
    wanted, seen = b"got " + line + b"\n", b""
    while not seen.replace(b"\0", b"").endswith(wanted[-20:]):
        piece = sock._sock.recv(65536)  # type: ignore[attr-defined]
        assert piece, seen
        seen += piece


def test_removal_and_the_next_daemon_work_on_a_full_disk(small: Daemon) -> None:
    client = small.client()
    client.containers.run("busybox", "sleep 1000", detach=True, name="lives")
    client.containers.run("busybox", "sleep 0.2", detach=True, name="temporary", remove=True)
    client.containers.create("busybox", "true", name="stopped")
    fill(small)
    small.restart(9)
    client = small.client()
    wait_until(lambda: [c.name for c in client.containers.list(all=True) if c.name == "temporary"] == [])
    assert client.containers.get("lives").status == "running"
    client.containers.get("stopped").remove()
    client.containers.get("lives").remove(force=True)
    assert client.containers.list(all=True) == []
    with contextlib.suppress(requests.ConnectionError):
        client.close()
