"""Interleaved timing: in each round every contestant runs once, so that a slow minute is slow for all."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Run = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One figure: samples by contestant, in `unit`, and the goal as a ratio of ours to a peer's."""

    what: str
    samples: Mapping[str, list[float]]
    unit: str = "ms"
    peer: str | None = None
    goal: float | None = None

    def median(self, name: str) -> float:
        """The middle sample."""
        return statistics.median(self.samples[name])

    @property
    def ratio(self) -> float | None:
        """Ours to the peer's, by medians; None: there is no peer."""
        if self.peer is None or self.peer not in self.samples or "minidocker" not in self.samples:
            return None
        return self.median("minidocker") / self.median(self.peer)

    @property
    def missed(self) -> bool:
        """Is the goal not reached?"""
        return self.goal is not None and self.ratio is not None and self.ratio > self.goal

    def verdict(self) -> str:
        """`0.21 of docker, goal 0.30`, or why there is none."""
        if self.peer is None or self.goal is None:
            return ""
        if self.ratio is None:
            return f"{self.peer} is not installed"
        return f"{self.ratio:.2f} of {self.peer}, goal {self.goal:.2f}{'  MISSED' if self.missed else ''}"


def interleave(what: str, runs: Mapping[str, Run], rounds: int, *, before: Mapping[str, Run] | None = None) -> Row:
    """Time each of `runs` once a round, in milliseconds; a first round that only warms up is not counted.

    before  what is done before a run and is not timed.
    """
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            if before is not None:
                before[name]()
            begin = time.perf_counter()
            run()
            if number:
                samples[name].append((time.perf_counter() - begin) * 1000)
    return Row(what, samples)


def faster(row: Row, *names: str) -> str | None:
    """The quickest of `names` that took part."""
    there = [name for name in names if name in row.samples]
    return min(there, key=row.median) if there else None


def show(rows: list[Row]) -> None:
    """Print `median / best` for each contestant."""
    names = list(dict.fromkeys(name for row in rows for name in row.samples))
    width = max(len(row.what) for row in rows)
    print(f"{'what':<{width}}  " + "  ".join(f"{name:>19}" for name in names) + "  verdict")
    for row in rows:
        cells = [f"{_cell(row, name):>19}" for name in names]
        print(f"{row.what:<{width}}  " + "  ".join(cells) + f"  {row.verdict()}")


def _cell(row: Row, name: str) -> str:
    samples = row.samples.get(name)
    if not samples:
        return "-"
    if len(samples) == 1:
        return f"{samples[0]:.1f} {row.unit}"
    return f"{row.median(name):.1f} / {min(samples):.1f} {row.unit}"


def as_json(rows: list[Row], peers: Mapping[str, str]) -> str:
    """The same for a program. peers  the versions of those that took part."""
    figures = [
        {
            "what": row.what,
            "unit": row.unit,
            "samples": row.samples,
            "peer": row.peer,
            "goal": row.goal,
            "ratio": row.ratio,
            "missed": row.missed,
        }
        for row in rows
    ]
    return json.dumps({"peers": peers, "figures": figures}, indent=2)
