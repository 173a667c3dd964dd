"""Memory of a streaming fit: a million planted rows against a tenth of them.

Each count is a process of its own (`python -m benchmarks.analysis.streaming COUNT`) that makes its
rows block by block, fits ridge with lambda by generalised cross-validation, and prints the kernel's
peak of its memory (VmHWM, everything included) and how near the map is to the one planted. Linux
only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import numpy as np

from axes.analysis.activations import BLOCK_BYTES
from axes.analysis.methods.maps.ridge import LAMBDA_GRID, RidgeFitter
from benchmarks.run import Figure, process_megabytes, python

FEW, MANY, WIDTH = 100_000, 1_000_000, 1_024
MEGABYTES, GROWTH, COSINE = 1_500.0, 1.05, 0.99


def measure(few: int = FEW, many: int = MANY) -> Iterator[Figure]:
    """Peak memory in MB, its growth with the rows, and the cosine with the planted map."""
    (few_peak, _), (many_peak, cosine) = _fit_apart(few), _fit_apart(many)
    conditions = f"{many:,} rows, {WIDTH:,} to {WIDTH:,}"
    yield Figure("streaming fit: peak MB", many_peak, MEGABYTES, "lower", conditions=conditions)
    name, growth = "streaming fit: growth of the peak", many_peak / few_peak
    yield Figure(name, growth, GROWTH, "lower", conditions=f"{many:,} / {few:,} rows")
    name = "streaming fit: cosine with the planted map"
    yield Figure(name, cosine, COSINE, "higher", conditions=conditions)


def _fit_apart(count: int) -> tuple[float, float]:
    peak, cosine = json.loads(python("-m", "benchmarks.analysis.streaming", count)[-1])
    return peak, cosine


def _run(count: int) -> tuple[float, float]:
    """In the process of its own: peak memory in MB, and the cosine of the map with the planted."""
    random = np.random.default_rng(0)
    planted = random.standard_normal((WIDTH, WIDTH), dtype=np.float32) / np.sqrt(WIDTH)
    fitter = RidgeFitter(WIDTH, WIDTH)
    step = BLOCK_BYTES // (4 * WIDTH)
    for start in range(0, count, step):
        rows = min(step, count - start)
        x = random.standard_normal((rows, WIDTH), dtype=np.float32) + 10
        fitter.update(x, x @ planted + random.standard_normal((rows, WIDTH), dtype=np.float32))
    path = fitter.path()
    best = LAMBDA_GRID[int(np.argmin(path.cross_validated_errors()))]
    weights = path.solve(best).weights
    cosine = (weights * planted).sum() / np.linalg.norm(weights) / np.linalg.norm(planted)
    return process_megabytes("VmHWM"), float(cosine)


if __name__ == "__main__":
    print(json.dumps(_run(int(sys.argv[1]))))
