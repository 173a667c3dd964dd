"""Do 95 % intervals hold the truth in 95 % of worlds?

In every world a group of models is fitted on one labelled set and judged on another, or on the same
one out of fold; the truth of the fitted axis is exact. Worlds differ in strength, noise, rotation
and, where pairs share a topic, in that the rows of a pair belong together.
"""

from __future__ import annotations

import numpy as np

from axes.analysis.drift.drift_controls import lasting, matched_length, matched_prompt
from axes.analysis.drift.drift_statistics import slope_estimates, slope_terms
from axes.analysis.methods.nulls import Mapped
from axes.analysis.methods.universal import universal_axis
from axes.analysis.stats.auroc import Estimate, auroc_difference, auroc_interval, share_estimate
from axes.analysis.stats.bootstrap import auroc_bootstrap, auroc_difference_bootstrap, draw_counts
from axes.analysis.stats.detection import tpr_intervals
from axes.analysis.stats.out_of_fold import evaluate_out_of_fold
from axes.analysis.stats.splits import grouped_folds
from axes.analysis.study.robustness.stability import SHARED_AXES, axes_fitter
from benchmarks.worlds.rates import Rate, over_worlds, rate
from tests.drifting import plant
from tests.fitted_worlds import FittedGroup, fit_group
from tests.worlds import make_group

PART = "intervals"
COVERAGE = (0.93, 0.97)
# An exact interval of a share near 0 or 1 holds it more often than it has to.
EXACT = (0.95, 1.0)
WIDTHS = {"alpha": 16, "beta": 20, "gamma": 24}
PAIRS = 100
RATE = 0.01


def measure_intervals(world_count: int) -> list[Rate]:
    """Coverage of every interval, over `world_count` worlds of each kind."""
    independent = over_worlds(_independent, world_count, first_seed=50_000_000)
    grouped = over_worlds(_grouped, world_count, first_seed=51_000_000)
    angles = over_worlds(_angle, world_count, first_seed=52_000_000)
    found = []
    planted = over_worlds(_out_of_fold, world_count, first_seed=53_000_000)
    nothing = over_worlds(_nothing_planted, world_count, first_seed=54_000_000)
    shares = over_worlds(_share, world_count, first_seed=55_000_000)
    drift = over_worlds(_drift, world_count, first_seed=56_000_000)
    for worlds in (independent, grouped, angles, planted, nothing, shares, drift):
        for name in worlds[0]:
            goal = None if "(for contrast)" in name else EXACT if worlds is shares else COVERAGE
            found.append(rate(PART, name, [world[name] for world in worlds], goal))
    return found


def _fitted(seed: int, *, topic: float = 0.0, strength: float | None = None) -> FittedGroup:
    random = np.random.default_rng(seed)
    drawn = random.uniform(0.5, 2.5)
    group = make_group(
        WIDTHS,
        strength=drawn if strength is None else strength,
        noise=random.uniform(0.05, 0.5),
        rotation=random.uniform(0.0, 0.6),
        topic=topic,
        labelled={"labelled": PAIRS, "other": PAIRS},
        seed=seed,
    )
    return fit_group(group, reference="gamma")


def _independent(seed: int) -> dict[str, bool]:
    """AUROC of the shared axis and its difference from the model's own, rows independent."""
    fitted = _fitted(seed)
    shared, own, labels = _judged(fitted, "beta")
    truth, own_truth = _truths(fitted, "beta")
    difference = truth - own_truth
    counts = draw_counts(len(labels), strata=labels, seed=seed)
    return {
        "AUROC, DeLong": _holds(auroc_interval(shared, labels), truth),
        "AUROC, bootstrap percentile": _holds(auroc_bootstrap(shared, labels, counts), truth),
        "universal minus native, DeLong": _holds(auroc_difference(shared, own, labels), difference),
        "universal minus native, bootstrap": _holds(
            auroc_difference_bootstrap(shared, own, labels, counts), difference
        ),
        "TPR at 1 % FPR, bootstrap": _holds(
            tpr_intervals(shared, labels, np.arange(len(labels)), seed=seed)[RATE],
            _true_rate(fitted, "beta"),
        ),
    }


def _grouped(seed: int) -> dict[str, bool]:
    """The same where the two rows of a pair share a topic; rows alone are there for contrast."""
    fitted = _fitted(seed, topic=1.5)
    shared, own, labels = _judged(fitted, "beta")
    truth, own_truth = _truths(fitted, "beta")
    difference, pairs = truth - own_truth, fitted.group.pairs["other"]
    counts = draw_counts(len(labels), strata=labels, groups=pairs, seed=seed)
    return {
        "AUROC, pairs share a topic, DeLong, whole pairs": _holds(
            auroc_interval(shared, labels, groups=pairs), truth
        ),
        "AUROC, pairs share a topic, bootstrap, whole pairs": _holds(
            auroc_bootstrap(shared, labels, counts), truth
        ),
        "universal minus native, pairs share a topic, DeLong, whole pairs": _holds(
            auroc_difference(shared, own, labels, groups=pairs), difference
        ),
        "universal minus native, pairs share a topic, bootstrap, whole pairs": _holds(
            auroc_difference_bootstrap(shared, own, labels, counts), difference
        ),
        "TPR at 1 % FPR, pairs share a topic, bootstrap, whole pairs": _holds(
            tpr_intervals(shared, labels, pairs, seed=seed)[RATE], _true_rate(fitted, "beta")
        ),
        "AUROC, pairs share a topic, DeLong, rows alone (for contrast)": _holds(
            auroc_interval(shared, labels), truth
        ),
    }


def _nothing_planted(seed: int) -> dict[str, bool]:
    return {f"{name}, nothing planted": held for name, held in _out_of_fold(seed, 0.0).items()}


def _out_of_fold(seed: int, strength: float | None = None) -> dict[str, bool]:
    """Axes fitted and evaluated on the same rows, in folds; the truth is that of the axes fitted.

    It is the mean over the folds of the first draw, whose axes are recovered from the projections.
    """
    fitted = _fitted(seed, strength=strength)
    group, model, place = fitted.group, "beta", list(WIDTHS).index("beta")
    labels, pairs = group.labels["labelled"], group.pairs["labelled"]
    mapped = [Mapped(fitted.x[name]["labelled"], fitted.alignments[name]) for name in WIDTHS]
    fit_axes = axes_fitter(mapped, labels, pairs)
    evaluated = evaluate_out_of_fold(lambda seen: fit_axes(seen)[:, place], labels, pairs)
    folds = grouped_folds(labels, pairs)
    x = np.column_stack([mapped[place].x, np.ones(len(labels))])
    # [fold, axis, row] projections are x @ vector + constant, without a remainder.
    projected = fit_axes(folds != np.unique(folds)[:, None])[:, place]
    truths = [
        np.mean([group.auroc(model, np.linalg.lstsq(x, row)[0][:-1]) for row in of_axis])
        for of_axis in projected.swapaxes(0, 1)
    ]
    held = {
        f"{axis} out of fold": _holds(evaluated.area(index), truths[index])
        for index, axis in enumerate(SHARED_AXES)
    }
    native, universal, _ = truths
    held["universal minus native out of fold"] = _holds(
        evaluated.difference(1, 0), universal - native
    )
    rates = [
        group.tpr_at_fpr(model, np.linalg.lstsq(x, row)[0][:-1], RATE) for row in projected[:, 0]
    ]
    held["native out of fold, TPR at 1 % FPR, fits as given (for contrast)"] = _holds(
        tpr_intervals(evaluated.scores[0, 0], labels, pairs)[RATE], float(np.mean(rates))
    )
    delong = auroc_interval(evaluated.scores[0, 0], labels, pairs)
    held["native out of fold, fits as given (for contrast)"] = _holds(delong, native)
    return held


def _share(seed: int) -> dict[str, bool]:
    """A share near 1, where most samples of 60 hold nothing else."""
    random = np.random.default_rng(seed)
    truth = 1 - random.uniform(0.0, 0.03)
    drawn = share_estimate(float(random.binomial(60, truth)), 60)
    return {"a share of 0.97 to 1 in 60": _holds(drawn, truth)}


def _drift(seed: int) -> dict[str, bool]:
    """Five completions a prompt, which share its slope; resamples are of pairs of prompts.

    Classes differ in slope alone, so that a control changes nothing.
    """
    truth = 0.02
    trajectories = plant(
        pairs=40, samples=5, slope=truth, slope_deviation=0.03, lengths=((12, 24),) * 2, seed=seed
    )
    is_positive = trajectories.is_positive
    rows = np.arange(len(is_positive))
    draws, alone = (
        draw_counts(len(rows), strata=is_positive, groups=groups, count=400, seed=seed)
        for groups in (trajectories.groups, rows)
    )
    terms = slope_terms(trajectories.values)
    slope, slope_alone = (slope_estimates(terms, is_positive, drawn)[2] for drawn in (draws, alone))
    held = {
        "difference of slopes, 5 completions a prompt": _holds(slope, truth),
        "difference of slopes, completions alone (for contrast)": _holds(slope_alone, truth),
    }
    for control in (
        matched_prompt(trajectories, draws),
        matched_length(trajectories, draws),
        lasting(trajectories, 18, draws),
    ):
        held[f"change by the control {control.name}, which explains nothing"] = _holds(
            control.change, 0.0
        )
    return held


def _angle(seed: int) -> dict[str, bool]:
    """The universal axis' angle to the one of infinitely many labelled prompts, maps held fixed.

    The bound comes from the 95th percentile of the angles between resampled axes and the fitted
    one. A fitted direction is the true one plus noise across it, so it is the longer of the two:
    `tan(resampled angle) = noise / fitted` where `sin(angle) = noise / fitted`.
    """
    fitted = _fitted(seed)
    true_axis = universal_axis(
        np.stack(
            [
                _unit(fitted.alignments[model].map(fitted.group.difference(model)))
                for model in WIDTHS
            ]
        )
    ).vector
    labels = fitted.group.labels["labelled"]
    counts = draw_counts(len(labels), strata=labels, count=400, seed=seed)
    weights = np.where(labels, 1.0, -1.0) * counts * 2 / len(labels)
    aligned = np.stack(
        [
            _unit(weights @ fitted.x[model]["labelled"] @ fitted.alignments[model].weights)
            for model in WIDTHS
        ],
        axis=1,
    )
    resampled = [_angle_between(universal_axis(rows).vector, fitted.universal) for rows in aligned]
    truth = _angle_between(true_axis, fitted.universal)
    resampled_bound = float(np.quantile(resampled, 0.95))
    bound = float(np.arcsin(min(np.tan(resampled_bound), 1.0)))
    return {
        "angle of the axis, bound by sin(angle) = tan(resampled)": truth <= bound,
        "angle of the axis, bound by resampled angles (for contrast)": truth <= resampled_bound,
    }


def _judged(fitted: FittedGroup, model: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Projections of the other set on the shared axis and on the model's own, and the labels."""
    own = fitted.x[model]["other"] @ fitted.directions[model]
    return fitted.scores(model, "other", fitted.universal), own, fitted.group.labels["other"]


def _truths(fitted: FittedGroup, model: str) -> tuple[float, float]:
    shared = fitted.group.auroc(model, fitted.pulled_back(model, fitted.universal))
    return shared, fitted.group.auroc(model, fitted.directions[model])


def _true_rate(fitted: FittedGroup, model: str) -> float:
    vector = fitted.pulled_back(model, fitted.universal)
    return fitted.group.tpr_at_fpr(model, vector, RATE)


def _holds(interval: Estimate, truth: float) -> bool:
    return bool(interval.lower <= truth <= interval.upper)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _angle_between(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.arccos(np.clip(first @ second, -1.0, 1.0)))
