from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.methods.directions import unit
from axes.analysis.methods.universal import leave_one_out_axes, universal_axis


def drawn(width: int, shift: float, seed: int) -> np.ndarray:
    """Four unit directions."""
    random = np.random.default_rng(seed)
    return np.stack([unit(random.standard_normal(width) + shift).vector for _ in range(4)])


@pytest.mark.parametrize("count", [1, 4])
def test_alike_directions_give_themselves(count):
    direction = unit(np.random.default_rng(0).standard_normal(9)).vector
    shared = universal_axis(np.stack([direction] * count))
    assert shared.vector @ direction == pytest.approx(1)
    expected = [count**0.5] + [0.0] * (count - 1)
    np.testing.assert_allclose(shared.singular_values, expected, atol=1e-12)


def test_the_sign_follows_the_directions_whatever_their_order():
    directions = drawn(5, 2.0, seed=2)
    axis = universal_axis(directions).vector
    assert (directions @ axis).mean() > 0
    np.testing.assert_allclose(universal_axis(-directions).vector, -axis, atol=1e-12)
    np.testing.assert_allclose(universal_axis(directions[::-1]).vector, axis, atol=1e-10)


def test_of_two_directions_that_point_apart_the_first_gives_the_sign_and_not_rounding():
    first, second = drawn(9, 2.0, seed=2)[:2]
    second = second if first @ second < 0 else -second
    expected = unit(first - second).vector
    for seed in range(20):
        noise = 1e-14 * np.random.default_rng(seed).standard_normal((2, len(first)))
        shared = universal_axis(np.stack([first, second]) + noise)
        np.testing.assert_allclose(shared.vector, expected, atol=1e-10)
        assert abs(shared.weights.sum()) < 1e-10


def test_the_axis_without_a_direction_is_that_of_the_others():
    directions = drawn(9, 0.5, seed=5)
    for index, axis in enumerate(leave_one_out_axes(directions, "mean")):
        others = np.delete(directions, index, axis=0)
        np.testing.assert_array_equal(axis, universal_axis(others, "mean").vector)


def test_a_shared_part_is_found_under_parts_of_their_own():
    random = np.random.default_rng(1)
    planted = unit(random.standard_normal(300)).vector
    own = [unit(random.standard_normal(300)).vector for _ in range(6)]
    directions = np.stack([unit(2 * planted + noise).vector for noise in own])
    assert universal_axis(directions).vector @ planted > 0.97


def test_unrelated_directions_share_no_more_than_chance():
    """Singular values of k random unit vectors in a wide space lie close to 1."""
    assert universal_axis(drawn(2000, 0.0, seed=4)).singular_values[0] < 1.1


@pytest.mark.parametrize("method", ["svd", "mean"])
@pytest.mark.filterwarnings("error")
def test_draws_without_a_direction_have_no_axis(method):
    directions = np.random.default_rng(1).standard_normal((3, 2, 5))
    directions[1] = 0.0
    shared = universal_axis(directions, method)
    assert not shared.vector[1].any() and not shared.weights[1].any()
    alone = universal_axis(directions[2], method)
    np.testing.assert_allclose(shared.vector[2], alone.vector, atol=1e-12)


@pytest.mark.parametrize("method", ["svd", "mean"])
def test_the_weights_make_the_axis(method):
    directions = drawn(9, 0.5, seed=5)
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
