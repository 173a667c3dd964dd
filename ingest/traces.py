"""The job: let a model answer prompts and store every token, with the blocks' output at it.

A token's vector is the block output at the token's own position, as in a pass over the finished
text; the last token has one too, from one more step at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ingest.generation import Sampling, Trace, generate
from ingest.jobs import IngestSummary, open_job, stops_between_batches
from ingest.models import LoadedModel, require_layers
from ingest.prompts import read_prompts
from ingest.registry import ModelSpec
from ingest.templates import Template
from warehouse.connection import connect_tables, rows
from warehouse.locks import committing
from warehouse.progress import track
from warehouse.runs import Run, record_run
from warehouse.sites import RESID_POST
from warehouse.writer import (
    content_key,
    remove_uncommitted,
    rows_table,
    vector_array,
    write_rows,
)


def ingest_traces(
    root: Path,
    spec: ModelSpec,
    prompt_set: str,
    *,
    layers: Sequence[int] | None = None,
    layer_fraction: float = 0.8,
    template: str = "raw",
    system: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    skip_unusable: bool = False,
) -> IngestSummary:
    """Generate one completion per prompt of a set and store its tokens at `layers`.

    Without `layers` it is the one block `round(layer_fraction * (layer_count - 1))`. `system` is
    the system prompt of the chat template.
    Completions that are there are not generated again. A sampled batch has a seed of its own, from
    `seed` and its prompts, so that a resumed job draws the same tokens. Raises as
    `ingest_activations` does.
    """
    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    policy = Template(template, system)
    prompts = read_prompts(root, {prompt_set: limit})
    job = open_job(root, spec, device, dtype)
    layer_count = job.layer_count()
    if layers is None:
        layers = [round(layer_fraction * (layer_count - 1))]
    require_layers(spec.name, layer_count, layers)
    layers = sorted(set(layers))
    parameters = {
        **job.described(),
        "prompt_set": prompt_set,
        "layers": layers,
        "template": policy.name,
        "system": system,
        "limit": limit,
        "batch_size": batch_size,
        **vars(sampling),
    }
    with (
        job.lock(),
        record_run(root, "ingest traces", parameters, device=job.device, seed=seed) as run,
        stops_between_batches() as check_interrupt,
    ):
        key = (job.identity.model_id, policy.name, layers, vars(sampling))
        there = _generations_there(root, spec.name)
        texts = {
            prompt.prompt_id: prompt.text
            for prompt in prompts
            if content_key(*key, prompt.prompt_id) not in there
        }
        usable = {}
        if texts:
            # Under the lock, since a job on another version of the model may be between the two.
            with committing(root, spec.name):
                remove_uncommitted(root, "generation_tokens", "generations", spec.name)
            usable = job.render_usable(
                texts,
                policy,
                skipped=run.skipped,
                skip_unusable=skip_unusable,
                room=max_new_tokens,
            )
        is_lost = not texts and not job.is_registered()
        if usable or is_lost:
            loaded = job.load()
            job.register(loaded, run)
            names = list(usable)
            with track(f"traces {spec.name}", len(names), "prompts") as advance:
                for start in range(0, len(names), batch_size):
                    batch = {
                        name: usable[name].token_ids for name in names[start : start + batch_size]
                    }
                    traces = generate(loaded, batch, layers, sampling)
                    with committing(root, spec.name):
                        _write_batch(root, run, loaded, traces, key, policy.name, sampling)
                    advance(len(batch))
                    check_interrupt()
    return job.summary(run, len(prompts), len(usable))


def _generations_there(root: Path, model: str) -> set[str]:
    found = rows(
        connect_tables(root, "generations"),
        "select generation_id from generations where model = ?",
        [model],
    )
    return {row["generation_id"] for row in found}


def _write_batch(
    root: Path,
    run: Run,
    loaded: LoadedModel,
    traces: list[Trace],
    key: tuple[Any, ...],
    template: str,
    sampling: Sampling,
) -> None:
    """Tokens first: a completion without its row in `generations` is not there for any reader."""
    model, tokenizer = loaded.spec.name, loaded.tokenizer
    ids = {trace.prompt_id: content_key(*key, trace.prompt_id) for trace in traces}
    name = content_key(sorted(ids.values()))
    layers = list(traces[0].vectors)
    groups = [_token_rows(trace, ids[trace.prompt_id], layers, loaded, run) for trace in traces]
    write_rows(root, "generation_tokens", [pa.concat_tables(groups)], name=name, partition=model)
    generations = [
        {
            "generation_id": ids[trace.prompt_id],
            "model_id": loaded.identity.model_id,
            "prompt_id": trace.prompt_id,
            "template": template,
            "text": tokenizer.decode(trace.token_ids, skip_special_tokens=True),
            "token_count": len(trace.token_ids),
            "finish_reason": "stop" if trace.is_stopped else "length",
            **vars(sampling),
            "run_id": run.run_id,
        }
        for trace in traces
    ]
    write_rows(
        root, "generations", rows_table("generations", generations), name=name, partition=model
    )
    run.tokens += sum(len(trace.token_ids) for trace in traces)
    run.rows += sum(len(trace.token_ids) for trace in traces) * len(layers)


def _token_rows(
    trace: Trace, generation_id: str, layers: list[int], loaded: LoadedModel, run: Run
) -> pa.Table:
    described = [
        {
            "generation_id": generation_id,
            "step": step,
            "layer": layer,
            "site": RESID_POST,
            "token_id": token_id,
            "token": loaded.tokenizer.decode([token_id]),
            "logprob": trace.logprobs[step],
            "entropy": trace.entropies[step],
            "run_id": run.run_id,
        }
        for layer in layers
        for step, token_id in enumerate(trace.token_ids)
    ]
    matrix = np.concatenate([trace.vectors[layer] for layer in layers])
    return rows_table("generation_tokens", described, vector=vector_array(matrix))
