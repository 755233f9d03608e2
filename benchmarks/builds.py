"""The figures of build: six steps and a thousand files, all anew and all from the cache.

Rules   - the same context for every engine; podman's builder is left out, since it keeps no such cache by default.
        - docker builds with its classic builder, which is what our API serves.
"""

import os
from functools import partial
from pathlib import Path

from benchmarks.contestants import Engine, Podman
from benchmarks.table import Row, interleave

FILES, FILE_BYTES = 1000, 3000
DOCKERFILE = """FROM busybox
WORKDIR /app
COPY src /app/src
RUN echo built > /app/out
ENV A=1
CMD ["sh"]
"""


def write_context(root: Path) -> None:
    """The context's files, each with a text of its own."""
    (root / "src").mkdir(parents=True)
    for number in range(FILES):
        (root / "src" / f"file{number}").write_text((f"line of file {number}\n" * 200)[:FILE_BYTES])
    (root / "Dockerfile").write_text(DOCKERFILE)


def build(engines: list[Engine], rounds: int, root: Path) -> list[Row]:
    """Uncached and cached, command line to command line."""
    context = root / "context"
    write_context(context)
    builders = [engine for engine in engines if not isinstance(engine, Podman)]
    for engine in builders:
        engine.environment = {**engine.environment, "DOCKER_BUILDKIT": "0"}
    peace = {engine.name: os.sync for engine in builders}
    rows = []
    for what, options, goal in (("build of 6 steps, 1,000 files", ["--no-cache"], 0.25), ("the same, cached", [], 0.2)):
        runs = {e.name: partial(e.run, "build", "-q", *options, "-t", "bench", str(context)) for e in builders}
        row = interleave(what, runs, rounds, before=peace)
        rows.append(Row(row.what, row.samples, peer="docker", goal=goal))
    return rows
