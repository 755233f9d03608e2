"""Challenges, tokens, and where credentials may go."""

import asyncio
import base64
import ssl

import pytest
from aiohttp import web
from lying_registry import Liar, layer_of, make_image, no_sleep, serving

from minidocker.errors import MinidockerError, NotFound, Unauthorized, Unavailable, VerificationError
from minidocker.oci.manifest import Platform
from minidocker.oci.reference import Reference
from minidocker.registry.auth import parse_challenges
from minidocker.registry.client import RegistryClient
from minidocker.registry.credentials import AuthConfig
from minidocker.registry.hosts import RegistryConfig, endpoints
from minidocker.registry.resolve import connect, login, resolve
from minidocker.registry.retry import Retry
from minidocker.registry.transport import Transport

ALICE = AuthConfig(username="alice", password="secret")
CONFIG = RegistryConfig(certs_dirs=(), retry=Retry(sleep=no_sleep))
AMD64 = Platform("amd64", "linux")


def test_a_bearer_challenge_is_read_with_commas_and_quotes_in_its_values() -> None:
    header = r'Bearer realm="https://a/t?x=1,2",service="s \"q\"",scope="repository:a:pull,push", Basic realm=plain'
    bearer, basic = parse_challenges([header])
    assert bearer.parameters["realm"] == "https://a/t?x=1,2"
    assert bearer.parameters["service"] == 's "q"'
    assert bearer.parameters["scope"] == "repository:a:pull,push"
    assert (basic.scheme, basic.parameters) == ("basic", {"realm": "plain"})


def test_a_scheme_without_parameters_hides_none_of_those_behind_it() -> None:
    negotiate, bearer = parse_challenges(['Negotiate, Bearer realm="https://a/t"'])
    assert (negotiate.scheme, negotiate.parameters) == ("negotiate", {})
    assert (bearer.scheme, bearer.parameters) == ("bearer", {"realm": "https://a/t"})


@pytest.mark.parametrize("header", ["", "   ", "Bearer", 'Bearer realm="unclosed', "=,=,", "\x00\xff", "Basic " * 1000])
def test_an_unreadable_challenge_is_left_out_and_harms_nobody(header: str) -> None:
    for challenge in parse_challenges([header]):
        assert "realm" not in challenge.parameters or challenge.parameters["realm"]


async def _resolve(liar: Liar, credentials: AuthConfig, path: str = "app") -> None:
    async with Transport(CONFIG) as transport:
        await resolve(transport, Reference(liar.domain, path, "1"), AMD64, credentials)


def _asks_basic(inner: Liar) -> None:
    async def manifest(request: web.Request) -> web.StreamResponse:
        if "Authorization" in request.headers:
            return inner.honest(request)
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    inner.lies["/manifests/1"] = manifest


def test_credentials_are_sent_only_after_the_registry_asked() -> None:
    async def scenario() -> None:
        async with serving(Liar(make_image([layer_of({"a": b"1"})]))) as liar:
            _asks_basic(liar)
            await _resolve(liar, ALICE)
            first, second = liar.requests("/manifests/1")
            assert "Authorization" not in first
            assert second["Authorization"] == "Basic " + base64.b64encode(b"alice:secret").decode()

    asyncio.run(scenario())


def test_wrong_credentials_are_tried_once_and_end_in_docker_words() -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    async def scenario() -> None:
        async with serving(Liar()) as liar:
            liar.lies["/manifests/1"] = refuse
            with pytest.raises(NotFound, match=r"pull access denied for .*may require 'docker login'"):
                await _resolve(liar, ALICE)
            assert len(liar.requests("/manifests/1")) == 2

    asyncio.run(scenario())


def test_a_redirect_to_another_port_loses_the_credentials_and_its_challenge_is_not_answered() -> None:
    async def scenario() -> None:
        async with serving(Liar(make_image([layer_of({"a": b"1"})]))) as liar, serving(Liar()) as thief:
            _asks_basic(liar)

            async def elsewhere(request: web.Request) -> web.StreamResponse:
                return web.Response(status=307, headers={"Location": f"{thief.url}/give-me"})

            async def asks(request: web.Request) -> web.StreamResponse:
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

            assert liar.image is not None
            liar.lies["/blobs/" + liar.image.manifest["config"]["digest"]] = elsewhere
            thief.lies["/give-me"] = asks
            async with Transport(CONFIG) as transport:
                resolved = await resolve(transport, Reference(liar.domain, "app", "1"), AMD64, ALICE)
                with pytest.raises(MinidockerError):
                    await resolved.config()
            assert "Authorization" in liar.requests("/blobs/")[-1]
            assert len(thief.seen) == 1
            assert all("Authorization" not in headers for _, _, headers in thief.seen)

    asyncio.run(scenario())


def test_a_challenge_of_another_host_makes_nobody_send_credentials() -> None:
    async def scenario() -> None:
        async with serving(Liar(make_image([]))) as liar, serving(Liar()) as thief:

            async def elsewhere(request: web.Request) -> web.StreamResponse:
                return web.Response(status=307, headers={"Location": f"{thief.url}/give-me"})

            async def asks(request: web.Request) -> web.StreamResponse:
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

            liar.lies["/manifests/1"], thief.lies["/give-me"] = elsewhere, asks
            with pytest.raises(MinidockerError):
                await _resolve(liar, ALICE)
            assert not any("Authorization" in headers for _, _, headers in (*liar.seen, *thief.seen))

    asyncio.run(scenario())


def test_a_redirect_within_the_registry_keeps_the_credentials() -> None:
    async def scenario() -> None:
        async with serving(Liar(make_image([layer_of({"a": b"1"})]))) as liar:
            _asks_basic(liar)

            async def moved(request: web.Request) -> web.StreamResponse:
                return web.Response(status=307, headers={"Location": "/v2/app/manifests/1"})

            liar.lies["/manifests/old"] = moved
            async with Transport(CONFIG) as transport:
                client = RegistryClient(transport, endpoints(CONFIG, liar.domain, pull=True)[-1], "app", ALICE)
                await client.manifest("old")
            assert "Authorization" in liar.requests("/manifests/1")[-1]

    asyncio.run(scenario())


def _asks_bearer(liar: Liar, realm: str) -> None:
    async def ping(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization", "").startswith("Bearer good"):
            return liar.honest(request)
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="reg"'})

    liar.lies["/v2/"] = ping
    liar.lies["/manifests/1"] = ping


def test_the_token_service_gets_the_credentials_and_the_registry_only_the_token() -> None:
    async def scenario() -> None:
        async with serving(Liar(make_image([layer_of({"a": b"1"})]))) as liar, serving(Liar()) as tokens:
            _asks_bearer(liar, f"{tokens.url}/token")

            async def give(request: web.Request) -> web.StreamResponse:
                return web.json_response({"token": "good"})

            tokens.lies["/token"] = give
            await _resolve(liar, ALICE)
            (_, asked, headers) = tokens.seen[0]
            assert headers["Authorization"].startswith("Basic ")
            assert "scope=repository:app:pull" in asked and "service=reg" in asked
            assert not any(h.get("Authorization", "").startswith("Basic") for _, _, h in liar.seen)
            assert len(tokens.seen) == 1

    asyncio.run(scenario())


def test_a_token_that_ran_out_is_fetched_again_once() -> None:
    async def scenario() -> None:
        async with serving(Liar(make_image([layer_of({"a": b"1"})]))) as liar:
            given: list[str] = []

            async def give(request: web.Request) -> web.StreamResponse:
                given.append(f"t{len(given)}")
                return web.json_response({"access_token": given[-1]})

            async def only_newest(request: web.Request) -> web.StreamResponse:
                if given and request.headers.get("Authorization") == "Bearer t1":
                    return liar.honest(request)
                challenge = f'Bearer realm="{liar.url}/token",service="reg"'
                return web.Response(status=401, headers={"WWW-Authenticate": challenge})

            liar.lies |= {"/token": give, "/v2/": only_newest, "/manifests/1": only_newest}
            async with Transport(CONFIG) as transport:
                client = RegistryClient(transport, endpoints(CONFIG, liar.domain, pull=True)[-1], "app")
                await client.ping()
                assert await client.authorizer.header(client.scopes) == "Bearer t0"
                await client.manifest("1")
            assert given == ["t0", "t1"]

    asyncio.run(scenario())


@pytest.mark.parametrize("realm", ["ftp://127.0.0.1/t", "file:///etc/passwd", "", "http://registry.example/token"])
def test_a_token_service_that_must_not_be_asked_is_refused(realm: str) -> None:
    async def scenario() -> None:
        async with serving(Liar(make_image([layer_of({"a": b"1"})]))) as liar:
            _asks_bearer(liar, realm)
            with pytest.raises(VerificationError, match="token service"):
                await _resolve(liar, ALICE)

    asyncio.run(scenario())


def test_an_https_registry_may_not_name_a_token_service_over_http(certificates) -> None:  # type: ignore[no-untyped-def]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)

    async def scenario() -> None:
        async with serving(Liar(make_image([])), context) as liar, serving(Liar()) as tokens:
            _asks_bearer(liar, f"{tokens.url}/token")
            with pytest.raises(VerificationError, match="plain http"):
                await _resolve(liar, ALICE)
            assert tokens.seen == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "token", [b"{}", b"[]", b'{"token": "a\\nb"}', b'{"token": 5}', b"[" * 100_000, b"x" * (2 << 20)]
)
def test_a_useless_token_is_an_error_and_never_a_header(token: bytes) -> None:
    async def give(request: web.Request) -> web.StreamResponse:
        return web.Response(body=token)

    async def scenario() -> None:
        async with serving(Liar(make_image([layer_of({"a": b"1"})]))) as liar:
            _asks_bearer(liar, f"{liar.url}/token")
            liar.lies["/token"] = give
            with pytest.raises(MinidockerError, match="token"):
                await _resolve(liar, ALICE)
            assert not any("Authorization" in headers for headers in liar.requests("/manifests/"))

    asyncio.run(scenario())


def test_credentials_never_reach_a_mirror() -> None:
    async def scenario() -> None:
        async with serving(Liar(make_image([layer_of({"a": b"1"})]))) as mirror:
            _asks_basic(mirror)
            config = RegistryConfig(mirrors=(mirror.url,), certs_dirs=(), retry=Retry(sleep=no_sleep, attempts=1))
            async with Transport(config) as transport:
                with pytest.raises(MinidockerError):
                    await resolve(transport, Reference.parse("docker.io/library/app:1"), AMD64, ALICE)
            assert mirror.requests("/manifests/1")
            assert not any("Authorization" in headers for _, _, headers in mirror.seen)

    asyncio.run(scenario())


async def _login(place, credentials: AuthConfig) -> str:  # type: ignore[no-untyped-def]
    config = RegistryConfig(certs_dirs=(place.certs_dir,), retry=Retry(sleep=no_sleep))
    async with Transport(config) as transport:
        return await login(transport, place.domain, credentials)


def test_login_at_the_real_registry_with_basic(guarded) -> None:  # type: ignore[no-untyped-def]
    good = AuthConfig(username=guarded.user, password=guarded.password)
    assert asyncio.run(_login(guarded, good)) == ""
    with pytest.raises(Unauthorized, match="401 Unauthorized"):
        asyncio.run(_login(guarded, AuthConfig(username=guarded.user, password="wrong")))


def test_login_with_tokens_gives_an_identity_token_that_works_afterwards(tokened) -> None:  # type: ignore[no-untyped-def]
    identity = asyncio.run(_login(tokened, AuthConfig(username=tokened.user, password=tokened.password)))
    assert identity == "remember-me"
    with pytest.raises(Unauthorized):
        asyncio.run(_login(tokened, AuthConfig(username=tokened.user, password="wrong")))

    async def header() -> str | None:
        config = RegistryConfig(certs_dirs=(tokened.certs_dir,))
        reference = Reference(tokened.domain, "app", "1")
        who = AuthConfig(identitytoken=identity)
        async with Transport(config) as transport, connect(transport, reference, who, push=True) as client:
            return await client.authorizer.header(client.scopes)

    assert (asyncio.run(header()) or "").startswith("Bearer ey")
    assert tokened.service.asked[-1]["method"] == ["POST"]


def test_the_certificate_of_a_registry_is_checked(guarded) -> None:  # type: ignore[no-untyped-def]
    """As a name that is not loopback: there nobody may look away."""
    import socket
    from typing import Any

    from aiohttp.abc import AbstractResolver, ResolveResult

    class AllAreLoopback(AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
            return [
                {"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            ]

        async def close(self) -> None:
            pass

    domain = guarded.domain.replace("localhost", "registry.test")
    good = AuthConfig(username=guarded.user, password=guarded.password)

    async def attempt(config: RegistryConfig) -> str:
        async with Transport(config) as transport:
            return await login(transport, domain, good)

    with pytest.raises(Unavailable, match="certificate is not trusted"):
        asyncio.run(attempt(RegistryConfig(certs_dirs=(), resolver=AllAreLoopback())))
    (guarded.certs_dir / domain).symlink_to(guarded.certs_dir / guarded.domain)
    assert asyncio.run(attempt(RegistryConfig(certs_dirs=(guarded.certs_dir,), resolver=AllAreLoopback()))) == ""
    assert asyncio.run(attempt(RegistryConfig(certs_dirs=(), insecure=(domain,), resolver=AllAreLoopback()))) == ""


def test_only_loopback_and_listed_registries_may_speak_http() -> None:
    config = RegistryConfig(insecure=("listed.example:5000", "10.1.0.0/16"), certs_dirs=())

    def schemes(domain: str) -> list[str]:
        return [endpoint.base.scheme for endpoint in endpoints(config, domain, pull=True)]

    for domain in ("127.0.0.1:5000", "localhost:5000", "127.9.9.9", "[::1]:5000", "listed.example:5000", "10.1.2.3:80"):
        assert schemes(domain) == ["https", "http"], domain
    for domain in (
        "registry.example",
        "localhost.evil.example",
        "listed.example:5001",
        "10.2.0.1",
        "127.0.0.1.evil.example",
    ):
        assert schemes(domain) == ["https"], domain
