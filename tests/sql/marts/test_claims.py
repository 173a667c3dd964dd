"""Verdicts on the claims, from given figures: the rules of docs/claims.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from axes.warehouse.connection import connect, rows
from tests.rows import Row, put

SHARED = ("shared_axis", "universal_at_least_native")
PARAMETERS = json.dumps({"prompts": "fitted"})
DIFFERENCE = "auroc_difference"
CLAIMS = {
    "shared_axis",
    "universal_at_least_native",
    "gains_for_weak_models",
    "no_threshold_transfer",
    "regime_break",
    "upward_drift",
    "steering",
}


def figure(
    model: str, prompt_set: str, scorer: str, estimate: float, reach: float, metric: str = "auroc"
) -> Row:
    is_fitted = prompt_set == "fitted"
    return {
        "study_id": "s",
        "model": model,
        "prompt_set": prompt_set,
        "scorer": scorer + "_cross_validated" * is_fitted,
        "metric": metric,
        "estimate": estimate,
        "lower": estimate - reach,
        "upper": estimate + reach,
        "is_in_sample": False,
        "parameters": PARAMETERS,
    }


def model(
    name: str,
    prompt_set: str = "other",
    *,
    native: float = 0.8,
    universal: float = 0.8,
    leave_one_out: float = 0.8,
    random_direction: float = 0.6,
    reach: float = 0.015,
    words: float = 0.5,
    **premises: float,
) -> list[Row]:
    """The figures of a model on prompts that are held out, each with an interval of that reach.

    `words` is the AUROC of word pairs; `premises` are further metrics, which tell by themselves
    whether the map and the prompts can carry a direction.
    """
    areas = {"native": native, "universal": universal, "leave_one_out": leave_one_out}
    found = [figure(name, prompt_set, scorer, area, reach) for scorer, area in areas.items()]
    null = figure(name, prompt_set, "random_direction", 0.5, random_direction - 0.5)
    loss = figure(
        name,
        prompt_set,
        "native_minus_universal",
        native - universal,
        reach,
        metric=DIFFERENCE,
    )
    # In sample, as every study has them: no verdict may rest on these.
    apparent = {
        **figure(name, prompt_set, "universal", 0.99, 0.001),
        "scorer": "universal",
        "prompt_set": "fitted",
        "is_in_sample": True,
    }
    above = [
        figure(name, prompt_set, f"{axis}_minus_word_pairs", area - words, reach, DIFFERENCE)
        for axis, area in areas.items()
    ]
    told = [
        {
            **figure(name, prompt_set, "aligned", value, 0.0, metric),
            "scorer": "aligned",
            "p_value": value,
            "prompt_set": prompt_set if metric.startswith("alignment_") else None,
        }
        for metric, value in premises.items()
    ]
    random = {**null, "scorer": "random_direction"}
    return [*found, random, loss, apparent, *above, *told]


def judged(root: Path, *models: list[Row], prompt_set: str = "other") -> dict[str, Row]:
    """Claim -> its row on the set."""
    written = {
        (row["model"], row["prompt_set"], row["scorer"], row["metric"]): row
        for group in models
        for row in group
    }
    put(root, "evaluations", *written.values())
    found = rows(connect(root), "from v_claims where prompt_set = ?", [prompt_set])
    assert {row["claim"] for row in found} == CLAIMS
    return {row["claim"]: row for row in found}


@pytest.mark.parametrize(
    ("figures", "claim", "verdict"),
    [
        ({"leave_one_out": 0.8}, "shared_axis", "supported"),
        # Above chance, and no better than random directions are at times.
        ({"leave_one_out": 0.61}, "shared_axis", "undecided"),
        ({"leave_one_out": 0.3}, "shared_axis", "not supported"),
        ({"universal": 0.8}, "universal_at_least_native", "supported"),
        ({"universal": 0.79}, "universal_at_least_native", "undecided"),
        ({"universal": 0.72}, "universal_at_least_native", "not supported"),
        ({"universal": 0.7}, "regime_break", "not supported"),
        ({"universal": 0.6}, "regime_break", "undecided"),
        ({"universal": 0.4}, "regime_break", "supported"),
    ],
)
def test_one_model_of_three_decides_a_claim(root, figures, claim, verdict):
    found = judged(root, model("a"), model("b"), model("c", **figures))[claim]
    assert found["verdict"] == verdict
    if verdict != "supported" or claim == "regime_break":
        assert found["model"] == "c"
    assert (found["to_decide"] is not None) == (verdict == "undecided")


@pytest.mark.parametrize(
    ("figures", "cause", "stopped"),
    [
        # Premise that fails in one model of three -> the claims that nothing can be told of.
        ({"alignment_overlap": 5.0}, "aligned on, too", {*SHARED, "regime_break"}),
        ({"alignment_copies": 0.02}, "holds copies of the labelled", {*SHARED, "regime_break"}),
        ({"alignment_copies": 0.01}, "", set()),
        ({"native": 0.51}, "itself is not shown", {*SHARED, "regime_break"}),
        ({"words": 0.79}, "the baseline word pairs has AUROC 0.790", {*SHARED, "regime_break"}),
        ({"benign_variance_ratio": 0.3}, "may not carry", set()),
        # The others' axis exceeds no surface either, so that its universal one is its own.
        ({"leave_one_out": 0.3, "r2_held_out": 0.02}, "carry", {*SHARED, "regime_break"}),
        ({"universal": 0.3, "mapped_gain": 0.1}, "carry", {*SHARED[1:], "regime_break"}),
    ],
)
def test_where_a_premise_fails_the_verdict_is_that_nothing_can_be_told(
    root, figures, cause, stopped
):
    found = judged(root, model("a"), model("b"), model("c", **figures))
    told = {claim for claim, row in found.items() if row["verdict"] == "cannot tell"}
    assert told == stopped
    assert all(found[claim]["cause"] and not found[claim]["to_decide"] for claim in told)
    assert not told or any(cause in found[claim]["cause"] for claim in told)


def test_few_prompts_are_named_where_no_leave_one_out_axis_has_an_auroc(root: Path) -> None:
    """As in a study of two models: its report had no text for the warning, and failed."""
    counts = {"positive_count": 6, "negative_count": 6}
    areas = [{**row, **counts} for row in model("a") if "leave_one_out" not in row["scorer"]]
    put(root, "evaluations", *areas)
    sql = "select distinct cause from v_claim_premises where premise = 'few_prompts'"
    assert rows(connect(root), sql) == [
        {"cause": "too few prompts: 6 of the smaller class of other"}
    ]


def test_an_evaluation_of_a_model_is_no_study_and_has_no_premise_or_warning(root: Path) -> None:
    """`axes evaluate` stores AUROCs, too, and no baseline that a study has."""
    counts = {"positive_count": 6, "negative_count": 6}
    nulls = figure("a", "fitted", "shuffled_labels", 0.9, 0.05)
    areas = [{**row, **counts} for row in (*model("a", "fitted"), nulls)]
    sql = (
        "select distinct study_id from v_claim_premises union from v_study_warnings select study_id"
    )
    put(root, "evaluations", *[{**row, "fitted_on": "fitted"} for row in areas])
    assert not rows(connect(root), sql)
    put(root, "evaluations", *[{**row, "study_id": "study"} for row in areas])
    assert rows(connect(root), sql) == [{"study_id": "study"}]


def test_of_models_that_are_equally_close_the_first_by_name_decides(root):
    claims = judged(root, *(model(name) for name in ("c", "a", "b")))
    assert {claims[name]["model"] for name in ("universal_at_least_native", "regime_break")} == {
        "a"
    }


def test_an_axis_that_works_on_no_model_breaks_down_in_none(root):
    nowhere = {"leave_one_out": 0.55, "universal": 0.3, "cosine_leave_one_out": 0.3}
    found = judged(root, *(model(name, **nowhere) for name in "abc"))
    assert found["shared_axis"]["verdict"] == "not supported"
    assert found["regime_break"]["verdict"] == "cannot tell"
    assert "in 0 of 3 models only" in found["regime_break"]["cause"]


def test_an_axis_above_chance_is_either_shown_or_refuted(root):
    """0.55 (0.535 to 0.565) exceeds chance and stays below 0.6, which is called useful."""
    weak = {"leave_one_out": 0.55, "random_direction": 0.52, "words": 0.4}
    found = judged(root, model("a", **weak), model("b", **weak))["shared_axis"]
    assert found["verdict"] == "supported"
    assert found["smallest_effect"] == pytest.approx(0.015 * 2.801585 / 1.959964)
    assert found["study_count"] == 1


def test_no_axis_is_shared_where_no_model_reaches_a_useful_one(root):
    chance = {"leave_one_out": 0.52, "reach": 0.04}
    found = judged(root, model("a", **chance), model("b", **chance))["shared_axis"]
    assert found["verdict"] == "not supported"


@pytest.mark.parametrize(
    ("universal", "verdict"),
    [(0.75, "supported"), (0.71, "undecided"), (0.70, "not supported"), (0.5, "not supported")],
)
def test_the_weakest_model_on_the_fitted_set_is_judged_on_another(root, universal, verdict):
    weak = [
        *model("c", "fitted", native=0.6),
        # Weaker still on the set judged on, which must not choose it.
        *model("c", native=0.7, universal=universal),
    ]
    others = [row for name in "ab" for row in (*model(name, "fitted"), *model(name, native=0.5))]
    found = judged(root, weak, others)["gains_for_weak_models"]
    assert (found["verdict"], found["model"]) == (verdict, "c")


def test_on_the_fitted_set_alone_a_gain_of_the_weakest_is_undecided(root):
    group = [model(name, "fitted", native=0.6, universal=0.9) for name in "ab"]
    found = judged(root, *group, prompt_set="fitted")["gains_for_weak_models"]
    assert found["verdict"] == "undecided" and found["estimate"] is None
    assert "--evaluate" in found["to_decide"]


def transferred(loss: float, shift: float, *, p_value: float, reach: float = 0.02) -> list[Row]:
    """Both ways between two models, on an axis that is the study's universal one."""
    found = []
    for source, model_name in (("a", "b"), ("b", "a")):
        for metric, value in (("accuracy_loss", loss), ("false_positive_shift", shift)):
            found.append(
                {
                    **figure(model_name, "other", "uncalibrated", value, reach, metric=metric),
                    "study_id": "transfer",
                    "axis_id": "u",
                    "fitted_on": source,
                    "p_value_adjusted": p_value,
                }
            )
    return found


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ([{**row, "is_in_sample": True} for row in transferred(0, 0, p_value=0.8)], "undecided"),
        (transferred(0.2, 0.4, p_value=0.001), "supported"),
        (transferred(0.0, 0.4, p_value=0.001), "supported"),
        (transferred(0.0, 0.0, p_value=0.8), "not supported"),
        # A loss too small to matter is none, however sure.
        (transferred(0.01, 0.0, p_value=0.001), "not supported"),
        (transferred(0.05, 0.0, p_value=0.3), "undecided"),
        ([*transferred(0.2, 0.4, p_value=0.001)[:2], *transferred(0, 0, p_value=1)[2:]], "not su"),
    ],
)
def test_thresholds_of_the_universal_axis_decide_whether_any_transfers(root, pairs, verdict):
    models = [[{**row, "axis_id": "u"} for row in model(name)] for name in "ab"]
    put(root, "evaluations", *pairs)
    found = judged(root, *models)["no_threshold_transfer"]
    assert found["verdict"].startswith(verdict)
    assert found["model"] in ("a to b", "b to a") or verdict == "undecided"


def test_claims_without_rows_are_undecided_and_say_what_to_run(root):
    in_sample = [row for row in model("a", "fitted") if row["is_in_sample"]]
    found = judged(root, in_sample, prompt_set="fitted")
    for row in found.values():
        assert row["verdict"] == "undecided" and row["to_decide"] and row["estimate"] is None


@pytest.mark.parametrize("prompt_set", ["other", "fitted"])
@pytest.mark.parametrize(
    ("figures", "left", "verdict"),
    [
        # positive slope, difference: estimate with a reach of 0.1; what controls leave of it
        ((0.5, 0.4), {}, "supported"),
        ((0.5, 0.4), {"matched_length": 0.05}, "not supported"),
        # Less is left than the interval reaches, and no change is shown: fewer rows.
        ((0.5, 0.14), {"matched_length": 0.09}, "undecided"),
        ((0.5, 0.05), {}, "undecided"),
        ((0.5, -0.4), {}, "not supported"),
    ],
)
def test_drift_is_supported_under_every_control_only(root, figures, left, verdict, prompt_set):
    slope, difference = figures
    named = {"drift_id": "d", "model": "a", "axis_id": "u", "prompt_set": prompt_set}
    put(root, "axes", {"axis_id": "u"})
    put(
        root,
        "drift_figures",
        drift_figure(named, "positive_slope", "none", slope),
        drift_figure(named, "slope_difference", "none", difference),
        *(
            row
            for control in ("lasting", "matched_length", "matched_prompt")
            for row in (
                drift_figure(named, "slope_difference", control, left.get(control, difference)),
                drift_figure(
                    named, "slope_change", control, left.get(control, difference) - difference
                ),
            )
        ),
    )
    group = [{**row, "axis_id": "u"} for row in model("a", prompt_set)]
    found = judged(root, group, prompt_set=prompt_set)["upward_drift"]
    if prompt_set == "fitted":
        verdict, difference = "undecided", None
    assert (found["verdict"], found["estimate"]) == (verdict, difference)


def drift_figure(named: Row, metric: str, control: str, estimate: float) -> Row:
    return {
        **named,
        "metric": metric,
        "control": control,
        "estimate": estimate,
        "lower": estimate - 0.1,
        "upper": estimate + 0.1,
        "parameters": "{}",
    }


def steered(name: str, effect: float, *, reach: float = 0.2, control_count: int = 99) -> list[Row]:
    """A test of each class of prompts of a model on the axis of the others; controls up to 1."""
    shared = {
        "experiment_id": f"e-{name}",
        "model": name,
        "layers": "1",
        "mode": "add",
        "metric": "refusal_openers",
        "prompt_set": "other",
        "parameters": "{}",
        "run_id": "r",
    }
    controls = {f"c{number}": number / control_count for number in range(1, control_count + 1)}
    return [
        {
            **shared,
            "axis_id": axis_id,
            "role": "axis" if axis_id == f"without-{name}" else "covariance",
            "is_positive": is_positive,
            "estimate": estimate,
            "lower": estimate - reach,
            "upper": estimate + reach,
            "verdict": "beyond" if axis_id == f"without-{name}" else None,
        }
        for is_positive in (True, False)
        for axis_id, estimate in {f"without-{name}": effect, **controls}.items()
    ]


@pytest.mark.parametrize(
    ("experiments", "verdict"),
    [
        (steered("a", 2.0) + steered("b", -1.5), "supported"),
        # Beyond the controls in one model only; in the other neither that nor shown smaller.
        (steered("a", 2.0) + steered("b", 0.9), "undecided"),
        (steered("a", 2.0), "undecided"),
        (steered("a", 2.0) + steered("b", 0.1), "not supported"),
        (steered("a", 2.0) + steered("b", 2.0, reach=2.5), "undecided"),
        (steered("a", 2.0) + steered("b", 2.0, control_count=30), "cannot tell"),
    ],
)
def test_steering_has_to_exceed_controls_in_every_model(root, experiments, verdict):
    put(root, "interventions", *experiments)
    axes = {row["axis_id"] for row in experiments} | {"without-a", "without-b"}
    put(root, "axes", *({"axis_id": name, "name": name} for name in axes))
    group = [
        [
            {**row, "axis_id": f"without-{name}"} if row["scorer"] == "leave_one_out" else row
            for row in model(name)
        ]
        for name in "ab"
    ]
    found = judged(root, *group)["steering"]
    assert found["verdict"] == verdict
    if verdict == "supported":
        assert (found["model"], found["estimate"]) == ("b refusal_openers", 1.5)
        assert (found["lower"], found["upper"]) == pytest.approx((1.3, 1.7))
        assert found["null_value"] == pytest.approx(94.1 / 99)
    assert ("too few controls" in (found["cause"] or "")) == (verdict == "cannot tell")


@pytest.mark.parametrize(("area", "verdict"), [(0.7, "supported"), (0.51, "cannot tell")])
def test_an_axis_that_fails_in_other_words_is_not_called_shared(root, area, verdict):
    where = {"fitted_on": "other", "judged_on": "reworded"}
    reworded = {**figure("a", "other", "leave_one_out_shifted", area, 0.05), **where}
    found = judged(root, [*model("a"), reworded], model("b"))["shared_axis"]
    assert found["verdict"] == verdict
    assert ("in other words (reworded)" in (found["cause"] or "")) == (verdict == "cannot tell")
