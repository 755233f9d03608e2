"""Which logging driver writes a container's log."""

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
        return Syslog(target.syslog, loop)
    return LocalLog(target, rotated) if target.driver == "local" else JsonLog(target, rotated)
