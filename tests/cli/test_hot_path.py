"""The commands that people wait for import almost nothing."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BARRED = {"re", "enum", "dataclasses", "typing", "pathlib", "argparse", "http", "http.client", "click", "rich", "json",
          "socket", "subprocess", "threading", "collections", "functools", "ssl", "tarfile", "urllib", "msgspec", "os",
          "datetime", "minidocker.errors", "minidocker.engine", "minidocker.linux", "minidocker.cli.terminal",
          "minidocker.cli.template", "minidocker.cli.progress"}
PROBE = """
import sys
sys.path.append({root!r})
from minidocker.cli.main import run
status = run({words!r}, {environment!r})
import posix
posix.write(2, " ".join(sorted(sys.modules)).encode())
"""


def loaded(words: list[str], environment: dict[str, str]) -> set[str]:
    """The modules of an interpreter that has run the command."""
    probe = PROBE.format(root=str(ROOT), words=words, environment=environment)
    done = subprocess.run([sys.executable, "-ISE", "-c", probe], capture_output=True, check=True, timeout=60,
                          stdin=subprocess.DEVNULL)
    return set(done.stderr.decode().splitlines()[-1].split())


@pytest.mark.parametrize("words", [["run", "--rm", "--name", "c2", "-e", "A=1", "box:1", "true"], ["ps"], ["ps", "-aq"],
                                   ["exec", "cc", "true"], ["start", "cc"], ["rm", "-f", "cc"]])
def test_the_hot_path_imports_almost_nothing(words: list[str], mini: Any) -> None:
    mini("run -d --name cc box:1 sleep 1000")
    modules = loaded(words, mini.environment)
    assert "minidocker.client.transport" in modules
    assert not modules & BARRED


def test_the_whole_set_for_a_run_is_small(mini: Any) -> None:
    modules = loaded(["run", "--rm", "box:1", "true"], mini.environment) - set(sys.builtin_module_names)
    ours = {name for name in modules if name.startswith("minidocker")}
    bare = subprocess.run([sys.executable, "-ISE", "-c", "import sys; print(*sys.modules)"], capture_output=True,
                          check=True).stdout.decode().split()
    assert len(ours) <= 18
    assert modules - ours - set(bare) <= {"_socket", "_json", "posix"}
