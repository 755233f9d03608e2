"""The sockets that the daemon listens on: unix, TCP with TLS, handed over by systemd.

Source  dockerd(8): --host, --group, --tls*; unix(7); sd_listen_fds(3).
Rules   - a socket is never open wider than asked, not for a moment: umask before bind, then 0660 and its group.
        - TCP without client certificates is refused, but for loopback with an explicit --tlsverify=false.
"""

import argparse
import contextlib
import grp
import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from minidocker.errors import Conflict, InvalidArgument

SOCKET_MODE = 0o660
SYSTEMD_FIRST_FD = 3


@dataclass(slots=True)
class Listener:
    """A socket that listens. tcp: it speaks TLS when that is on. path: of a unix socket that is ours to remove."""

    socket: socket.socket
    tcp: bool
    path: Path | None = None

    def withdraw(self) -> None:
        """Take the path away, so that no new client finds it: once, for another daemon may then have it."""
        path, self.path = self.path, None
        if path is not None:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        self.withdraw()
        self.socket.close()


def tls_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    """The TLS that TCP listeners need, or None if none was asked for.

    Raises  InvalidArgument: certificates are missing or cannot be read.
    """
    if not (options.tlsverify or options.tls):
        return None
    if options.tlscert is None or options.tlskey is None or (options.tlsverify and options.tlscacert is None):
        raise InvalidArgument("--tlsverify needs --tlscacert, --tlscert and --tlskey; --tls the last two")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(options.tlscert, options.tlskey)
        if options.tlsverify:
            context.load_verify_locations(options.tlscacert)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"cannot load the TLS certificates: {error}") from error
    return context


def listen_unix(path: Path, group: str) -> socket.socket:
    """A listening socket at `path`, mode 0660 from its first moment; a dead one of an earlier daemon is replaced.

    Raises  Conflict: a daemon answers there. InvalidArgument: the path holds something else, or is too long.
    """
    if len(os.fsencode(path)) > 107:
        raise InvalidArgument(f"socket path {path} is longer than 107 bytes; choose a shorter one")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~SOCKET_MODE)  # before bind: no moment in which others may connect
    try:
        listener.bind(str(path))
    except OSError as error:
        raise InvalidArgument(f"cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(before)
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, 0, grp.getgrnam(group).gr_gid)
    listener.listen(512)
    return listener


def _remove_dead(path: Path) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_socket():
        raise InvalidArgument(f"{path} exists and is not a socket; move it away")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(str(path))
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)
    else:
        raise Conflict(f"a daemon listens on {path} already; give this one another -H")
    finally:
        probe.close()


def check_tcp(host: str, options: argparse.Namespace) -> None:
    """Raises InvalidArgument: this address may not be served without client certificates.

    host  an address, not a name: what a name means is decided before.
    """
    if options.tlsverify:
        return
    if not (options.tlsverify is False and _is_loopback(host)):
        raise InvalidArgument(
            f"tcp://{host} without client certificates would give everyone who reaches it root on this host; use "
            "--tlsverify with --tlscacert, --tlscert and --tlskey, or a loopback address with --tlsverify=false"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def listen_tcp(host: str, port: int, options: argparse.Namespace) -> socket.socket:
    """A listening TCP socket. Raises InvalidArgument: it cannot be bound, or must not be (see `check_tcp`)."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        check_tcp(str(address[0]), options)
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
    except OSError as error:
        raise InvalidArgument(f"cannot listen on tcp://{host}:{port}: {error}") from error
    return listener


def inherited(options: argparse.Namespace) -> list[Listener]:
    """The sockets that systemd hands over, and keeps: the rules of TCP hold for those too."""
    found = []
    for fd in range(SYSTEMD_FIRST_FD, SYSTEMD_FIRST_FD + options.listen_fds):
        listener = socket.socket(fileno=fd)
        tcp = listener.family in (socket.AF_INET, socket.AF_INET6)
        if tcp:
            check_tcp(str(listener.getsockname()[0]), options)
        found.append(Listener(listener, tcp))
    return found


def listeners(options: argparse.Namespace) -> list[Listener]:
    """All sockets of --host.

    Raises  InvalidArgument, Conflict: one of them cannot be had; the others are closed again.
    """
    found: list[Listener] = []
    try:
        for text in options.host or [f"unix://{options.exec_root}/minidocker.sock"]:
            found += _listeners(text, options)
    except BaseException:
        for listener in found:
            listener.close()
        raise
    return found


def _listeners(text: str, options: argparse.Namespace) -> list[Listener]:
    url = urlsplit(text if "://" in text else f"unix://{text}")
    if url.scheme == "unix":
        path = Path(url.netloc + url.path)
        return [Listener(listen_unix(path, options.group), tcp=False, path=path)]
    if url.scheme == "fd":
        return inherited(options)
    try:
        if url.scheme == "tcp" and url.path in ("", "/"):
            port = url.port or (2376 if options.tlsverify or options.tls else 2375)
            return [Listener(listen_tcp(url.hostname or "127.0.0.1", port, options), tcp=True)]
    except ValueError:  # a port that is none
        pass
    raise InvalidArgument(f"invalid bind address {text!r}; use unix:///path or tcp://host:port")

