"""What the launcher is made of, and its rehearsal."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from minidocker.runtime.rehearsal import rehearse

# What is done after each fork because of these would be done in every container's processes.
UNWANTED = ("threading", "subprocess", "logging", "random", "asyncio", "concurrent.futures")


def test_the_launcher_imports_nothing_that_acts_after_a_fork() -> None:
    paths = [str(Path(__file__).parents[2]), str(Path(msgspec.__file__).parents[1])]
    script = (
        f"import sys; sys.path += {paths!r}; import minidocker.runtime.launcher; "
        f"print([name for name in {UNWANTED!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-sSPc", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_rehearsal_leaves_nothing_behind(tmp_path: Path) -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = sorted(os.listdir("/proc/self/fd")), children.read_text()
    rehearse(tmp_path)
    gc.collect()
    assert (sorted(os.listdir("/proc/self/fd")), children.read_text()) == before
    assert list(tmp_path.iterdir()) == []


def test_a_launcher_without_a_place_to_rehearse_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    rehearse(tmp_path / "file")
