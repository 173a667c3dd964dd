from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.methods.maps.affine_map import Alignment, HiddenLayer
from axes.analysis.methods.maps.ridge import RidgePath
from axes.warehouse.errors import AxisError
from tests.analysis.pairs import pairs


def with_hidden_layer(seed: int = 0) -> Alignment:
    random = np.random.default_rng(seed)
    hidden = HiddenLayer(
        random.standard_normal((5, 9)),
        random.standard_normal(9),
        random.standard_normal((9, 3)),
        random.random(9),
    )
    return Alignment(random.standard_normal((5, 3)), random.standard_normal(3), None, hidden)


def test_pulling_an_axis_back_equals_carrying_the_rows_over():
    x, y = pairs()
    alignment, axis = RidgePath.of_rows(x, y).solve(5.0), np.random.default_rng(4).random(7)
    vector, offset = alignment.pull_back(axis)
    np.testing.assert_allclose(alignment.apply(x) @ axis, x @ vector + offset, rtol=1e-9)
    np.testing.assert_allclose(alignment.project(x, axis), x @ vector + offset, rtol=1e-9)


def test_rows_are_projected_through_a_hidden_layer_and_no_axis_is_pulled_back():
    alignment, random = with_hidden_layer(), np.random.default_rng(1)
    x, axis = random.standard_normal((20, 5)), random.standard_normal(3)
    np.testing.assert_allclose(alignment.project(x, axis), alignment.apply(x) @ axis)
    with pytest.raises(AxisError, match="not affine"):
        alignment.pull_back(axis)


def test_the_mean_jacobian_is_the_mean_of_small_differences():
    """With the rates of the rows themselves, by central differences at every row."""
    alignment, random = with_hidden_layer(), np.random.default_rng(2)
    x, direction = random.standard_normal((400, 5)), random.standard_normal(5)
    assert alignment.hidden is not None
    on = x @ alignment.hidden.weights + alignment.hidden.intercept > 0
    hidden = HiddenLayer(
        alignment.hidden.weights,
        alignment.hidden.intercept,
        alignment.hidden.output,
        on.mean(axis=0),
    )
    alignment = Alignment(alignment.weights, alignment.intercept, None, hidden)
    step = 1e-7 * direction
    mean = (alignment.apply(x + step) - alignment.apply(x - step)).mean(axis=0) / 2e-7
    np.testing.assert_allclose(alignment.map(direction), mean, rtol=1e-3)


def test_the_effective_rank_counts_equal_singular_values_and_leaves_out_small_ones():
    def rank(*values: float) -> float:
        return Alignment(np.diag(values), np.zeros(len(values)), None).effective_rank

    assert rank(2.0, 2.0, 2.0) == pytest.approx(3)
    assert rank(2.0, 2.0, 1e-3) == pytest.approx(2, abs=1e-5)
    assert rank(0.0, 0.0) == 0.0
    wide = Alignment(np.eye(3, 8), np.zeros(8), None)
    assert wide.effective_rank == pytest.approx(3)
