from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from analysis.alignment import (
    LAMBDA_GRID,
    Alignment,
    RidgeFitter,
    choose_lambda,
    fit_alignment,
    identity_alignment,
    r_squared,
)


def pairs(count=300, noise=0.1, seed=0, offset=0.0):
    random = np.random.default_rng(seed)
    x = random.standard_normal((count, 20)) * np.logspace(0, 2, 20) + offset
    y = x @ random.standard_normal((20, 7)) + 3.0 + noise * random.standard_normal((count, 7))
    return x, y


@pytest.mark.parametrize("ridge_lambda", [0.1, 100.0, 1e4])
def test_weights_and_intercept_are_those_of_scikit_learn(ridge_lambda):
    x, y = pairs(offset=50.0)
    mine = RidgeFitter(20, 7).update(x, y).solve(ridge_lambda)
    theirs = Ridge(alpha=ridge_lambda).fit(x, y)
    np.testing.assert_allclose(mine.weights, theirs.coef_.T, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(mine.intercept, theirs.intercept_, rtol=1e-6)
    np.testing.assert_allclose(mine.apply(x), theirs.predict(x), rtol=1e-7)


def test_streaming_equals_one_batch():
    x, y = pairs(offset=1e4)
    whole = RidgeFitter(20, 7).update(x, y).solve(10.0)
    fitter = RidgeFitter(20, 7)
    for start in range(0, 300, 37):
        fitter.update(x[start : start + 37], y[start : start + 37])
    np.testing.assert_allclose(fitter.solve(10.0).weights, whole.weights, rtol=1e-8, atol=1e-10)


def test_more_rows_after_a_solution_are_taken_into_account():
    x, y = pairs()
    fitter = RidgeFitter(20, 7).update(x[:100], y[:100])
    fitter.solve(1.0)
    fitter.update(x[100:], y[100:])
    expected = RidgeFitter(20, 7).update(x, y).solve(1.0)
    np.testing.assert_allclose(fitter.solve(1.0).weights, expected.weights, rtol=1e-8, atol=1e-10)


def test_a_fitter_without_rows_says_so():
    with pytest.raises(ValueError, match="no rows"):
        RidgeFitter(3, 2).solve(1.0)


def test_a_linear_relation_is_found_on_rows_not_seen():
    fit = fit_alignment(*pairs(noise=0.01))
    assert fit.r2_held_out > 0.999
    assert not fit.is_lambda_given


def test_unrelated_rows_predict_nothing():
    x, y = pairs()
    shuffled = np.random.default_rng(1).permutation(len(x))
    assert fit_alignment(x, y).r2_held_out > 0.9
    assert fit_alignment(x[shuffled], y).r2_held_out < 0.1


def test_lambda_is_chosen_large_for_noise_and_small_for_signal():
    x, y = pairs(noise=0.01)
    assert choose_lambda(x, y) <= 10.0
    noise = np.random.default_rng(2).standard_normal(y.shape)
    assert choose_lambda(x, noise) >= 1e4
    assert choose_lambda(x, y) in LAMBDA_GRID


def test_the_judged_rows_take_no_part_in_the_fit_or_the_choice():
    """Rows that the split judges are ruined; the lambda chosen stays, the R2 does not."""
    from analysis.splits import held_out_mask

    x, y = pairs()
    judged = held_out_mask(len(x), fraction=0.2, seed=0)
    ruined = y.copy()
    ruined[judged] = 1e3 * np.random.default_rng(3).standard_normal((judged.sum(), 7))
    clean, broken = fit_alignment(x, y), fit_alignment(x, ruined)
    assert broken.alignment.ridge_lambda == clean.alignment.ridge_lambda
    assert clean.r2_held_out > 0.9 > 0.1 > broken.r2_held_out


def test_pulling_an_axis_back_equals_carrying_the_rows_over():
    x, y = pairs()
    alignment = fit_alignment(x, y, ridge_lambda=5.0).alignment
    axis = np.random.default_rng(4).standard_normal(7)
    vector, offset = alignment.pull_back(axis)
    np.testing.assert_allclose(alignment.apply(x) @ axis, x @ vector + offset, rtol=1e-9)


def test_a_direction_is_carried_without_the_intercept():
    x, y = pairs()
    alignment = fit_alignment(x, y, ridge_lambda=5.0).alignment
    difference = alignment.apply(x[:1]) - alignment.apply(x[1:2])
    np.testing.assert_allclose(alignment.carry(x[0] - x[1]), difference[0], rtol=1e-9)


def test_the_identity_changes_nothing():
    x = np.random.default_rng(5).standard_normal((4, 6))
    fit = identity_alignment(6)
    np.testing.assert_array_equal(fit.alignment.apply(x), x)
    assert fit.alignment.ridge_lambda is None


def test_r_squared_is_one_for_truth_and_zero_for_the_mean():
    y = np.random.default_rng(6).standard_normal((30, 3)) * [1, 10, 100]
    mean = y.mean(axis=0)
    assert r_squared(Alignment(np.eye(3), np.zeros(3), None), y, y, mean) == (1.0, 1.0)
    constant = Alignment(np.zeros((3, 3)), mean, None)
    assert r_squared(constant, y, y, mean) == pytest.approx((0.0, 0.0))


def test_the_total_is_ruled_by_wide_dimensions_and_the_uniform_is_not():
    y = np.random.default_rng(7).standard_normal((200, 2)) * [1, 100]
    mean = y.mean(axis=0)
    half = np.column_stack([np.full(200, mean[0]), y[:, 1]])
    total, uniform = r_squared(Alignment(np.eye(2), np.zeros(2), None), half, y, mean)
    assert total > 0.999
    assert uniform == pytest.approx(0.5)
