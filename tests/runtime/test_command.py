"""The OCI command line, as podman, a shim or a person calls it; runc is the oracle for what a container sees."""

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from boxes import default_config, eventually, make_rootfs

from minidocker.linux.cgroups import Cgroup
from minidocker.runtime.command import signal_number

REPOSITORY = Path(__file__).parents[2]


@dataclass
class Caller:
    """Who calls the command: as conmon and shims do, with a --root of its own."""

    root: Path
    bundle: Path
    id: str
    config: dict[str, Any]

    def write(self) -> None:
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def call(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "minidocker.runtime.command", "--root", str(self.root), *args]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])}
        pipes = {} if "stdout" in options else {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.run(
            command, cwd=self.bundle, env=environment, text=True, check=False, timeout=60,
            stdin=subprocess.DEVNULL, **pipes, **options,
        )  # fmt: skip

    def good(self, *args: str, **options: Any) -> str:
        done = self.call(*args, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout or ""

    def status(self) -> str:
        return str(json.loads(self.good("state", self.id))["status"])

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        self.config["process"]["args"] = list(args)
        self.write()
        return self.call("run", self.id)

    def created(self, *args: str) -> None:
        """Create, with output that nobody has to read: pid 1 keeps it open."""
        self.config["process"]["args"] = list(args)
        self.write()
        with open(self.bundle / "output", "w") as output:
            self.good("create", "--pid-file", str(self.bundle / "pid"), self.id, stdout=output, stderr=output)


@pytest.fixture
def caller(tmp_path: Path, rootfs: Path, cgroup_parent: str) -> Iterator[Caller]:
    id_ = f"o{uuid.uuid4().hex[:10]}"
    bundle = tmp_path / "bundle"
    make_rootfs(bundle / "rootfs")
    made = Caller(tmp_path / "root", bundle, id_, default_config(Path("rootfs"), f"{cgroup_parent}/{id_}", ["true"]))
    yield made
    made.call("delete", "--force", id_)


def test_run_gives_output_and_exit_code_and_leaves_nothing(caller: Caller) -> None:
    done = caller.run("sh", "-c", "echo hello; echo bad >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("hello\n", "bad\n", 7)
    assert list(caller.root.iterdir()) == []
    assert not Cgroup.open(caller.config["linux"]["cgroupsPath"]).exists()


def test_create_waits_start_runs_kill_stops_delete_removes(caller: Caller) -> None:
    caller.created("sh", "-c", "echo ran; exec sleep 1000")
    assert caller.status() == "created"
    assert (caller.bundle / "output").read_text() == ""
    caller.good("start", caller.id)
    assert caller.status() == "running"
    assert eventually(lambda: (caller.bundle / "output").read_text() == "ran\n")
    pid = int((caller.bundle / "pid").read_text())
    assert json.loads(caller.good("ps", "--format", "json", caller.id)) == [pid]
    assert "not stopped" in caller.call("delete", caller.id).stderr
    assert "cannot resume a container that is running" in caller.call("resume", caller.id).stderr
    caller.good("pause", caller.id)
    assert caller.status() == "paused"
    caller.good("resume", caller.id)
    caller.good("kill", caller.id, "KILL")
    assert eventually(lambda: caller.status() == "stopped")
    assert "container not running" in caller.call("kill", caller.id, "9").stderr
    assert "cannot pause a container that is stopped" in caller.call("pause", caller.id).stderr
    caller.good("delete", caller.id)
    assert "does not exist" in caller.call("state", caller.id).stderr


def test_exec_by_arguments_and_by_process_file(caller: Caller) -> None:
    caller.created("sleep", "1000")
    caller.good("start", caller.id)
    assert caller.good("exec", caller.id, "sh", "-c", "echo $$-$HOME").startswith("2-/root")
    assert caller.call("exec", caller.id, "sh", "-c", "exit 9").returncode == 9
    assert "uid=33" in caller.good("exec", "--user", "www-data", caller.id, "id")
    process = {"cwd": "/tmp", "args": ["pwd"], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
    (caller.bundle / "process.json").write_text(json.dumps(process))
    assert caller.good("exec", "--process", str(caller.bundle / "process.json"), caller.id) == "/tmp\n"
    missing = caller.call("exec", caller.id, "no-such")
    assert missing.returncode == 1 and "executable file not found in $PATH" in missing.stderr


def test_update_by_a_file(caller: Caller) -> None:
    caller.created("sleep", "1000")
    (caller.bundle / "resources").write_text('{"pids": {"limit": 12}}')
    caller.good("update", f"--resources={caller.bundle / 'resources'}", caller.id)
    assert Cgroup.open(caller.config["linux"]["cgroupsPath"]).statistics().pids.limit == 12


def test_a_missing_command_is_told_at_create_and_logged_as_json(caller: Caller) -> None:
    caller.config["process"]["args"] = ["no-such"]
    caller.write()
    log = caller.bundle / "log"
    done = caller.call("--log", str(log), "--log-format", "json", "create", caller.id)
    assert done.returncode == 1 and "executable file not found in $PATH" in done.stderr
    assert "executable file not found" in json.loads(log.read_text())["msg"]
    assert list(caller.root.iterdir()) == []


def test_hooks_get_the_state_and_a_failing_one_stops_the_creation(caller: Caller) -> None:
    seen = caller.bundle / "seen"
    caller.config["hooks"] = {
        "prestart": [{"path": "/bin/sh", "args": ["sh", "-c", f"cat > {seen}"]}],
        "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"echo stopped >> {seen}"]}],
    }
    assert caller.run("true").returncode == 0
    state, stopped = seen.read_text().rsplit("}", 1)
    assert json.loads(state + "}")["id"] == caller.id and "stopped" in stopped
    caller.config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo no >&2; exit 3"]}]}
    done = caller.run("sh", "-c", "echo ran")
    assert done.returncode == 1 and "ended with 3: no" in done.stderr and done.stdout == ""
    assert list(caller.root.iterdir()) == []


def test_a_terminal_is_relayed_in_the_foreground(caller: Caller) -> None:
    caller.config["process"]["terminal"] = True
    done = caller.run("sh", "-c", "tty; exit 4")
    assert (done.stdout, done.returncode) == ("/dev/pts/0\n", 4)  # text: "\r\n" was read as one end


def test_spec_writes_a_config_that_runs(caller: Caller) -> None:
    (caller.bundle / "config.json").unlink(missing_ok=True)
    caller.good("spec")
    caller.config = json.loads((caller.bundle / "config.json").read_text())
    caller.config["process"]["terminal"] = False
    assert caller.run("echo", "hello").stdout == "hello\n"
    assert "exists" in caller.call("spec").stderr


def test_features_and_list_are_documents(caller: Caller) -> None:
    assert json.loads(caller.good("features"))["ociVersionMax"] == "1.0.2"
    caller.created("sleep", "1000")
    assert [entry["id"] for entry in json.loads(caller.good("list", "--format", "json"))] == [caller.id]
    assert caller.id in caller.good("list")


@pytest.mark.skipif(not shutil.which("runc"), reason="needs runc as the oracle")
def test_mounts_and_capabilities_are_those_that_runc_makes(caller: Caller) -> None:
    del caller.config["linux"]["seccomp"]  # runc reads defaultErrnoRet and others by version
    script = (
        "cat /proc/self/mounts; grep -E '^(Cap|NoNew|Uid|Gid)' /proc/self/status; ls /dev; ls -l /proc/self/fd | wc -l"
    )
    ours = caller.run("sh", "-c", script).stdout
    runc = ["runc", "--root", str(caller.root / "runc"), "run", caller.id]
    theirs = subprocess.run(
        runc, cwd=caller.bundle, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True
    )
    assert _essence(ours) == _essence(theirs.stdout)


def _essence(text: str) -> list[str]:
    """What must be equal: for mounts the place, the kind and the safety flags; masks may be stricter than runc's."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 6 and words[1].startswith("/"):
            masked = words[1].startswith("/proc/") or words[1] in ("/sys/firmware", "/sys/fs/cgroup")
            flags = {"ro", "rw", "nosuid", "nodev", "noexec"} & set(words[3].split(","))
            found.append(f"{words[1]} {words[2]} {'' if masked else sorted(flags)}")
        elif words != ["console"]:
            found.append(line)
    return sorted(found)


@pytest.mark.parametrize("text", ["9", "KILL", "SIGKILL", "kill"])
def test_signals_are_numbers_or_names(text: str) -> None:
    assert signal_number(text) == signal.SIGKILL


def test_in_a_chroot_nothing_runs_since_a_container_could_climb_out_of_it(caller: Caller, tmp_path: Path) -> None:
    caller.config["process"]["args"] = ["touch", "/reached"]
    caller.write()
    place = tmp_path / "place"
    place.mkdir()
    runtime = [sys.executable, "-m", "minidocker.runtime.command", "--root", str(caller.root), "run", "--bundle"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", 'mount --rbind / "$0" && exec chroot "$0" "$@"', str(place), *runtime,
         str(caller.bundle), caller.id], text=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])}, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "pivot_root: the engine runs in a chroot, out of which a container could climb" in done.stderr
    assert not (caller.bundle / "rootfs/reached").exists()
