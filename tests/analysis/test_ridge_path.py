from __future__ import annotations

import numpy as np
import pytest

from analysis.alignment import fit_alignment
from analysis.ridge import LAMBDA_GRID
from analysis.ridge_path import RidgePaths


def pairs(row_count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((row_count, 20)) * np.logspace(0, 2, 20) + 50
    y = x @ random.standard_normal((20, 12)) + 30 * random.standard_normal((row_count, 12))
    return x.astype(np.float32), y.astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_lambda_is_the_one_that_an_alignment_chooses(seed):
    x, y = pairs(60 + 40 * seed, seed)
    _, chosen = RidgePaths(x, seed=seed).path(y)
    assert chosen == fit_alignment(x, y, seed=seed).alignment.ridge_lambda
    assert min(LAMBDA_GRID) < chosen < max(LAMBDA_GRID)


def test_the_first_rows_of_many_are_as_those_rows_alone():
    x, y = pairs(120)
    path, chosen = RidgePaths(x, 50, seed=3).path(y)
    alone, chosen_alone = RidgePaths(x[:50], seed=3).path(y[:50])
    direction = np.arange(20.0)
    assert chosen == chosen_alone
    np.testing.assert_allclose(path.carry(direction, 1.0), alone.carry(direction, 1.0), rtol=1e-9)


def test_one_decomposition_serves_every_reference():
    x, y = pairs(120)
    paths, other = RidgePaths(x), y[::-1].copy()
    first, (again, chosen) = paths.path(y)[0], paths.path(other)
    assert again.spectrum is first.spectrum
    alone, chosen_alone = RidgePaths(x).path(other)
    assert chosen == chosen_alone
    np.testing.assert_allclose(again.rotated, alone.rotated, rtol=1e-8, atol=1e-4)
