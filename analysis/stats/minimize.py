"""The minimum of a smooth loss, and small matrix products in one thread."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float

Point = Float[np.ndarray, " parameter"]


def minimize(
    loss: Callable[[Point], tuple[float, Point]],
    start: Point,
    *,
    bounds: Any = None,
    **options: Any,
) -> Point:
    """Where L-BFGS-B (Byrd et al. 1995) ends from `start`; `loss` gives the value and its slope.

    `options` are scipy's `gtol` and `ftol`.
    """
    import scipy.optimize  # 0.2 s, and most directions are differences in means.

    with one_thread():
        found = scipy.optimize.minimize(
            loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
    return found.x


def one_thread() -> AbstractContextManager[Any]:
    """Linear algebra in one thread: threads wait for each other longer than a small product takes.

    Two threads took 1.0 to 1.7 times as long to fit a logistic regression on 480 rows of 640
    numbers, and 14 times on cores with other work. In one, bits do not depend on their number.
    """
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> Any:
    import scipy.linalg  # noqa: F401 - its library is to be found too
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
