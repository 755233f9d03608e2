"""A build: the Dockerfile's stages and steps, one after the other, each from the cache or made anew.

Source  Dockerfile reference; moby builder/dockerfile (order of steps, texts, what a failure leaves).
Rules   - everything that a step is told to read is the context, an image or a URL; never a file of the host.
        - a step either becomes an image, or nothing of it stays; the images of the steps before it stay as cache.
        - each step shows an ID; only a RUN has a container of that ID, since nothing else needs a process.
"""

import asyncio
import platform
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from minidocker.build import configuration, copying, instructions
from minidocker.build.arguments import Arguments, of_platforms
from minidocker.build.bases import Bases
from minidocker.build.cache import Decision
from minidocker.build.context import Context
from minidocker.build.expansion import Lexer
from minidocker.build.instructions import (
    Arg,
    Copy,
    HealthcheckCommand,
    Instruction,
    Maintainer,
    Plan,
    Run,
    Stage,
    Text,
)
from minidocker.build.layering import Layering, Step
from minidocker.build.options import Options
from minidocker.build.output import Output
from minidocker.build.probing import Prober
from minidocker.build.running import CommandFailed, Runner, request_of
from minidocker.engine import names
from minidocker.engine.config import ContainerConfig
from minidocker.engine.container import Container
from minidocker.errors import InvalidArgument, MinidockerError
from minidocker.oci.image_config import ExecutionConfig
from minidocker.oci.manifest import Platform
from minidocker.registry.client import in_thread, outlast
from minidocker.storage.assembly import MAKE, Put
from minidocker.storage.images import Image

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

_SHEBANG = "#!"
_SCRIPT_PLACE = "/dev/pipes"


@dataclass(slots=True)
class State:
    """A stage under construction. image None: nothing yet, `FROM scratch`."""

    image: Image | None = None
    config: ExecutionConfig = field(default_factory=ExecutionConfig)
    author: str = ""
    command_given: bool = False

    @property
    def short_id(self) -> str:
        return self.image.id.short if self.image else ""


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
    decisions  what the cache said, step by step.
    """

    def __init__(
        self, engine: "Engine", options: Options, plan: Plan, context: Context | None, directory: Path, output: Output
    ) -> None:
        self._engine, self._options, self._output = engine, options, output
        self._plan, self._context = with_labels(plan, options.labels), context
        host = Platform.of_machine(platform.machine())
        self._target = Platform.parse(options.platform) if options.platform else host
        self._arguments = Arguments(options.build_args, of_platforms(self._target, host))
        self._lexer = Lexer(plan.escape)
        self._directory = directory
        self._layering = Layering(engine, directory, self._target)
        self._bases = Bases(engine, options, output)
        self._prober = Prober(engine, options, self._layering)
        self._runner = Runner(engine, options, output)
        self._stages: list[tuple[str, State]] = []
        self._number = 0
        self.decisions: list[Decision] = []

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
        if stage.name and any(name == stage.name for name, _ in self._stages):
            raise StepFailed(stage.start, InvalidArgument(f"{stage.name} stage name already used"))
        await self._guarded(stage.start, lambda: self._begin(stage, state))
        for instruction in stage.steps:
            await self._guarded(instruction, lambda instruction=instruction: self._step(instruction, state))  # type: ignore[misc]
        if state.image is not None:
            self._output.aux({"ID": str(state.image.id)})
        self._stages.append((stage.name, state))
        return state

    # -- FROM --

    async def _begin(self, stage: Stage, state: State) -> None:
        self._arguments.begin_stage()
        self._prober.begin_stage()
        variables = self._arguments.for_from()
        base = self._lexer.word(stage.start.base, variables)
        wanted = self._lexer.word(stage.start.platform, variables) or self._options.platform
        if not base:
            raise InvalidArgument(f"base name ({stage.start.base}) should not be blank")
        earlier = next((found for name, found in self._stages if name and name == base.lower()), None)
        if earlier is not None:
            state.image, state.config = earlier.image, earlier.config
        elif base != "scratch":
            state.image = await self._bases.find(base, wanted)
            state.config = state.image.config.execution
        state.config = configuration.with_default_path(state.config)
        triggers = state.config.on_build or []
        state.config = msgspec.structs.replace(state.config, on_build=None)
        if triggers:
            self._output.say(f"# Executing {len(triggers)} build trigger{'s' * (len(triggers) > 1)}")
            self._output.say("\n")
        for text in triggers:
            await self._do(instructions.trigger(text, self._plan.escape), state)
        self._output.say(f" ---> {state.short_id}\n")

    # -- steps --

    async def _step(self, instruction: Instruction, state: State) -> None:
        await self._do(instruction, state)
        self._output.say(f" ---> {state.short_id}\n")

    async def _do(self, instruction: Instruction, state: State) -> None:
        variables = configuration.environment(state.config)
        extra = self._arguments.for_step(state.config.env or [])
        variables |= dict(entry.partition("=")[::2] for entry in extra)
        found = configuration.expanded(instruction, self._lexer, variables)
        if isinstance(found, Run):
            await self._run(found, state, extra)
        elif isinstance(found, Copy):
            await self._copy(found, state)
        elif isinstance(found, Text) and found.name == "WORKDIR":
            await self._working_directory(found, state)
        elif isinstance(found, Arg):
            for pair in found.pairs:
                self._arguments.add(pair.name, pair.value)
            await self._record(state, "ARG " + " ".join(map(str, found.pairs)))
        elif isinstance(found, Maintainer):
            state.author = found.name
            await self._record(state, f"MAINTAINER {found.name}")
        else:
            if isinstance(found, HealthcheckCommand):
                self._tell_override(state.config)
            outcome = configuration.apply(found, state.config, command_given=state.command_given)
            assert outcome is not None, f"nobody knows {found.line.name}"
            state.config = outcome.config
            state.command_given = state.command_given or isinstance(found, instructions.Cmd)
            await self._record(state, outcome.comment)

    def _tell_override(self, config: ExecutionConfig) -> None:
        test = config.healthcheck.test if config.healthcheck else None
        if test and test[0] != "NONE":
            self._output.say(f"Note: overriding previous HEALTHCHECK: [{' '.join(test)}]\n")

    def _commented(self, state: State, *words: str) -> ExecutionConfig:
        """The configuration by which the cache knows a step that runs nothing."""
        return msgspec.structs.replace(state.config, cmd=[*configuration.shell_of(state.config), *words])

    async def _cached(self, instruction: str, state: State, compared: ExecutionConfig) -> bool:
        """Whether the cache has the step; then the stage stands on it."""
        step = Step(state.config, compared, state.author)
        decision, image = await self._prober.probe(instruction, state.image, step)
        self.decisions.append(decision)
        if self._options.explain:
            self._output.aux({"Cache": msgspec.to_builtins(decision)})
        if image is None:
            return False
        self._output.say(" ---> Using cache\n")
        state.image = image
        return True

    async def _record(self, state: State, comment: str) -> None:
        """A step that changes only the configuration."""
        compared = self._commented(state, "#(nop) ", comment)
        if await self._cached(comment, state, compared):
            return
        id = self._begin_container()
        step = Step(state.config, compared, state.author, id)
        state.image = await in_thread(self._layering.add, state.image, step, None)
        self._end_container(id)

    def _begin_container(self, id: str = "") -> str:
        id = id or names.new_id()
        self._output.say(f" ---> Running in {id[:12]}\n")
        return id

    def _end_container(self, id: str) -> None:
        if self._options.remove or self._options.force_remove:
            self._output.say(f"Removing intermediate container {id[:12]}\n")

    async def _working_directory(self, instruction: Text, state: State) -> None:
        path = configuration.working_directory(instruction.text, state.config)
        state.config = msgspec.structs.replace(state.config, working_dir=path)
        compared = self._commented(state, f"#(nop) WORKDIR {path}")
        if await self._cached(f"WORKDIR {path}", state, compared):
            return
        id = self._begin_container()
        layer = await in_thread(self._layering.assemble, state.image, [Put(MAKE, path)])
        step = Step(state.config, compared, state.author, id)
        state.image = await in_thread(self._layering.add, state.image, step, layer)
        self._end_container(id)

    async def _copy(self, instruction: Copy, state: State) -> None:
        async with AsyncExitStack() as scope:
            copied = await self._copied(instruction, state, scope)
            chown = f"--chown={instruction.chown}" if instruction.chown else ""
            chmod = f"--chmod={instruction.chmod} " if instruction.chmod else ""
            comment = f"{instruction.name} {chown}{chmod}{copied.sum} in {instruction.destination} "
            compared = self._commented(state, f"#(nop) {comment}")
            if await self._cached(comment, state, compared):
                return
            owner = await self._owner(instruction, state)
            plan, contexts = await in_thread(copied.plan, instruction, state.config, owner)
            layer = await in_thread(self._layering.assemble, state.image, plan, contexts, copied.image)
            step = Step(state.config, compared, state.author)
            state.image = await in_thread(self._layering.add, state.image, step, layer)

    async def _copied(self, instruction: Copy, state: State, scope: AsyncExitStack) -> copying.Copied:
        """What an instruction copies; what was fetched for it ends with `scope`."""
        image = None
        if instruction.source:
            try:
                image = await self._source_image(instruction.source)
            except MinidockerError as error:
                raise InvalidArgument(f"invalid from flag value {instruction.source}: {error}") from None
        return await copying.collect(
            instruction, self._context, image, self._layering.place(image), self._engine.worker, self._directory, scope
        )

    async def _source_image(self, name: str) -> Image:
        """The stage or image of --from."""
        found = next((state for stage, state in self._stages if stage and stage == name.lower()), None)
        if found is None and name.isascii() and name.isdecimal():
            if int(name) >= len(self._stages):
                current = int(name) == len(self._stages)
                raise InvalidArgument("refers to current build stage" if current else "index out of bounds")
            found = self._stages[int(name)][1]
        if found is None:
            return await self._bases.find(name, self._options.platform)
        if found.image is None:
            raise InvalidArgument("the stage has no files")
        return found.image

    async def _owner(self, instruction: Copy, state: State) -> tuple[int, int] | None:
        """Whose the copied files are to be; None: as in the other image."""
        if not instruction.chown:
            return None if instruction.source else (0, 0)
        passwd = group = ""
        if not instruction.chown.replace(":", "").isdecimal():
            passwd = await in_thread(self._layering.read_text, state.image, "/etc/passwd")
            group = await in_thread(self._layering.read_text, state.image, "/etc/group")
        return copying.owner_of(instruction.chown, passwd, group)

    # -- RUN --

    async def _run(self, instruction: Run, state: State, extra: list[str]) -> None:
        words, script = run_words(instruction, state.config)
        counting = self._arguments.counting(extra)
        shown = [f"|{len(counting)}", *counting, *words] if extra else words
        if script:
            shown = [*shown, script]
        compared = msgspec.structs.replace(state.config, cmd=shown, entrypoint=None)
        if await self._cached(str(instruction), state, compared):
            return
        if state.image is None:
            raise MinidockerError(
                "failed to create task for container: failed to create shim task: OCI runtime create failed: "
                f'exec: "{words[0]}": stat {words[0]}: no such file or directory: unknown'
            )
        config = request_of(state.image, state.config, words, extra)
        async with self._container(config, script) as container:
            await self._runner.run(container)
            step = Step(state.config, compared, state.author, container.id)
            keep = not (self._options.remove or self._options.force_remove)
            layer = await in_thread(partial(self._layering.commit, container, state.image, keep=keep))
            state.image = await in_thread(self._layering.add, state.image, step, layer)

    @asynccontextmanager
    async def _container(self, config: ContainerConfig, script: str) -> AsyncIterator[Container]:
        """A container for the length of a step. It stays if the build's client said so."""
        binds = []
        if script:
            path = Path(tempfile.mkdtemp(prefix="script-", dir=self._directory)) / "script"
            path.write_text(script)
            path.chmod(0o755)
            binds.append(f"{path}:{_SCRIPT_PLACE}/script:ro")
        container = await self._runner.create(config, binds)
        try:
            self._begin_container(container.id)
            yield container
        except BaseException as error:
            if self._options.remove or self._options.force_remove or isinstance(error, asyncio.CancelledError):
                await _finished(self._runner.remove(container))
            raise
        if self._options.remove or self._options.force_remove:
            await _finished(self._runner.remove(container))
            self._end_container(container.id)


async def _finished(work: Coroutine[None, None, None]) -> None:
    """Wait for work that must end even if the waiter is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await outlast(task)
        raise


def run_words(instruction: Run, config: ExecutionConfig) -> tuple[list[str], str]:
    """The command of a RUN, and the script that must be mounted for it ("": none).

    A lone here-document is the script itself: for its own interpreter if it begins with #!, else for the shell. Any
    other here-documents are the shell's to read.
    """
    documents = instruction.line.heredocs
    if not documents:
        return configuration.command_words(instruction.command, config), ""
    text = instruction.command.words[0]
    shell = configuration.shell_of(config)
    if text == documents[0].word:
        if documents[0].content.startswith(_SHEBANG):
            return [f"{_SCRIPT_PLACE}/script"], documents[0].content
        return [*shell, documents[0].content], ""
    return [*shell, text + "".join(f"\n{document.raw}{document.name}" for document in documents)], ""


def with_labels(plan: Plan, labels: Mapping[str, str]) -> Plan:
    """The plan with the command line's labels as last steps."""
    last = plan.stages[-1]
    steps = [instructions.label(name, labels[name]) for name in sorted(labels)]
    stage = msgspec.structs.replace(last, steps=(*last.steps, *steps))
    return msgspec.structs.replace(plan, stages=(*plan.stages[:-1], stage))
