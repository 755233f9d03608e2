"""Containers, by the client.

Source  Docker Engine API, "Containers" and "Exec"; the names are docker-py's.
Rules   - `run` attaches before it starts, so no byte of a short command is lost.
        - output is bytes: what the command wrote, not what somebody thinks it means.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Unpack, overload

from minidocker.client.attached import Attached
from minidocker.client.container_body import ContainerOptions, create_body
from minidocker.client.frames import Demultiplexer
from minidocker.client.images import Image, Images
from minidocker.client.resource import Document, Resource, document, documents, member
from minidocker.client.transport import Transport, quote
from minidocker.errors import Conflict, MinidockerError, NotFound


class ContainerError(MinidockerError):
    """A command that `run` waited for ended with another status than 0. Attributes: exit_status, stderr (bytes)."""

    def __init__(self, image: str, command: object, exit_status: int, stderr: bytes) -> None:
        text = stderr.decode("utf-8", "replace").strip()
        super().__init__(f"command {command!r} in image {image} ended with status {exit_status}: {text}")
        self.exit_status = exit_status
        self.stderr = stderr


class ExecResult(NamedTuple):
    """How a command inside a container ended."""

    exit_code: int | None
    output: bytes


class Container(Resource):
    """One container."""

    collection = "containers"

    @property
    def status(self) -> str:
        """"created", "running", "paused", "exited" ..., as `attrs` has it (see reload)."""
        state = self.attrs.get("State")
        return str(state.get("Status", "")) if isinstance(state, dict) else str(state or "")

    @property
    def name(self) -> str:
        """Its name, without the slash."""
        names = self.attrs.get("Names")
        first = names[0] if isinstance(names, list) and names else self.attrs.get("Name")
        return str(first or "").removeprefix("/")

    @property
    def tty(self) -> bool:
        """True if its output is a terminal's, raw and in one stream."""
        if "Config" not in self.attrs:
            self.reload()
        return bool(member(self.attrs, "Config", "Tty"))

    def start(self) -> None:
        """Start it; nothing happens if it runs already. Raises DaemonError if the command cannot be run."""
        self._post("start")

    def stop(self, *, timeout_seconds: int | None = None, signal: str = "") -> None:
        """Ask it to end (its stop signal), and kill it after the timeout."""
        self._post("stop", {"t": timeout_seconds, "signal": signal})

    def restart(self, *, timeout_seconds: int | None = None) -> None:
        """Stop and start."""
        self._post("restart", {"t": timeout_seconds})

    def kill(self, signal: str = "SIGKILL") -> None:
        """Send a signal. Raises errors.Conflict if it does not run."""
        self._post("kill", {"signal": signal})

    def pause(self) -> None:
        """Freeze all its processes."""
        self._post("pause")

    def unpause(self) -> None:
        """Let the frozen processes run on."""
        self._post("unpause")

    def rename(self, name: str) -> None:
        """Give it another name. Raises errors.Conflict if that is taken."""
        self._post("rename", {"name": name})

    def resize(self, *, rows: int, columns: int) -> None:
        """Tell its terminal another size."""
        self._post("resize", {"h": rows, "w": columns})

    def update(self, *, nano_cpus: int = 0, cpu_shares: int = 0, memory_bytes: int = 0, memory_swap_bytes: int = 0,
               pids_limit: int = 0) -> list[str]:
        """Change its limits, also while it runs; warnings come back.

        nano_cpus          billionths of a processor. 0, for this and for all others: leave it as it is.
        memory_swap_bytes  memory and swap together, -1 for any amount of swap.
        pids_limit         -1 lifts the limit.
        Raises             MinidockerError: the kernel refuses a value (memory below what is in use, say).
        """
        body = {"NanoCpus": nano_cpus, "CpuShares": cpu_shares, "Memory": memory_bytes,
                "MemorySwap": memory_swap_bytes, "PidsLimit": pids_limit}
        wish = {key: value for key, value in body.items() if value}
        answer = document(self.transport.request("POST", f"{self.path}/update", body=wish).json())
        warnings = answer.get("Warnings")
        return [str(one) for one in warnings] if isinstance(warnings, list) else []

    def wait(self, *, condition: str = "") -> int:
        """Wait for its end; the exit status. condition: "not-running" (default), "next-exit" or "removed"."""
        response = self.transport.request("POST", f"{self.path}/wait", query={"condition": condition})
        return _status(document(response.json()))

    def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it (with `force` also while it runs), with `volumes` its anonymous volumes too."""
        self.transport.request("DELETE", self.path, query={"force": force, "v": volumes}).read()

    def logs(self, *, stdout: bool = True, stderr: bool = True, timestamps: bool = False, tail: int | str = "all",
             since: str | int = "", until: str | int = "") -> bytes:
        """What it has written so far."""
        return b"".join(self.follow_logs(follow=False, stdout=stdout, stderr=stderr, timestamps=timestamps,
                                         tail=tail, since=since, until=until))

    def follow_logs(self, *, follow: bool = True, stdout: bool = True, stderr: bool = True, timestamps: bool = False,
                    tail: int | str = "all", since: str | int = "", until: str | int = "") -> Iterator[bytes]:
        """What it writes, piece by piece, until it ends."""
        query: Document = {"stdout": stdout, "stderr": stderr, "follow": follow, "timestamps": timestamps,
                           "tail": tail, "since": since, "until": until}
        raw = self.tty
        response = self.transport.request("GET", f"{self.path}/logs", query=query)
        frames = Demultiplexer()
        try:
            for piece in response.chunks():
                if raw:
                    yield piece
                else:
                    for _, payload in frames.feed(piece):
                        yield payload
        finally:
            response.close()

    def attach(self, *, stdin: bool = False, stdout: bool = True, stderr: bool = True, logs: bool = False) -> Attached:
        """Its streams, live: iterate over the result, `send` to it, `close` it (or use `with`)."""
        query = {"stream": True, "stdin": stdin, "stdout": stdout, "stderr": stderr, "logs": logs}
        raw = self.tty
        response = self.transport.request("POST", f"{self.path}/attach", query=query, hijack=True)
        return Attached(response.take_connection(), raw=raw)

    def exec_run(self, command: str | Sequence[str], *, stdin: bytes | None = None, environment: Sequence[str] = (),
                 user: str = "", workdir: str = "", privileged: bool = False, tty: bool = False,
                 detach: bool = False) -> ExecResult:
        """Run one more command in it; its exit code and all its output.

        stdin   bytes that the command reads, then its end.
        Raises  errors.Conflict if the container does not run.
        """
        import shlex

        words = shlex.split(command) if isinstance(command, str) else list(command)
        body = {"Cmd": words, "AttachStdout": not detach, "AttachStderr": not detach, "AttachStdin": stdin is not None,
                "Env": list(environment), "User": user, "WorkingDir": workdir, "Privileged": privileged, "Tty": tty}
        created = document(self.transport.request("POST", f"{self.path}/exec", body=body).json())
        path = f"/exec/{created['Id']}"
        response = self.transport.request("POST", f"{path}/start", body={"Detach": detach, "Tty": tty},
                                          hijack=not detach)
        if detach:
            response.read()
            return ExecResult(None, b"")
        with Attached(response.take_connection(), raw=tty) as streams:
            output = b"".join(streams.exchange(stdin))
        code = document(self.transport.request("GET", f"{path}/json").json()).get("ExitCode")
        return ExecResult(code if isinstance(code, int) else None, output)

    def top(self, ps_options: str = "") -> Document:
        """Its processes: {"Titles", "Processes"}."""
        return document(self.transport.request("GET", f"{self.path}/top", query={"ps_args": ps_options}).json())

    def stats(self, *, one_shot: bool = False) -> Document:
        """One reading of its resource use. one_shot: at once, without the reading a second before it (precpu_stats)."""
        query = {"stream": "0", "one-shot": "1" if one_shot else "0"}
        return document(self.transport.request("GET", f"{self.path}/stats", query=query).json())

    def diff(self) -> list[Document]:
        """What differs from its image: [{"Path", "Kind" (0 changed, 1 added, 2 deleted)}]."""
        return documents(self.transport.request("GET", f"{self.path}/changes").json())

    def get_archive(self, path: str) -> Iterator[bytes]:
        """A file or directory in it, as a tar archive."""
        return self.transport.request("GET", f"{self.path}/archive", query={"path": path}).chunks()

    def put_archive(self, path: str, archive: bytes | Iterable[bytes]) -> None:
        """Unpack a tar archive, compressed or not, into a directory in it. Raises errors.Forbidden: read-only."""
        pieces = [archive] if isinstance(archive, bytes) else archive
        headers = {"Content-Type": "application/x-tar"}
        self.transport.request("PUT", f"{self.path}/archive", query={"path": path}, body=iter(pieces),
                               headers=headers).read()

    def export(self) -> Iterator[bytes]:
        """Its whole filesystem, without volumes, as a tar archive."""
        return self.transport.request("GET", f"{self.path}/export").chunks()

    def commit(self, repository: str = "", tag: str = "", *, message: str = "", author: str = "",
               changes: Sequence[str] = (), pause: bool = True) -> Image:
        """Make an image of what it has changed.

        changes  Dockerfile instructions for the image's configuration, such as 'CMD ["sh"]'.
        pause    freeze it meanwhile.
        """
        query = {"container": self.id, "repo": repository, "tag": tag, "comment": message, "author": author,
                 "changes": list(changes) or None, "pause": None if pause else "0"}
        made = document(self.transport.request("POST", "/commit", query=query).json())
        return Images(self.transport).get(str(made["Id"]))

    def _post(self, verb: str, query: Mapping[str, object] | None = None) -> None:
        self.transport.request("POST", f"{self.path}/{verb}", query=query).read()


def _status(answer: Document) -> int:
    error = member(answer, "Error", "Message")
    if error:
        raise MinidockerError(str(error))
    status = answer.get("StatusCode")
    return status if isinstance(status, int) else 0


def _discard(container: Container) -> None:
    """Remove it, unless the daemon does so itself at this moment."""
    try:
        container.remove(force=True)
    except NotFound:
        pass
    except Conflict:        # its removal has begun
        try:
            container.wait(condition="removed")
        except NotFound:
            pass


class Containers:
    """The containers of a daemon."""

    def __init__(self, transport: Transport, images: Images) -> None:
        self.transport = transport
        self._images = images

    def list(self, *, all: bool = False, limit: int | None = None, size: bool = False,
             filters: Mapping[str, Sequence[str]] | None = None) -> list[Container]:
        """Running containers (all of them with `all`), newest first, with the short documents of the list."""
        query = {"all": all, "limit": limit, "size": size, "filters": dict(filters or {})}
        response = self.transport.request("GET", "/containers/json", query=query)
        return [Container(self.transport, item) for item in documents(response.json())]

    def get(self, name: str) -> Container:
        """The container of that name or ID. Raises errors.NotFound."""
        path = f"/containers/{quote(name)}/json"
        return Container(self.transport, document(self.transport.request("GET", path).json()))

    def create(self, image: str, command: str | Sequence[str] | None = None,
               **options: Unpack[ContainerOptions]) -> Container:
        """Make a container and do not start it; an absent image is pulled. Options: see ContainerOptions."""
        return self._create(image, create_body(image, command, options), options)

    @overload
    def run(self, image: str, command: str | Sequence[str] | None = None, *, detach: Literal[True],
            remove: bool = False, stdin: bytes | None = None, stdout: bool = True, stderr: bool = False,
            **options: Unpack[ContainerOptions]) -> Container: ...

    @overload
    def run(self, image: str, command: str | Sequence[str] | None = None, *, detach: Literal[False] = False,
            remove: bool = False, stdin: bytes | None = None, stdout: bool = True, stderr: bool = False,
            **options: Unpack[ContainerOptions]) -> bytes: ...

    def run(self, image: str, command: str | Sequence[str] | None = None, *, detach: bool = False,
            remove: bool = False, stdin: bytes | None = None, stdout: bool = True, stderr: bool = False,
            **options: Unpack[ContainerOptions]) -> bytes | Container:
        """Run a command in a new container.

        detach  True: give back the running Container at once. False: wait, and give back its output.
        remove  remove the container when it has ended.
        stdin   bytes that the command reads, then its end.
        stdout, stderr  which of the two the output holds.
        Raises  ContainerError if the exit status is not 0.
        """
        body = create_body(image, command, options)
        if remove:
            member_of(body, "HostConfig")["AutoRemove"] = True
        if stdin is not None:
            body.update(OpenStdin=True, StdinOnce=True, AttachStdin=True)
        container = self._create(image, body, options)
        if detach:
            try:
                container.start()
            except MinidockerError:
                if remove:
                    _discard(container)
                raise
            return container
        wanted = {1} if stdout else set()
        wanted |= {2} if stderr else set()
        status, output, errors = self._run_attached(container, stdin, wanted, bool(options.get("tty")), remove)
        if status != 0:
            raise ContainerError(image, command, status, errors)
        return output

    def _create(self, image: str, body: Document, options: ContainerOptions) -> Container:
        query = {"name": options.get("name", ""), "platform": options.get("platform", "")}
        try:
            response = self.transport.request("POST", "/containers/create", query=query, body=body)
        except NotFound as error:
            if "no such image" not in str(error).lower():
                raise
            self._images.pull(image, platform=options.get("platform", ""))
            response = self.transport.request("POST", "/containers/create", query=query, body=body)
        return Container(self.transport, {"Id": document(response.json())["Id"], "Config": {"Tty": body.get("Tty")}})

    def _run_attached(self, container: Container, stdin: bytes | None, wanted: set[int], tty: bool,
                      remove: bool) -> tuple[int, bytes, bytes]:
        attach = {"stream": True, "stdin": stdin is not None, "stdout": True, "stderr": True}
        response = self.transport.request("POST", f"{container.path}/attach", query=attach, hijack=True)
        condition = {"condition": "removed" if remove else "next-exit"}
        with Attached(response.take_connection(), raw=tty) as streams:
            waiting = self.transport.request("POST", f"{container.path}/wait", query=condition)
            try:
                container.start()
            except MinidockerError:
                waiting.close()
                if remove:
                    _discard(container)
                raise
            pieces = list(streams.exchange_frames(stdin))
            output = b"".join(piece for stream, piece in pieces if stream in wanted)
            errors = b"".join(piece for stream, piece in pieces if stream == 2)
        return _status(document(waiting.json())), output, errors

    def prune(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> Document:
        """Remove all containers that do not run; {"ContainersDeleted", "SpaceReclaimed" (bytes)}."""
        query = {"filters": dict(filters or {})}
        return document(self.transport.request("POST", "/containers/prune", query=query).json())


def member_of(of: Document, name: str) -> Document:
    """The document inside `of` by that name."""
    return document(of[name])
