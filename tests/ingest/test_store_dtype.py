"""Rows rounded to 16 bits: a key of their own, a small loss, fewer bytes, the same type."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from axes.ingest.forward.pooling import POOLINGS, find_pooling, mean
from axes.ingest.models.registry import ModelSpec
from axes.warehouse.errors import AxesError, NonFiniteError
from axes.warehouse.maintenance.compaction import compact
from axes.warehouse.storage.layout import partition_folder
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import rows_table, vector_array, write_rows
from tests.ingest.conftest import ImportTexts, assert_checks_pass, ingest_texts, read
from tests.rows import full

TEXTS = ["hi", "what is it", "a rather longer prompt than the others are"]


def stored(root: Path, pooling: str) -> dict[tuple, np.ndarray]:
    found = read(
        root, "select prompt_id, layer, vector from activations where pooling = ?", [pooling]
    )
    return {(row["prompt_id"], row["layer"]): np.float32(row["vector"]) for row in found}


def test_rounded_rows_lie_beside_those_in_float32_and_are_these_rounded(
    root: Path, llama: ModelSpec, import_texts: ImportTexts
):
    dtype = "bfloat16"
    import_texts(TEXTS)
    ingest_texts(root, llama)
    exact = stored(root, "last5_mean")
    done = ingest_texts(root, llama, store_dtype=dtype)
    rounded = stored(root, f"last5_mean+{dtype}")
    assert done.rows == len(rounded) == len(exact)
    for key, vector in exact.items():
        expected = torch.from_numpy(vector).to(getattr(torch, dtype)).float().numpy()
        np.testing.assert_array_equal(rounded[key], expected)
    # Nothing of the rows in float32 has changed, and neither kind is run again.
    np.testing.assert_equal(stored(root, "last5_mean"), exact)
    assert ingest_texts(root, llama, store_dtype=dtype).rows == 0
    # The pooling of the rows is a name like others, by which a study asks for them.
    assert ingest_texts(root, llama, poolings=[f"last5_mean+{dtype}"]).rows == 0
    runs = read(root, "select parameters from runs where rows > 0 order by started_at")
    assert json.loads(runs[-1]["parameters"])["poolings"] == [f"last5_mean+{dtype}"]
    assert_checks_pass(root)


def test_an_unknown_precision_and_one_without_room_are_refused(
    root: Path, llama: ModelSpec, import_texts: ImportTexts, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(AxesError, match=r"unknown pooling last5_mean\+int8"):
        find_pooling("last5_mean+int8")
    import_texts(TEXTS)
    large = replace(POOLINGS["last"], reduce=lambda hidden, mask: mean(hidden, mask) + 70_000)
    monkeypatch.setitem(POOLINGS, "last", large)
    with pytest.raises(NonFiniteError, match="rounded to float16: --store-dtype bfloat16 has room"):
        ingest_texts(root, llama, poolings=["last"], layers=[0], store_dtype="float16")
    assert not stored(root, "last+float16")


@pytest.mark.parametrize(
    ("dtype", "max_bytes", "max_angle"), [("bfloat16", 1.7, 1e-5), ("float16", 2.1, 1e-6)]
)
def test_what_rounding_loses_and_saves(root: Path, dtype: str, max_bytes: float, max_angle: float):
    """Two classes of 300 rows that a direction separates at an AUROC of about 0.8."""
    random = np.random.default_rng(0)
    labels = np.arange(600) % 2 == 0
    matrix = random.normal(size=(600, 256)).astype(np.float32) * 50
    matrix[labels, 0] += 60
    rounded = torch.from_numpy(matrix).to(getattr(torch, dtype)).float().numpy()
    lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(rounded, axis=1)
    assert (1 - (matrix.astype(float) * rounded).sum(1) / lengths).max() < max_angle
    scores = [x @ (x[labels].mean(0) - x[~labels].mean(0)) for x in (matrix, rounded)]
    exact, rough = (roc_auc_score(labels, each) for each in scores)
    assert exact == pytest.approx(rough, abs=5e-4)
    for number, half in enumerate((slice(0, 300), slice(300, 600))):
        row = {**full("activations", {}), "pooling": f"last+{dtype}", "pooled_tokens": []}
        del row["vector"], row["model"]
        rows = [{**row, "prompt_id": f"{place:016x}"} for place in range(half.start, half.stop)]
        table = rows_table("activations", rows, vector=vector_array(rounded[half]))
        write_rows(root, "activations", table, name=f"half{number}", partition="m")
    compact(root, ["activations"])
    (path,) = partition_folder(root, TABLES["activations"], "m").glob("*.parquet")
    group = pq.read_metadata(path).row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert columns["vector.list.element"].total_compressed_size / matrix.size < max_bytes
    # Other tools find float32, whatever lies on the disk.
    expected = rounded.tolist()
    assert pq.read_table(path, partitioning=None)["vector"].to_pylist() == expected
    assert pl.read_parquet(path)["vector"].to_list() == expected
    assert duckdb.sql(f"select vector from '{path}'").fetchall()[7][0] == expected[7]
