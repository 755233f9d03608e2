"""What the user is told when nothing answers, or the command does not exist."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest


def test_without_a_daemon_the_socket_and_the_cure_are_named(cli: Any, tmp_path: Path) -> None:
    ended = cli("ps")
    assert ended.status == 1
    assert ended.out == ""
    assert f"Cannot connect to the minidocker daemon at unix://{tmp_path}/no.sock. Is the daemon running?" in ended.err
    assert "minidockerd" in ended.err


def test_run_without_a_daemon_ends_with_125(cli: Any) -> None:
    ended = cli("run box:1")
    assert ended.status == 125
    assert ended.err.startswith("minidocker: Cannot connect")


def test_a_socket_that_nobody_serves_is_no_daemon(cli: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/dead")
    ended = cli(f"-H unix://{tmp_path}/dead ps")
    assert ended.status == 1
    assert "Is the daemon running?" in ended.err


@pytest.mark.needs_root
def test_a_socket_of_another_group_says_how_to_get_in(cli: Any, tmp_path: Path) -> None:
    import subprocess

    checkout = Path(__file__).resolve().parents[2]
    if not all(place.stat().st_mode & 0o1 for place in (checkout, *checkout.parents)):
        pytest.skip("needs a checkout that other users may read")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0minidocker-test-unused")
    path = Path(f"/tmp/minidocker-test-{os.getpid()}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0o600)
        try:
            probe = ("import sys; sys.path.append(sys.argv[1]); from minidocker.cli.main import run; import posix; "
                     "posix.setgid(65534); posix.setuid(65534); posix._exit(run(['-H', sys.argv[2], 'ps'], {}))")
            done = subprocess.run([*cli.program[:-1], "-c", probe, str(checkout),
                                   f"unix://{path}"], capture_output=True, check=False)
        finally:
            path.unlink()
    assert done.returncode == 1
    assert b"permission denied" in done.stderr
    assert b"sudo" in done.stderr


def test_h_and_docker_host_name_the_daemon_and_h_wins(cli: Any, tmp_path: Path) -> None:
    assert "at unix:///env.sock" in cli("ps", DOCKER_HOST="unix:///env.sock").err
    assert "at unix:///flag.sock" in cli("-H unix:///flag.sock ps", DOCKER_HOST="unix:///env.sock").err


def test_without_a_word_the_daemon_is_the_one_on_the_default_socket() -> None:
    from minidocker.cli.main import GLOBAL_OPTIONS, open_session
    from minidocker.cli.options import parse

    for words in ([], ["--context", "default"]):
        session = open_session(parse(GLOBAL_OPTIONS, words)[0], {})
        assert session.transport.url == "unix:///run/minidocker/minidocker.sock"


def test_an_address_that_is_none_is_refused(cli: Any) -> None:
    ended = cli("-H foo://x ps")
    assert ended.status == 1
    assert "unable to parse docker host `foo://x`" in ended.err


def test_a_context_is_read_from_dockers_own_store(cli: Any, tmp_path: Path) -> None:
    import hashlib
    import json

    meta = tmp_path / ".docker/contexts/meta" / hashlib.sha256(b"far").hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": "far", "Endpoints": {"docker": {"Host": "unix:///far.sock"}}}))
    assert "at unix:///far.sock" in cli("--context far ps").err
    assert "at unix:///far.sock" in cli("ps", DOCKER_HOST="", DOCKER_CONTEXT="far").err
    missing = cli("--context nosuch ps")
    assert missing.status == 1
    assert 'context "nosuch": context not found' in missing.err


def test_a_misspelt_command_is_answered_with_a_suggestion(cli: Any) -> None:
    ended = cli("imagse")
    assert ended.status == 1
    assert "unknown command: minidocker imagse" in ended.err
    assert "\tminidocker images\n" in ended.err


def test_help_needs_no_daemon(cli: Any) -> None:
    assert "Management Commands:" in cli("--help").out
    assert cli("").out == cli("--help").out
    text = cli("run --help").out
    assert text.startswith("Usage:  minidocker run [OPTIONS] IMAGE [COMMAND] [ARG...]\n")
    assert "-v, --volume list" in text
    assert cli("help run").out == text
    assert "minidocker container ls, minidocker container list, minidocker container ps, minidocker ps" in \
        cli("ps --help").out


def test_version_needs_no_daemon(cli: Any) -> None:
    assert cli("--version").out.startswith("minidocker version ")


def test_every_command_of_the_index_can_be_loaded() -> None:
    from minidocker.cli.index import COMMANDS, GROUPS
    from minidocker.cli.main import _find

    for name in COMMANDS:
        found = _find(name.split())[1] if " " not in name else None
        assert found is not None or " " in name
    for group, (_, members) in GROUPS.items():
        for member in members:
            assert _find([group, member])[1] is not None


def test_doctor_needs_no_daemon_and_its_words_arrive(cli: Any) -> None:
    ended = cli("doctor")
    assert len(ended.out.splitlines()) > 5
    assert "Traceback" not in ended.err
