from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from axes.analysis.routing.model_ranking import rank_models, run_comparison
from axes.analysis.routing.response_scores import Scoring, ScoringRequest, score_completions
from axes.analysis.routing.responses import CompletionQuery
from axes.warehouse.maintenance.check import check
from tests.answer_worlds import AXIS, AnswerWorld, make_answers
from tests.commands import ok
from tests.rows import ask, opened, put

# Far apart on the axis in one order, apart in what they do in another.
OFFSETS = {"a": 0.0, "b": 40.0, "c": -40.0}
HARDER = {"a": 3.0, "b": -3.0, "c": 0.0}
REQUEST = ScoringRequest("asked", CompletionQuery(AXIS, ("a", "b", "c"), "judge"))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> AnswerWorld:
    root = tmp_path_factory.mktemp("comparison") / "lake"
    return make_answers(root, offsets=OFFSETS, harder=HARDER, prompt_count=300)


def rank(root: Path) -> dict[str, dict]:
    """The rows of the comparison by model."""
    scoring_id, _ = run_comparison(opened(root), REQUEST)
    found = ask(root, "from v_comparison where scoring_id = ?", [scoring_id])
    return {row["model"]: row for row in found}


@pytest.fixture(scope="module")
def ranked(world) -> dict[str, dict]:
    return rank(world.root)


def test_the_planted_order_is_found_and_not_that_of_the_projections(world, ranked):
    assert [ranked[model]["rank"] for model in ("b", "c", "a")] == [1, 2, 3]
    for column, model in enumerate(world.models):
        planted = world.chance[:, column].mean()
        assert abs(ranked[model]["probability"] - planted) < 0.1
        assert ranked[model]["probability_lower"] < planted < ranked[model]["probability_upper"]
    assert ranked["b"]["first"] > 0.95
    assert ranked["b"]["refusal"] == pytest.approx(1 - ranked["b"]["outcome"])


def test_models_that_do_not_differ_are_not_told_apart(tmp_path):
    world = make_answers(tmp_path / "lake", offsets=OFFSETS, prompt_count=80)
    found = rank(world.root)
    assert all(row["first"] < 0.95 for row in found.values())
    assert all(row["rank_lower"] < row["rank_upper"] for row in found.values())


def test_shares_of_places_add_up(world):
    warehouse = opened(world.root)
    with warehouse.run("test", {}) as run:
        scoring = score_completions(warehouse, run, REQUEST)
    found = rank_models(scoring)
    places = ("rank_1", "rank_2", "rank_3")
    shares = np.array([[found[model][place].estimate for place in places] for model in found])
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert rank_models(scoring) == found


def test_models_that_tie_share_their_places(world, monkeypatch):
    warehouse = opened(world.root)
    with warehouse.run("test", {}) as run:
        scoring = score_completions(warehouse, run, REQUEST)
    same = np.repeat(scoring.probability("answer")[:, :1], 3, axis=1)
    monkeypatch.setattr(Scoring, "probability", lambda *_: same)
    for metrics in rank_models(scoring).values():
        assert metrics["rank_1"].estimate == pytest.approx(1 / 3)


def test_answers_to_negative_prompts_are_not_elevated_above_themselves(ranked):
    """The unit is the spread of the model's own answers, whatever its offset and width."""
    assert all(abs(row["elevation"]) < 0.3 for row in ranked.values())


def test_a_ranking_carries_what_speaks_against_it(world):
    figures = {
        "a": {"r2_held_out": 0.3, "cosine_universal": 0.9, "auroc": 0.9},
        "b": {"r2_held_out": 0.9, "cosine_universal": -0.2, "auroc": 0.4},
        "c": {"r2_held_out": 0.9, "cosine_universal": 0.95, "auroc": 0.55},
    }
    put(
        world.root,
        "evaluations",
        *(
            {
                "study_id": "study",
                "model": model,
                "scorer": "universal" if metric == "auroc" else "aligned",
                "metric": metric,
                "axis_id": AXIS,
                "estimate": value,
                "run_id": "world",
            }
            for model, of_model in figures.items()
            for metric, value in of_model.items()
        ),
    )
    found = rank(world.root)
    assert found["a"]["warnings"] == ["alignment predicts 0.30 of the reference's variance (R2)"]
    assert found["a"]["alignment_r2"] == 0.3
    assert [len(found[model]["warnings"]) for model in "abc"] == [1, 2, 1]
    assert "in the wrong order (AUROC 0.40)" in found["b"]["warnings"][0]
    assert "points against the axis (cosine -0.20)" in found["b"]["warnings"][1]
    assert "cosine 0.95 with the axis but AUROC 0.55" in found["c"]["warnings"][0]
    ours = [row for row in check(world.root).to_pylist() if row["check"].startswith("comparisons")]
    assert [row["row_count"] for row in ours] == [0, 0]


def test_a_fault_that_was_diagnosed_is_a_warning(tmp_path):
    world = make_answers(tmp_path / "lake", offsets=OFFSETS, prompt_count=40)
    diagnosed = {"study_id": "study", "axis_id": AXIS, "check_name": "diagnosis", "run_id": "world"}
    put(
        world.root,
        "diagnostics",
        {**diagnosed, "model": "a", "is_fault": True, "verdict": "the sign is flipped"},
        {**diagnosed, "model": "b", "is_fault": False, "verdict": "nothing found"},
        {**diagnosed, "model": "c", "check_name": "signal", "is_fault": True, "verdict": "none"},
    )
    found = rank(world.root)
    assert [found[model]["warnings"] for model in "abc"] == [["the sign is flipped"], [], []]


def test_the_command_ranks(world):
    arguments = ["--root", world.root, "--prompts", "asked", "--labeler", "judge"]
    lines = ok("compare", *arguments, "--format", "csv").stdout.splitlines()
    assert [line.split(",")[1] for line in lines] == ["model", "b", "c", "a"]
