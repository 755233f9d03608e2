"""minidockerd: flags, sockets, pidfile, signals; then the engine and its API until it is told to end.

Source  dockerd(8): the flags' names and meanings; systemd's sd_notify is not used.
Rules   - the only place of the daemon that reads argv and the environment.
        - the process never forks: launcher and worker are started as fresh programs.
"""

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from minidocker import __version__
from minidocker.daemon import sockets
from minidocker.engine.plugins import SOCKETS, SPECS, Directories, Limits, Plugins
from minidocker.errors import Conflict, MinidockerError

if TYPE_CHECKING:
    import ssl

    from minidocker.engine.containers.config import LogConfig
    from minidocker.engine.engine import Settings

log = logging.getLogger("minidocker.daemon")

DATA_ROOT = Path("/var/lib/minidocker")
EXEC_ROOT = Path("/run/minidocker")
SOCKET_GROUP = "docker"
THREADS = 32
INIT_PROGRAMS = ("/usr/bin/tini-static", "/usr/libexec/docker/docker-init", "/usr/bin/docker-init")
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


def flag(text: str) -> bool:
    """A boolean flag's value, as Go's flag package reads it."""
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def make_parser() -> argparse.ArgumentParser:
    """dockerd's own flag names."""
    parser = argparse.ArgumentParser(prog="minidockerd", description="The minidocker daemon.", allow_abbrev=False)
    add = parser.add_argument
    add("--data-root", type=Path, default=DATA_ROOT, help="images, containers and volumes (default %(default)s)")
    add("--exec-root", type=Path, default=EXEC_ROOT, help="sockets, pids, monitors (default %(default)s)")
    add(
        "-H",
        "--host",
        action="append",
        default=[],
        help="listen here: unix:///path, tcp://host:port, fd://; repeatable",
    )
    add("-p", "--pidfile", type=Path, default=None, help="(default EXEC_ROOT/minidocker.pid)")
    add("-G", "--group", default=SOCKET_GROUP, help="group of the unix sockets (default %(default)s, else root)")
    add("-b", "--bridge", default=None, help="bridge device of the default network; none: no network")
    add("--bip", default=None, help="address and prefix of the bridge, for example 172.18.0.1/16")
    add("--mtu", type=int, default=1500, help="of the default network (default %(default)s)")
    _add_registries(add)
    _add_plugins(add)
    add("--cgroup-parent", default=None, help="control group that containers' groups are made in")
    add("--init-path", default=None, help="static init that --init uses")
    for name, default in (("--tls", None), ("--tlsverify", None), ("--live-restore", True)):
        add(name, type=flag, nargs="?", const=True, default=default, metavar="BOOL")
    add("--tlscacert", type=Path, default=None, help="trust clients signed by this CA")
    add("--tlscert", type=Path, default=None, help="the daemon's certificate")
    add("--tlskey", type=Path, default=None, help="and its key (these three: default DOCKER_CERT_PATH or ~/.docker)")
    add("-l", "--log-level", choices=sorted(LEVELS), default="info")
    add("-D", "--debug", type=flag, nargs="?", const=True, default=False, metavar="BOOL")
    add("--log-driver", default="json-file", help="of containers that name none (default %(default)s)")
    add("--log-opt", action="append", default=[], metavar="KEY=VALUE", help="of that driver; repeatable")
    add("--shutdown-timeout", type=int, default=15, help="seconds for containers to stop without live-restore")
    add("-v", "--version", action="version", version=f"minidocker version {__version__}")
    return parser


def _add_registries(add: Callable[..., object]) -> None:
    """Which registries are asked, and which are trusted."""
    add(
        "--insecure-registry",
        action="append",
        default=[],
        help="host:port or network that may be spoken to without TLS",
    )
    add("--registry-mirror", action="append", default=[], help="URL to ask before Docker Hub")
    add(
        "--registry-certs-dir",
        type=Path,
        action="append",
        default=[],
        help="directory of HOST:PORT/ folders with certificates; repeatable, instead of /etc/docker/certs.d and "
        "/etc/minidocker/certs.d",
    )


def _add_plugins(add: Callable[..., object]) -> None:
    """dockerd's flag of authorization plugins, and our own of where plugins are and how long they may take."""
    add(
        "--authorization-plugin",
        action="append",
        default=[],
        metavar="NAME",
        help="ask this plugin whether a call is allowed; repeatable, all must allow",
    )
    add("--plugin-socket-dir", type=Path, default=SOCKETS, help="where plugins put their sockets (default %(default)s)")
    add(
        "--plugin-spec-dir",
        type=Path,
        action="append",
        default=[],
        help="directory of NAME.spec and NAME.json files that tell where plugins answer; repeatable, instead of "
        + " and ".join(map(str, SPECS)),
    )
    add(
        "--plugin-timeout",
        type=float,
        default=Limits().short,
        metavar="SECONDS",
        help="how long a plugin may take to answer, twice as long for create and mount (default %(default)g)",
    )


# -- pidfile --


@contextlib.contextmanager
def pidfile(path: Path):  # type: ignore[no-untyped-def]
    """Hold `path` with our pid. Raises Conflict: its daemon lives (the file is locked while it does)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 32).decode(errors="replace").strip()
        os.close(fd)
        raise Conflict(f"pidfile {path} is held by the running daemon {pid}; give this one its own --pidfile") from None
    try:
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


# -- running --


def find_certificates(options: argparse.Namespace) -> None:
    """Give the TLS files that were not named their usual place, as dockerd does, if they are there."""
    folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    for name in ("ca", "cert", "key"):
        flag_name = f"tls{name}cert" if name == "ca" else f"tls{name}"
        usual = folder / f"{name}.pem"
        if getattr(options, flag_name) is None and usual.is_file():
            setattr(options, flag_name, usual)


def settings_of(options: argparse.Namespace) -> "Settings":
    """The engine's settings from the flags."""
    from minidocker.engine.engine import Settings, identity_of
    from minidocker.network.host import names

    default_root = options.exec_root == EXEC_ROOT
    table = names(options.exec_root).table  # carries the hash of an exec-root of its own
    suffix = "" if default_root else "-" + table.rpartition("-")[2]
    init = options.init_path or next((path for path in INIT_PROGRAMS if os.access(path, os.X_OK)), "")
    return Settings(
        data_root=options.data_root,
        exec_root=options.exec_root,
        cgroup_parent=options.cgroup_parent or f"/minidocker{suffix}",
        live_restore=options.live_restore,
        registry_mirrors=tuple(options.registry_mirror),
        insecure_registries=tuple(options.insecure_registry),
        registry_certs_dirs=tuple(path.resolve() for path in options.registry_certs_dir) or None,
        init_path=init,
        debug=options.debug,
        authorization_plugins=tuple(options.authorization_plugin),
        identity=identity_of(options.data_root),
        stop_seconds=float(options.shutdown_timeout),
        log=default_log(options),
    )


def plugins_of(options: argparse.Namespace) -> Plugins:
    """Where plugins are looked for, and how they are asked."""
    from minidocker.daemon import plugin_calls

    specs = tuple(options.plugin_spec_dir) or SPECS
    directories = Directories(options.plugin_socket_dir.resolve(), specs)
    return Plugins(plugin_calls.post, directories, Limits.within(options.plugin_timeout))


def default_log(options: argparse.Namespace) -> "LogConfig":
    """--log-driver and --log-opt. Raises InvalidArgument: no such driver or option."""
    from minidocker.engine.containers.config import LogConfig
    from minidocker.engine.logs import log_drivers

    config = LogConfig(options.log_driver, dict(word.partition("=")[::2] for word in options.log_opt))
    log_drivers.check(config)
    return config


def protocol(
    http: Callable[[], asyncio.Protocol], context: "ssl.SSLContext | None"
) -> Callable[[], asyncio.Protocol]:
    """What makes the protocol of a new connection. context: with TLS."""
    from minidocker.daemon.connection import Connection
    from minidocker.daemon.tls import TlsFront

    if context is None:
        return lambda: Connection(http())
    return lambda: TlsFront(context, Connection(http()))


async def serve(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Open the engine, answer until `stop`, close it."""
    from aiohttp import web

    from minidocker.daemon.app import make_app
    from minidocker.daemon.authorization import Authorization
    from minidocker.engine.engine import Engine
    from minidocker.network.bridge import default_network

    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS, "work"))
    context = sockets.tls_context(options)
    network = default_network(options.exec_root, bridge=options.bridge, bip=options.bip, mtu=options.mtu)
    listening = sockets.listeners(options)
    try:
        plugins = plugins_of(options)
        engine = Engine(settings_of(options), network, plugins)
        try:
            authorization = Authorization(plugins, options.authorization_plugin)
            await authorization.check()
            await engine.open()
            inner = [authorization.middleware] if options.authorization_plugin else []
            runner = web.AppRunner(make_app(engine, *inner), access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            handler = runner.server
            assert handler is not None
            servers = [
                await loop.create_server(protocol(handler, context if one.tcp else None), sock=one.socket)
                for one in listening
            ]
            log.info("ready", extra={"version": __version__, "data_root": str(options.data_root)})
            await stop.wait()
            log.info("stopping")
            for one in listening:
                one.withdraw()
            for server in servers:
                server.close()
            await runner.cleanup()
        finally:
            await engine.close()
    finally:
        for one in listening:
            one.close()


class OperatorFormat(logging.Formatter):
    """One line an event: time, level, message, then the fields."""

    _STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value!r}" for key, value in vars(record).items() if key not in self._STANDARD)
        return super().format(record) + fields


def _is_our_fault(record: logging.LogRecord) -> bool:
    """False for what aiohttp logs with a traceback when a client does not speak HTTP: that is no event of ours."""
    from aiohttp.http_exceptions import HttpProcessingError

    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def set_up_logging(options: argparse.Namespace) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(OperatorFormat("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if options.debug else LEVELS[options.log_level], handlers=[handler])
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(_is_our_fault)


async def _main(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: log.info("nothing to reload"))
    await serve(options, stop)


def main(arguments: Sequence[str] | None = None) -> int:
    """The `minidockerd` command. Returns its exit status."""
    options = make_parser().parse_args(arguments)
    options.listen_fds = int(os.environ.get("LISTEN_FDS", "0"))
    find_certificates(options)
    options.data_root, options.exec_root = options.data_root.resolve(), options.exec_root.resolve()
    set_up_logging(options)
    if os.geteuid() != 0:
        print("minidockerd needs to be started with root privileges; use sudo", file=sys.stderr)
        return 1
    os.umask(0o022)
    try:
        with pidfile(options.pidfile or options.exec_root / "minidocker.pid"):
            asyncio.run(_main(options))
    except MinidockerError as error:
        print(f"minidockerd: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
