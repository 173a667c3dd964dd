from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.methods.gradient import Shape, choose_epochs, train
from tests.analysis.pairs import pairs

ALL = np.ones(600, dtype=bool)


def explained(alignment, x, y) -> float:
    return 1 - np.square(alignment.apply(x) - y).sum() / np.square(y - y.mean(axis=0)).sum()


@pytest.mark.parametrize("shape", [Shape(), Shape(rank=7)], ids=["full", "factors"])
def test_a_linear_relation_is_learnt(shape):
    x, y = pairs(600, noise=0.01, offset=100.0)
    assert explained(train(x, y, ALL, shape, 150), x, y) > 0.99


def test_the_rank_is_at_most_k():
    x, y = pairs(600)
    weights = train(x, y, ALL, Shape(rank=3), 30).weights
    assert np.linalg.matrix_rank(weights, tol=1e-5 * np.abs(weights).max()) == 3


def test_a_hidden_layer_learns_what_no_line_can():
    random = np.random.default_rng(1)
    x = random.standard_normal((600, 4))
    y = np.abs(x)
    straight, bent = (train(x, y, ALL, shape, 120) for shape in (Shape(), Shape(hidden_width=64)))
    assert explained(straight, x, y) < 0.1
    assert explained(bent, x, y) > 0.7


def test_the_rates_are_the_share_of_fitted_rows_on_which_a_unit_is_on():
    x, y = pairs(600)
    where = np.arange(600) < 400
    hidden = train(x, y, where, Shape(hidden_width=8), 3).hidden
    assert hidden is not None
    on = x[where] @ hidden.weights + hidden.intercept > 0
    np.testing.assert_allclose(hidden.rates, on.mean(axis=0))


def test_no_epoch_gives_the_mean_and_the_seed_decides_the_rest():
    x, y = pairs(600)
    untrained = train(x, y, ALL, Shape(), 0)
    np.testing.assert_allclose(untrained.apply(x[:2]), [y.mean(axis=0)] * 2)
    one, same, other = (train(x, y, ALL, Shape(), 2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.weights, same.weights)
    assert (one.weights != other.weights).any()


def test_training_stops_early_where_there_is_nothing_to_learn():
    x, y = pairs(600)
    noise = np.random.default_rng(2).standard_normal(y.shape)
    fitted = np.arange(600) % 5 > 0
    assert choose_epochs(x, noise, fitted, ~fitted, Shape()) < 10
    assert choose_epochs(x, y, fitted, ~fitted, Shape()) > 50
