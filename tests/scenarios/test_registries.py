"""Registries, the daemon's whole way: from the command line over the API to a real registry, and back into a run."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
from aiohttp import web

from minidocker.lab.setup import registry as real_registry

from ..registry.conftest import TokenService
from ..registry.lying_registry import Liar, layer_of, make_image, serving
from .authorities import Authority, Pair
from .conftest import REPOSITORY, Daemon, make_daemon, wait_until
from .machine import Machine

NOWHERE = {"auths": {"nowhere.invalid": {"auth": base64.b64encode(b"a:b").decode()}}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Client:
    """A command line with a configuration directory of its own."""

    daemon: Daemon
    program: str
    config: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        start = [self.program] if self.program == "docker" else [sys.executable, "-m", "minidocker.cli"]
        return subprocess.run(
            [*start, "-H", self.daemon.url, "--config", str(self.config), *words], input=stdin, capture_output=True,
            text=True, timeout=60, check=False, cwd=REPOSITORY, env={**os.environ, **self.environment},
        )  # fmt: skip

    def configure(self, document: dict[str, Any]) -> None:
        """Write config.json. (An empty one would make docker look for a credential store of the machine.)"""
        self.config.mkdir(exist_ok=True)
        (self.config / "config.json").write_text(json.dumps(document))

    def configuration(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.config / "config.json").read_text())
        return found

    def good(self, *words: str, stdin: str = "") -> str:
        done = self(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *words: str, stdin: str = "") -> str:
        done = self(*words, stdin=stdin)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stderr.strip()


@dataclass(frozen=True)
class Engine:
    """The daemon of this module, and where it looks for registries' certificates."""

    daemon: Daemon
    certs: Path
    mirror: Liar

    def trust(self, domain: str, authority: Authority, pair: Pair | None = None) -> Path:
        folder = self.certs / domain
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(authority.certificate, folder / "ca.crt")
        if pair is not None:
            shutil.copy(pair.certificate, folder / "client.cert")
            shutil.copy(pair.key, folder / "client.key")
        return folder


class Stage:
    """A thread with an event loop, in which made-up registries answer."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self._open = contextlib.AsyncExitStack()

    def serve(self, liar: Liar, tls: ssl.SSLContext | None = None) -> Liar:
        return asyncio.run_coroutine_threadsafe(self._open.enter_async_context(serving(liar, tls)), self.loop).result()

    def end(self) -> None:
        asyncio.run_coroutine_threadsafe(self._open.aclose(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def small_image(text: bytes = b"hello from afar\n") -> Any:
    """An image with a large layer and one with the file /said."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    return make_image([layer_of({"noise": os.urandom(1 << 20)}), layer_of({"said": text})], architecture=machine)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.end()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "the registries' CA")


@pytest.fixture(scope="module")
def engine(image_root: Path, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    certs = tmp_path_factory.mktemp("certs.d")
    mirror = stage.serve(Liar())
    flags = ["--bridge", "none", "--registry-certs-dir", str(certs), "--registry-mirror", mirror.url]
    for daemon in make_daemon(image_root, flags):
        yield Engine(daemon, certs, mirror)


@pytest.fixture(params=["docker", "minidocker"])
def client(request: pytest.FixtureRequest, engine: Engine, tmp_path: Path) -> Iterator[Client]:
    made = Client(engine.daemon, request.param, tmp_path / "config")
    made.configure(NOWHERE)
    yield made
    clear(engine.daemon)


def clear(daemon: Daemon) -> None:
    """Remove all but the image `busybox`."""
    daemon.remove_all()
    sdk = daemon.client()
    for image in sdk.images.list():
        for name in [*image.tags, *image.attrs["RepoDigests"]]:
            if name != "busybox:latest" and not name.startswith("<none>"):
                with contextlib.suppress(docker.errors.ImageNotFound):
                    sdk.images.remove(name, force=True)
    sdk.close()


def blobs(daemon: Daemon) -> set[str]:
    """Every file that the blob store has on disk, partial ones too."""
    root = daemon.data_root / "blobs"
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def registry_program() -> None:
    if shutil.which("docker-registry", path="/usr/bin:/usr/sbin:/usr/local/bin") is None:
        pytest.skip("docker-registry is not installed (apt-get install docker-registry)")


@dataclass(frozen=True)
class Place:
    """A real registry: its domain in references, and its log."""

    domain: str
    log: Path

    def lines(self, text: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if text in line]


@pytest.fixture
def guarded(registry_program: None, tmp_path: Path, engine: Engine, authority: Authority) -> Iterator[Place]:
    """TLS with a private CA, users by htpasswd."""
    if shutil.which("htpasswd") is None:
        pytest.skip("needs htpasswd (Debian's apache2-utils)")
    users = tmp_path / "htpasswd"
    users.write_bytes(subprocess.run(["htpasswd", "-Bbn", "student", "s3cret"], check=True, capture_output=True).stdout)
    pair, port = authority.issue("registry"), free_port()
    real_registry.start(tmp_path / "guarded", port, real_registry.Security(pair.certificate, pair.key, htpasswd=users))
    engine.trust(f"localhost:{port}", authority)
    yield Place(f"localhost:{port}", tmp_path / "guarded" / "registry.log")
    real_registry.stop(tmp_path / "guarded")


@pytest.fixture
def plain(registry_program: None, tmp_path: Path) -> Iterator[Place]:
    port = free_port()
    real_registry.start(tmp_path / "plain", port)
    yield Place(f"127.0.0.1:{port}", tmp_path / "plain" / "registry.log")
    real_registry.stop(tmp_path / "plain")


# -- users and passwords --


def test_login_push_pull_run_and_logout_over_tls_with_a_private_ca(client: Client, guarded: Place) -> None:
    name = f"{guarded.domain}/course/box:1"
    client.good("tag", "busybox", name)
    assert client.refused("push", name) == "no basic auth credentials"
    wrong = client.refused("login", "-u", "student", "--password-stdin", guarded.domain, stdin="wrong")
    failed = f"login attempt to https://{guarded.domain}/v2/ failed with status: 401 Unauthorized"
    assert wrong == f"Error response from daemon: {failed}"
    assert guarded.domain not in client.configuration()["auths"]

    done = client.good("login", "-u", "student", "--password-stdin", guarded.domain, stdin="s3cret")
    assert "Login Succeeded" in done
    kept = client.configuration()["auths"]
    assert base64.b64decode(kept[guarded.domain]["auth"]) == b"student:s3cret" and "nowhere.invalid" in kept
    pushed = client.good("push", name)
    assert "1: digest: sha256:" in pushed
    client.good("rmi", name, "busybox")
    assert "Status: Downloaded newer image" in client.good("pull", name)
    assert client.good("run", "--rm", name, "cat", "/var/data/seed") == "from the image\n"

    client.good("tag", name, "busybox")
    client.good("rmi", name)
    assert client.good("logout", guarded.domain) == f"Removing login credentials for {guarded.domain}\n"
    assert guarded.domain not in client.configuration()["auths"]
    denied = client.refused("pull", name)
    assert f"pull access denied for {guarded.domain}/course/box, repository does not exist or may require" in denied
    assert "docker login" in denied


def test_wrong_credentials_in_the_configuration_are_told(client: Client, guarded: Place) -> None:
    client.configure({"auths": {guarded.domain: {"auth": base64.b64encode(b"student:old").decode()}}})
    client.good("tag", "busybox", f"{guarded.domain}/x:1")
    assert "unauthorized: authentication required" in client.refused("push", f"{guarded.domain}/x:1")
    assert "unauthorized: authentication required" in client.refused("pull", f"{guarded.domain}/x:1")


def test_the_header_of_a_client_counts_and_nothing_else(engine: Engine, guarded: Place) -> None:
    """docker-py's auth_config is X-Registry-Auth; the daemon keeps no credentials of its own."""
    sdk = engine.daemon.client()
    sdk.images.get("busybox").tag(f"{guarded.domain}/sdk", tag="1")
    good = {"username": "student", "password": "s3cret"}
    assert '"Digest"' in sdk.images.push(f"{guarded.domain}/sdk", tag="1", auth_config=good)
    assert sdk.images.pull(f"{guarded.domain}/sdk", tag="1", auth_config=good).tags
    with pytest.raises(docker.errors.NotFound, match="pull access denied"):
        sdk.images.pull(f"{guarded.domain}/sdk", tag="1", auth_config={"username": "student", "password": "no"})
    with pytest.raises(docker.errors.NotFound, match="pull access denied"):  # a header of nonsense is none
        sdk.api._raise_for_status(sdk.api._post(sdk.api._url("/images/create"),
                                                params={"fromImage": f"{guarded.domain}/sdk", "tag": "1"},
                                                headers={"X-Registry-Auth": "!!!"}))  # fmt: skip
    sdk.close()
    clear(engine.daemon)


@pytest.fixture
def password_store(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a password store with a throw-away key."""
    if shutil.which("docker-credential-pass") is None or shutil.which("pass") is None:
        pytest.skip("needs docker-credential-pass and pass (Debian's golang-docker-credential-helpers, pass)")
    home = Path(tempfile.mkdtemp(prefix="md-gpg-", dir="/tmp"))  # its socket's path must be short
    environment = {"GNUPGHOME": str(home), "PASSWORD_STORE_DIR": str(tmp_path / "store"), "HOME": str(tmp_path)}

    def call(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True, timeout=120, env={**os.environ, **environment})

    home.chmod(0o700)
    call("gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--quick-generate-key", "student@test",
         "default", "default", "never")  # fmt: skip
    call("pass", "init", "student@test")
    yield environment
    subprocess.run(["gpgconf", "--kill", "all"], check=False, env={**os.environ, **environment})
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize("setting", ["credsStore", "credHelpers"])
def test_a_credential_helper_keeps_the_password(
    client: Client, guarded: Place, password_store: dict[str, str], setting: str
) -> None:
    client.environment = password_store
    client.configure({"credsStore": "pass"} if setting == "credsStore" else {"credHelpers": {guarded.domain: "pass"}})
    client.good("login", "-u", "student", "--password-stdin", guarded.domain, stdin="s3cret")
    written = (client.config / "config.json").read_text()
    assert base64.b64encode(b"student:s3cret").decode() not in written and "s3cret" not in written
    stored = list(Path(password_store["PASSWORD_STORE_DIR"]).rglob("*.gpg"))
    assert len(stored) == 1 and stored[0].name == "student.gpg"
    client.good("tag", "busybox", f"{guarded.domain}/kept:1")
    assert "digest: sha256:" in client.good("push", f"{guarded.domain}/kept:1")
    client.good("pull", f"{guarded.domain}/kept:1")
    client.good("logout", guarded.domain)
    assert not list(Path(password_store["PASSWORD_STORE_DIR"]).rglob("student.gpg"))
    assert client.refused("push", f"{guarded.domain}/kept:1") == "no basic auth credentials"


# -- tokens --


@pytest.fixture
def tokened(registry_program: None, tmp_path: Path, engine: Engine, authority: Authority) -> Iterator[Any]:
    pair, port, token_port = authority.issue("tokens", rsa=True), free_port(), free_port()
    service = TokenService(pair, token_port)  # type: ignore[arg-type]
    token = {"realm": f"https://localhost:{token_port}/token", "service": "minidocker-registry",
             "issuer": "minidocker-auth", "rootcertbundle": str(pair.certificate)}  # fmt: skip
    real_registry.start(tmp_path / "tokened", port, real_registry.Security(pair.certificate, pair.key, token=token))
    engine.trust(f"localhost:{port}", authority)
    engine.trust(f"localhost:{token_port}", authority)
    yield Place(f"localhost:{port}", tmp_path / "tokened" / "registry.log"), service
    real_registry.stop(tmp_path / "tokened")
    service.server.shutdown()
    service.server.server_close()


def test_anyone_pulls_and_only_users_push_with_a_token_service(client: Client, tokened: Any) -> None:
    place, service = tokened
    name = f"{place.domain}/open/box:1"
    client.good("tag", "busybox", name)
    refusal = client.refused("push", name)
    assert "denied" in refusal or "unauthorized" in refusal, refusal
    assert "unauthorized" in client.refused("login", "-u", "student", "--password-stdin", place.domain, stdin="no")
    client.good("login", "-u", "student", "--password-stdin", place.domain, stdin="s3cret")
    client.good("push", name)
    scopes = [scope for asked in service.asked for text in asked.get("scope", []) for scope in text.split()]
    assert "repository:open/box:pull,push" in scopes
    client.good("logout", place.domain)
    client.good("rmi", name)
    service.asked.clear()
    client.good("pull", name)  # anonymous
    assert [asked.get("scope") for asked in service.asked] == [["repository:open/box:pull"]]
    assert "account" not in service.asked[0]


# -- certificates --


def client_certificate_context(authority: Authority, pair: Pair) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate))
    context.load_cert_chain(pair.certificate, pair.key)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_a_registry_that_demands_a_certificate_gets_it_from_certs_d(
    engine: Engine, client: Client, stage: Stage, authority: Authority
) -> None:
    liar = stage.serve(Liar(small_image()), client_certificate_context(authority, authority.issue("strict")))
    name = f"localhost:{liar.port}/strict:1"
    folder = engine.trust(f"localhost:{liar.port}", authority)
    client.refused("pull", name)
    assert not liar.seen, "nobody without a certificate may be heard"
    engine.trust(f"localhost:{liar.port}", authority, authority.issue("the-daemon"))
    client.good("pull", name)
    assert liar.requests("/manifests/1")
    (folder / "client.key").unlink()
    assert "missing client.key" in client.refused("pull", name)


@pytest.fixture
def remote(registry_program: None, image_root: Path, tmp_path: Path, authority: Authority) -> Iterator[Any]:
    """A machine with a registry at an address that is not loopback: by TLS and by http."""
    machine = Machine()
    machine.run("ip", "address", "add", "10.99.0.1/32", "dev", "lo")
    pair = authority.issue("far", "IP:10.99.0.1")
    running = []
    for port, tls in ((5443, True), (5080, False)):
        http: dict[str, Any] = {"addr": f"10.99.0.1:{port}"}
        if tls:
            http["tls"] = {"certificate": str(pair.certificate), "key": str(pair.key)}
        settings = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(tmp_path / "far")}}, "http": http}
        (tmp_path / f"{port}.yml").write_text(json.dumps(settings))
        command = [*machine.prefix, "docker-registry", "serve", str(tmp_path / f"{port}.yml")]
        environment = {"PATH": os.defpath + ":/usr/sbin", "OTEL_TRACES_EXPORTER": "none"}
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment))
    wait_until(lambda: machine.run("ss", "-ltnH").count("10.99.0.1:") == 2)
    yield machine
    for process in running:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    machine.end()


@dataclass
class RemoteDaemon(Daemon):
    """A daemon on a machine of its own."""

    machine: Machine | None = None

    def command(self, *more: str) -> list[str]:
        assert self.machine is not None
        return [*self.machine.prefix, *super().command(*more)]


@contextlib.contextmanager
def on(machine: Machine, image_root: Path, *flags: str) -> Iterator[RemoteDaemon]:
    root = Path(tempfile.mkdtemp(prefix="md-far-", dir="/tmp"))
    shutil.copytree(image_root / "data", root / "data", symlinks=True)
    daemon = RemoteDaemon(root, ["--bridge", "none", *flags], machine=machine)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.end()
        wait_until(lambda: not daemon.leftovers())
        shutil.rmtree(root)


def test_a_far_registry_needs_a_known_ca_or_the_operators_word(
    remote: Machine, image_root: Path, tmp_path: Path, authority: Authority
) -> None:
    (tmp_path / "none").mkdir()
    with on(remote, image_root, "--registry-certs-dir", str(tmp_path / "none")) as daemon:
        daemon.cli("tag", "busybox", "10.99.0.1:5443/x:1")
        daemon.cli("tag", "busybox", "10.99.0.1:5080/x:1")
        untrusted = daemon.cli("push", "10.99.0.1:5443/x:1")
        assert untrusted.returncode == 1 and "its certificate is not trusted" in untrusted.stderr
        assert daemon.cli("push", "10.99.0.1:5080/x:1").returncode == 1
    folder = tmp_path / "some" / "10.99.0.1:5443"
    folder.mkdir(parents=True)
    shutil.copy(authority.certificate, folder / "ca.crt")
    flags = ["--registry-certs-dir", str(tmp_path / "some"), "--insecure-registry", "10.99.0.1:5080"]
    with on(remote, image_root, *flags) as daemon:
        for port in (5443, 5080):
            daemon.cli("tag", "busybox", f"10.99.0.1:{port}/x:1")
            done = daemon.cli("push", f"10.99.0.1:{port}/x:1")
            assert done.returncode == 0, done.stderr
    with on(remote, image_root, "--registry-certs-dir", str(tmp_path / "none"),
            "--insecure-registry", "10.99.0.0/24") as daemon:  # fmt: skip
        for port in (5443, 5080):
            done = daemon.cli("pull", f"10.99.0.1:{port}/x:1")
            assert done.returncode == 0, done.stderr


# -- the way of bytes --


def test_a_mirror_is_asked_first_and_never_told_who_asks(engine: Engine, client: Client) -> None:
    engine.mirror.image = small_image(b"from the mirror\n")
    engine.mirror.seen.clear()
    client.configure({"auths": {"https://index.docker.io/v1/": {"auth": base64.b64encode(b"me:secret").decode()}}})
    client.good("pull", "thing:1")
    assert engine.mirror.requests("/v2/library/thing/manifests/1")
    assert not [seen for seen in engine.mirror.seen if "Authorization" in seen[2]]
    assert "thing:1" in client.good("images", "--format", "{{.Repository}}:{{.Tag}}").split()


def test_a_blob_is_mounted_from_another_repository_of_the_registry(client: Client, plain: Place) -> None:
    first, second = f"{plain.domain}/first:1", f"{plain.domain}/second:1"
    for name in (first, second):
        client.good("tag", "busybox", name)
    client.good("push", first)
    assert "Mounted from first" in client.good("push", second)
    mounts = plain.lines("mount=sha256")
    assert mounts and all('"POST /v2/second/blobs/uploads/' in line and "from=first" in line for line in mounts)
    assert all('HTTP/1.1" 201' in line for line in mounts)
    assert not plain.lines('"PUT /v2/second/blobs/uploads/'), "no byte of it is sent again"


def test_a_busy_registry_is_waited_for_as_long_as_it_asks(engine: Engine, client: Client, stage: Stage) -> None:
    image = small_image()
    liar = stage.serve(Liar(image))
    busy = str(image.manifest["layers"][1]["digest"])
    refusals: list[float] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        refusals.append(stage.loop.time())
        if len(refusals) == 1:
            return web.Response(status=429, headers={"Retry-After": "2"})
        return liar.honest(request)

    liar.lies[busy] = answer
    client.good("pull", f"127.0.0.1:{liar.port}/busy:1")
    assert len(refusals) == 2 and refusals[1] - refusals[0] >= 2


def test_credentials_do_not_follow_a_redirect(engine: Engine, client: Client, stage: Stage) -> None:
    image = small_image()
    store, front = stage.serve(Liar(image)), stage.serve(Liar(image))
    good = "Basic " + base64.b64encode(b"student:s3cret").decode()

    def guard(then: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> Any:
        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            if request.headers.get("Authorization") != good:
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            return await then(request)

        return answer

    async def away(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{store.url}{request.path}"})

    async def honest(request: web.BaseRequest) -> web.StreamResponse:
        return front.honest(request)

    front.lies = {"/v2/": guard(honest), "/manifests/1": guard(honest)}
    front.lies |= {digest: guard(away) for digest in image.blobs}
    client.configure({"auths": {front.domain: {"auth": base64.b64encode(b"student:s3cret").decode()}}})
    client.good("pull", f"{front.domain}/redirected:1")
    assert front.requests("/blobs/") and store.requests("/blobs/")
    assert not [seen for seen in store.seen if "Authorization" in seen[2]]


class Gate:
    """Holds the answer to one blob until the test opens it."""

    def __init__(self, stage: Stage, liar: Liar, digest: str) -> None:
        self.liar, self.loop = liar, stage.loop
        self.asked, self.gone = threading.Event(), threading.Event()
        self._open = asyncio.Event()
        liar.lies[digest] = self._answer

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        content = self.liar.image.blobs[request.path.rpartition("/")[2]]  # type: ignore[union-attr]
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        self.asked.set()
        try:
            await self._open.wait()
            await response.write(content[len(content) // 2 :])
        except (asyncio.CancelledError, ConnectionError):
            self.gone.set()
            raise
        return response

    def open(self) -> None:
        self.loop.call_soon_threadsafe(self._open.set)


def test_a_client_that_hangs_up_leaves_nothing(engine: Engine, stage: Stage) -> None:
    before = blobs(engine.daemon)
    layers = set(os.listdir(engine.daemon.data_root / "layers"))
    liar = stage.serve(Liar(small_image(b"never\n")))
    gate = Gate(stage, liar, str(liar.image.manifest["layers"][0]["digest"]))  # type: ignore[union-attr]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(engine.daemon.socket))
        sock.sendall(f"POST /images/create?fromImage={liar.domain}/cut&tag=1 HTTP/1.1\r\nHost: d\r\n"
                     "Content-Length: 0\r\n\r\n".encode())  # fmt: skip
        assert gate.asked.wait(20)
        wait_until(lambda: blobs(engine.daemon) != before)  # half of it is on disk
    wait_until(lambda: blobs(engine.daemon) == before)
    assert set(os.listdir(engine.daemon.data_root / "layers")) == layers
    assert engine.daemon.cli("images", "-q", f"{liar.domain}/cut").stdout == ""
    gate.open()
    liar.lies.clear()
    assert engine.daemon.cli("pull", f"{liar.domain}/cut:1").returncode == 0  # and it can be had after all
    clear(engine.daemon)


def test_ten_pulls_of_one_image_fetch_each_blob_once(engine: Engine, stage: Stage) -> None:
    image = small_image(b"for all\n")
    liar = stage.serve(Liar(image))
    gate = Gate(stage, liar, str(image.manifest["layers"][0]["digest"]))
    name = f"{liar.domain}/shared:1"
    with ThreadPoolExecutor(10) as pool:
        pulls = [pool.submit(engine.daemon.cli, "pull", name) for _ in range(10)]
        assert gate.asked.wait(20)
        wait_until(lambda: len(liar.requests("/manifests/1")) == 10)  # all ten are under way
        gate.open()
        for pull in pulls:
            assert pull.result().returncode == 0, pull.result().stderr
    for layer in image.manifest["layers"]:
        assert len(liar.requests(f"/blobs/{layer['digest']}")) == 1
    copied = engine.daemon.cli("create", name).stdout.strip()
    assert engine.daemon.cli("cp", f"{copied}:/said", "-").stdout.count("for all") == 1
    clear(engine.daemon)


def test_one_of_two_pulls_hangs_up_and_the_other_gets_its_image(engine: Engine, stage: Stage) -> None:
    image = small_image(b"for one\n")
    liar = stage.serve(Liar(image))
    gate = Gate(stage, liar, str(image.manifest["layers"][0]["digest"]))
    with socket.socket(socket.AF_UNIX) as sock, ThreadPoolExecutor(1) as pool:
        sock.connect(str(engine.daemon.socket))
        sock.sendall(f"POST /images/create?fromImage={liar.domain}/pair&tag=1 HTTP/1.1\r\nHost: d\r\n"
                     "Content-Length: 0\r\n\r\n".encode())  # fmt: skip
        assert gate.asked.wait(20)
        other = pool.submit(engine.daemon.cli, "pull", f"{liar.domain}/pair:1")
        wait_until(lambda: len(liar.requests("/manifests/1")) == 2)
        sock.close()
        gate.open()
        assert other.result().returncode == 0, other.result().stderr
    assert len(liar.requests(f"/blobs/{image.manifest['layers'][0]['digest']}")) == 1
    clear(engine.daemon)
