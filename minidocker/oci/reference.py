"""Image references: `registry/repository:tag@digest` and the short forms that people type.

Source  distribution/reference (grammar); OCI distribution-spec, "Pulling manifests" (name and tag patterns).
Rules   - `busybox` means docker.io/library/busybox:latest. The full form is stored, the familiar one is shown.
        - the first component is a registry only if it holds a dot or a colon, is `localhost`, or has upper case.
"""

import re

import msgspec

from minidocker.errors import InvalidArgument
from minidocker.oci.digest import Digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_NAME_LIMIT = 255


class Reference(msgspec.Struct, frozen=True, order=True):
    """A parsed reference, in full form.

    domain  registry host, with port if any ("docker.io", "localhost:5000").
    path    repository within it ("library/busybox").
    tag     None only where a digest is given without a tag.
    digest  pins the exact manifest, or None.
    """

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read what a person types; a missing tag becomes `latest` unless a digest is given.

        Raises  InvalidArgument: not a reference.
        """
        rest, at, digest_text = text.partition("@")
        name, tag = _split_tag(rest)
        domain, path = _split_domain(name)
        if not _PATH.match(path) or not _DOMAIN.match(domain) or len(domain) + len(path) + 1 > _NAME_LIMIT:
            reason = "repository name must be lowercase" if path != path.lower() else "not a repository name"
            raise InvalidArgument(f"invalid reference format: {reason}: {text[:300]!r}")
        if tag is not None and not _TAG.match(tag):
            raise InvalidArgument(f"invalid reference format: invalid tag in {text[:300]!r}")
        try:
            digest = Digest(digest_text) if at else None
        except ValueError as error:
            raise InvalidArgument(f"invalid reference format: {error}") from None
        if not at and re.fullmatch(r"[0-9a-f]{64}", text):
            raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
        return cls(domain, path, tag if tag or digest else DEFAULT_TAG, digest)

    @property
    def name(self) -> str:
        """Registry and repository, no tag: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The name as people type it: `busybox`, `user/app`, `localhost:5000/app`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        return self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path

    @property
    def familiar(self) -> str:
        """`busybox:latest`, or `busybox@sha256:...` where there is no tag."""
        return self.familiar_name + self._suffix()

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_tag(self, tag: str) -> "Reference":
        """The same repository under another tag. Raises InvalidArgument: not a tag."""
        if not _TAG.match(tag):
            raise InvalidArgument(f"invalid tag format: {tag[:300]!r}")
        return Reference(self.domain, self.path, tag)

    def with_digest(self, digest: Digest) -> "Reference":
        """The same repository pinned to one manifest."""
        return Reference(self.domain, self.path, None, digest)


def _split_tag(rest: str) -> tuple[str, str | None]:
    name, colon, tag = rest.rpartition(":")
    if colon and "/" not in tag:
        return name, tag
    return rest, None


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, remainder = name.partition("/")
    looks_like_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if slash and looks_like_host:
        domain, path = first, remainder
    else:
        domain, path = DEFAULT_DOMAIN, name
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path
