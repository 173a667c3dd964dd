"""From traces in a warehouse to a verdict: rows, controls, and every printed number by SQL."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from axes.analysis.drift.drift import DriftDefinition, _answer, run_drift, verdict
from axes.analysis.drift.token_projections import project_completions
from axes.analysis.drift.trajectories import (
    Selection,
    read_trajectories,
    traced_models,
    write_cross_completions,
)
from axes.analysis.projections import score
from axes.analysis.study.run import run_study
from axes.cli.generation.drift import _event_pattern
from axes.warehouse.axes import AxisReadout, find_axis, read_axis_readout
from axes.warehouse.connection import connect_unlocked
from axes.warehouse.errors import AxisError, CoverageError, LabelError, NoAlignmentError
from axes.warehouse.maintenance.check import check
from axes.warehouse.maintenance.repair import restore_commands
from axes.warehouse.writer import rows_table, write_rows
from tests.commands import axes, ok
from tests.drifting import write_traces
from tests.rows import ask, opened, put
from tests.worlds import World, define_study, make_world, prompt_ids

MODEL, WIDTH, STEPS, SLOPE, COUNT = "alpha", 16, 8, 0.4, 40


def write_completions(
    world: World,
    *,
    slope: float = SLOPE,
    name: str = "g",
    follows: int = 0,
    steps: int = STEPS,
    is_given: bool = False,
    **columns: object,
) -> None:
    """A completion for each of the first prompts, half of them positive, drifting along the axis.

    It drifts where prompt number `row + follows` is positive. Those that are given were written for
    the other prompt of the pair.
    """
    random = np.random.default_rng(1)
    drifts = (np.arange(COUNT) + follows) % 2 == 0
    matrix = 0.5 * random.standard_normal((COUNT, steps, WIDTH))
    matrix += np.einsum("r,s,d->rsd", slope * drifts, np.arange(steps), world.planted(MODEL))
    if is_given:
        sampling = dict.fromkeys(("max_new_tokens", "temperature", "top_p", "seed"))
        columns |= {"finish_reason": "given", **sampling}
        columns["sources"] = [f"generation:g-{row ^ 1:02d}" for row in range(COUNT)]
    write_traces(world.root, MODEL, matrix, prompt_ids("labelled", COUNT), name=name, **columns)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(
        tmp_path_factory.mktemp("drift") / "lake",
        widths={MODEL: WIDTH, "beta": WIDTH},
        benign_count=60,
        labelled={"labelled": 150},
        strength=1.0,
    )
    write_completions(world)
    run_study(world.root, define_study((MODEL, "beta")))
    return world


@pytest.fixture
def world(original: World, tmp_path: Path) -> World:
    root = shutil.copytree(original.root, tmp_path / "lake")
    return replace(original, root=root)


def read_out(root: Path, name: str = "universal") -> AxisReadout:
    """The axis in the model's own space."""
    return read_axis_readout(opened(root), find_axis(opened(root), name), MODEL, f"id-{MODEL}")


def project(root: Path, readout: AxisReadout) -> int:
    return project_completions(opened(root), find_axis(opened(root), readout.axis_id), readout)


def analyse(root: Path, kind: str = "native", **asked: object) -> tuple[str, dict]:
    readout = read_out(root, f"native/{MODEL}/2/labelled" if kind == "native" else kind)
    project(root, readout)
    names = [name for name in asked if name in vars(Selection())]
    selection = Selection(**{name: asked.pop(name) for name in names})
    definition = DriftDefinition(selection=selection, resample_count=200, **asked)
    drift_id = run_drift(opened(root), readout, definition)
    (found,) = ask(root, "from v_drift where drift_id = ?", [drift_id])
    return drift_id, found


def drift(root: Path, *arguments: str) -> Result:
    """`axes drift` of the model on the universal axis."""
    named = ("--axis", read_out(root).axis_id, "--model", MODEL, "--root", root)
    return axes("drift", *named, *arguments)


def require_prompts_agree(root: Path, readout: AxisReadout) -> None:
    """The readout projects prompts as they are stored."""
    stored = ask(
        root,
        "select vector, projection from projections inner join activations "
        "using (model, model_id, prompt_id, layer) where axis_id = ? and model = ?",
        [readout.axis_id, MODEL],
    )
    projected = np.array([row["vector"] for row in stored]) @ readout.vector + readout.offset
    np.testing.assert_allclose(projected, [row["projection"] for row in stored], atol=1e-4)


@pytest.mark.parametrize("kind", ["native", "universal"])
def test_a_planted_drift_is_found_and_every_control_agrees(original, kind):
    drift_id, found = analyse(original.root, kind)
    assert found["is_drift"] and found["is_controlled"]
    assert (found["positive_count"], found["negative_count"]) == (COUNT // 2, COUNT // 2)
    assert found["controls_missing"] == ["other_text"]
    if kind == "native":
        assert found["lower"] < SLOPE * 1.02 and found["upper"] > SLOPE * 0.9
    words = verdict(opened(original.root), drift_id)
    assert "yes, and every control agrees" in words
    assert f"{found['slope_difference']:.3g} ({found['lower']:.3g}" in words


def test_without_a_drift_the_verdict_says_so(world):
    write_completions(world, slope=0.0, name="flat", template="chat")
    drift_id, found = analyse(world.root, template="chat")
    assert not found["is_drift"] and not found["is_controlled"]
    assert "not shown" in verdict(opened(world.root), drift_id)


@pytest.mark.parametrize(
    ("is_controlled", "failed", "words"),
    [
        (True, [], "no, it drifts down against the negative class, and every control agrees"),
        (False, ["lasting"], "drift down instead, but these controls explain the difference"),
        (False, [], "drift down instead, but not every control could be computed or can tell"),
    ],
)
def test_b5_controls_are_asked_of_a_drift_downwards_too(is_controlled, failed, words):
    row = {
        **dict.fromkeys(("model", "axis_name", "prompt_set", "template", "labeler"), "a"),
        **{"is_drift": False, "lower": -0.4, "upper": -0.1},
        **{"is_controlled": is_controlled, "controls_failed": failed},
    }
    assert words in _answer(row)


@pytest.mark.parametrize("is_controlled", [True, False])
def test_b5_a_drift_downwards_refutes_under_every_control_alone(world, is_controlled):
    analyse(world.root, "universal")
    connection = connect_unlocked(world.root)
    connection.execute("create table analyses as from v_drift")
    connection.execute(
        "create or replace view v_drift as select * replace ('other' as prompt_set, "
        f"-0.1 as upper, false as is_drift, {is_controlled} as is_controlled) from analyses"
    )
    statement = "select is_refuted from v_claim_estimates where claim = 'upward_drift'"
    assert connection.sql(statement).fetchall() == [(is_controlled,)]


def test_the_same_analysis_is_done_once_and_another_beside_it(world):
    first = analyse(world.root)[0]
    files = sorted((world.root / "drift_figures").glob("*.parquet"))
    assert analyse(world.root)[0] == first
    assert sorted((world.root / "drift_figures").glob("*.parquet")) == files
    assert analyse(world.root, bound=0.6)[0] != first


def test_a_lost_analysis_comes_back_under_its_key_by_the_command_that_is_told(world):
    done = drift(world.root, "--labeler", "dataset", "--seed", "3")
    assert done.exit_code == 0, done.output
    drift_id = done.stdout.split()[-1]
    asked = "select distinct run_id from drift_figures where drift_id = ?"
    (job,) = ask(world.root, asked, [drift_id])
    for folder in ("drift_figures", "trajectories"):
        for path in (world.root / folder).rglob("*.parquet"):
            if path.name != "schema.parquet":
                path.unlink()
    commands = restore_commands(world.root, [job["run_id"]])
    (words,) = (shlex.split(command) for command in commands.values())
    assert ok(*words[1:]).stdout.split()[-1] == drift_id


def test_a_row_for_each_completion_and_each_step(original):
    drift_id, found = analyse(original.root, threshold=1.0)
    described = ask(original.root, "from trajectories where drift_id = ?", [drift_id])
    assert len(described) == COUNT
    asked = (
        "select projection from token_projections where axis_id = ? and generation_id = ? "
        "order by step"
    )
    for row in described[:6]:
        steps = ask(original.root, asked, [row["axis_id"], row["generation_id"]])
        values = np.array([step["projection"] for step in steps])
        assert row["slope"] == pytest.approx(np.polyfit(range(STEPS), values, 1)[0])
        assert row["area_above"] == pytest.approx(np.clip(values - 1.0, 0, None).sum())
        above = np.flatnonzero(values >= 1.0)
        assert row["first_crossing"] == (above[0] if len(above) else None)
        means = values.cumsum() / np.arange(1, STEPS + 1)
        changes = np.flatnonzero((means >= 1.0) != (means[-1] >= 1.0))
        assert row["decided_step"] == (changes[-1] + 1 if len(changes) else 0)
        assert row["event_step"] == (STEPS - 1 if row["is_positive"] else None)
    curve = ask(
        original.root,
        "select curve, control, count(*) as steps from v_drift_curve where drift_id = ? "
        "group by all order by all",
        [drift_id],
    )
    assert [(row["curve"], row["control"], row["steps"]) for row in curve] == [
        ("mean_difference", "lasting", STEPS),
        ("mean_difference", "none", STEPS),
        ("running_auroc", "none", STEPS),
    ]
    assert found["final_auroc"] > 0.9 and found["decided_step"] is not None


def test_a_labeler_of_completions_makes_the_classes(world):
    labels = [
        {"labeler": "judge", "generation_id": f"g-{row:02d}", "label": "x", "is_positive": row < 9}
        for row in range(COUNT - 4)
    ]
    put(world.root, "labels", *labels)
    drift_id, found = analyse(world.root, labeler="judge")
    assert (found["positive_count"], found["negative_count"]) == (9, COUNT - 13)
    asked = "select parameters from drift_figures where drift_id = ?"
    parameters = json.loads(ask(world.root, asked, [drift_id])[0]["parameters"])
    assert parameters["unlabelled_count"] == 4
    with pytest.raises(LabelError, match="each class needs two"):
        analyse(world.root, labeler="nobody")


@pytest.mark.parametrize(("follows", "meaning"), [(0, "the prompt"), (1, "the text")])
def test_reading_the_other_classs_text_tells_prompt_from_text(world, follows, meaning):
    write_completions(world, name="cross", follows=follows, is_given=True)
    drift_id, found = analyse(world.root)
    assert found["controls_missing"] == []
    assert f"the difference follows {meaning}" in verdict(opened(world.root), drift_id)


def test_cross_completions_pair_each_prompt_with_a_text_of_the_other_class(original, tmp_path):
    warehouse, readout = opened(original.root), read_out(original.root)
    project(original.root, readout)
    found = read_trajectories(warehouse, readout, Selection())
    lines = write_cross_completions(warehouse, found, tmp_path / "cross.jsonl").read_text()
    class_of_prompt = dict(zip(found.prompt_ids, found.is_positive, strict=True))
    class_of_text = dict(zip(found.generation_ids, found.is_positive, strict=True))
    pairs = [json.loads(line) for line in lines.splitlines()]
    assert {pair["prompt_id"] for pair in pairs} == set(found.prompt_ids)
    for pair in pairs:
        writer = pair["source"].removeprefix("generation:")
        assert class_of_prompt[pair["prompt_id"]] != class_of_text[writer]


def test_a_pulled_back_axis_projects_as_the_study_did(original):
    require_prompts_agree(original.root, read_out(original.root))


def test_another_models_native_axis_is_pulled_back_and_wrong_rows_are_replaced(world):
    """Although the models are of one width, and an axis of the other would multiply."""
    name = "native/beta/2/labelled"
    score(world.root, name, models=[MODEL])
    warehouse, readout = opened(world.root), read_out(world.root, name)
    axis = find_axis(warehouse, name)
    for file, written in (("first", range(0, 9)), ("second", range(9, COUNT))):
        wrong = [
            {"axis_id": axis.axis_id, "generation_id": f"g-{row:02d}", "step": step, "layer": 2}
            | {"projection": 9.0, "run_id": "wrong"}
            for row in written
            for step in range(STEPS)
        ]
        table = rows_table("token_projections", wrong)
        write_rows(world.root, "token_projections", table, name=file, partition=MODEL)
    assert readout.alignment_id is not None
    with pytest.raises(CoverageError, match="no completions of alpha"):
        read_trajectories(warehouse, readout, Selection())
    assert project(world.root, readout) == COUNT * STEPS
    stored = ask(
        warehouse.root,
        "select vector, projection, alignment_id from token_projections "
        "inner join generation_tokens using (model, generation_id, step, layer) "
        "where axis_id = ? order by generation_id, step",
        [axis.axis_id],
    )
    assert len(stored) == COUNT * STEPS
    assert {row["alignment_id"] for row in stored} == {readout.alignment_id}
    x = np.array([row["vector"] for row in stored])
    projected = [row["projection"] for row in stored]
    np.testing.assert_allclose(x @ readout.vector + readout.offset, projected, atol=1e-4)
    assert abs(np.corrcoef(x @ axis.vector, projected)[0, 1]) < 0.9
    require_prompts_agree(world.root, readout)
    assert project(world.root, readout) == 0
    checks = [row for row in check(world.root).to_pylist() if "token_projections" in row["check"]]
    assert checks and all(row["row_count"] == 0 for row in checks)


def test_what_cannot_be_analysed_is_named(world):
    warehouse = opened(world.root)
    axis = find_axis(warehouse, "universal")
    with pytest.raises(AxisError, match="no traces of gamma"):
        traced_models(warehouse, axis, ["gamma"])
    with pytest.raises(NoAlignmentError, match="no alignment of gamma leads to layer 2 of beta"):
        read_axis_readout(warehouse, axis, "gamma", "id-of-nobody")
    with pytest.raises(CoverageError, match="no completions of alpha"):
        analyse(world.root, template="chat")
    left_out = drift(world.root, "--template", "chat")
    assert left_out.exit_code == 1 and "no completions of alpha" in left_out.stderr
    write_completions(world, name="short", steps=1, template="short")
    with pytest.raises(CoverageError, match="a single token, and so no slope"):
        analyse(world.root, template="short")
    write_completions(world, name="more", steps=5)
    with pytest.raises(CoverageError, match="several kinds: say which with --template"):
        analyse(world.root)


def test_the_command_prints_figures_and_verdict_and_sql_gives_them_again(world):
    printed = drift(world.root, "--format", "json")
    assert printed.exit_code == 0, printed.output
    assert "does the positive class drift up" in printed.stderr
    shown = {(row["metric"], row["control"]): row["estimate"] for row in json.loads(printed.stdout)}
    drift_id = printed.stderr.split()[-1]
    stored = ask(world.root, "from drift_figures where step is null and drift_id = ?", [drift_id])
    assert shown == {(row["metric"], row["control"]): row["estimate"] for row in stored}
    as_table = drift(world.root)
    assert "does the positive class drift up" in as_table.stdout
    asked = drift(world.root, "--calibration", "platt")
    assert asked.exit_code == 1 and "axes calibrate" in asked.stderr
    assert isinstance(asked.exception, SystemExit)


def test_an_event_is_a_regular_expression_or_a_refusals_phrase(world):
    pattern = re.compile(_event_pattern("refusal"), re.IGNORECASE)
    assert pattern.search("Well, I’m  SORRY to say").start() == 6
    assert pattern.search("Sure, here is a duck.") is None
    assert _event_pattern("t3") == "t3" and _event_pattern(None) is None
    refused = drift(world.root, "--event", "(")
    assert refused.exit_code == 2 and "is not a regular expression" in refused.stderr
    done = drift(world.root, "--event", "t3")
    assert done.exit_code == 0, done.output
    found = ask(world.root, "select distinct event_step from trajectories order by 1")
    assert 3 in [row["event_step"] for row in found]
