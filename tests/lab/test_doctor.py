"""The doctor tries each thing itself, says why it fails and how to cure it, and leaves nothing behind."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.lab import doctor
from minidocker.lab.doctor import Finding
from minidocker.lab.isolated import Isolation

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def isolation() -> Iterator[Isolation]:
    made = Isolation()
    yield made
    made.close()


@pytest.mark.needs_root
def test_the_doctor_examines_all_and_leaves_nothing_behind(leftovers: Any) -> None:
    leftovers.claim("minidocker-lab-")
    before = Path("/proc/self/mountinfo").read_text()
    findings = doctor.examine()
    assert [finding.subject for finding in findings][:3] == ["privileges", "control groups", "namespaces"]
    assert len(findings) == len(doctor.PROBES)
    assert all(finding.observed for finding in findings)
    assert all(bool(finding.cure) != finding.fine for finding in findings)
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.needs_root
def test_a_probe_that_fails_names_the_reason_and_the_cure(isolation: Isolation) -> None:
    finding = doctor._by_trying("overlayfs", doctor._OVERLAY.replace("'overlay', 0", "'overly', 0"), "modprobe")(
        isolation
    )
    assert finding == Finding("overlayfs", False, finding.observed, "modprobe")
    assert "ENODEV" in finding.observed
    assert doctor._by_trying("overlayfs", doctor._OVERLAY, "modprobe")(isolation).fine


@pytest.mark.needs_root
def test_a_user_namespace_is_missed_where_none_is_allowed(isolation: Isolation) -> None:
    """The limit is set in a user namespace of the cell's own, so the machine's stays as it is."""
    setting = "/proc/sys/user/max_user_namespaces"
    code = (
        "from minidocker.linux.namespaces import CloneFlag, unshare\n"
        f"unshare(CloneFlag.NEWUSER); open('{setting}', 'w').write('0')\n{doctor._USER}"
    )
    before = Path(setting).read_text()
    finding = doctor._by_trying("user namespaces", code, "sysctl")(isolation)
    assert not finding.fine and "ENOSPC" in finding.observed and Path(setting).read_text() == before


def test_without_root_and_programs_the_doctor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(doctor, "SOCKET", Path("/nowhere/minidocker.sock"))
    unused = Isolation()
    assert doctor.privileges(unused) == Finding("privileges", False, "user 1000", "run it as root, or through sudo")
    assert doctor.programs(unused).observed == "missing: graphviz, busybox-static, tini, docker-registry, strace"
    assert doctor.daemon(unused) == Finding(
        "daemon", False, "/nowhere/minidocker.sock: No such file or directory", "./lab setup starts it"
    )


def test_the_report_is_a_line_a_finding_and_the_exit_status_is_true(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = Finding("disk", True, "plenty"), Finding("nftables", False, "ENOENT", "apt-get install it")
    probes: Callable[..., list[Finding]] = lambda: [good, bad]  # noqa: E731
    monkeypatch.setattr(doctor, "examine", probes)
    assert doctor.main() == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "ok  disk      plenty",
        "NO  nftables  ENOENT",
        "              cure: apt-get install it",
    ]
    monkeypatch.setattr(doctor, "examine", lambda: [good])
    assert doctor.main() == 0


@pytest.mark.needs_root
def test_minidocker_doctor_is_the_same_report() -> None:
    command = [sys.executable, "-ISE", str(CHECKOUT / "minidocker/cli/__main__.py"), "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == int("NO " in done.stdout), done.stderr
    assert len([line for line in done.stdout.splitlines() if line[:3] in ("ok ", "NO ")]) == len(doctor.PROBES)
