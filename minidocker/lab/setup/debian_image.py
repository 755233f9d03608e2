"""The base image `debian`: a C compiler, make and git, installed from the Debian packages of this machine's own apt.

Source  mmdebstrap(1); apt-get(8), indextargets; OCI image-spec (layer, config, manifest).
Rules   - only archives that are Debian's own are used, as this machine's apt knows them: no third party gets in.
        - an image of the same recipe (archives, packages) in the registry is kept: the manifest carries the recipe.
        - an interrupted make goes on: packages stay below the root until the image is pushed, then all of it goes.
"""

import asyncio
import hashlib
import platform
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from minidocker.errors import MinidockerError, NotFound, Unavailable
from minidocker.lab.setup.base_image import PATH_VARIABLE
from minidocker.oci import codec
from minidocker.oci.digest import Digest
from minidocker.oci.image_config import ExecutionConfig, History, ImageConfig, RootFS
from minidocker.oci.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest, Platform
from minidocker.oci.reference import Reference
from minidocker.registry.hosts import RegistryConfig
from minidocker.registry.progress import ignore
from minidocker.registry.push import Part, push_image
from minidocker.registry.resolve import connect
from minidocker.registry.transport import Transport

PROGRAM = "mmdebstrap"
PACKAGES = ("ca-certificates", "gcc", "git", "libc6-dev", "make")
REPOSITORY = "library/debian"
RECIPE = "minidocker.recipe"  # the manifest's annotation
_VERSION = "1"  # of what is done with the packages
_TIMEOUT_SECONDS = 1800
_PIECE_BYTES = 1 << 20
_GZIP = 31  # zlib's window bits for a gzip header, with no time and no name in it
_PLAIN, _PACKED = "layer.tar", "layer.tar.gz"
_DPKG = ("path-exclude=/usr/share/man/*", "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/doc/*",
         "path-include=/usr/share/doc/*/copyright")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the image is made of. suite: "bookworm". sources: lines of sources.list."""

    suite: str
    sources: tuple[str, ...]
    packages: tuple[str, ...] = PACKAGES

    @property
    def digest(self) -> str:
        """The same for the same recipe."""
        return hashlib.sha256("\n".join((_VERSION, self.suite, *self.sources, *self.packages)).encode()).hexdigest()


def find_recipe() -> Recipe:
    """The recipe for this machine's Debian. Raises NotFound: it is no Debian, or apt knows no archive of Debian's."""
    release = platform.freedesktop_os_release()
    suite = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not suite:
        raise NotFound(
            f"the debian image is made on Debian only; this is {release.get('PRETTY_NAME', 'another system')}"
        )
    sources = _sources()
    if not sources:  # the lists tell whose an archive is, and they are not there before the first update
        _run(["apt-get", "update", "-qq"])
        sources = _sources()
    if not any(line.split()[2] == suite for line in sources):
        raise NotFound(f"apt knows no archive of Debian with {suite}; look into /etc/apt/sources.list*")
    return Recipe(suite, sources)


def _sources() -> tuple[str, ...]:
    fields = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    listed = _run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages", "Origin: Debian"])
    return tuple(sorted({f"deb {line}" for line in listed.splitlines() if line.startswith("http")}))


def _run(words: list[str]) -> str:
    """A program's output. Raises NotFound: it is not installed. Unavailable: it failed (its last words)."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise NotFound(f"{words[0]} is not installed; apt-get install {words[0]}") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{words[0]} did not end in {_TIMEOUT_SECONDS} seconds") from None
    if done.returncode:
        raise Unavailable(f"{words[0]} failed:\n{done.stderr.strip()[-1500:]}")
    return done.stdout


def command(recipe: Recipe, archives: Path, output: Path) -> list[str]:
    """How the root filesystem is made. archives: keeps the packages. output: the tar file."""
    cache = '"$1/var/cache/apt/archives"'
    proxies = [line.replace("::HTTP", "::http") for line in _run(["apt-config", "dump", "Acquire"]).splitlines()
               if "Proxy" in line]  # fmt: skip
    return [
        "env",
        f"TMPDIR={output.parent}",  # so that nothing of an interrupted run stays elsewhere
        PROGRAM,
        "--format=tar",
        "--variant=minbase",
        f"--include={','.join(recipe.packages)}",
        *(f"--dpkgopt={option}" for option in _DPKG),
        '--aptopt=Apt::Install-Recommends "false"',
        *(f"--aptopt={line}" for line in proxies),
        "--skip=output/dev,essential/unlink",
        f"--setup-hook=mkdir -p {cache}; mount -o bind {archives} {cache}",
        f"--customize-hook=umount {cache}",
        '--customize-hook=rm -f "$1/etc/hostname" "$1/etc/resolv.conf"',
        recipe.suite,
        str(output),
        *recipe.sources,
    ]


def ensure(registry: str, root: Path, say: Callable[[str], object]) -> bool:
    """Make the image and push it to `registry` ("127.0.0.1:5050") as debian:SUITE and debian:latest.

    say      tells that it begins, which takes a while.
    root     a directory of its own for what an interrupted make may go on with; gone afterwards.
    Returns  False: one of this recipe is there already.
    Raises   NotFound: no Debian, or mmdebstrap is missing. Unavailable: packages cannot be had.
    """
    if shutil.which(PROGRAM) is None:
        raise NotFound(f"{PROGRAM} is not installed; apt-get install {PROGRAM}")
    recipe = find_recipe()
    references = [Reference(registry, REPOSITORY, tag) for tag in (recipe.suite, "latest")]
    if all(asyncio.run(_recipe_of(reference)) == recipe.digest for reference in references):
        return False
    say(f"making base image debian from packages of {recipe.suite}: {', '.join(recipe.packages)} (about a minute)")
    place = root / recipe.digest[:12]
    (place / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    if not (place / _PLAIN).exists():
        staged = place / "layer.partial"
        _run(command(recipe, place / "archives", staged))
        staged.rename(place / _PLAIN)
    diff_id, digest, size = compress(place / _PLAIN, place / _PACKED)
    config = codec.encode(_config(recipe, diff_id))
    (place / "config.json").write_bytes(config)
    layer = Descriptor(OCI_LAYER + "+gzip", digest, size)
    manifest = Manifest(2, Descriptor(OCI_CONFIG, Digest.of(config), len(config)), [layer], OCI_MANIFEST,
                        {RECIPE: recipe.digest})  # fmt: skip
    parts = [Part(manifest.config, "", place / "config.json"), Part(layer, "", place / _PACKED)]
    asyncio.run(_push(references, codec.encode(manifest), parts))
    shutil.rmtree(root)
    return True


def compress(plain: Path, packed: Path) -> tuple[Digest, Digest, int]:
    """Gzip a layer quickly. Returns its diff ID, and the digest and size in bytes of the packed file."""
    whole, outer, gzip = hashlib.sha256(), hashlib.sha256(), zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    with plain.open("rb") as source, packed.open("wb") as target:

        def pieces() -> Iterator[bytes]:
            while piece := source.read(_PIECE_BYTES):
                whole.update(piece)
                yield gzip.compress(piece)
            yield gzip.flush()

        for piece in pieces():
            outer.update(piece)
            target.write(piece)
        size = target.tell()
    return Digest.finish(whole), Digest.finish(outer), size


def _config(recipe: Recipe, diff_id: Digest) -> ImageConfig:
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    here = Platform.of_machine(platform.machine())
    return ImageConfig(
        architecture=here.architecture,
        os="linux",
        variant=here.variant,
        created=created,
        config=ExecutionConfig(cmd=["bash"], env=[PATH_VARIABLE]),
        rootfs=RootFS(diff_ids=[diff_id]),
        history=[
            History(created=created, created_by=f"ADD debian {recipe.suite} / # {' '.join(recipe.packages)}"),
            History(created=created, created_by='CMD ["bash"]', empty_layer=True),
        ],
    )


async def _recipe_of(reference: Reference) -> str:
    """The recipe of the image that is there; "" if there is none, or one that was not made here."""
    assert reference.tag is not None
    async with Transport(RegistryConfig()) as transport, connect(transport, reference, push=True) as client:
        try:
            manifest = codec.decode((await client.manifest(reference.tag)).content, Manifest)
        except MinidockerError:
            return ""
    return manifest.annotations.get(RECIPE, "")


async def _push(references: list[Reference], manifest: bytes, parts: list[Part]) -> None:
    for reference in references:
        assert reference.tag is not None
        async with Transport(RegistryConfig()) as transport, connect(transport, reference, push=True) as client:
            await push_image(client, reference.tag, manifest, OCI_MANIFEST, parts, lambda _: (), ignore)
