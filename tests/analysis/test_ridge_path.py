from __future__ import annotations

import numpy as np
import pytest

from analysis.alignment import fit_alignment
from analysis.ridge import LAMBDA_GRID, RidgeFitter
from analysis.ridge_path import RidgePaths, Spectrum


def pairs(row_count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((row_count, 20)) * np.logspace(0, 2, 20) + 50
    y = x @ random.standard_normal((20, 12)) + 30 * random.standard_normal((row_count, 12))
    return x.astype(np.float32), y.astype(np.float32)


# More rows than dimensions, and fewer.
@pytest.mark.parametrize("row_count", [200, 15])
def test_a_path_carries_and_pulls_back_as_the_fitted_map_of_each_lambda(row_count):
    x, y = pairs(row_count)
    path = Spectrum(x, np.ones(row_count, dtype=bool)).path(y)
    random = np.random.default_rng(1)
    direction, axis = random.standard_normal(20), random.standard_normal(12)
    fitter = RidgeFitter(20, 12).update(x, y)
    for ridge_lambda in (1.0, 1e3, 1e6):
        alignment = fitter.solve(ridge_lambda)
        expected = alignment.carry(direction)
        np.testing.assert_allclose(path.carry(direction, ridge_lambda), expected, rtol=1e-6)
        expected, _ = alignment.pull_back(axis)
        np.testing.assert_allclose(path.pull_back(axis, ridge_lambda), expected, rtol=1e-6)


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


def test_held_out_errors_are_those_of_the_maps():
    x, y = pairs(150)
    fitted = np.arange(150) < 100
    spectrum = Spectrum(x, fitted, ~fitted)
    errors = spectrum.errors(spectrum.path(y), y, (1.0, 1e4))
    fitter = RidgeFitter(20, 12).update(x[fitted], y[fitted])
    for ridge_lambda, error in zip((1.0, 1e4), errors, strict=True):
        missed = fitter.solve(ridge_lambda).apply(x[~fitted]) - y[~fitted]
        assert error == pytest.approx(np.square(missed).sum(), rel=1e-6)
