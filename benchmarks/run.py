"""`make bench [ONLY=name]`: run a benchmark, print its figures and keep them as JSON.

A benchmark is a module, or a package of them, with `measure() -> Iterable[Figure]`; a part of a
package runs alone as `ONLY=ingest.memory`. Figures are ratios measured side by side in one run,
over rounds that alternate: machines differ and are noisy, ratios hold.
"""

from __future__ import annotations

import gc
import importlib
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from axes.analysis.stats.bootstrap import percentile_interval
from axes.warehouse.render import show

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Figure:
    """A measured figure, with the lowest and highest round, or an interval, of several rounds.

    `better` says which side of the goal is the good one; without a goal it is only reported.
    `conditions` says on what it was measured.
    """

    name: str
    value: float
    goal: float | None
    better: str
    low: float | None = None
    high: float | None = None
    conditions: str = ""

    @property
    def holds(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value <= self.goal if self.better == "lower" else self.value >= self.goal


def median_figure(
    name: str, rounds: Sequence[float], goal: float | None, better: str, conditions: str = ""
) -> Figure:
    """The median of the rounds, and their range."""
    median = statistics.median(rounds)
    return Figure(name, median, goal, better, min(rounds), max(rounds), conditions)


def interval_figure(
    name: str, rounds: Sequence[float], goal: float | None, better: str, conditions: str
) -> Figure:
    """The median of the rounds with its 95 % interval, by resampling rounds."""
    drawn = np.random.default_rng(0).choice(rounds, (2_000, len(rounds)))
    found = percentile_interval(statistics.median(rounds), np.median(drawn, axis=1))
    conditions += f"; 95 % interval of {len(rounds)} rounds"
    return Figure(name, found.estimate, goal, better, found.lower, found.upper, conditions)


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round: what disturbs the machine for longer than a round disturbs both alike."""
    return [upper / lower for upper, lower in zip(above, below, strict=True)]


def alternate(round_count: int, *timed: Callable[[], float]) -> list[list[float]]:
    """The seconds that each of `timed` reports, in rounds of all; every other round backwards."""
    seconds: list[list[float]] = [[] for _ in timed]
    for turn in range(round_count):
        for index in range(len(timed))[:: 1 if turn % 2 == 0 else -1]:
            gc.collect()
            seconds[index].append(timed[index]())
        print(f"  round {turn + 1}: {[round(each[-1], 2) for each in seconds]}", file=sys.stderr)
    return seconds


def seconds(call: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def python(*arguments: object) -> list[str]:
    """The lines that a Python process of its own prints."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()


def process_megabytes(field: str) -> float:
    """`VmRSS` (memory now) or `VmHWM` (its peak) of this process. Linux only."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1]) / 1024


def names() -> list[str]:
    """The benchmarks there are; a part of a package is PACKAGE.PART."""
    found = []
    for path in sorted(FOLDER.rglob("*.py")):
        if "\ndef measure(" in path.read_text():
            parts = path.relative_to(FOLDER).with_suffix("").parts
            found.append(".".join(part for part in parts if part != "__init__"))
    return found


def run(name: str) -> None:
    """Run one benchmark, print its table and write benchmarks/results/<name>.json."""
    measure: Callable[[], Iterable[Figure]] = importlib.import_module(f"benchmarks.{name}").measure
    figures = []
    for figure in measure():
        figures.append({**asdict(figure), "holds": figure.holds})
        print(f"{figure.name}: {figure.value:.3g}", file=sys.stderr)
    if not figures:  # It has said why.
        return
    target = FOLDER / "results" / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(figures, indent=2) + "\n")
    show(pa.Table.from_pylist(figures), "table")


def main(wanted: list[str]) -> int:
    """Run the benchmarks named, or all."""
    unknown = set(wanted) - set(names())
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(names())}", file=sys.stderr)
        return 2
    for name in wanted or [name for name in names() if "." not in name]:
        run(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
