from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.methods import AlignmentOptions
from axes.analysis.methods.alignment import fit_alignment
from axes.analysis.methods.ridge import LAMBDA_GRID, Ridge


def pairs(row_count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((row_count, 20)) * np.logspace(0, 2, 20) + 50
    y = x @ random.standard_normal((20, 12)) + 30 * random.standard_normal((row_count, 12))
    return x.astype(np.float32), y.astype(np.float32)


@pytest.mark.parametrize("policy", ["held_out", "gcv"])
@pytest.mark.parametrize("seed", range(3))
def test_lambda_is_the_one_that_an_alignment_chooses(seed, policy):
    x, y = pairs(60 + 40 * seed, seed)
    options = AlignmentOptions(lambda_policy=policy)
    chosen = Ridge(x, options, seed=seed).choose(y).ridge_lambda
    fit = fit_alignment(x, y, options, seed=seed)
    assert chosen == fit.alignment.ridge_lambda
    assert min(LAMBDA_GRID) < chosen < max(LAMBDA_GRID)


def test_the_first_rows_of_many_are_as_those_rows_alone():
    x, y = pairs(120)
    first = Ridge(x, AlignmentOptions(), seed=3, row_count=50)
    alone = Ridge(x[:50], AlignmentOptions(), seed=3)
    direction = np.arange(20.0)
    assert first.choose(y) == alone.choose(y[:50])
    np.testing.assert_allclose(
        first.path(y, "all").map(direction, 1.0),
        alone.path(y[:50], "all").map(direction, 1.0),
        rtol=1e-9,
    )


def test_a_second_reference_takes_the_first_ones_decomposition_and_the_same_maps():
    x, y = pairs(100)
    other = y[:, ::-1].copy()
    shared = Ridge(x, AlignmentOptions())
    first, second = shared.path(y, "all"), shared.path(other, "all")
    assert second.spectrum is first.spectrum
    alone = Ridge(x, AlignmentOptions()).path(other, "all")
    direction = np.arange(20.0)
    np.testing.assert_allclose(second.map(direction, 10.0), alone.map(direction, 10.0))
