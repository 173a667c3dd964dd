from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.cross_decomposition import CCA

from axes.analysis.methods.maps.low_rank import procrustes, rank_path
from axes.analysis.methods.maps.ridge import RidgeFitter, RidgePath, cross_products
from tests.analysis.pairs import pairs

is_canonical = pytest.mark.parametrize("is_canonical", [False, True])


def solved(fitter, ridge_lambda, rank, is_canonical):
    """The map of a rank from accumulated sums."""
    products = fitter.moments().yy if is_canonical else None
    return rank_path(fitter.path(), ridge_lambda, products).solve(rank)


def paths(x, y, ridge_lambda, where=None):
    """Reduced-rank ridge and canonical variates of the same rows."""
    path = RidgePath.of_rows(x, y, where)
    products = cross_products(y, y, path.mean_y, path.mean_y, where=where)
    return [rank_path(path, ridge_lambda), rank_path(path, ridge_lambda, products)]


@is_canonical
def test_the_rank_is_at_most_k_and_the_full_rank_is_ridge(is_canonical):
    x, y = pairs()
    fitted = RidgeFitter(20, 7).update(x, y)
    for rank in (1, 3, 7):
        weights = solved(fitted, 10.0, rank, is_canonical).weights
        assert np.linalg.matrix_rank(weights, tol=1e-6) == rank
    full = RidgePath.of_rows(x, y).solve(10.0)
    np.testing.assert_allclose(
        solved(fitted, 10.0, 7, is_canonical).weights, full.weights, atol=1e-9
    )


@is_canonical
def test_streaming_equals_one_batch_and_the_order_of_rows_does_not_matter(is_canonical):
    x, y = pairs(offset=1e3)
    whole = solved(RidgeFitter(20, 7).update(x, y), 10.0, 3, is_canonical).weights
    order = np.random.default_rng(3).permutation(len(x))
    parts = RidgeFitter(20, 7)
    for part in np.split(order, [50, 51, 200]):
        parts.update(x[part], y[part])
    streamed = solved(parts, 10.0, 3, is_canonical).weights
    np.testing.assert_allclose(streamed, whole, atol=1e-8)


def test_no_other_map_of_the_rank_has_less_penalised_error():
    """Against ridge projected on other subspaces, and on those next to the one found."""
    x, y = pairs(noise=100.0)
    path = RidgePath.of_rows(x, y)
    full, random = path.solve(50.0).weights, np.random.default_rng(4)

    def loss(weights: np.ndarray) -> float:
        errors = (x - x.mean(0)) @ weights - (y - y.mean(0))
        return float(np.square(errors).sum() + 50.0 * np.square(weights).sum())

    found = rank_path(path, 50.0).solve(2).weights
    kept = np.linalg.svd(found)[2][:2].T
    for reach in (0.02, 1.0, 100.0):
        basis = np.linalg.qr(kept + reach * random.standard_normal((7, 2)))[0]
        assert loss(found) < loss(full @ basis @ basis.T)


@pytest.mark.parametrize("shape", [{}, {"count": 40, "width": 60}])
def test_errors_of_all_ranks_are_those_of_the_maps(shape):
    x, y = pairs(**shape, noise=20.0)
    held_out = np.arange(len(x)) % 4 == 0
    for ranks in paths(x, y, 20.0, ~held_out):
        expected = [
            np.square(ranks.solve(rank).apply(x[held_out]) - y[held_out]).sum()
            for rank in range(1, 8)
        ]
        np.testing.assert_allclose(ranks.held_out_errors(x, y, held_out), expected, rtol=1e-7)


def test_canonical_variates_are_those_of_scikit_learn():
    """Predictions through the first pair lie along scikit-learn's first pair of variates."""
    x, y = pairs(2000, width=6, targets=4, noise=60.0)
    mapped = solved(RidgeFitter(6, 4).update(x, y), 1e-6, 1, True).apply(x)
    centred = mapped - mapped.mean(axis=0)
    first = centred[:, np.argmax(centred.std(axis=0))]
    theirs = CCA(n_components=1, scale=False, max_iter=5000, tol=1e-10).fit(x, y).transform(x)
    assert abs(np.corrcoef(first, theirs[:, 0])[0, 1]) > 0.9999


def fitted(width, targets, x, y, **options):
    return procrustes(RidgeFitter(width, targets).update(x, y).moments(), **options)


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
        fitter = RidgeFitter(width, targets).update(x, y)
        rotation = procrustes(fitter.moments(), is_scaled=False).weights
        mapped, target = (x - x.mean(0)) @ rotation, y - y.mean(0)
        best = (mapped * target).sum() / np.square(mapped).sum()
        np.testing.assert_allclose(procrustes(fitter.moments()).weights, best * rotation)
