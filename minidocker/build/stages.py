"""A Dockerfile's stages: each FROM with the instructions that follow it.

Source  Dockerfile reference, FROM and "Understand how ARG and FROM interact".
Rules   - pure, and before anything runs: a Dockerfile with a wrong instruction at its end builds nothing.
        - only ARG may stand before the first FROM.
"""

import msgspec

from minidocker.build import instructions
from minidocker.build.dockerfile import Dockerfile, ParseError
from minidocker.build.instructions import Arg, From, Instruction
from minidocker.errors import InvalidArgument


class Stage(msgspec.Struct, frozen=True):
    """A FROM and what follows it. `name` is "" without AS."""

    start: From
    steps: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        return self.start.stage


class Plan(msgspec.Struct, frozen=True):
    """The whole Dockerfile: ARGs before the first FROM, and the stages."""

    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    escape: str = "\\"
    warnings: tuple[str, ...] = ()

    def until(self, target: str) -> "Plan":
        """Without the stages behind `target`: a name in any case, or a number from 0. Raises InvalidArgument."""
        names = [stage.name for stage in self.stages]
        if target.lower() in names:
            index = names.index(target.lower())
        elif target.isascii() and target.isdecimal() and int(target) < len(names):
            index = int(target)
        else:
            raise InvalidArgument(f"failed to reach build target {target} in Dockerfile")
        return msgspec.structs.replace(self, stages=self.stages[: index + 1])


def plan(file: Dockerfile) -> Plan:
    """All instructions of a Dockerfile. Raises ParseError, InvalidArgument."""
    arguments: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in file.lines:
        instruction = instructions.read(line, file.escape)
        if isinstance(instruction, From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            arguments.append(instruction)
        else:
            raise ParseError(line.number, "no build stage in current context")
    if not stages:
        raise InvalidArgument("no build stage in current context")
    made = tuple(Stage(start, tuple(steps)) for start, steps in stages)
    return Plan(tuple(arguments), made, file.escape, file.warnings)
