"""A planted effect is found beyond random directions, none is not, and SQL has the same numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from axes.analysis.steering.effects import Experiment, evaluate_experiment
from axes.warehouse.errors import CoverageError
from axes.warehouse.storage.layout import init_root
from tests.rows import ask, opened, put, put_prompts

STRENGTHS = (-0.2, -0.1, 0.1, 0.2)
PROMPT_COUNT = 40
AXES = {
    "planted": ("axis", 3.0),
    "nothing": ("axis", 0.0),
    "shuffled": ("shuffled_labels", 0.5),
    "aside": ("orthogonal", -0.4),
    **{f"random-{number:02d}": ("random", 0.1 * (number - 9.5)) for number in range(20)},
}
EXPERIMENT = Experiment(
    model="m",
    model_id="id-m",
    roles={axis_id: role for axis_id, (role, _) in AXES.items()},
    mode="add",
    positions="all",
    above=None,
    condition=None,
    strengths=STRENGTHS,
    prompt_set="asked",
    benign_set="benign",
    template="chat",
    new_tokens=8,
)


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Openers move by slope times strength with noise; KL by its square; refusals at 0.2 only."""
    root = tmp_path_factory.mktemp("judged") / "lake"
    init_root(root)
    random = np.random.default_rng(0)
    asked = {f"p{index:02d}": index % 2 == 0 for index in range(PROMPT_COUNT)}
    put_prompts(root, "asked", asked)
    put_prompts(root, "benign", {f"b{index}": None for index in range(10)})
    put(root, "axes", *({"axis_id": name, "name": name, "kind": "native"} for name in AXES))
    level = {prompt_id: random.normal(-2.0) for prompt_id in asked}
    outcomes, generations, labels = [], [], []

    def outcome(prompt_id: str, metric: str, value: float, **columns: object) -> None:
        shared = {"model": "m", "model_id": "id-m", "positions": "all", **columns}
        outcomes.append({**shared, "prompt_id": prompt_id, "metric": metric, "value": float(value)})

    def completion(prompt_id: str, opener: float, is_refusal: bool, **columns: object) -> None:
        key = f"{columns['intervention_id']}{prompt_id}"
        outcome(prompt_id, "refusal_openers", opener, template="chat", **columns)
        columns |= {"template": "chat", "generation_id": key, "new_tokens": 8}
        outcome(prompt_id, "repetition", 0.25, **columns)
        generations.append({"model": "m", "generation_id": key, "prompt_id": prompt_id})
        labels.append({"labeler": "phrases", "generation_id": key, "is_positive": is_refusal})

    unsteered = {"axis_id": None, "strength": 0.0, "layers": "", "mode": "none"}
    for prompt_id in asked:
        completion(prompt_id, level[prompt_id], False, **unsteered, intervention_id="None0.0")
    for axis_id, (_, slope) in AXES.items():
        for strength in STRENGTHS:
            steering = {"axis_id": axis_id, "strength": strength, "layers": "3", "mode": "add"}
            steering["intervention_id"] = f"{axis_id}{strength}"
            for prompt_id, is_positive in asked.items():
                moved = slope * strength * (1 if is_positive else 0.5) + random.normal(0, 0.02)
                is_refusal = axis_id == "planted" and strength == 0.2
                completion(prompt_id, level[prompt_id] + moved, is_refusal, **steering)
            for index in range(10):
                cost = strength**2 * (1 + abs(slope))
                outcome(f"b{index}", "kl", cost, template="raw", **steering)
    put(root, "intervention_outcomes", *outcomes)
    put(root, "generations", *generations)
    put(root, "labels", *labels)
    return root


@pytest.fixture(scope="module")
def judged(steered: Path) -> list[dict]:
    return effects(steered)


def effects(root: Path, **changes: object) -> list[dict]:
    """The rows of the experiment with these changes."""
    experiment_id = evaluate_experiment(opened(root), replace(EXPERIMENT, **changes))
    return ask(root, "from v_interventions where experiment_id = ? order by all", [experiment_id])


def one(judged: list[dict], **where: object) -> dict:
    (row,) = [row for row in judged if all(row[name] == value for name, value in where.items())]
    return row


@pytest.mark.parametrize(("prompts_class", "share"), [("positive", 1.0), ("negative", 0.5)])
def test_a_planted_slope_is_found_beyond_all_random_directions(judged, prompts_class, share):
    where = {"metric": "refusal_openers", "prompts_class": prompts_class, "axis_id": "planted"}
    slope = one(judged, strength=None, **where)
    assert slope["estimate"] == pytest.approx(3.0 * share, abs=0.1)
    assert slope["lower"] < 3.0 * share < slope["upper"]
    assert slope["verdict"] == "beyond 20 random directions"
    assert slope["p_value"] == pytest.approx(1 / 21)
    assert slope["random_lower"] == pytest.approx(-0.95 * share, abs=0.1)
    assert slope["random_upper"] == pytest.approx(0.95 * share, abs=0.1)
    assert slope["prompt_count"] == PROMPT_COUNT / 2
    effect = one(judged, strength=-0.2, **where)
    assert effect["estimate"] == pytest.approx(-0.6 * share, abs=0.02)
    assert effect["unsteered"] == pytest.approx(-2.0, abs=0.6)


def test_nothing_planted_is_nothing_shown_or_within_the_controls(judged):
    for row in judged:
        if row["axis_id"] == "nothing" and row["metric"] == "refusal_openers":
            assert re.match(r"no effect shown|no larger than the largest of 20", row["verdict"])


def test_controls_have_estimates_and_no_verdict_and_stand_beside_the_axis(judged):
    where = {"metric": "refusal_openers", "prompts_class": "positive", "strength": None}
    for axis_id, role in EXPERIMENT.roles.items():
        row = one(judged, axis_id=axis_id, **where)
        assert row["role"] == role
        assert (row["verdict"] is None) == (role != "axis")
    planted = one(judged, axis_id="planted", **where)
    shuffled = one(judged, axis_id="shuffled", **where)
    aside = one(judged, axis_id="aside", **where)
    assert planted["shuffled_lower"] == planted["shuffled_upper"] == shuffled["estimate"]
    assert planted["orthogonal_lower"] == planted["orthogonal_upper"] == aside["estimate"]


def test_behaviour_is_tested_against_controls_with_the_covariance_of_activations(steered):
    """By labels of completions, as there are some, in each class of prompts, for two axes."""
    roles = {name: role.replace("random", "covariance") for name, role in EXPERIMENT.roles.items()}
    found = [row for row in effects(steered, roles=roles) if row["strength"] is None]
    tests = [row for row in found if row["test_count"] is not None]
    assert {(row["metric"], row["prompts_class"], row["axis_id"]) for row in tests} == {
        ("phrases", kind, axis)
        for kind in ("positive", "negative")
        for axis in AXES
        if axis in ("planted", "nothing")
    }
    for row in found:
        alike = [
            abs(other["estimate"])
            for other in found
            if other["role"] in ("covariance", "shuffled_labels")
            and (other["metric"], other["is_positive"]) == (row["metric"], row["is_positive"])
        ]
        assert row["control_count"] == len(alike) == 21
        assert row["control_bound"] == pytest.approx(np.quantile(alike, 0.95), abs=1e-9)
        if row["role"] == "axis":
            p_value = (1 + np.sum(np.array(alike) >= abs(row["estimate"]))) / 22
            assert row["control_p_value"] == pytest.approx(p_value, abs=1e-9)
            adjusted = min(4 * p_value, 1.0) if row in tests else None
            assert row["control_p_value_adjusted"] == pytest.approx(adjusted, abs=1e-9)


def test_a_cost_rises_with_the_size_of_a_strength_whichever_way_it_goes(judged):
    slope = one(judged, axis_id="nothing", metric="kl", strength=None)
    doses = np.abs(STRENGTHS)
    assert slope["estimate"] == pytest.approx(doses**2 @ doses / (doses @ doses))
    assert slope["prompts_class"] == "benign"
    down = one(judged, axis_id="nothing", metric="kl", strength=-0.2)
    assert down["estimate"] == pytest.approx(0.2**2)


def test_labels_of_completions_are_outcomes_with_rates(judged):
    where = {"metric": "phrases", "prompts_class": "positive"}
    at_most = one(judged, axis_id="planted", strength=0.2, **where)
    assert (at_most["unsteered"], at_most["estimate"]) == (0.0, 1.0)
    assert at_most["verdict"] == "beyond 20 random directions"
    assert one(judged, axis_id="planted", strength=0.1, **where)["estimate"] == 0.0


def test_a_small_share_is_called_small(steered):
    strengths = (0.1, 0.2)
    put(
        steered,
        "labels",
        *(
            {
                "labeler": "rare",
                "generation_id": f"{axis_id}{strength}p{index:02d}",
                "is_positive": axis_id == "planted" and strength == 0.2 and index == 2,
            }
            for axis_id in (None, *AXES)
            for strength in ((0.0,) if axis_id is None else strengths)
            for index in range(0, PROMPT_COUNT, 2)
        ),
    )
    row = one(effects(steered, strengths=strengths), axis_id="planted", metric="rare", strength=0.2)
    assert row["estimate"] == pytest.approx(1 / 20)
    assert re.match(r"small, and beyond|no effect shown", row["verdict"])


def test_too_few_random_directions_give_no_verdict(steered):
    few = {name: role for name, role in EXPERIMENT.roles.items() if name != "random-00"}
    verdicts = {row["verdict"] for row in effects(steered, roles=few) if row["role"] == "axis"}
    assert verdicts == {"not judged: 19 random directions, 20 are needed"}


def test_judging_again_finds_the_same_rows(steered, judged):
    count = ask(steered, "select count(*) as n from interventions")
    assert effects(steered) == judged
    assert ask(steered, "select count(*) as n from interventions") == count


def test_the_effects_are_those_of_sql(steered, judged):
    found = ask(
        steered,
        """
        select axis_id, metric, prompt_set, is_positive, strength, avg(difference) as estimate
        from v_intervention_outcomes
        where mode != 'none'
        group by all
        """,
    )
    expected = {tuple(row.values())[:5]: row["estimate"] for row in found}
    effects = [row for row in judged if row["strength"] is not None]
    assert len(effects) > 100
    for row in effects:
        key = tuple(
            row[name] for name in ("axis_id", "metric", "prompt_set", "is_positive", "strength")
        )
        assert row["estimate"] == pytest.approx(expected[key], abs=1e-9)


def test_an_experiment_that_was_not_run_is_refused(steered):
    with pytest.raises(CoverageError, match=r"1 of 25 axes have no outcomes of m under add"):
        effects(steered, roles={**EXPERIMENT.roles, "unheard": "axis"})
    with pytest.raises(CoverageError, match=r"24 of 24 axes have no outcomes of m under clamp"):
        effects(steered, mode="clamp")
