"""Views of completions and drift: given rows, expected rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from axes.warehouse.connection import connect, rows
from tests.rows import Row, put, put_prompts
from tests.sql.marts.given import ask, put_generation, put_overlapping_sets


def test_a_completion_is_told_step_by_step_with_a_running_mean(root: Path) -> None:
    put_prompts(root, "one", {"a": True, "b": False})
    put(root, "axes", {"axis_id": "x", "name": "name", "kind": "universal"})
    put_generation(root, "g", "a", [4.0, 0.0, -1.0])
    put_generation(root, "h", "b", [10.0])
    asked = """
        select generation_id, step, prompt_id, layer, token, projection, running_mean, logprob,
            token_count, is_positive, axis_name, kind
        from v_generation_projections order by generation_id, step
    """
    named = ("name", "universal")
    assert ask(root, asked) == [
        ("g", 0, "a", 2, "t0", 4.0, 4.0, 0.0, 3, True, *named),
        ("g", 1, "a", 2, "t1", 0.0, 2.0, -1.0, 3, True, *named),
        ("g", 2, "a", 2, "t2", -1.0, 1.0, -2.0, 3, True, *named),
        ("h", 0, "b", 2, "t0", 10.0, 10.0, 0.0, 1, False, *named),
    ]


def test_a_running_mean_is_not_shaken_by_other_axes_or_overlapping_sets(root: Path) -> None:
    put_overlapping_sets(root)
    put(root, "axes", {"axis_id": "x"}, {"axis_id": "y"})
    put_generation(root, "g", "shared", [2.0, 4.0])
    other = {"model": "m", "axis_id": "y", "generation_id": "g", "layer": 1}
    put(root, "token_projections", {**other, "step": 0, "projection": 100.0})
    asked = """
        select axis_id, prompt_set, step, running_mean, is_positive
        from v_generation_projections order by all
    """
    assert ask(root, asked) == [
        ("x", "one", 0, 2.0, True),
        ("x", "one", 1, 3.0, True),
        ("x", "two", 0, 2.0, None),
        ("x", "two", 1, 3.0, None),
        ("y", "one", 0, 100.0, True),
        ("y", "two", 0, 100.0, None),
    ]


FIGURE: Row = {
    "drift_id": "d",
    "model": "m",
    "model_id": "m1",
    "axis_id": "axis",
    "layer": 3,
    "prompt_set": "set",
    "control": "none",
    "parameters": '{"sampling": {"template": "chat", "max_new_tokens": 48}}',
    "positive_count": 9,
    "negative_count": 8,
}


MATCHED = ("lasting", "matched_length", "matched_prompt")


def figure(metric: str, estimate: float, lower: float, upper: float, **columns: object) -> Row:
    return (
        FIGURE | {"metric": metric, "estimate": estimate, "lower": lower, "upper": upper} | columns
    )


def rising(**columns: object) -> list[Row]:
    """A drift upwards whose matched controls agree."""
    slopes = [
        figure("positive_slope", 0.5, 0.3, 0.7, **columns),
        figure("negative_slope", 0.1, -0.1, 0.3, **columns),
        figure("slope_difference", 0.4, 0.2, 0.6, p_value=0.01, **columns),
    ]
    return slopes + [
        figure("slope_difference", 0.3, 0.1, 0.5, control=control, **columns) for control in MATCHED
    ]


def null(control: str, p_value: float) -> Row:
    return figure("slope_difference", 0.0, -0.1, 0.1, control=control, p_value=p_value)


@pytest.fixture
def drifted(root: Path) -> Path:
    put(root, "axes", {"axis_id": "axis", "name": "universal/x", "kind": "universal"})
    return root


def verdict(root: Path, *figures: Row) -> Row:
    put(root, "drift_figures", *figures)
    return rows(connect(root), "from v_drift")[0]


def test_a_drift_with_every_control_is_one(drifted):
    found = verdict(drifted, *rising(), null("random_axes", 0.01), null("shuffled_tokens", 0.02))
    assert found["is_drift"] and found["is_controlled"]
    assert (found["template"], found["max_new_tokens"]) == ("chat", 48)
    assert (found["axis_name"], found["kind"]) == ("universal/x", "universal")
    assert (found["slope_difference"], found["lower"], found["upper"]) == (0.4, 0.2, 0.6)
    assert (found["positive_slope"], found["negative_slope"]) == (0.5, 0.1)
    assert (found["positive_count"], found["negative_count"]) == (9, 8)
    assert found["controls_held"] == [*MATCHED, "random_axes", "shuffled_tokens"]
    assert found["controls_missing"] == ["other_text"]


def test_completions_that_end_at_their_first_token_are_counted(drifted):
    for row, (is_positive, steps) in enumerate([(True, 1), (True, 2), (False, 1), (False, 1)]):
        completion = {"generation_id": f"g{row}", "is_positive": is_positive, "step_count": steps}
        put(drifted, "trajectories", {"drift_id": "d", **completion})
    found = verdict(drifted, *rising())
    assert (found["positive_empty_count"], found["negative_empty_count"]) == (1, 2)


MISSING = ["matched_prompt", "other_text", "random_axes", "shuffled_tokens"]


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        (
            [*rising(), null("random_axes", 0.4), null("shuffled_tokens", 0.01)],
            {"is_drift": True, "is_controlled": False, "controls_failed": []},
        ),
        (
            [
                *(row for row in rising() if row["control"] != "lasting"),
                figure("slope_difference", 0.1, -0.1, 0.3, control="lasting"),
                figure("slope_change", -0.3, -0.4, -0.2, control="lasting"),
            ],
            {"is_drift": True, "is_controlled": False, "controls_failed": ["lasting"]},
        ),
        (
            [row for row in rising() if row["control"] != "matched_prompt"],
            {"is_controlled": False, "controls_failed": [], "controls_missing": MISSING},
        ),
        # The positive class only falls less.
        ([*rising()[1:], figure("positive_slope", -0.2, -0.4, -0.1)], {"is_drift": False}),
    ],
)
def test_a_drift_is_none_without_a_rise_or_a_control(drifted, figures, expected):
    assert verdict(drifted, *figures).items() >= expected.items()


def test_a_control_holds_with_the_sign_of_the_figure_and_fails_with_a_change_alone(drifted):
    put(
        drifted,
        "drift_figures",
        figure("slope_difference", -0.4, -0.6, -0.2),
        figure("slope_difference", -0.3, -0.5, -0.1, control="lasting"),
        figure("slope_difference", 0.3, 0.1, 0.5, control="matched_length"),
        figure("slope_change", 0.7, 0.5, 0.9, control="matched_length"),
        # Not shown under the control, and neither is a change: it cannot tell.
        figure("slope_difference", -0.3, -0.5, 0.1, control="matched_prompt"),
        figure("slope_change", 0.1, -0.3, 0.5, control="matched_prompt"),
        figure("slope_difference", 0.3, 0.1, 0.5, control="other_text"),
        figure("imbalance_before", 0.9, 0.0, 0.0, control="matched_prompt"),
        figure("imbalance_after", 0.1, 0.0, 0.0, control="matched_prompt"),
    )
    found = {row["control"]: row for row in rows(connect(drifted), "from v_drift_controls")}
    assert {name: row["holds"] for name, row in found.items()} == {
        "none": True,
        "lasting": True,
        "matched_length": False,
        "matched_prompt": None,
        "other_text": None,
    }
    matched = found["matched_prompt"]
    assert (matched["imbalance_before"], matched["imbalance_after"]) == (0.9, 0.1)
    assert found["lasting"]["imbalance_before"] is None


def test_curves_are_apart_from_figures_and_analyses_from_each_other(drifted):
    steps = [
        figure("running_auroc", 0.5 + step / 10, 0.4, 0.9, step=step, band_lower=0.3)
        for step in range(4)
    ]
    other = rising(drift_id="other", model="n")
    found = verdict(drifted, *rising(), *steps, *other)
    both = rows(connect(drifted), "from v_drift order by drift_id")
    assert [row["model"] for row in both] == ["m", "n"]
    assert both[0]["final_auroc"] == pytest.approx(0.8) and both[1]["final_auroc"] is None
    curve = rows(connect(drifted), "from v_drift_curve order by step")
    assert [row["step"] for row in curve] == [0, 1, 2, 3]
    assert {row["curve"] for row in curve} == {"running_auroc"}
    assert curve[0]["band_lower"] == 0.3 and found["drift_id"] in ("d", "other")


def test_a_completion_is_summed_up_by_slope_highest_token_and_largest_rise(root: Path) -> None:
    put_prompts(root, "one", {"a": True, "b": False})
    put(root, "axes", {"axis_id": "x", "kind": "universal"})
    put_generation(root, "g", "a", [0.0, -4.0, 1.0, 2.0, 2.0])
    put_generation(root, "h", "b", [7.0])
    asked = """
        select generation_id, prompt_id, token_count, first_projection, last_projection,
            mean_projection, highest_projection, highest_step, highest_token, largest_rise,
            rising_token, round(drift_slope, 9), round(drift_correlation, 6), is_positive
        from v_generation_drift order by generation_id
    """
    steps, projections = np.arange(5), [0.0, -4.0, 1.0, 2.0, 2.0]
    slope = round(float(np.polyfit(steps, projections, 1)[0]), 9)
    correlation = round(float(np.corrcoef(steps, projections)[0, 1]), 6)
    assert ask(root, asked) == [
        ("g", "a", 5, 0.0, 2.0, 0.2, 2.0, 3, "t3", 5.0, "t2", slope, correlation, True),
        ("h", "b", 1, 7.0, 7.0, 7.0, 7.0, 0, "t0", None, None, None, None, False),
    ]
