"""The job: let a model answer prompts and store every token, with the blocks' output at it.

A token's vector is the block output at the token's own position, as in a pass over the finished
text; the last token has one too, from one more step at the end.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ingest.batching import pad, positions
from ingest.jobs import IngestSummary, open_job, stops_between_batches
from ingest.models import LoadedModel, ModelSpec, require_layers
from ingest.prompts import read_prompts
from ingest.recording import Point, block_points, record
from ingest.templates import Template, pad_id
from warehouse.connection import connect, rows
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

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: temperature 0 is greedy, top_p 1 keeps the whole distribution."""

    max_new_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass
class _Trace:
    """One completion: token ids, and per token log-probability, entropy and vectors by layer."""

    prompt_id: str
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    vectors: dict[int, np.ndarray] = field(default_factory=dict)
    is_stopped: bool = False


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
                    traces = _generate(loaded, batch, layers, sampling)
                    _write_batch(root, run, loaded, traces, key, policy.name, sampling)
                    advance(len(batch))
                    check_interrupt()
    return job.summary(run, len(prompts), len(usable))


def _generations_there(root: Path, model: str) -> set[str]:
    found = rows(connect(root), "select generation_id from generations where model = ?", [model])
    return {row["generation_id"] for row in found}


def _generate(
    loaded: LoadedModel, encoded: dict[str, list[int]], layers: list[int], sampling: Sampling
) -> list[_Trace]:
    """Generate one batch with transformers' own `generate`, recording on the way."""
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    model: Any = loaded.model
    tokenizer = loaded.tokenizer
    tokens, mask = pad(list(encoded.values()), pad_id(tokenizer), side="left")
    end_ids = _end_ids(loaded)
    # The checkpoint's own sampling defaults (a repetition penalty, a top_k) must not slip in.
    model.generation_config = GenerationConfig(eos_token_id=end_ids, pad_token_id=pad_id(tokenizer))
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=sampling.temperature > 0,
        eos_token_id=end_ids,
        pad_token_id=pad_id(tokenizer),
        return_dict_in_generate=True,
        **_warping(sampling),
    )
    recorder = _StepRecorder(layers)
    torch.manual_seed(int(content_key(sampling.seed, list(encoded)), 16) % 2**63)
    points = block_points(loaded.blocks, layers)
    with record(points, recorder.receive), torch.inference_mode():
        result = model.generate(
            tokens.to(loaded.device),
            attention_mask=mask.long().to(loaded.device),
            generation_config=config,
            logits_processor=LogitsProcessorList([recorder]),
        )
        sequences = result.sequences
        recorder.choose(sequences[:, -1])
        _step_over_last(model, sequences, mask, result.past_key_values)
    return recorder.traces(list(encoded), sequences[:, tokens.shape[1] :].cpu(), set(end_ids))


def _warping(sampling: Sampling) -> dict[str, float]:
    if sampling.temperature == 0:
        return {}
    return {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}


def _step_over_last(
    model: Any, sequences: torch.Tensor, prompt_mask: torch.Tensor, cache: Any
) -> None:
    """Feed the last generated tokens, which `generate` chose but never ran, for their vectors."""
    import torch

    steps = sequences.shape[1] - prompt_mask.shape[1]
    mask = torch.cat([prompt_mask, prompt_mask.new_ones(len(prompt_mask), steps)], dim=1)
    inputs = {
        "attention_mask": mask.long().to(sequences.device),
        "position_ids": positions(mask)[:, -1:].to(sequences.device),
        "past_key_values": cache,
    }
    if "cache_params" in inspect.signature(model.base_model.forward).parameters:
        inputs = {"cache_params": cache}  # A state-space model's state holds all that went before.
    model.base_model(input_ids=sequences[:, -1:], use_cache=True, **inputs)


class _StepRecorder:
    """A logits processor that reads and changes nothing, and the receiver of the block outputs.

    `generate` calls it with the logits before sampling changes them, once per step; the tokens it
    then chose are the last column of the next call.
    """

    def __init__(self, layers: list[int]) -> None:
        self.layers = layers
        self.vectors: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
        self.logprobs: list[torch.Tensor] = []
        self.entropies: list[torch.Tensor] = []
        self._pending: torch.Tensor | None = None

    def receive(self, point: Point, hidden: torch.Tensor) -> None:
        self.vectors[point.layer].append(hidden[:, -1].float().cpu())

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._pending is not None:
            self.choose(input_ids[:, -1])
        log_probabilities = scores.float().log_softmax(-1)
        self.entropies.append(-(log_probabilities.exp() * log_probabilities).sum(-1).cpu())
        self._pending = log_probabilities
        return scores

    def choose(self, token_ids: torch.Tensor) -> None:
        assert self._pending is not None
        self.logprobs.append(self._pending.gather(1, token_ids[:, None]).squeeze(1).cpu())

    def traces(
        self, prompt_ids: list[str], sequences: torch.Tensor, end_ids: set[int]
    ) -> list[_Trace]:
        """Cut each row at its end token; `vectors[layer][0]` is the prompt's last position."""
        import torch

        logprobs, entropies = torch.stack(self.logprobs, 1), torch.stack(self.entropies, 1)
        vectors = {layer: torch.stack(steps[1:], 1) for layer, steps in self.vectors.items()}
        traces = []
        for row, prompt_id in enumerate(prompt_ids):
            ids = sequences[row].tolist()
            stops = [step for step, token in enumerate(ids) if token in end_ids]
            count = stops[0] + 1 if stops else len(ids)
            traces.append(
                _Trace(
                    prompt_id=prompt_id,
                    token_ids=ids[:count],
                    logprobs=logprobs[row, :count].tolist(),
                    entropies=entropies[row, :count].tolist(),
                    vectors={name: value[row, :count].numpy() for name, value in vectors.items()},
                    is_stopped=bool(stops),
                )
            )
        return traces


def _end_ids(loaded: LoadedModel) -> list[int]:
    """The token ids that end a completion: the checkpoint's, and the tokenizer's own."""
    configured = loaded.model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    ids = [*ids, loaded.tokenizer.eos_token_id]
    return sorted({token for token in ids if token is not None})


def _write_batch(
    root: Path,
    run: Run,
    loaded: LoadedModel,
    traces: list[_Trace],
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
    trace: _Trace, generation_id: str, layers: list[int], loaded: LoadedModel, run: Run
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
