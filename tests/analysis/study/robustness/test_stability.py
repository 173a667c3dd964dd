from __future__ import annotations

import numpy as np

from axes.analysis.methods.maps.affine_map import Alignment
from axes.analysis.methods.nulls import Mapped
from axes.analysis.stats.auroc import auroc
from axes.analysis.stats.splits import grouped_folds, out_of_fold
from axes.analysis.study.robustness.stability import axes_fitter

LABELS, PAIRS = np.arange(160) % 2 == 0, np.arange(160) // 2
WIDTH = 12


def models(strength: float, seed: int = 0) -> list[Mapped]:
    """Three models that are rotations of one space, and the maps back into it."""
    random = np.random.default_rng(seed)
    latent = random.standard_normal((160, WIDTH))
    latent[:, 0] += strength * LABELS
    found = []
    for _ in range(3):
        rotation = np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))[0]
        x = latent @ rotation + 0.3 * random.standard_normal((160, WIDTH))
        found.append(Mapped(x, Alignment(rotation.T, np.full(WIDTH, 5.0), None)))
    return found


def held_out_scores(found: list[Mapped]) -> np.ndarray:
    """`[model, axis, row]`: native, universal and leave one out, out of fold."""
    fit = axes_fitter(found, LABELS, PAIRS)
    return out_of_fold(lambda seen: fit(seen[None])[0], grouped_folds(LABELS, PAIRS))


def test_the_shared_axis_works_on_prompts_it_was_not_made_of():
    scores = held_out_scores(models(4.0))
    assert scores.shape == (3, 3, 160)
    assert min(auroc(along, LABELS) for of_model in scores for along in of_model) > 0.95


def test_where_nothing_is_planted_every_axis_is_at_chance_out_of_fold():
    """In sample the same axes reach 0.6 and more."""
    areas = [
        [auroc(scores, LABELS) for scores in of_model]
        for seed in range(20)
        for of_model in held_out_scores(models(0.0, seed))
    ]
    assert np.abs(np.mean(areas, axis=0) - 0.5).max() < 0.05


def test_the_axis_without_the_others_is_that_of_one_model():
    found = models(4.0)
    (alone,) = held_out_scores(found[:1])
    assert len(alone) == 2
    np.testing.assert_allclose(alone[0], held_out_scores(found)[0, 0])
