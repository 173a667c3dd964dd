from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.methods import AlignmentOptions
from axes.analysis.methods.maps.alignment import fit_alignment
from axes.analysis.methods.maps.anchors import ANCHOR_COUNT, anchor_path
from tests.fitted_worlds import fit_group
from tests.worlds import BENIGN, make_group

EVERY = np.ones(700, dtype=bool)


def related(widths=(24, 16), latent=10, noise=0.02, seed=0):
    """Rows of two models that show the same latent rows through rotations of their own."""
    random = np.random.default_rng(seed)
    shown = random.standard_normal((700, latent))
    maps = [np.linalg.qr(random.standard_normal((width, latent)))[0].T for width in widths]
    x, y = (
        scale * shown @ each + noise * random.standard_normal((700, each.shape[1])) + 5
        for scale, each in zip((1.0, 4.0), maps, strict=True)
    )
    return x, y


@pytest.mark.parametrize("rank", [1, 4, 10])
def test_the_map_is_that_of_plain_numpy(rank):
    x, y = related()
    chosen = np.linspace(0, 699, ANCHOR_COUNT).round().astype(int)
    a, r = (each[chosen] - each.mean(axis=0) for each in (x, y))
    a, r = (each / np.linalg.norm(each, axis=1)[:, None] for each in (a, r))
    u, s, vt = np.linalg.svd(r)
    inverse = u[:, :rank] @ np.diag(1 / s[:rank]) @ vt[:rank]
    mapped, target = (x - x.mean(axis=0)) @ a.T @ inverse, y - y.mean(axis=0)
    factor = (mapped * target).sum() / (mapped * mapped).sum()
    found = anchor_path(x, y, EVERY).solve(rank)
    np.testing.assert_allclose(found.weights, factor * a.T @ inverse, atol=1e-6)
    np.testing.assert_allclose(found.apply(x), factor * mapped + y.mean(axis=0), atol=1e-6)


def test_a_turned_and_scaled_model_is_mapped_through_the_dimensions_that_it_has():
    fit = fit_alignment(*related(), AlignmentOptions("anchor_projection"))
    assert fit.r2_held_out > 0.99 and fit.rank == 10
    given = fit_alignment(*related(), AlignmentOptions("anchor_projection", rank=3))
    assert given.rank == 3 and np.linalg.matrix_rank(given.alignment.weights) == 3
    assert given.r2_held_out < fit.r2_held_out


def test_coordinates_do_not_change_when_the_model_is_turned():
    x, y = related()
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((24, 24)))[0]
    found, turned = (anchor_path(each, y, EVERY).solve(10) for each in (x, 3 * x @ turn - 2))
    np.testing.assert_allclose(turned.apply(3 * x @ turn - 2), found.apply(x), atol=1e-8)


def test_rows_without_a_place_of_their_own_give_no_map():
    x, y = related()
    found = anchor_path(np.ones_like(x), y, EVERY).solve(4)
    np.testing.assert_allclose(found.apply(np.ones_like(x)), np.tile(y.mean(axis=0), (700, 1)))


def test_the_planted_axis_is_mapped_into_the_reference():
    group = make_group({"alpha": 20, "gamma": 24}, strength=3.0, seed=3)
    x = {model: group.activations(model, BENIGN) for model in group.maps}
    options = AlignmentOptions("anchor_projection")
    alignment = fit_alignment(x["alpha"], x["gamma"], options).alignment
    mapped = alignment.map(group.planted("alpha"))
    assert mapped @ group.planted("gamma") / np.linalg.norm(mapped) > 0.99
    ridge = fit_group(group, reference="gamma").alignments["alpha"].map(group.planted("alpha"))
    assert mapped @ ridge / np.linalg.norm(mapped) / np.linalg.norm(ridge) > 0.99
