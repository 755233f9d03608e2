"""Build contexts through the socket: here-documents, URLs, repositories, and what tries to get out."""

import gzip
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from minidocker.build import repository
from minidocker.errors import Unavailable

sys.path.insert(0, str(Path(__file__).parent))  # building.py
from building import FROM, archive, build, clean_images, failure, link, post, run, said

pytestmark = pytest.mark.needs_root
Daemon = Any  # conftest.Daemon


@pytest.fixture(autouse=True)
def only_the_base_image(daemon: Daemon) -> Iterator[None]:
    """Each test begins with the base image alone."""
    yield
    clean_images(daemon)


# -- here-documents, modes, URLs --


def test_here_documents_run_and_are_copied(daemon: Daemon) -> None:
    dockerfile = FROM + """ENV WHO=world
RUN <<EOF
echo hello $WHO > /one
false || echo second >> /one
EOF
RUN <<SCRIPT
#!/bin/busybox sh
echo "script $0" > /two
SCRIPT
RUN (cat; cat /dev/fd/3) <<A 3<<B > /three
from a
A
from b
B
COPY <<"plain" <<-expanded /etc/docs/
$WHO
plain
\t$WHO
expanded
"""
    build(daemon, dockerfile, t="here")
    text = run(daemon, "here", "sh", "-c", "cat /one /two /three /etc/docs/plain /etc/docs/expanded")
    assert text == "hello world\nsecond\nscript /dev/pipes/script\nfrom a\nfrom b\n$WHO\nworld\n"
    assert run(daemon, "here", "stat", "-c", "%a", "/etc/docs/plain") == "644\n"


def test_chmod_sets_the_mode_of_all_that_is_copied(daemon: Daemon) -> None:
    build(daemon, FROM + "COPY --chmod=750 --chown=student:wheel a d/ /x/\n", {"a": "1", "d/b": "2"}, t="modes")
    text = run(daemon, "modes", "stat", "-c", "%a %U:%G", "/x/a", "/x/b")
    assert text == "750 student:wheel\n" * 2
    assert "invalid chmod parameter" in failure(daemon, FROM + "COPY --chmod=9 a /x\n", {"a": "1"})["error"]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on loopback: its URL, and the directory that it serves."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    directory = tmp_path / "web"
    directory.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Quiet(*a, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", directory
    server.shutdown()
    thread.join()
    server.server_close()


def test_add_fetches_a_url_checks_it_and_leaves_it_packed(daemon: Daemon, web: tuple[str, Path]) -> None:
    url, directory = web
    packed = archive({"f": "x"}, "w:gz")
    (directory / "a.tgz").write_bytes(packed)
    os.utime(directory / "a.tgz", (1_500_000_000, 1_500_000_000))
    digest = hashlib.sha256(packed).hexdigest()
    dockerfile = FROM + f"ADD --checksum=sha256:{digest} {url}/a.tgz /x/\n"
    build(daemon, dockerfile, t="added")
    assert run(daemon, "added", "stat", "-c", "%a %s %Y", "/x/a.tgz") == f"600 {len(packed)} 1500000000\n"
    assert "Using cache" in said(build(daemon, dockerfile))
    wrong = failure(daemon, FROM + f"ADD --checksum=sha256:{'0' * 64} {url}/a.tgz /x/\n")
    assert "digest mismatch" in wrong["error"]
    assert "404" in failure(daemon, FROM + f"ADD {url}/nope /x\n")["error"]
    assert "only http and https" in failure(daemon, FROM + "ADD file:///etc/passwd /x\n")["error"]


# -- contexts --


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_compressed_contexts(daemon: Daemon, kind: str) -> None:
    status, lines = post(daemon, archive({"Dockerfile": FROM + "COPY a /a\n", "a": "1"}, f"w:{kind}"))
    assert status == 200 and "Successfully built" in said(lines)


def test_docker_py_builds_from_a_path_a_file_and_a_compressed_archive(
    client: docker.DockerClient, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(FROM + "COPY a /a\nARG X\nRUN echo $X > /x\n")
    (tmp_path / "a").write_text("1")
    image, lines = client.images.build(path=str(tmp_path), tag="py:1", rm=True, buildargs={"X": "y"},
                                       labels={"l": "m"}, extra_hosts={"h": "10.0.0.1"}, shmsize=1 << 20)  # fmt: skip
    assert image.tags == ["py:1"] and image.labels["l"] == "m"
    assert any("Successfully built" in line.get("stream", "") for line in lines)
    image, _ = client.images.build(fileobj=io.BytesIO(FROM.encode() + b"ENV A=2\n"), rm=True)
    assert "A=2" in image.attrs["Config"]["Env"]
    packed = io.BytesIO(gzip.compress(archive({"other/Dockerfile": FROM + "ENV A=3\n"})))
    image, _ = client.images.build(fileobj=packed, custom_context=True, encoding="gzip", dockerfile="other/Dockerfile",
                                   rm=True)  # fmt: skip
    assert "A=3" in image.attrs["Config"]["Env"]
    with pytest.raises(docker.errors.BuildError, match="returned a non-zero code: 3"):
        client.images.build(fileobj=io.BytesIO(FROM.encode() + b"RUN exit 3\n"), rm=True)


def test_a_remote_archive_and_a_remote_dockerfile(daemon: Daemon, web: tuple[str, Path]) -> None:
    url, directory = web
    (directory / "c.tar.gz").write_bytes(archive({"Dockerfile": FROM + "COPY a /a\n", "a": "1"}, "w:gz"))
    (directory / "plain").write_text(FROM + "ENV A=remote\n")
    assert "Successfully built" in said(post(daemon, b"", remote=f"{url}/c.tar.gz")[1])
    assert "A=remote" in said(post(daemon, b"", remote=f"{url}/plain")[1])
    assert "A=remote" in said(post(daemon, b"", remote=f"{url}/plain", dockerfile="called/otherwise")[1])
    assert post(daemon, b"", remote="ftp://127.0.0.1/x")[0] == 400


def test_a_git_repository_is_built_without_its_hooks(daemon: Daemon, tmp_path: Path) -> None:
    repository = tmp_path / "repo.git"
    (repository / "sub").mkdir(parents=True)
    (repository / "sub/Dockerfile").write_text(FROM + "COPY . /all\n")
    (repository / "Dockerfile").write_text(FROM + "COPY . /all\n")
    (repository / "outside").symlink_to("/etc")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    for words in ("init -q -b main", "add .", "-c user.name=a -c user.email=b commit -q -m x", "branch side"):
        subprocess.run(["git", *words.split()], cwd=repository, check=True, env=environment)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
        (hooks / name).chmod(0o755)
    subprocess.run(["git", "config", "core.hooksPath", str(hooks)], cwd=repository, check=True, env=environment)
    assert "Successfully tagged" in said(post(daemon, b"", remote=f"file://{repository}", t="git:1")[1])
    assert run(daemon, "git:1", "ls", "-A", "/all").split() == ["Dockerfile", "outside", "sub"]
    lines = post(daemon, b"", remote=f"file://{repository}#side:sub", t="git:2")[1]
    assert "Successfully tagged" in said(lines)
    assert run(daemon, "git:2", "ls", "-A", "/all").split() == ["Dockerfile"]
    assert "not a directory" in post(daemon, b"", remote=f"file://{repository}#main:outside")[1][-1]["message"]
    assert "git fetch failed" in post(daemon, b"", remote=f"file://{repository}#nope")[1][-1]["message"]
    assert not (tmp_path / "hooked").exists()


def _commit(repository: Path, files: dict[str, str], *, submodule: str = "") -> None:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "protocol.file.allow=always", "-c", "user.name=a", "-c", "user.email=b", *words],
                       cwd=repository, check=True, env=environment, capture_output=True)  # fmt: skip

    repository.mkdir(exist_ok=True)
    for name, text in files.items():
        (repository / name).write_text(text)
    git("init", "-q", "-b", "main")
    if submodule:
        git("submodule", "add", "-q", submodule, "module")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    git("update-server-info")


def test_a_repository_comes_from_a_plain_web_server_with_its_submodules(
    daemon: Daemon, web: tuple[str, Path]
) -> None:
    url, directory = web
    _commit(directory / "below.git", {"inner": "below"})
    _commit(directory / "top", {"Dockerfile": FROM + "COPY . /all\n"}, submodule=f"{directory}/below.git")
    modules = directory / "top/.gitmodules"
    modules.write_text(modules.read_text().replace(str(directory), url).replace("below.git", "below.git/.git"))
    _commit(directory / "top", {})
    lines = post(daemon, b"", remote=f"{url}/top/.git", t="web:1")[1]
    assert "Successfully tagged" in said(lines), lines
    listed = run(daemon, "web:1", "find", "/all", "-type", "f").split()
    assert sorted(listed) == ["/all/.gitmodules", "/all/Dockerfile", "/all/module/inner"]


def test_a_repository_cannot_bring_in_one_of_the_daemons_machine(daemon: Daemon, tmp_path: Path) -> None:
    _commit(tmp_path / "secret.git", {"key": "k"})
    _commit(tmp_path / "top.git", {"Dockerfile": FROM + "COPY . /all\n"}, submodule=f"{tmp_path}/secret.git")
    status, lines = post(daemon, b"", remote=f"file://{tmp_path}/top.git")
    assert status == 503 and "transport 'file' not allowed" in lines[0]["message"]


def test_without_git_a_repository_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_ENVIRONMENT", {"PATH": str(tmp_path)})
    with pytest.raises(Unavailable, match="git is not installed on the daemon's machine"):
        repository.fetch("git://127.0.0.1/x", tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- hostile contexts --


@pytest.mark.parametrize(
    "entry",
    [
        {"../evil": "x"},
        {"d": link("d", "../.."), "d/evil": "x"},
        {"l": link("l", "../../etc/passwd", tarfile.LNKTYPE)},
        {"f": "x", "f/evil": "y"},
    ],
    ids=["name", "through a link", "hard link", "through a file"],
)
def test_a_context_that_climbs_out_is_refused(daemon: Daemon, entry: dict[str, Any]) -> None:
    status, lines = post(daemon, archive({"Dockerfile": FROM, **entry}))
    assert status == 400 and "entry" in lines[0]["message"]
    assert not (daemon.data_root / "evil").exists() and not (daemon.data_root.parent / "evil").exists()


def test_links_in_a_context_lead_to_files_of_the_context_alone(daemon: Daemon) -> None:
    files = {"etc/hostname": "mine", "l": link("l", "/etc/hostname"), "r": link("r", "../../../etc/hostname"),
             "p": link("p", "/etc/shadow"), "D": link("D", "/Dockerfile.real"),
             "Dockerfile.real": FROM + "COPY l r /x/\n"}
    status, lines = post(daemon, archive(files), dockerfile="D", t="links")
    assert status == 200, lines
    assert run(daemon, "links", "cat", "/x/l", "/x/r") == "minemine"
    assert "file not found in build context" in failure(daemon, FROM + "COPY p /p\n", files)["error"]
    status, lines = post(daemon, archive({"Dockerfile": link("Dockerfile", "/etc/passwd")}))
    assert status == 400 and "Cannot locate specified Dockerfile" in lines[0]["message"]


def test_links_in_the_image_lead_to_files_of_the_image_alone(daemon: Daemon, tmp_path: Path) -> None:
    target = tmp_path / "host"
    target.mkdir()
    links = f"RUN ln -s {target} /abs && ln -s ../../../../../..{target} /rel\n"
    dockerfile = FROM + links + "COPY a /abs/x\nCOPY a /rel/y\nADD t.tar /abs/\nWORKDIR /rel/w\n"
    build(daemon, dockerfile, {"a": "1", "t.tar": archive({"in": "2"})}, t="escape")
    assert list(target.iterdir()) == []
    assert run(daemon, "escape", "ls", str(target)).split() == ["in", "w", "x", "y"]


def test_an_added_archive_cannot_leave_its_root(daemon: Daemon) -> None:
    evil = archive({"../../../evil": "x"})
    last = failure(daemon, FROM + "ADD t.tar /d/\n", {"t.tar": evil})
    assert "evil" in last["error"]
    assert not Path("/evil").exists()


def test_copy_from_an_image_does_not_follow_its_links_out(daemon: Daemon) -> None:
    links = "RUN ln -s /etc/shadow /s; ln -s ../../../../etc/group /g; ln -s /proc/1/root /p\n"
    dockerfile = f"FROM busybox AS a\n{links}FROM busybox\nCOPY --from=a {{}} /x\n"
    build(daemon, dockerfile.format("/g"), t="copied")
    assert "wheel" in run(daemon, "copied", "cat", "/x")
    for path in ("/s", "/p/etc/passwd", "/../../etc/shadow"):
        assert "file does not exist" in failure(daemon, dockerfile.format(path))["error"]


def test_a_hostile_ignore_file_does_not_hang(daemon: Daemon) -> None:
    pattern = "**/" * 50 + "*a" * 200 + "\n"
    name = "/".join(["a" * 50] * 20)
    files = {"Dockerfile": FROM, name: FROM + "COPY . /x\n", ".dockerignore": pattern * 20}
    status, lines = post(daemon, archive(files), dockerfile=name)
    assert status == 200, lines
    status, lines = post(daemon, archive({"Dockerfile": FROM, ".dockerignore": "[\n"}))
    assert status == 400 and "syntax error in pattern" in lines[0]["message"]
