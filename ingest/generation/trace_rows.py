"""Traces as rows: tokens and projections first, then the completions that make them count.

A completion without its row in `generations` is not there for any reader, so that a job may be
killed between the files.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from axes.ingest.generation.token_statistics import Kept, Trace
from axes.ingest.models.load import LoadedModel
from axes.warehouse.connection import connect_tables, rows
from axes.warehouse.locks import committing
from axes.warehouse.runs import Run
from axes.warehouse.sites import RESID_POST
from axes.warehouse.tables.columns import TOP_TOKENS, VECTOR
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import (
    WRITTEN_BEFORE_GENERATIONS,
    content_key,
    remove_uncommitted,
    rows_table,
    vector_array,
    write_rows,
)


def generations_there(root: Path, model: str) -> set[str]:
    """The ids of a model's completions; what a killed job left of others is removed."""
    # Under the lock, since a job on another version of the model may be between its files.
    with committing(root, model):
        for table in WRITTEN_BEFORE_GENERATIONS:
            remove_uncommitted(root, table, "generations", model)
    found = rows(
        connect_tables(root, "generations"),
        "select generation_id from generations where model = ?",
        [model],
    )
    return {row["generation_id"] for row in found}


def write_traces(
    root: Path,
    run: Run,
    loaded: LoadedModel,
    kept: Kept,
    traces: Mapping[str, Trace],
    described: Mapping[str, dict[str, Any]],
) -> None:
    """Commit completions (generation_id -> trace), as files of one name in each table.

    `described` are the columns of `generations` that a trace does not tell, by generation_id.
    """
    model = loaded.spec.name
    name = content_key(sorted(traces))
    decode = cache(lambda token_id: str(loaded.tokenizer.decode([token_id])))
    tokens = [
        _token_rows(key, trace, layer, kept, decode, run)
        for key, trace in traces.items()
        for layer in kept.recorded_layers
    ]
    projections = [
        _projection_rows(key, trace, probe_key, run)
        for key, trace in traces.items()
        for probe_key in trace.projections
    ]
    generations = [
        _generation_row(key, trace, loaded) | {"run_id": run.run_id} | described[key]
        for key, trace in traces.items()
    ]
    with committing(root, model):
        _write(root, "generation_tokens", tokens, name, model)
        _write(root, "token_projections", projections, name, model)
        _write(root, "generations", [rows_table("generations", generations)], name, model)
    run.tokens += sum(len(trace.token_ids) for trace in traces.values())
    run.rows += sum(len(table) for table in itertools.chain(tokens, projections))


def _write(root: Path, table: str, groups: list[pa.Table], name: str, model: str) -> None:
    if groups:
        write_rows(root, table, [pa.concat_tables(groups)], name=name, partition=model)


def _generation_row(generation_id: str, trace: Trace, loaded: LoadedModel) -> dict[str, Any]:
    completion = trace.token_ids[-trace.first_step :]
    return {
        "generation_id": generation_id,
        "model_id": loaded.identity.model_id,
        "prompt_id": trace.prompt_id,
        "text": loaded.tokenizer.decode(completion, skip_special_tokens=True),
        "token_count": len(completion),
        "finish_reason": trace.finish_reason,
    }


def _token_rows(
    generation_id: str,
    trace: Trace,
    layer: int,
    kept: Kept,
    decode: Callable[[int], str],
    run: Run,
) -> pa.Table:
    count = len(trace.token_ids)
    same = {
        "generation_id": generation_id,
        "layer": layer,
        "site": RESID_POST,
        "run_id": run.run_id,
    }
    vectors = pa.nulls(count, VECTOR)
    if layer in kept.layers:
        vectors = vector_array(trace.vectors[layer])
    return rows_table(
        "generation_tokens",
        [],
        **_repeated("generation_tokens", same, count),
        step=_steps(trace),
        token_id=trace.token_ids,
        token=[decode(token_id) for token_id in trace.token_ids],
        logprob=_known(trace.logprobs),
        entropy=_known(trace.entropies),
        top_tokens=_top_tokens(trace),
        vector=vectors,
    )


def _projection_rows(
    generation_id: str, trace: Trace, probe_key: tuple[str, int, str | None], run: Run
) -> pa.Table:
    axis_id, layer, alignment_id = probe_key
    same = {
        "axis_id": axis_id,
        "generation_id": generation_id,
        "layer": layer,
        "alignment_id": alignment_id,
        "run_id": run.run_id,
    }
    return rows_table(
        "token_projections",
        [],
        **_repeated("token_projections", same, len(trace.token_ids)),
        step=_steps(trace),
        projection=pa.array(trace.projections[probe_key], pa.float64()),
    )


def _repeated(table: str, same: dict[str, Any], count: int) -> dict[str, pa.Array]:
    schema = TABLES[table].file_schema
    return {
        name: pa.repeat(pa.scalar(value, schema.field(name).type), count)
        for name, value in same.items()
    }


def _steps(trace: Trace) -> pa.Array:
    return pa.array(range(trace.first_step, trace.first_step + len(trace.token_ids)), pa.int32())


def _known(values: Sequence[float]) -> pa.Array:
    """Null where there is no distribution: at the first token of a prompt."""
    return pa.array(np.asarray(values, dtype=np.float32), from_pandas=True)


def _top_tokens(trace: Trace) -> pa.Array:
    if trace.top_ids is None or trace.top_logprobs is None:
        return pa.nulls(len(trace.token_ids), TOP_TOKENS)
    width = trace.top_ids.shape[1]
    tokens = pa.StructArray.from_arrays(
        [
            pa.array(trace.top_ids.reshape(-1).astype(np.int32)),
            pa.array(trace.top_logprobs.reshape(-1).astype(np.float32)),
        ],
        fields=list(TOP_TOKENS.value_type),
    )
    offsets = pa.array(np.arange(len(trace.top_ids) + 1) * width, pa.int32())
    unknown = pa.array(trace.top_ids[:, 0] < 0)
    return pa.ListArray.from_arrays(offsets, tokens, type=TOP_TOKENS, mask=unknown)
