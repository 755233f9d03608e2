"""Which logging driver writes a container's log, and the copy of a log that goes elsewhere.

Source  Docker's documentation, "Use docker logs with remote logging drivers" (dual logging).
Rules   - the server comes first: if it is not there when the container starts, there is no copy either.
"""

from collections.abc import Callable

from minidocker.runtime.jsonlog import JsonLog
from minidocker.runtime.locallog import LocalLog
from minidocker.runtime.loop import Loop
from minidocker.runtime.rotating_log import Log, LogTarget
from minidocker.runtime.syslog import Syslog


def open_log(target: LogTarget, rotated: Callable[[str], None], loop: Loop) -> Log:
    """Open a log. rotated: told the path of each new file.

    Raises  OSError. LogUnreachable: its server does not answer.
    """
    if target.syslog is not None:
        remote = Syslog(target.syslog, loop)
        if target.copy is None:
            return remote
        try:
            return Doubled(remote, LocalLog(target.copy, rotated))
        except OSError:
            remote.close()
            raise
    return LocalLog(target, rotated) if target.driver == "local" else JsonLog(target, rotated)


class Doubled:
    """A log that goes to two places."""

    def __init__(self, remote: Log, copy: Log) -> None:
        self._remote, self._copy = remote, copy
        self.lost = 0

    def write(self, stream: str, chunk: bytes) -> None:
        """See `Log`."""
        self._remote.write(stream, chunk)
        self._copy.write(stream, chunk)
        self.lost = self._remote.lost

    def close(self) -> None:
        """See `Log`."""
        self._remote.close()
        self._copy.close()
        self.lost = self._remote.lost
