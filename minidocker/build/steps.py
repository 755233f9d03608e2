"""One instruction done: from the cache, or as a change of configuration, a layer put together, a command run.

Source  Dockerfile reference; moby builder/dockerfile/dispatchers.go (what each step looks up, says and records).
Rules   - everything that a step is told to read is the context, an image or a URL; never a file of the host.
        - a step either becomes an image, or nothing of it stays.
        - each step shows an ID; only a RUN has a container of that ID, since nothing else needs a process.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from minidocker.build import configuration, copying, instructions
from minidocker.build.arguments import Arguments
from minidocker.build.bases import Bases
from minidocker.build.cache import Decision
from minidocker.build.context import Context
from minidocker.build.expansion import Lexer
from minidocker.build.instructions import Arg, Copy, HealthcheckCommand, Instruction, Maintainer, Run, Text
from minidocker.build.layering import Layering, Step
from minidocker.build.options import Options
from minidocker.build.output import Output
from minidocker.build.probing import Prober
from minidocker.build.running import Runner, request_of
from minidocker.engine import names
from minidocker.engine.containers.config import ContainerConfig
from minidocker.engine.containers.container import Container
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


class Steps:
    """Does the steps of one build.

    arguments  its build arguments, which ARG changes.
    stages     those that are done, by name ("" without one).
    decisions  what the cache said, step by step.
    """

    def __init__(
        self,
        engine: "Engine",
        options: Options,
        context: Context | None,
        directory: Path,
        output: Output,
        arguments: Arguments,
        lexer: Lexer,
        platform: Platform,
    ) -> None:
        self._engine, self._options, self._output = engine, options, output
        self._context, self._directory = context, directory
        self._arguments, self._lexer = arguments, lexer
        self._layering = Layering(engine, directory, platform)
        self._runner = Runner(engine, options, output)
        self.bases = Bases(engine, options, output)
        self.prober = Prober(engine, options, self._layering)
        self.stages: list[tuple[str, State]] = []
        self.decisions: list[Decision] = []

    async def do(self, instruction: Instruction, state: State) -> None:
        """One instruction upon `state`. Raises MinidockerError of all kinds; CommandFailed from a RUN."""
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
        decision, image = await self.prober.probe(instruction, state.image, step)
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
        try:
            layer = await in_thread(self._layering.assemble, state.image, [Put(MAKE, path)])
        except InvalidArgument:
            raise InvalidArgument(f"Cannot mkdir: {path} is not a directory") from None
        id = self._begin_container()
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
        found = next((state for stage, state in self.stages if stage and stage == name.lower()), None)
        if found is None and name.isascii() and name.isdecimal():
            if int(name) >= len(self.stages):
                current = int(name) == len(self.stages)
                raise InvalidArgument("refers to current build stage" if current else "index out of bounds")
            found = self.stages[int(name)][1]
        if found is None:
            return await self.bases.find(name, self._options.platform)
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
            if self._options.force_remove:
                self._end_container(container.id)
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
