"""A warehouse of many files: opening it, listing its keys, and reading one layer of one model.

The layout is the real one, a file for each chunk with a row group for each layer, 100 files for
each model, with small vectors: what a query pays for each file is the same. Files of the second
model on are hard links. `AXES_BENCH_FILES` (default 1000,10000) says how many.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from axes.warehouse.connection import connect, query
from axes.warehouse.layers import layer_batches
from axes.warehouse.layout import init_root
from axes.warehouse.tables.index import INDEX
from benchmarks.run import Figure
from benchmarks.warehouse import link_models, seconds, write_activations, write_prompts
from tests.worlds import write_model

FILES_OF_A_MODEL, PROMPTS_OF_A_FILE, LAYERS, WIDTH = 100, 16, 50, 8
_KEYS = {"site": "resid_post", "pooling": "last5_mean", "template": "raw", "model_id": "id-m0"}


def measure(counts: Sequence[int] | None = None) -> list[Figure]:
    """Seconds at each number of files; the goal is that of opening 100,000."""
    counts = counts or [int(n) for n in os.environ.get("AXES_BENCH_FILES", "1000,10000").split(",")]
    figures = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            figures += _at(Path(folder) / "lake", count)
    return figures


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

    timed = {
        "the first opening, which indexes them": partial(connect, root),
        "an opening": partial(connect, root),
        "an opening and one layer of one model": one_layer,
        "an opening and all keys": lambda: query(connect(root), "from v_coverage"),
    }
    figures = [
        Figure(f"{count:,} files: seconds of {name}", seconds(call), goal, "lower")
        for (name, call), goal in zip(timed.items(), (None, 2.0, None, None), strict=True)
    ]
    size = sum(path.stat().st_size for path in (root / INDEX).rglob("*.parquet"))
    return [
        *figures,
        Figure(f"{count:,} files: bytes of index a file", size / count, None, "lower"),
    ]
