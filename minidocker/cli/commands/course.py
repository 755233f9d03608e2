"""`doctor` and `check`: the course's own commands.

Rules   - they become another program: this one started without the site-packages that the course needs (-S).
"""

from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session


def doctor(session: Session, options: Options, operands: list[str]) -> int:
    """`doctor`: what this machine can do; the exit status is 1 if something needed is missing."""
    return _become("minidocker.lab.doctor", operands)


def check(session: Session, options: Options, operands: list[str]) -> int:
    """`check EXERCISE`: the exit status is 0 if all its checks hold."""
    return _become("minidocker.lab.verdict", operands)


def _become(module: str, arguments: list[str]) -> int:
    import os
    import sys

    root = os.path.abspath(f"{os.path.dirname(__file__)}/../../..")
    own = os.path.join(root, ".venv", "bin", "python")
    python = own if os.access(own, os.X_OK) else sys.executable
    try:
        # -P: a module must not come from the working directory, where the learner's files are.
        os.execv(python, [python, "-P", "-m", module, *arguments])
    except OSError as error:
        raise CommandFailure(f"{python}: {error.strerror}; run `./lab setup` in the checkout") from None


DOCTOR = Command(doctor, "")
CHECK = Command(check, "EXERCISE", "", 1, 1, interspersed=False)
