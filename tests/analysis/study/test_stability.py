from __future__ import annotations

import numpy as np

from axes.analysis.methods.affine_map import Alignment
from axes.analysis.stats.auroc import auroc
from axes.analysis.study.stability import held_out_scores

LABELS, PAIRS = np.arange(160) % 2 == 0, np.arange(160) // 2
WIDTH = 12


def models(strength: float, seed: int = 0) -> tuple[list[np.ndarray], list[Alignment]]:
    """Three models that are rotations of one space, and the maps back into it."""
    random = np.random.default_rng(seed)
    latent = random.standard_normal((160, WIDTH))
    latent[:, 0] += strength * LABELS
    matrices, maps = [], []
    for _ in range(3):
        rotation = np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))[0]
        noise = 0.3 * random.standard_normal((160, WIDTH))
        matrices.append(latent @ rotation + noise)
        maps.append(Alignment(rotation.T, np.full(WIDTH, 5.0), None))
    return matrices, maps


def test_the_shared_axis_works_on_prompts_it_was_not_made_of():
    found = held_out_scores(*models(4.0), LABELS, PAIRS)
    for scores in (*found.native, *found.universal, *found.leave_one_out):
        assert auroc(scores, LABELS) > 0.95


def test_where_nothing_is_planted_every_axis_is_at_chance_out_of_fold():
    """In sample the same axes reach 0.6 and more."""
    areas = []
    for seed in range(20):
        found = held_out_scores(*models(0.0, seed), LABELS, PAIRS)
        areas.append(
            [
                np.mean([auroc(row, LABELS) for row in kind])
                for kind in (found.native, found.universal, found.leave_one_out)
            ]
        )
    assert np.abs(np.mean(areas, axis=0) - 0.5).max() < 0.05


def test_the_axis_without_the_others_is_that_of_one_model():
    matrices, maps = models(4.0)
    found = held_out_scores(matrices, maps, LABELS, PAIRS)
    alone = held_out_scores(matrices[:1], maps[:1], LABELS, PAIRS)
    assert alone.leave_one_out is None
    np.testing.assert_allclose(alone.native[0], found.native[0])
