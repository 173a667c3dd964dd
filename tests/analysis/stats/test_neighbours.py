from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from axes.analysis.stats.neighbours import MAX_ROWS, NEIGHBOUR_COUNT, mutual_knn
from tests.worlds import BENIGN, make_group


def test_the_share_is_that_of_scikit_learns_neighbours():
    random = np.random.default_rng(0)
    x = random.standard_normal((150, 6)) + 10
    y = x @ random.standard_normal((6, 9)) + random.standard_normal((150, 9))

    def theirs(rows):
        rows = rows - rows.mean(axis=0)
        model = NearestNeighbors(n_neighbors=NEIGHBOUR_COUNT, metric="cosine").fit(rows)
        return [set(row) for row in model.kneighbors(return_distance=False)]

    shares = [len(a & b) / NEIGHBOUR_COUNT for a, b in zip(theirs(x), theirs(y), strict=True)]
    found, null = mutual_knn(x, y)
    assert found.estimate == pytest.approx(np.mean(shares), abs=1e-6)
    assert null.lower < null.estimate == pytest.approx(NEIGHBOUR_COUNT / 149, abs=2e-3)
    assert null.upper < found.estimate and found.p_value == pytest.approx(1 / 1001)


def test_models_that_show_the_same_prompts_share_neighbours_and_unrelated_ones_do_not():
    group = make_group({"a": 16, "b": 20, "c": 24}, unrelated="c", seed=1)
    a, b, c = (group.activations(model, BENIGN) for model in "abc")
    found, null = mutual_knn(a, b)
    assert found.estimate > 0.8 > 0.1 > null.upper
    found, null = mutual_knn(a, c)
    assert null.lower - 0.01 <= found.estimate <= null.upper + 0.01 and found.p_value > 0.01


def test_nothing_shared_is_seldom_found():
    """Of 200 worlds at 5 %, 4 to 18 reject but once in 500 times."""
    rejected = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        x, y = random.standard_normal((2, 60, 4))
        rejected += mutual_knn(x, y, seed=seed)[0].p_value <= 0.05
    assert 3 <= rejected <= 19


def test_a_turn_a_scale_and_a_shift_change_nothing_and_rows_are_bounded():
    random = np.random.default_rng(2)
    x = random.standard_normal((MAX_ROWS + 300, 5))
    turned = 7 * x @ np.linalg.qr(random.standard_normal((5, 5)))[0] + 100
    found, null = mutual_knn(x, turned)
    assert found.estimate == 1.0
    assert null.estimate == pytest.approx(NEIGHBOUR_COUNT / (MAX_ROWS - 1), abs=1e-3)
    assert mutual_knn(x, turned) == mutual_knn(x, turned)


def test_of_few_rows_no_more_than_half_of_the_others_are_neighbours():
    random = np.random.default_rng(4)
    _, null = mutual_knn(*random.standard_normal((2, 20, 5)))
    assert null.estimate == pytest.approx(9 / 19, abs=5e-3)


def test_few_rows_and_rows_that_are_all_alike_are_not_an_error():
    found, _ = mutual_knn(np.eye(3), np.eye(3))
    assert 0 <= found.estimate <= 1
    found, _ = mutual_knn(np.ones((40, 3)), np.random.default_rng(3).standard_normal((40, 3)))
    assert found.p_value > 0.001
