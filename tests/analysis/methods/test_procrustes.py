from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group

from axes.analysis.methods.low_rank import procrustes
from axes.analysis.methods.ridge import MomentFitter
from tests.analysis.pairs import pairs


def fitted(width, targets, x, y, **options):
    return procrustes(MomentFitter(width, targets).update(x, y).moments(), **options)


@pytest.mark.parametrize(("width", "targets"), [(20, 20), (12, 20), (20, 12)])
def test_the_map_has_orthonormal_rows_or_columns_whichever_are_fewer(width, targets):
    x, y = pairs(width=width, targets=targets)
    weights = fitted(width, targets, x, y, is_scaled=False).weights
    narrow = weights if width <= targets else weights.T
    np.testing.assert_allclose(narrow @ narrow.T, np.eye(min(width, targets)), atol=1e-10)


@pytest.mark.parametrize("targets", [10, 16])
def test_a_planted_rotation_and_its_scale_are_recovered_into_the_same_or_a_wider_space(targets):
    random = np.random.default_rng(1)
    planted = ortho_group.rvs(targets, random_state=2)[:10]
    x = random.standard_normal((400, 10)) * np.logspace(0, 1, 10) + 100.0
    y = 2.5 * (x - 100.0) @ planted - 7.0 + 0.01 * random.standard_normal((400, targets))
    found = fitted(10, targets, x, y)
    np.testing.assert_allclose(found.weights, 2.5 * planted, atol=0.01)
    np.testing.assert_allclose(found.apply(x).mean(axis=0), y.mean(axis=0), atol=1e-8)


def test_no_other_rotation_is_nearer_into_a_wider_space():
    x, y = pairs(width=5, targets=8)
    found = fitted(5, 8, x, y, is_scaled=False)

    def error(weights: np.ndarray) -> float:
        return float(np.square((x - x.mean(0)) @ weights - (y - y.mean(0))).sum())

    others = [ortho_group.rvs(8, random_state=seed)[:5] for seed in range(50)]
    assert error(found.weights) < min(error(other) for other in others)
    nudged = np.linalg.qr((found.weights + 0.01 * others[0]).T)[0].T
    signs = np.sign(np.einsum("ij,ij->i", nudged, found.weights))
    assert error(found.weights) < error(nudged * signs[:, None])


def test_the_scale_is_the_best_factor():
    for width, targets in ((5, 8), (8, 5)):
        x, y = pairs(width=width, targets=targets)
        fitter = MomentFitter(width, targets).update(x, y)
        rotation = procrustes(fitter.moments(), is_scaled=False).weights
        mapped, target = (x - x.mean(0)) @ rotation, y - y.mean(0)
        best = (mapped * target).sum() / np.square(mapped).sum()
        np.testing.assert_allclose(procrustes(fitter.moments()).weights, best * rotation)


def test_streaming_equals_one_batch_and_the_order_of_rows_does_not_matter():
    x, y = pairs(offset=1e3)
    whole = fitted(20, 7, x, y).weights
    order = np.random.default_rng(3).permutation(len(x))
    fitter = MomentFitter(20, 7)
    for part in np.split(order, [50, 51, 200]):
        fitter.update(x[part], y[part])
    np.testing.assert_allclose(procrustes(fitter.moments()).weights, whole, atol=1e-9)
