"""Builds through the socket: cache, failures, options, by docker-py, the stock command line and ours."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # building.py
from building import FROM, Connection, archive, build, clean_images, failure, files_of, post, run, said

pytestmark = pytest.mark.needs_root
Daemon = Any  # conftest.Daemon
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def only_the_base_image(daemon: Daemon) -> Iterator[None]:
    """Each test begins with the base image alone."""
    yield
    clean_images(daemon)


def wait_until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait for what no event tells a test of."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


# -- the cache --


STEPS = FROM + "COPY a /a\nRUN cat /a > /b\nENV X=1\n"


def test_a_second_build_makes_nothing_anew(daemon: Daemon) -> None:
    build(daemon, STEPS, {"a": "one"}, t="first")
    before = files_of(daemon)
    lines = build(daemon, STEPS, {"a": "one"}, t="second")
    assert said(lines).count(" ---> Using cache\n") == 3
    assert files_of(daemon) == before
    client = daemon.client()
    assert client.images.get("first").id == client.images.get("second").id


def test_a_new_time_is_no_change_but_new_content_and_mode_are(daemon: Daemon) -> None:
    def member(content: bytes, mode: int, mtime: int) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, raw, bits in (("Dockerfile", STEPS.encode(), 0o644), ("a", content, mode)):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode, entry.mtime = len(raw), bits, mtime
                tar.addfile(entry, io.BytesIO(raw))
        return buffer.getvalue()

    post(daemon, member(b"one", 0o644, 1))
    hits = [said(post(daemon, member(*what))[1]).count("Using cache")
            for what in ((b"one", 0o644, 2), (b"one", 0o755, 1), (b"two", 0o644, 1))]  # fmt: skip
    assert hits == [3, 0, 0]


def test_only_what_follows_a_change_is_made_anew(daemon: Daemon) -> None:
    build(daemon, FROM + "RUN echo first\nCOPY a /a\nRUN echo last\n", {"a": "one"})
    text = said(build(daemon, FROM + "RUN echo first\nCOPY a /a\nRUN echo last\n", {"a": "two"}))
    assert text.count("Using cache") == 1 and "last" in text


def test_no_cache_runs_every_step(daemon: Daemon) -> None:
    build(daemon, STEPS, {"a": "one"})
    assert "Using cache" not in said(build(daemon, STEPS, {"a": "one"}, nocache="1"))


def test_the_cache_says_why_a_step_missed(daemon: Daemon) -> None:
    build(daemon, STEPS, {"a": "one"})
    lines = build(daemon, STEPS, {"a": "two"}, explain="1")
    copy, run_step, _ = [line["aux"]["Cache"] for line in lines if "Cache" in line.get("aux", {})]
    assert copy["hit"] == "" and copy["reason"] == "what is copied has changed"
    assert copy["differences"][0]["field"] == "cmd" and copy["nearest"].startswith("sha256:")
    assert run_step["reason"] == "a step before it was made anew"


def test_a_build_argument_is_part_of_the_key_only_where_it_is_declared(daemon: Daemon) -> None:
    dockerfile = FROM + "RUN echo before\nARG V=1\nRUN echo $V\n"
    build(daemon, dockerfile, buildargs={"V": "2"})
    text = said(build(daemon, dockerfile, buildargs={"V": "3"}))
    assert text.count("Using cache") == 2 and "\n3\n" in text


def test_a_proxy_is_seen_but_changes_no_key(daemon: Daemon) -> None:
    dockerfile = FROM + "RUN echo proxy=$http_proxy\n"
    assert "proxy=one" in said(build(daemon, dockerfile, buildargs={"http_proxy": "one"}))
    assert "Using cache" in said(build(daemon, dockerfile, buildargs={"http_proxy": "two"}))


def test_copy_from_a_stage_that_made_the_same_files_again_hits(daemon: Daemon) -> None:
    def dockerfile(word: str) -> str:
        first = f"FROM busybox AS a\nRUN echo {word} > /tmp/noise; echo same > /out\n"
        return first + "FROM busybox\nCOPY --from=a /out /o\n"

    build(daemon, dockerfile("x"))
    text = said(build(daemon, dockerfile("y")))
    assert "Using cache" in text.rpartition("COPY --from")[2]


def test_cache_from_takes_over_the_steps_of_an_image_that_came_from_elsewhere(daemon: Daemon) -> None:
    build(daemon, STEPS, {"a": "one"}, t="elsewhere")
    saved = subprocess.run(["docker", "-H", daemon.url, "save", "elsewhere"], capture_output=True, check=True).stdout
    daemon.cli("rmi", "elsewhere")
    daemon.cli("load", stdin=saved)
    assert "Using cache" not in said(build(daemon, STEPS, {"a": "one"}))
    client = daemon.client()
    for image in client.images.list(all=True):
        if not image.tags:
            with contextlib.suppress(docker.errors.APIError):
                client.images.remove(image.id, force=True)
    text = said(build(daemon, STEPS + "RUN echo more\n", {"a": "one"}, cachefrom=["elsewhere"]))
    assert text.count("Using cache") == 3 and "more" in text


# -- failures --


@pytest.mark.parametrize("step", ["RUN echo x > /x && false", "COPY nope /x", "RUN [\"/nope\"]", "ADD a /b\nFOO x"])
def test_a_failed_step_leaves_nothing(daemon: Daemon, step: str) -> None:
    build(daemon, FROM + "RUN echo good > /good\n", {"a": "one"})
    before = files_of(daemon)
    failure(daemon, FROM + f"RUN echo good > /good\n{step}\n", {"a": "one"}, rm="1")
    wait_until(lambda: files_of(daemon) == before)
    assert daemon.cli("ps", "-aq").stdout == ""


def test_a_failure_names_line_and_instruction_beside_dockers_words(daemon: Daemon) -> None:
    last = failure(daemon, FROM + "\n# comment\nRUN exit 7\n")
    assert last["error"] == "The command '/bin/sh -c exit 7' returned a non-zero code: 7"
    assert last["errorDetail"] == {"code": 7, "message": last["error"], "line": 4, "instruction": "RUN exit 7"}


def test_an_output_that_is_cut_in_a_character_and_stderr_arrive_whole(daemon: Daemon) -> None:
    text = said(build(daemon, FROM + "RUN printf '\\303'; sleep 0.1; printf '\\244\\n'; echo red >&2\n"))
    assert "ä" in text and "\x1b[91mred\n\x1b[0m" in text


def test_a_client_that_goes_away_cancels_its_build(daemon: Daemon) -> None:
    before = files_of(daemon)
    connection = Connection(daemon.socket)
    context = archive({"Dockerfile": FROM + "RUN echo started && sleep 1000\n"})
    connection.request("POST", "/v1.41/build?rm=1", context, {"Content-Type": "application/x-tar"})
    response = connection.getresponse()
    while b"started\\n" not in response.readline():
        pass
    assert daemon.cli("ps", "-q").stdout
    response.close()
    connection.close()
    wait_until(lambda: daemon.cli("ps", "-aq").stdout == "")
    wait_until(lambda: files_of(daemon) == before)


def test_builds_run_side_by_side(daemon: Daemon) -> None:
    results: list[str] = []

    def one(number: int) -> None:
        dockerfile = FROM + f"COPY a /a\nRUN echo number {number} > /n\n"
        results.append(said(build(daemon, dockerfile, {"a": "x"}, t=f"n{number}")))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert [run(daemon, f"n{number}", "cat", "/n") for number in range(6)] == [f"number {n}\n" for n in range(6)]


# -- options --


def test_limits_and_shared_memory_reach_the_command(daemon: Daemon) -> None:
    dockerfile = FROM + "RUN cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; " \
        "grep /dev/shm /proc/mounts; ulimit -n\n"
    ulimits = [{"Name": "nofile", "Soft": 111, "Hard": 222}]
    text = said(build(daemon, dockerfile, memory="33554432", shmsize="1048576", ulimits=ulimits))
    assert "33554432\n" in text and "size=1024k" in text and "\n111\n" in text


def test_every_limit_is_in_the_commands_own_control_group(daemon: Daemon) -> None:
    names = ("memory.max", "memory/memory.limit_in_bytes", "cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us",
             "cpu/cpu.shares", "cpuset.cpus", "cpuset/cpuset.cpus")  # fmt: skip
    shown = f"cd /sys/fs/cgroup; for f in {' '.join(names)}; do test ! -e $f || echo $f = $(cat $f); done"
    limits = {"memory": "67108864", "memswap": "67108864", "cpuperiod": "50000", "cpuquota": "25000",
              "cpushares": "100", "cpusetcpus": "0"}  # fmt: skip
    text = said(build(daemon, FROM + f"RUN {shown}\n", **limits))
    lines = dict(line.split(" = ") for line in text.splitlines() if " = " in line and line.split(" = ")[0] in names)
    wanted = {"memory.max": "67108864", "memory/memory.limit_in_bytes": "67108864", "cpu.max": "25000 50000",
              "cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "50000", "cpu/cpu.shares": "100",
              "cpuset.cpus": "0", "cpuset/cpuset.cpus": "0"}  # fmt: skip
    assert lines and lines == {name: wanted[name] for name in lines}


def test_a_command_that_needs_more_memory_is_killed_and_ends_the_build(daemon: Daemon) -> None:
    last = failure(daemon, FROM + "RUN tail /dev/zero\n", memory="16777216", memswap="16777216")
    assert last["errorDetail"]["code"] == 137


def test_network_none_and_extra_hosts(daemon: Daemon) -> None:
    dockerfile = FROM + "RUN ls /sys/class/net; cat /etc/hosts\n"
    text = said(build(daemon, dockerfile, networkmode="none", extrahosts="some.name:10.1.2.3"))
    assert "\nlo\n" in text and "10.1.2.3\tsome.name" in text


def test_labels_come_last_and_unused_arguments_are_told(daemon: Daemon) -> None:
    lines = build(daemon, FROM + "LABEL a=file\n", t="l:1", labels={"a": "line", "b": "$x"}, buildargs={"NO": "1"})
    assert "Step 4/4 : LABEL b=$x\n" in said(lines)
    assert "[Warning] One or more build-args [NO] were not consumed\n" in said(lines)
    assert daemon.client().images.get("l:1").labels == {"origin": "test", "a": "line", "b": "$x"}


def test_a_target_ends_the_build(daemon: Daemon) -> None:
    dockerfile = "FROM busybox AS one\nENV A=1\nFROM one AS two\nRUN false\n"
    assert "Successfully built" in said(build(daemon, dockerfile, target="one"))
    assert failure(daemon, dockerfile, target="three")["message"] == "failed to reach build target three in Dockerfile"


def test_a_quiet_build_says_the_id_alone_and_a_failed_one_all(daemon: Daemon) -> None:
    lines = build(daemon, FROM + "ENV A=1\n", q="1", t="q")
    assert lines == [{"stream": f"{daemon.client().images.get('q').id}\n"}]
    _, lines = post(daemon, archive({"Dockerfile": FROM + "RUN false\n"}), q="1")
    assert "Step 2/2" in said(lines) and lines[-1]["errorDetail"]["code"] == 1


def test_without_rm_the_containers_stay(daemon: Daemon) -> None:
    text = said(build(daemon, FROM + "RUN echo kept > /k\n", rm="0", t="kept"))
    assert "Removing intermediate container" not in text
    assert len(daemon.cli("ps", "-aq").stdout.split()) == 1
    assert run(daemon, "kept", "cat", "/k") == "kept\n"


def test_the_beginning_of_a_line_does_not_wait_for_an_end_that_is_long_in_coming(daemon: Daemon) -> None:
    lines = build(daemon, FROM + "RUN printf half; sleep 0.5; echo whole; nosuch; true\n")
    shown = [line["stream"] for line in lines if "stream" in line]
    assert shown[shown.index("half") :][:3] == ["half", "whole\n", "\x1b[91m/bin/sh: nosuch: not found\n\x1b[0m"]


def test_with_forcerm_a_failed_steps_container_goes_and_that_is_said(daemon: Daemon) -> None:
    _, lines = post(daemon, archive({"Dockerfile": FROM + "RUN false\n"}), forcerm="1")
    assert lines[-2]["stream"].startswith("Removing intermediate container ")
    assert daemon.cli("ps", "-aq").stdout == ""


def test_with_neither_rm_nor_forcerm_the_container_of_a_failed_step_stays_to_be_looked_at(daemon: Daemon) -> None:
    content = archive({"Dockerfile": FROM + "RUN true\nRUN echo why > /why; false\n"})
    _, lines = post(daemon, content, rm="0", nocache="1")
    assert lines[-1]["errorDetail"]["code"] == 1
    left = daemon.cli("ps", "-aq").stdout.split()
    assert len(left) == 2 and daemon.cli("cp", f"{left[0]}:/why", "-").stdout.rstrip("\0").endswith("why\n")


def test_an_argument_without_a_value_leaves_the_default(daemon: Daemon) -> None:
    dockerfile = FROM + "ARG V=default\nARG W\nRUN echo $V-${W-unset}\n"
    text = said(build(daemon, dockerfile, buildargs={"V": None, "W": None}))
    assert "default-unset\n" in text


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({"squash": "1"}, 400, "squash is only supported with experimental mode"),
        ({"version": "2"}, 501, "BuildKit is not supported"),
        ({"t": "UPPER"}, 400, "repository name must be lowercase"),
        ({"dockerfile": "nope"}, 400, "Cannot locate specified Dockerfile: nope"),
        ({"dockerfile": "../x"}, 400, "forbidden path outside the build context: ../x ()"),
        ({"buildargs": "{"}, 400, "error reading buildargs"),
        ({"platform": "a/b/c/d"}, 400, ""),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_said(
    daemon: Daemon, query: dict[str, str], status: int, message: str
) -> None:
    got, lines = post(daemon, archive({"Dockerfile": FROM}), **query)
    assert got == status and message in lines[0]["message"]


def test_prune_answers(daemon: Daemon) -> None:
    connection = Connection(daemon.socket)
    connection.request("POST", "/v1.41/build/prune")
    assert json.loads(connection.getresponse().read()) == {"CachesDeleted": None, "SpaceReclaimed": 0}


# -- command lines --


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=["docker", "minidocker"])
def command(request: pytest.FixtureRequest, daemon: Daemon) -> Command:
    """The stock command line, and ours."""
    program = ["docker"] if request.param == "docker" else [sys.executable, "-m", "minidocker.cli"]
    environment = {**os.environ, "DOCKER_HOST": daemon.url, "DOCKER_BUILDKIT": "0", "PYTHONPATH": str(REPO)}

    def call(*words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[str]":
        done = subprocess.run([*program, *words], input=stdin, capture_output=True, check=False, timeout=60,
                              env=environment)  # fmt: skip
        return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())

    return call


def test_the_command_line_builds_and_respects_the_ignore_file(
    command: Command, daemon: Daemon, tmp_path: Path
) -> None:
    for name in ("a.md", "b.txt", "d/c.md", "d/keep.md", "d/e/f", "node/x", "long/" + "n" * 120):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "Dockerfile").write_text(FROM + "COPY . /all\n")
    (tmp_path / ".dockerignore").write_text("# no\n**/*.md\n!d/keep.md\nnode\nd/e\nDockerfile\n.dockerignore\n")
    done = command("build", "-t", "ignored", "--iidfile", str(tmp_path / "id"), str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "Step 1/2 : FROM busybox\n" in done.stdout and done.stdout.endswith("Successfully tagged ignored:latest\n")
    listed = run(daemon, "ignored", "find", "/all", "-type", "f")
    assert sorted(listed.split()) == ["/all/b.txt", "/all/d/keep.md", "/all/long/" + "n" * 120]
    assert (tmp_path / "id").read_text() == daemon.client().images.get("ignored").id


def test_the_command_line_reads_stdin_and_dockerfiles_elsewhere(command: Command, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "a").write_text("x")
    (tmp_path / "D").write_text(FROM + "COPY a /a\nCOPY . /all\nRUN test \"$(ls -A /all)\" = a\n")
    done = command("build", "-f", str(tmp_path / "D"), str(context))
    assert done.returncode == 0, done.stderr
    assert command("build", "-", stdin=FROM.encode() + b"ENV A=1\n").returncode == 0
    tar = archive({"Dockerfile": FROM + "COPY a /a\n", "a": "x"}, "w:gz")
    assert command("build", "-", stdin=tar).returncode == 0
    assert command("build", "-f", "-", str(context), stdin=FROM.encode() + b"COPY a /a\n").returncode == 0


def test_the_command_line_ends_with_the_commands_status(command: Command, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(FROM + "RUN exit 9\n")
    done = command("build", str(tmp_path))
    assert done.returncode == 9 and "The command '/bin/sh -c exit 9' returned a non-zero code: 9" in done.stderr
    (tmp_path / "Dockerfile").write_text(FROM + "ENV A=1\n")
    quiet = command("build", "-q", str(tmp_path))
    assert quiet.stdout.startswith("sha256:") and len(quiet.stdout) == 72
    assert command("build", str(tmp_path / "nope")).returncode == 1


def test_history_shows_the_steps_with_their_images(daemon: Daemon) -> None:
    build(daemon, FROM + "RUN echo x > /x\nCMD [\"sh\"]\n", t="past")
    history = daemon.client().images.get("past").history()
    assert [step["CreatedBy"] for step in history[:2]] == ['/bin/sh -c #(nop)  CMD ["sh"]', "/bin/sh -c echo x > /x"]
    assert [step["Id"][:7] for step in history] == ["sha256:"] * 2
