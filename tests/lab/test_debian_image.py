"""The base image `debian`: what it is made of, and that it is made once."""

import platform
import shutil
import socket
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker.errors import Unavailable
from minidocker.lab.setup import debian_image, registry
from minidocker.oci.digest import Digest

RECIPE = debian_image.Recipe("bookworm", ("deb http://127.0.0.1/debian bookworm main",))


@pytest.mark.skipif(platform.freedesktop_os_release().get("ID") != "debian", reason="needs Debian's apt")
def test_the_recipe_takes_debians_own_archives_and_no_others() -> None:
    recipe = debian_image.find_recipe()
    assert any(line.split()[2] == recipe.suite for line in recipe.sources)
    fields = "$(ORIGIN) deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    listed = subprocess.run(["apt-get", "indextargets", "--format", fields],
                            capture_output=True, text=True, check=True).stdout.splitlines()  # fmt: skip
    assert {line.partition(" ")[0] for line in listed if line.partition(" ")[2] in recipe.sources} == {"Debian"}


def test_another_package_or_archive_is_another_recipe() -> None:
    others = [
        debian_image.Recipe("bookworm", RECIPE.sources, ("gcc",)),
        debian_image.Recipe("bookworm", ("deb http://127.0.0.1/other bookworm main",)),
        debian_image.Recipe("trixie", RECIPE.sources),
    ]
    assert len({recipe.digest for recipe in (RECIPE, *others)}) == 4


def test_a_packed_layer_is_known_by_both_of_its_digests(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    (tmp_path / "plain").write_bytes(content)
    diff_id, digest, size = debian_image.compress(tmp_path / "plain", tmp_path / "packed")
    packed = (tmp_path / "packed").read_bytes()
    assert zlib.decompress(packed, 31) == content
    assert (diff_id, digest, size) == (Digest.of(content), Digest.of(packed), len(packed))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry: ./lab setup installs it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    registry.start(tmp_path / "registry", port)
    yield f"127.0.0.1:{port}"
    registry.stop(tmp_path / "registry")


def test_it_is_made_once_and_an_interrupted_make_goes_on(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/f").write_text("x")

    def command(_recipe: debian_image.Recipe, archives: Path, output: Path) -> list[str]:
        assert (archives / "partial").is_dir()
        made.append(output)
        return ["tar", "-cf", str(output), "-C", str(tmp_path / "tree"), "."]

    def cut_off(*_: Path) -> tuple[Digest, Digest, int]:
        raise Unavailable("interrupted")

    monkeypatch.setattr(debian_image, "PROGRAM", "tar")
    monkeypatch.setattr(debian_image, "find_recipe", lambda: RECIPE)
    monkeypatch.setattr(debian_image, "command", command)
    root, said = tmp_path / "work", list[str]()
    with monkeypatch.context() as broken:
        broken.setattr(debian_image, "compress", cut_off)
        with pytest.raises(Unavailable):
            debian_image.ensure(address, root, said.append)
    assert debian_image.ensure(address, root, said.append)
    assert len(made) == 1 and len(said) == 2
    assert not root.exists()
    assert not debian_image.ensure(address, root, said.append)
    assert len(made) == 1 and not root.exists()
    monkeypatch.setattr(debian_image, "find_recipe", lambda: debian_image.Recipe("trixie", RECIPE.sources))
    assert debian_image.ensure(address, root, said.append)
