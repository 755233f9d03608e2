"""The base image `busybox`: made here from Debian's static busybox, so that no lesson needs the Internet.

Source  OCI image-spec (layer, config, manifest); busybox(1), --list-full.
Rules   - the same busybox gives the same bytes, whoever builds it: fixed order, owners, modes and times.
        - the times are those of the busybox program, so the image is as old as its content.
"""

import asyncio
import io
import subprocess
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from minidocker.errors import NotFound
from minidocker.oci.codec import encode
from minidocker.oci.digest import Digest
from minidocker.oci.image_config import ExecutionConfig, History, ImageConfig, RootFS
from minidocker.oci.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest, Platform
from minidocker.oci.reference import Reference
from minidocker.registry.hosts import RegistryConfig
from minidocker.registry.progress import ignore
from minidocker.registry.push import Part, push_image
from minidocker.registry.resolve import connect
from minidocker.registry.transport import Transport

PROGRAMS = (Path("/usr/bin/busybox"), Path("/bin/busybox"))
PATH_VARIABLE = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ELF_MACHINES = {62: "x86_64", 183: "aarch64", 40: "armv7l", 3: "i686"}
_PROGRAM_INTERPRETER = 3  # PT_INTERP: there in dynamically linked programs only

DIRECTORIES = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o555, "root": 0o700, "run": 0o755, "sbin": 0o755,
    "sys": 0o555, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/local": 0o755, "usr/local/bin": 0o755,
    "usr/sbin": 0o755, "var": 0o755, "var/log": 0o755, "var/spool": 0o755, "var/spool/mail": 0o755, "var/tmp": 0o1777,
    "var/www": 0o755,
}  # fmt: skip
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
    "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "bin:x:2:2:bin:/bin:/bin/false\n"
    "sys:x:3:3:sys:/dev:/bin/false\n"
    "mail:x:8:8:mail:/var/spool/mail:/bin/false\n"
    "www-data:x:33:33:www-data:/var/www:/bin/false\n"
    "operator:x:37:37:Operator:/var:/bin/false\n"
    "nobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nmail:x:8:\n"
    "wheel:x:10:root\nwww-data:x:33:\noperator:x:37:\nusers:x:100:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:::::::\nnobody:*:::::::\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    "etc/profile": "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
    "etc/shells": "/bin/sh\n/bin/ash\n",
}
MODES = {"etc/shadow": 0o640}


@dataclass(frozen=True, slots=True)
class BaseImage:
    """The image as bytes: one gzipped layer, its config, and the manifest that names both."""

    layer: bytes
    config: bytes
    manifest: bytes


def find_busybox() -> Path:
    """Debian's static busybox. Raises NotFound: it is missing, or not statically linked."""
    for path in PROGRAMS:
        if path.is_file():
            if not _is_static(path.read_bytes()):
                raise NotFound(f"{path} is not statically linked; apt-get install busybox-static")
            return path.resolve()
    raise NotFound("busybox is not installed; apt-get install busybox-static")


def _is_static(program: bytes) -> bool:
    wide = program[4] == 2
    order = "little" if program[5] == 1 else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(program[at : at + size], order)  # type: ignore[arg-type]

    start, size, count = (
        (number(32, 8), number(54, 2), number(56, 2)) if wide else (number(28, 4), number(42, 2), number(44, 2))
    )
    return all(number(start + at * size, 4) != _PROGRAM_INTERPRETER for at in range(count))


def applets(busybox: Path) -> list[str]:
    """Where each applet's link belongs ("bin/sh"), sorted."""
    listed = subprocess.run([str(busybox), "--list-full"], capture_output=True, text=True, check=True).stdout.split()
    return sorted({name for name in listed if "/" in name and name != "bin/busybox"})


def layer_tar(busybox: Path, links: list[str]) -> bytes:
    """The layer as a plain tar: directories, files, the program, and a hard link to it for each applet."""
    seconds = int(busybox.stat().st_mtime)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:

        def add(name: str, kind: bytes, mode: int, content: bytes = b"", target: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.mtime, entry.size, entry.linkname = kind, mode, seconds, len(content), target
            tar.addfile(entry, io.BytesIO(content))

        for name in sorted(DIRECTORIES):
            add(name, tarfile.DIRTYPE, DIRECTORIES[name])
        for name in sorted(FILES):
            add(name, tarfile.REGTYPE, MODES.get(name, 0o644), FILES[name].encode())
        add("bin/busybox", tarfile.REGTYPE, 0o755, busybox.read_bytes())
        for name in links:
            if name.rpartition("/")[0] in DIRECTORIES:
                add(name, tarfile.LNKTYPE, 0o755, target="bin/busybox")
    return buffer.getvalue()


def build(busybox: Path | None = None) -> BaseImage:
    """Make the image for the machine that `busybox` (by default Debian's) runs on."""
    busybox = busybox or find_busybox()
    plain = layer_tar(busybox, applets(busybox))
    gzip = zlib.compressobj(9, zlib.DEFLATED, 31)  # 31: a gzip header, with no time and no name in it
    layer = gzip.compress(plain) + gzip.flush()
    created = datetime.fromtimestamp(int(busybox.stat().st_mtime), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    program = busybox.read_bytes()[:20]
    platform = Platform.of_machine(_ELF_MACHINES.get(int.from_bytes(program[18:20], "little"), "unknown"))
    config = encode(
        ImageConfig(
            architecture=platform.architecture,
            os="linux",
            variant=platform.variant,
            created=created,
            config=ExecutionConfig(cmd=["sh"], env=[PATH_VARIABLE]),
            rootfs=RootFS(diff_ids=[Digest.of(plain)]),
            history=[
                History(created=created, created_by="ADD busybox-static / # Debian"),
                History(created=created, created_by='CMD ["sh"]', empty_layer=True),
            ],
        )
    )
    manifest = Manifest(
        schema_version=2,
        media_type=OCI_MANIFEST,
        config=Descriptor(OCI_CONFIG, Digest.of(config), len(config)),
        layers=[Descriptor(OCI_LAYER + "+gzip", Digest.of(layer), len(layer))],
    )
    return BaseImage(layer, config, encode(manifest))


def ensure(registry: str, *, repository: str = "library/busybox", tag: str = "latest") -> bool:
    """Push the base image to `registry` ("127.0.0.1:5050"). Returns False: exactly this image is there already."""
    return asyncio.run(_ensure(build(), Reference(registry, repository, tag)))


async def _ensure(image: BaseImage, reference: Reference) -> bool:
    assert reference.tag is not None
    async with Transport(RegistryConfig()) as transport, connect(transport, reference, push=True) as client:
        try:
            if (await client.manifest(reference.tag)).content == image.manifest:
                return False
        except NotFound:
            pass
        with tempfile.TemporaryDirectory(prefix="minidocker-base-") as folder:
            parts = [
                _part(Path(folder) / "config", OCI_CONFIG, image.config),
                _part(Path(folder) / "layer", OCI_LAYER + "+gzip", image.layer),
            ]
            await push_image(client, reference.tag, image.manifest, OCI_MANIFEST, parts, lambda _: (), ignore)
    return True


def _part(path: Path, media_type: str, content: bytes) -> Part:
    path.write_bytes(content)
    return Part(Descriptor(media_type, Digest.of(content), len(content)), "", path)
