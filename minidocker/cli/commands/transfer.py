"""`pull` and `push`.

Source  docker's reference of both; Docker Engine API, "ImageCreate" and "ImagePush".
"""

import base64

from minidocker.cli.commands.credentials import credentials
from minidocker.cli.options import Options
from minidocker.cli.progress import Display, follow
from minidocker.cli.references import normalized, refusal, registry, split
from minidocker.cli.session import Command, CommandFailure, Session
from minidocker.client.documents import dumps
from minidocker.client.transport import quote

PULL_OPTIONS = """
-a, --all-tags                Fetch all tags of the repository
    --disable-content-trust   Accepted for compatibility (default true)
    --platform string         Platform of the image, such as linux/arm64
-q, --quiet                   Print only the image's name
"""
PUSH_OPTIONS = """
-a, --all-tags                Send all tags of the repository
    --disable-content-trust   Accepted for compatibility (default true)
    --platform string         Send only the manifest of that platform
-q, --quiet                   Print only the image's name
"""


def _auth(session: Session, reference: str) -> dict[str, str]:
    text = dumps(credentials(session.config_dir, registry(reference))).encode()
    return {"X-Registry-Auth": base64.urlsafe_b64encode(text).decode()}


def pull_image(session: Session, reference: str, *, platform: str, descriptor: int, quiet: bool,
               all_tags: bool = False) -> None:
    """Pull, showing progress on `descriptor`. Raises DaemonError, CommandFailure."""
    repository, tag, digest = split(normalized(reference))
    query = {"fromImage": repository, "tag": "" if all_tags else digest or tag, "platform": platform}
    response = session.transport.request("POST", "/images/create", query=query, headers=_auth(session, reference))
    follow(response.objects(), None if quiet else Display(descriptor))


def pull(session: Session, options: Options, operands: list[str]) -> int:
    """`pull NAME[:TAG|@DIGEST]`"""
    reference = operands[0]
    if problem := refusal(reference):
        raise CommandFailure(problem)
    quiet, all_tags = options.flag("quiet"), options.flag("all-tags")
    _, tag, digest = split(reference)
    if all_tags and (tag or digest):
        raise CommandFailure("tag can't be used with --all-tags/-a")
    if not tag and not digest and not all_tags and not quiet:
        session.out("Using default tag: latest\n")
    platform = options.text("platform") or session.environment.get("DOCKER_DEFAULT_PLATFORM", "")
    pull_image(session, reference, platform=platform, descriptor=1, quiet=quiet, all_tags=all_tags)
    session.out((split(normalized(reference))[0] if all_tags else normalized(reference)) + "\n")
    return 0


def push(session: Session, options: Options, operands: list[str]) -> int:
    """`push NAME[:TAG]`"""
    reference = operands[0]
    if problem := refusal(reference):
        raise CommandFailure(problem)
    quiet, all_tags = options.flag("quiet"), options.flag("all-tags")
    given, tag, _ = split(reference)
    if all_tags and tag:
        raise CommandFailure("tag can't be used with --all-tags/-a")
    if not tag and not all_tags:
        tag = "latest"
        if not quiet:
            session.out("Using default tag: latest\n")
    repository = split(normalized(given))[0].removeprefix("docker.io/")
    query = {"tag": "" if all_tags else tag, "platform": options.text("platform")}
    response = session.transport.request("POST", f"/images/{quote(repository)}/push", query=query,
                                         headers=_auth(session, reference))
    follow(response.objects(), None if quiet else Display(1))
    if quiet:
        session.out(normalized(reference) + "\n")
    return 0


PULL = Command(pull, "[OPTIONS] NAME[:TAG|@DIGEST]", PULL_OPTIONS, 1, 1)
PUSH = Command(push, "[OPTIONS] NAME[:TAG]", PUSH_OPTIONS, 1, 1)
