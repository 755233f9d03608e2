"""pull, push, login, save and load, against a real registry and Docker's daemon."""

import json
import os
import pty
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker_oracle import recent_client

from minidocker.lab.setup import registry as real_registry


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    port = _free_port()
    real_registry.start(tmp_path / "registry", port)
    yield f"127.0.0.1:{port}"
    real_registry.stop(tmp_path / "registry")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """A registry that wants `student` with `s3cret`."""
    if shutil.which("docker-registry") is None or shutil.which("htpasswd") is None:
        pytest.skip("needs docker-registry and htpasswd (apache2-utils)")
    users = tmp_path / "users"
    users.write_bytes(subprocess.run(["htpasswd", "-Bbn", "student", "s3cret"], check=True, capture_output=True).stdout)
    port = _free_port()
    real_registry.start(tmp_path / "guarded", port, real_registry.Security(None, None, htpasswd=users))
    yield f"127.0.0.1:{port}"
    real_registry.stop(tmp_path / "guarded")


@recent_client
def test_push_and_pull_say_what_docker_says(registry: str, same: Any, docker: Any) -> None:
    docker(f"tag box:1 {registry}/thing:1")
    docker(f"push {registry}/thing:1")      # the first push says more than the next ones
    for line in (f"push {registry}/thing:1", f"push -q {registry}/thing:1", f"pull {registry}/thing:1",
                 f"pull -q {registry}/thing:1", f"pull {registry}/nosuch", f"pull {registry}/thing",
                 f"push {registry}/nosuch", f"pull -a {registry}/thing:1", "pull UPPER"):
        same(line)
    docker(f"rmi {registry}/thing:1")


def test_run_pulls_an_absent_image_and_tells_so_on_stderr(registry: str, mini: Any, docker: Any) -> None:
    docker(f"tag box:1 {registry}/absent:1")
    docker(f"push {registry}/absent:1")
    docker(f"rmi {registry}/absent:1")
    ended = mini(f"run --rm {registry}/absent:1 echo hi")
    assert ended.out == "hi\n"
    assert ended.err.startswith(f"Unable to find image '{registry}/absent:1' locally\n1: Pulling from absent\n")
    assert f"Status: Downloaded newer image for {registry}/absent:1\n" in ended.err
    assert mini(f"run --rm --pull never {registry}/absent:2 true").status == 125
    docker(f"rmi {registry}/absent:1")


def test_on_a_terminal_a_pull_draws_its_lines_in_place(registry: str, mini: Any, docker: Any, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(os.urandom(3_000_000))
    with tarfile.open(tmp_path / "new.tar", "w") as archive:
        archive.add(tmp_path / "new", "new")
    docker(f"import {tmp_path}/new.tar {registry}/drawn:1")
    docker(f"push {registry}/drawn:1")
    docker(f"rmi {registry}/drawn:1")
    master, slave = pty.openpty()
    process = subprocess.Popen([*mini.program, "pull", f"{registry}/drawn:1"], stdin=slave, stdout=slave, stderr=slave,
                               env=mini.environment)
    os.close(slave)
    seen = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        seen += piece
    assert process.wait(60) == 0
    assert b"\x1b[1A\x1b[2K\r" in seen
    assert b"Status: Downloaded newer image" in seen
    os.close(master)
    docker(f"rmi {registry}/drawn:1")


def test_credentials_are_kept_used_and_forgotten(guarded: str, mini: Any, docker: Any) -> None:
    config = Path(mini.environment["HOME"]) / ".docker/config.json"
    docker(f"tag box:1 {guarded}/own:1")
    assert "no basic auth credentials" in mini(f"push {guarded}/own:1").err
    wrong = mini(f"login -u student --password-stdin {guarded}", stdin=b"wrong\n")
    assert wrong.status == 1
    assert not config.exists()
    good = mini(f"login -u student --password-stdin {guarded}", stdin=b"s3cret\n")
    assert good.out == "Login Succeeded\n"
    assert config.stat().st_mode & 0o777 == 0o600
    assert mini(f"push {guarded}/own:1").status == 0
    assert docker(f"push {guarded}/own:1").status == 0      # docker reads what we wrote
    assert mini(f"logout {guarded}").out == f"Removing login credentials for {guarded}\n"
    assert json.loads(config.read_text())["auths"] == {}
    docker(f"rmi {guarded}/own:1")


def test_a_credential_helper_is_asked(mini: Any, docker: Any, guarded: str, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    helper = programs / "docker-credential-toy"
    helper.write_text(f'#!/bin/sh\n[ "$1" = get ] && [ "$(cat)" = "{guarded}" ] && '
                      'echo \'{"ServerURL":"x","Username":"student","Secret":"s3cret"}\'\n')
    helper.chmod(0o755)
    config = Path(mini.environment["HOME"]) / ".docker"
    config.mkdir(exist_ok=True)
    (config / "config.json").write_text('{"credsStore": "toy"}')
    docker(f"tag box:1 {guarded}/helped:1")
    assert mini(f"push {guarded}/helped:1", PATH=f"{programs}:{os.environ['PATH']}").status == 0
    docker(f"rmi {guarded}/helped:1")


def test_save_and_load_go_through_files_and_pipes(mini: Any, docker: Any, tmp_path: Path) -> None:
    docker("tag box:1 saved:1")
    assert mini(f"save -o {tmp_path}/a.tar saved:1").status == 0
    docker("rmi saved:1")
    assert mini(f"load -i {tmp_path}/a.tar").out == "Loaded image: saved:1\n"
    archive = (tmp_path / "a.tar").read_bytes()
    assert mini("load", stdin=archive).out == "Loaded image: saved:1\n"
    assert mini(f"save -o {tmp_path}/b.tar nosuch").status == 1
    assert not (tmp_path / "b.tar").exists()
    docker("rmi saved:1")


def test_cp_lands_where_cp_would(mini: Any, docker: Any, tmp_path: Path) -> None:
    mini("run -d --name cc box:1 sleep 1000")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_text("x")
    (tree / "link").symlink_to("sub/file")
    for line in (f"cp {tree} cc:/tmp", f"cp {tree} cc:/new", f"cp {tree}/. cc:/tmp",
                 f"cp {tree}/sub/file cc:/tmp/other"):
        assert mini(line).err == ""
    assert mini("exec cc ls /tmp /new").out == docker("exec cc ls /tmp /new").out
    assert mini("exec cc cat /tmp/tree/sub/file /new/sub/file /tmp/sub/file /tmp/other /new/link").out == "xxxxx"
    for line in (f"cp cc:/new {tmp_path}", f"cp cc:/new {tmp_path}/again", f"cp cc:/new/. {tmp_path}/again"):
        assert mini(line).err == ""
    assert (tmp_path / "new/sub/file").read_text() == (tmp_path / "again/link").read_text() == "x"
    assert mini(f"cp cc:/nosuch {tmp_path}").status == 1
