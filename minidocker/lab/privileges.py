"""What a lesson needs of the machine, and a one-line, named skip where it is missing.

Source  pytest's `skip`, which pytest-notebook understands when a cell raises it; IPython's `_render_traceback_`.
Rules   - a lesson names all it needs in its first code cell; what is missing is said in one line with the cure.
        - the recorded output of the lesson stays readable, so a reader without privileges can still follow it.
"""

import os
from collections.abc import Callable

from minidocker.client import connect
from minidocker.errors import MinidockerError
from minidocker.linux import cgroups


class Skipped(Exception):
    """The lesson cannot run here; shown as one line instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"Skipped: {self}"]


def _root() -> str:
    return "" if os.geteuid() == 0 else "needs root: start JupyterLab with ./lab, which asks for it"


def _daemon() -> str:
    try:
        connect().ping()
        return ""
    except (OSError, MinidockerError) as error:
        return f"needs the daemon: run ./lab setup ({error})"


def _control_groups() -> str:
    missing = {"memory", "pids", "cpu"} - set(cgroups.controllers())
    return f"needs the cgroup controllers {', '.join(sorted(missing))}; ./lab doctor tells the cure" if missing else ""


PROBES: dict[str, Callable[[], str]] = {"root": _root, "daemon": _daemon, "cgroups": _control_groups}


def require(*names: str) -> None:
    """End the lesson here, in one line, unless all that it needs is there.

    names   of PROBES: "root", "daemon", "cgroups".
    Raises  Skipped; under pytest its own skip, with the same text.
    """
    for name in names:
        if reason := PROBES[name]():
            _skip(reason)


def _skip(reason: str) -> None:
    if "PYTEST_CURRENT_TEST" in os.environ:
        import pytest

        pytest.skip(reason)
    raise Skipped(reason)
