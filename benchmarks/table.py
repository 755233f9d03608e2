"""Interleaved timing: in each round every contestant runs once, so that a slow minute is slow for all."""

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

    def verdict(self) -> str:
        """`0.21 of docker, goal 0.30`, or why there is none."""
        if self.peer is None or self.goal is None:
            return ""
        if self.peer not in self.samples:
            return f"{self.peer} is not installed"
        ratio = self.median("minidocker") / self.median(self.peer)
        return f"{ratio:.2f} of {self.peer}, goal {self.goal:.2f}{'' if ratio <= self.goal else '  MISSED'}"


def interleave(what: str, runs: Mapping[str, Run], rounds: int, **goal: object) -> Row:
    """Time each of `runs` once a round, in milliseconds; a first round that only warms up is not counted."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if number:
                samples[name].append((time.perf_counter() - begin) * 1000)
    return Row(what, samples, **goal)  # type: ignore[arg-type]


def faster(row: Row, *names: str) -> str | None:
    """The quickest of `names` that took part."""
    there = [name for name in names if name in row.samples]
    return min(there, key=row.median) if there else None


def show(rows: list[Row]) -> None:
    """Print `median / best` for each contestant."""
    names = list(dict.fromkeys(name for row in rows for name in row.samples))
    width = max(len(row.what) for row in rows)
    print(f"\n{'what':<{width}}  " + "  ".join(f"{name:>17}" for name in names) + "  verdict")
    for row in rows:
        cells = []
        for name in names:
            samples = row.samples.get(name)
            text = f"{row.median(name):.1f} / {min(samples):.1f} {row.unit}" if samples else "-"
            cells.append(f"{text:>17}")
        print(f"{row.what:<{width}}  " + "  ".join(cells) + f"  {row.verdict()}")
