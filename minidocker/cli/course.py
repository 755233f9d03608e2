"""`doctor` and `check`: the course's own commands.

Rules   - minidocker.lab is imported here, when one of them is called, and nowhere else in the command line.
"""

from collections.abc import Callable
from importlib import import_module

from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session


def _main(module: str) -> Callable[..., object]:
    _add_site_packages()
    try:
        main = getattr(import_module(module), "main", None)
    except ImportError as error:
        raise CommandFailure(f"{module} cannot be loaded: {error}; run `./lab setup` in the checkout") from None
    if not callable(main):
        raise CommandFailure(f"{module} has no main")
    found: Callable[..., object] = main
    return found


def doctor(session: Session, options: Options, operands: list[str]) -> int:
    """`doctor`: what this machine can do; the exit status is 1 if something needed is missing."""
    status = _main("minidocker.lab.doctor")()
    return status if isinstance(status, int) else 0


def check(session: Session, options: Options, operands: list[str]) -> int:
    """`check EXERCISE`: the exit status is 0 if all its checks hold."""
    status = _main("minidocker.lab.checks")(operands)
    return status if isinstance(status, int) else 0


def _add_site_packages() -> None:
    """The command starts without any (-S); the virtual environment beside the package has what lab needs."""
    import sys
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for directory in (root / ".venv/lib" / name / "site-packages", root):
        if directory.is_dir() and str(directory) not in sys.path:
            sys.path.append(str(directory))


DOCTOR = Command(doctor, "")
CHECK = Command(check, "[EXERCISE]", "", 0, None, interspersed=False)
