"""What the instructor's guide says can be typed as it stands: every demonstration runs on an engine of its own."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker.lab import swap
from minidocker.lab.setup import registry, services

CHECKOUT = Path(__file__).resolve().parents[2]
GUIDE = (CHECKOUT / "docs" / "instructor.md").read_text()
PARTS = dict(part.split("\n", 1) for part in GUIDE.split("\n### ")[1:])
REGISTRY = "127.0.0.1:5050"  # the guide names the course's own

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes containers")


@pytest.fixture(scope="module")
def engine() -> Iterator[swap.Swapped]:
    with swap.engine({}) as running:
        yield running


@pytest.mark.parametrize("title", PARTS)
def test_a_lesson_has_time_demonstration_beliefs_and_an_exam_question(title: str) -> None:
    part = PARTS[title]
    assert re.search(r"^Time: \d\d minutes", part, re.MULTILINE)
    assert part.count("```") == 2
    assert len(re.findall(r"^\| (?!people|---)", part, re.MULTILINE)) >= 3
    assert "**Exam.**" in part and "Answer:" in part


def test_every_lesson_is_in_the_guide() -> None:
    lessons = {path.name[:2] for path in CHECKOUT.glob("notebooks/[0-9]*.ipynb")} - {"00"}
    assert lessons <= {title[:2] for title in PARTS}


@pytest.mark.parametrize("title", PARTS)
def test_a_demonstration_can_be_typed_as_it_stands(title: str, engine: swap.Swapped, tmp_path: Path) -> None:
    script = PARTS[title].split("```sh\n")[1].split("```")[0].replace("sudo ", "").replace("/tmp/demo", f"{tmp_path}/d")
    if REGISTRY in script:
        if shutil.which("docker-registry") is None:
            pytest.skip("needs docker-registry: ./lab setup installs it")
        port = services.free_port(5100)
        registry.start(tmp_path / "registry", port)
        there = f"127.0.0.1:{port}"
        image = f"{there}/busybox"
        first = f"minidocker tag busybox {image} && minidocker push {image} && minidocker rmi {image}\n"
        script = first + script.replace(REGISTRY, there).replace("pull busybox", f"pull {image}")
    environment = os.environ | {
        "DOCKER_HOST": engine.url,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    try:
        done = subprocess.run(
            ["bash", "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
    finally:
        if REGISTRY in PARTS[title]:
            registry.stop(tmp_path / "registry")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rror response" not in done.stdout + done.stderr
    assert engine.client.containers.list(all=True) == []
