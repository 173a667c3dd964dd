from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.methods.directions import unit
from axes.analysis.methods.universal import singular_value_gap, universal_axis


def test_alike_directions_give_themselves():
    direction = unit(np.random.default_rng(0).standard_normal(9)).vector
    shared = universal_axis(np.stack([direction] * 4))
    assert shared.vector @ direction == pytest.approx(1)
    np.testing.assert_allclose(shared.singular_values, [2, 0, 0, 0], atol=1e-12)


def test_a_shared_part_is_found_under_parts_of_their_own():
    random = np.random.default_rng(1)
    planted = unit(random.standard_normal(300)).vector
    own = [unit(random.standard_normal(300)).vector for _ in range(6)]
    directions = np.stack([unit(2 * planted + noise).vector for noise in own])
    assert universal_axis(directions).vector @ planted > 0.97


def test_the_sign_follows_the_directions():
    random = np.random.default_rng(2)
    directions = np.stack([unit(random.standard_normal(5) + 2).vector for _ in range(3)])
    assert (directions @ universal_axis(directions).vector).mean() > 0
    np.testing.assert_allclose(
        universal_axis(-directions).vector, -universal_axis(directions).vector, atol=1e-12
    )


def test_the_order_of_models_does_not_matter():
    random = np.random.default_rng(3)
    directions = np.stack([unit(random.standard_normal(5) + 1).vector for _ in range(4)])
    np.testing.assert_allclose(
        universal_axis(directions[::-1]).vector, universal_axis(directions).vector, atol=1e-10
    )


def test_unrelated_directions_share_no_more_than_chance():
    """Singular values of k random unit vectors in a wide space lie close to 1."""
    random = np.random.default_rng(4)
    directions = np.stack([unit(random.standard_normal(2000)).vector for _ in range(4)])
    assert universal_axis(directions).singular_values[0] < 1.1


def test_one_model_is_its_own_axis():
    direction = unit(np.array([0.0, -3.0])).vector
    np.testing.assert_allclose(universal_axis(direction[None, :]).vector, direction)


@pytest.mark.parametrize("method", ["svd", "mean"])
def test_the_weights_make_the_axis(method):
    random = np.random.default_rng(5)
    directions = np.stack([unit(random.standard_normal(9) + 0.5).vector for _ in range(4)])
    shared = universal_axis(directions, method)
    np.testing.assert_allclose(shared.weights @ directions, shared.vector, atol=1e-12)
    assert np.linalg.norm(shared.vector) == pytest.approx(1)


def test_a_model_that_points_the_other_way_has_a_negative_weight_in_the_svd_only():
    random = np.random.default_rng(6)
    planted = unit(random.standard_normal(50)).vector
    signs = np.array([1, 1, 1, -1])
    directions = np.stack(
        [unit(sign * planted + 0.02 * random.standard_normal(50)).vector for sign in signs]
    )
    by_svd, by_mean = (universal_axis(directions, method) for method in ("svd", "mean"))
    assert (np.sign(by_svd.weights) == signs).all() and (by_mean.weights > 0).all()
    assert min(by_svd.vector @ planted, by_mean.vector @ planted) > 0.97


def test_the_gap_is_the_first_singular_value_less_the_second():
    np.testing.assert_allclose(
        singular_value_gap(np.array([[3.0, 1.0, 0.5], [2.0, 2.0, 0.0]])), [2.0, 0.0]
    )
