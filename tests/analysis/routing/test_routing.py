from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from axes.analysis.routing.response_scores import Scoring, ScoringRequest, score_completions
from axes.analysis.routing.responses import CompletionQuery, Completions, read_completions
from axes.analysis.routing.router import Limits, Router, best_single, choose
from axes.analysis.routing.routing import run_routing
from axes.warehouse.errors import (
    CalibrationError,
    CoverageError,
    LabelError,
    ModelError,
    QueryError,
)
from axes.warehouse.maintenance.check import check
from tests.answer_worlds import (
    AXIS,
    AnswerWorld,
    make_answers,
    write_answers,
    write_labels,
)
from tests.commands import ok, refused
from tests.rows import ask, opened, put

OFFSETS = {"a": 0.0, "b": 40.0, "c": -40.0}
QUERY = CompletionQuery(AXIS, ("a", "b", "c"), "judge")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> AnswerWorld:
    """Three models equally often with the outcome, on prompts of their own; 400 prompts."""
    root = tmp_path_factory.mktemp("routing") / "lake"
    return make_answers(root, offsets=OFFSETS, prompt_count=400)


@pytest.fixture
def two(tmp_path) -> AnswerWorld:
    """Two models on four prompts, to be changed; `ASKED` reads them."""
    return make_answers(tmp_path / "lake", offsets={"a": 0.0, "b": 1.0}, prompt_count=4)


ASKED = replace(QUERY, models=("a", "b"))


def route(root, query: CompletionQuery = QUERY, *, limits=None, **options) -> tuple:
    """`run_routing` of the set `asked`: `options` are of the request, or `cost` and `quality`."""
    values = {name: options.pop(name) for name in ("cost", "quality") if name in options}
    request = ScoringRequest("asked", query, **options)
    return run_routing(opened(root), request, limits=limits, **values)


def read(root, query: CompletionQuery) -> Completions:
    return read_completions(opened(root), "asked", query)


def score(root) -> Scoring:
    warehouse = opened(root)
    with warehouse.run("test", {}) as run:
        return score_completions(warehouse, run, ScoringRequest("asked", QUERY))


@pytest.fixture(scope="module")
def routing_id(world) -> str:
    routing_id, notes = route(world.root)
    assert notes == ()
    return routing_id


@pytest.fixture(scope="module")
def found(world, routing_id) -> dict[str, dict]:
    return by_policy(world.root, routing_id)


def policies(root, *query: CompletionQuery, **options) -> dict[str, dict]:
    """The results of `route` by policy."""
    return by_policy(root, route(root, *query, **options)[0])


def by_policy(root, routing_id: str) -> dict[str, dict]:
    found = ask(root, "from v_routing where routing_id = ?", [routing_id])
    return {row["policy"]: row for row in found}


def test_calibrated_routing_wins_where_raw_projections_have_offsets(found):
    """Raw projections send everything to the model of the lowest offset."""
    answer, raw = found["answer_projection"], found["answer_projection_raw"]
    assert raw["models"] == [("c", 1.0)]
    assert raw["outcome"] == found["always c"]["outcome"]
    assert answer["outcome"] < 0.2 < raw["outcome"]
    assert answer["gain_lower"] > 0.15
    assert answer["over_raw"] == pytest.approx(raw["outcome"] - answer["outcome"])
    assert answer["over_raw_lower"] > 0.15
    assert raw["over_raw"] is None
    assert answer["gain_p_value"] < 0.01
    assert found["oracle"]["outcome"] <= answer["outcome"]
    assert answer["outcome"] < found["prompt_projection"]["outcome"] < found["random"]["outcome"]


def test_without_anything_to_foretell_routing_gains_nothing(tmp_path):
    """The positive control is the world above: the same, but for projections of noise."""
    world = make_answers(tmp_path / "lake", offsets=OFFSETS, prompt_count=300, is_foretold=False)
    found = policies(world.root)
    for policy in ("answer_projection", "prompt_projection"):
        assert found[policy]["gain_lower"] < 0 < found[policy]["gain_upper"], policy


def test_the_oracle_has_no_regret_and_no_policy_less(found):
    assert found["oracle"]["regret"] == found["oracle"]["regret_upper"] == 0.0
    assert all(row["regret_lower"] >= 0.0 for row in found.values())
    assert found["best_single"]["gain"] == 0.0
    for row in found.values():
        assert row["outcome_lower"] <= row["outcome"] <= row["outcome_upper"]


def test_the_best_single_model_is_chosen_on_calibration_rows(world, found):
    """Moving the outcomes of judged prompts changes the oracle and not the choice."""
    fitted = score(world.root).fitted_on.outcome.mean(axis=0)
    best = QUERY.models[int(fitted.argmin())]
    assert found["best_single"]["models"] == [(best, 1.0)]
    outcome, cost = np.array([[0.0, 1.0], [0.0, 0.0]]), np.ones((2, 2))
    assert best_single(outcome, cost, np.array([True, True])) == 0
    assert best_single(outcome, cost, np.array([False, True])) == 1


def test_random_is_the_mean_of_the_single_models(found):
    singles = [found[f"always {model}"]["outcome"] for model in QUERY.models]
    assert found["random"]["outcome"] == pytest.approx(np.mean(singles))
    assert found["random"]["cost"] == pytest.approx(200)


def test_no_prompt_or_pair_is_calibrated_on_and_judged(world, routing_id):
    found = ask(
        world.root,
        "select prompts.pair_id, count(distinct is_calibration) as parts "
        "from scored_answers inner join prompts using (prompt_set, prompt_id) group by all",
    )
    assert {row["parts"] for row in found} == {1}
    with pytest.raises(CalibrationError, match=r"400 prompts are in again, .* and in asked"):
        put(
            world.root,
            "prompts",
            *(
                {"prompt_set": "again", "prompt_id": f"asked-{row:04d}", "position": row}
                for row in range(400)
            ),
        )
        route(world.root, calibrate_on="again")


def test_another_set_is_calibrated_on_and_all_of_the_first_is_judged(tmp_path):
    root = tmp_path / "lake"
    make_answers(root, offsets=OFFSETS, prompt_set="before", prompt_count=100, seed=1)
    make_answers(root, offsets=OFFSETS, prompt_count=100)
    found = policies(root, calibrate_on="before")
    assert {row["prompt_count"] for row in found.values()} == {100}
    assert found["answer_projection"]["gain"] > 0.1


def test_costs_and_qualities_bound_the_choice(world, tmp_path):
    found = policies(world.root, limits=Limits(max_cost=200))
    assert {name for row in found.values() for name, _ in row["models"]} == {"a", "b"}
    assert found["answer_projection"]["cost"] <= 200
    assert found["answer_projection"]["cost_of_choice"] == 300
    assert found["prompt_projection"]["cost_of_choice"] == found["prompt_projection"]["cost"]
    table = tmp_path / "quality.csv"
    table.write_text("model,skill\na,1\nb,2\nc,3\n")
    found = policies(world.root, quality=f"{table}:skill", limits=Limits(min_quality=3))
    assert found["answer_projection"]["models"] == [("c", 1.0)]
    with pytest.raises(ModelError, match=r"no model that has a quality of 4 \(the best 3\)"):
        route(world.root, quality=f"{table}:skill", limits=Limits(min_quality=4))
    with pytest.raises(QueryError, match="no column price"):
        route(world.root, cost="price")
    table.write_text("model,skill\na,1\nb,2\n")
    with pytest.raises(CoverageError, match="skill has no value for c"):
        route(world.root, cost=f"{table}:skill")


def test_tolerance_trades_the_outcome_for_cost(world):
    costs = [
        policies(world.root, limits=Limits(tolerance=tolerance))["answer_projection"]["cost"]
        for tolerance in (0.0, 0.3, 1.0)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == 100


def test_choice_among_equals_is_by_cost_then_score_then_place():
    everything = np.ones((1, 3), dtype=bool)
    scores = np.array([[0.2, 0.2, 0.1]])
    assert choose(scores, np.array([[1.0, 1.0, 1.0]]), everything, 0.2) == [2]
    assert choose(scores, np.array([[1.0, 1.0, 2.0]]), everything, 0.2) == [0]
    assert choose(scores, np.array([[1.0, 1.0, 2.0]]), np.array([[False, True, True]]), 0.2) == [1]


def test_a_decision_gives_its_reasons(world, routing_id):
    """The router chooses from projections, of a new prompt as well, what the warehouse stored."""
    scoring = score(world.root)
    models = scoring.completions.models
    router = Router({model: scoring.calibrations["answer", model] for model in models})
    projections = dict(zip(models, scoring.completions.projection("answer")[0], strict=True))
    decision = router.choose(projections)
    lowest, second, _ = sorted(decision.probabilities.values())
    assert decision.probability == lowest
    assert decision.why.startswith(f"answer projection gives {lowest:.3f}, next ")
    assert decision.why.endswith(f"with {second:.3f}")
    stored = ask(
        world.root,
        "select model from routings "
        "where routing_id = ? and policy = 'answer_projection' and prompt_id = ?",
        [routing_id, scoring.completions.prompt_ids[0]],
    )
    assert [row["model"] for row in stored] == [decision.model]
    with pytest.raises(ModelError, match="z has no calibration"):
        router.choose({"z": 1.0})


def test_the_same_request_gives_the_same_scoring_and_sql_has_its_probabilities(world):
    scoring, again = score(world.root), score(world.root)
    assert again.scoring_id == scoring.scoring_id
    assert again.calibrations == scoring.calibrations
    for source in ("prompt", "answer"):
        np.testing.assert_array_equal(again.probability(source), scoring.probability(source))
    in_sql = ask(
        world.root,
        "select answer_probability, calibrated(answer_projection, parameters) as by_sql "
        "from scored_answers inner join answer_calibrations using (scoring_id, model_id) "
        "where source = 'answer' and not is_calibration",
    )
    np.testing.assert_allclose(
        [row["by_sql"] for row in in_sql], [row["answer_probability"] for row in in_sql]
    )


def test_the_warehouse_passes_its_checks_and_sql_has_every_figure(world, routing_id, found):
    failed = [row for row in check(world.root).to_pylist() if row["row_count"]]
    ours = ("routing", "scored", "answer_cal", "comparison")
    assert [row for row in failed if row["check"].startswith(ours)] == []
    in_sql = ask(
        world.root,
        "select policy, sum(share * outcome) / sum(share) as outcome, "
        "sum(share * refusal) / sum(share) as refusal, sum(share * cost) / sum(share) as cost "
        "from v_routings where routing_id = ? group by policy",
        [routing_id],
    )
    for row in in_sql:
        for metric in ("outcome", "refusal", "cost"):
            assert row[metric] == pytest.approx(found[row["policy"]][metric])


def test_routing_again_writes_nothing_new(world, routing_id):
    counted = "select count(*) as count from routings"
    before = ask(world.root, counted)
    assert route(world.root)[0] == routing_id
    assert ask(world.root, counted) == before


def test_answers_of_two_settings_are_not_mixed(two):
    before = read(two.root, ASKED)
    names = before.prompt_ids
    write_answers(two.root, "a", names, np.full(4, 9.0), np.zeros(4), template="chat")
    with pytest.raises(ModelError, match=r"a completed asked in 2 settings .*--template"):
        read(two.root, ASKED)
    picked = read(two.root, replace(ASKED, templates=("raw",)))
    np.testing.assert_array_equal(picked.projection("answer"), before.projection("answer"))


def test_neither_given_texts_nor_steered_answers_nor_other_layers_are_answers(two):
    before = read(two.root, ASKED)
    other = {"model": "a", "model_id": "id-a", "prompt_id": "asked-0000", "template": "raw"}
    put(
        two.root,
        "generations",
        {**other, "generation_id": "given", "source": "b"},
        {**other, "generation_id": "steered", "axis_id": AXIS, "strength": 1.0},
    )
    elsewhere = {"generation_id": "raw-0-a-asked-0000", "layer": 7}
    put(two.root, "token_projections", {"model": "a", "axis_id": AXIS, **elsewhere})
    after = read(two.root, ASKED)
    np.testing.assert_array_equal(after.projection("answer"), before.projection("answer"))


def test_samples_of_a_prompt_are_averaged(two):
    before = read(two.root, ASKED)
    names, projection = before.prompt_ids, before.projection("answer")[:, 0]
    write_answers(two.root, "a", names, projection + 2, None, sample=1)
    write_labels(two.root, "a", names, np.ones(4), sample=1)
    after = read(two.root, ASKED)
    np.testing.assert_allclose(after.projection("answer")[:, 0], projection + 1)
    np.testing.assert_allclose(after.outcome[:, 0], (before.outcome[:, 0] + 1) / 2)
    assert {len(row.generation_ids) for row, _ in after.rows} == {2}


def test_only_the_prompts_of_a_class_are_read(world):
    halves = [read(world.root, replace(QUERY, only=only)) for only in (True, False)]
    assert [len(half.prompt_ids) for half in halves] == [200, 200]
    assert halves[0].is_positive.all()
    assert not halves[1].is_positive.any()
    evaluated = policies(world.root, replace(QUERY, only=True))
    assert {row["prompt_count"] for row in evaluated.values()} == {100}


def test_missing_rows_are_refused_by_name(two):
    with pytest.raises(LabelError, match=r"no labeler other of .* \(stored: judge, refusal"):
        read(two.root, replace(ASKED, labeler="other"))
    with pytest.raises(LabelError, match="no labeler dataset of completions"):
        read(two.root, replace(ASKED, labeler="dataset"))
    put(two.root, "prompts", {"prompt_set": "asked", "prompt_id": "new", "position": 4})
    with pytest.raises(CoverageError, match="1 of 5 prompts .* have no completion of a: run"):
        read(two.root, ASKED)
    assert read(two.root, replace(ASKED, limit=4)).missing_count == 0
    for model in ASKED.models:
        write_answers(two.root, model, ["new"], np.zeros(1), np.zeros(1))
    with pytest.raises(CoverageError, match="1 of 5 prompts .* have no label of the completion"):
        read(two.root, ASKED)
    allowed = read(two.root, replace(ASKED, allow_missing=True))
    assert (allowed.missing_count, len(allowed.prompt_ids)) == (1, 4)
    for model in ASKED.models:
        write_labels(two.root, model, ["new"], np.array([model == "a"]))
    assert read(two.root, ASKED).outcome[-1].tolist() == [1.0, 0.0]


def test_a_model_of_one_class_gets_a_flat_chance_and_a_note(tmp_path):
    world = make_answers(
        tmp_path / "lake", offsets={"a": 0.0, "b": 1.0}, harder={"b": 1000.0}, prompt_count=80
    )
    routing_id, notes = route(world.root, ASKED, seed=3)
    assert notes == ("all of b's 40 calibration completions have the outcome",)
    found = ask(
        world.root,
        "select distinct answer_probability from v_routings "
        "where routing_id = ? and policy = 'always b'",
        [routing_id],
    )
    assert [row["answer_probability"] for row in found] == [pytest.approx(41 / 42)]


def test_the_command_prints_the_table_that_sql_has(world):
    words = ["route", "--root", world.root, "--prompts", "asked", "--labeler", "judge"]
    assert '"policy": "oracle"' in ok(*words, "--format", "json").stdout
    assert "--min-quality needs --quality" in refused(*words, "--min-quality", "1")
    assert "routing and comparing need two or more" in refused(*words, "--model", "a")
