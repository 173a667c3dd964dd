from __future__ import annotations

import numpy as np
import pytest

from analysis.directions import difference_in_means, unit
from warehouse.errors import AxisError


def test_a_planted_direction_is_recovered():
    random = np.random.default_rng(0)
    planted = unit(random.standard_normal(40)).vector
    labels = np.arange(600) % 2 == 0
    x = random.standard_normal((600, 40)) + 5 * np.outer(labels - 0.5, planted)
    direction = difference_in_means(x.astype(np.float32), labels)
    assert direction.vector @ planted > 0.99
    assert direction.raw_norm == pytest.approx(5, rel=0.1)
    assert np.linalg.norm(direction.vector) == pytest.approx(1, abs=1e-12)


def test_the_positive_class_projects_higher_whatever_the_order_of_rows():
    random = np.random.default_rng(1)
    x, labels = random.standard_normal((50, 8)), random.random(50) < 0.4
    order = random.permutation(50)
    direction = difference_in_means(x, labels).vector
    assert (x @ direction)[labels].mean() > (x @ direction)[~labels].mean()
    np.testing.assert_allclose(
        difference_in_means(x[order], labels[order]).vector, direction, atol=1e-12
    )


def test_a_small_difference_survives_a_large_common_mean():
    """Float32 means of values about 1e4 would be off by more than the planted 0.01."""
    labels = np.arange(20_000) % 2 == 0
    x = np.full((20_000, 2), 1e4, dtype=np.float32)
    x[labels, 1] += np.float32(0.01171875)  # exact in float32 at 1e4
    assert difference_in_means(x, labels).raw_norm == pytest.approx(0.01171875, rel=1e-6)


def test_equal_means_are_an_error():
    with pytest.raises(AxisError, match="same mean"):
        difference_in_means(np.ones((4, 3)), np.array([True, False, True, False]))
