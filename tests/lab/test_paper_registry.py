"""The registry on paper is as strict as real ones: it makes the checks of exercise 08 mean something."""

import json

from minidocker.lab.props.paper_registry import PaperRegistry, digest_of

HOST = "https://registry.test/v2/app"


def test_an_upload_goes_on_only_at_the_newest_address_and_where_it_ended() -> None:
    paper = PaperRegistry()
    _, headers, _ = paper.send("POST", f"{HOST}/blobs/uploads/")
    first = "https://registry.test" + headers["location"]
    status, headers, _ = paper.send("PATCH", first, {"Content-Range": "0-2"}, b"abc")
    second = "https://registry.test" + headers["location"]
    assert status == 202 and second != first
    assert paper.send("PATCH", first, {"Content-Range": "3-5"}, b"def")[0] == 404
    assert paper.send("PATCH", second, {"Content-Range": "0-2"}, b"def")[0] == 416
    assert paper.send("PUT", f"{second}&digest={digest_of(b'abd')}")[0] == 400
    assert paper.blobs == {}


def test_a_manifest_needs_its_blobs() -> None:
    paper = PaperRegistry()
    body = json.dumps({"config": {"digest": digest_of(b"x")}, "layers": []}).encode()
    assert paper.send("PUT", f"{HOST}/manifests/1", {"Content-Type": "t"}, body)[0] == 400
    paper.put(b"x")
    assert paper.send("PUT", f"{HOST}/manifests/1", {"Content-Type": "t"}, body)[0] == 201
    assert paper.send("GET", f"{HOST}/manifests/1", {"Accept": "other"})[0] == 404
    assert paper.send("GET", f"{HOST}/manifests/1", {"Accept": "s, t"})[2] == body


def test_a_token_is_for_one_repository_and_runs_out() -> None:
    paper = PaperRegistry(users={"a": "b"}, token_uses=1)
    digest = paper.put(b"x")
    status, headers, _ = paper.send("GET", f"{HOST}/blobs/{digest}")
    assert status == 401 and 'scope="repository:app:pull"' in headers["www-authenticate"]
    service = "https://auth.test/token?service=registry.test&scope=repository:app:pull"
    assert paper.send("GET", service)[0] == 401
    status, _, body = paper.send("GET", service, {"Authorization": "Basic YTpi"})
    bearer = {"Authorization": f"Bearer {json.loads(body)['token']}"}
    assert status == 200
    assert paper.send("GET", f"https://registry.test/v2/other/blobs/{digest}", bearer)[0] == 401
    assert paper.send("GET", f"{HOST}/blobs/{digest}", bearer)[0] == 200
    assert paper.send("GET", f"{HOST}/blobs/{digest}", bearer)[0] == 401


def test_the_store_of_files_wants_no_token() -> None:
    paper = PaperRegistry(redirects=True)
    digest = paper.put(b"x")
    status, headers, _ = paper.send("GET", f"{HOST}/blobs/{digest}")
    assert status == 307
    assert paper.send("GET", headers["location"], {"Authorization": "Bearer x"})[0] == 400
    assert paper.send("GET", headers["location"])[2] == b"x"
