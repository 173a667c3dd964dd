"""A planted subspace is recovered, its rank shows out of fold, and without one there is chance."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from axes.analysis.stats.auroc import auroc_difference
from axes.analysis.stats.splits import grouped_folds
from axes.analysis.subspaces import Subspace, fit_subspace, rank_curve

WIDTH = 20


def planted(
    rank: int, *, count: int = 400, reach: float = 4.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels and the basis: positive rows lie to either side of one of `rank` directions.

    Both classes vary alike and unevenly, about a mean far from zero.
    """
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))[0][:, :rank]
    labels = np.arange(2 * count) % 2 == 0
    x = random.standard_normal((2 * count, WIDTH)) * np.linspace(0.5, 1.5, WIDTH) + 30
    sides = reach * random.choice([-1.0, 1.0], 2 * count)
    if rank:
        which = random.integers(0, rank, 2 * count)
        x += (labels * sides)[:, None] * basis.T[which]
    return x, labels, basis


@pytest.mark.parametrize("rank", [1, 3])
def test_the_planted_subspace_is_found_within_five_degrees(rank):
    x, labels, basis = planted(rank, count=4000)
    found = fit_subspace(x, labels, rank)
    angles = found.angles(Subspace(basis, np.zeros(WIDTH)))
    assert angles.shape == (rank,) and angles[0] < 5
    # The class means differ by little, so that a difference in means finds next to nothing.
    difference = x[labels].mean(axis=0) - x[~labels].mean(axis=0)
    assert roc_auc_score(labels, x @ difference) < 0.6
    distances = np.linalg.norm(found.project(x), axis=1)
    assert roc_auc_score(labels, distances) > 0.9


def test_the_curve_rises_to_the_planted_rank_and_no_further():
    x, labels, _ = planted(3)
    groups = np.arange(len(labels)) // 2
    curve = rank_curve(x, labels, groups, max_rank=5)
    areas = [roc_auc_score(labels, scores) for scores in curve.scores]
    assert areas[0] < areas[1] < areas[2] > 0.95
    gains = [
        auroc_difference(second, first, labels, groups, is_out_of_fold=True)
        for first, second in zip(curve.scores, curve.scores[1:], strict=False)
    ]
    assert [gain.lower > 0 for gain in gains] == [True, True, False, False]
    assert (curve.shuffled.max(axis=0) < areas).all()
    assert abs(curve.shuffled.mean() - 0.5) < 0.05
    # Two halves agree on the planted directions and on no further one.
    assert curve.angles[2] < 20 and curve.angles[4] > 40


def test_nothing_planted_stays_within_the_null():
    x, labels, _ = planted(0)
    curve = rank_curve(x, labels, np.arange(len(labels)) // 2, max_rank=3)
    areas = [roc_auc_score(labels, scores) for scores in curve.scores]
    assert (np.abs(np.array(areas) - 0.5) < 0.08).all()


def test_plain_numpy_gives_the_same_subspace_and_angles():
    x, labels, basis = planted(2, count=100)
    found = fit_subspace(x, labels, 2)
    centre = x[~labels].mean(axis=0)
    excess = sum(np.outer(row - centre, row - centre) for row in x[labels]) / labels.sum()
    excess = excess - np.cov(x[~labels], rowvar=False)
    values, vectors = np.linalg.eigh(excess)
    expected = vectors[:, np.argsort(-values)[:2]]
    np.testing.assert_allclose(np.abs(np.diag(found.basis.T @ expected)), 1.0, atol=1e-6)
    cosines = np.linalg.svd(expected.T @ basis)[1].clip(max=1.0)
    angles = found.angles(Subspace(basis, centre))
    np.testing.assert_allclose(angles, np.degrees(np.arccos(cosines))[::-1], atol=1e-6)


def test_more_dimensions_than_rows_give_the_same_curve():
    x, labels, _ = planted(2, count=60)
    wide = np.hstack([x, np.zeros((len(x), 200))])
    wide = wide @ np.linalg.qr(np.random.default_rng(1).standard_normal((220, 220)))[0]
    groups = np.arange(len(labels))
    assert len(np.unique(grouped_folds(labels, groups))) == 5
    narrow, compressed = (rank_curve(each, labels, groups, max_rank=2) for each in (x, wide))
    np.testing.assert_allclose(narrow.scores, compressed.scores, atol=1e-6)
    np.testing.assert_allclose(narrow.angles, compressed.angles, atol=1e-4)
