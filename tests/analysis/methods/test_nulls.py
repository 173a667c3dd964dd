from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from axes.analysis.methods import DIRECTIONS
from axes.analysis.methods.directions import difference_in_means, fit_direction, unit
from axes.analysis.methods.maps.affine_map import Alignment
from axes.analysis.methods.maps.ridge import RidgeFitter
from axes.analysis.methods.nulls import (
    Mapped,
    bootstrap_angles,
    control_tasks,
    cross_validated_scores,
    random_directions,
    random_singular_values,
    shuffled_alignments,
    shuffled_directions,
    shuffled_labels,
    singular_values,
)
from axes.analysis.methods.universal import singular_value_gap, universal_axis
from axes.analysis.stats.auroc import auroc
from axes.analysis.stats.bootstrap import draw_counts
from axes.analysis.stats.splits import grouped_folds

PAIRS = np.repeat(np.arange(60), 2)
LABELS = np.tile([True, False], 60)


@pytest.mark.parametrize("method", DIRECTIONS)
def test_out_of_fold_projections_are_on_directions_fitted_without_the_fold(method):
    random = np.random.default_rng(9)
    x = random.standard_normal((120, 20)) + 3.0
    x[:, 0] += LABELS
    folds = grouped_folds(LABELS, PAIRS, seed=4)
    scores = cross_validated_scores(x, LABELS, PAIRS, method=method, seed=4)
    for fold in range(5):
        seen = folds != fold
        direction = fit_direction(method, x[seen], LABELS[seen], PAIRS[seen]).vector
        middle = (x[seen & LABELS].mean(axis=0) + x[seen & ~LABELS].mean(axis=0)) @ direction / 2
        np.testing.assert_allclose(scores[~seen], x[~seen] @ direction - middle, atol=1e-9)


def test_the_null_of_in_sample_directions_is_far_above_one_half():
    """Fitted to noise in many dimensions a direction tells its own rows apart."""
    random = np.random.default_rng(2)
    x, labels = random.standard_normal((100, 200)), np.arange(100) % 2 == 0
    null = shuffled_labels(x, labels, np.arange(100), count=50, seed=3).in_sample
    assert null.min() > 0.9
    one_dimension = shuffled_labels(x[:, :1], labels, np.arange(100), count=50, seed=3).in_sample
    assert one_dimension.mean() < 0.6


def test_the_labels_of_the_null_are_shuffled_within_pairs_only():
    """One row of each pair has all the signal: swapping can only keep or flip a pair."""
    labels, pairs = np.tile([True, False], 10), np.repeat(np.arange(10), 2)
    x = np.where(labels, 1.0, 0.0)[:, None]
    null = shuffled_labels(x, labels, pairs, count=200).in_sample
    assert set(np.round(null, 12)) <= {round(kept / 10, 12) for kept in range(5, 11)}


def test_the_cross_validated_null_lies_about_one_half_and_is_beaten_by_a_planted_direction():
    random = np.random.default_rng(10)
    x = random.standard_normal((120, 200))
    x[:, 3] += 2 * LABELS
    null = shuffled_labels(x, LABELS, PAIRS, count=60)
    assert abs(null.held_out.mean() - 0.5) < 0.03
    assert null.in_sample.min() > 0.8
    assert auroc(cross_validated_scores(x, LABELS, PAIRS), LABELS) > null.held_out.max()


def test_a_concept_is_selective_and_memorised_types_are_not():
    """Prompts of 10 types: a concept shown beside faint ones, or a class that is of types alone."""
    random = np.random.default_rng(11)
    labels, pairs = np.arange(400) % 2 == 0, np.arange(400) // 2
    types, names = pairs % 10, [f"type {pair % 10}" for pair in pairs]
    shown, noise = random.standard_normal((10, 30))[types], random.standard_normal((400, 30))

    def areas(x: np.ndarray, classes: np.ndarray) -> tuple[float, np.ndarray]:
        scores = cross_validated_scores(x, classes, pairs)
        return auroc(scores, classes), control_tasks(x, names, labels, pairs, count=60)

    concept, tasks = areas(0.1 * shown + 3 * labels[:, None] * np.eye(30)[0] + noise, labels)
    assert concept - tasks.mean() > 0.3
    memorised, tasks = areas(shown + noise, types < 5)
    assert memorised > 0.9 and abs(memorised - tasks.mean()) < 0.05


def test_a_control_task_of_two_types_is_what_scikit_learn_gives():
    """With two types every task is the same split, one way round or the other."""
    random = np.random.default_rng(12)
    is_first = PAIRS % 3 == 0
    x = random.standard_normal((120, 5)) + is_first[:, None]
    found = control_tasks(x, ["is" if each else "was" for each in is_first], LABELS, PAIRS, count=7)
    folds, scores = grouped_folds(LABELS, PAIRS), np.zeros(120)
    for fold in range(5):
        seen = folds != fold
        means = [x[seen & kind].mean(axis=0) for kind in (is_first, ~is_first)]
        direction = (means[0] - means[1]) / np.linalg.norm(means[0] - means[1])
        scores[~seen] = (x[~seen] - np.mean(means, axis=0)) @ direction
    np.testing.assert_allclose(found, roc_auc_score(is_first, scores), atol=1e-6)
    assert len(found) == 7
    assert not len(control_tasks(x, ["is"] * 120, LABELS, PAIRS)), "a single type has no task"


def test_random_directions_know_nothing():
    random = np.random.default_rng(5)
    x = random.standard_normal((200, 40)) + 300.0
    x[:, 0] += 3 * (np.arange(200) < 100)
    null = random_directions(x, np.arange(200) < 100)
    assert len(null) == 200
    assert 0.45 < null.mean() < 0.55
    assert null.std() > 0.02


def test_shuffled_alignments_are_those_of_the_whole_maps_of_shuffled_rows():
    """Pulled back by regressions of a number a row, or by the map of every dimension."""
    random = np.random.default_rng(6)
    benign, target = random.standard_normal((80, 10)) + 5, random.standard_normal((80, 7)) - 3
    axis, x = random.standard_normal(7), random.standard_normal((60, 10))
    labels = np.arange(60) % 2 == 0
    order = np.random.default_rng(2)
    for area in shuffled_alignments(benign, target, axis, 3.0, x, labels, count=3, seed=2):
        fitted = RidgeFitter(10, 7).update(benign, target[order.permutation(80)]).solve(3.0)
        assert area == pytest.approx(auroc(fitted.apply(x) @ axis, labels), abs=1e-12)


UNIVERSAL_LABELS, UNIVERSAL_PAIRS = np.tile([True, False], 150), np.repeat(np.arange(150), 2)


def models(strength: float) -> list[Mapped]:
    """Rotated views of the same latent prompts, each with the map that brings it back."""
    random = np.random.default_rng(0)
    latent = random.standard_normal((300, 20))
    latent[:, 0] += strength * UNIVERSAL_LABELS
    found = []
    for width in (60, 80, 70):
        shown = np.linalg.qr(random.standard_normal((width, 20)))[0].T
        x = latent @ shown + 0.1 * random.standard_normal((300, width))
        found.append(Mapped(x, Alignment(shown.T @ np.eye(20, 64), np.zeros(64), None)))
    return found


def axis_of(views: list[Mapped], method: str = "mean_diff") -> np.ndarray:
    mapped = [
        view.alignment.map(fit_direction(method, view.x, UNIVERSAL_LABELS, UNIVERSAL_PAIRS).vector)
        for view in views
    ]
    return universal_axis(np.stack([unit(each).vector for each in mapped])).vector


def test_random_directions_are_as_unlike_as_their_common_space_lets_them_be():
    values = random_singular_values(models(3.0), count=100)
    assert values.shape == (100, 3)
    np.testing.assert_allclose(np.square(values).sum(axis=1), 3.0)
    assert 1.1 < values[:, 0].mean() < 1.5


def test_any_labelling_of_the_same_prompts_is_alike_across_models_that_align():
    """So an alike direction is no finding by itself, and the gap of shuffled labels is wide."""
    views = models(3.0)
    drawn = shuffled_directions(views, UNIVERSAL_LABELS, UNIVERSAL_PAIRS, count=30)
    shuffled = singular_values(list(drawn))
    random = random_singular_values(views, count=30)
    assert singular_value_gap(shuffled).min() > singular_value_gap(random).max()


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
    views = models(1.0)[:1]
    drawn = draw_counts(300, strata=UNIVERSAL_LABELS, groups=UNIVERSAL_PAIRS, count=3, seed=4)
    axis = axis_of(views)
    found = bootstrap_angles(views, UNIVERSAL_LABELS, UNIVERSAL_PAIRS, axis, count=3, seed=4)
    for angle, counts in zip(found, drawn, strict=True):
        index = np.repeat(np.arange(300), counts)
        direction = difference_in_means(views[0].x[index], UNIVERSAL_LABELS[index]).vector
        carried = unit(views[0].alignment.map(direction)).vector
        assert angle == pytest.approx(np.degrees(np.arccos(carried @ axis)))


@pytest.mark.parametrize("method", [name for name in DIRECTIONS if DIRECTIONS[name].is_of_pairs])
def test_a_pair_that_is_drawn_twice_is_two_pairs(method):
    views = models(1.0)[:1]
    drawn = draw_counts(300, strata=UNIVERSAL_LABELS, groups=UNIVERSAL_PAIRS, count=3, seed=4)
    assert drawn.max() > 2
    axis = axis_of(views)
    options = {"method": method, "count": 3, "seed": 4}
    found = bootstrap_angles(views, UNIVERSAL_LABELS, UNIVERSAL_PAIRS, axis, **options)
    for angle, counts in zip(found, drawn, strict=True):
        copies = [(row, copy) for row in range(300) for copy in range(counts[row])]
        rows = [row for row, _ in copies]
        names = [f"{UNIVERSAL_PAIRS[row]} {copy}" for row, copy in copies]
        pairs = np.unique(names, return_inverse=True)[1]
        direction = fit_direction(method, views[0].x[rows], UNIVERSAL_LABELS[rows], pairs).vector
        carried = unit(views[0].alignment.map(direction)).vector
        assert angle == pytest.approx(np.degrees(np.arccos(carried @ axis)))


def test_nulls_are_seeded():
    views, rows = models(1.0), (UNIVERSAL_LABELS, UNIVERSAL_PAIRS)
    for draw in (
        lambda seed: shuffled_labels(views[0].x, *rows, count=3, seed=seed).in_sample,
        lambda seed: random_singular_values(views, count=3, seed=seed),
        lambda seed: shuffled_directions(views, *rows, count=3, seed=seed),
    ):
        np.testing.assert_array_equal(draw(1), draw(1))
        assert (draw(1) != draw(2)).any()
