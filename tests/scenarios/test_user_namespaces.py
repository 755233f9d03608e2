"""`--userns auto`: root of the container is nobody on the machine, yet its image and volumes are its own.

Docker's client and docker-py know no mode but "host" and refuse this one themselves: our own command is used.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.conftest import Daemon


def _cli(daemon: Daemon, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "minidocker.cli", "-H", daemon.url, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def _run(daemon: Daemon, script: str, *options: str) -> str:
    done = _cli(daemon, "run", "--rm", "--userns", "auto", *options, "busybox", "sh", "-ec", script)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_root_inside_has_an_id_outside_that_is_no_users(daemon: Daemon) -> None:
    container = _cli(daemon, "run", "-d", "--userns", "auto", "busybox", "sleep", "60").stdout.strip()
    pid = _cli(daemon, "inspect", "-f", "{{.State.Pid}}", container).stdout.strip()
    inside, outside, length = (int(word) for word in Path(f"/proc/{pid}/uid_map").read_text().split())
    assert (inside, length) == (0, 65536)
    assert outside >= 1 << 24
    assert os.stat(f"/proc/{pid}").st_uid == outside
    assert _cli(daemon, "exec", container, "id", "-u").stdout == "0\n"


def test_the_images_files_are_the_containers_roots_and_stay_roots_on_disk(daemon: Daemon) -> None:
    assert _run(daemon, "stat -c %u /bin/busybox /etc/hosts; touch /new; stat -c %u /new").split() == ["0"] * 3
    _cli(daemon, "run", "--name", "writer", "--userns", "auto", "busybox", "touch", "/new")
    assert "A /new" in _cli(daemon, "diff", "writer").stdout.splitlines()
    _cli(daemon, "commit", "writer", "shifted")
    assert _cli(daemon, "run", "--rm", "shifted", "stat", "-c", "%u", "/new").stdout == "0\n"
    _cli(daemon, "rmi", "-f", "shifted")


def test_volumes_are_its_own_and_files_of_the_machine_are_nobodys(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the machine")
    tmp_path.chmod(0o700)
    binds = ("-v", "shifted:/data", "-v", f"{tmp_path}:/machine")
    script = "touch /data/f; stat -c %u /data/f /machine; cat /machine/file 2>/dev/null || echo shut"
    assert _run(daemon, script, *binds).split() == ["0", "65534", "shut"]
    assert _cli(daemon, "run", "--rm", "-v", "shifted:/data", "busybox", "stat", "-c", "%u", "/data/f").stdout == "0\n"


def test_a_read_only_bind_that_is_made_writable_inside_still_refuses(daemon: Daemon, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    script = "touch /m/a 2>/dev/null && echo bad; mount -o remount,rw,bind /m; touch /m/a 2>/dev/null && echo bad; true"
    options = ("--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "-v", f"{tmp_path}:/m:ro")
    assert _run(daemon, script, *options) == ""
    assert not list(tmp_path.iterdir())


def test_containers_in_the_container_work_and_its_limits_are_not_its_own_to_change(daemon: Daemon) -> None:
    script = """
        unshare -mpf sh -c 'mount -t proc p /proc; echo $$; ps | wc -l'
        unshare -n mount -t sysfs s /tmp
        mount -t tmpfs t /mnt; mkdir /mnt/u /mnt/w
        mount -t overlay o -o lowerdir=/bin,upperdir=/mnt/u,workdir=/mnt/w /home; test -e /home/busybox
        tree=/sys/fs/cgroup; [ -d $tree/pids ] && tree=$tree/pids
        mkdir $tree/leaf; echo $$ > $tree/leaf/cgroup.procs; grep -c leaf /proc/self/cgroup
        echo max > $tree/pids.max && echo bad; true
    """
    unmasked = ("--security-opt", "systempaths=unconfined")
    options = ("--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt", "writable-cgroups=true")
    printed = _run(daemon, script, *options, *unmasked, "--pids-limit", "50", "--network", "none").split()
    assert printed[0] == "1"
    assert "bad" not in printed


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--userns", "auto", "--privileged"], "privileged mode is incompatible with user namespaces"),
        (["--userns", "auto", "--network", "host"], "cannot share another network namespace"),
        (["--userns", "auto", "--pid", "host"], "cannot share another PID namespace"),
        (["--security-opt", "writable-cgroups=true"], "needs a user namespace of the container's own"),
    ],
)
def test_contradictions_are_refused(daemon: Daemon, options: list[str], reason: str) -> None:
    done = _cli(daemon, "run", "--rm", *options, "busybox", "true")
    assert done.returncode == 125
    assert reason in done.stderr
