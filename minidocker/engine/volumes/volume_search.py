"""Finding volumes: those that we have records of, and those that plugins have made without us.

Source  Docker Engine API 1.44: VolumeInspect, VolumeList; moby asks all drivers for a name that it does not know.
Rules   - all drivers are asked at once, for a short time; one that does not answer has no say.
        - names are one for all drivers: a record counts before what a plugin says.
"""

import asyncio

from minidocker.engine.plugins import VOLUME_DRIVER, Plugins
from minidocker.engine.volumes.volume_drivers import Shown, VolumeDrivers
from minidocker.errors import InvalidArgument, MinidockerError, NotFound, Unavailable
from minidocker.storage.volumes import Volume, VolumeStore

Found = tuple[Volume, Shown | None]  # what we know of a volume, and what its plugin says of it


class VolumeSearch:
    """Looks for volumes in our records and in the plugins. Used from the loop's thread."""

    def __init__(self, store: VolumeStore, plugins: Plugins, drivers: VolumeDrivers) -> None:
        self._store = store
        self._plugins = plugins
        self._drivers = drivers

    def recorded(self, name: str) -> Volume | None:
        """The volume of that name that we have a record of, whoever its driver is."""
        try:
            return self._store.get(name)
        except (NotFound, InvalidArgument):
            return None

    async def one(self, name: str) -> Found | None:
        """Ask all drivers for a volume that we have no record of."""

        async def ask(driver: str) -> Found | None:
            try:
                return Volume(name, driver), await self._drivers.get(driver, name)
            except MinidockerError:
                return None

        drivers = await self._names()
        answers = await asyncio.gather(*(ask(driver) for driver in drivers))
        return next((answer for answer in answers if answer is not None), None)

    async def _names(self) -> list[str]:
        return await self._plugins.implementing(VOLUME_DRIVER)

    async def everything(self) -> tuple[list[Found], list[str]]:
        """All volumes by name, and warnings of drivers that do not answer: of theirs only what is recorded is there."""
        recorded = {volume.name: volume for volume in await asyncio.to_thread(self._store.list)}
        found: dict[str, Found] = {name: (volume, None) for name, volume in recorded.items()}
        drivers = sorted({*await self._names(), *(v.driver for v in recorded.values() if not v.local)})
        warnings = []
        for driver, answer in zip(drivers, await asyncio.gather(*map(self._listed, drivers)), strict=True):
            if isinstance(answer, MinidockerError):
                warnings.append(f"list volumes of {driver}: {answer}")
                continue
            for shown in answer:
                volume = recorded.get(shown.name, Volume(shown.name, driver))
                if volume.driver == driver:
                    found[shown.name] = (volume, shown)
        return [found[name] for name in sorted(found)], warnings

    async def _listed(self, driver: str) -> list[Shown] | MinidockerError:
        if self._plugins.silent(driver):
            return Unavailable(f'plugin "{driver}" did not answer in time a moment ago')
        try:
            return await self._drivers.all(driver)
        except MinidockerError as error:
            return error
