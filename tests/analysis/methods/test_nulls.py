from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.methods import DIRECTIONS
from axes.analysis.methods.affine_map import Alignment
from axes.analysis.methods.directions import difference_in_means, fit_direction, unit
from axes.analysis.methods.nulls import (
    Mapped,
    bootstrap_angles,
    cross_validated_scores,
    random_directions,
    random_singular_values,
    shuffled_alignments,
    shuffled_labels,
    shuffled_singular_values,
)
from axes.analysis.methods.ridge import RidgeFitter
from axes.analysis.methods.universal import singular_value_gap, universal_axis
from axes.analysis.stats.auroc import auroc
from axes.analysis.stats.splits import grouped_folds

PAIRS = np.repeat(np.arange(60), 2)
LABELS = np.tile([True, False], 60)


def test_out_of_fold_projections_are_on_directions_fitted_without_the_fold():
    random = np.random.default_rng(9)
    x = random.standard_normal((120, 20)) + 3.0
    x[:, 0] += LABELS
    folds, scores = (
        grouped_folds(LABELS, PAIRS, seed=4),
        cross_validated_scores(x, LABELS, PAIRS, seed=4),
    )
    for fold in range(5):
        seen = folds != fold
        direction = difference_in_means(x[seen], LABELS[seen]).vector
        middle = (x[seen & LABELS].mean(axis=0) + x[seen & ~LABELS].mean(axis=0)) @ direction / 2
        np.testing.assert_allclose(scores[~seen], x[~seen] @ direction - middle, atol=1e-9)


def test_out_of_fold_projections_find_what_is_planted():
    random = np.random.default_rng(0)
    x = random.standard_normal((120, 20))
    x[:, 3] += 3 * LABELS
    assert auroc(cross_validated_scores(x, LABELS, PAIRS), LABELS) > 0.95


def test_out_of_fold_projections_are_at_chance_where_nothing_is_planted():
    random = np.random.default_rng(1)
    areas = [
        auroc(cross_validated_scores(random.standard_normal((120, 20)), LABELS, PAIRS), LABELS)
        for _ in range(60)
    ]
    assert 0.45 < np.mean(areas) < 0.55


def test_folds_compare_although_their_spaces_are_shifted():
    """A large common offset moves every projection; each fold takes its own midpoint away."""
    random = np.random.default_rng(2)
    x = random.standard_normal((120, 20)) + 500.0
    x[:, 3] += 3 * LABELS
    assert auroc(cross_validated_scores(x, LABELS, PAIRS), LABELS) > 0.9


def test_the_null_of_in_sample_directions_is_far_above_one_half():
    """Fitted to noise in many dimensions a direction tells its own rows apart."""
    random = np.random.default_rng(2)
    x, labels = random.standard_normal((100, 200)), np.arange(100) % 2 == 0
    null = shuffled_labels(x, labels, np.arange(100), count=50, seed=3).in_sample
    assert null.min() > 0.9
    one_dimension = shuffled_labels(x[:, :1], labels, np.arange(100), count=50, seed=3).in_sample
    assert one_dimension.mean() < 0.6


def test_a_planted_direction_beats_its_null():
    random = np.random.default_rng(4)
    labels = np.arange(400) % 2 == 0
    x = random.standard_normal((400, 30))
    x[:, 0] += 2 * labels
    direction = x[labels].mean(0) - x[~labels].mean(0)
    null = shuffled_labels(x, labels, np.arange(400), count=100).in_sample
    assert auroc(x @ direction, labels) > null.max()


def test_what_matched_pairs_share_cancels_in_their_null():
    """Topics far apart would give shuffled labels a direction that true pairs cannot have."""
    random = np.random.default_rng(8)
    labels, pairs = np.tile([True, False], 100), np.repeat(np.arange(100), 2)
    x = np.repeat(10 * random.standard_normal((100, 50)), 2, axis=0)
    x += random.standard_normal((200, 50))
    x[:, 0] += 2 * labels
    direction = x[labels].mean(0) - x[~labels].mean(0)
    within = shuffled_labels(x, labels, pairs, count=100).in_sample
    across = shuffled_labels(x, labels, np.arange(200), count=100).in_sample
    assert across.mean() > auroc(x @ direction, labels) > within.max()


def test_the_labels_of_the_null_are_shuffled_within_pairs_only():
    """One row of each pair has all the signal: swapping can only keep or flip a pair."""
    labels, pairs = np.tile([True, False], 10), np.repeat(np.arange(10), 2)
    x = np.where(labels, 1.0, 0.0)[:, None]
    null = shuffled_labels(x, labels, pairs, count=200).in_sample
    assert set(np.round(null, 12)) <= {round(kept / 10, 12) for kept in range(5, 11)}


def test_the_null_is_seeded():
    x, labels = np.random.default_rng(5).standard_normal((30, 4)), np.arange(30) % 2 == 0
    first = shuffled_labels(x, labels, np.arange(30), count=5, seed=6).in_sample
    again = shuffled_labels(x, labels, np.arange(30), count=5, seed=6).in_sample
    np.testing.assert_array_equal(first, again)
    other = shuffled_labels(x, labels, np.arange(30), count=5, seed=7).in_sample
    assert (first != other).any()


def test_the_cross_validated_null_lies_about_one_half_and_is_beaten_by_a_planted_direction():
    random = np.random.default_rng(10)
    x = random.standard_normal((120, 200))
    x[:, 3] += 2 * LABELS
    null = shuffled_labels(x, LABELS, PAIRS, count=60)
    assert abs(null.held_out.mean() - 0.5) < 0.03
    assert null.in_sample.min() > 0.8
    assert auroc(cross_validated_scores(x, LABELS, PAIRS), LABELS) > null.held_out.max()


def test_random_directions_know_nothing():
    random = np.random.default_rng(5)
    x = random.standard_normal((200, 40)) + 300.0
    x[:, 0] += 3 * (np.arange(200) < 100)
    null = random_directions(x, np.arange(200) < 100)
    assert len(null) == 200
    assert 0.45 < null.mean() < 0.55
    assert null.std() > 0.02


def test_one_shuffled_alignment_is_that_of_the_whole_map_of_shuffled_rows():
    """Pulled back by one regression of a number a row, or by the map of every dimension."""
    random = np.random.default_rng(6)
    benign, target = random.standard_normal((80, 10)) + 5, random.standard_normal((80, 7)) - 3
    axis, x = random.standard_normal(7), random.standard_normal((60, 10))
    labels = np.arange(60) % 2 == 0
    found = shuffled_alignments(benign, target, axis, 3.0, x, labels, count=1, seed=2)
    order = np.random.default_rng(2).permutation(80)
    fitted = RidgeFitter(10, 7).update(benign, target[order]).solve(3.0)
    assert found[0] == pytest.approx(auroc(fitted.apply(x) @ axis, labels), abs=1e-12)


def test_a_true_alignment_beats_shuffled_ones():
    random = np.random.default_rng(7)
    benign = random.standard_normal((300, 12))
    target = benign @ random.standard_normal((12, 12)) + 0.1 * random.standard_normal((300, 12))
    labels = np.arange(200) % 2 == 0
    x = random.standard_normal((200, 12))
    x[:, 0] += 3 * labels
    fitted = RidgeFitter(12, 12).update(benign, target).solve(1.0)
    axis = np.linalg.pinv(fitted.weights) @ np.eye(12)[0]
    true = auroc(x @ fitted.weights @ axis, labels)
    null = shuffled_alignments(benign, target, axis, 1.0, x, labels)
    assert true > np.quantile(null, 0.95)
    assert 0.4 < np.median(null) < 0.6


UNIVERSAL_LABELS, UNIVERSAL_PAIRS = np.tile([True, False], 150), np.repeat(np.arange(150), 2)


def models(strength: float, *, widths=(60, 80, 70), target=64, seed=0) -> list[Mapped]:
    """Rotated views of the same latent prompts, each with the map that brings it back."""
    random = np.random.default_rng(seed)
    latent = random.standard_normal((300, 20))
    latent[:, 0] += strength * UNIVERSAL_LABELS
    found = []
    for width in widths:
        shown = np.linalg.qr(random.standard_normal((width, 20)))[0].T
        x = latent @ shown + 0.1 * random.standard_normal((300, width))
        back = shown.T @ np.eye(20, target)
        found.append(Mapped(x, Alignment(back, np.zeros(target), None)))
    return found


def axis_of(views: list[Mapped], method="mean_diff", shared="svd") -> np.ndarray:
    carried = [
        unit(
            view.alignment.map(
                fit_direction(method, view.x, UNIVERSAL_LABELS, UNIVERSAL_PAIRS).vector
            )
        ).vector
        for view in views
    ]
    return universal_axis(np.stack(carried), shared).vector


def test_random_directions_are_as_unlike_as_their_common_space_lets_them_be():
    values = random_singular_values(models(3.0), count=100)
    assert values.shape == (100, 3)
    np.testing.assert_allclose(np.square(values).sum(axis=1), 3.0)
    assert 1.1 < values[:, 0].mean() < 1.5


def test_any_labelling_of_the_same_prompts_is_alike_across_models_that_align():
    """So an alike direction is no finding by itself, and the gap of shuffled labels is wide."""
    views = models(3.0)
    shuffled = shuffled_singular_values(views, UNIVERSAL_LABELS, UNIVERSAL_PAIRS, count=30)
    random = random_singular_values(views, count=30)
    assert singular_value_gap(shuffled).min() > singular_value_gap(random).max()


def test_unrelated_models_share_no_labelling():
    views = models(0.0)
    apart = [
        Mapped(np.random.default_rng(seed).standard_normal((300, 60)), views[0].alignment)
        for seed in range(3)
    ]
    shuffled = shuffled_singular_values(apart, UNIVERSAL_LABELS, np.arange(300), count=50)
    assert shuffled[:, 0].mean() < 1.5


@pytest.mark.parametrize("method", DIRECTIONS)
def test_the_bootstrap_angle_is_small_for_a_strong_concept_and_wide_for_none(method):
    angles = {}
    for strength in (5.0, 0.0):
        views = models(strength)
        axis = axis_of(views, method)
        angles[strength] = np.median(
            bootstrap_angles(views, UNIVERSAL_LABELS, UNIVERSAL_PAIRS, axis, method=method, count=8)
        )
    assert angles[5.0] < 15 < 30 < angles[0.0]


def test_resamples_of_differences_in_means_are_those_of_drawn_rows():
    from axes.analysis.stats.bootstrap import draw_counts

    views = models(1.0)[:1]
    drawn = draw_counts(300, strata=UNIVERSAL_LABELS, groups=UNIVERSAL_PAIRS, count=3, seed=4)
    axis = axis_of(views)
    found = bootstrap_angles(views, UNIVERSAL_LABELS, UNIVERSAL_PAIRS, axis, count=3, seed=4)
    for angle, counts in zip(found, drawn, strict=True):
        index = np.repeat(np.arange(300), counts)
        direction = difference_in_means(views[0].x[index], UNIVERSAL_LABELS[index]).vector
        carried = unit(views[0].alignment.map(direction)).vector
        assert angle == pytest.approx(np.degrees(np.arccos(carried @ axis)))


def test_nulls_are_seeded():
    views = models(1.0)
    for draw in (
        lambda seed: random_singular_values(views, count=3, seed=seed),
        lambda seed: shuffled_singular_values(
            views, UNIVERSAL_LABELS, UNIVERSAL_PAIRS, count=3, seed=seed
        ),
    ):
        np.testing.assert_array_equal(draw(1), draw(1))
        assert (draw(1) != draw(2)).any()
