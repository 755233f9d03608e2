"""The daemon's answers that mean failure, as kinds of minidocker.errors.

Source  Docker Engine API: error bodies are {"message": text}, the status tells the kind.
Rules   - 304 is no failure: there was nothing to do.
        - imported only when something failed; the command line's hot path never pays for it.
"""

from minidocker import errors


class DaemonError(errors.MinidockerError):
    """The daemon answered, and refused. `status` is the HTTP status; the text is the daemon's own."""

    status = 500


class DaemonInvalidArgument(DaemonError, errors.InvalidArgument):
    """400."""


class DaemonUnauthorized(DaemonError, errors.Unauthorized):
    """401."""


class DaemonForbidden(DaemonError, errors.Forbidden):
    """403."""


class DaemonNotFound(DaemonError, errors.NotFound):
    """404."""


class DaemonConflict(DaemonError, errors.Conflict):
    """409."""


class DaemonUnsupported(DaemonError, errors.Unsupported):
    """501."""


class DaemonUnavailable(DaemonError, errors.Unavailable):
    """503."""


class ConnectError(errors.Unavailable):
    """No daemon answers at the address, or this user may not speak to it; the text says what to do."""


_KINDS: dict[int, type[DaemonError]] = {
    400: DaemonInvalidArgument,
    401: DaemonUnauthorized,
    403: DaemonForbidden,
    404: DaemonNotFound,
    409: DaemonConflict,
    501: DaemonUnsupported,
    503: DaemonUnavailable,
}


def daemon_error(status: int, message: str) -> DaemonError:
    """The exception for an answer of `status` (>= 400) with the daemon's `message`."""
    error = _KINDS.get(status, DaemonError)(message)
    error.status = status
    return error


def connect_error(url: str, error: OSError) -> ConnectError:
    """The exception for a connection that could not be made: the address, the reason, the cure."""
    import errno

    path = url.removeprefix("unix://")
    # An SSLError counts its own numbers: 1 is not EPERM there.
    if path != url and error.errno in (errno.EACCES, errno.EPERM):
        return ConnectError(
            f"permission denied while trying to connect to the minidocker daemon socket at {url}: "
            f"run the command with sudo, or as a member of the group that owns {path}"
        )
    known = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)
    reason = "" if error.errno in known else f" ({error.strerror or error})"
    if path == url:
        return ConnectError(f"Cannot connect to the minidocker daemon at {url}. Is the daemon running?{reason}\n"
                            "check the address and the TLS options (--tlsverify, --tlscacert, --tlscert, --tlskey)")
    start = f"minidockerd --host {url}" if url != "unix:///run/minidocker/minidocker.sock" else "minidockerd"
    cure = f"start it with `sudo {start}` or `./lab setup`, or name another socket with -H or DOCKER_HOST"
    return ConnectError(f"Cannot connect to the minidocker daemon at {url}. Is the daemon running?{reason}\n{cure}")
