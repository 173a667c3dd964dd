from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.methods.pursuit import decompose
from axes.warehouse.errors import NonFiniteError
from tests.saes import random_rows


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_planted_features_come_back_in_order_with_their_coefficients_and_leave_nothing():
    rows = random_rows(300, 64)
    made = {5: 2.0, 9: -1.0, 100: 0.5}
    planted = sum(weight * unit(rows[feature]) for feature, weight in made.items())
    shares = decompose(rows, unit(planted), 8)
    assert [share.feature for share in shares] == list(made)
    for share in shares:
        assert share.coefficient * np.linalg.norm(planted) == pytest.approx(
            made[share.feature], rel=1e-4
        )
    assert shares[0].left > shares[1].left > shares[2].left
    assert shares[2].left == pytest.approx(0, abs=1e-9)
    assert all(share.left_random > 0.5 for share in shares)


def test_of_nothing_planted_as_much_is_left_as_of_random_directions():
    shares = decompose(random_rows(300, 64), unit(random_rows(1, 64, seed=5)[0]), 6)
    assert len(shares) == 6
    for share in shares:
        assert share.left == pytest.approx(share.left_random, abs=0.12)


def test_features_of_no_length_are_none_and_the_order_of_rows_does_not_matter():
    rows = random_rows(40, 16)
    rows[[0, 3]] = 0
    direction = unit(random_rows(1, 16, seed=5)[0])
    shares = decompose(rows, direction, 4)
    turned = decompose(rows[::-1], direction, 4)
    assert [share.feature for share in shares] == [39 - share.feature for share in turned]
    assert not {0, 3} & {share.feature for share in shares}
    assert len(decompose(rows[:3], direction, 4)) == 2
    assert decompose(np.zeros((4, 16), np.float32), direction, 4) == []
    rows[7, 0] = np.nan
    with pytest.raises(NonFiniteError, match="row 7"):
        decompose(rows, direction, 4)
