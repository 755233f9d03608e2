"""What a command is given: the daemon's transport, the streams, the settings that `main` read from the environment.

Rules   - commands write through `out` and `error`; descriptors 1 and 2 directly, so nothing waits in a buffer.
        - nothing below `main` looks at the environment; what it needs stands here.
"""

import posix

from minidocker.client.transport import TlsFiles, Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from minidocker.cli.options import Options

PROGRAM = "minidocker"


class CommandFailure(Exception):
    """A command failed and the text, if any, says why; `status` becomes the exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class Session:
    """One run of the command line.

    Attributes: `transport`; `environment` (names and values, as text); `config_dir` (where config.json is);
    `path` (the words that named the command, "minidocker container ls").
    """

    def __init__(self, url: str, tls: TlsFiles | None, environment: "Mapping[str, str]", config_dir: str) -> None:
        self.transport = Transport(url, tls)
        self.environment = environment
        self.config_dir = config_dir
        self.path = PROGRAM

    def out(self, text: str) -> None:
        """Write to stdout."""
        write_all(1, text.encode("utf-8", "surrogateescape"))

    def error(self, text: str) -> None:
        """Write to stderr."""
        write_all(2, text.encode("utf-8", "surrogateescape"))


def write_all(descriptor: int, payload: bytes) -> None:
    """Write everything, however many calls that takes."""
    view = memoryview(payload)
    while view:
        try:
            view = view[posix.write(descriptor, view) :]
        except BlockingIOError:     # somebody made the terminal non-blocking
            import select

            select.select([], [descriptor], [])


class Command:
    """How a command is called, and what runs it.

    usage    the words after its name; options  a table (see options.py); minimum, maximum  operands (None: any number).
    long_errors  failures are told with the program's name and a hint, and end with 125 (run, create).
    """

    __slots__ = ("interspersed", "long_errors", "maximum", "minimum", "options", "run", "usage")

    def __init__(self, run: "Callable[[Session, Options, list[str]], int]", usage: str, options: str = "",
                 minimum: int = 0, maximum: int | None = 0, *, interspersed: bool = True,
                 long_errors: bool = False) -> None:
        self.run = run
        self.usage = usage
        self.options = options
        self.minimum = minimum
        self.maximum = maximum
        self.interspersed = interspersed
        self.long_errors = long_errors


def each(session: Session, names: list[str], action: "Callable[[str], str | None]") -> int:
    """Do `action` for each name, printing what it gives back; a failure is told and the others go on. Status 0 or 1."""
    failed = False
    for name in names:
        try:
            answer = action(name)
        except CommandFailure as error:
            session.error(f"{error}\n")
            failed = True
        except Exception as error:
            session.error(describe(error) + "\n")
            failed = True
        else:
            if answer is not None:
                session.out(answer + "\n")
    return 1 if failed else 0


def describe(error: Exception) -> str:
    """A failure in the words that the user sees. Raises `error` again if it is a bug."""
    from minidocker.client.failures import DaemonError
    from minidocker.errors import MinidockerError

    if isinstance(error, DaemonError):
        return f"Error response from daemon: {error}"
    if not isinstance(error, (MinidockerError, OSError)):
        raise error
    return str(error)
