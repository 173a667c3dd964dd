"""Every single fault is named, nothing else is, and a counterexample is diagnosed rightly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from axes.analysis.study.diagnosis.case import Case, look
from axes.analysis.study.diagnosis.checks import disagreement
from axes.analysis.study.diagnosis.diagnose import diagnose
from tests.fitted_worlds import fit_group
from tests.worlds import make_group

WIDTHS = {"alpha": 24, "beta": 32, "gamma": 40, "delta": 36}
SETS = {"labelled": 120, "other": 100}


def case(prompt_set: str = "labelled", model: str = "beta", seed: int = 0, **planted) -> Case:
    group = make_group(WIDTHS, labelled=SETS, seed=seed, **planted)
    return fit_group(group, reference="gamma").case(model, prompt_set)


def faults(found) -> list[str]:
    return [finding.check for finding in found if finding.is_fault]


def named(found) -> str:
    """The check that the diagnosis names first, or `healthy`."""
    return found[-1].verdict.partition(":")[0]


@pytest.mark.parametrize(
    ("planted", "prompt_set", "expected"),
    [
        ({}, "labelled", "healthy"),
        ({}, "other", "healthy"),
        ({"noise": 0.5, "rotation": 0.4, "topic": 1.0}, "labelled", "healthy"),
        ({"strength": 0.0}, "labelled", "signal"),
        ({"strength": 0.0}, "other", "signal"),
        ({"flipped": "beta"}, "labelled", "direction"),
        ({"outliers": "beta"}, "labelled", "few_rows"),
        ({"outliers": "beta"}, "other", "few_rows"),
        ({"turned": "beta"}, "other", "class_difference"),
        ({"relabelled": "other"}, "other", "labels"),
        ({"broken": "beta"}, "labelled", "alignment"),
        ({"massive": "beta"}, "labelled", "massive_dimensions"),
        ({"massive": "beta"}, "other", "massive_dimensions"),
        ({"faint": "beta"}, "labelled", "ridge_lambda"),
        ({"shifted": "beta"}, "other", "intercept"),
        ({"strength": 0.0, "confound": 3.0}, "labelled", "source"),
    ],
)
def test_a_world_with_one_fault_is_given_its_name(planted, prompt_set, expected):
    found = diagnose(case(prompt_set, **planted))
    assert named(found) == expected
    assert found[-1].is_fault is (expected != "healthy")
    assert (expected in faults(found)) is (expected != "healthy")


@pytest.mark.parametrize(
    "fault", ["flipped", "outliers", "broken", "massive", "faint", "shifted", "turned"]
)
def test_the_models_beside_a_faulty_one_are_healthy(fault):
    assert named(diagnose(case("other", model="alpha", **{fault: "beta"}))) == "healthy"


@pytest.mark.parametrize("seed", range(3))
def test_the_counterexample_is_reproduced_on_its_own_prompts_and_diagnosed(seed):
    """Cosine above 0.6, AUROC below 0.35, the model's own direction above chance, in sample."""
    found = {finding.check: finding for finding in diagnose(case(outliers="beta", seed=seed))}
    figures = found["disagreement"].figures
    assert figures["cosine"] > 0.6 and figures["auroc"] < 0.35
    assert figures["native_auroc"] > 0.6
    assert found["disagreement"].is_fault and found["few_rows"].is_fault
    gaps = found["few_rows"].figures
    assert gaps["mean_gap"] > 0 > gaps["trimmed_gap"]
    assert 0.02 < gaps["share_that_carries"] < 0.2
    assert found["diagnosis"].verdict.startswith("few_rows: ")
    assert "of a class dominates its mean" in found["diagnosis"].verdict


def test_the_counterexample_on_other_prompts_is_told_from_the_one_in_sample():
    """The same two numbers with another cause: the classes part elsewhere on the other set."""
    found = {finding.check: finding for finding in diagnose(case("other", turned="beta"))}
    figures = found["disagreement"].figures
    assert figures["cosine"] > 0.6 and figures["auroc"] < 0.35
    assert figures["native_auroc"] > 0.7
    assert found["class_difference"].is_fault and not found["few_rows"].is_fault
    assert named(diagnose(case("labelled", turned="beta"))) == "healthy"


@pytest.mark.parametrize(
    "planted", [{}, {"outliers": "beta"}, {"broken": "beta"}, {"flipped": "beta"}]
)
def test_in_sample_the_cosine_has_the_sign_of_the_gap_of_the_means_whatever_the_map(planted):
    """The identity behind the diagnosis: gap = |d| |dW / |d|| cosine, for any map and axis."""
    fitted = case(**planted)
    random = np.random.default_rng(1)
    for axis in (fitted.axis, *random.standard_normal((5, len(fitted.axis)))):
        axis = axis / np.linalg.norm(axis)
        any_map = replace(
            fitted.alignment,
            weights=random.standard_normal(fitted.alignment.weights.shape),
            intercept=random.standard_normal(len(axis)),
        )
        view = look(replace(fitted, axis=axis, alignment=any_map))
        difference = fitted.x[fitted.labels].mean(axis=0) - fitted.x[~fitted.labels].mean(axis=0)
        carried = difference @ any_map.weights
        assert view.gap == pytest.approx(np.linalg.norm(carried) * view.cosine)


@pytest.mark.parametrize("planted", [{}, {"outliers": "beta"}, {"strength": 1.0}])
def test_no_auroc_leaves_the_means_further_apart_than_cantelli_allows(planted):
    for seed in range(3):
        drawn = case(seed=seed, **planted)
        figures = disagreement(drawn, look(drawn)).figures
        # The empirical bound has the spread with n, not n - 1, below it.
        assert figures["separation"] <= figures["largest_separation"] * 1.01


def test_projections_of_another_map_are_noticed():
    sound = case()
    unaligned = sound.x[:, : len(sound.axis)] @ sound.axis[: sound.x.shape[1]]
    found = diagnose(replace(sound, stored=unaligned))
    assert named(found) == "projection"
    assert named(diagnose(replace(sound, stored=None))) == "healthy"


def test_a_direction_that_is_no_difference_in_means_may_oppose_the_means():
    """A whitened direction can have a cosine of the other sign than its own class means."""
    sound = case()
    vector, _ = sound.alignment.pull_back(sound.axis)
    carried = sound.alignment.weights @ sound.alignment.weights.T
    leaning = np.linalg.solve(carried + 1e-6 * np.eye(len(carried)), vector)
    reversed_means = replace(sound, fitted_labels=~sound.labels, labels=~sound.labels)
    found = diagnose(replace(reversed_means, direction=leaning / np.linalg.norm(leaning)))
    by_check = {finding.check: finding for finding in found}
    assert by_check["disagreement"].is_fault
    assert by_check["direction"].is_fault
    assert "not a difference in means" in by_check["direction"].verdict
