"""`make bench [ONLY=name]`: run a benchmark, print its figures and write docs/measurements.md.

A benchmark is a module with `measure() -> Iterable[Figure]`, such as `ONLY=ingest.memory`; the name
of a package stands for all in it. Figures are ratios measured side by side in one run, over rounds
that alternate: machines differ and are noisy, ratios hold.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from axes.analysis.stats.bootstrap import percentile_interval
from axes.warehouse.render import show

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
PAGE = FOLDER.parent / "docs" / "measurements.md"
# They take long, and write pages of their own: each runs by its name only.
CAMPAIGNS = ("faults", "faults.cluster", "worlds")
PACKAGES = ("torch", "transformers", "duckdb", "pyarrow", "numpy", "scikit-learn")

_INTRODUCTION = """\
<!-- Written by benchmarks/run.py (make bench); edit the source, not this file. -->

# Measurements

Every figure of the benchmarks as it was last measured: `make bench` writes this page, `make bench
ONLY=NAME` one section of it. A figure is a ratio measured side by side within one run unless its
name says a unit. The range is that of the rounds, or a 95 % interval where the conditions say so.
The load is the average of the minute before the run: much above 0, other work ran beside it.
[What commands cost](costs.md) says what they mean and what limits those that miss their goal.
"""


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
    """The benchmarks there are; one in a package is PACKAGE.NAME."""
    found = []
    for path in sorted(FOLDER.rglob("*.py")):
        if "\ndef measure(" in path.read_text():
            parts = path.relative_to(FOLDER).with_suffix("").parts
            found.append(".".join(part for part in parts if part != "__init__"))
    return found


def run(name: str) -> None:
    """Run one benchmark, print its table, and write it to benchmarks/results and the page."""
    measure: Callable[[], Iterable[Figure]] = importlib.import_module(f"benchmarks.{name}").measure
    load, start, figures = os.getloadavg()[0], time.perf_counter(), []
    for figure in measure():
        figures.append({**asdict(figure), "holds": figure.holds})
        print(f"{figure.name}: {figure.value:.3g}", file=sys.stderr)
    if not figures:  # It has said why.
        return
    result = {
        "measured": f"{date.today()}",
        "seconds": round(time.perf_counter() - start),
        "load": round(load, 1),
        "machine": machine(),
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    PAGE.write_text(page(RESULTS))
    show(pa.Table.from_pylist(figures), "table")


def machine() -> str:
    """The processor, its cores and memory, and the versions that a figure depends on."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"{package} {importlib.metadata.version(package)}" for package in PACKAGES]
    return ", ".join(
        [
            f"{len(os.sched_getaffinity(0))} cores of {model[1] if model else platform.machine()}",
            f"{memory:.0f} GiB",
            f"Python {platform.python_version()}",
            *versions,
        ]
    )


def page(results: Path) -> str:
    """All results as Markdown, a section for each benchmark."""
    sections = [_INTRODUCTION]
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text())
        sections.append(
            f"## {path.stem}\n\n`make bench ONLY={path.stem}`, {result['measured']}, "
            f"{result['seconds']} s, load {result['load']}. {result['machine']}.\n\n"
            "| measurement | value | range | goal | holds | conditions |\n"
            "| --- | --- | --- | --- | --- | --- |\n" + "".join(map(_page_row, result["figures"]))
        )
    return "\n".join(sections)


def _page_row(figure: Mapping[str, Any]) -> str:
    low, high, goal, holds = (figure[name] for name in ("low", "high", "goal", "holds"))
    cells = [
        figure["name"],
        f"{figure['value']:.4g}",
        "" if low is None else f"{low:.4g} to {high:.4g}",
        "" if goal is None else f"{'<=' if figure['better'] == 'lower' else '>='} {goal:g}",
        {None: "", True: "yes", False: "no"}[holds],
        figure["conditions"],
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def chosen(wanted: Sequence[str]) -> list[str]:
    """The benchmarks of some names, or all but the campaigns; raises `LookupError` for no name."""
    if not wanted:
        return [name for name in names() if name not in CAMPAIGNS]
    found = []
    for given in wanted:
        parts = [name for name in names() if name.startswith(f"{given}.")]
        if given not in names() and not parts:
            raise LookupError(f"no benchmark {given}; there are {', '.join(names())}")
        found += [given] if given in names() else parts
    return found


def main(wanted: list[str]) -> int:
    """Run the benchmarks named, or all but the campaigns."""
    try:
        for name in chosen(wanted):
            run(name)
    except LookupError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
