"""What `./lab` starts and removes, tried in namespaces of its own: other directories, another network."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minidocker.lab.setup import services

# Everything that the services touch is hidden, so that those of this machine are neither seen nor changed.
HIDDEN = ("/var/lib", "/var/log", "/run", "/etc/systemd/system", f"{sys.prefix}/share/jupyter/kernels")
SERVICES = f"{sys.executable} -m minidocker.lab.setup.services"


def _in_namespaces(script: str) -> str:
    hide = "".join(f"[ ! -d {place} ] || mount -t tmpfs none {place}\n" for place in HIDDEN)
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-eu"],
        input=f"{hide}ip link set lo up\n{script}",
        capture_output=True,
        text=True,
        timeout=120,
        cwd=services.CHECKOUT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.needs_root
@pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry: ./lab setup installs it")
def test_up_can_be_repeated_and_clean_removes_all_that_it_made() -> None:
    minidocker = f"{sys.executable} -m minidocker.cli"
    output = _in_namespaces(f"""
        {SERVICES} up
        echo --- again; {SERVICES} up
        cat /run/minidocker/minidocker.pid > /dev/null
        echo --- works; {minidocker} run --rm busybox echo hello
        id=$({minidocker} run -d busybox sleep 600)
        ls -d /sys/fs/cgroup{{,/*}}/minidocker/$id 2>/dev/null | head -1
        echo --- down; {SERVICES} down
        pgrep -c sleep
        echo --- clean; {SERVICES} clean
        echo --- left
        ls -d /var/lib/minidocker* /run/minidocker* /var/log/minidocker* 2>/dev/null || true
        tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d " "; nft list tables
        ps -eo stat=,comm= | grep -v -e ^Z -e bash -e ps$ -e grep$ || true
        ls -d /sys/fs/cgroup{{,/*}}/minidocker/$id 2>/dev/null || true
    """)
    parts = dict(part.split("\n", 1) for part in output.split("--- ")[1:])
    assert "busybox made" in output and "pulling busybox" in output
    assert parts["again"] == "==> minidocker is ready: minidocker run -it busybox\n"
    assert parts["works"].startswith("hello\n")
    assert parts["down"].endswith("\n1\n")  # the container lives on
    assert parts["left"] == "lo\n"


def test_a_stale_pidfile_of_the_daemon_names_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "EXEC_ROOT", tmp_path)
    assert services._daemon_pid() is None
    (tmp_path / "minidocker.pid").write_text(str(os.getppid()))  # another process has that number by now
    assert services._daemon_pid() is None


def test_the_fingerprint_follows_the_engine_and_not_the_course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("engine/a.py", "lab/b.py"):
        (tmp_path / "minidocker" / name).parent.mkdir(parents=True)
        (tmp_path / "minidocker" / name).write_text("x = 1\n")
    monkeypatch.setattr(services, "CHECKOUT", tmp_path)
    before = services.fingerprint()
    (tmp_path / "minidocker/lab/b.py").write_text("x = 2\n")
    assert services.fingerprint() == before
    (tmp_path / "minidocker/engine/a.py").write_text("x = 2\n")
    assert services.fingerprint() != before


def test_the_token_of_the_service_is_kept_and_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "TOKEN", tmp_path / "inner/token")
    first = services._token()
    assert re.fullmatch("[0-9a-f]{32}", first) and services._token() == first
    assert (tmp_path / "inner/token").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze: apt-get install systemd")
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    path = tmp_path / services.UNIT
    path.write_text(services.unit())
    found = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    assert services.UNIT not in found.stderr and found.returncode == 0, found.stderr


def test_the_unit_has_one_main_process_that_systemd_does_not_outlive() -> None:
    lines = services.unit().splitlines()
    assert "KillMode=process" in lines  # containers live on when the unit stops
    assert not [line for line in lines if line.startswith("ExecStartPre")]  # systemd kills what that leaves running
    assert len([line for line in lines if line.startswith("ExecStart=")]) == 1


def test_jupyter_outside_of_the_service_listens_on_loopback_only() -> None:
    assert "--ip=127.0.0.1" in services.jupyter_command("127.0.0.1", "secret")
    source = Path(services.__file__).read_text()
    assert source.count('"0.0.0.0"') == 1
