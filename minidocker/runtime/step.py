"""Steps: what pid 1 does before it becomes the command, as data.

Rules   - a plan is an ordered tuple of steps, derived from config.json alone: it can be printed, compared and tested
          without privilege. Only `apply` touches the kernel.
        - steps run in order; the first that fails ends the process, and the error names the step (fail closed).
        - what steps hand to later ones lives in `Inside` and nowhere else.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from minidocker.linux.capabilities import last_cap
from minidocker.linux.cgroups import Hierarchies
from minidocker.runtime.sync import Channel
from minidocker.runtime.users import Identity

NOT_FOUND, NOT_EXECUTABLE, FAILED = 127, 126, 128


class Filter(NamedTuple):
    """A compiled seccomp program, and the flags that it is loaded with."""

    program: bytes
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Host:
    """What is the same for every container of this host: found once, before any container's files are in sight."""

    hierarchies: Hierarchies
    last_cap: int

    @classmethod
    def detect(cls) -> "Host":
        """Ask the kernel."""
        return cls(Hierarchies.detect(), last_cap())


@dataclass(slots=True)
class Inside:
    """What the process that becomes the command carries from step to step.

    channel    to the monitor
    host       facts about this machine
    stdio      the three descriptors that become 0, 1 and 2; None: they are that already
    filter     compiled seccomp program, or None
    born_in_group  True: the fork put us into the version 2 part of our control group
    proc_fd    the host's /proc, kept for sysctls; root_fd: the new root, once it is mounted
    network    from the start message
    trees      in a user namespace: name of a step -> the detached mount that was made for it (shifted.py)
    """

    channel: Channel
    host: Host
    stdio: tuple[int, int, int] | None = None
    filter: Filter | None = None
    born_in_group: bool = False
    proc_fd: int = -1
    root_fd: int = -1
    network: dict[str, Any] | None = None
    identity: Identity = field(default_factory=Identity)
    env: dict[str, str] = field(default_factory=dict)
    trees: dict[str, int] = field(default_factory=dict)


class Step(msgspec.Struct, frozen=True):
    """One thing to do. Its fields are the plan's data; `name` is how errors call it."""

    @property
    def name(self) -> str:
        """What is done, on what: "mount /proc"."""
        return type(self).__name__.lower()

    def apply(self, inside: Inside) -> None:
        """Do it, in the process that will become the command."""
        raise NotImplementedError


class StepFailed(Exception):
    """A step did not succeed: which, why, and the exit code that it counts as."""

    def __init__(self, step: str, why: str, exit_code: int = FAILED) -> None:
        super().__init__(f"{step}: {why}" if step else why)
        self.step = step
        self.why = why
        self.exit_code = exit_code


def run(steps: Iterable[Step], inside: Inside) -> None:
    """Apply all steps in order.

    Raises  StepFailed: the first that failed; those after it were not tried.
    """
    for step in steps:
        try:
            step.apply(inside)
        except StepFailed:
            raise
        except Exception as error:
            raise StepFailed(step.name, str(error) or type(error).__name__) from error


def describe(steps: Iterable[Step]) -> str:
    """The plan as text, one step a line, for people."""
    return "\n".join(f"{number:2}. {step.name}" for number, step in enumerate(steps, 1))
