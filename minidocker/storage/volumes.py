"""Volumes: directories that outlive containers.

Source  Docker Engine API, Volumes; moby's `local` driver.
Rules   - `volumes/<name>/_data` is what containers see, `volumes/<name>/volume.json` our record, written last: a
          directory without one is the leftover of an interrupted create and is removed at start.
        - a name is one path component by its grammar, so it cannot leave the directory.
        - volumes of other drivers have a record here, too, and no directory: their files are where their driver says.
        - who uses a volume is the engine's knowledge: it asks its containers before it removes one.
"""

import os
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from minidocker.errors import Conflict, InvalidArgument, KernelError, NotFound
from minidocker.storage import records, trees, volume_mounts

LOCAL = "local"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_NAME_LIMIT = 255


class Volume(msgspec.Struct, frozen=True):
    """One volume's record.

    driver     "local", or the plugin's name.
    options    for the driver, as they were given.
    anonymous  made without a name: removed with its container by `rm -v` and `--rm`.
    created    RFC 3339, UTC.
    """

    name: str
    driver: str = LOCAL
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    anonymous: bool = False
    created: str = ""

    @property
    def local(self) -> bool:
        """Its files are in our directory."""
        return self.driver == LOCAL


class VolumeStore:
    """The volumes below `root` (the data root)."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "volumes"
        self.directory.mkdir(parents=True, exist_ok=True)

    def create(
        self,
        name: str = "",
        *,
        anonymous: bool = False,
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
        driver: str = LOCAL,
    ) -> Volume:
        """Make a volume, or return the one of that name (as Docker does, whatever its options).

        name       "" for an anonymous one: 64 hexadecimal digits are made up.
        anonymous  True: the caller has made the name up.
        driver     another than "local": only a record is made.
        Raises     InvalidArgument: not a name, or the local driver's options. Conflict: another driver has it.
        """
        anonymous = anonymous or not name
        name = check_name(name or secrets.token_hex(32))
        try:
            there = self.get(name)
        except NotFound:
            pass
        else:
            if there.driver != driver:
                raise Conflict(already(name, there.driver))
            return there
        if driver == LOCAL:
            check_options(name, options or {})
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        volume = Volume(name, driver, labels or {}, options or {}, anonymous, created)
        try:
            if volume.local:
                self.path(name).mkdir(parents=True, exist_ok=True)
                self.path(name).chmod(0o755)  # whatever the umask of the daemon
            else:
                (self.directory / name).mkdir(parents=True, exist_ok=True)
            records.write(self.directory / name / "volume.json", volume)
            records.sync_directory(self.directory)
        except OSError as error:
            trees.remove(self.directory / name)
            raise KernelError("create volume", name, error.errno or 0) from error
        return volume

    def path(self, name: str) -> Path:
        """The directory that containers see."""
        return self.directory / check_name(name) / "_data"

    def get(self, name: str) -> Volume:
        """Raises NotFound."""
        try:
            return records.read(self.directory / check_name(name) / "volume.json", Volume)
        except (NotFound, InvalidArgument):
            raise NotFound(f"get {name[:300]}: no such volume") from None

    def list(self) -> tuple[Volume, ...]:
        """All, by name."""
        names = sorted(entry.name for entry in os.scandir(self.directory) if entry.is_dir(follow_symlinks=False))
        return tuple(volume for name in names if (volume := self._try(name)) is not None)

    def _try(self, name: str) -> Volume | None:
        try:
            return self.get(name)
        except NotFound:
            return None

    def remove(self, name: str) -> None:
        """Remove the volume and all that is in it; what is mounted there is let go of first. Raises NotFound."""
        if self.get(name).local:
            volume_mounts.unmount(self.path(name))  # never remove what is in someone else's filesystem
        records.remove_if_there(self.directory / name / "volume.json")  # from here on the volume does not exist
        trees.remove(self.directory / name)

    def repair(self) -> None:
        """At start: remove what interrupted creates and removes left."""
        for entry in list(os.scandir(self.directory)):
            if entry.is_dir(follow_symlinks=False) and self._try(entry.name) is None:
                volume_mounts.unmount(Path(entry.path) / "_data")
                trees.remove(Path(entry.path))


def already(name: str, driver: str) -> str:
    """Why a volume cannot be made: another driver has one of that name."""
    return f"create {name}: driver '{driver}' already has volume '{name}': volume name must be unique"


def check_options(name: str, options: dict[str, str]) -> None:
    """Raises InvalidArgument: see volume_mounts.check."""
    try:
        volume_mounts.check(options)
    except InvalidArgument as error:
        raise InvalidArgument(f"create {name}: {error}") from None


def check_name(name: str) -> str:
    """`name`, if it may name a volume. Raises InvalidArgument."""
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.match(name) or len(name) > _NAME_LIMIT:
        raise InvalidArgument(
            f'create {name[:300]}: "{name[:300]}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    return name
