"""Intervals and tests of k-way accuracies, subspaces, low false-positive rates and neighbours."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.stats import norm

from axes.analysis.comparison.kway import (
    axis_cosines,
    balanced_accuracy,
    permutation_p_value,
    permuted_accuracies,
    predict_concepts,
)
from axes.analysis.stats.auroc import Estimate, auroc
from axes.analysis.stats.detection import tpr_intervals
from axes.analysis.stats.neighbours import mutual_knn
from axes.analysis.subspaces import Subspace, fit_subspace, rank_curve
from benchmarks.worlds.intervals import COVERAGE
from benchmarks.worlds.nulls import LEVEL, SIZE
from benchmarks.worlds.rates import Rate, over_worlds, rate

PART = "concepts, subspaces and rates"
CONCEPTS, WIDTH, PAIRS = 4, 10, 30


def measure_methods(world_count: int) -> list[Rate]:
    """Coverage and size over `world_count` worlds of each, and the angle of planted subspaces."""
    found = []
    for place, (world, goal) in enumerate(
        (
            (_nothing, SIZE),
            (_nothing_in_subspaces, SIZE),
            (_rates, COVERAGE),
            (_subspaces, (0.95, 1.0)),
        )
    ):
        worlds = over_worlds(world, world_count, first_seed=120_000_000 + place * 1_000_000)
        found += [rate(PART, name, [each[name] for each in worlds], goal) for name in worlds[0]]
    accuracies = over_worlds(_accuracy, world_count, first_seed=130_000_000)
    truth = np.mean([each.estimate for each in accuracies])
    held = [bool(each.lower <= truth <= each.upper) for each in accuracies]
    return [*found, rate(PART, "k-way accuracy", held, COVERAGE)]


def _items(random: np.random.Generator, moved: float) -> tuple[np.ndarray, ...]:
    """Items of concepts at right angles, their concepts and folds."""
    concepts = np.repeat(np.arange(CONCEPTS), PAIRS)
    items = random.standard_normal((len(concepts), WIDTH))
    items[np.arange(len(concepts)), concepts] += moved
    return items, concepts, np.arange(len(concepts)) % 5


def _nothing(seed: int) -> dict[str, bool]:
    random = np.random.default_rng(seed)
    items, concepts, folds = _items(random, 0.0)
    predict = partial(predict_concepts, items, folds=folds)
    accuracy = balanced_accuracy(predict(concepts), concepts).estimate
    dealt = permuted_accuracies(predict, concepts, folds, count=99, seed=seed)
    cosines, null = axis_cosines([items], concepts, count=199, seed=seed)
    first, second = random.standard_normal((2, 60, 4))
    return {
        "nothing planted: k-way accuracy, concepts dealt again": (
            permutation_p_value(accuracy, dealt) <= LEVEL
        ),
        "nothing planted: cosine of two concepts, signs drawn": (
            permutation_p_value(abs(cosines[0, 1]), np.abs(null[:, 0, 1])) <= LEVEL
        ),
        "nothing planted: mutual neighbours, partners shuffled": (
            mutual_knn(first, second, seed=seed)[0].p_value <= LEVEL
        ),
    }


def _nothing_in_subspaces(seed: int) -> dict[str, bool]:
    """Above all of 19 labellings by chance in one world of twenty."""
    x = np.random.default_rng(seed).standard_normal((2 * PAIRS, WIDTH))
    labels, groups = np.arange(len(x)) % 2 == 0, np.arange(len(x)) // 2
    curve = rank_curve(x, labels, groups, max_rank=1, seed=seed)
    return {
        "nothing planted: subspace of rank 1 out of fold, shuffled labels": bool(
            auroc(curve.scores[0], labels) > curve.shuffled[:19, 0].max()
        )
    }


def _rates(seed: int) -> dict[str, bool]:
    """Binormal scores of 1,500 rows a class, for the rate that hundreds cannot tell."""
    random = np.random.default_rng(seed)
    strength, limit = random.uniform(1.0, 4.0), 0.001
    labels, groups = np.arange(3_000) % 2 == 0, np.arange(3_000) // 2
    scores = random.standard_normal(len(labels)) + strength * labels
    found = tpr_intervals(scores, labels, groups, seed=seed)[limit]
    truth = norm.cdf(strength - norm.isf(limit))
    return {"TPR at 0.1 % FPR, 1,500 pairs": bool(found.lower <= truth <= found.upper)}


def _accuracy(seed: int) -> Estimate:
    """Of items moved by two standard deviations; the truth is the mean over the worlds."""
    items, concepts, folds = _items(np.random.default_rng(seed), 2.0)
    return balanced_accuracy(predict_concepts(items, concepts, folds), concepts)


def _subspaces(seed: int) -> dict[str, bool]:
    """Positive rows lie to either side of one of three directions; 2,000 pairs in 20 dimensions."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.standard_normal((20, 3)))[0]
    labels = np.arange(4_000) % 2 == 0
    x = random.standard_normal((len(labels), 20))
    x += (labels * random.choice([-4.0, 4.0], len(x)))[:, None] * basis.T[
        random.integers(0, 3, len(x))
    ]
    angles = fit_subspace(x, labels, 3).angles(Subspace(basis, np.zeros(20)))
    return {"planted subspace of rank 3: largest principal angle below 5 degrees": angles[0] < 5}
