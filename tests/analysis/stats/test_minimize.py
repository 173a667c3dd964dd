"""A loss is minimised in one thread of linear algebra, and threads come back after it."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from axes.analysis.stats.minimize import minimize, one_thread


def blas_threads() -> set[int]:
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


@pytest.mark.parametrize("bounds", [None, ((0, None), (0, None))])
def test_the_minimum_is_found_within_bounds_in_one_thread(bounds) -> None:
    target, seen = np.array([2.0, -3.0]), set[int]()

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        seen.update(blas_threads())
        return float(((point - target) ** 2).sum()), 2 * (point - target)

    with threadpool_limits(2, "blas"):
        found = minimize(loss, np.array([5.0, 5.0]), bounds=bounds, gtol=1e-10)
        assert blas_threads() == {2}
    assert seen == {1}
    np.testing.assert_allclose(found, target if bounds is None else [2.0, 0.0], atol=1e-8)


def test_threads_come_back_after_an_error() -> None:
    with threadpool_limits(2, "blas"):
        with pytest.raises(ZeroDivisionError), one_thread():
            _ = 1 / 0
        assert blas_threads() == {2}
