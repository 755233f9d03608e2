"""The sandboxed kernel: whatever a cell does, and however the kernel ends, nothing of it is left on the machine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.client import connect
from minidocker.errors import MinidockerError
from minidocker.lab import sandbox
from minidocker.lab.setup import kernels, services
from tests.conftest import Leftovers

jupyter_client = pytest.importorskip("jupyter_client", reason="needs jupyterlab: pip install minidocker[notebooks]")
pytestmark = pytest.mark.needs_root

START_SECONDS = 60
MESS = """
import os, socket, subprocess
assert os.getpid() == 1
socket.sethostname("messed-up")
os.makedirs("TMP/mounted", exist_ok=True)
subprocess.run(["mount", "-t", "tmpfs", "mess", "TMP/mounted"], check=True)
subprocess.run(["ip", "link", "add", "mess0", "type", "bridge"], check=True)
subprocess.Popen(["sleep", "4711"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    os.execvp("sleep", ["sleep", "4711"])
from minidocker.linux.cgroups import Cgroup
Cgroup.create("/mess").join()
"""


class Kernel:
    """One sandboxed kernel, as Jupyter starts it."""

    def __init__(self, place: Path) -> None:
        from jupyter_client.kernelspec import KernelSpec

        self.manager = jupyter_client.KernelManager(connection_file=str(place / "kernel.json"))
        self.manager._kernel_spec = KernelSpec(**sandbox.spec())
        self.manager.start_kernel(cwd=str(place))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=START_SECONDS)

    def run(self, code: str) -> str:
        """What the cell printed, or the last line of its error."""
        shown: list[str] = []

        def take(message: dict[str, Any]) -> None:
            content = message["content"]
            shown.append(content.get("text") or "\n".join(content.get("traceback", [])))

        self.client.execute_interactive(code, output_hook=take, allow_stdin=False, timeout=START_SECONDS)
        return "".join(shown)

    def send(self, code: str) -> str:
        """Run a cell that does not answer now."""
        return str(self.client.execute(code))

    def await_answer(self, request: str) -> str:
        """How the cell of that request ended: "ok" or "error"."""
        while (answer := self.client.get_shell_msg(timeout=START_SECONDS))["parent_header"].get("msg_id") != request:
            pass
        return str(answer["content"]["status"])

    @property
    def name(self) -> str:
        """Of its directory and control group: pid 1 was started with a file in that directory."""
        guard = Path(f"/proc/{self.front}/task/{self.front}/children").read_text().strip()
        pid = Path(f"/proc/{guard}/task/{guard}/children").read_text().strip()
        return next(part for part in Path(f"/proc/{pid}/cmdline").read_text().split("/") if part.startswith("sandbox-"))

    @property
    def front(self) -> int:
        return int(self.manager.provisioner.pid)

    def ended(self) -> bool:
        return not self.manager.is_alive()


@pytest.fixture
def left(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Leftovers]:
    hostname = os.uname().nodename
    made = Leftovers(str(tmp_path), "sleep 4711", "mess")
    yield made
    assert not made.found()
    assert os.uname().nodename == hostname
    names = [token for token in made.tokens if token.startswith(sandbox.PREFIX)]
    assert not [name for name in names if (sandbox.EXEC_ROOT / name).exists()]


@pytest.fixture
def kernel(tmp_path: Path, left: Leftovers) -> Iterator[Kernel]:
    made = Kernel(tmp_path)
    left.claim(made.name)
    yield made
    made.client.stop_channels()
    made.manager.shutdown_kernel(now=True)


def _wait(condition: Callable[[], bool], what: str) -> None:
    services.wait_until(condition, what, 20)


def _mess(kernel: Kernel, tmp_path: Path) -> None:
    assert kernel.run(MESS.replace("TMP", str(tmp_path))) == ""
    assert str(tmp_path / "mounted") not in Path("/proc/self/mounts").read_text()
    assert "mess0" not in os.listdir("/sys/class/net")


def test_the_kernel_is_pid_1_of_its_own_namespaces(kernel: Kernel) -> None:
    look = "import os\nprint(os.getpid(), *(os.readlink(f'/proc/self/ns/{k}') for k in KINDS))"
    kinds = ("mnt", "uts", "ipc", "net", "pid", "cgroup")
    pid, *inside = kernel.run(look.replace("KINDS", repr(kinds))).split()
    outside = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    assert pid == "1"
    assert not set(inside) & set(outside)


def test_ending_well_leaves_nothing(kernel: Kernel, tmp_path: Path) -> None:
    _mess(kernel, tmp_path)
    kernel.manager.shutdown_kernel()


def test_a_cell_that_raises_and_then_the_end_leave_nothing(kernel: Kernel, tmp_path: Path) -> None:
    _mess(kernel, tmp_path)
    assert "ZeroDivisionError" in kernel.run("1 / 0")
    assert kernel.run("print('still here')") == "still here\n"


def test_a_crash_leaves_nothing(kernel: Kernel, tmp_path: Path) -> None:
    _mess(kernel, tmp_path)
    kernel.send("os._exit(3)")
    _wait(kernel.ended, "the kernel did not end")
    assert kernel.manager.provisioner.process is None or kernel.manager.provisioner.process.poll() == 3


def test_an_interrupt_ends_the_cell_and_a_hang_that_ignores_it_is_killed(kernel: Kernel, tmp_path: Path) -> None:
    _mess(kernel, tmp_path)
    sleep = kernel.send(f"import time\nopen('{tmp_path}/asleep', 'w').close()\ntime.sleep(600)")
    _wait((tmp_path / "asleep").exists, "the cell did not begin")
    kernel.manager.interrupt_kernel()
    assert kernel.await_answer(sleep) == "error"
    assert kernel.run("print('woken')") == "woken\n"
    kernel.send(
        f"import signal\nsignal.signal(2, signal.SIG_IGN)\nopen('{tmp_path}/deaf', 'w').close()\nwhile True: pass"
    )
    _wait((tmp_path / "deaf").exists, "the cell did not begin")
    kernel.manager.interrupt_kernel()
    kernel.manager.shutdown_kernel(now=True)


def test_killing_jupyters_child_leaves_nothing(kernel: Kernel, tmp_path: Path) -> None:
    _mess(kernel, tmp_path)
    os.kill(kernel.front, signal.SIGKILL)
    _wait(kernel.ended, "the kernel did not end")


def test_a_fork_bomb_ends_at_the_limit_and_leaves_nothing(kernel: Kernel, tmp_path: Path) -> None:
    kernel.send(f"import os\nwhile True:\n    if os.fork() == 0: open('{tmp_path}/bomb', 'w').close()")
    _wait((tmp_path / "bomb").exists, "the cell did not begin")
    kernel.manager.shutdown_kernel(now=True)


def test_a_restarted_kernel_is_a_new_one_on_the_same_ports(kernel: Kernel, left: Leftovers, tmp_path: Path) -> None:
    _mess(kernel, tmp_path)
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=START_SECONDS)
    left.claim(kernel.name)
    assert kernel.run("import os; print(os.path.ismount('TMP/mounted'))".replace("TMP", str(tmp_path))) == "False\n"


STARTER = """
import sys
from pathlib import Path
from tests.lab.test_sandbox import Kernel
kernel = Kernel(Path(sys.argv[1]))
kernel.run(sys.argv[2])
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_kernel_ends_when_jupyter_is_killed(tmp_path: Path, left: Leftovers) -> None:
    command = [sys.executable, "-c", STARTER, str(tmp_path), MESS.replace("TMP", str(tmp_path))]
    jupyter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=services.CHECKOUT)
    assert jupyter.stdout and jupyter.stdin
    assert jupyter.stdout.readline() == b"ready\n"
    jupyter.kill()
    jupyter.wait()
    jupyter.stdout.close()
    jupyter.stdin.close()


def test_what_a_killed_guard_left_is_removed_by_the_next(kernel: Kernel, tmp_path: Path) -> None:
    _mess(kernel, tmp_path)
    guard = int(Path(f"/proc/{kernel.front}/task/{kernel.front}/children").read_text())
    os.kill(guard, signal.SIGKILL)
    _wait(kernel.ended, "the kernel did not end")
    sandbox.sweep()


def test_isolated_cells_and_nested_namespaces_work_inside(kernel: Kernel) -> None:
    kernel.run("%load_ext minidocker.lab")
    nested = (
        "import os, subprocess\nsubprocess.run(['mount', '-t', 'tmpfs', 'x', '/mnt'], check=True)\nprint(os.getpid())"
    )
    assert kernel.run(f"%%isolated\n{nested}").split() == ["1"]
    assert kernel.run("import os; print(os.path.ismount('/mnt'))") == "False\n"


def test_the_limits_hold_for_all_that_the_kernel_starts(kernel: Kernel) -> None:
    died = "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'x = bytearray(3 << 30)'],"
    assert "-9" in kernel.run(f"{died} stderr=subprocess.DEVNULL).returncode)")


def test_the_daemon_is_reachable_and_what_a_session_starts_ends_with_the_kernel(kernel: Kernel) -> None:
    try:
        client = connect(services.SOCKET)
        client.ping()
    except (OSError, MinidockerError):
        pytest.skip("needs the daemon: ./lab setup starts it")
    connected = "import minidocker\nfrom minidocker.lab import session\nclient = minidocker.connect()"
    code = f"{connected}\nmine = session.begin(client)"
    start = "print(client.containers.run('busybox', ['sleep', '600'], detach=True, labels=mine).id)"
    container = kernel.run(f"{code}\n{start}").strip()
    assert container in [one.id for one in client.containers.list()]
    kernel.send("import os; os._exit(1)")
    _wait(kernel.ended, "the kernel did not end")
    assert container not in [one.id for one in client.containers.list(all=True)]


def test_exercises_get_the_sandbox_and_lessons_do_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert kernels.kernel_for("exercises/release/ex01_processes", "python3") == "python3"  # it is not installed
    assert sandbox.install()
    assert not sandbox.install()
    assert json.loads((sandbox.directory() / "kernel.json").read_text())["language"] == "python"
    assert kernels.kernel_for("exercises/release/ex01_processes", "python3") == sandbox.NAME
    assert kernels.kernel_for("notebooks", "python3") == "python3"
    assert kernels.kernel_for("exercises/x", "ir") == "ir"
    sandbox.uninstall()
    assert not sandbox.directory().exists()


def test_a_kernel_that_cannot_be_isolated_does_not_start(tmp_path: Path, left: Leftovers) -> None:
    connection = tmp_path / "kernel.json"
    connection.write_text(json.dumps({"transport": "ipc", "ip": str(tmp_path / "wire"), "key": ""}))
    command = [sys.executable, "-m", "minidocker.lab.sandbox", "-f", str(connection), "--memory", "-5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, cwd=services.CHECKOUT)
    assert done.returncode == 1
    assert "so it was not started" in done.stderr


def test_a_room_goes_with_a_kernel_that_is_killed(kernel: Kernel) -> None:
    path = Path(kernel.run("from minidocker.lab import room; print(room.begin().path)").strip())
    assert path.is_dir()
    kernel.send("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\nos._exit(3)")  # process 1 ignores the first
    _wait(kernel.ended, "the kernel did not end")
    _wait(lambda: not path.exists(), f"{path} is left")
