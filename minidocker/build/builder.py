"""A build: the Dockerfile's stages and steps, one after the other, each from the cache or made anew.

Source  Dockerfile reference; moby builder/dockerfile (order of steps, texts, what a failure leaves).
Rules   - a stage begins with what its FROM names, and ends as an image that later stages may stand on or copy from.
        - the first step that fails ends the build; the images of the steps before it stay as cache.
        - what goes wrong is told in Docker's words, with the line and the instruction beside them.
"""

import asyncio
import platform
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from minidocker.build import configuration, instructions
from minidocker.build.arguments import Arguments, of_platforms
from minidocker.build.cache import Decision
from minidocker.build.context import Context
from minidocker.build.expansion import Lexer
from minidocker.build.instructions import Arg, Instruction
from minidocker.build.options import Options
from minidocker.build.output import Output
from minidocker.build.running import CommandFailed
from minidocker.build.stages import Plan, Stage
from minidocker.build.steps import State, Steps
from minidocker.errors import InvalidArgument, MinidockerError
from minidocker.oci.manifest import Platform
from minidocker.storage.images import Image

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine


class StepFailed(MinidockerError):
    """A step failed; the text is the reason's own. Attributes: line, instruction, and the command's `code` or 0."""

    def __init__(self, instruction: Instruction, reason: MinidockerError) -> None:
        super().__init__(str(reason))
        self.line = instruction.line.number
        self.instruction = str(instruction)
        self.code = reason.code if isinstance(reason, CommandFailed) else 0
        self.reason = reason


class Build:
    """One build.

    plan       the Dockerfile, cut at the target.
    context    None: there is none (a Dockerfile alone).
    directory  a directory of the build's own on the data root's filesystem.
    """

    def __init__(
        self, engine: "Engine", options: Options, plan: Plan, context: Context | None, directory: Path, output: Output
    ) -> None:
        self._options, self._output, self._plan = options, output, with_labels(plan, options.labels)
        host = Platform.of_machine(platform.machine())
        target = Platform.parse(options.platform) if options.platform else host
        self._arguments = Arguments(options.build_args, of_platforms(target, host))
        self._lexer = Lexer(plan.escape)
        self._steps = Steps(engine, options, context, directory, output, self._arguments, self._lexer, target)
        self._number = 0

    @property
    def decisions(self) -> list[Decision]:
        """What the cache said, step by step."""
        return self._steps.decisions

    async def run(self) -> Image:
        """Build; the last stage's image. Raises StepFailed. InvalidArgument: there is nothing to build."""
        if self._plan.warnings:
            self._output.warn("".join(self._plan.warnings))
        for argument in self._plan.arguments:
            await self._guarded(argument, lambda argument=argument: self._argument(argument))  # type: ignore[misc]
        state = State()
        for stage in self._plan.stages:
            state = await self._stage(stage)
        unused = self._arguments.unused()
        if unused:
            self._output.say(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
        if state.image is None:
            raise InvalidArgument("No image was generated. Is your Dockerfile empty?")
        return state.image

    async def _guarded(self, instruction: Instruction, work: Callable[[], Awaitable[None]]) -> None:
        """One numbered step; what goes wrong names it."""
        self._number += 1
        total = len(self._plan.arguments) + sum(1 + len(stage.steps) for stage in self._plan.stages)
        self._output.say(f"Step {self._number}/{total} : {instruction}")
        self._output.say("\n")
        await asyncio.sleep(0)  # a cancel, and the sending of what was said, come in between
        try:
            await work()
        except StepFailed:
            raise
        except MinidockerError as error:
            raise StepFailed(instruction, error) from error
        except OSError as error:
            raise StepFailed(instruction, MinidockerError(str(error))) from error

    async def _argument(self, argument: Arg) -> None:
        for pair in argument.pairs:
            value = None if pair.value is None else self._lexer.word(pair.value, self._arguments.for_from())
            self._arguments.add_before_from(pair.name, value)

    async def _stage(self, stage: Stage) -> State:
        state = State()
        if stage.name and any(name == stage.name for name, _ in self._steps.stages):
            raise StepFailed(stage.start, InvalidArgument(f"{stage.name} stage name already used"))
        await self._guarded(stage.start, lambda: self._begin(stage, state))
        for instruction in stage.steps:
            await self._guarded(instruction, lambda instruction=instruction: self._step(instruction, state))  # type: ignore[misc]
        if state.image is not None:
            self._output.aux({"ID": str(state.image.id)})
        self._steps.stages.append((stage.name, state))
        return state

    # -- FROM --

    async def _begin(self, stage: Stage, state: State) -> None:
        self._arguments.begin_stage()
        self._steps.prober.begin_stage()
        variables = self._arguments.for_from()
        base = self._lexer.word(stage.start.base, variables)
        wanted = self._lexer.word(stage.start.platform, variables) or self._options.platform
        if not base:
            raise InvalidArgument(f"base name ({stage.start.base}) should not be blank")
        earlier = next((found for name, found in self._steps.stages if name and name == base.lower()), None)
        if earlier is not None:
            state.image, state.config = earlier.image, earlier.config
        elif base != "scratch":
            state.image = await self._steps.bases.find(base, wanted)
            state.config = msgspec.structs.replace(state.image.config.execution, image="")
        state.config = configuration.with_default_path(state.config)
        triggers = state.config.on_build or []
        state.config = msgspec.structs.replace(state.config, on_build=None)
        if triggers:
            self._output.say(f"# Executing {len(triggers)} build trigger{'s' * (len(triggers) > 1)}")
            self._output.say("\n")
        for text in triggers:
            await self._steps.do(instructions.trigger(text, self._plan.escape), state)
        self._output.say(f" ---> {state.short_id}\n")

    async def _step(self, instruction: Instruction, state: State) -> None:
        await self._steps.do(instruction, state)
        self._output.say(f" ---> {state.short_id}\n")


def with_labels(plan: Plan, labels: Mapping[str, str]) -> Plan:
    """The plan with the command line's labels as last steps."""
    last = plan.stages[-1]
    steps = [instructions.label(name, labels[name]) for name in sorted(labels)]
    stage = msgspec.structs.replace(last, steps=(*last.steps, *steps))
    return msgspec.structs.replace(plan, stages=(*plan.stages[:-1], stage))
