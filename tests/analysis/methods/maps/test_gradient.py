from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.methods import AlignmentOptions
from axes.analysis.methods.maps.alignment import Choice
from axes.analysis.methods.maps.gradient import Gradient
from tests.analysis.pairs import pairs


def procedure(x: np.ndarray, seed: int = 0, **shape: int) -> Gradient:
    return Gradient(x, AlignmentOptions("gradient", **shape), seed=seed)


def trained(x: np.ndarray, y: np.ndarray, epochs: int, part: str = "all", **options: int):
    return procedure(x, **options).solve(y, part, Choice(epochs=epochs))


def explained(alignment, x, y) -> float:
    return 1 - np.square(alignment.apply(x) - y).sum() / np.square(y - y.mean(axis=0)).sum()


@pytest.mark.parametrize("shape", [{}, {"rank": 7}], ids=["full", "factors"])
def test_a_linear_relation_is_learnt(shape):
    x, y = pairs(600, noise=0.01, offset=100.0)
    assert explained(trained(x, y, 80, **shape), x, y) > 0.99


def test_the_rank_is_at_most_k():
    x, y = pairs(600)
    weights = trained(x, y, 30, rank=3).weights
    assert np.linalg.matrix_rank(weights, tol=1e-5 * np.abs(weights).max()) == 3


def test_a_hidden_layer_learns_what_no_line_can():
    x = np.random.default_rng(1).standard_normal((400, 4))
    y = np.abs(x)
    assert explained(trained(x, y, 40), x, y) < 0.1
    assert explained(trained(x, y, 100, hidden_width=32), x, y) > 0.5


def test_the_rates_are_the_share_of_fitted_rows_on_which_a_unit_is_on():
    x, y = pairs(600)
    hidden = trained(x, y, 3, "seen", hidden_width=8).hidden
    assert hidden is not None
    on = x[procedure(x).parts["seen"]] @ hidden.weights + hidden.intercept > 0
    np.testing.assert_allclose(hidden.rates, on.mean(axis=0))


def test_no_epoch_gives_the_mean_and_the_seed_decides_the_rest():
    x, y = pairs(600)
    np.testing.assert_allclose(trained(x, y, 0).apply(x[:2]), [y.mean(axis=0)] * 2)
    one, same, other = (trained(x, y, 2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.weights, same.weights)
    assert (one.weights != other.weights).any()


def test_training_stops_early_where_there_is_nothing_to_learn():
    x, y = pairs(600)
    noise = np.random.default_rng(2).standard_normal(y.shape)
    assert procedure(x).choose(noise).epochs == 0 < 50 < procedure(x).choose(y).epochs
