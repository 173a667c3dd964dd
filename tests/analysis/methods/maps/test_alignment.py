from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.methods import ALIGNMENTS, AlignmentOptions
from axes.analysis.methods.maps.affine_map import Alignment
from axes.analysis.methods.maps.alignment import fit_alignment, identity_alignment, r_squared
from axes.analysis.methods.maps.ridge import LAMBDA_GRID, RidgePath
from axes.analysis.stats.splits import held_out_mask
from axes.warehouse.errors import AlignmentError
from tests.analysis.pairs import pairs

every_method = pytest.mark.parametrize("method", ALIGNMENTS)


def rotated(count=400, noise=0.05, seed=0):
    """A rotation with a scale: what every method can express."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((count, 8)) + 20.0
    rotation = np.linalg.qr(random.standard_normal((8, 8)))[0]
    return x, 3.0 * x @ rotation + 1.0 + noise * random.standard_normal((count, 8))


@every_method
def test_a_relation_is_found_on_rows_not_seen_and_not_in_shuffled_pairs(method):
    fit = fit_alignment(*rotated(), AlignmentOptions(method), shuffle_count=4)
    assert fit.r2_held_out > 0.97 and fit.r2_uniform > 0.97
    assert fit.r2_shuffled is not None and fit.r2_shuffled.upper is not None
    assert fit.r2_shuffled.upper < 0.1
    assert (fit.method, fit.shuffle_count) == (method, 4)
    assert fit.r2_dimensions is not None and fit.r2_dimensions.shape == (8,)
    assert fit.r2_uniform == pytest.approx(fit.r2_dimensions.mean())


@every_method
def test_unrelated_rows_are_no_better_than_their_shuffled_pairs(method):
    x, _ = rotated()
    noise = np.random.default_rng(1).standard_normal((400, 8))
    fit = fit_alignment(x, noise, AlignmentOptions(method), shuffle_count=4)
    assert fit.r2_held_out < 0.1
    assert fit.r2_shuffled is not None
    assert fit.r2_held_out == pytest.approx(fit.r2_shuffled.estimate, abs=0.1)


@every_method
def test_the_judged_rows_take_no_part_in_the_fit_or_a_choice(method):
    """Rows that the split judges are ruined: what was chosen stays, the R2 does not."""
    x, y = rotated(noise=1.5)
    judged = held_out_mask(len(x), fraction=0.2, seed=0)
    ruined = y.copy()
    ruined[judged] = 1e3 * np.random.default_rng(3).standard_normal((judged.sum(), 8))
    options = AlignmentOptions(method)
    clean, broken = fit_alignment(x, y, options), fit_alignment(x, ruined, options)
    assert broken.alignment.ridge_lambda == clean.alignment.ridge_lambda
    assert broken.rank == clean.rank
    assert clean.r2_held_out > 0.6 > 0.1 > broken.r2_held_out


@pytest.mark.parametrize("policy", ["held_out", "gcv"])
def test_lambda_is_chosen_large_for_noise_and_small_for_signal(policy):
    x, y = pairs(noise=0.01)
    options = AlignmentOptions(lambda_policy=policy)
    fit = fit_alignment(x, y, options)
    assert fit.alignment.ridge_lambda in LAMBDA_GRID and fit.lambda_policy == policy
    assert fit.alignment.ridge_lambda <= 10.0
    noise = np.random.default_rng(2).standard_normal(y.shape)
    assert fit_alignment(x, noise, options).alignment.ridge_lambda >= 1e4


def test_what_is_given_is_kept_and_the_final_map_is_fitted_on_all_rows():
    x, y = pairs()
    fit = fit_alignment(x, y, AlignmentOptions(ridge_lambda=7.0))
    assert fit.alignment.ridge_lambda == 7.0
    np.testing.assert_allclose(fit.alignment.weights, RidgePath.of_rows(x, y).solve(7.0).weights)
    fit = fit_alignment(x, y, AlignmentOptions("reduced_rank", ridge_lambda=7.0, rank=2))
    assert (fit.alignment.ridge_lambda, fit.rank, fit.lambda_policy) == (7.0, 2, "given")
    assert fit_alignment(x, y, AlignmentOptions("procrustes")).lambda_policy == "none"


def test_the_null_is_seeded():
    x, y = pairs()
    one, same, other = (
        fit_alignment(x, y, AlignmentOptions(), shuffle_count=3, seed=seed).r2_shuffled
        for seed in (1, 1, 2)
    )
    assert one == same != other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "unknown alignment magic: choose ridge, procrustes"),
        ({"method": "procrustes", "ridge_lambda": 1.0}, "procrustes has no ridge_lambda"),
        (
            {"rank": 3},
            "ridge has no rank: leave it out, or choose reduced_rank or cca or anchor_projection",
        ),
        ({"method": "cca", "hidden_width": 3}, "cca has no hidden_width"),
    ],
)
def test_an_option_that_a_method_has_not_is_refused(options, message):
    with pytest.raises(AlignmentError, match=message):
        AlignmentOptions(**options)


def test_a_rank_above_the_width_is_refused():
    with pytest.raises(
        AlignmentError, match="rank 8 .* from 20 to 7 dimensions: give one of 1 to 7"
    ):
        fit_alignment(*pairs(), AlignmentOptions("reduced_rank", rank=8))


def test_the_identity_changes_nothing():
    x = np.random.default_rng(5).standard_normal((4, 6))
    fit = identity_alignment(6)
    np.testing.assert_array_equal(fit.alignment.apply(x), x)
    assert fit.alignment.ridge_lambda is None and fit.method == "identity"


def test_r_squared_is_one_for_truth_and_zero_for_the_mean():
    y = np.random.default_rng(6).standard_normal((30, 3)) * [1e-3, 10, 100]
    mean = y.mean(axis=0)
    total, dimensions = r_squared(Alignment(np.eye(3), np.zeros(3), None), y, y, mean)
    assert total == 1.0 and (dimensions == 1.0).all()
    total, dimensions = r_squared(Alignment(np.zeros((3, 3)), mean, None), y, y, mean)
    np.testing.assert_allclose([total, *dimensions], 0.0, atol=1e-12)


def test_the_total_is_ruled_by_wide_dimensions_and_a_constant_one_is_left_out():
    y = np.random.default_rng(7).standard_normal((200, 3)) * [1, 100, 0]
    mean = y.mean(axis=0)
    half = np.column_stack([np.full(200, mean[0]), y[:, 1], y[:, 2]])
    total, dimensions = r_squared(Alignment(np.eye(3), np.zeros(3), None), half, y, mean)
    assert total > 0.999
    np.testing.assert_allclose(dimensions, [0.0, 1.0, np.nan], atol=1e-12)
