"""Credentials as clients write them."""

import base64
import json
from pathlib import Path

import pytest

from minidocker.errors import InvalidArgument, Unavailable
from minidocker.registry.credentials import (
    HUB_KEY,
    AuthConfig,
    ConfigFile,
    all_from_header,
    ask_helper,
    from_header,
    server_key,
    to_header,
)


def encoded(document: object, *, url: bool = True, padded: bool = True) -> str:
    content = json.dumps(document).encode()
    text = (base64.urlsafe_b64encode if url else base64.b64encode)(content).decode()
    return text if padded else text.rstrip("=")


@pytest.mark.parametrize("url", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_the_header_is_read_in_all_forms_of_base64(url: bool, padded: bool) -> None:
    found = from_header(encoded({"username": "ü~~~?>", "password": "p", "email": "x"}, url=url, padded=padded))
    assert found.basic == ("ü~~~?>", "p")


@pytest.mark.parametrize("text", [None, "", "e30=", "e30", "bnVsbA=="])
def test_no_credentials_are_anonymous(text: str | None) -> None:
    assert from_header(text).basic is None


@pytest.mark.parametrize(
    "text", ["!!!", encoded([1]), encoded({"username": 5}), base64.b64encode(b"[" * 9999).decode()]
)
def test_a_header_that_is_none_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(InvalidArgument) as failure:
        from_header(text)
    assert text not in str(failure.value)


def test_a_secret_is_not_in_the_text_of_its_holder() -> None:
    assert "s3cret" not in repr(AuthConfig(username="u", password="s3cret", identitytoken="s3cret", auth="s3cret"))


def test_a_header_that_we_write_is_read_back() -> None:
    auth = AuthConfig(username="u", password="p:p", serveraddress="localhost:5000")
    assert from_header(to_header(auth)) == auth


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        (HUB_KEY, "docker.io"),
        ("https://r.example:5000/v1/", "r.example:5000"),
        ("r.example", "r.example"),
        ("docker.io", "docker.io"),
    ],
)
def test_an_address_means_its_registry(address: str, domain: str) -> None:
    assert server_key(address) == domain


def test_the_config_file_of_docker_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert ConfigFile.read(path).find("docker.io").basic is None
    auth = base64.b64encode(b"alice:se:cret").decode()
    path.write_text(json.dumps({"auths": {HUB_KEY: {"auth": auth}, "localhost:5000": {"auth": auth}}, "psFormat": "x"}))
    assert ConfigFile.read(path).find("docker.io").basic == ("alice", "se:cret")
    assert ConfigFile.read(path).find("localhost:5000").basic == ("alice", "se:cret")
    assert ConfigFile.read(path).find("localhost:5001").basic is None
    path.write_text("{")
    with pytest.raises(InvalidArgument, match="configuration file"):
        ConfigFile.read(path)


def test_a_helper_is_asked_for_its_registry_and_may_give_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        '#!/bin/sh\nread server\ncase "$1 $server" in\n'
        '"get known.example") echo \'{"ServerURL":"known.example","Username":"bob","Secret":"s"}\' ;;\n'
        '"get token.example") echo \'{"Username":"<token>","Secret":"refresh"}\' ;;\n'
        '"get none.example") echo "credentials not found in native keychain"; exit 1 ;;\n'
        "*) echo broken; exit 2 ;; esac\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    config = ConfigFile(creds_store="test")
    assert config.find("known.example").basic == ("bob", "s")
    assert config.find("token.example").identitytoken == "refresh"
    assert config.find("none.example").basic is None
    with pytest.raises(Unavailable, match="docker-credential-test failed: broken"):
        config.find("other.example")
    with pytest.raises(Unavailable, match="not installed"):
        ask_helper("nosuch", "x")
    with pytest.raises(InvalidArgument):
        ask_helper("../evil", "x")


def test_credentials_of_a_build_are_keyed_by_registry() -> None:
    found = all_from_header(encoded({HUB_KEY: {"username": "a", "password": "b"}}))
    assert found["docker.io"].basic == ("a", "b")
    assert all_from_header(None) == {}
