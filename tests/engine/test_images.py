"""Images of an engine: nothing half, names in and out, Docker's rules of removal."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from image_desk import Desk, open_desk
from lying_registry import Liar, MadeImage, layer_of, make_image, serving

from minidocker.engine.images import image_filters
from minidocker.engine.images.images import Gone
from minidocker.errors import Conflict, InvalidArgument, MinidockerError, NotFound, VerificationError
from minidocker.oci.digest import Digest
from minidocker.oci.manifest import Platform

pytestmark = pytest.mark.needs_root
BASE, TOP = layer_of({"base": b"1" * 5000}), layer_of({"top": b"2" * 7000})


def run(root: Path, scenario: Callable[[Desk, Liar], Awaitable[None]], image: MadeImage | None = None) -> None:
    """Run a scenario at a desk beside a registry that serves `image`."""

    async def whole() -> None:
        async with serving(Liar(image or make_image([BASE, TOP]))) as liar, open_desk(root) as desk:
            await asyncio.wait_for(scenario(desk, liar), 60)

    asyncio.run(whole())


def test_a_pulled_image_has_its_names_and_unpacked_layers(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        await desk.pull(f"{liar.domain}/app:1")
        shown = desk.images.inspect(f"{liar.domain}/app:1", (1, 44))
        assert shown["RepoTags"] == [f"{liar.domain}/app:1"]
        assert liar.image is not None
        assert shown["RepoDigests"] == [f"{liar.domain}/app@{Digest.of(liar.image.manifest_bytes)}"]
        assert shown["Id"] == str(Digest.of(liar.image.config))
        upper, lower = shown["GraphDriver"]["Data"]["UpperDir"], shown["GraphDriver"]["Data"]["LowerDir"]
        assert (Path(upper) / "top").read_bytes() == b"2" * 7000
        assert (Path(lower) / "base").read_bytes() == b"1" * 5000
        assert shown["Size"] == 12000
        assert "VirtualSize" not in shown and "VirtualSize" in desk.images.inspect(shown["Id"], (1, 41))

    run(tmp_path, scenario)


def test_a_layer_with_another_diff_id_makes_no_image_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        with pytest.raises(VerificationError):
            await desk.pull(f"{liar.domain}/app:1")
        assert desk.store.list() == ()
        assert desk.files() == []

    run(tmp_path, scenario, make_image([BASE, (TOP[0], BASE[1])]))


def test_a_failed_pull_keeps_what_another_image_needs(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        await desk.pull(f"{liar.domain}/good:1")
        kept = desk.files()
        liar.image = make_image([BASE, TOP, (layer_of({"x": b"3"})[0], BASE[1])])
        with pytest.raises(VerificationError):
            await desk.pull(f"{liar.domain}/bad:1")
        assert desk.files() == kept
        assert desk.images.inspect(f"{liar.domain}/good:1", (1, 44))["Size"] == 12000

    run(tmp_path, scenario)


def test_a_cancelled_pull_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        assert liar.image is not None
        asked = asyncio.Event()

        async def never(request: web.Request) -> web.StreamResponse:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        liar.lies[liar.image.manifest["layers"][1]["digest"]] = never
        pull = asyncio.ensure_future(desk.pull(f"{liar.domain}/app:1"))
        await asked.wait()
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        assert desk.files() == []

    run(tmp_path, scenario)


def test_what_a_crash_left_is_swept_at_start(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        await desk.pull(f"{liar.domain}/app:1")
        kept = desk.files()
        orphan = desk.blobs.put(b"nobody's")
        assert orphan.hex in desk.files()
        await desk.images.open()
        assert desk.files() == kept

    run(tmp_path, scenario)


def test_nothing_is_swept_while_someone_makes_an_image(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        async with desk.images.making():
            half = desk.blobs.put(b"half an image")
            await desk.images.garbage.sweep()
            assert desk.blobs.has(half)
        assert not desk.blobs.has(half)

    run(tmp_path, scenario)


def test_an_asked_for_platform_must_be_the_images(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        with pytest.raises(
            NotFound, match="does not match the specified platform: wanted linux/s390x, actual: linux/arm64"
        ):
            await desk.pull(f"{liar.domain}/app:1", platform=Platform.parse("linux/s390x"))
        await desk.pull(f"{liar.domain}/app:1", platform=Platform.parse("linux/arm64"))

    run(tmp_path, scenario, make_image([BASE], architecture="arm64"))


def _words(desk: Desk) -> list[str]:
    return [line.status for line in desk.lines if line.status.startswith("Status:")]


def test_a_second_pull_is_up_to_date_and_a_moved_tag_is_newer(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        name = f"{liar.domain}/app:1"
        await desk.pull(name)
        await desk.pull(name)
        old = desk.images.find(name)
        liar.image = make_image([BASE])
        await desk.pull(name)
        newer, same = f"Status: Downloaded newer image for {name}", f"Status: Image is up to date for {name}"
        assert _words(desk) == [newer, same, newer]
        assert desk.images.find(name).id != old.id
        assert [image["Id"] for image in desk.images.listing({"dangling": ["true"]}, (1, 44))] == [str(old.id)]

    run(tmp_path, scenario)


async def _two_names(desk: Desk, liar: Liar) -> tuple[str, str]:
    await desk.pull(f"{liar.domain}/app:1")
    desk.images.tag(f"{liar.domain}/app:1", "other", "2")
    return f"{liar.domain}/app:1", "other:2"


def _gone(items: list[Gone]) -> list[str]:
    return [f"-{item.untagged}" if item.untagged else f"x{item.deleted}" for item in items]


def test_removing_one_of_two_names_keeps_the_image(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        first, second = await _two_names(desk, liar)
        assert _gone(await desk.images.remove(second, force=False, prune=True)) == ["-other:2"]
        gone = _gone(await desk.images.remove(first, force=False, prune=True))
        assert gone[0] == f"-{first}" and gone[1].startswith(f"-{liar.domain}/app@sha256:")
        assert len([text for text in gone if text.startswith("x")]) == 3
        assert desk.files() == []

    run(tmp_path, scenario)


def test_removing_by_id_with_names_in_two_repositories_must_be_forced(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        first, _ = await _two_names(desk, liar)
        id = desk.images.find(first).id
        with pytest.raises(Conflict) as failure:
            await desk.images.remove(id.short, force=False, prune=True)
        assert str(failure.value) == (
            f"conflict: unable to delete {id.short} (must be forced) - image is referenced in multiple repositories"
        )
        assert len(await desk.images.remove(id.short, force=True, prune=True)) == 6
        assert desk.files() == []

    run(tmp_path, scenario)


def test_an_image_of_a_running_container_is_never_removed(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        name = f"{liar.domain}/app:1"
        await desk.pull(name)
        id, container = desk.images.find(name).id, desk.use(name, running=True)
        for force in (False, True):
            with pytest.raises(Conflict) as failure:
                await desk.images.remove(id.short, force=force, prune=True)
            assert str(failure.value) == (
                f"conflict: unable to delete {id.short} (cannot be forced) - "
                f"image is being used by running container {container[:12]}"
            )
        with pytest.raises(Conflict, match=r"unable to remove repository reference .* \(must force\) - container"):
            await desk.images.remove(name, force=False, prune=True)
        await desk.images.remove(name, force=True, prune=True)
        assert desk.images.find(id).id == id  # untagged, but there

    run(tmp_path, scenario)


def test_a_stopped_container_keeps_its_layers_when_its_image_is_forced_away(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        name = f"{liar.domain}/app:1"
        await desk.pull(name)
        image, _ = desk.images.find(name), desk.use(name, running=False)
        with pytest.raises(Conflict, match=r"must be forced.*stopped container"):
            await desk.images.remove(image.id.short, force=False, prune=True)
        await desk.images.remove(image.id.short, force=True, prune=True)
        assert desk.store.list() == ()
        assert all(desk.layers.get(chain) for chain in image.chain_ids)
        desk.containers.clear()
        await desk.images.garbage.sweep()
        assert desk.files() == []

    run(tmp_path, scenario)


def test_prune_keeps_what_is_shared_or_used(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        await desk.pull(f"{liar.domain}/app:1")
        liar.image = make_image([BASE])
        await desk.pull(f"{liar.domain}/app:1")  # the first is dangling now, and shares BASE
        gone, freed = await desk.images.prune({})
        assert freed == 7000
        assert any(item.deleted for item in gone)
        assert desk.images.inspect(f"{liar.domain}/app:1", (1, 44))["Size"] == 5000
        desk.use(f"{liar.domain}/app:1", running=False)
        assert await desk.images.prune({"dangling": ["false"]}) == ([], 0)
        desk.containers.clear()
        assert (await desk.images.prune({"dangling": ["false"]}))[1] == 5000
        assert desk.files() == []

    run(tmp_path, scenario)


def test_listing_filters(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        first, second = await _two_names(desk, liar)

        def names(**filters: list[str]) -> list[str]:
            return [tag for image in desk.images.listing(filters, (1, 44)) for tag in image["RepoTags"]]

        assert names() == [first, second]
        assert names(reference=["oth*"]) == names(reference=["other:2"]) == names(reference=["other"]) == [second]
        assert names(reference=["*/app"]) == [first]
        assert names(reference=["*"]) == [second]  # a star stops at a slash
        assert names(dangling=["true"]) == []
        assert names(label=["nosuch"]) == []
        with pytest.raises(InvalidArgument, match="Invalid filter 'nosuch'"):
            names(nosuch=["1"])
        with pytest.raises(NotFound):
            names(before=["nosuch"])
        await desk.images.remove(first, force=True, prune=True)
        await desk.images.remove(second, force=True, prune=True)
        assert desk.images.listing({}, (1, 44)) == []

    run(tmp_path, scenario)


def test_an_image_without_names_says_none_before_api_1_43(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        await desk.pull(f"{liar.domain}/app:1")
        liar.image = make_image([BASE])
        await desk.pull(f"{liar.domain}/app:1")
        for reference in desk.store.references(desk.store.dangling()[0].id):
            desk.store.untag(reference)
        (old,) = desk.images.listing({"dangling": ["true"]}, (1, 41))
        (new,) = desk.images.listing({"dangling": ["true"]}, (1, 44))
        assert (old["RepoTags"], old["RepoDigests"]) == (["<none>:<none>"], ["<none>@<none>"])
        assert (new["RepoTags"], new["RepoDigests"]) == ([], [])

    run(tmp_path, scenario)


def test_save_and_load_round_trip_by_name_and_by_id(tmp_path: Path) -> None:
    async def scenario(desk: Desk, liar: Liar) -> None:
        first, second = await _two_names(desk, liar)
        id = desk.images.find(first).id
        by_name, by_id = io.BytesIO(), io.BytesIO()
        await desk.images.save(["other"], by_name.write)
        await desk.images.save([id.short], by_id.write)
        await desk.images.remove(id, force=True, prune=True)
        assert desk.files() == []
        (loaded,) = await desk.images.load(io.BytesIO(by_name.getvalue()))
        assert (loaded.id, [name.familiar for name in loaded.references]) == (id, [second])
        await desk.images.remove(id, force=True, prune=True)
        (loaded,) = await desk.images.load(io.BytesIO(by_id.getvalue()))
        assert (loaded.id, loaded.references) == (id, ())
        with pytest.raises(MinidockerError):
            await desk.images.load(io.BytesIO(by_id.getvalue()[:9000]))

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("bus*", ["busybox"], ["x/busybox", "abus"]),
        ("b?x", ["box"], ["b/x", "bx"]),
        ("[a-c]x", ["ax", "cx"], ["dx"]),
        ("[^a]x", ["bx"], ["ax"]),
        (r"a\*", ["a*"], ["ab"]),
        ("a.c", ["a.c"], ["abc"]),
    ],
)
def test_reference_patterns_are_those_of_path_match(text: str, yes: list[str], no: list[str]) -> None:
    pattern = image_filters.pattern(text)
    assert all(pattern.match(name) for name in yes)
    assert not any(pattern.match(name) for name in no)


@pytest.mark.parametrize("text", ["[", "[a", "[z-a]"])
def test_a_broken_pattern_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="syntax error in pattern"):
        image_filters.pattern(text)
