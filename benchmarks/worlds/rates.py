"""A share of seeded worlds in which something happened, with its Monte-Carlo error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Rate:
    """`count` worlds, of which `share` did; it ought to lie between `lowest` and `highest`.

    Without a goal the rate is there for contrast.
    """

    part: str
    name: str
    share: float
    count: int
    lowest: float | None = None
    highest: float | None = None

    @property
    def error(self) -> float:
        """Standard error of the share over so many worlds."""
        return float(np.sqrt(self.share * (1 - self.share) / self.count))

    @property
    def holds(self) -> bool | None:
        if self.lowest is None or self.highest is None:
            return None
        return self.lowest <= self.share <= self.highest

    @property
    def goal(self) -> str:
        if self.lowest is None or self.highest is None:
            return ""
        return f"{self.lowest:g} to {self.highest:g}"


def rate(
    part: str,
    name: str,
    happened: Iterable[bool],
    goal: tuple[float, float] | None = None,
) -> Rate:
    """The share of worlds in which it happened."""
    outcomes = np.array(list(happened), dtype=bool)
    lowest, highest = goal or (None, None)
    return Rate(part, name, float(outcomes.mean()), len(outcomes), lowest, highest)


def over_worlds(world: Callable[[int], Outcome], count: int, *, first_seed: int) -> list[Outcome]:
    """What `world(seed)` gives for `count` seeds in order, on every core where they are many."""
    seeds: Sequence[int] = range(first_seed, first_seed + count)
    workers = os.cpu_count() or 1
    if workers == 1 or count < 100:
        return [world(seed) for seed in seeds]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(world, seeds, chunksize=max(count // (8 * workers), 1)))
