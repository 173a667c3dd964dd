"""Activations out of one warehouse and into another: every format, to the last bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from safetensors.numpy import load_file

from axes.warehouse.connection import connect, query, rows, vectors
from tests.commands import imported_by, ok, printed, refused
from tests.warehouse.sound import broken

FORMATS = ("safetensors", "npz", "parquet", "arrow", "datasets")
_ROWS = """
select
    layer, prompt_set, position, text, label, is_positive, pair_id, category, token_count,
    pooled_tokens, vector
from v_activations
where model = ?
order by prompt_set, layer, position
"""


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models with a labelled set and an unlabelled one, in `lake`."""
    base = shutil.copytree(tiny, tmp_path_factory.mktemp("made") / "tiny")
    sets = ("--prompts", "marked", "--prompts", "benign")
    ok("ingest", "activations", base / "large", *sets, "--root", base / "lake")
    return base


def exported(made: Path, folder: Path, to: str, model: str, prompts: str) -> Path:
    path = folder / f"{model}-{prompts}.{to}"
    words = ("--prompts", prompts, "--to", to, "-o", path, "--root", made / "lake")
    said = printed("activations", "export", model, *words)
    assert said[0]["path"] == str(path) and said[0]["layers"] == [0, 1, 2, 3]
    return path


@pytest.fixture(scope="module")
def files(made: Path) -> dict[str, Path]:
    """What `small` made of the labelled set, in every format."""
    return {to: exported(made, made, to, "small", "marked") for to in FORMATS}


@pytest.mark.parametrize("to", FORMATS)
def test_what_was_exported_and_imported_is_the_same_to_the_last_bit(made, files, tmp_path, to):
    path = files[to]
    root = tmp_path / "other"
    ok("activations", "import", path, "--root", root)
    here, there = (
        query(connect(lake), f"select * from ({_ROWS}) where prompt_set = 'marked'", ["small"])
        for lake in (root, made / "lake")
    )
    assert here.num_rows == 4 * 40
    assert here.drop_columns(["vector"]).equals(there.drop_columns(["vector"]))
    assert vectors(here["vector"]).tobytes() == vectors(there["vector"]).tobytes()
    # The rows are the same, and so are the checks of them.
    assert to != "npz" or broken(root) == []
    (again,) = printed("activations", "import", path, "--root", root)
    assert (again["rows"], again["known_rows"]) == (0, 160)


def test_the_files_are_what_their_own_libraries_read(made: Path, files: dict[str, Path]) -> None:
    from datasets import load_from_disk

    expected = vectors(
        query(
            connect(made / "lake"),
            "select vector from v_activations where model = 'small' and prompt_set = 'marked' "
            "and layer = 2 order by position",
        )["vector"]
    )
    index = pl.read_parquet(made / "small-marked.index.parquet")
    assert index["text"][0] == "break the door 0" and len(index) == 40
    stored = load_from_disk(str(files["datasets"]))
    found = {
        "safetensors": load_file(files["safetensors"])["layer.2"],
        "npz": np.load(files["npz"])["layer.2"],
        "parquet": np.stack(
            pl.read_parquet(files["parquet"]).filter(pl.col("layer") == 2)["vector"].to_list()
        ),
        "datasets": np.array([row["vector"] for row in stored if row["layer"] == 2]),
    }
    with pa.memory_map(str(files["arrow"])) as source:
        table = pa.ipc.open_file(source).read_all()
    assert json.loads(table.schema.metadata[b"card"])["model"]["name"] == "small"
    layer = table.filter(pa.compute.field("layer") == 2)["vector"].combine_chunks()
    found["arrow"] = layer.flatten().to_numpy().reshape(40, -1)
    for to, matrix in found.items():
        np.testing.assert_array_equal(matrix.astype(np.float32), expected, err_msg=to)


def test_the_rest_works_on_an_imported_warehouse(made: Path, tmp_path: Path) -> None:
    """Fit, study, score, report and SQL, and the directions are those of the first warehouse."""
    root, at = tmp_path / "other", ("--root", tmp_path / "other")
    for model in ("small", "large"):
        for prompts in ("marked", "benign"):
            ok("activations", "import", exported(made, tmp_path, "npz", model, prompts), *at)
    ok("fit", "small", "--prompts", "marked", *at)
    axis = "select layer, vector from axes where kind = 'native' order by layer"
    mine, theirs = (query(connect(lake), axis) for lake in (root, made / "lake"))
    assert mine["layer"].to_pylist() == [0, 1, 2, 3]
    np.testing.assert_allclose(vectors(mine["vector"]), vectors(theirs["vector"]), atol=1e-6)
    words = ("--model", "small", "--model", "large", "--reference", "large", "--prompts", "marked")
    # No model is asked for: what is missing of an imported one cannot be run.
    ok("study", *words, "--align", "benign", "--report", tmp_path / "report.md", *at)
    (universal,) = rows(connect(root), "select axis_id from axes where kind = 'universal'")
    ok("score", universal["axis_id"], "--prompts", "benign", *at)
    assert broken(root) == []
    message = refused("study", *words, "--align", "benign", "--pooling", "mean", *at)
    assert "import these too with `axes activations import`" in message


def test_some_layers_are_fitted_where_only_those_are_there(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    words = ("--prompts", "marked", "--layers", "1,3", "--to", "npz", "-o", path)
    ok("activations", "export", "small", *words, "--root", made / "lake")
    ok("activations", "import", path, "--root", tmp_path / "other")
    fit = ("fit", "small", "--prompts", "marked", "--root", tmp_path / "other")
    assert [row["layer"] for row in printed(*fit)] == [1, 3]


def test_an_imported_model_never_mixes_with_one_that_was_run(made, files, tmp_path):
    root = shutil.copytree(made / "lake", tmp_path / "both")
    at = ("--root", root)
    ok("activations", "import", files["npz"], *at)
    assert broken(root) == []
    message = refused("fit", "small", "--prompts", "marked", *at)
    assert "2 versions of small are there" in message


def test_exports_of_rows_that_are_not_there_are_refused(made: Path, tmp_path: Path) -> None:
    words = ("activations", "export", "small", "--to", "npz", "-o", tmp_path / "x.npz")
    marked = ("--prompts", "marked", "--root", made / "lake")
    assert "layer 9 of small does not exist" in refused(*words, *marked, "--layers", "9")
    assert "has activations for 0 of the 40" in refused(*words, *marked, "--pooling", "mean")
    assert not list(tmp_path.iterdir())


def test_an_ingest_whose_rows_are_stored_imports_no_torch(made: Path):
    words = ("ingest", "activations", made / "large", "--prompts", "marked", "--root")
    # The cache folder remembers which attention the model takes: transformers was asked once.
    ok(*words, made / "lake")
    assert not imported_by(*words, made / "lake") & {"torch", "transformers", "sklearn", "scipy"}
