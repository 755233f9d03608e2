"""Start, exit codes, exec, signals, pause, and finding containers again."""

import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from boxes import PATH, Attached, Box, eventually, make_rootfs, wait_readable

from minidocker.errors import Conflict, InvalidArgument, NotFound
from minidocker.linux import capabilities, process
from minidocker.linux.forkserver import ForkServer
from minidocker.oci import runtime_spec
from minidocker.runtime import records
from minidocker.runtime.lifecycle import LAUNCHER, Created, Runtime, StartError

Make = Callable[..., Box]


@pytest.mark.parametrize(
    ("args", "kind", "text"),
    [
        (["no-such"], "not_found", 'exec: "no-such": executable file not found in $PATH'),
        (["/no/such"], "not_found", 'exec: "/no/such": stat /no/such: no such file or directory'),
        (["/etc/passwd"], "not_executable", 'exec: "/etc/passwd": permission denied'),
        (["/etc"], "not_executable", 'exec: "/etc": is a directory'),
        (["/tmp/broken"], "not_found", "no such file or directory"),
        (["/tmp/garbage"], "not_executable", "exec format error"),
        ([""], "not_found", "executable file not found"),
        ([], "failed", "no command"),
    ],
)
def test_a_command_that_cannot_run_says_why(box: Make, tmp_path: Path, args: list[str], kind: str, text: str) -> None:
    tree = make_rootfs(tmp_path / "tree")
    for name, content in (("broken", "#!/no/interpreter\n"), ("garbage", "\x00\x01\x02")):
        (tree / "tmp" / name).write_text(content)
        (tree / "tmp" / name).chmod(0o755)
    one = box(*args, tree=tree)
    with pytest.raises(StartError) as caught:
        one.start()
    assert caught.value.kind == kind
    assert caught.value.exit_code == {"not_found": 127, "not_executable": 126, "failed": 128}[kind]
    assert text in str(caught.value)
    assert not one.directory.exists()


def test_a_file_that_only_root_may_execute_is_refused_to_others(box: Make, tmp_path: Path) -> None:
    tree = make_rootfs(tmp_path / "tree")
    (tree / "bin/secret").write_text("#!/bin/sh\necho never\n")
    (tree / "bin/secret").chmod(0o700)
    with pytest.raises(StartError, match="permission denied"):
        box("secret", tree=tree, user={"uid": 33, "gid": 33}).start()


@pytest.mark.parametrize(
    ("command", "code", "signal"), [("exit 7", 7, None), ("kill -9 $$", 0, None), ("exit 255", 255, None)]
)
def test_the_exit_code_is_the_commands(box: Make, command: str, code: int, signal: int | None) -> None:
    ended = box("sh", "-c", command).start().wait()  # pid 1 is immune to its own SIGKILL
    assert (ended.code, ended.signal, ended.error) == (code, signal, None)


def test_a_signal_from_outside_is_128_and_its_number(box: Make) -> None:
    one = box("sleep", "1000").start()
    one.runtime.signal(one.id, 9)
    ended = one.wait()
    assert (ended.code, ended.signal) == (137, 9)
    with pytest.raises(Conflict):
        one.runtime.signal(one.id, 15)


def test_signals_that_python_ignores_are_the_commands_again(box: Make) -> None:
    lines = box("grep", "Sig", "/proc/self/status").run().splitlines()
    seen = {line.split(":")[0]: int(line.split()[1], 16) for line in lines if not line.startswith("SigQ")}
    assert seen["SigIgn"] == seen["SigBlk"] == 0


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root),10(wheel)"),
        ("www-data", "uid=33(www-data) gid=33(www-data) groups=33(www-data)"),
        ("mail", "uid=8(mail) gid=12(mail) groups=12(mail),4(adm)"),
        ("mail:adm", "uid=8(mail) gid=4(adm) groups=4(adm)"),
        ("1234", "uid=1234 gid=0(root) groups=0(root)"),
        ("1234:5678", "uid=1234 gid=5678 groups=5678"),
    ],
)
def test_users_are_found_in_the_image(box: Make, user: str, expected: str) -> None:
    one = box("id")
    one.config["annotations"]["org.minidocker.user"] = user
    words = one.run().split()
    assert words[:2] == expected.split()[:2]
    assert sorted(words[2].removeprefix("groups=").split(",")) == sorted(expected.split()[2][7:].split(","))


def test_further_groups_are_added_by_name_and_number(box: Make) -> None:
    one = box("id", "-G")
    one.config["annotations"] |= {"org.minidocker.user": "www-data", "org.minidocker.group_add": '["adm", "99"]'}
    assert one.run().split() == ["33", "4", "99"]


@pytest.mark.parametrize("user", ["nobody", "-1", "4294967295", "2147483648", "root:no", "0:-5"])
def test_users_that_do_not_exist_are_refused(box: Make, user: str) -> None:
    one = box("id")
    one.config["annotations"]["org.minidocker.user"] = user
    with pytest.raises(StartError, match="unable to find"):
        one.start()


def test_home_is_the_users(box: Make) -> None:
    one = box("sh", "-c", "echo $HOME")
    one.config["annotations"]["org.minidocker.user"] = "www-data"
    assert one.run() == "/var/www\n"


@pytest.mark.parametrize("kind", ["fifo", "symlink", "huge", "directory"])
def test_a_hostile_passwd_neither_hangs_nor_leaks(box: Make, tmp_path: Path, kind: str) -> None:
    tree = make_rootfs(tmp_path / "tree")
    passwd = tree / "etc/passwd"
    passwd.unlink()
    if kind == "fifo":
        os.mkfifo(passwd)
    elif kind == "symlink":
        passwd.symlink_to("/proc/self/environ")
    elif kind == "directory":
        passwd.mkdir()
    else:
        passwd.write_text("www-data:x:33:33::/:\n" + "x" * (2 << 20))
    one = box("id", tree=tree)
    one.config["annotations"]["org.minidocker.user"] = "www-data"
    with pytest.raises(StartError, match="passwd"):
        one.start()


def test_the_command_never_runs_when_a_step_fails(box: Make) -> None:
    one = box("sh", "-c", "echo ran")
    one.config["mounts"].append({"destination": "/x", "type": "no-such-filesystem", "source": "x"})
    with pytest.raises(StartError) as caught:
        one.start()
    assert caught.value.step == "mount /x"
    assert "ENODEV" in str(caught.value)
    assert one.log.read_bytes() == b""


def test_a_bundle_without_config_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises((NotFound, InvalidArgument), match=r"config\.json"):
        runtime.create("x", tmp_path, terminal=False)
    assert not (runtime.exec_root / "containers/x").exists()


def test_an_id_is_used_once(box: Make) -> None:
    one = box("sleep", "1000").start()
    with pytest.raises(Conflict):
        one.runtime.create(one.id, one.bundle)


def test_abandoned_before_start_nothing_is_left(box: Make) -> None:
    one = box("sh", "-c", "echo ran")
    created = one.create()
    one.runtime.abandon(created)
    assert not one.directory.exists() and not Path(f"/proc/{created.pid}").exists()


def test_init_is_pid_1_and_reaps(box: Make) -> None:
    if not Path("/usr/bin/tini-static").exists():
        pytest.skip("needs Debian's tini")
    one = box("sh", "-c", "cat /proc/1/comm; echo $$")
    one.config["annotations"]["org.minidocker.init"] = "/usr/bin/tini-static"
    comm, pid = one.run().split()
    assert comm == "docker-init" and pid != "1"


def test_pause_stops_it_and_resume_lets_it_go_on(box: Make) -> None:
    one = box("sleep", "1000").start()
    one.runtime.pause(one.id)
    assert one.runtime.cgroup(one.id).frozen()
    one.runtime.resume(one.id)
    assert not one.runtime.cgroup(one.id).frozen()


def test_update_changes_a_limit_of_a_running_container(box: Make) -> None:
    one = box("sleep", "1000").start()
    one.runtime.update(one.id, runtime_spec.Resources(pids=runtime_spec.Pids(11)))
    assert one.runtime.statistics(one.id).pids.limit == 11


def exec_(one: Box, *args: str, terminal: bool = False, **options: object) -> tuple[Created, Attached]:
    spec = runtime_spec.Process(cwd="/", args=list(args), env=[PATH], terminal=terminal)
    name = f"e{uuid.uuid4().hex[:12]}"
    created = one.runtime.prepare_exec(one.id, name, spec, **options)  # type: ignore[arg-type]
    client = Attached(one.runtime.open_attach(name), stdin=bool(options.get("open_stdin")), stdout=True, stderr=True)
    one.runtime.start(created)
    return created, client


def output(one: Box, *args: str, **options: object) -> str:
    created, client = exec_(one, *args, **options)
    text = b"".join(content for _, content in client.frames()).decode()
    wait_readable(created.monitor_pidfd)
    one.runtime.forget(created.id)
    return text


def test_exec_is_as_confined_as_the_container(box: Make) -> None:
    one = box("sleep", "1000").start()
    seen = dict(line.split(":", 1) for line in output(one, "cat", "/proc/self/status").splitlines())
    assert seen["CapBnd"].strip() == seen["CapEff"].strip() == "00000000a80425fb"
    assert int(seen["CapInh"], 16) == int(seen["CapAmb"], 16) == 0
    assert seen["Seccomp"].strip() == "2"


def test_exec_inherits_no_new_privileges(box: Make) -> None:
    one = box("sleep", "1000", noNewPrivileges=True).start()
    assert "NoNewPrivs:\t1" in output(one, "cat", "/proc/self/status")


def test_exec_shares_every_namespace_and_cgroup_with_pid_1(box: Make) -> None:
    one = box("sleep", "1000").start()
    script = "for n in mnt pid net ipc uts cgroup; do "
    script += "[ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo $n; done"
    assert output(one, "sh", "-c", f"{script}; diff /proc/self/cgroup /proc/1/cgroup && echo same") == "same\n"


def test_exec_has_no_descriptor_of_ours(box: Make) -> None:
    one = box("sleep", "1000").start()
    assert output(one, "ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]


def test_exec_as_another_user(box: Make) -> None:
    one = box("sleep", "1000").start()
    text = output(one, "sh", "-c", "id; grep CapEff /proc/self/status; echo $HOME", user="mail:adm")
    assert text.split()[:2] == ["uid=8(mail)", "gid=4(adm)"]
    assert "CapEff:\t0000000000000000" in text and text.endswith("/home\n")


def test_privileged_exec_has_all_capabilities_and_no_filter(box: Make) -> None:
    one = box("sleep", "1000").start()
    names = list(capabilities.available())
    spec = runtime_spec.Process(
        cwd="/",
        args=["cat", "/proc/self/status"],
        env=[PATH],
        capabilities=runtime_spec.Capabilities(names, names, [], names),
    )
    created = one.runtime.prepare_exec(one.id, "privileged", spec, privileged=True)
    client = Attached(one.runtime.open_attach("privileged"), stdin=False, stdout=True, stderr=True)
    one.runtime.start(created)
    text = b"".join(content for _, content in client.frames()).decode()
    wait_readable(created.monitor_pidfd)
    assert f"CapEff:\t{capabilities.mask(names):016x}" in text and "Seccomp:\t0" in text


def test_exec_reads_stdin_to_its_end(box: Make) -> None:
    one = box("sleep", "1000").start()
    created, client = exec_(one, "cat", open_stdin=True)
    client.socket.sendall(b"hello")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.frames() == [(1, b"hello")]
    wait_readable(created.monitor_pidfd)
    ended = one.runtime.exit_status(created.id)
    assert ended is not None and ended.code == 0


def test_exec_with_a_terminal(box: Make) -> None:
    one = box("sleep", "1000").start()
    created, client = exec_(one, "sh", "-c", "tty; stty size; exit 3", terminal=True, size=(20, 50))
    assert client.file.read().split() == [b"/dev/pts/0", b"20", b"50"]
    wait_readable(created.monitor_pidfd)
    ended = one.runtime.exit_status(created.id)
    assert ended is not None and ended.code == 3


def test_exec_of_a_missing_command_is_127(box: Make) -> None:
    one = box("sleep", "1000").start()
    with pytest.raises(StartError) as caught:
        exec_(one, "no-such")
    assert (caught.value.exit_code, caught.value.kind) == (127, "not_found")


def test_exec_ends_though_a_background_child_holds_its_output(box: Make) -> None:
    one = box("sleep", "1000").start()
    created, _ = exec_(one, "sh", "-c", "sleep 1000 & echo started")
    wait_readable(created.monitor_pidfd)
    ended = one.runtime.exit_status(created.id)
    assert ended is not None and ended.code == 0


def test_exec_in_an_ended_container_is_a_conflict(box: Make) -> None:
    one = box("true")
    one.run()
    with pytest.raises(Conflict, match="not running"):
        exec_(one, "true")


def test_the_process_that_enters_cannot_be_looked_into_from_inside(box: Make) -> None:
    """CVE-2019-5736: /proc/PID/exe of the process that enters is not to be opened by root in there."""
    one = box("sleep", "1000").start()
    spec = runtime_spec.Process(cwd="/", args=["true"], env=[PATH])
    waiting = one.runtime.prepare_exec(one.id, "waiting", spec)
    found = output(one, "sh", "-c", "for p in /proc/[0-9]*; do cat $p/exe > /dev/null 2>&1 || echo refused $p; done")
    assert found.count("refused") >= 1
    one.runtime.abandon(waiting)


def test_the_next_daemon_finds_what_runs_and_what_has_ended(box: Make) -> None:
    running, ended = box("sleep", "1000").start(), box("sh", "-c", "exit 5").start()
    ended.wait()
    second = Runtime(running.runtime.exec_root, running.runtime.launcher)
    found = {one.id: one for one in second.adopt()}
    alive = found[running.id]
    assert alive.exit is None and alive.monitor_pidfd is not None and running.created is not None
    assert alive.pid == running.created.pid
    assert found[ended.id].monitor_pidfd is None
    ended_exit = found[ended.id].exit
    assert ended_exit is not None and ended_exit.code == 5
    second.signal(running.id, 9)
    wait_readable(alive.monitor_pidfd)
    status = second.exit_status(running.id)
    assert status is not None and status.code == 137
    os.close(alive.monitor_pidfd)


def test_a_pid_that_now_is_anothers_is_not_taken_for_the_monitor(box: Make) -> None:
    one = box("true")
    one.run()
    state = one.runtime.state(one.id)
    changed = msgspec.structs.replace(state, monitor_pid=os.getpid(), pid=os.getpid())
    records.write(one.directory / "state.json", changed)
    found = one.runtime.adopt()[0]
    assert found.monitor_pidfd is None
    with pytest.raises(Conflict):
        one.runtime.signal(one.id, 0)
    assert process.start_time(os.getpid()) != state.start_time


def test_containers_outlive_the_daemon_and_its_launcher(box: Make, tmp_path: Path) -> None:
    """The daemon here is a Python of its own, killed with SIGKILL right after its start."""
    one = box("sh", "-c", "echo hello; read x")
    one.write()
    code = (
        "import os, sys, signal; from pathlib import Path\n"
        "from minidocker.linux.forkserver import ForkServer\n"
        "from minidocker.runtime.lifecycle import *\n"
        "exec_root, id_, bundle, log = map(Path, sys.argv[1:])\n"
        "server = ForkServer.spawn('minidocker-launcher', LAUNCHER, exec_root=exec_root, python_path=sys.path)\n"
        "runtime = Runtime(exec_root, server)\n"
        "created = runtime.create(str(id_), bundle, log=LogTarget(str(log)), open_stdin=True)\n"
        "runtime.start(created)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    arguments = [str(one.runtime.exec_root), one.id, str(one.bundle), str(one.log)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)]),
    }
    subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=False)
    found = next(adopted for adopted in one.runtime.adopt() if adopted.id == one.id)
    assert found.monitor_pidfd is not None and found.exit is None
    one.attach(stdin=True).socket.sendall(b"\n")
    wait_readable(found.monitor_pidfd)
    ended = one.runtime.exit_status(one.id)
    assert ended is not None and ended.code == 0
    assert one.logged() == "hello\n"
    os.close(found.monitor_pidfd)
    one.runtime.forget(one.id)


def test_a_container_is_given_up_when_the_daemon_goes_before_start(box: Make) -> None:
    one = box("sh", "-c", "echo ran")
    created = one.create()
    created.channel.close()
    wait_readable(created.monitor_pidfd)
    ended = one.runtime.exit_status(one.id)
    assert ended is not None and ended.error is not None and "went away" in ended.error
    assert one.log.read_bytes() == b""
    assert not Path(f"/proc/{created.pid}").exists()
    one.runtime.forget(one.id)


def test_a_second_launcher_takes_over_when_the_first_has_died(box: Make, tmp_path: Path) -> None:
    one = box("sleep", "1000").start()
    server = ForkServer.spawn("minidocker-launcher", LAUNCHER, exec_root=tmp_path, python_path=sys.path)
    second = Runtime(one.runtime.exec_root, server)
    created = second.exec(one.id, "late", runtime_spec.Process(cwd="/", args=["sh", "-c", "exit 4"], env=[PATH]))
    wait_readable(created.monitor_pidfd)
    ended = second.exit_status("late")
    assert ended is not None and ended.code == 4
    server.close()


def test_state_says_who_runs(box: Make) -> None:
    one = box("sleep", "1000").start()
    state = one.runtime.state(one.id)
    assert one.created is not None
    assert (state.pid, state.monitor_pid) == (one.created.pid, one.created.monitor_pid)
    assert state.start_time == process.start_time(state.pid)
    assert json.loads((one.directory / "state.json").read_text())["bundle"] == str(one.bundle)
    assert eventually(lambda: one.runtime.pids(one.id) == [state.pid])
