"""minidocker: a container engine that a student can read in a weekend.

`minidocker.connect("unix:///run/minidocker/minidocker.sock")` gives a client of a running daemon.
Nothing is imported here before it is asked for: the command line starts through this file.
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name == "connect":
        from minidocker.client import connect

        return connect
    raise AttributeError(f"module 'minidocker' has no attribute {name!r}")
