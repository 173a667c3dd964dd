"""k-way predictions: the planted accuracy, chance where nothing is planted, and intervals."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from axes.analysis.comparison.kway import (
    Counterparts,
    axis_cosines,
    balanced_accuracy,
    permutation_p_value,
    permuted_accuracies,
    predict_concepts,
)
from tests.worlds import kway_accuracy

COUNT, PER_CONCEPT, WIDTH = 4, 40, 10


def planted(
    distance: float,
    random: np.random.Generator,
    per_concept: int = PER_CONCEPT,
    fold_count: int = 5,
):
    """Items moved along axes at right angles, their concepts and their folds."""
    concepts = np.repeat(np.arange(COUNT), per_concept)
    items = random.standard_normal((len(concepts), WIDTH))
    items[np.arange(len(concepts)), concepts] += distance
    return items, concepts, np.arange(len(concepts)) % fold_count


def test_the_accuracy_is_the_planted_one_and_grows_with_the_distance():
    for distance in (1.0, 2.0, 3.0):
        items, concepts, folds = planted(distance, np.random.default_rng(5), 2000)
        found = balanced_accuracy(predict_concepts(items, concepts, folds), concepts)
        assert found.estimate == pytest.approx(kway_accuracy(COUNT, distance), abs=0.015)


def test_a_concept_along_which_all_items_spread_far_takes_none_of_the_others():
    items, concepts, folds = planted(3.0, np.random.default_rng(6), 500)
    scaled = items * np.array([4.0, *np.ones(WIDTH - 1)])
    found = balanced_accuracy(predict_concepts(scaled, concepts, folds), concepts).estimate
    assert found == pytest.approx(kway_accuracy(COUNT, 3.0), abs=0.04)


def test_axes_of_other_models_predict_through_a_common_space():
    items, concepts, folds = planted(3.0, np.random.default_rng(7), 400)
    noise = np.random.default_rng(8)
    others = [items + 0.5 * noise.standard_normal(items.shape) for _ in range(2)]
    shared = predict_concepts(items, concepts, folds, sources=others)
    assert balanced_accuracy(shared, concepts).estimate == pytest.approx(
        kway_accuracy(COUNT, 3.0), abs=0.04
    )
    strangers = [noise.permutation(other) for other in others]
    lost = predict_concepts(items, concepts, folds, sources=strangers)
    assert balanced_accuracy(lost, concepts).estimate < 0.5


def test_draws_of_concepts_are_predicted_as_plain_loops_predict_each():
    random = np.random.default_rng(9)
    items, concepts, folds = planted(1.0, random, 12)
    sources = [items + random.standard_normal(items.shape) for _ in range(3)]
    draws = np.stack([concepts, random.permutation(concepts)])
    for given in ([], sources):
        together = predict_concepts(items, draws, folds, sources=given)
        for drawn, predicted in zip(draws, together, strict=True):
            for index in range(len(items)):
                seen = folds != folds[index]
                scores = []
                for concept in range(COUNT):
                    rows = seen & (drawn == concept)
                    units = [x[rows].mean(axis=0) for x in (given or [items])]
                    units = [each / np.linalg.norm(each) for each in units]
                    axis = np.linalg.svd(np.stack(units))[2][0]
                    axis *= np.sign(np.sum(units @ axis))
                    scale = np.sqrt(np.mean((items[seen] @ axis) ** 2))
                    scores.append(items[index] @ axis / scale)
                assert predicted[index] == np.argmax(scores)


def test_concepts_dealt_again_reject_at_the_stated_rate_and_a_planted_one_always():
    rejected, accuracies = 0, []
    for world in range(400):
        items, concepts, folds = planted(0.0, np.random.default_rng([11, world]), 10, 2)
        predict = partial(predict_concepts, items, folds=folds)
        null = permuted_accuracies(predict, concepts, folds, count=19, seed=world)
        accuracy = balanced_accuracy(predict_concepts(items, concepts, folds), concepts).estimate
        rejected += permutation_p_value(accuracy, null) <= 0.05
        accuracies.append(accuracy)
    assert 0.03 <= rejected / 400 <= 0.07
    assert np.mean(accuracies) == pytest.approx(1 / COUNT, abs=0.015)
    items, concepts, folds = planted(2.0, np.random.default_rng(12))
    predict = partial(predict_concepts, items, folds=folds)
    null = permuted_accuracies(predict, concepts, folds, count=99)
    accuracy = balanced_accuracy(predict_concepts(items, concepts, folds), concepts).estimate
    assert permutation_p_value(accuracy, null) == 0.01


def test_the_interval_of_the_accuracy_covers():
    estimates = []
    for world in range(600):
        items, concepts, folds = planted(2.0, np.random.default_rng([13, world]))
        estimates.append(balanced_accuracy(predict_concepts(items, concepts, folds), concepts))
    truth = np.mean([each.estimate for each in estimates])
    covered = np.mean([each.lower <= truth <= each.upper for each in estimates])
    assert 0.93 <= covered <= 0.975


def test_a_perfect_accuracy_has_an_interval_and_concepts_count_alike_whatever_their_size():
    concepts = np.repeat([0, 1], [90, 10])
    perfect = balanced_accuracy(concepts, concepts)
    assert perfect.estimate == perfect.upper == 1.0
    assert 0.7 < perfect.lower < 1.0
    always_first = balanced_accuracy(np.zeros_like(concepts), concepts)
    assert always_first.estimate == 0.5


def test_cosines_of_axes_are_the_planted_ones_and_tested_against_axes_of_nothing():
    random = np.random.default_rng(14)
    concepts = np.repeat([0, 1, 2], 400)
    axes = np.zeros((3, 40))
    axes[[0, 1, 1, 2], [0, 0, 1, 2]] = 1.0, 0.6, 0.8, 1.0
    items = random.standard_normal((1200, 40)) + 5 * axes[concepts]
    cosines, null = axis_cosines([items], concepts)
    assert cosines == pytest.approx(axes @ axes.T, abs=0.03)
    for (first, second), is_near in {(0, 1): True, (0, 2): False, (1, 2): False}.items():
        drawn = null[:, first, second]
        # Of directions in 40 dimensions, whatever was planted.
        assert np.square(drawn).mean() == pytest.approx(1 / 40, rel=0.2)
        p_value = permutation_p_value(abs(cosines[first, second]), np.abs(drawn))
        assert (p_value < 0.01) == is_near


def test_an_item_is_a_positive_row_less_its_pair_or_less_the_negatives_of_its_fold():
    x = np.array([[1.0], [10.0], [3.0], [30.0]])
    labels, folds = np.array([True, False, True, False]), np.array([0, 0, 1, 1])
    pairs = np.array([0, 1, 1, 0])
    matched = Counterparts.of(labels, pairs, folds)
    assert matched.differences(x).ravel().tolist() == [1 - 30, 3 - 10]
    single = Counterparts.of(labels, np.arange(4), np.array([0, 0, 0, 0]))
    assert single.differences(x).ravel().tolist() == [1 - 20, 3 - 20]
    by_fold = Counterparts.of(labels, np.arange(4), folds)
    assert by_fold.differences(x).ravel().tolist() == [1 - 10, 3 - 30]
