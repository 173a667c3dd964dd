"""A part is a sound warehouse with rows of the whole, and the same part is the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import ModelError, PromptError, RootError
from axes.warehouse.maintenance.compaction import compact
from axes.warehouse.maintenance.subset import subset
from axes.warehouse.storage.ledger import locked
from axes.warehouse.tables.schemas import TABLES
from tests.rows import file_bytes, put
from tests.warehouse.sound import WIDTH, broken, contents, flip_byte, put_warehouse

AXIS = {"layer": 1, "vector": [1.0] + [0.0] * (WIDTH - 1), "prompt_set": "seen"}


@pytest.fixture(scope="module")
def whole(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and a study of both with an alignment, a universal axis and figures."""
    root = shutil.copytree(sound, tmp_path_factory.mktemp("whole") / "lake")
    put(root, "runs", {"run_id": "study", "command": "study", "parameters": "{}"})
    put(
        root,
        "alignments",
        {
            "alignment_id": "n-to-m",
            "model": "owner/n",
            "model_id": "id-owner/n",
            "reference_model": "m",
            "reference_model_id": "id-m",
            "prompt_set": "other",
            "run_id": "study",
        },
    )
    reference = {**AXIS, "space_model": "m", "space_model_id": "id-m", "run_id": "study"}
    aligned = {"axis_id": "aligned-n", "alignment_id": "n-to-m", "fitted_model": "owner/n"}
    sources = ["axis-m", "aligned-n"]
    put(root, "axes", {**reference, **aligned})
    put(root, "axes", {**reference, "axis_id": "universal", "source_axis_ids": sources})
    for model, study, axis in (
        ("m", "both", "universal"),
        ("owner/n", "both", "universal"),
        ("m", "alone", "axis-m"),
        (None, "alone", None),
    ):
        figure = {"study_id": study, "model": model, "axis_id": axis, "prompt_set": "seen"}
        put(root, "evaluations", {**figure, "metric": "auroc", "run_id": "study"})
    for scoring, models in (("both", ("m", "owner/n")), ("alone", ("m",))):
        axis = "universal" if scoring == "both" else "axis-m"
        same = {"scoring_id": scoring, "prompt_set": "seen", "axis_id": axis, "run_id": "study"}
        for model in models:
            row = {**same, "model": model, "model_id": f"id-{model}", "prompt_id": "seen-0"}
            put(root, "scored_answers", row)
            routed = {"routing_id": scoring, "policy": "always " + model, "share": 1.0}
            put(root, "routings", {**row_of(row), **routed})
    return root


@pytest.fixture(scope="module")
def every(whole: Path) -> dict[str, list[dict]]:
    """All rows of `whole`."""
    return contents(whole)


def row_of(answer: dict) -> dict:
    """The columns of a scored answer that `routings` has too."""
    return {
        name: value for name, value in answer.items() if name in TABLES["routings"].schema.names
    }


def test_the_whole_warehouse_is_sound(whole: Path) -> None:
    assert broken(whole) == []


def test_a_clone_holds_every_row_in_the_same_bytes(whole: Path, every: dict, tmp_path: Path):
    subset(whole, tmp_path / "clone")
    assert broken(tmp_path / "clone") == []
    assert contents(tmp_path / "clone") == every
    data = {
        name: content for name, content in file_bytes(whole).items() if name.endswith(".parquet")
    }
    assert data.items() <= file_bytes(tmp_path / "clone").items()


@pytest.mark.parametrize(
    "part",
    [
        {"models": ["m"]},
        {"models": ["owner/n"]},
        {"prompt_sets": ["seen"]},
        {"models": ["m"], "prompt_sets": ["seen"]},
        {"models": ["m", "owner/n"], "prompt_sets": ["seen", "other"]},
    ],
)
def test_a_part_is_sound_and_the_same_twice(whole, every, tmp_path, part):
    for name in ("first", "second"):
        subset(whole, tmp_path / name, **part)
    assert file_bytes(tmp_path / "first") == file_bytes(tmp_path / "second")
    assert broken(tmp_path / "first") == []
    for table, found in contents(tmp_path / "first").items():
        assert table == "runs" or all(row in every[table] for row in found)


def test_one_model_and_one_set_are_their_rows(whole: Path, every: dict, tmp_path: Path) -> None:
    subset(whole, tmp_path / "part", models=["m"], prompt_sets=["seen"])
    part = contents(tmp_path / "part")
    prompt_ids = {row["prompt_id"] for row in every["prompts"] if row["prompt_set"] == "seen"}
    assert {row["prompt_set"] for row in part["prompts"]} == {"seen"}
    assert [row["model"] for row in part["models"]] == ["m"]
    assert part["activations"] == [
        row
        for row in every["activations"]
        if row["model"] == "m" and row["prompt_id"] in prompt_ids
    ]
    assert part["activations"]


def test_a_fitted_thing_comes_with_all_it_was_fitted_from_or_not_at_all(whole, tmp_path):
    subset(whole, tmp_path / "m", models=["m"])
    of_m = contents(tmp_path / "m")
    assert [row["axis_id"] for row in of_m["axes"]] == ["axis-m"]
    assert {row["study_id"] for row in of_m["evaluations"]} == {"alone"}
    for table in ("scored_answers", "routings"):
        assert {row["scoring_id"] for row in of_m[table]} == {"alone"}
    assert of_m["alignments"] == []
    subset(whole, tmp_path / "seen", prompt_sets=["seen"])
    axes = {row["axis_id"] for row in contents(tmp_path / "seen")["axes"]}
    assert axes == {"axis-m", "axis-owner/n"}


def test_a_part_of_a_compacted_warehouse_has_the_same_rows(whole: Path, tmp_path: Path) -> None:
    subset(whole, tmp_path / "copy")
    compact(tmp_path / "copy")
    subset(whole, tmp_path / "plain", models=["m"])
    subset(tmp_path / "copy", tmp_path / "compacted", models=["m"])
    assert broken(tmp_path / "compacted") == []
    plain, compacted = contents(tmp_path / "plain"), contents(tmp_path / "compacted")
    assert {**compacted, "runs": []} == {**plain, "runs": []}


def test_unknown_names_are_named_with_those_that_are_there(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model gpt .*stored: m, owner/n"):
        subset(whole, tmp_path / "part", models=["gpt"])
    with pytest.raises(PromptError, match=r"no prompt set new .*stored: other, seen"):
        subset(whole, tmp_path / "part", prompt_sets=["new"])
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_holds_something_is_left_alone(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RootError, match="exists and is not empty"):
        subset(whole, tmp_path)
    with pytest.raises(RootError, match="lies in the warehouse itself"):
        subset(whole, whole / "part")
    assert not (whole / "part").exists()


def test_what_a_killed_subset_has_left_is_gone_after_the_next(whole: Path, tmp_path: Path) -> None:
    left = tmp_path / ".part.tmp"
    (left / "activations" / "model=old").mkdir(parents=True)
    (left / "warehouse.json").write_text("{}")
    with locked(left, "building"), pytest.raises(RootError, match="being written by another job"):
        subset(whole, tmp_path / "part")
    subset(whole, tmp_path / "part")
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
    assert broken(tmp_path / "part") == []
    with pytest.raises(RootError, match="exists and is a warehouse, complete"):
        subset(whole, tmp_path / "part")


def test_a_file_that_was_edited_is_not_handed_on(whole: Path, tmp_path: Path) -> None:
    subset(whole, tmp_path / "copy")
    path = next((tmp_path / "copy" / "activations" / "model=m").iterdir())
    flip_byte(path, path.stat().st_size // 3)
    with pytest.raises(RootError, match="axes warehouse check"):
        subset(tmp_path / "copy", tmp_path / "clone")
    assert {entry.name for entry in tmp_path.iterdir()} == {"copy"}


def test_a_part_tells_no_folder_of_its_maker(whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "lake"
    put_warehouse(root, models=("m",))
    parameters = '{"source": "/home/me/secret/model", "n": "owner/n", "url": "https://a.b/secret2"}'
    line = "axes ingest activations m --source=/home/me/secret/model --file '/home/me/x.csv'"
    described = {"parameters": parameters, "command_line": line, "command": "prompts import"}
    put(root, "runs", {"run_id": "paths", **described})
    put(root, "prompts", {"prompt_set": "seen", "prompt_id": "p99", "run_id": "paths"})
    source = {"model": "m", "model_id": "id-m2", "source": "/home/me/secret/model"}
    put(root, "models", {**source, "run_id": "paths"})
    put(root, "activations", {"model": "m", "model_id": "id-m2", "prompt_id": "p99"})
    subset(root, tmp_path / "part", models=["m"], prompt_sets=["seen"])
    part = connect(tmp_path / "part")
    (run,) = rows(part, "select parameters, command_line from runs where run_id = 'paths'")
    assert run["command_line"] == "axes ingest activations m --source=model --file 'x.csv'"
    assert run["parameters"] == parameters.replace("/home/me/secret/", "")
    sources = rows(part, "select source from models where model_id = 'id-m2'")
    assert sources == [{"source": "model"}]
