"""Completion: what real shells offer, and what the program answers them."""

import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_daemon import FakeDaemon

from minidocker.cli.commands.completion import candidates
from minidocker.cli.index import COMMANDS, GROUPS
from minidocker.cli.options import table
from minidocker.cli.session import Session

from .conftest import START

WAIT_SECONDS = 30.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    container = {"Names": ["/web-1"], "Image": "nginx", "Status": "Up 3 seconds"}
    answers: dict[str, tuple[int, object]] = {
        "GET /containers/json": (200, [container, {"Names": ["/db"], "Image": "pg", "Status": "Created"}]),
        "GET /images/json": (200, [{"RepoTags": ["busybox:latest", "host:5000/x/y:1"]},
                                    {"RepoTags": ["<none>:<none>"]}]),
        "GET /networks": (200, [{"Name": "bridge", "Driver": "bridge"}, {"Name": "lan", "Driver": "bridge"}]),
        "GET /volumes": (200, {"Volumes": [{"Name": "data", "Driver": "local"}]}),
    }
    with FakeDaemon(tmp_path / "d.sock", answers) as made:
        yield made


@pytest.fixture
def environment(daemon: FakeDaemon, tmp_path: Path) -> dict[str, str]:
    """PATH with a `minidocker` in it, a home without habits, the daemon in DOCKER_HOST."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/minidocker"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(START)} "$@"\n')
    program.chmod(0o755)
    return {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": str(tmp_path), "DOCKER_HOST": daemon.url,
            "TERM": "dumb", "PS1": "> ", "LC_ALL": "C.UTF-8"}  # fmt: skip


def asked(environment: dict[str, str], *words: str) -> tuple[list[str], str]:
    done = subprocess.run([*START, "__complete", "--", *words], env=environment, capture_output=True, text=True,
                          check=True, timeout=30)  # fmt: skip
    *lines, directive = done.stdout.splitlines()
    assert done.stderr == ""
    return [line.partition("\t")[0] for line in lines], directive


# -- what the program answers --


def test_commands_groups_and_their_members(environment: dict[str, str]) -> None:
    everything, _ = asked(environment, "")
    assert set(everything) == {name for name in COMMANDS if " " not in name and name[0] != "_"} | set(GROUPS)
    assert asked(environment, "ren")[0] == ["rename"]
    assert asked(environment, "volume", "pr")[0] == ["prune"]
    assert asked(environment, "nonsense", "x") == ([], ":none")


@pytest.mark.parametrize("name", sorted(name for name in COMMANDS if name[0] != "_"))
def test_every_option_of_every_command_is_offered(name: str) -> None:
    words = name.split()
    module, attribute, _ = COMMANDS[name]
    command = getattr(__import__(f"minidocker.cli.commands.{module}", None, None, [attribute]), attribute)
    found, directive = candidates([*words, "-"], Session("", None, {}, ""))
    offered = {word for word, _ in found}
    assert directive == ":none"
    for option in table(command.options):
        if option.text:
            assert f"--{option.name}" in offered
            assert not option.short or f"-{option.short}" in offered


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("exec ", ["web-1", "db"]),
        ("exec -it w", ["web-1"]),
        ("exec web-1 l", []),
        ("stop web-1 ", ["db"]),
        ("rename db new ", []),
        ("run ", ["busybox:latest", "host:5000/x/y:1"]),
        ("run -it --rm --name x h", ["host:5000/x/y:1"]),
        ("run busybox -", []),
        ("run --network ", ["bridge", "lan"]),
        ("run --network=l", ["--network=lan"]),
        ("run --restart un", ["unless-stopped"]),
        ("network connect ", ["bridge", "lan"]),
        ("network connect lan ", ["web-1", "db"]),
        ("volume rm ", ["data"]),
        ("--log-level w", ["warn"]),
        ("-D rmi bus", ["busybox:latest"]),
        ("image rm bus", ["busybox:latest"]),
        ("container in", ["inspect"]),
        ("completion ", ["bash", "fish", "zsh"]),
        ("completion bash ", []),
        ("inspect d", ["db", "data"]),
        ("cp w", ["web-1:"]),
    ],
)
def test_operands_and_values(environment: dict[str, str], line: str, expected: list[str]) -> None:
    assert sorted(asked(environment, *line.split(" "))[0]) == sorted(expected)


def test_files_are_asked_for_where_files_are_meant(environment: dict[str, str]) -> None:
    assert asked(environment, "run", "--env-file", "")[1] == ":files"
    assert asked(environment, "cp", "./x")[1] == ":files"
    assert asked(environment, "exec", "")[1] == ":none"


def test_no_daemon_is_no_candidates_and_no_noise(environment: dict[str, str]) -> None:
    assert asked({**environment, "DOCKER_HOST": "unix:///nonexistent"}, "exec", "") == ([], ":none")
    assert asked(environment, "-H", "unix:///nonexistent", "exec", "") == ([], ":none")


def test_an_unknown_shell_is_refused(environment: dict[str, str]) -> None:
    done = subprocess.run([*START, "completion", "tcsh"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "unknown shell 'tcsh'; there are: bash, fish, zsh\n")


# -- real shells --


class Terminal:
    """A shell with somebody at its keyboard."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, environment)

    def type(self, text: str) -> None:
        self.seen = ""
        os.write(self.fd, text.encode())

    def until(self, text: str) -> str:
        end = time.monotonic() + WAIT_SECONDS
        while text not in self.seen:
            assert select.select([self.fd], [], [], end - time.monotonic())[0], f"{text!r} is not in {self.seen!r}"
            self.seen += os.read(self.fd, 4096).decode(errors="replace")
        return self.seen

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture(params=["bash", "zsh"])
def terminal(request: pytest.FixtureRequest, environment: dict[str, str], tmp_path: Path) -> Iterator[Terminal]:
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "settings.env").write_text("")
    command = ["bash", "--norc", "--noprofile", "-i"] if shell == "bash" else ["zsh", "-f", "-i"]
    made = Terminal(command, environment, tmp_path / "work")
    first = "" if shell == "bash" else "autoload -U compinit; compinit -u; PS1='> '; unsetopt zle_bracketed_paste;"
    made.type(f"{first} source <(minidocker completion {shell}); echo rea''dy\n")
    made.until("ready")
    yield made
    made.end()


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("minidocker unp", "minidocker unpause"),
        ("minidocker exec we", "minidocker exec web-1"),
        ("minidocker run host:5000/", "minidocker run host:5000/x/y:1"),
        ("minidocker run --network=la", "minidocker run --network=lan"),
        ("minidocker run --env-file se", "minidocker run --env-file settings.env"),
        ("minidocker network ins", "minidocker network inspect"),
    ],
)
def test_a_shell_completes_the_line(terminal: Terminal, typed: str, becomes: str) -> None:
    """The completed line is run as the argument of echo, so the shell itself tells what it became."""
    terminal.type(f"{typed}\t")
    terminal.until(becomes.split()[-1])
    terminal.type('\x01echo "<\x05>"\n')  # to the beginning of the line and to its end
    terminal.until(">\r\n")
    assert f"<{becomes}>" in terminal.seen.replace(" >", ">").replace('>"', "")


def test_fish_completes_the_line(environment: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("needs fish")
    for typed, expected in (("exec we", ["web-1"]), ("run host:5", ["host:5000/x/y:1"]), ("unp", ["unpause"])):
        script = f"minidocker completion fish | source; complete -C 'minidocker {typed}'"
        done = subprocess.run(["fish", "--no-config", "-c", script], env=environment, capture_output=True, text=True,
                              check=True, timeout=60)  # fmt: skip
        assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == expected, done.stderr
