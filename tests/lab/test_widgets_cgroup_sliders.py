"""The sliders ask the engine, and the curves are what the kernel counts."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from minidocker.client import connect
from minidocker.client.containers import Container
from minidocker.errors import NotFound
from minidocker.lab import session
from minidocker.lab.diagrams.cgroups import cpu_limit
from minidocker.lab.widgets import cgroup_sliders
from minidocker.lab.widgets.cgroup_sliders import CgroupSliders
from minidocker.linux.cgroups import controllers

pytestmark = [
    pytest.mark.needs_daemon,
    pytest.mark.skipif(not {"cpu", "memory"} <= set(controllers()), reason="needs the controllers cpu and memory"),
]
MIB = 1 << 20


@pytest.fixture
def load() -> Iterator[Container]:
    """A container that spins, at 50% of a processor and 64 MiB."""
    container = connect().containers.run(
        "busybox",
        ["sh", "-c", "while :; do :; done"],
        detach=True,
        labels=session.begin(connect()),
        nano_cpus=500_000_000,
        memory_bytes=64 * MIB,
        memory_swap_bytes=64 * MIB,
        shm_size_bytes=256 * MIB,
    )
    try:
        yield container
    finally:
        with contextlib.suppress(NotFound):  # some tests remove it themselves
            container.remove(force=True)


@pytest.fixture
def sliders(load: Container) -> Iterator[CgroupSliders]:
    made = CgroupSliders(load)
    yield made
    made.close()


def _widget(sliders: CgroupSliders) -> tuple[Any, ...]:
    pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install minidocker[notebooks]")
    cpu, memory, buttons, words, area = sliders.widget().children
    return cpu, memory, *buttons.children, words, area


def test_moving_a_slider_changes_the_kernels_limit(sliders: CgroupSliders) -> None:
    cpu, memory, _, _, words, area = _widget(sliders)
    assert (cpu.value, memory.value) == (50, 64)
    cpu.value = 20
    assert cpu_limit(sliders.group) == (20_000, 100_000)
    assert words.value == '<span role="status">The engine wrote it: at most 20% of one processor.</span>'
    memory.value = 32
    assert sliders.group.statistics().memory.limit_bytes == 32 * MIB
    assert ">20%</td>" in area.value and ">32 MiB</td>" in area.value


def test_filling_memory_ends_with_a_killed_process_and_not_with_the_container(sliders: CgroupSliders) -> None:
    *_, more, words, _ = _widget(sliders)
    sliders.limit_memory(24)
    more.click()
    assert "It uses 8 MiB more." in words.value
    for _ in range(2):
        more.click()
    assert "the kernel killed 1 process (not the container)" in words.value and sliders.group.oom_kills() == 1
    sliders.container.reload()
    assert sliders.container.status == "running"


def test_what_the_engine_refuses_is_said(sliders: CgroupSliders, load: Container) -> None:
    load.remove(force=True)
    assert sliders.limit_cpu(10).startswith("Refused: ")
    assert not sliders.look() and sliders.said == "The container has ended."


def test_a_loop_at_its_quota_is_drawn_as_throttled(sliders: CgroupSliders) -> None:
    picture = sliders.measure(1.0, 0.25).plot()
    rows = {(panel, curve): (now, largest, limit) for panel, curve, now, largest, limit in picture.rows}
    counted = sliders.group.statistics().cpu
    assert counted.throttled_periods > 0
    assert rows["processor", "periods throttled"][1] != "0%" and rows["processor", "used"][2] == "50%"
    assert rows["memory", "used"][2] == "64 MiB"
    drawn = picture.svg()
    assert drawn.count("<polyline") == 5 and "periods throttled" in drawn and drawn.count(">limit<") == 2


def test_the_thread_looks_while_watch_is_pressed_and_ends_with_the_container(
    sliders: CgroupSliders, load: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup_sliders, "PAUSE_SECONDS", 0.01)
    _, _, watch, _, words, _ = _widget(sliders)
    watch.value = True
    (thread,) = [each for each in threading.enumerate() if each.name == "cgroup sliders"]
    assert thread.daemon and watch.description == "stop watching"
    watch.value = False
    assert not thread.is_alive() and len(sliders.samples) >= 1
    watch.value = True
    (thread,) = [each for each in threading.enumerate() if each.name == "cgroup sliders"]
    load.remove(force=True)
    thread.join(timeout=10)
    assert not thread.is_alive() and watch.value is False and "The container has ended." in words.value


def test_a_closed_widget_looks_no_more(sliders: CgroupSliders, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install minidocker[notebooks]")
    monkeypatch.setattr(cgroup_sliders, "PAUSE_SECONDS", 0.01)
    box = sliders.widget()
    box.children[2].children[0].value = True
    (thread,) = [each for each in threading.enumerate() if each.name == "cgroup sliders"]
    box.close()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_without_ipywidgets_the_curves_are_a_picture(sliders: CgroupSliders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup_sliders, "ipywidgets", None)
    sliders.measure(0.2, 0.1)
    bundle = sliders._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert bundle["text/plain"].startswith("in the last 0 s the container used at most")
