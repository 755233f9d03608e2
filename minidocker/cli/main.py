"""The `minidocker` command: finds the command's module, parses its options, turns failures into exit statuses.

Source  docker's command line reference; exit statuses of `docker run` (125, 126, 127, 128+n).
Rules   - hot path: only what every command needs is imported; a command's module is imported when it is named.
        - the only place below which nobody reads the environment.
"""

import posix
import sys
from _signal import SIG_DFL, SIGINT, signal  # type: ignore[import-not-found]

from minidocker.cli.index import COMMANDS, GROUPS
from minidocker.cli.options import Options, UsageError, parse
from minidocker.cli.session import PROGRAM, Command, CommandFailure, Session, describe

GLOBAL_OPTIONS = """
    --config string      Directory of the client's configuration (config.json, contexts)
-c, --context string     Name of the context that says where the daemon is (wins over DOCKER_HOST)
-D, --debug              Show the trace of an unexpected failure
-H, --host list          Daemon socket to connect to
-l, --log-level string   Accepted for compatibility ("debug", "info", "warn", "error", "fatal")
    --tls                Use TLS; implied by --tlsverify
    --tlscacert string   Trust only daemons whose certificate this CA signed
    --tlscert string     Path to the client's TLS certificate
    --tlskey string      Path to the client's TLS key
    --tlsverify          Use TLS and verify the daemon
-v, --version            Print version information and quit
"""


def main() -> None:
    """Run the command line of this process, and end it."""
    signal(SIGINT, SIG_DFL)
    status = _run(sys.argv[1:])
    sys.stdout.flush()      # the course's commands print
    sys.stderr.flush()
    # Nothing is left to tear down.
    posix._exit(status)


def _run(arguments: list[str]) -> int:
    environment = {_text(name): _text(value) for name, value in posix.environ.items()}
    try:
        return run(arguments, environment)
    except BrokenPipeError:
        # The reader of our output went away: end as every program does then.
        from _signal import SIGPIPE

        signal(SIGPIPE, SIG_DFL)
        posix.kill(posix.getpid(), SIGPIPE)
        return 141
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("utf-8", "surrogateescape")


def run(arguments: list[str], environment: dict[str, str]) -> int:
    """Run one command line; the exit status."""
    try:
        options, rest = parse(GLOBAL_OPTIONS, arguments, interspersed=False)
    except UsageError as error:
        return _usage_failure(str(error), "", None)
    if options.flag("version"):
        from minidocker import __version__

        posix.write(1, f"minidocker version {__version__}\n".encode())
        return 0
    words, command = _find(rest)
    if command is None:
        from minidocker.cli import help as helping

        return helping.group_or_unknown(rest)
    path = " ".join([PROGRAM, *rest[:words]])
    try:
        values, operands = parse(command.options, rest[words:], interspersed=command.interspersed)
    except UsageError as error:
        return _usage_failure(str(error), path, command)
    if len(operands) < command.minimum or (command.maximum is not None and len(operands) > command.maximum):
        from minidocker.cli import help as helping

        return helping.wrong_number(path, command)
    return _call(options, environment, path, command, values, operands)


def _find(rest: list[str]) -> tuple[int, Command | None]:
    """How many words name the command, and the command."""
    name = rest[0] if rest else ""
    words = 1
    if name in GROUPS:
        name = GROUPS[name][1].get(rest[1] if len(rest) > 1 else "", "")
        words = 2
    if name not in COMMANDS:
        return 0, None
    module, attribute, _ = COMMANDS[name]
    found = getattr(__import__(f"minidocker.cli.commands.{module}", None, None, [attribute]), attribute)
    assert isinstance(found, Command)
    return words, found


def _call(options: Options, environment: dict[str, str], path: str, command: Command, values: Options,
          operands: list[str]) -> int:
    long = command.long_errors
    try:
        session = open_session(options, environment)
        session.path = path
        return command.run(session, values, operands)
    except CommandFailure as error:
        text, status = str(error), error.status
        if text and long and status >= 125:
            text = f"{PROGRAM}: {text}\n\nRun '{path} --help' for more information"
    except UsageError as error:
        return _usage_failure(str(error), path, command)
    except BrokenPipeError:
        raise
    except Exception as error:
        if options.flag("debug"):
            raise
        text, status = describe(error), 1
        if long:
            text, status = f"{PROGRAM}: {text}\n\nRun '{path} --help' for more information", 125
    if text:
        posix.write(2, (text + "\n").encode("utf-8", "surrogateescape"))
    return status


def open_session(options: Options, environment: dict[str, str]) -> Session:
    """The session for the global options and the environment, by docker's order: -H, --context, DOCKER_HOST, config."""
    home = environment.get("HOME", "/root")
    config_dir = options.text("config") or environment.get("DOCKER_CONFIG") or f"{home}/.docker"
    url = (options.items("host") or [""])[-1]
    context = options.text("context")
    if url and context:
        raise CommandFailure("conflicting options: cannot specify both --host and --context")
    tls = None
    secure = options.flag("tls") or options.flag("tlsverify") or bool(environment.get("DOCKER_TLS_VERIFY"))
    if not url and not context:
        url = environment.get("DOCKER_HOST", "")
        context = "" if url else environment.get("DOCKER_CONTEXT", "")
    if (context and context != "default") or secure:
        from minidocker.cli import contexts

        if context and context != "default":
            url, tls = contexts.endpoint(config_dir, context)
        else:
            tls = contexts.tls_files(options, environment, config_dir)
    if url and "://" not in url:
        url = f"tcp://{url}" if not url.startswith("/") else f"unix://{url}"
    return Session(url, tls, environment, config_dir)


def _usage_failure(problem: str, path: str, command: Command | None) -> int:
    from minidocker.cli import help as helping

    return helping.usage_failure(problem, path, command)
