"""save and load: against skopeo, podman and umoci, and against hostile outer archives."""

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard
from builders import digest, directory, docker_archive, hardlink, image_config, make_tar, member, symlink

from minidocker.errors import Breakout, InvalidArgument, MinidockerError, Unsupported, VerificationError
from minidocker.oci.digest import Digest
from minidocker.oci.reference import Reference
from minidocker.storage import archive
from minidocker.storage.archive import Stores
from minidocker.storage.blobs import BlobStore
from minidocker.storage.images import ImageStore
from minidocker.storage.layers import LayerStore
from minidocker.storage.worker import Worker

BASE = make_tar(directory("bin"), member("bin/sh", b"#!", mode=0o755), member("etc/gone", b"x"))
TOP = make_tar(member("etc/.wh.gone"), member("top", b"top"))


def load(stores: Stores, content: bytes) -> list[archive.Loaded]:
    return archive.load(io.BytesIO(content), stores)


def save(stores: Stores, *names: str) -> bytes:
    output = io.BytesIO()
    chosen = [(stores.images.find(name), (Reference.parse(name),)) for name in names]
    archive.save(chosen, stores.blobs, output.write)
    return output.getvalue()


def test_docker_archive_is_loaded_with_its_tags(stores: Stores) -> None:
    (loaded,) = load(stores, docker_archive(BASE, TOP, tags=("a/b:1", "localhost:5000/c:2")))
    image = stores.images.find("a/b:1")
    assert loaded.id == image.id == stores.images.find("localhost:5000/c:2").id
    assert [layer.diff_id for layer in image.layers] == [Digest.of(BASE), Digest.of(TOP)]
    assert (stores.layers.path(image.chain_ids[-1]) / "top").read_bytes() == b"top"
    assert all(stores.blobs.has(blob) for blob in image.blobs)
    assert os.listdir(stores.blobs.partial) == []


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, lzma.compress, bz2.compress])
def test_compressed_archive_is_loaded(stores: Stores, pack: object) -> None:
    assert len(load(stores, pack(docker_archive(BASE)))) == 1  # type: ignore[operator]


def test_nothing_is_left_that_the_image_does_not_need(stores: Stores) -> None:
    content = io.BytesIO(docker_archive(BASE))
    with tarfile.open(fileobj=content, mode="a") as opened:
        info, rest = member("0/VERSION", b"1.0")
        opened.addfile(info, io.BytesIO(rest))
    load(stores, content.getvalue())
    assert set(stores.blobs) == stores.images.needed_blobs()


def test_saved_image_loads_into_another_store(stores: Stores, worker: Worker, tmp_path: Path) -> None:
    load(stores, docker_archive(BASE, TOP, tags=("a:1",)))
    load(stores, docker_archive(BASE, tags=("b:1",)))
    saved = save(stores, "a:1", "b:1")
    other = fresh(worker, tmp_path / "other")
    assert {str(name) for one in load(other, saved) for name in one.references} == {
        "docker.io/library/a:1",
        "docker.io/library/b:1",
    }
    assert {image.id for image in other.images.list()} == {image.id for image in stores.images.list()}
    assert len(other.layers.all()) == 2  # the base is shared
    assert save(other, "a:1", "b:1") == saved


def fresh(worker: Worker, root: Path) -> Stores:
    root.mkdir()
    blobs = BlobStore(root)
    return Stores(blobs, LayerStore(root, worker), ImageStore(root, blobs))


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install {name})")
    return found


def skopeo(*arguments: str) -> str:
    command = [tool("skopeo"), "--insecure-policy", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_skopeo_reads_what_we_save(stores: Stores, tmp_path: Path, form: str) -> None:
    load(stores, docker_archive(BASE, TOP, tags=("a:1",)))
    path = tmp_path / "saved.tar"
    path.write_bytes(save(stores, "a:1"))
    shown = json.loads(skopeo("inspect", "--config", f"{form}:{path}"))
    assert shown["rootfs"]["diff_ids"] == [digest(BASE), digest(TOP)]
    skopeo("copy", f"{form}:{path}", f"dir:{tmp_path}/copied")  # skopeo verifies every digest on the way


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("docker-archive:{}:x/y:1", []),
        ("oci-archive:{}:docker.io/x/y:1", []),
        ("oci-archive:{}:docker.io/x/y:1", ["--dest-compress-format", "zstd", "--dest-compress"]),
    ],
)
def test_we_load_what_skopeo_writes(
    stores: Stores, worker: Worker, tmp_path: Path, form: str, options: list[str]
) -> None:
    load(stores, docker_archive(BASE, TOP, tags=("a:1",)))
    (tmp_path / "saved.tar").write_bytes(save(stores, "a:1"))
    skopeo("copy", *options, f"docker-archive:{tmp_path}/saved.tar", form.format(tmp_path / "out.tar"))
    other = fresh(worker, tmp_path / "other")
    load(other, (tmp_path / "out.tar").read_bytes())
    image = other.images.find("x/y:1")
    assert image.config.diff_ids == (Digest.of(BASE), Digest.of(TOP))
    assert (other.layers.path(image.chain_ids[-1]) / "top").read_bytes() == b"top"


def test_umoci_unpacks_what_we_save(stores: Stores, tmp_path: Path) -> None:
    load(stores, docker_archive(BASE, TOP, tags=("a:1",)))
    layout = tmp_path / "layout"
    layout.mkdir()
    with tarfile.open(fileobj=io.BytesIO(save(stores, "a:1"))) as opened:
        opened.extractall(layout)
    subprocess.run(
        [tool("umoci"), "unpack", "--image", f"{layout}:1", str(tmp_path / "bundle")], check=True, capture_output=True
    )
    assert (tmp_path / "bundle/rootfs/top").read_bytes() == b"top"
    assert not (tmp_path / "bundle/rootfs/etc/gone").exists()


def oci_layout(*layers: bytes, name: str = "x/y:1", **changes: object) -> dict[str, bytes]:
    """The files of an OCI layout; `changes` go into the manifest."""
    config = image_config(*layers)
    blobs = {digest(blob): blob for blob in (config, *layers)}

    def point(media_type: str, blob: bytes) -> dict[str, object]:
        return {"mediaType": media_type, "digest": digest(blob), "size": len(blob)}

    manifest_document: dict[str, object] = {
        "schemaVersion": 2,
        "config": point("application/vnd.oci.image.config.v1+json", config),
        "layers": [point("application/vnd.oci.image.layer.v1.tar", layer) for layer in layers],
    }
    manifest = json.dumps(manifest_document | changes).encode()
    entry = point("application/vnd.oci.image.manifest.v1+json", manifest)
    entry["annotations"] = {"io.containerd.image.name": f"docker.io/{name}"}
    blobs[digest(manifest)] = manifest
    files = {f"blobs/sha256/{key[7:]}": blob for key, blob in blobs.items()}
    index = {"schemaVersion": 2, "manifests": [entry]}
    return files | {"index.json": json.dumps(index).encode(), "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}


def packed(files: dict[str, bytes]) -> bytes:
    return make_tar(*(member(name, content) for name, content in files.items()))


def test_oci_layout_is_loaded_with_its_manifest(stores: Stores) -> None:
    (loaded,) = load(stores, packed(oci_layout(BASE, TOP)))
    image = stores.images.get(loaded.id)
    assert image.manifest is not None and stores.blobs.has(image.manifest)
    assert stores.images.find("x/y:1") == image


def listing(**changes: object) -> bytes:
    content = image_config(BASE)
    listed: dict[str, object] = {"Config": "config.json", "RepoTags": ["a:1"], "Layers": ["layer.tar"]}
    files = [member("config.json", content), member("layer.tar", BASE)]
    return make_tar(*files, member("manifest.json", json.dumps([listed | changes]).encode()))


def tampered(find: str) -> bytes:
    """An OCI layout with one byte of the blob whose content holds `find` exchanged."""
    files = oci_layout(BASE)
    key = next(name for name, content in files.items() if name.startswith("blobs/") and find.encode() in content)
    files[key] = files[key].replace(find.encode(), find.upper().encode())
    return packed(files)


CONFIG_NAME = f"{digest(image_config(BASE))[7:]}.json"
HOSTILE: dict[str, tuple[bytes, type[MinidockerError]]] = {
    "layer path above the root": (listing(Layers=["../../../etc/hostname"]), Breakout),
    "layer path of the host": (listing(Layers=["/etc/hostname"]), InvalidArgument),
    "config path of the host": (listing(Config="/etc/hostname"), InvalidArgument),
    "member above the root": (make_tar(member("../evil", b"x")), Breakout),
    "layer is a symlink to the host": (
        make_tar(
            member("config.json", image_config(Path("/etc/hostname").read_bytes())),
            symlink("layer.tar", "/etc/hostname"),
            member("manifest.json", json.dumps([{"Config": "config.json", "Layers": ["layer.tar"]}]).encode()),
        ),
        InvalidArgument,
    ),
    **{
        f"layer is a symlink to {target}": (
            make_tar(
                member("config.json", image_config(BASE)),
                symlink("a/layer.tar", target),
                symlink("b/layer.tar", "../c/layer.tar"),
                member("c/layer.tar", BASE),
                member("manifest.json", json.dumps([{"Config": "config.json", "Layers": ["a/layer.tar"]}]).encode()),
            ),
            InvalidArgument,
        )
        for target in ("../b/layer.tar", "../../c/layer.tar", "/c/layer.tar", "../../../../etc/hostname", "layer.tar")
    },
    "config is a hard link": (
        make_tar(
            member("real", image_config(BASE)),
            hardlink("config.json", "real"),
            member("layer.tar", BASE),
            member("manifest.json", json.dumps([{"Config": "config.json", "Layers": ["layer.tar"]}]).encode()),
        ),
        InvalidArgument,
    ),
    "manifest.json is a symlink": (make_tar(symlink("manifest.json", "/etc/passwd")), InvalidArgument),
    "manifest.json is a FIFO": (make_tar(member("manifest.json", type=tarfile.FIFOTYPE)), InvalidArgument),
    "manifest.json is huge": (make_tar(member("manifest.json", b"[" + b" " * (1 << 20) + b"]")), InvalidArgument),
    "manifest.json is nested": (make_tar(member("manifest.json", b"[" * 200_000)), InvalidArgument),
    "manifest.json is no list": (make_tar(member("manifest.json", b"{}")), InvalidArgument),
    "tag is no reference": (listing(RepoTags=["../../x"]), InvalidArgument),
    "too many layers": (listing(Layers=["layer.tar"] * 128), InvalidArgument),
    "more layers than the config names": (listing(Layers=["layer.tar"] * 2), VerificationError),
    "another layer than the config names": (
        make_tar(
            member("config.json", image_config(TOP)),
            member("layer.tar", BASE),
            member("manifest.json", json.dumps([{"Config": "config.json", "Layers": ["layer.tar"]}]).encode()),
        ),
        VerificationError,
    ),
    "config that its name belies": (
        make_tar(
            member(CONFIG_NAME, image_config(BASE, author="changed")),
            member("layer.tar", BASE),
            member("manifest.json", json.dumps([{"Config": CONFIG_NAME, "Layers": ["layer.tar"]}]).encode()),
        ),
        VerificationError,
    ),
    "image for another system": (
        docker_archive(BASE, os="windows"),
        Unsupported,
    ),
    "tampered layer": (tampered("bin/sh"), VerificationError),
    "tampered config": (tampered("amd64"), VerificationError),
    "tampered manifest": (tampered("schemaVersion"), VerificationError),
    "wrong size of a layer": (
        packed(
            oci_layout(
                BASE,
                layers=[
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar",
                        "digest": digest(BASE),
                        "size": len(BASE) + 1,
                    }
                ],
            )
        ),
        VerificationError,
    ),
    "manifest that is also an index": (packed(oci_layout(BASE, manifests=[])), VerificationError),
    "nothing of an image": (make_tar(member("readme", b"x")), InvalidArgument),
    "cut off": (docker_archive(BASE)[:3000], InvalidArgument),
    "no archive": (b"hello " * 1000, InvalidArgument),
    "empty": (b"", InvalidArgument),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive_is_refused_and_leaves_nothing(stores: Stores, name: str) -> None:
    content, kind = HOSTILE[name]
    with pytest.raises(kind):
        load(stores, content)
    assert stores.images.list() == ()
    assert os.listdir(stores.blobs.partial) == []
    assert os.listdir(stores.layers.directory / "staged") == []
    assert not Path("/tmp/evil").exists()


def test_a_layer_that_comes_twice_may_be_a_link_to_the_other(stores: Stores) -> None:
    """So Docker up to version 24 saves it."""
    paths = ["1/layer.tar", "2/layer.tar", "3/layer.tar"]
    content = make_tar(
        member("config.json", image_config(BASE, TOP, BASE)),
        symlink("1/layer.tar", "../3/layer.tar"),
        member("2/layer.tar", TOP),
        member("3/layer.tar", BASE),
        member("manifest.json", json.dumps([{"Config": "config.json", "Layers": paths}]).encode()),
    )
    (loaded,) = load(stores, content)
    layers = [str(layer.diff_id) for layer in stores.images.get(loaded.id).layers]
    assert layers == [digest(BASE), digest(TOP), digest(BASE)]


def test_members_that_the_image_does_not_need_may_be_links(stores: Stores) -> None:
    """podman writes the old names of layers as links; nobody follows them."""
    content = io.BytesIO(docker_archive(BASE))
    with tarfile.open(fileobj=content, mode="a") as opened:
        opened.addfile(symlink("old/layer.tar", "../../../../etc/passwd")[0])
    assert len(load(stores, content.getvalue())) == 1
