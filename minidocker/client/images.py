"""Images, by the client: pull, push, list, tag, load, save.

Source  Docker Engine API, "Images".
Rules   - a progress stream answers 200 and may still fail: its last object then holds `error`, which is raised here.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from minidocker.client.documents import dumps
from minidocker.client.resource import Document, Documents, Resource, document, documents, member
from minidocker.client.response import Response
from minidocker.client.transport import Transport, quote

Progress = Callable[[Document], None]
Names = list[str]       # `list` is a method below


def split_reference(reference: str) -> tuple[str, str]:
    """A reference as repository and tag or digest; the tag is "latest" if none is named."""
    repository, at, digest = reference.partition("@")
    if at:
        return repository, digest
    head, colon, tag = repository.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (repository, "latest")


def registry_auth(credentials: Mapping[str, str] | None) -> dict[str, str]:
    """The X-Registry-Auth header for credentials such as {"username", "password", "serveraddress"}."""
    text = dumps(dict(credentials or {})).encode()
    return {"X-Registry-Auth": base64.urlsafe_b64encode(text).decode()}


def follow(response: Response, progress: Progress | None) -> list[Document]:
    """Read a progress stream to its end, telling `progress` each object. Raises DaemonError if the stream says so."""
    seen = []
    for item in response.objects():
        step = document(item)
        if step.get("error"):
            from minidocker.client.failures import daemon_error

            code = member(step, "errorDetail", "code")
            raise daemon_error(code if isinstance(code, int) and code >= 400 else 500, str(step["error"]))
        if progress is not None:
            progress(step)
        seen.append(step)
    return seen


class Image(Resource):
    """One image."""

    collection = "images"

    @property
    def tags(self) -> list[str]:
        """The references that name it."""
        tags = self.attrs.get("RepoTags")
        return [str(tag) for tag in tags] if isinstance(tags, list) else []

    @property
    def name(self) -> str:
        """Its first reference, or nothing."""
        return self.tags[0] if self.tags else ""

    def tag(self, repository: str, tag: str = "latest") -> None:
        """Let `repository:tag` name this image too."""
        self.transport.request("POST", f"{self.path}/tag", query={"repo": repository, "tag": tag}).read()

    def history(self) -> list[Document]:
        """The steps that made it, the last one first."""
        return documents(self.transport.request("GET", f"{self.path}/history").json())

    def save(self) -> Iterator[bytes]:
        """It under all its references, as a tar archive (see Images.load), piece by piece."""
        return self.transport.request("GET", "/images/get", query={"names": self.tags or [self.id]}).chunks()


class Images:
    """The images of a daemon."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def list(self, *, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None) -> list[Image]:
        """Images, newest first."""
        query = {"all": all, "filters": dict(filters or {})}
        response = self.transport.request("GET", "/images/json", query=query)
        return [Image(self.transport, item) for item in documents(response.json())]

    def get(self, name: str) -> Image:
        """The image of that reference or ID. Raises errors.NotFound."""
        return Image(self.transport, document(self.transport.request("GET", f"/images/{quote(name)}/json").json()))

    def pull(self, reference: str, *, platform: str = "", credentials: Mapping[str, str] | None = None,
             progress: Progress | None = None) -> Image:
        """Fetch an image from its registry.

        progress  is told each step of the pull as the API says it: {"status", "id", "progressDetail"}.
        Raises    errors.NotFound, Unauthorized, or DaemonError with the registry's reason.
        """
        repository, tag = split_reference(reference)
        query = {"fromImage": repository, "tag": tag, "platform": platform}
        response = self.transport.request("POST", "/images/create", query=query, headers=registry_auth(credentials))
        follow(response, progress)
        return self.get(reference)

    def build(self, path: str, *, tag: str = "", dockerfile: str = "Dockerfile",
              build_args: Mapping[str, str] | None = None, target: str = "", no_cache: bool = False,
              pull: bool = False, explain: bool = False, labels: Mapping[str, str] | None = None,
              progress: Progress | None = None) -> Image:
        """Build an image from the directory `path`, without what its .dockerignore names.

        dockerfile  its path in the directory.
        labels      of the image, besides those of the Dockerfile.
        explain     let the cache tell its decisions: steps {"aux": {"Cache": {"step", "hit", "reason", ...}}}.
        progress    is told each step as the API says it: {"stream": "Step 1/3 : FROM busybox"}.
        Raises      DaemonError: a step failed; the text is the reason.
        """
        from minidocker.client.context import ignore_list, pack

        query = {"t": tag, "dockerfile": dockerfile, "buildargs": dict(build_args or {}), "target": target,
                 "nocache": no_cache, "pull": pull, "explain": explain, "labels": dict(labels or {}), "rm": True}
        body = pack(path, ignore_list(path, dockerfile))
        steps = follow(self.transport.request("POST", "/build", query=query, body=body), progress)
        return self.get(next(str(found) for step in reversed(steps) if (found := member(step, "aux", "ID"))))

    def push(self, reference: str, *, credentials: Mapping[str, str] | None = None,
             progress: Progress | None = None) -> str:
        """Send an image to the registry that its reference names; the manifest's digest comes back."""
        repository, tag = split_reference(reference)
        response = self.transport.request("POST", f"/images/{quote(repository)}/push", query={"tag": tag},
                                          headers=registry_auth(credentials))
        digests = [str(member(step, "aux", "Digest") or "") for step in follow(response, progress)]
        return next((digest for digest in reversed(digests) if digest), "")

    def remove(self, name: str, *, force: bool = False, prune: bool = True) -> Documents:
        """Untag, and delete what nothing names any more; what was done comes back."""
        query = {"force": force, "noprune": not prune}
        return documents(self.transport.request("DELETE", f"/images/{quote(name)}", query=query).json())

    def load(self, archive: bytes | Iterable[bytes], *, progress: Progress | None = None) -> Names:
        """Read images from a tar archive (docker-archive or OCI layout); what was loaded, in the daemon's words."""
        pieces = [archive] if isinstance(archive, bytes) else archive
        response = self.transport.request("POST", "/images/load", query={"quiet": True}, body=iter(pieces))
        return [str(step.get("stream", "")).strip() for step in follow(response, progress) if step.get("stream")]

    def import_archive(self, archive: bytes | Iterable[bytes], repository: str = "", tag: str = "", *,
                       message: str = "", changes: Sequence[str] = (), platform: str = "") -> Image:
        """Make an image of one layer from a filesystem's tar archive, compressed or not.

        changes  Dockerfile instructions for its configuration, such as 'CMD ["sh"]'.
        """
        pieces = [archive] if isinstance(archive, bytes) else archive
        query = {"fromSrc": "-", "repo": repository, "tag": tag, "message": message, "platform": platform,
                 "changes": list(changes) or None}
        steps = follow(self.transport.request("POST", "/images/create", query=query, body=iter(pieces)), None)
        return self.get(str(steps[-1]["status"]))

    def save(self, names: Sequence[str]) -> Iterator[bytes]:
        """Several images as one tar archive, piece by piece."""
        return self.transport.request("GET", "/images/get", query={"names": list(names)}).chunks()

    def prune(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> Document:
        """Delete dangling images; {"ImagesDeleted", "SpaceReclaimed" (bytes)}."""
        query = {"filters": dict(filters or {})}
        return document(self.transport.request("POST", "/images/prune", query=query).json())
