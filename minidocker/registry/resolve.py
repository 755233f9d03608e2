"""From a reference to the one manifest that is meant: which endpoint answers, which platform suits.

Source  OCI distribution-spec ("Pulling manifests"); moby's pull (mirrors, order of endpoints), its words for failures.
Rules   - an index is chosen from once: an index within an index is refused.
        - what an index promises about a manifest (digest, size, type) is checked.
        - the daemon's platform is the default; an image for another one is refused unless it was asked for.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from minidocker.errors import (
    Forbidden,
    MinidockerError,
    NotFound,
    Unanswered,
    Unauthorized,
    Unsupported,
    VerificationError,
)
from minidocker.oci import image_config
from minidocker.oci import manifest as manifests
from minidocker.oci.image_config import ImageConfig
from minidocker.oci.manifest import Index, Manifest, Platform
from minidocker.oci.reference import DEFAULT_TAG, Reference
from minidocker.registry.client import Fetched, RegistryClient
from minidocker.registry.credentials import ANONYMOUS, AuthConfig
from minidocker.registry.hosts import Endpoint, endpoints
from minidocker.registry.retry import Temporary
from minidocker.registry.transport import Transport, Unreachable


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference means right now.

    client    where it was found.
    top       what the reference itself names: an index or the manifest; its digest is the image's RepoDigest.
    manifest  the manifest for the platform (`top` itself if that is one).
    """

    client: RegistryClient
    top: Fetched
    manifest: Fetched

    @property
    def document(self) -> Manifest:
        """The manifest, parsed."""
        assert isinstance(self.manifest.document, Manifest)
        return self.manifest.document

    async def config(self) -> tuple[bytes, ImageConfig]:
        """The image config's exact bytes, and parsed.

        Raises  VerificationError; Unsupported: not a Linux image; InvalidArgument: it does not fit the manifest.
        """
        what = f"config of {self.client.repository}"
        descriptor = self.document.config
        content = await self.client.blob(descriptor, manifests.DOCUMENT_LIMIT_BYTES, what)
        config = image_config.parse(content, what)
        if config.os.lower() != "linux":
            raise Unsupported(
                f'image operating system "{config.os[:40]}" cannot be used on this platform: it is not linux'
            )
        if len(config.diff_ids) != len(self.document.layers):
            raise VerificationError(
                f"{what} names {len(config.diff_ids)} layers, its manifest {len(self.document.layers)}"
            )
        return content, config


async def resolve(
    transport: Transport,
    reference: Reference,
    platform: Platform,
    credentials: AuthConfig = ANONYMOUS,
    *,
    choose: bool = True,
) -> Resolved:
    """Find `reference` for `platform`, mirrors first.

    choose  False: stay at an index, whatever it is for (`manifest` is then `top`).

    Raises  NotFound: no endpoint has it, or not for that platform. Forbidden, Unauthorized: access is denied.
            Unavailable: no endpoint answers. VerificationError, Unsupported, InvalidArgument: what came cannot be used.
    """
    failures: list[MinidockerError] = []
    for endpoint in endpoints(transport.config, reference.domain, pull=True):
        client = RegistryClient(transport, endpoint, reference.path, ANONYMOUS if endpoint.mirror else credentials)
        try:
            await client.ping()
            return await _choose(client, reference, platform if choose else None)
        except MinidockerError as error:
            if not _goes_on(endpoint, error):
                raise _in_dockers_words(error, reference) from error
            failures.append(error)
    raise _in_dockers_words(_most_telling(failures), reference)


async def tags(transport: Transport, reference: Reference, credentials: AuthConfig = ANONYMOUS) -> list[str]:
    """All tags of the repository, mirrors first. Raises as `resolve`."""
    failures: list[MinidockerError] = []
    for endpoint in endpoints(transport.config, reference.domain, pull=True):
        client = RegistryClient(transport, endpoint, reference.path, ANONYMOUS if endpoint.mirror else credentials)
        try:
            await client.ping()
            return await client.tags()
        except MinidockerError as error:
            if not _goes_on(endpoint, error):
                raise
            failures.append(error)
    raise _most_telling(failures)


def _goes_on(endpoint: Endpoint, error: MinidockerError) -> bool:
    """May another endpoint do better? After a mirror's failure always; else only if nobody spoke our protocol there."""
    return endpoint.mirror or isinstance(error, Unreachable | Temporary)


def _most_telling(failures: list[MinidockerError]) -> MinidockerError:
    """A registry's own word ("no such manifest") says more than another's silence."""
    answers = [error for error in failures if not isinstance(error, Unreachable)]
    return answers[-1] if answers else failures[-1]


async def _choose(client: RegistryClient, reference: Reference, platform: Platform | None) -> Resolved:
    top = await client.manifest(str(reference.digest or reference.tag or DEFAULT_TAG))
    if not isinstance(top.document, Index) or platform is None:
        return Resolved(client, top, top)
    descriptor = manifests.choose(top.document, platform, reference.familiar)
    found = await client.manifest(descriptor.digest, descriptor)
    if not isinstance(found.document, Manifest):
        raise Unsupported(f"{reference.familiar} is an index of indexes, which is not supported")
    return Resolved(client, top, found)


def _in_dockers_words(error: MinidockerError, reference: Reference) -> MinidockerError:
    code = getattr(error, "code", "")
    if isinstance(error, Unauthorized | Forbidden):
        return NotFound(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may require "
            f"'docker login': {error}"
        )
    if getattr(error, "status", 0) == 404 and code in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND", ""):
        said = str(error).partition(": ")[2] or "not found"
        return NotFound(f"manifest for {reference.familiar} not found: {said}")
    return error


@asynccontextmanager
async def connect(
    transport: Transport, reference: Reference, credentials: AuthConfig = ANONYMOUS, *, push: bool = False
) -> AsyncIterator[RegistryClient]:
    """A client of the first endpoint of `reference`'s registry that answers; mirrors are left out.

    Raises  Unavailable: none does.
    """
    yield await _first_answering(transport, reference.domain, reference.path, credentials, push=push)


async def _first_answering(
    transport: Transport, domain: str, path: str, credentials: AuthConfig, *, push: bool
) -> RegistryClient:
    failures: list[MinidockerError] = []
    for endpoint in endpoints(transport.config, domain, pull=False):
        client = RegistryClient(transport, endpoint, path, credentials, push=push)
        try:
            await client.ping()
        except (Unreachable, Temporary) as error:
            failures.append(error)
        else:
            return client
    raise _most_telling(failures)


async def login(transport: Transport, domain: str, credentials: AuthConfig) -> str:
    """Try `credentials` at a registry.

    Returns  an identity token to keep instead of the password, or "".
    Raises   Unauthorized: they are wrong. Unavailable: the registry does not answer.
    """
    client = await _first_answering(transport, domain, "", credentials, push=False)
    url = client.endpoint.base.with_path("/v2/")
    try:
        async with client.send("GET", url) as response:
            status = response.status
    except Forbidden as error:
        raise Unauthorized(f"login attempt to {url} failed: {error}") from None
    if status in (401, 403):
        raise Unauthorized(
            f"login attempt to {url} failed with status: {status} {'Unauthorized' if status == 401 else 'Forbidden'}"
        )
    if status != 200:
        raise Unanswered(f"login attempt to {url} failed with status: {status}")
    return client.authorizer.refresh_token
