"""The virtual machine for people without Linux: one provisioning step, and a forwarded JupyterLab."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from minidocker.lab.setup import services

CHECKOUT = Path(__file__).resolve().parents[1]
VAGRANTFILE = (CHECKOUT / "Vagrantfile").read_text()


@pytest.mark.skipif(shutil.which("vagrant") is None, reason="needs vagrant: apt-get install vagrant")
def test_vagrant_finds_it_valid(tmp_path: Path) -> None:
    shutil.copy(CHECKOUT / "Vagrantfile", tmp_path)
    own = {"HOME": str(tmp_path), "VAGRANT_HOME": str(tmp_path / "home"), "VAGRANT_CHECKPOINT_DISABLE": "1"}
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=tmp_path,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout


def test_the_one_provisioning_step_is_lab_setup() -> None:
    (step,) = re.findall(r"^\s*config\.vm\.provision (.*)$", VAGRANTFILE, re.MULTILINE)
    assert 'inline: "cd /home/vagrant/minidocker && ./lab setup --service"' in step
    assert '"/home/vagrant/minidocker", type: "rsync"' in VAGRANTFILE


def test_the_port_of_jupyterlab_is_forwarded_to_loopback_only() -> None:
    port = re.search(r"^JUPYTER_PORT = (\d+)$", VAGRANTFILE, re.MULTILINE)
    assert port is not None and int(port[1]) == services.JUPYTER_PORT
    (forwarded,) = re.findall(r"^\s*config\.vm\.network (.*)$", VAGRANTFILE, re.MULTILINE)
    assert '"forwarded_port", guest: JUPYTER_PORT, host: JUPYTER_PORT, host_ip: "127.0.0.1"' in forwarded


def test_work_done_in_the_machine_survives_the_next_start() -> None:
    arguments = re.search(r"rsync__args: \[(.*)\]", VAGRANTFILE)
    assert arguments is not None
    assert "--update" in arguments[1] and "--delete" not in arguments[1]
