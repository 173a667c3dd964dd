"""Is what was planted found, transferred, flagged or diagnosed?"""

from __future__ import annotations

import numpy as np

from axes.analysis.stats.auroc import auroc
from axes.analysis.study.diagnosis.diagnose import diagnose
from benchmarks.worlds.rates import Rate, over_worlds, rate
from tests.fitted_worlds import FittedGroup, fit_group
from tests.worlds import make_group

PLANTED, CONFOUNDED, DIAGNOSED = "planted axis", "confounds", "diagnoses"
WIDTHS = {"alpha": 24, "beta": 32, "gamma": 40, "delta": 36}
PAIRS = 300
ALMOST_ALL, HARDLY_ANY = (0.95, 1.0), (0.0, 0.05)

# Fault planted in one model (or set) -> where it shows, and the check that has to name it.
FAULTS: dict[str, tuple[dict[str, object], str, str]] = {
    "none, in sample": ({}, "labelled", "healthy"),
    "none, other prompts": ({}, "other", "healthy"),
    "none, but noise, rotation and topics": (
        {"noise": 0.5, "rotation": 0.4, "topic": 1.0},
        "labelled",
        "healthy",
    ),
    "nothing planted": ({"strength": 0.0}, "labelled", "signal"),
    "direction reversed in one model": ({"flipped": "beta"}, "labelled", "direction"),
    "counterexample: a few prompts carry the means": ({"outliers": "beta"}, "labelled", "few_rows"),
    "counterexample: classes part elsewhere on other prompts": (
        {"turned": "beta"},
        "other",
        "class_difference",
    ),
    "labels of a set swapped": ({"relabelled": "other"}, "other", "labels"),
    "alignment broken off benign text": ({"broken": "beta"}, "labelled", "alignment"),
    "massive dimensions": ({"massive": "beta"}, "labelled", "massive_dimensions"),
    "axis faint, so lambda decides": ({"faint": "beta"}, "labelled", "ridge_lambda"),
    "intercept shifted": ({"shifted": "beta"}, "labelled", "intercept"),
    "source determines label": ({"strength": 0.0, "confound": 3.0}, "labelled", "source"),
}


def measure_recovery(world_count: int) -> list[Rate]:
    """Recovery, transfer and flags over `world_count` worlds; diagnoses over a fifth as many."""
    planted = over_worlds(_planted, world_count, first_seed=80_000_000)
    confounded = over_worlds(_confounded, world_count, first_seed=81_000_000)
    found = [
        rate(part, name, [world[name] for world in worlds], _goal(name))
        for part, worlds in ((PLANTED, planted), (CONFOUNDED, confounded))
        for name in worlds[0]
    ]
    for place, (fault, (_, _, check)) in enumerate(FAULTS.items()):
        first = 82_000_000 + place * 100_000
        names = over_worlds(_Diagnosed(fault), max(world_count // 5, 1), first_seed=first)
        outcomes = [name == check for name in names]
        found.append(rate(DIAGNOSED, f"{fault}: {check}", outcomes, (0.9, 1.0)))
    return found


def _goal(name: str) -> tuple[float, float] | None:
    if name.endswith("(for contrast)"):
        return None
    return HARDLY_ANY if name.startswith("not confounded") else ALMOST_ALL


def _planted(seed: int) -> dict[str, bool]:
    """Classes 3 standard deviations apart, 300 pairs; then 1 and 0.5 apart, for contrast."""
    strong = _fitted(seed, strength=3.0)
    labels = strong.group.labels["other"]
    transfers = []
    for model in WIDTHS:
        own = auroc(strong.x[model]["other"] @ strong.directions[model], labels)
        left_out = auroc(strong.scores(model, "other", strong.leave_one_out[model]), labels)
        transfers.append(left_out > own - 0.02)
    found = {
        "strength 3: cosine of the universal axis above 0.99": _cosine(strong) > 0.99,
        "strength 3: leave one out within 0.02 of native, other prompts, all models": all(
            transfers
        ),
    }
    for strength in (1.0, 0.5):
        weak = _fitted(seed, strength=strength)
        found[f"strength {strength:g}: cosine above 0.99 (for contrast)"] = _cosine(weak) > 0.99
        found[f"strength {strength:g}: cosine above 0.9 (for contrast)"] = _cosine(weak) > 0.9
    return found


def _confounded(seed: int) -> dict[str, bool]:
    """Source determines label, and nothing else is planted; then an axis and no such source."""
    confounded = _fitted(seed, strength=0.0, confound=3.0, pairs=80)
    sound = _fitted(seed, strength=2.0, pairs=80)
    return {
        "confounded: flagged by word pairs": _is_explained(confounded),
        "confounded: AUROC of the axis above 0.9 all the same (for contrast)": _area(confounded)
        > 0.9,
        "not confounded: flagged by word pairs": _is_explained(sound),
    }


class _Diagnosed:
    """The first fault named in a world with one; a class, since worlds go to other processes."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def __call__(self, seed: int) -> str:
        planted, prompt_set, _ = FAULTS[self.fault]
        fitted = _fitted(seed, pairs=120, **planted)
        return diagnose(fitted.case("beta", prompt_set))[-1].verdict.partition(":")[0]


def _fitted(seed: int, *, pairs: int = PAIRS, **planted) -> FittedGroup:
    labelled = {"labelled": pairs, "other": pairs}
    return fit_group(make_group(WIDTHS, labelled=labelled, seed=seed, **planted), reference="gamma")


def _cosine(fitted: FittedGroup) -> float:
    return float(fitted.universal @ fitted.group.planted("gamma"))


def _area(fitted: FittedGroup) -> float:
    return auroc(
        fitted.scores("beta", "labelled", fitted.universal), fitted.group.labels["labelled"]
    )


def _is_explained(fitted: FittedGroup) -> bool:
    return "surface" in fitted.premises("beta", "labelled")


def spread_of_cosines(world_count: int) -> dict[float, np.ndarray]:
    """Strength -> 5th, 50th and 95th percentile of the universal axis' cosine with the planted."""
    return {
        strength: np.quantile(
            [
                _cosine(_fitted(seed, strength=strength))
                for seed in range(80_000_000, 80_000_000 + world_count)
            ],
            [0.05, 0.5, 0.95],
        )
        for strength in (3.0, 2.0, 1.0, 0.5)
    }
