"""Do tests at 5 % reject in 5 % of worlds where there is nothing?

Models show the same prompts, and no label has to do with any of them.
"""

from __future__ import annotations

import numpy as np

from axes.analysis.methods.nulls import cross_validated_scores, shuffled_alignments, shuffled_labels
from axes.analysis.methods.universal import universal_axis
from axes.analysis.stats.auroc import auroc, auroc_difference
from axes.analysis.stats.bootstrap import auroc_difference_bootstrap, draw_counts
from benchmarks.worlds.rates import Rate, over_worlds, rate
from tests.fitted_worlds import RIDGE_LAMBDA, FittedGroup, fit_group
from tests.worlds import BENIGN, make_group

PART = "tests with nothing planted"
SIZE = (0.03, 0.07)
LEVEL = 0.05
WIDTHS = {"alpha": 16, "beta": 20, "gamma": 24}
PAIRS = 60
SHUFFLES = 199


def measure_nulls(world_count: int) -> list[Rate]:
    """How often every test rejects, over `world_count` worlds."""
    found = []
    for place, test in enumerate((_differences, _directions, _gaps, _alignments)):
        worlds = over_worlds(test, world_count, first_seed=60_000_000 + place * 1_000_000)
        found += [
            rate(PART, name, [world[name] for world in worlds], _goal(name)) for name in worlds[0]
        ]
    return found


def _goal(name: str) -> tuple[float, float] | None:
    return None if name.endswith("(for contrast)") else SIZE


def _nothing(seed: int, **planted) -> FittedGroup:
    group = make_group(
        WIDTHS,
        strength=0.0,
        noise=0.5,
        labelled={"labelled": PAIRS, "other": PAIRS},
        seed=seed,
        **planted,
    )
    return fit_group(group, reference="gamma")


def _differences(seed: int) -> dict[str, bool]:
    fitted = _nothing(seed)
    labels = fitted.group.labels["other"]
    own = fitted.x["beta"]["other"] @ fitted.directions["beta"]
    shared = fitted.scores("beta", "other", fitted.leave_one_out["beta"])
    tests = {
        "DeLong": auroc_difference(shared, own, labels),
        "bootstrap": auroc_difference_bootstrap(
            shared, own, labels, draw_counts(len(labels), strata=labels, seed=seed)
        ),
    }
    return {
        f"leave one out minus native, {name}": found.p_value < LEVEL
        for name, found in tests.items()
    }


def _directions(seed: int) -> dict[str, bool]:
    """One-sided, as the tables of a study read it: is the figure beyond the 95th percentile?"""
    fitted = _nothing(seed)
    x, labels = fitted.x["beta"]["labelled"], fitted.group.labels["labelled"]
    pairs = fitted.group.pairs["labelled"]
    null = shuffled_labels(x, labels, pairs, count=SHUFFLES, seed=seed)
    held_out = auroc(cross_validated_scores(x, labels, pairs, seed=seed), labels)
    in_sample = auroc(x @ fitted.directions["beta"], labels)
    other = auroc(
        fitted.x["beta"]["other"] @ fitted.directions["beta"], fitted.group.labels["other"]
    )
    return {
        "direction out of fold, shuffled labels": _p_value(held_out, null.held_out) <= LEVEL,
        "direction in sample, shuffled labels": _p_value(in_sample, null.in_sample) <= LEVEL,
        "direction in sample, AUROC above 0.55 (for contrast)": in_sample > 0.55,
        "direction on other prompts, AUROC above 0.55 (for contrast)": other > 0.55,
    }


def _gaps(seed: int) -> dict[str, bool]:
    """Models that see the same prompts share the noise of those prompts, labels or not.

    Labels shuffled alike in every model share it too; directions drawn at random do not.
    """
    fitted = _nothing(seed)
    random = np.random.default_rng(seed)
    labels = fitted.group.labels["labelled"]
    shuffles = np.stack([random.permutation(labels) for _ in range(SHUFFLES)])
    apart = np.stack(
        [
            _aligned(fitted, np.stack([random.permutation(labels) for _ in range(SHUFFLES)]))[
                :, place
            ]
            for place in range(len(WIDTHS))
        ],
        axis=1,
    )
    truly = _aligned(fitted, labels[None])[0]
    observed = _gap(truly)
    alike = _aligned(fitted, shuffles)
    shuffled = np.array([_gap(aligned) for aligned in alike])
    cosines = np.array([_cosine_leave_one_out(aligned) for aligned in alike])
    by_model = np.array([_gap(aligned) for aligned in apart])
    drawn = random.standard_normal((SHUFFLES, len(WIDTHS), WIDTHS["gamma"]))
    drawn /= np.linalg.norm(drawn, axis=2, keepdims=True)
    at_random = np.array([_gap(aligned) for aligned in drawn])
    return {
        "singular-value gap, labels shuffled alike": _p_value(observed, shuffled) <= LEVEL,
        "cosine of the left out with the others' axis, labels shuffled alike": (
            _p_value(_cosine_leave_one_out(truly), cosines) <= LEVEL
        ),
        "singular-value gap, labels shuffled by model (for contrast)": (
            _p_value(observed, by_model) <= LEVEL
        ),
        "singular-value gap, random directions (for contrast)": (
            _p_value(observed, at_random) <= LEVEL
        ),
    }


def _aligned(fitted: FittedGroup, labels: np.ndarray) -> np.ndarray:
    """Aligned unit directions `[labelling, model, d_reference]` under each labelling."""
    weights = labels / labels.sum(axis=1, keepdims=True)
    weights = weights - ~labels / (~labels).sum(axis=1, keepdims=True)
    carried = [
        weights @ fitted.x[model]["labelled"] @ fitted.alignments[model].weights for model in WIDTHS
    ]
    stacked = np.stack(carried, axis=1)
    return stacked / np.linalg.norm(stacked, axis=2, keepdims=True)


def _gap(aligned: np.ndarray) -> float:
    first, second = universal_axis(aligned).singular_values[:2]
    return float(first - second)


def _cosine_leave_one_out(aligned: np.ndarray, place: int = 1) -> float:
    """Cosine of one model's aligned direction with the axis made of the others'."""
    return float(aligned[place] @ universal_axis(np.delete(aligned, place, axis=0)).vector)


def _alignments(seed: int) -> dict[str, bool]:
    """An alignment of rows paired at random pulls the axis back to nowhere; so does a true one."""
    fitted = _nothing(seed)
    labels, x = fitted.group.labels["other"], fitted.x["beta"]
    axis = fitted.leave_one_out["beta"]
    null = shuffled_alignments(
        x[BENIGN],
        fitted.x["gamma"][BENIGN],
        axis,
        RIDGE_LAMBDA,
        x["other"],
        labels,
        count=SHUFFLES,
        seed=seed,
    )
    observed = auroc(fitted.scores("beta", "other", axis), labels)
    return {"leave one out, other prompts, shuffled alignments": _p_value(observed, null) <= LEVEL}


def _p_value(observed: float, null: np.ndarray) -> float:
    """Share of the null at least as high, the figure itself counted."""
    return float((1 + (null >= observed).sum()) / (1 + len(null)))
