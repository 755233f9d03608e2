"""Signals that this client gets, passed on to the container.

Source  docker run --sig-proxy; signal(7).
Rules   - not SIGKILL and SIGSTOP, which cannot be caught, nor those that mean this process itself
          (SIGCHLD, SIGPIPE, SIGURG, SIGWINCH and the faults).
"""

from _signal import signal  # type: ignore[import-not-found]

from minidocker.cli.session import Session

_OWN = frozenset((4, 6, 7, 8, 9, 11, 13, 17, 19, 23, 28))


def forward(session: Session, container: str) -> None:
    """From now on, send every signal that arrives to `container`."""

    def send(number: int, frame: object) -> None:
        try:
            session.transport.request("POST", f"/containers/{container}/kill", query={"signal": number}).read()
        except Exception:       # it has ended meanwhile: the signal came too late
            pass

    for number in range(1, 32):
        if number not in _OWN:
            signal(number, send)
