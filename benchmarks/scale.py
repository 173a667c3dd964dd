"""A warehouse of many files: opening it, its keys, one layer of a model, AUROC over many axes.

The layout is the real one, a file for each chunk with a row group for each layer, 100 files for
each model, with small vectors: what a query pays for each file is the same. Files of the second
model on are hard links. `AXES_BENCH_FILES` (default 1000,10000) says how many. Then an object
store, of which requests and bytes are counted.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from axes.warehouse.connection import connect, connect_tables, query
from axes.warehouse.layers import layer_batches
from axes.warehouse.storage.layout import init_root
from axes.warehouse.tables.index import INDEX
from axes.warehouse.writer import rows_table, write_rows
from benchmarks import object_store, on_ray
from benchmarks.run import Figure
from benchmarks.warehouse import link_models, seconds, write_activations, write_prompts
from tests.rows import full
from tests.worlds import write_model

AXES, SCORED = 10_000, 64
FILES_OF_A_MODEL, PROMPTS_OF_A_FILE, LAYERS, WIDTH = 100, 16, 50, 8
_KEYS = {"site": "resid_post", "pooling": "last5_mean", "template": "raw", "model_id": "id-m0"}


def measure(counts: Sequence[int] | None = None) -> list[Figure]:
    """Seconds at each number of files; the goal is that of opening 100,000."""
    counts = counts or [int(n) for n in os.environ.get("AXES_BENCH_FILES", "1000,10000").split(",")]
    figures = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            figures += _at(Path(folder) / "lake", count)
    with tempfile.TemporaryDirectory() as folder:
        remote = object_store.figures(
            Path(folder), file_count=min(1000, max(counts)), named_count=max(counts)
        )
        return [*figures, *remote, *on_ray.figures()]


def _at(root: Path, count: int) -> list[Figure]:
    models = max(count // FILES_OF_A_MODEL, 1)
    files = min(count, FILES_OF_A_MODEL)
    init_root(root)
    write_prompts(root, files * PROMPTS_OF_A_FILE)
    for model in range(models):
        write_model(root, f"m{model}", WIDTH, LAYERS)
    layers, rows = list(range(LAYERS)), files * PROMPTS_OF_A_FILE
    write_activations(root, "m0", layers, rows, WIDTH, chunk=PROMPTS_OF_A_FILE)
    link_models(root, "m0", models)

    def one_layer() -> None:
        batches = layer_batches(connect(root), "m0", _KEYS, LAYERS // 2)
        assert sum(len(names) for names, _ in batches) == rows

    write_projections(root)
    sql = "select count(*) as n from v_auroc"
    timed = {
        "the first opening, which indexes them": partial(connect, root),
        "an opening": partial(connect, root),
        "an opening and one layer of one model": one_layer,
        "an opening and all keys": lambda: query(connect(root), "from v_coverage"),
        f"an opening and AUROC over {AXES:,} axes": lambda: query(connect(root), sql),
    }
    figures = [
        Figure(f"{count:,} files: seconds of {name}", seconds(call), goal, "lower")
        for (name, call), goal in zip(timed.items(), (None, 2.0, None, None, None), strict=True)
    ]
    size = sum(path.stat().st_size for path in (root / INDEX).rglob("*.parquet"))
    return [
        *figures,
        Figure(f"{count:,} files: bytes of index a file", size / count, None, "lower"),
    ]


def write_projections(root: Path) -> None:
    """The axes, and the projections of some labelled prompts on each, in one file."""
    names = [f"axis{number}" for number in range(AXES)]
    rows = [full("axes", {"axis_id": name, "space_model": "m0", "layer": 0}) for name in names]
    write_rows(root, "axes", rows_table("axes", rows), name="axes")
    prompts = query(connect_tables(root, "prompts"), "select prompt_id from prompts order by all")
    prompts = prompts.slice(0, SCORED)["prompt_id"].to_pylist()
    scores = np.random.default_rng(1).standard_normal(AXES * len(prompts))
    table = rows_table(
        "projections",
        [],
        axis_id=pa.array(np.repeat(names, len(prompts))),
        prompt_id=pa.array(prompts * AXES),
        model_id="id-m0",
        layer=pa.array(np.zeros(len(scores), np.int16)),
        alignment_id=None,
        projection=pa.array(scores),
        run_id="bench",
    )
    write_rows(root, "projections", table, name="projections", partition="m0")
