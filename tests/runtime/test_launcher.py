"""What the launcher is made of."""

import subprocess
import sys
from pathlib import Path

import msgspec

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
