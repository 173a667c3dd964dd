from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from axes.analysis.methods import DIRECTIONS
from axes.analysis.methods.covariance import shrunk_covariance
from axes.analysis.methods.directions import (
    Direction,
    cosine,
    difference_in_means,
    fit_direction,
    leading_difference,
    pair_differences,
    unit,
)
from axes.analysis.methods.logistic import PENALTY, logistic_fitter
from axes.analysis.methods.soft_auc import PENALTY as SOFT_PENALTY
from axes.analysis.methods.soft_auc import smooth_auroc, soft_auc
from axes.analysis.stats.auroc import auroc
from axes.warehouse.errors import AxisError

LABELS, PAIRS = np.tile([True, False], 300), np.repeat(np.arange(300), 2)

# How far apart two searches for the same optimum may end.
ITERATED = {"logistic": 1e-4, "soft_auc": 1e-6}

every_method = pytest.mark.parametrize("method", DIRECTIONS)


def planted(width=40, strength=5.0, seed=0):
    """Rows about a large mean, whose classes differ along one direction."""
    random = np.random.default_rng(seed)
    direction = unit(random.standard_normal(width)).vector
    x = random.standard_normal((600, width)) + strength * np.outer(LABELS - 0.5, direction) + 50
    return x.astype(np.float32), direction


def _unit_orthogonal(direction):
    aside = np.eye(len(direction))[0]
    return unit(aside - (aside @ direction) * direction).vector


@every_method
def test_a_planted_direction_is_recovered(method):
    x, direction = planted(width=5, strength=3.0)
    found = fit_direction(method, x, LABELS, PAIRS)
    assert found.vector @ direction > 0.99
    assert difference_in_means(x, LABELS).raw_norm == pytest.approx(3, rel=0.1)
    assert np.linalg.norm(found.vector) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("method", "least"),
    [
        ("mean_diff", 0.97),
        ("pair_pca", 0.97),
        ("whitened", 0.6),
        ("logistic", 0.6),
        ("soft_auc", 0.9),
    ],
)
def test_it_is_found_in_more_dimensions_than_rows(method, least):
    """Where the covariance is hardly known, methods that use it stray; none turns away."""
    x, direction = planted(width=700, strength=12.0)
    assert fit_direction(method, x, LABELS, PAIRS).vector @ direction > least


@every_method
def test_the_positive_class_projects_higher_whatever_the_order_of_rows(method):
    x, _ = planted(width=8, strength=0.5, seed=1)
    order = np.random.default_rng(1).permutation(len(x))
    found = fit_direction(method, x, LABELS, PAIRS).vector
    assert (x @ found)[LABELS].mean() > (x @ found)[~LABELS].mean()
    again = fit_direction(method, x[order], LABELS[order], PAIRS[order]).vector
    np.testing.assert_allclose(again, found, atol=ITERATED.get(method, 1e-9))
    turned = fit_direction(method, x, ~LABELS, PAIRS).vector
    np.testing.assert_allclose(turned, -found, atol=ITERATED.get(method, 1e-9))


@every_method
def test_rows_that_are_left_out_do_not_matter(method):
    x, _ = planted(seed=2)
    where = PAIRS < 200
    ruined = np.where(where[:, None], x, 1e3)
    found = fit_direction(method, ruined, LABELS, PAIRS, where).vector
    np.testing.assert_allclose(
        found, fit_direction(method, x[where], LABELS[where], PAIRS[where]).vector, atol=1e-8
    )


def test_a_small_difference_survives_a_large_common_mean():
    """Float32 means of values about 1e4 would be off by more than the planted 0.01."""
    labels = np.arange(20_000) % 2 == 0
    x = np.full((20_000, 2), 1e4, dtype=np.float32)
    x[labels, 1] += np.float32(0.01171875)  # exact in float32 at 1e4
    assert difference_in_means(x, labels).raw_norm == pytest.approx(0.01171875, rel=1e-6)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(AxisError, match="same mean"):
        difference_in_means(np.ones((4, 3)), np.array([True, False, True, False]))
    with pytest.raises(AxisError, match="unknown direction magic: choose mean_diff"):
        fit_direction("magic", np.ones((4, 3)), LABELS[:4], PAIRS[:4])
    with pytest.raises(AxisError, match=r"needs matched pairs.*import the set with .* pair_id"):
        fit_direction("pair_pca", planted()[0], LABELS, np.arange(600))


@pytest.mark.parametrize("width", [10, 80])
def test_the_shrunk_covariance_is_that_of_scikit_learn(width):
    x = np.random.default_rng(3).standard_normal((50, width)) * np.logspace(0, 1, width) + 9
    expected, intensity = ledoit_wolf(x)
    found = shrunk_covariance(x)
    assert found.shrinkage == pytest.approx(intensity)
    vector = np.random.default_rng(4).standard_normal(width)
    np.testing.assert_allclose(found.solve(vector), np.linalg.solve(expected, vector))


def test_the_whitened_direction_is_that_of_discriminant_analysis():
    """Where there are rows enough for shrinkage not to matter."""
    random = np.random.default_rng(5)
    mixing, labels = random.standard_normal((5, 5)), np.arange(20_000) % 2 == 0
    x = random.standard_normal((20_000, 5)) @ mixing + np.outer(labels, [1.0, 0, 0, 0, 2.0])
    theirs = LinearDiscriminantAnalysis().fit(x, labels).coef_[0]
    found = fit_direction("whitened", x, labels, np.arange(20_000))
    assert found.vector @ unit(theirs).vector > 0.999


def test_the_logistic_direction_is_that_of_scikit_learn():
    x = np.random.default_rng(7).standard_normal((600, 6)) * [1, 2, 5, 1, 1, 30] + 4
    x[:, 2] += 4 * LABELS
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    theirs = LogisticRegression(C=1 / (PENALTY * 600), tol=1e-8).fit(scaled, LABELS)
    mine = logistic_fitter(x)(LABELS)
    np.testing.assert_allclose(mine * x.std(axis=0), theirs.coef_[0], atol=1e-5)


def test_the_soft_auc_direction_is_that_of_newton_steps_on_every_pair():
    """Plain numpy: all differences as one matrix, and Newton's method to the last digit."""
    random = np.random.default_rng(10)
    labels = random.random(120) < 0.4
    x = random.standard_normal((120, 4)) * [1, 2, 30, 1] + np.outer(labels, [1.0, 1, 0, 0]) + 4
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    apart = (scaled[labels][:, None] - scaled[~labels]).reshape(-1, 4)
    weights = soft_auc(x, np.arange(120), None)(labels) * x.std(axis=0)
    theirs = np.zeros(4)
    for step in range(2000):
        share = 1 / (1 + np.exp(-apart @ theirs))
        bend = share * (1 - share)
        slope = (bend[:, None] * apart).mean(axis=0) - SOFT_PENALTY * theirs
        if step < 1000:
            theirs = theirs + 5 * slope
            continue
        curve = (bend * (1 - 2 * share) * apart.T) @ apart / len(apart)
        theirs = theirs - np.linalg.solve(curve - SOFT_PENALTY * np.eye(4), slope)
    np.testing.assert_allclose(weights, theirs, atol=1e-6)


def test_a_few_outliers_turn_class_means_and_not_the_soft_auc_direction():
    random, labels, groups = np.random.default_rng(11), np.arange(2000) % 2 == 0, np.arange(2000)
    direction = unit(random.standard_normal(5)).vector
    aside = _unit_orthogonal(direction)
    x = random.standard_normal((2000, 5)) + 3 * np.outer(labels, direction)
    x[np.flatnonzero(labels)[::20]] += 60 * aside
    assert fit_direction("mean_diff", x, labels, groups).vector @ direction < 0.8
    assert fit_direction("soft_auc", x, labels, groups).vector @ direction > 0.99


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_the_soft_auc_direction_knows_no_units_no_pairs_and_no_chance(scale):
    x, _ = planted(width=6, strength=1.0, seed=12)
    found = fit_direction("soft_auc", x, LABELS, PAIRS)
    again = fit_direction("soft_auc", x.astype(float) * scale, LABELS, np.arange(600))
    np.testing.assert_allclose(again.vector, found.vector, atol=1e-6)
    assert again.raw_norm == pytest.approx(found.raw_norm / scale, rel=1e-5)
    same = fit_direction("soft_auc", x, LABELS, PAIRS)
    assert np.array_equal(same.vector, found.vector)


def test_smooth_auroc_is_the_mean_over_pairs_in_blocks_too(monkeypatch):
    random = np.random.default_rng(13)
    scores, labels = random.standard_normal(40), random.random(40) < 0.3
    gaps = scores[labels][:, None] - scores[~labels]
    area, slopes = smooth_auroc(scores, labels)
    assert area == pytest.approx((1 / (1 + np.exp(-gaps))).mean(), abs=1e-12)
    monkeypatch.setattr("axes.analysis.methods.soft_auc._PAIR_COUNT", 50)
    blocked, again = smooth_auroc(scores, labels)
    assert blocked == pytest.approx(area, abs=1e-12)
    np.testing.assert_allclose(again, slopes, atol=1e-12)
    assert smooth_auroc(1e6 * scores, labels)[0] == pytest.approx(auroc(scores, labels))


def test_the_differences_within_pairs_are_not_centred():
    """All pairs differ by the same vector: centred, nothing would be left of it."""
    random = np.random.default_rng(8)
    topics = np.repeat(30 * random.standard_normal((300, 12)), 2, axis=0)
    x = topics + np.outer(LABELS, np.eye(12)[3])
    x += 0.01 * random.standard_normal(x.shape)
    assert fit_direction("pair_pca", x, LABELS, PAIRS).vector[3] > 0.999


def test_pairs_with_several_rows_of_a_class_count_by_their_means():
    x = np.array([[1.0, 0], [3.0, 0], [0.0, 0], [9.0, 9], [5.0, 1], [1.0, 1], [3.0, 1]])
    labels = np.array([True, True, False, True, True, False, False])
    found = pair_differences(x, labels, np.array([0, 0, 0, 1, 2, 2, 2]))
    np.testing.assert_allclose(found, [[2.0, 0.0], [3.0, 0.0]])


def test_pairs_by_either_decomposition_give_the_same():
    differences = np.random.default_rng(9).standard_normal((30, 30)) + 1
    wide = np.concatenate([differences, np.zeros((30, 1))], axis=1)
    np.testing.assert_allclose(
        leading_difference(wide)[:-1], leading_difference(differences), atol=1e-10
    )


def test_a_direction_of_arrays_is_that_of_the_warehouse_and_needs_none():
    x, _ = planted()
    direction = Direction.fit(x[LABELS], x[~LABELS])
    np.testing.assert_allclose(direction.vector, difference_in_means(x, LABELS).vector)
    paired = Direction.fit(x[LABELS].tolist(), x[~LABELS], direction="pair_pca")
    expected = fit_direction("pair_pca", x, LABELS, PAIRS)
    assert abs(paired.vector @ expected.vector) == pytest.approx(1)
    assert direction.auroc(x[LABELS], x[~LABELS]).estimate > 0.95
    assert direction.auroc(x[~LABELS], x[LABELS]).estimate < 0.05


def test_a_direction_takes_tensors_of_any_kind():
    x = torch.from_numpy(planted()[0]).requires_grad_()
    direction = Direction.fit(x[LABELS].bfloat16(), x[~LABELS].bfloat16())
    assert direction.project(x).shape == (600,)
    assert direction.project(x[None, :5].bfloat16()).shape == (1, 5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_b2_rows_that_are_no_numbers_are_refused(value):
    x = planted()[0]
    direction, broken = Direction.fit(x[LABELS], x[~LABELS]), x[LABELS].copy()
    broken[3, 5] = value
    for call in (Direction.fit, direction.auroc):
        with pytest.raises(AxisError, match="x_pos holds NaN or infinity"):
            call(broken, x[~LABELS])
        with pytest.raises(AxisError, match="x_neg holds NaN or infinity"):
            call(x[~LABELS], torch.from_numpy(broken))


@pytest.mark.parametrize(
    ("x_pos", "x_neg", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), r"not \[row, d_model\] of one width"),
        (np.ones(3), np.ones(3), r"not \[row, d_model\]"),
        (np.ones((0, 3)), np.ones((2, 3)), "need a row each"),
        (np.ones((2, 3)), np.ones((2, 3)), "direction is zero"),
    ],
)
def test_arrays_without_a_direction_are_refused(x_pos, x_neg, message):
    with pytest.raises(AxisError, match=message):
        Direction.fit(x_pos, x_neg)


def test_a_projection_of_another_width_is_refused():
    with pytest.raises(AxisError, match="2 numbers do not fit 3"):
        Direction.fit(np.ones((2, 3)), np.zeros((2, 3))).project(np.ones(2))


def test_a_cosine_of_float32_vectors_is_at_most_one():
    random = np.random.default_rng(0)
    vectors = [unit(random.standard_normal(900)).vector.astype(np.float32) for _ in range(200)]
    assert max(float(np.float64(v) @ np.float64(v)) for v in vectors) > 1
    for vector in np.float64(vectors):
        assert cosine(vector, vector) == pytest.approx(1.0, abs=1e-12)
        assert cosine(vector, vector) <= 1
        assert cosine(vector, -vector) >= -1
    assert cosine(np.zeros(3), np.ones(3)) == 0.0
