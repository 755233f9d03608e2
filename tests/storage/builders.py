"""Archives and images for the tests, written by Python's tarfile: the oracle, not by our own writer."""

import hashlib
import io
import json
import tarfile

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, content: bytes = b"", **fields: object) -> Member:
    """One member; fields of TarInfo by name (type=tarfile.SYMTYPE, linkname="x", mode=0o4755, pax_headers={...})."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def directory(name: str, **fields: object) -> Member:
    info, content = member(name, type=tarfile.DIRTYPE, mode=0o755)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def symlink(name: str, target: str) -> Member:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> Member:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def make_tar(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of `members`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def image_config(*layers: bytes, **fields: object) -> bytes:
    """The config of an image of these plain layers."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
    }
    return json.dumps(document | fields).encode()


def docker_archive(*layers: bytes, tags: tuple[str, ...] = ("test/image:1",), **config: object) -> bytes:
    """What `docker save` of an old Docker writes: plain layers under made-up names."""
    content = image_config(*layers, **config)
    paths = [f"{number}/layer.tar" for number in range(len(layers))]
    name = f"{digest(content)[7:]}.json"
    listed = [{"Config": name, "RepoTags": list(tags), "Layers": paths}]
    files = [member(name, content), *(member(path, layer) for path, layer in zip(paths, layers, strict=True))]
    return make_tar(*files, member("manifest.json", json.dumps(listed).encode()))
