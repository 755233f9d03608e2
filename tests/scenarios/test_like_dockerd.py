"""The stock docker command says the same on Docker's own daemon and on ours, line by line."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from ..docker_oracle import dockerd, recent_client
from .conftest import Daemon, layer_tar, make_daemon

__all__ = ["dockerd"]

pytestmark = recent_client

LINES = [line for line in (Path(__file__).parent / "lines_like_dockerd.txt").read_text().splitlines()
         if line and not line.startswith("#")]  # fmt: skip
Ended = tuple[int, str, str]


def image_archive() -> bytes:
    """`busybox` in docker's archive format, the same for both daemons."""
    layer = layer_tar()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine], "os": "linux",
        "created": "2026-01-01T00:00:00Z", "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "the tests"}],
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Labels": {"origin": "test"}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer).hexdigest()}"]},
    }  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": ["busybox:latest"], "Layers": ["layer.tar"]}]
    documents = {"config.json": config, "manifest.json": manifest}
    files = {"layer.tar": layer, **{name: json.dumps(document).encode() for name, document in documents.items()}}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def alike(text: str, folder: Path) -> str:
    """Without what must differ between two daemons: IDs, times, paths of their own, how long ago."""
    text = re.sub(r"[^ ':]*/volumes/(\w+)/_data", r"VOLUME-\1", text.replace(str(folder), "{tmp}"))
    text = re.sub(r"\b[0-9a-f]{64}\b", "ID64", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "ID12", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(Z| \+0000 UTC)?", "MOMENT", text)
    text = re.sub(r"(Less than a second|About a minute|\d+ (seconds?|minutes?))( ago)?", "TIME", text)
    return re.sub(r" {2,}", "  ", text)


def run_all(url: str, folder: Path) -> list[Ended]:
    """All lines, one after the other."""
    folder.mkdir()
    (folder / "envfile").write_text("A=from file\n# c\nB\n")
    with tarfile.open(folder / "file.tar", "w") as archive:
        archive.add(folder / "envfile", "envfile")
    (folder / "config.json").write_text("{}")
    environment = {**os.environ, "DOCKER_API_VERSION": "1.41", "DOCKER_CONFIG": str(folder), "DOCKER_HOST": url}

    def call(words: list[str], stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(["docker", *words], input=stdin, capture_output=True, timeout=60, check=False,
                              env=environment)  # fmt: skip

    there = call(["images", "-aq"]).stdout.split()
    if there:
        call(["rmi", "-f", *(one.decode() for one in there)])
    assert call(["load"], image_archive()).returncode == 0
    ended = []
    for line in LINES:
        done = call(shlex.split(line.replace("{tmp}", str(folder))))
        texts = [alike(stream.decode(errors="replace"), folder) for stream in (done.stdout, done.stderr)]
        ended.append((done.returncode, texts[0], texts[1]))
    left = call(["ps", "-aq"]).stdout.split()
    if left:
        call(["rm", "-fv", *(one.decode() for one in left)])
    return ended


@pytest.fixture(scope="module")
def ours(image_root: Path) -> Iterator[Daemon]:
    yield from make_daemon(image_root, ["--bridge", "none"])


@pytest.fixture(scope="module")
def both(dockerd: str, ours: Daemon, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Ended, Ended]]:
    """What each line came to: on dockerd, on ours."""
    if shutil.which("docker") is None:
        pytest.skip("needs the docker command")
    folder = tmp_path_factory.mktemp("lines")
    with ThreadPoolExecutor(2) as pool:
        theirs = pool.submit(run_all, dockerd, folder / "theirs")
        mine = pool.submit(run_all, ours.url, folder / "mine")
        return list(zip(theirs.result(), mine.result(), strict=True))


@pytest.mark.parametrize("number", range(len(LINES)), ids=[f"{n}-{line[:50]}" for n, line in enumerate(LINES)])
def test_the_line_ends_alike(both: list[tuple[Ended, Ended]], number: int) -> None:
    theirs, mine = both[number]
    assert mine == theirs, LINES[number]
