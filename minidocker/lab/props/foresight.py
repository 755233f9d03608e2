"""What the build cache will say to a Dockerfile, asked before anything is built.

Source  Dockerfile reference; build.cache (the decision itself is the engine's own function).
Rules   - the engine's parser, expansion and sums are used on the same context that a build would be sent.
        - what was built before is asked of the daemon by its API: an image's parent, and the text of its last step.
        - where the answer depends on files that only building can make (COPY --from a stage that is made anew), it is
          UNKNOWN, and so is all behind it in that stage.
"""

import io
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import msgspec

from minidocker import typed
from minidocker.build import configuration, sources
from minidocker.build.arguments import Arguments, of_platforms
from minidocker.build.builds import prepare
from minidocker.build.cache import decide
from minidocker.build.context import Context
from minidocker.build.expansion import Lexer
from minidocker.build.instructions import Arg, Cmd, Copy, Instruction, Maintainer, Run, Text
from minidocker.build.options import Options
from minidocker.build.stages import Plan, Stage
from minidocker.build.steps import run_words
from minidocker.client.client import Client
from minidocker.client.context import ignore_list, pack
from minidocker.errors import NotFound
from minidocker.oci.digest import Digest
from minidocker.oci.image_config import ExecutionConfig, ImageConfig, RootFS
from minidocker.oci.manifest import Platform
from minidocker.storage.compression import Readable
from minidocker.storage.images import Image

START, HIT, MISS, UNKNOWN = "start", "hit", "miss", "unknown"
_SUM = re.compile(r"(?:file|dir|multi):[0-9a-f]{64}")
_ANY_SUM = "\0"
_MARK = "#(nop)  "  # two words in the cache's key, so two blanks in its text


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What is expected of one step. verdict: START (a FROM or an ARG before it), HIT, MISS or UNKNOWN."""

    number: int
    text: str
    verdict: str
    reason: str = ""


@dataclass
class _State:
    """A stage as far as it is foreseen. parent: the image below, "" for none. stopped: why nothing is looked up."""

    parent: str = ""
    config: ExecutionConfig = field(default_factory=ExecutionConfig)
    command_given: bool = False
    stopped: tuple[str, str] | None = None


def foresee(client: Client, folder: Path, build_args: Mapping[str, str] | None = None) -> list[Foreseen]:
    """The cache's answer to each step of `folder`/Dockerfile, in the order and numbering of a build.

    Raises  InvalidArgument (ParseError): the Dockerfile is wrong. NotFound: a base image or a copied file is not there.
    """
    archive = cast(Readable, io.BytesIO(b"".join(pack(str(folder), ignore_list(str(folder), "Dockerfile")))))
    context = Context(archive, folder)
    try:
        plan, _ = prepare(Options(build_args=dict(build_args or {})), context)
        return _Foresight(client, plan, context, dict(build_args or {})).run()
    finally:
        context.close()


class _Foresight:
    """One look ahead: goes through the plan as build.steps does, but makes nothing."""

    def __init__(self, client: Client, plan: Plan, context: Context, build_args: dict[str, str]) -> None:
        host = Platform.of_machine(platform.machine())
        self._client, self._plan, self._context = client, plan, context
        self._arguments = Arguments(build_args, of_platforms(host, host))
        self._lexer = Lexer(plan.escape)
        self._images = client.images.list(all=True)
        self._stages: list[tuple[str, _State]] = []
        self._found: list[Foreseen] = []

    def run(self) -> list[Foreseen]:
        for argument in self._plan.arguments:
            for pair in argument.pairs:
                value = None if pair.value is None else self._lexer.word(pair.value, self._arguments.for_from())
                self._arguments.add_before_from(pair.name, value)
            self._tell(argument, START)
        for stage in self._plan.stages:
            self._stage(stage)
        return self._found

    def _tell(self, instruction: Instruction, verdict: str, reason: str = "") -> None:
        self._found.append(Foreseen(len(self._found) + 1, str(instruction), verdict, reason))

    def _stage(self, stage: Stage) -> None:
        state = self._begin(stage)
        self._tell(stage.start, START)
        for instruction in stage.steps:
            wanted = self._wanted(instruction, state)
            verdict, reason = state.stopped or self._ask(instruction, wanted, state)
            self._tell(instruction, verdict, reason)
            if verdict != HIT and state.stopped is None:
                after = "a step before it was made anew" if verdict == MISS else "a step before it is not known"
                state.stopped = (verdict, after)
        self._stages.append((stage.name, state))

    def _begin(self, stage: Stage) -> _State:
        self._arguments.begin_stage()
        base = self._lexer.word(stage.start.base, self._arguments.for_from())
        earlier = next((state for name, state in self._stages if name and name == base.lower()), None)
        if earlier is not None:
            return _State(earlier.parent, earlier.config, stopped=earlier.stopped)
        if base == "scratch":
            return _State(config=configuration.with_default_path(ExecutionConfig()))
        image = self._client.images.get(base)
        config = typed.convert(image.attrs["Config"], ExecutionConfig)
        return _State(image.id, configuration.with_default_path(config))

    # -- the text by which the cache knows a step --

    def _wanted(self, instruction: Instruction, state: _State) -> str:
        extra = self._arguments.for_step(state.config.env or [])
        variables = configuration.environment(state.config) | dict(entry.partition("=")[::2] for entry in extra)
        found = configuration.expanded(instruction, self._lexer, variables)
        if isinstance(found, Run):
            words, script = run_words(found, state.config)
            counting = self._arguments.counting(extra)
            shown = [f"|{len(counting)}", *counting, *words] if extra else words
            return " ".join([*shown, script] if script else shown)
        mark, comment = self._comment(found, state)
        return " ".join([*configuration.shell_of(state.config), f"{mark}{comment}"])

    def _comment(self, found: Instruction, state: _State) -> tuple[str, str]:
        """The mark of a step that runs nothing, as the engine writes it, and what its history will say."""
        if isinstance(found, Copy):
            return "#(nop) ", self._copied(found)
        if isinstance(found, Text) and found.name == "WORKDIR":
            path = configuration.working_directory(found.text, state.config)
            state.config = msgspec.structs.replace(state.config, working_dir=path)
            return "#(nop) ", f"WORKDIR {path}"
        if isinstance(found, Arg):
            for pair in found.pairs:
                self._arguments.add(pair.name, pair.value)
            return _MARK, "ARG " + " ".join(map(str, found.pairs))
        if isinstance(found, Maintainer):
            return _MARK, f"MAINTAINER {found.name}"
        outcome = configuration.apply(found, state.config, command_given=state.command_given)
        assert outcome is not None, f"nobody knows {found.line.name}"
        state.config = outcome.config
        state.command_given = state.command_given or isinstance(found, Cmd)
        return _MARK, outcome.comment

    def _copied(self, found: Copy) -> str:
        if found.source or found.documents or any("://" in source for source in found.sources):
            sum = _ANY_SUM
        else:
            sum = sources.sum_of([one for text in found.sources for one in sources.in_context(self._context, text)])
        chown = f"--chown={found.chown}" if found.chown else ""
        chmod = f"--chmod={found.chmod} " if found.chmod else ""
        return f"{found.name} {chown}{chmod}{sum} in {found.destination} "

    # -- the answer --

    def _ask(self, instruction: Instruction, wanted: str, state: _State) -> tuple[str, str]:
        made = {image.id: self._text_of(image.id) for image in self._images if image.attrs["ParentId"] == state.parent}
        if _ANY_SUM in wanted:
            return self._ask_about_files(instruction, wanted, made, state)
        candidates = [Image(Digest(id), _config(text)) for id, text in made.items()]
        parent = Digest(state.parent) if state.parent else None
        decision = decide(str(instruction), parent, _execution(wanted), candidates)
        state.parent = decision.hit or state.parent
        return (HIT if decision.hit else MISS), decision.reason

    def _ask_about_files(
        self, instruction: Instruction, wanted: str, made: Mapping[str, str], state: _State
    ) -> tuple[str, str]:
        """A step whose files are not in the context: known only if just one like it was made, and its source stands."""
        like = [id for id, text in made.items() if _SUM.sub(_ANY_SUM, text) == wanted]
        if not like:
            return MISS, "no such copy was made on this parent before"
        source = instruction.source if isinstance(instruction, Copy) else ""
        numbered = {str(number): other for number, (_, other) in enumerate(self._stages)}
        stage = dict(self._stages).get(source.lower()) or numbered.get(source)
        if len(like) > 1 or (stage is not None and stage.stopped is not None):
            return UNKNOWN, "it depends on whether the copied files come out the same"
        state.parent = like[0]
        return HIT, "the files that it copies were not made anew"

    def _text_of(self, image: str) -> str:
        try:
            return str(self._client.images.get(image).history()[0]["CreatedBy"])
        except NotFound:  # it went while we looked
            return ""


def _execution(text: str) -> ExecutionConfig:
    return ExecutionConfig(cmd=[text])


def _config(text: str) -> ImageConfig:
    return ImageConfig(architecture="", os="linux", rootfs=RootFS(diff_ids=[]), container_config=_execution(text))
