from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.methods import DIRECTIONS
from axes.analysis.methods.affine_map import Alignment
from axes.analysis.methods.directions import difference_in_means, fit_direction, unit
from axes.analysis.methods.nulls import (
    Mapped,
    bootstrap_angles,
    random_singular_values,
    shuffled_singular_values,
)
from axes.analysis.methods.universal import singular_value_gap, universal_axis

LABELS, PAIRS = np.tile([True, False], 150), np.repeat(np.arange(150), 2)


def models(strength: float, *, widths=(60, 80, 70), target=64, seed=0) -> list[Mapped]:
    """Rotated views of the same latent prompts, each with the map that brings it back."""
    random = np.random.default_rng(seed)
    latent = random.standard_normal((300, 20))
    latent[:, 0] += strength * LABELS
    found = []
    for width in widths:
        shown = np.linalg.qr(random.standard_normal((width, 20)))[0].T
        x = latent @ shown + 0.1 * random.standard_normal((300, width))
        back = shown.T @ np.eye(20, target)
        found.append(Mapped(x, Alignment(back, np.zeros(target), None)))
    return found


def axis_of(views: list[Mapped], method="mean_diff", shared="svd") -> np.ndarray:
    carried = [
        unit(view.alignment.map(fit_direction(method, view.x, LABELS, PAIRS).vector)).vector
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
    shuffled = shuffled_singular_values(views, LABELS, PAIRS, count=30)
    random = random_singular_values(views, count=30)
    assert singular_value_gap(shuffled).min() > singular_value_gap(random).max()


def test_unrelated_models_share_no_labelling():
    views = models(0.0)
    apart = [
        Mapped(np.random.default_rng(seed).standard_normal((300, 60)), views[0].alignment)
        for seed in range(3)
    ]
    shuffled = shuffled_singular_values(apart, LABELS, np.arange(300), count=50)
    assert shuffled[:, 0].mean() < 1.5


@pytest.mark.parametrize("method", DIRECTIONS)
def test_the_bootstrap_angle_is_small_for_a_strong_concept_and_wide_for_none(method):
    angles = {}
    for strength in (5.0, 0.0):
        views = models(strength)
        axis = axis_of(views, method)
        angles[strength] = np.median(
            bootstrap_angles(views, LABELS, PAIRS, axis, method=method, count=8)
        )
    assert angles[5.0] < 15 < 30 < angles[0.0]


def test_resamples_of_differences_in_means_are_those_of_drawn_rows():
    from axes.analysis.stats.bootstrap import draw_counts

    views = models(1.0)[:1]
    drawn = draw_counts(300, strata=LABELS, groups=PAIRS, count=3, seed=4)
    axis = axis_of(views)
    found = bootstrap_angles(views, LABELS, PAIRS, axis, count=3, seed=4)
    for angle, counts in zip(found, drawn, strict=True):
        index = np.repeat(np.arange(300), counts)
        direction = difference_in_means(views[0].x[index], LABELS[index]).vector
        carried = unit(views[0].alignment.map(direction)).vector
        assert angle == pytest.approx(np.degrees(np.arccos(carried @ axis)))


def test_nulls_are_seeded():
    views = models(1.0)
    for draw in (
        lambda seed: random_singular_values(views, count=3, seed=seed),
        lambda seed: shuffled_singular_values(views, LABELS, PAIRS, count=3, seed=seed),
    ):
        np.testing.assert_array_equal(draw(1), draw(1))
        assert (draw(1) != draw(2)).any()
