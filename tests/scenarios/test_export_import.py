"""A container's filesystem as an archive, and an archive as an image."""

import bz2
import functools
import gzip
import http.server
import io
import lzma
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
import zstandard

from .conftest import Daemon, layer_tar

LIMIT_BYTES = 64 << 20  # an export that grows beyond is not the container's: stop reading
SCRIPT = (
    "echo a > /vol/a; echo b > /tt/b; echo c > /root/c; ln /root/c /root/d; chown 5:6 /root/c; chmod 4711 /root/d;"
    "mkfifo /root/ff; ln -s c /root/l; echo done; sleep 1000"
)


def exported(container: object) -> tarfile.TarFile:
    content = bytearray()
    for piece in container.export():  # type: ignore[attr-defined]
        content += piece
        assert len(content) < LIMIT_BYTES
    return tarfile.open(fileobj=io.BytesIO(bytes(content)))


@pytest.mark.parametrize("state", ["running", "paused", "exited"])
def test_an_export_is_the_containers_own_tree_without_mounts(client: docker.DockerClient, state: str) -> None:
    container = client.containers.run(
        "busybox", ["sh", "-c", SCRIPT], network_mode="none", detach=True, tmpfs={"/tt": ""},
        volumes={"exported": {"bind": "/vol"}},
    )  # fmt: skip
    for line in container.logs(stream=True):
        if b"done" in line:
            break
    if state == "paused":
        container.pause()
    if state == "exited":
        container.kill()
        container.wait()
    members = {member.name: member for member in exported(container).getmembers()}
    assert {"bin/busybox", "etc/passwd", "root/c", "vol", "tt", "proc", "sys"} <= set(members)
    assert not [name for name in members if name.startswith(("vol/", "tt/", "proc/", "sys/", "dev/"))]
    file = members["root/c"]
    assert (file.uid, file.gid, file.mode) == (5, 6, 0o4711)
    assert members["root/d"].islnk()
    assert members["root/d"].linkname == "root/c"
    assert members["root/ff"].isfifo()
    assert members["root/l"].linkname == "c"


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gzip", "bzip2", "xz", "zstd"],
)
def test_an_archive_becomes_an_image(daemon: Daemon, compress: Callable[[bytes], bytes]) -> None:
    changes = ("-c", 'CMD ["cat", "/etc/passwd"]', "-c", "ENV a=b PATH=/bin")
    done = daemon.cli("import", *changes, "-m", "why", "-", "imported:1", stdin=compress(layer_tar()))
    assert done.returncode == 0, done.stderr
    client = daemon.client()
    image = client.images.get("imported:1")
    assert done.stdout == f"{image.id}\n"
    assert (image.attrs["Comment"], image.attrs["Os"], len(image.attrs["RootFS"]["Layers"])) == ("why", "linux", 1)
    assert image.attrs["Config"]["Env"] == ["a=b", "PATH=/bin"]
    assert client.containers.run("imported:1", network_mode="none", remove=True).startswith(b"root:")
    client.images.remove("imported:1")
    client.close()


def test_an_exported_container_comes_back_as_an_image(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", ["true"], network_mode="none")
    content = b"".join(container.export())
    image_id = daemon.cli("import", "-", stdin=content).stdout.strip()
    again = client.containers.create(image_id, ["true"], network_mode="none")
    assert exported(again).getnames() == exported(container).getnames()
    again.remove()
    client.images.remove(image_id)


def test_an_import_names_its_platform(daemon: Daemon, client: docker.DockerClient) -> None:
    done = daemon.cli("import", "--platform", "linux/arm64", "-", "imported:2", stdin=layer_tar())
    assert done.returncode == 0, done.stderr
    attrs = client.images.get("imported:2").attrs
    assert (attrs["Architecture"], attrs["Os"]) == ("arm64", "linux")
    client.images.remove("imported:2")


@pytest.mark.parametrize(
    ("words", "body", "reason"),
    [
        (["-", "x:1"], b"no archive at all" * 100, "archive is malformed"),
        (["-", "x:1"], layer_tar()[:100_000], "cut off"),
        (["-", "x:1"], gzip.compress(layer_tar())[:100_000], "cut off"),
        (["-c", "RUN x", "-", "x:1"], layer_tar(), "run is not a valid change command"),
        (["-", "BAD"], layer_tar(), "invalid reference format"),
    ],
)
def test_a_bad_import_leaves_nothing(
    daemon: Daemon, client: docker.DockerClient, words: list[str], body: bytes, reason: str
) -> None:
    blobs, layers = daemon.data_root / "blobs/sha256", daemon.data_root / "layers"
    before = (sorted(blobs.iterdir()), sorted(layers.iterdir()), len(client.images.list(all=True)))
    done = daemon.cli("import", *words, stdin=body)
    assert done.returncode == 1
    assert reason in done.stderr
    after = (sorted(blobs.iterdir()), sorted(layers.iterdir()), len(client.images.list(all=True)))
    assert after == before
    assert list((daemon.data_root / "blobs/partial").iterdir()) == []


def test_a_layer_that_escapes_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo(f"../../../../../../..{tmp_path}/escaped")
        archive.addfile(entry)
    done = daemon.cli("import", "-", "x:1", stdin=out.getvalue())
    assert done.returncode == 1
    assert "escaped" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_import_from_a_url(daemon: Daemon, client: docker.DockerClient, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(layer_tar())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{server.server_port}"
        done = daemon.cli("import", f"http://{place}/root.tar", "fetched:1")
        url = client.api._url("/images/create")
        missing = client.api.post(url, params={"fromSrc": f"{place}/nothing.tar", "repo": "fetched"}, timeout=20)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    attrs = client.images.get("fetched:1").attrs
    assert attrs["Comment"] == f"Imported from http://{place}/root.tar"
    client.images.remove("fetched:1")
    assert (missing.status_code, "404" in missing.text) == (404, True)
    assert "no Host in request URL" in daemon.cli("import", "http:///x.tar").stderr
