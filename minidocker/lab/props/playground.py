"""Small things to take apart in isolated cells: a root directory with busybox in it, processes that misbehave.

Source  busybox(1); filesystem hierarchy: hier(7).
Rules   - everything is made below a path that the cell gives, on a filesystem of its own; nothing outlives it.
"""

import os
import shutil
from pathlib import Path

APPLETS = ("sh", "ls", "cat", "ps", "mount", "hostname", "id", "sleep", "kill", "stty", "mkdir", "echo")
DIRECTORIES = ("bin", "proc", "sys", "dev", "etc", "tmp", "root")


def busybox_root(root: str | Path) -> Path:
    """Make a directory tree that is enough to be somebody's `/`: one static program and the directories around it.

    Raises  FileNotFoundError: busybox-static is not installed (./lab setup installs it).
    """
    program = next((path for path in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(path)), None)
    if program is None:
        raise FileNotFoundError("busybox-static is not installed; ./lab setup installs it")
    top = Path(root)
    for name in DIRECTORIES:
        (top / name).mkdir(parents=True, exist_ok=True)
    shutil.copy2(program, top / "bin/busybox")
    for name in APPLETS:
        (top / "bin" / name).symlink_to("busybox")
    return top
