"""The cache's decision, and the context that its sums come from: data, without a daemon."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from minidocker.build import cache, sources
from minidocker.build.context import Context
from minidocker.build.layering import _strip
from minidocker.errors import Breakout, InvalidArgument, NotFound
from minidocker.oci.digest import Digest
from minidocker.oci.image_config import ExecutionConfig, History, ImageConfig, RootFS
from minidocker.storage.images import Image


def image(number: int, compared: ExecutionConfig | None) -> Image:
    config = ImageConfig("amd64", "linux", RootFS(), container_config=compared)
    return Image(Digest(f"sha256:{number:064x}"), config)


def wanted(*words: str, **more: Any) -> ExecutionConfig:
    return ExecutionConfig(cmd=list(words), **more)


def test_the_newest_equal_step_hits() -> None:
    candidates = [image(1, None), image(2, wanted("a")), image(3, wanted("a"))]
    decision = cache.decide("RUN a", None, wanted("a"), candidates)
    assert decision.hit == str(candidates[1].id) and decision.differences == ()


def test_a_miss_names_the_nearest_step_and_the_difference() -> None:
    near = wanted("/bin/sh", "-c", "#(nop) COPY file:aaa in / ")
    far = wanted("other", env=["A=1"], user="x")
    now = wanted("/bin/sh", "-c", "#(nop) COPY file:bbb in / ")
    decision = cache.decide("COPY", None, now, [image(1, far), image(2, near)])
    assert decision.hit == "" and decision.nearest == str(image(2, near).id)
    assert decision.reason == "what is copied has changed"
    assert [(d.field, d.wanted.split()[4]) for d in decision.differences] == [("cmd", "file:bbb")]


@pytest.mark.parametrize("field", ["user", "env", "labels", "exposed_ports", "entrypoint", "volumes"])
def test_every_compared_field_counts(field: str) -> None:
    value: Any = "x" if field == "user" else ["x"] if field in ("env", "entrypoint") else {"x": {}}
    decision = cache.decide("RUN a", None, wanted("a", **{field: value}), [image(1, wanted("a"))])
    assert decision.hit == "" and field in decision.reason


def test_nothing_built_before_is_told() -> None:
    assert cache.decide("RUN a", None, wanted("a"), []).reason == "nothing was built on this parent before"


def test_an_image_continues_another_only_with_its_history_and_layers() -> None:
    def config(*steps: str) -> ImageConfig:
        layers = [Digest.of(step.encode()) for step in steps]
        return ImageConfig("amd64", "linux", RootFS(diff_ids=layers), history=[History(created_by=s) for s in steps])

    assert cache.continues(config("a", "b"), config("a"))
    assert not cache.continues(config("a"), config("a"))
    assert not cache.continues(config("x", "b"), config("a"))
    assert cache.same_step(config("a", "b"), config("a"), wanted("b"))


def context(tmp_path: Path, *members: tuple[str, bytes, dict[str, Any]]) -> Context:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content, more in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in more.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content))
    buffer.seek(0)
    return Context(buffer, tmp_path)


def test_a_sum_tells_content_mode_owner_link_and_name_but_no_time(tmp_path: Path) -> None:
    def sum_of(**more: Any) -> str:
        content = more.pop("content", b"x")
        made = context(tmp_path, ("d/f", content, {"mode": 0o644, **more}))
        return sources.in_context(made, "d")[0].sum

    assert sum_of() == sum_of(mtime=123456)
    assert len({sum_of(), sum_of(content=b"y"), sum_of(mode=0o600), sum_of(uid=1), sum_of(gid=1)}) == 5


def test_a_link_within_a_directory_counts_as_link(tmp_path: Path) -> None:
    def sum_of(target: str) -> str:
        more = {"type": tarfile.SYMTYPE, "linkname": target}
        return sources.in_context(context(tmp_path, ("d/l", b"", more)), "d")[0].sum

    assert sum_of("a") != sum_of("b")


def test_links_are_resolved_within_the_context(tmp_path: Path) -> None:
    def symlink(target: str) -> dict[str, Any]:
        return {"type": tarfile.SYMTYPE, "linkname": target}

    made = context(tmp_path, ("d/f", b"in", {}), ("abs", b"", symlink("/d/f")), ("rel", b"", symlink("../../d/f")),
                   ("dir", b"", symlink("d")), ("loop", b"", symlink("loop")), ("out", b"", symlink("/etc/passwd")),
                   ("dir/g", b"through", {}))  # fmt: skip
    assert [made.read(name, 99) for name in ("abs", "rel", "dir/f", "d/g")] == [b"in", b"in", b"in", b"through"]
    with pytest.raises(NotFound):
        made.find("out")
    with pytest.raises(InvalidArgument, match="forbidden path outside the build context"):
        made.find("loop")
    with pytest.raises(Breakout):
        sources.in_context(made, "../x")


def test_a_later_entry_replaces_an_earlier_one(tmp_path: Path) -> None:
    directory = ("d", b"", {"type": tarfile.DIRTYPE})
    made = context(tmp_path, ("f", b"old", {}), ("d/a", b"", {}), ("f", b"new", {}), directory)
    assert made.read("f", 9) == b"new" and [name for name, _ in made.walk()] == ["d", "d/a", "f"]


def test_a_context_takes_no_name_on_disk(tmp_path: Path) -> None:
    made = context(tmp_path, ("f", b"x", {}))
    assert list(tmp_path.iterdir()) == []
    made.close()
    made.close()


def test_mount_points_of_the_runtime_are_taken_out_of_a_layer(tmp_path: Path) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for root in (upper, lower):
        (root / "etc").mkdir(parents=True)
    (upper / "etc/hosts").write_text("")
    (upper / "dev").mkdir()
    (upper / "proc").mkdir()
    (upper / "proc/mine").write_text("kept")
    _strip(upper, [lower])
    assert sorted(str(path.relative_to(upper)) for path in upper.rglob("*")) == ["proc", "proc/mine"]


def test_what_a_step_put_there_stays(tmp_path: Path) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for root in (upper, lower):
        (root / "etc").mkdir(parents=True)
    (upper / "etc/hosts").write_text("127.0.0.1 me\n")
    (upper / "sys").symlink_to("/")
    _strip(upper, [lower])
    assert (upper / "etc/hosts").exists() and (upper / "sys").is_symlink()
    (upper / "etc/hosts").unlink()
    os.chmod(upper / "etc", 0o700)
    _strip(upper, [lower])
    assert (upper / "etc").exists(), "its mode is a change"
