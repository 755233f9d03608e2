"""Kinds of failure, named once for the whole package.

Source  Docker Engine API error classes (moby `errdefs`); errno(3).
Rules   - a kind says what went wrong, never an HTTP status: the daemon maps kinds to statuses in one place.
        - messages are lower case, without a full stop, and name what, on which object, why and what to do.
        - callers test the class or `.errno`, never the text.
"""

import errno as _errno
import os


class MinidockerError(Exception):
    """Something a user, a registry or the kernel caused; its text is fit to be shown to the user."""


class InvalidArgument(MinidockerError):
    """The request itself is wrong: a bad name, an unknown option, a value out of range."""


class NotFound(MinidockerError):
    """No object of that name or ID."""


class Conflict(MinidockerError):
    """The object is in a state, or holds a name, that forbids the request."""


class NotModified(MinidockerError):
    """Nothing to do: the object already is in the state that was asked for."""


class Forbidden(MinidockerError):
    """Refused by a rule, whoever asks."""


class Unauthorized(MinidockerError):
    """Credentials are missing or wrong."""


class Unsupported(MinidockerError):
    """minidocker, or this kernel, cannot do that; the text gives the reason."""


class Unavailable(MinidockerError):
    """A service that is needed does not answer or is not there (a registry, a cluster)."""


class Unanswered(Unavailable):
    """Such a service elsewhere, at an address that was asked for. Docker's daemon calls that its own failure (500)."""


class VerificationError(MinidockerError):
    """Bytes are not what their digest, size or media type promised."""


class Breakout(InvalidArgument):
    """An archive entry or a path tries to leave the root that it belongs to."""


class KernelError(MinidockerError, OSError):
    """A system call failed: which call, on what, why, and what may help.

    Attributes: `call`, `path` (the object, or None), `errno`, `hint`. An OSError too, so callers test `.errno`.
    """

    def __init__(self, call: str, path: object, errno: int, hint: str = "") -> None:
        OSError.__init__(self, errno, os.strerror(errno))
        self.call = call
        self.path = None if path is None else os.fsdecode(path) if isinstance(path, (bytes, os.PathLike)) else str(path)
        self.hint = hint

    def __str__(self) -> str:
        name = _errno.errorcode.get(self.errno or 0, str(self.errno))
        subject = f"{self.call} {self.path}" if self.path is not None else self.call
        text = f"{subject}: {name} ({self.strerror})"
        return f"{text}; {self.hint}" if self.hint else text
