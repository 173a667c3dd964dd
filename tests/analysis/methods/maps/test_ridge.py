from __future__ import annotations

import numpy as np
import pytest
import sklearn.linear_model

from axes.analysis.methods import AlignmentOptions
from axes.analysis.methods.maps import ridge
from axes.analysis.methods.maps.ridge import LAMBDA_GRID, Ridge, RidgeFitter, RidgePath, Spectrum
from tests.analysis.pairs import pairs

FEW = {"count": 30, "width": 50}
SHAPES = [{}, FEW]


@pytest.mark.parametrize("shape", SHAPES, ids=["many rows", "few rows"])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_every_map_of_the_path_is_that_of_scikit_learn(shape, offset):
    x, y = pairs(**shape, offset=offset)
    path = RidgePath.of_rows(x, y)
    for ridge_lambda in LAMBDA_GRID[2:]:
        mine = path.solve(ridge_lambda)
        theirs = sklearn.linear_model.Ridge(alpha=ridge_lambda).fit(x, y)
        np.testing.assert_allclose(mine.weights, theirs.coef_.T, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(mine.apply(x), theirs.predict(x), rtol=1e-8, atol=1e-8)


def test_few_rows_give_the_same_map_by_either_decomposition():
    x, y = pairs(**FEW)
    by_rows, by_sums = RidgePath.of_rows(x, y), RidgeFitter(50, 7).update(x, y).path()
    assert by_rows.spectrum.rotation is not None and by_sums.spectrum.rotation is None
    np.testing.assert_allclose(by_rows.solve(5.0).weights, by_sums.solve(5.0).weights, atol=1e-10)
    np.testing.assert_allclose(
        by_rows.cross_validated_errors([5.0]), by_sums.cross_validated_errors([5.0])
    )


def test_streaming_equals_one_batch():
    x, y = pairs(offset=1e4)
    whole = RidgeFitter(20, 7).update(x, y).solve(10.0)
    fitter = RidgeFitter(20, 7)
    for start in range(0, 300, 37):
        fitter.update(x[start : start + 37], y[start : start + 37])
    np.testing.assert_allclose(fitter.solve(10.0).weights, whole.weights, rtol=1e-8, atol=1e-10)


def test_lambda_is_of_twenty_one_from_a_hundredth_to_ten_to_the_eighth():
    np.testing.assert_allclose(np.log10(LAMBDA_GRID), np.arange(-2, 8.5, 0.5), atol=1e-12)


def test_a_fitter_without_rows_says_so():
    with pytest.raises(ValueError, match="no rows"):
        RidgeFitter(3, 2).solve(1.0)


@pytest.mark.parametrize("shape", [{}, {"count": 90, "width": 200, "targets": 4}])
def test_errors_on_held_out_rows_are_those_of_the_maps(shape):
    """By mapping the rows and by their sums: the same errors as one map after the other."""
    x, y = pairs(**shape)
    held_out = np.arange(len(x)) % 4 == 0
    path = RidgePath.of_rows(x, y, ~held_out)
    maps = [path.solve(ridge_lambda) for ridge_lambda in LAMBDA_GRID]
    expected = [np.square(each.apply(x[held_out]) - y[held_out]).sum() for each in maps]
    for errors in (path.held_out_errors, path._errors_by_rows, path._errors_by_sums):
        np.testing.assert_allclose(errors(x, y, held_out), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=["many rows", "few rows"])
def test_a_path_carries_and_pulls_back_as_its_maps_do(shape):
    x, y = pairs(**shape)
    path, random = RidgePath.of_rows(x, y), np.random.default_rng(1)
    direction, axis = random.standard_normal(x.shape[1]), random.standard_normal(7)
    for ridge_lambda in (1.0, 1e3, 1e6):
        mapped = path.solve(ridge_lambda)
        np.testing.assert_allclose(path.map(direction, ridge_lambda), mapped.map(direction))
        pulled, _ = mapped.pull_back(axis)
        np.testing.assert_allclose(path.pull_back(axis, ridge_lambda), pulled)


@pytest.mark.parametrize("shape", SHAPES, ids=["many rows", "few rows"])
def test_generalised_cross_validation_is_its_formula(shape):
    """The residuals and the trace of the hat matrix, written out."""
    x, y = pairs(**shape)
    count, ridge_lambda = len(x), 30.0
    centred = x - x.mean(axis=0)
    products = centred.T @ centred + ridge_lambda * np.eye(x.shape[1])
    hat = centred @ np.linalg.solve(products, centred.T) + 1 / count
    errors = np.square(y - hat @ y).sum() / count / (1 - np.einsum("ii", hat) / count) ** 2
    found = RidgePath.of_rows(x, y).cross_validated_errors([ridge_lambda])
    np.testing.assert_allclose(found, [errors])


def test_a_spectrum_of_equal_rows_is_zero_and_gives_the_mean():
    x = np.ones((4, 6))
    assert Spectrum.of_few_rows(x).values.max() < 1e-12
    mapped = RidgePath.of_rows(x, np.arange(8.0).reshape(4, 2)).solve(1.0)
    np.testing.assert_allclose(mapped.apply(x[:1]), [[3.0, 4.0]])


def test_a_procedure_on_the_first_rows_is_as_on_those_rows_alone():
    x, y = pairs(120, noise=30.0)
    first = Ridge(x, AlignmentOptions(), seed=3, row_count=50)
    alone = Ridge(x[:50], AlignmentOptions(), seed=3)
    assert first.choose(y) == alone.choose(y[:50])
    one, other = first.path(y, "all").solve(1.0), alone.path(y[:50], "all").solve(1.0)
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=["many rows", "few rows"])
def test_other_targets_take_the_decomposition_of_the_first_and_give_the_same_maps(shape):
    x, y = pairs(**shape)
    shared, alone = Ridge(x, AlignmentOptions()), Ridge(x, AlignmentOptions())
    for part in ("seen", "all"):
        first, second = shared.path(y, part), shared.path(y[::-1], part)
        expected = alone.path(y[::-1], part)
        assert second.spectrum.basis is first.spectrum.basis
        np.testing.assert_allclose(
            second.solve(2.0).weights, expected.solve(2.0).weights, atol=1e-9
        )
        np.testing.assert_allclose(second.totals, expected.totals)


def test_a_second_y_by_rows_kept_in_the_eigenbasis_has_the_same_maps_and_errors(monkeypatch):
    x, y = pairs()
    for kept in (True, False):
        monkeypatch.setattr(ridge, "_COMPONENT_BYTES", 1 << 20 if kept else 0)
        procedure = Ridge(x, AlignmentOptions())
        for targets in (y, y[::-1]):
            path = procedure.path(targets, "fitted")
            errors = path._errors_by_sums(x, targets, procedure.parts["held_out"])
        assert (path.spectrum.components is not None) is kept
        alignment = path.solve(5.0)
        if kept:
            expected = errors, alignment
    np.testing.assert_allclose(errors, expected[0], rtol=1e-10)
    np.testing.assert_allclose(alignment.weights, expected[1].weights, rtol=1e-9, atol=1e-12)
