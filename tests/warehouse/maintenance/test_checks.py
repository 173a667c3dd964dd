"""A sound warehouse passes every check, and each check finds the violation planted for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from axes.warehouse.connection import Connection, connect, query
from axes.warehouse.maintenance.check import check
from axes.warehouse.storage.layout import EMPTY_FILE, init_root
from axes.warehouse.storage.store import data_files, maintained
from axes.warehouse.tables.catalog import check_rules
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key, data_file, read_record
from tests.rows import Row, full, put, put_prompts

ACTIVATION = {
    "model": "m",
    "model_id": "m1",
    "prompt_id": "p0",
    "vector": [3.0, 4.0],
    "norm": 5.0,
    "token_count": 7,
    "pooled_start": 5,
    "pooled_end": 7,
    "pooled_tokens": ["a", "b"],
    "run_id": "run",
}
AT_9 = {**ACTIVATION, "layer": 9}
AXIS = {"axis_id": "axis", "name": "native", "vector": [0.6, 0.8]}
PROJECTION = {"model": "m", "model_id": "m1", "axis_id": "axis", "prompt_id": "p0"}
CALIBRATION = {"calibration_id": "c", "model": "m", "model_id": "m1", "axis_id": "axis"}
VARIATION = {"study_id": "sound", "setting": "reference", "value": "m", "model": "m"}
TRAJECTORY = {"model": "m", "drift_id": "d", "axis_id": "axis", "generation_id": "g"}
DRIFT_FIGURE = {"drift_id": "d", "model": "m", "axis_id": "axis"}
GENERATION = {
    "model": "m",
    "model_id": "m1",
    "generation_id": "g",
    "prompt_id": "p0",
    "token_count": 3,
}
SCORED = {
    "scoring_id": "s",
    "model": "m",
    "model_id": "m1",
    "prompt_set": "demo",
    "prompt_id": "p0",
    "axis_id": "axis",
    "generation_ids": ["g"],
    "outcome": 0.5,
}
ROUTED = {
    "routing_id": "r",
    "scoring_id": "s",
    "policy": "oracle",
    "model": "m",
    "model_id": "m1",
    "prompt_id": "p0",
    "share": 1.0,
}
POLICY = {"routing_id": "r", "policy": "oracle", "metric": "outcome", "estimate": 0.5}
COMPARED = {"scoring_id": "s", "model_id": "m1", "metric": "probability"}
TOKEN_PROJECTION = {"model": "m", "axis_id": "axis", "generation_id": "g"}
INGEST = {"run_id": "short", "command": "ingest traces", "status": "finished", "rows": 1}
TOKEN = {"model": "m", "generation_id": "g", "vector": [1.0, 0.0]}
OUTCOME = {"model": "m", "model_id": "m1", "axis_id": "axis", "prompt_id": "p0"}
INTERVENTION = {"experiment_id": "e", "model": "m", "model_id": "m1", "axis_id": "axis"}
PROMPT_TOKEN = {"model": "m", "model_id": "m1", "prompt_id": "p0", "run_id": "run"}
LABEL = {"labeler": "dataset", "prompt_set": "demo", "prompt_id": "p0", "is_positive": True}
PROMPT = {"prompt_set": "demo", "prompt_id": "p0", "position": 0}

RULES = check_rules()
NAN, INFINITY = float("nan"), float("inf")

# Check, table, and rows that break it when they are added to a sound warehouse.
PLANTED: list[tuple] = [
    ("activations_finite", "activations", {**AT_9, "vector": [NAN, 0.0]}),
    ("activations_finite", "activations", {**AT_9, "vector": [INFINITY, 0.0]}),
    ("activations_finite", "activations", {**AT_9, "norm": 5.1}),
    ("activations_finite", "activations", {**AT_9, "norm": NAN}),
    ("activations_finite", "activations", {**AT_9, "norm": INFINITY}),
    ("activations_pooled_span", "activations", {**AT_9, "pooled_start": 6}),
    ("activations_pooled_span", "activations", {**AT_9, "token_count": 6}),
    ("activations_pooled_span", "activations", {**AT_9, "pooled_start": -1, "pooled_end": 1}),
    ("activations_pooled_span", "activations", {**AT_9, "pooled_start": 7, "pooled_tokens": []}),
    ("activations_known_model", "activations", {**ACTIVATION, "model_id": "unregistered"}),
    ("axes_unit_norm", "axes", {**AXIS, "axis_id": "long", "vector": [0.6, 0.801]}),
    ("axes_unit_norm", "axes", {**AXIS, "axis_id": "zero", "vector": [0.0, 0.0]}),
    ("axes_unit_norm", "axes", {**AXIS, "axis_id": "nan", "vector": [NAN, 0.0]}),
    ("generations_complete", "generations", {**GENERATION, "generation_id": "bare"}),
    ("generations_complete", "generation_tokens", {**TOKEN, "step": 2}),
    ("generations_complete", "generation_tokens", {**TOKEN, "step": 3}),
    ("generations_complete", "generation_tokens", {**TOKEN, "step": 0, "layer": 5}),
    (
        "generations_complete",
        "generation_tokens",
        *({**TOKEN, "step": step, "layer": 5} for step in (1, 2, 3)),
    ),
    (
        "generations_complete",
        "generation_tokens",
        *({**TOKEN, "step": step, "layer": 5} for step in (0, 0, 2)),
    ),
    ("labels_agree", "labels", {**LABEL, "is_positive": False}),
    ("labels_known_prompt", "labels", {**LABEL, "prompt_id": "unheard of"}),
    ("labels_known_prompt", "labels", {**LABEL, "prompt_set": "other set"}),
    ("projections_known_axis", "projections", {**PROJECTION, "axis_id": "gone"}),
    ("prompts_unique_key", "prompts", {**PROMPT, "position": 9}),
    ("prompts_unique_key", "prompts", {**PROMPT, "prompt_id": "p9"}),
    ("runs_known", "prompts", {"prompt_set": "demo", "run_id": "unrecorded"}),
    ("runs_rows_present", "runs", {**INGEST, "run_id": "cut"}),
    (
        "labels_known_generation",
        "labels",
        {"labeler": "refusal_substring", "generation_id": "gone"},
    ),
    ("generations_known_model", "generations", {**GENERATION, "model_id": "unregistered"}),
    ("generation_tokens_vector", "generation_tokens", {**TOKEN, "step": 2, "vector": [1.0]}),
    ("generation_tokens_vector", "generation_tokens", {**TOKEN, "step": 2, "vector": [NAN, 0.0]}),
    ("prompt_tokens_known_model", "prompt_tokens", {**PROMPT_TOKEN, "model_id": "unregistered"}),
    ("axes_known_sources", "axes", {**AXIS, "axis_id": "new", "source_axis_ids": ["gone"]}),
    ("axes_known_alignment", "axes", {**AXIS, "axis_id": "new", "alignment_id": "gone"}),
    ("projections_known_alignment", "projections", {**PROJECTION, "alignment_id": "gone"}),
    ("token_projections_known_axis", "token_projections", {**TOKEN_PROJECTION, "axis_id": "gone"}),
    ("token_projections_known", "token_projections", {**TOKEN_PROJECTION, "generation_id": "?"}),
    ("generation_tokens_kept", "generation_tokens", {**TOKEN, "step": -1, "vector": None}),
    ("diagnostics_known_study", "diagnostics", {"study_id": "gone"}),
    ("evaluations_known_axis", "evaluations", {"study_id": "s", "axis_id": "gone"}),
    ("intervention_outcomes_known_axis", "intervention_outcomes", {**OUTCOME, "axis_id": "gone"}),
    ("intervention_outcomes_known_model", "intervention_outcomes", {**OUTCOME, "model_id": "gone"}),
    (
        "intervention_outcomes_known_generation",
        "intervention_outcomes",
        {**OUTCOME, "generation_id": "?"},
    ),
    ("interventions_known_axis", "interventions", {**INTERVENTION, "axis_id": "gone"}),
    ("calibrations_known_axis", "calibrations", {**CALIBRATION, "axis_id": "gone"}),
    ("calibrations_known_model", "calibrations", {**CALIBRATION, "model_id": "unregistered"}),
    ("variations_known_study", "variations", {**VARIATION, "study_id": "gone"}),
    ("trajectories_known_axis", "trajectories", {**TRAJECTORY, "axis_id": "gone"}),
    ("trajectories_known_generation", "trajectories", {**TRAJECTORY, "generation_id": "gone"}),
    ("drift_figures_known_axis", "drift_figures", {**DRIFT_FIGURE, "axis_id": "gone"}),
    (
        "scored_answers_known_axis",
        "scored_answers",
        {**SCORED, "prompt_id": "p1", "axis_id": "gone"},
    ),
    (
        "scored_answers_known",
        "scored_answers",
        {**SCORED, "prompt_id": "p1", "generation_ids": ["gone"]},
    ),
    ("routings_known_answers", "routings", {**ROUTED, "policy": "other", "prompt_id": "p1"}),
    ("routings_known_answers", "routings", {**ROUTED, "policy": "other", "model_id": "m2"}),
    ("routings_whole", "routings", {**ROUTED, "policy": "other", "share": 0.5}),
    ("routing_evaluations_agree", "routing_evaluations", {**POLICY, "policy": "other"}),
    ("comparisons_known_scoring", "comparisons", {**COMPARED, "model_id": "m2"}),
    ("runs_known", "activations", {**AT_9, "run_id": "unrecorded"}),
]


def put_sound(root: Path) -> None:
    """Rows in every table that obey every rule, near the edges of what is allowed."""
    put_prompts(root, "demo", {"p0": True, "p1": False, "p2": None})
    put_prompts(root, "overlap", {"p0": True, "p3": False})
    put(root, "runs", {"run_id": "run"}, {"run_id": "x"})
    put(root, "runs", {**INGEST, "rows": 9}, {**INGEST, "run_id": "killed", "status": "running"})
    put(root, "runs", {"run_id": "repair", "parameters": '{"rows_left_out": {"short": 9}}'})
    put(root, "models", {"model_id": "m1", "model": "m", "d_model": 2, "layer_count": 2})
    put(
        root,
        "activations",
        *({**ACTIVATION, "layer": layer, "template": t} for layer in (0, 1) for t in ("raw", "x")),
        {**ACTIVATION, "prompt_id": "p1", "pooled_start": 0, "pooled_tokens": ["t"] * 7},
    )
    put(root, "prompt_tokens", *({**PROMPT_TOKEN, "position": place} for place in range(3)))
    put(root, "axes", AXIS, {**AXIS, "axis_id": "other", "vector": [-1.0, 0.0]})
    put(root, "projections", PROJECTION, {**PROJECTION, "axis_id": "other"})
    put(root, "labels", {**LABEL, "labeler": "refusal_substring", "is_positive": False})
    put(root, "labels", {"labeler": "refusal_substring", "generation_id": "g"})
    put(root, "generations", GENERATION, {**GENERATION, "generation_id": "none", "token_count": 0})
    put(
        root,
        "generation_tokens",
        *({**TOKEN, "step": step, "layer": layer} for layer in (0, 1) for step in range(3)),
    )
    put(root, "token_projections", TOKEN_PROJECTION, {**TOKEN_PROJECTION, "step": -2})
    put(root, "generation_tokens", {**TOKEN, "step": -2, "vector": None})
    put(root, "alignments", {"alignment_id": "a"})
    put(root, "calibrations", CALIBRATION)
    put(root, "evaluations", {"study_id": "sound"})
    put(root, "diagnostics", {"study_id": "sound"})
    put(root, "steps", {"step_id": "step"})
    put(root, "variations", VARIATION)
    put(root, "intervention_outcomes", OUTCOME, {**OUTCOME, "new_tokens": 4, "generation_id": "g"})
    put(root, "interventions", INTERVENTION, {**INTERVENTION, "strength": 0.1})
    put(root, "trajectories", TRAJECTORY)
    put(root, "drift_figures", DRIFT_FIGURE, {**DRIFT_FIGURE, "step": 0})
    put(root, "scored_answers", SCORED)
    put(root, "answer_calibrations", {"scoring_id": "s", "model_id": "m1", "source": "answer"})
    put(root, "routings", ROUTED)
    put(root, "routing_evaluations", POLICY)
    put(root, "comparisons", COMPARED)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted") / "lake"
    init_root(folder)
    put_sound(folder)
    return folder


@pytest.fixture(scope="module")
def connection(original: Path) -> Connection:
    return connect(original)


def plant(root: Path, table: str, *rows: Row) -> Path:
    """Add rows by another road than `write_rows`, which would refuse some of them."""
    definition = TABLES[table]
    partition = rows[0][definition.partition] if definition.partition else None
    path = data_file(root, table, f"planted-{content_key(repr(rows))}", partition)
    described = [full(table, row) for row in rows]
    pq.write_table(pa.Table.from_pylist(described, schema=definition.file_schema), path)
    return path


def counts(root: Path) -> dict[str, int]:
    """Rule -> rows that break it."""
    found = {row["check"]: row["row_count"] for row in check(root).to_pylist()}
    return {name: found[name] for name in RULES}


@pytest.mark.parametrize("put_rows", [lambda root: None, put_sound], ids=["empty", "sound"])
def test_a_sound_warehouse_passes_every_check(root: Path, put_rows: Callable) -> None:
    put_rows(root)
    assert counts(root) == dict.fromkeys(RULES, 0)


@pytest.mark.parametrize(
    ("name", "table", "rows"), [(name, table, rows) for name, table, *rows in PLANTED]
)
def test_a_planted_violation_is_found_by_its_check(original, connection, name, table, rows):
    path = plant(original, table, *rows)
    assert query(connection, RULES[name]).num_rows > 0
    path.unlink()


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_rows_that_are_stored_twice_are_found(original, connection, table):
    path = next(path for path in data_files(original, table) if path.name != EMPTY_FILE)
    again = Path(shutil.copy(path, path.with_stem("again")))
    assert query(connection, RULES[f"{table.name}_unique_key"]).num_rows > 0
    again.unlink()


def test_labels_of_an_import_that_was_killed_are_no_damage(original, connection):
    label = {**LABEL, "prompt_id": "unheard of", "run_id": "killed"}
    run = {"run_id": "killed", "status": "running"}
    paths = [plant(original, "labels", label), plant(original, "runs", run)]
    assert query(connection, RULES["labels_known_prompt"]).num_rows == 0
    for path in paths:
        path.unlink()


def test_every_check_has_a_violation_planted_for_it() -> None:
    unique = {f"{name}_unique_key" for name in TABLES}
    assert {name for name, *_ in PLANTED} | unique == set(RULES)


def test_the_report_counts_the_rows_shows_the_first_and_blames_no_other_rule(original, tmp_path):
    root = shutil.copytree(original, tmp_path / "lake")
    bad = {**PROJECTION, "axis_id": "gone"}
    rows = [bad, {**bad, "prompt_id": "p1"}, {**bad, "axis_id": "lost"}]
    path = plant(root, "projections", *rows)
    maintained(root).adopt("projections", {path: read_record(path)})
    (row,) = (row for row in check(root).to_pylist() if row["row_count"])
    assert row["check"] == "projections_known_axis"
    assert row["row_count"] == 2
    assert row["example"] in (
        "axis_id gone, row_count 2",
        "axis_id lost, row_count 1",
    )
