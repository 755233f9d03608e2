"""RUN: a real container with the step's configuration, its output into the build's, its changes as a layer.

Source  Dockerfile reference, "RUN"; moby builder/dockerfile/containerbackend.go (texts).
Rules   - the container is the engine's, as any other: limits, isolation and network are the same code.
        - whatever happens, cancelling too, the container is gone afterwards, unless it was asked to stay.
"""

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import msgspec

from minidocker.build.options import Options
from minidocker.build.output import CommandOutput, Output
from minidocker.engine.containers.config import ContainerConfig, CreateRequest, Healthcheck
from minidocker.engine.containers.container import Container
from minidocker.errors import MinidockerError
from minidocker.oci.image_config import ExecutionConfig
from minidocker.storage.images import Image

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

_READ_BYTES = 65536
_LINE_SECONDS = 0.02  # how long the beginning of a line waits for its end


class CommandFailed(MinidockerError):
    """A RUN ended with another status than 0. Attribute: `code`."""

    def __init__(self, words: list[str], code: int) -> None:
        super().__init__(f"The command '{' '.join(words)}' returned a non-zero code: {code}")
        self.code = code


def request_of(image: Image, config: ExecutionConfig, words: list[str], env: list[str]) -> ContainerConfig:
    """The container of a step. env: what it sees beside the image's own."""
    return ContainerConfig(
        image=str(image.id),
        cmd=words,
        entrypoint=[""],  # the image's own is not run
        env=[*(config.env or []), *env],
        user=config.user,
        working_dir=config.working_dir,
        healthcheck=Healthcheck(test=["NONE"]),
        labels=dict(config.labels or {}),
        stop_signal=config.stop_signal,
        volumes=dict(config.volumes or {}) or None,
    )


class Runner:
    """Runs the commands of one build."""

    def __init__(self, engine: "Engine", options: Options, output: Output) -> None:
        self._engine, self._options, self._output = engine, options, output

    async def create(self, config: ContainerConfig, binds: list[str]) -> Container:
        """Make the container. Raises as Containers.create."""
        request = CreateRequest(msgspec.structs.replace(config), self._options.host_config(binds), {})
        created = await self._engine.creating.create(request)
        return self._engine.containers.get(created.id)

    async def run(self, container: Container) -> None:
        """Start it and wait for its end, with its output. Raises CommandFailed; what Running.start raises."""
        ended = container.exit_future()
        attached = self._engine.running.attach(container, stdin=False, stdout=True, stderr=True)
        try:
            await self._engine.running.start(container)
            await self._copy_output(attached)
            code = await ended
        finally:
            ended.cancel()
            attached.cancel()
        if code:
            raise CommandFailed(container.record.config.cmd or [], code)

    async def _copy_output(self, attached: "asyncio.Future[socket.socket | None]") -> None:
        sock = await attached
        if sock is None:
            return
        command = CommandOutput(self._output)
        loop = asyncio.get_running_loop()
        try:
            with contextlib.suppress(ConnectionError):
                while data := await self._received(loop.create_task(loop.sock_recv(sock, _READ_BYTES)), command):
                    command.feed(data)
            command.finish()
        finally:
            sock.close()

    @staticmethod
    async def _received(reading: "asyncio.Task[bytes]", command: CommandOutput) -> bytes:
        """What comes next; a line's beginning that waits for it longer than a moment is said as it is."""
        try:
            if command.holds:
                await asyncio.wait([reading], timeout=_LINE_SECONDS)
                if not reading.done():
                    command.release()
            return await reading
        finally:
            if not reading.done():  # the loop must have let go of the socket before it is closed
                reading.cancel()
                await asyncio.wait([reading])

    async def remove(self, container: Container) -> None:
        """Remove it, running or not, with its anonymous volumes."""
        if not container.removed:
            await self._engine.removal.remove(container, force=True, volumes=True)
