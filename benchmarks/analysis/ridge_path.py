"""Choose lambda and solve, against scikit-learn's `RidgeCV` on the same rows and lambdas.

Planted rows: a low-rank relation with noise, of the shape of a 7B model's alignment. Both choose
among 13 lambdas without held-out rows, by generalised cross-validation here and by leave-one-out
there, and predict with the one chosen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.linear_model import RidgeCV

from axes.analysis.methods.maps.affine_map import Alignment
from axes.analysis.methods.maps.ridge import RidgePath
from benchmarks.run import Figure, alternate, median_figure, ratios, seconds

ROWS, WIDTH, RANK = 3_000, 4_096, 64
LAMBDAS = tuple(float(value) for value in np.logspace(-2, 10, 13))
ROUNDS = 3
FASTER, APART = 5.0, 1e-6


def measure(rows: int = ROWS, width: int = WIDTH, rounds: int = ROUNDS) -> Iterator[Figure]:
    """Times as fast as `RidgeCV`, and the largest difference of a prediction on new rows."""
    x, y = _planted(rows, width, seed=0)
    found: dict[str, Alignment] = {}
    theirs = RidgeCV(LAMBDAS)

    def ours() -> None:
        path = RidgePath.of_rows(x, y)
        best = int(np.argmin(path.cross_validated_errors(LAMBDAS)))
        found["map"] = path.solve(LAMBDAS[best])

    ours_seconds, their_seconds = alternate(
        rounds, lambda: seconds(ours), lambda: seconds(lambda: theirs.fit(x, y))
    )
    conditions = f"{rows:,} rows, {width:,} to {width:,}, {len(LAMBDAS)} lambdas"
    faster = ratios(their_seconds, ours_seconds)
    yield median_figure("ridge path: RidgeCV / ours", faster, FASTER, "higher", conditions)
    new, _ = _planted(200, width, seed=1)
    expected = theirs.predict(new)
    apart = np.abs(found["map"].apply(new) - expected).max() / np.abs(expected).max()
    chosen = found["map"].ridge_lambda
    note = f"lambda {chosen:g} here, {theirs.alpha_:g} there; relative to the largest prediction"
    yield Figure("ridge path: predictions apart", float(apart), APART, "lower", conditions=note)


def _planted(rows: int, width: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows with a spectrum that falls off, and a noisy image of them through few dimensions."""
    relation, random = np.random.default_rng(7), np.random.default_rng(seed + 100)
    inward = relation.standard_normal((width, RANK)) / np.sqrt(width)
    outward = relation.standard_normal((RANK, width))
    x = random.standard_normal((rows, width)) * np.geomspace(30, 0.3, width) + 5.0
    return x, x @ inward @ outward + 20 * random.standard_normal((rows, width))
