"""Projections on an axis instead of the vectors of every layer: seconds, and bytes of a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from axes.warehouse.storage.layout import partition_folder
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import rows_table, vector_array, write_rows
from benchmarks.ingest.workload import Workload, workload
from benchmarks.run import Figure, alternate, median_figure, ratios

MODEL = "smollm2-135m"
PROMPT_COUNT = 500
ROUNDS = 5


def measure() -> Iterator[Figure]:
    """The job for one axis over the job for the vectors of every layer, and what both store."""
    conditions = f"{MODEL}, {PROMPT_COUNT} prompts"
    with workload(MODEL, PROMPT_COUNT) as work:
        last = work.loaded.layer_count - 1
        layers = {"middle": last // 2, "last": last}
        for name, layer in layers.items():
            put_axis(work, name, layer)
        work.warm_up()
        jobs = [partial(work.job_seconds, axes=[name]) for name in layers]
        every, *projected = alternate(ROUNDS, work.job_seconds, *jobs)
        for name, each in zip(layers, projected, strict=True):
            title = f"projections on an axis of the {name} block / vectors of every layer"
            yield median_figure(title, ratios(each, every), None, "lower", conditions)
        for table, options in (("activations", {}), ("projections", {"axes": ["last"]})):
            size = bytes_of_prompt(work, table, **options)
            title = f"bytes of a prompt in {table}"
            yield Figure(title, size, None, "lower", conditions=conditions)


def put_axis(work: Workload, name: str, layer: int) -> None:
    """A random axis of the model's own space."""
    vector = np.random.default_rng(layer).standard_normal((1, work.loaded.d_model))
    row = {
        "axis_id": name,
        "name": name,
        "kind": "random",
        "method": "random",
        "space_model": work.name,
        "space_model_id": work.loaded.identity.model_id,
        "layer": layer,
        "site": "resid_post",
        "pooling": "last5_mean",
        "template": "raw",
        "raw_norm": 1.0,
        "source_axis_ids": [],
        "prompt_set": "none",
        "positive_count": 0,
        "negative_count": 0,
        "row_set_hash": "none",
        "query": "none",
        "parameters": "{}",
        "run_id": "benchmark",
    }
    table = rows_table("axes", [row], vector=vector_array(vector / np.linalg.norm(vector)))
    write_rows(work.lake, "axes", table, name=name)


def bytes_of_prompt(work: Workload, table: str, **options: list[str]) -> float:
    """Bytes that the job's files of a table have for each prompt."""
    with work.fresh_root() as root:
        work.run_job(root, **options)
        files = partition_folder(root, TABLES[table], work.name).glob("*.parquet")
        return sum(path.stat().st_size for path in files) / len(work.texts())
