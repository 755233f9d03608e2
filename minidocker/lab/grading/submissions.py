"""What was handed in, as nbgrader lays it out: submitted/STUDENT/ASSIGNMENT/NOTEBOOK.ipynb and files beside it.

Source  nbgrader documentation, "The philosophy and the approach" (directory structure).
Rules   - a folder of submissions is the work of strangers: only regular files are read, never through a link, never
          more than the limits.
        - what is graded is a copy; nbgrader, which follows links, sees only that.
        - the same content is graded once: its digest tells.
"""

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minidocker.errors import InvalidArgument

FILE_BYTES, FILES = 20 << 20, 200
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]*\Z")


@dataclass(frozen=True, slots=True)
class Submission:
    """One student's work on one assignment; `path` is the directory."""

    student: str
    assignment: str
    path: Path

    def files(self) -> Iterator[tuple[Path, Path]]:
        """Each regular file: its path from the submission's top, and where it is.

        Raises  InvalidArgument: too many files.
        """
        count = 0
        for directory, below, names in os.walk(self.path):
            below[:] = [name for name in below if not name.startswith(".")]
            for name in sorted(names):
                place = Path(directory, name)
                if not stat.S_ISREG(place.lstat().st_mode):
                    continue
                count += 1
                if count > FILES:
                    raise InvalidArgument(f"more than {FILES} files")
                yield place.relative_to(self.path), place

    def copy(self, target: Path) -> str:
        """Copy it to the new directory `target`. Returns its digest.

        Raises  InvalidArgument: too many or too large files.
        """
        digest = hashlib.sha256()
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name, place in self.files():
            fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                content = file.read(FILE_BYTES + 1)
            if len(content) > FILE_BYTES:
                raise InvalidArgument(f"{name} is larger than {FILE_BYTES >> 20} MiB")
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)
            digest.update(f"{name} {len(content)} ".encode(errors="surrogateescape") + content)
        return digest.hexdigest()


def find(folder: Path, assignments: set[str]) -> tuple[list[Submission], list[str]]:
    """All submissions in a folder to known assignments, and a line for each that is none."""
    found, strange = [], []
    for student in _directories(folder):
        for path in _directories(student):
            if path.name not in assignments:
                strange.append(f"{student.name}/{path.name}: there is no such assignment")
            elif not _NAME.match(student.name):
                strange.append(f"{student.name!r}/{path.name}: not a student's name: letters, digits and _ . @ + -")
            else:
                found.append(Submission(student.name, path.name, path))
    return found, strange


def _directories(top: Path) -> list[Path]:
    return sorted(path for path in top.iterdir() if path.is_dir() and not path.is_symlink() and path.name[0] != ".")
