"""Authorization plugins: what they are shown, what they can refuse, and that all else works with them."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest
import requests

from ..docker_oracle import recent_client
from .authorities import Authority
from .conftest import REPOSITORY, Daemon, make_daemon
from .plugin_cell import AuthorizationPlugin, Body, VolumePlugin


class Guard:
    """The plugin, with a rule that each test sets."""

    def __init__(self, socket: Path) -> None:
        self.refused: dict[str, str] = {}  # "METHOD part-of-the-uri" -> why
        self.answers: dict[str, str] = {}  # the same, of answers
        self.plugin = AuthorizationPlugin(socket, self.rule)

    def rule(self, method: str, body: Body) -> str | None:
        rules = self.refused if method == "AuthZReq" else self.answers
        for pattern, why in rules.items():
            verb, _, part = pattern.partition(" ")
            if verb == body["RequestMethod"] and part in body["RequestUri"]:
                return why
        return None

    def requests(self, part: str, kind: str = "AuthZReq") -> list[Body]:
        return [body for body in self.plugin.asked(f"AuthZPlugin.{kind}") if part in body["RequestUri"]]


@pytest.fixture(scope="module")
def guarded(image_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Guard]]:
    sockets = tmp_path_factory.mktemp("authorization")
    guard = Guard(sockets / "guard.sock")
    flags = ["--bridge", "none", "--plugin-socket-dir", str(sockets), "--plugin-timeout", "2"]
    for daemon in make_daemon(image_root, [*flags, "--authorization-plugin", "guard"]):
        yield daemon, guard
    guard.plugin.close()


@pytest.fixture
def guard(guarded: tuple[Daemon, Guard]) -> Iterator[Guard]:
    _, guard = guarded
    guard.plugin.calls.clear()
    yield guard
    guard.refused, guard.answers = {}, {}
    guard.plugin.hang.clear()
    guard.plugin.raw.clear()


@pytest.fixture
def daemon(guarded: tuple[Daemon, Guard], guard: Guard) -> Iterator[Daemon]:
    yield guarded[0]
    guard.refused, guard.answers = {}, {}
    guard.plugin.raw.clear()
    guarded[0].remove_all()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    with closing(daemon.client()) as made:
        yield made


def body_of(shown: Body, name: str = "RequestBody") -> object:
    return json.loads(base64.b64decode(shown[name]))


def test_it_is_shown_each_call_and_its_answer(client: docker.DockerClient, guard: Guard) -> None:
    client.volumes.create("data", labels={"colour": "blue"})
    (shown,) = guard.requests("/volumes/create")
    assert (shown["User"], shown["UserAuthNMethod"], shown["RequestMethod"]) == ("", "", "POST")
    assert shown["RequestUri"] == "/v1.44/volumes/create"
    assert shown["RequestHeaders"]["Content-Type"] == "application/json"
    sent = body_of(shown)
    assert isinstance(sent, dict) and (sent["Name"], sent["Labels"]) == ("data", {"colour": "blue"})
    (answer,) = guard.requests("/volumes/create", "AuthZRes")
    assert answer["ResponseStatusCode"] == 201
    received = body_of(answer, "ResponseBody")
    assert isinstance(received, dict) and received["Name"] == "data"
    client.images.list(filters={"dangling": True})
    assert guard.requests("/images/json?")[0]["RequestUri"].startswith("/v1.44/images/json?")


def test_what_it_denies_is_not_done(daemon: Daemon, client: docker.DockerClient, guard: Guard) -> None:
    guard.refused = {"POST /containers/create": "no containers on Mondays"}
    told = daemon.cli("run", "--rm", "busybox", "true")
    assert told.returncode == 125
    assert "authorization denied by plugin guard: no containers on Mondays" in told.stderr
    with pytest.raises(docker.errors.APIError) as error:
        client.containers.create("busybox", "true")
    assert error.value.status_code == 403
    assert client.containers.list(all=True) == []
    assert client.images.list()


def test_an_answer_that_it_denies_is_not_sent(client: docker.DockerClient, guard: Guard) -> None:
    guard.answers = {"GET /info": "too much is told"}
    with pytest.raises(docker.errors.APIError, match="authorization denied by plugin guard: too much is told") as told:
        client.info()
    assert told.value.status_code == 403


def test_no_credential_is_shown(client: docker.DockerClient, guard: Guard) -> None:
    url = client.api._url("/images/create") + "?fromImage=127.0.0.1:1/none&tag=x"
    client.api._post(url, headers={"X-Registry-Auth": "c2VjcmV0"})
    shown = guard.requests("/images/create")[0]
    assert "X-Registry-Auth" not in shown["RequestHeaders"] and "c2VjcmV0" not in json.dumps(shown)
    document = {"username": "me", "password": "secret", "serveraddress": "127.0.0.1:1"}
    client.api._post_json(client.api._url("/auth"), data=document)
    assert "RequestBody" not in guard.requests("/auth")[0]


@pytest.mark.parametrize("text", ["{", "null", '{"Allow": "yes"}', '{"Allow": true, "Err": "out of order"}', "{}"])
def test_a_plugin_that_fails_has_denied(client: docker.DockerClient, guard: Guard, text: str) -> None:
    guard.plugin.raw["AuthZPlugin.AuthZReq"] = text
    answer: requests.Response = client.api._get(client.api._url("/info"))
    assert (answer.status_code, "guard" in answer.json()["message"]) == (403, True)


def test_one_that_hangs_has_denied_and_others_go_on(daemon: Daemon, guarded: tuple[Daemon, Guard]) -> None:
    guard = guarded[1]
    with closing(daemon.client("1.44")) as client:
        guard.plugin.hang.add("AuthZPlugin.AuthZReq")
        with pytest.raises(docker.errors.APIError, match=r"plugin guard failed with error: .* within 2 s"):
            client.containers.list()
        guard.plugin.hang.clear()
        assert client.containers.list() == []


def test_a_body_too_large_to_be_shown_is_refused(client: docker.DockerClient, guard: Guard) -> None:
    document = {"Name": "data", "Labels": {"big": "x" * (1 << 20)}}
    answer = client.api._post_json(client.api._url("/volumes/create"), data=document)
    assert (answer.status_code, "is larger than" in answer.json()["message"]) == (403, True)

    def pieces() -> Iterator[bytes]:
        yield json.dumps(document).encode()

    headers = {"Content-Type": "application/json"}
    answer = client.api._post(client.api._url("/volumes/create"), data=pieces(), headers=headers)
    assert answer.status_code == 403
    assert client.volumes.list() == []


def test_streams_and_hijacked_connections_work_with_it(daemon: Daemon, guard: Guard, tmp_path: Path) -> None:
    told = daemon.cli("run", "-i", "--rm", "busybox", "cat", stdin=b"through the plugin\n")
    assert told.stdout == "through the plugin\n"
    assert daemon.cli("run", "-d", "--name", "long", "busybox", "sleep", "1000").returncode == 0
    assert daemon.cli("exec", "-i", "long", "cat", stdin=b"exec\n").stdout == "exec\n"
    (tmp_path / "file").write_text("copied\n")
    assert daemon.cli("cp", str(tmp_path / "file"), "long:/tmp/").returncode == 0
    assert daemon.cli("exec", "long", "cat", "/tmp/file").stdout == "copied\n"
    (tmp_path / "Dockerfile").write_text("FROM busybox\nLABEL a=b\n")
    with closing(daemon.client()) as client:
        image, _ = client.images.build(path=str(tmp_path), tag="built")
        assert image.labels["a"] == "b"
        client.images.remove("built")
    assert guard.requests("/attach", "AuthZRes") and guard.requests("/build", "AuthZRes")
    guard.refused = {"POST /exec": "no shells"}
    assert "authorization denied by plugin guard: no shells" in daemon.cli("exec", "long", "true").stderr


def test_the_daemon_does_not_start_without_its_plugin(tmp_path: Path) -> None:
    other = VolumePlugin(tmp_path, tmp_path / "run/other.sock")
    for name, words in (("nobody", 'plugin "nobody" not found'), ("other", "does not implement")):
        flags = ["--bridge", "none", "--plugin-socket-dir", str(tmp_path / "run"), "--authorization-plugin", name]
        daemon = Daemon(tmp_path, flags)
        done = subprocess.run(daemon.command(), capture_output=True, text=True, cwd=REPOSITORY, timeout=60, check=False)
        assert (done.returncode, words in done.stderr, "authorization plugin" in done.stderr) == (1, True, True)
    other.close()


def test_info_names_it(daemon: Daemon, client: docker.DockerClient) -> None:
    assert client.info()["Plugins"]["Authorization"] == ["guard"]
    assert "Authorization: guard" in daemon.cli("info").stdout
    command = [sys.executable, "-m", "minidocker.cli", "-H", daemon.url, "info"]
    assert "Authorization: guard" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@recent_client
def test_a_clients_certificate_names_the_user(image_root: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca", "authority")
    server, user = authority.issue("server"), authority.issue("alice")
    guard = Guard(tmp_path / "run/guard.sock") if (tmp_path / "run").mkdir() is None else None
    assert guard is not None
    files = ["--tlscacert", str(authority.certificate), "--tlscert", str(server.certificate), "--tlskey"]
    flags = ["--tlsverify", *files, str(server.key), "--plugin-socket-dir", str(tmp_path / "run"), "-H"]
    port = 23797
    flags += [f"tcp://127.0.0.1:{port}", "--bridge", "none", "--authorization-plugin", "guard"]
    for _ in make_daemon(image_root, flags):
        words = ["docker", "--tlsverify", "--tlscacert", str(authority.certificate), "--tlscert", str(user.certificate)]
        words += ["--tlskey", str(user.key), "-H", f"tcp://127.0.0.1:{port}", "volume", "ls"]
        subprocess.run(words, check=True, capture_output=True, timeout=60)
        shown = guard.requests("/v1.44/volumes")[0]
        assert (shown["User"], shown["UserAuthNMethod"]) == ("alice", "TLS")
        pem = base64.b64decode(shown["RequestPeerCertificates"][0]).decode()
        assert pem.startswith("-----BEGIN CERTIFICATE-----")
    guard.plugin.close()
