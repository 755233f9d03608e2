"""Image references as users write them and as docker shows them.

Source  distribution's reference grammar; docker's familiar names.
Rules   - only what a client needs: which registry, which tag. The daemon judges whether a reference is valid.
"""

import re

DOCKER_HUB = "https://index.docker.io/v1/"


_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9-]+)*|\[[0-9a-fA-F:]+\])(?::\d+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"(?::\w[\w.-]{0,127})?(?:@[a-z0-9+._-]+:[0-9a-fA-F]{32,})?"
_REFERENCE = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*{_TAG}", re.ASCII)


def valid(reference: str) -> bool:
    """True if the text can be a reference at all."""
    return _REFERENCE.fullmatch(reference) is not None


def refusal(reference: str) -> str:
    """Why the text cannot be a reference, in docker's words; empty if it can be one."""
    if valid(reference):
        return ""
    if valid(reference.lower()) and reference != reference.lower():
        path = split(reference)[0]
        path = path if "/" in path else f"library/{path}"
        return f"invalid reference format: repository name ({path}) must be lowercase"
    return "invalid reference format"


def split(reference: str) -> tuple[str, str, str]:
    """(repository, tag, digest); what is missing is empty."""
    name, _, digest = reference.partition("@")
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, "", digest
    return head, tag, digest


def normalized(reference: str) -> str:
    """The whole reference: `busybox` becomes `docker.io/library/busybox:latest`."""
    repository, tag, digest = split(reference)
    first, slash, _ = repository.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        repository = f"docker.io/{repository if slash else 'library/' + repository}"
    suffix = (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    return repository + (suffix or ":latest")


def familiar(reference: str) -> str:
    """The short form with its tag: `busybox:latest`."""
    return normalized(reference).removeprefix("docker.io/library/").removeprefix("docker.io/")


def registry(reference: str) -> str:
    """The key of the reference's registry in config.json."""
    host = normalized(reference).partition("/")[0]
    return DOCKER_HUB if host == "docker.io" else host
