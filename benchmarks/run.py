"""`make bench [ONLY=name]`: run benchmarks/<name>.py, print its figures and keep them as JSON.

A benchmark has `measure() -> list[Figure]`. Figures are ratios measured side by side in one run:
machines differ and are noisy, ratios hold.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from warehouse.render import show

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Figure:
    """A measured figure; `better` says which side of the goal is the good one."""

    name: str
    value: float
    goal: float
    better: str

    @property
    def holds(self) -> bool:
        return self.value <= self.goal if self.better == "lower" else self.value >= self.goal


def names() -> list[str]:
    """The benchmarks there are."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "run"))


def run(name: str) -> None:
    """Run one benchmark, print its table and write benchmarks/results/<name>.json."""
    measure: Callable[[], list[Figure]] = importlib.import_module(f"benchmarks.{name}").measure
    figures = [{**asdict(figure), "holds": figure.holds} for figure in measure()]
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
    for name in wanted or names():
        run(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
