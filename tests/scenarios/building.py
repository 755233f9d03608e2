"""What the build scenarios share: archives made by hand, and builds by plain HTTP."""

import contextlib
import http.client
import io
import json
import os
import socket
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

FROM = "FROM busybox\n"
BASE = "busybox:latest"
Lines = list[dict[str, Any]]


def archive(files: dict[str, str | bytes | tarfile.TarInfo], mode: str = "w") -> bytes:
    """A tar of files by name; a TarInfo stands for itself."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            raw = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(raw), 0o644
            tar.addfile(member, io.BytesIO(raw))
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("daemon")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def post(daemon: Any, context: bytes, *, headers: dict[str, str] | None = None, **query: Any) -> tuple[int, Lines]:
    """POST /build; the status and all objects of the answer."""
    connection = Connection(daemon.socket)
    pairs = [(k, v if isinstance(v, str) else json.dumps(v)) for k, v in query.items()]
    head = {"Content-Type": "application/x-tar", **(headers or {})}
    connection.request("POST", f"/v1.41/build?{urlencode(pairs)}", context, head)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, [json.loads(line) for line in text.splitlines() if line]


def said(lines: Lines) -> str:
    return "".join(line.get("stream", "") for line in lines)


def build(daemon: Any, dockerfile: str, files: dict[str, Any] | None = None, **query: Any) -> Lines:
    """A build that works."""
    status, lines = post(daemon, archive({"Dockerfile": dockerfile, **(files or {})}), **query)
    assert status == 200, lines
    assert "error" not in lines[-1], lines[-1]
    return lines


def failure(daemon: Any, dockerfile: str, files: dict[str, Any] | None = None, **query: Any) -> dict[str, Any]:
    """The last object of a build that does not."""
    _, lines = post(daemon, archive({"Dockerfile": dockerfile, **(files or {})}), **query)
    last = lines[-1]
    assert "error" in last or "message" in last, lines
    return last


def run(daemon: Any, image: str, *words: str) -> str:
    done = daemon.cli("run", "--rm", "--network", "none", image, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_of(daemon: Any) -> set[str]:
    """All blobs and layers of the data root."""
    roots = (daemon.data_root / "blobs/sha256", daemon.data_root / "layers", daemon.data_root / "layers/staged",
             daemon.data_root / "containers", daemon.data_root / "blobs/partial")
    found = {f"{root.name}/{name}" for root in roots for name in os.listdir(root) if not name.endswith(".removing")}
    build_root = daemon.data_root / "build"
    return found | ({f"build/{name}" for name in os.listdir(build_root)} if build_root.exists() else set())


def clean_images(daemon: Any) -> None:
    """Leave the base image alone."""
    import docker

    daemon.remove_all()
    client = daemon.client()
    for image in client.images.list(all=True):
        if BASE not in image.tags:
            with contextlib.suppress(docker.errors.APIError):  # it went with a child
                client.images.remove(image.id, force=True)
    client.close()
