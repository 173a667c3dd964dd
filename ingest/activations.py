"""The job: prompts through a model, one pooled vector per prompt and layer into the warehouse.

Resumable by row: what is there under the same key (model version, prompt, layer, site, pooling,
template) is not computed again, and weights are not even loaded when nothing is missing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from ingest.batching import DEFAULT_TOKEN_BUDGET, pad, plan_batches
from ingest.jobs import IngestSummary, open_job
from ingest.models import LoadedModel, ModelSpec, require_layers
from ingest.pooling import POOLINGS, Pooling
from ingest.prompts import Prompt, read_prompts
from ingest.recording import SITE, record_blocks, run_backbone
from ingest.templates import pad_id
from warehouse.connection import connect, rows
from warehouse.errors import ModelError, NonFiniteError
from warehouse.progress import Advance, track
from warehouse.runs import Run, record_run
from warehouse.writer import content_key, rows_table, vector_array, write_rows

_FLUSH_BYTES = 64 << 20
_FLUSH_SECONDS = 20.0


def ingest_activations(
    root: Path,
    spec: ModelSpec,
    prompt_sets: Mapping[str, int | None],
    *,
    layers: Sequence[int] | None = None,
    pooling: str = "last5_mean",
    template: str = "raw",
    device: str | None = None,
    dtype: str | None = None,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    skip_unusable: bool = False,
) -> IngestSummary:
    """Write the pooled output of every block (or of `layers`) for the prompts of some sets.

    `prompt_sets` says how many of each set's first prompts, None for all. `skip_unusable` leaves
    out, and records in the run row, prompts that give no tokens or exceed the context. Raises
    `PromptError`, `ModelError`, `LayerError` or `NonFiniteError`; rows committed before an error
    stay.
    """
    prompts = read_prompts(root, prompt_sets)
    job = open_job(root, spec, device, dtype)
    parameters = {
        "model": spec.name,
        "model_id": job.identity.model_id,
        "prompt_sets": dict(prompt_sets),
        "layers": layers,
        "pooling": pooling,
        "template": template,
        "token_budget": token_budget,
    }
    with (
        job.lock(),
        record_run(root, "ingest activations", parameters, device=job.device) as run,
    ):
        key = _Key(spec.name, job.identity.model_id, POOLINGS[pooling], template)
        layer_count = job.layer_count()
        require_layers(spec.name, layer_count, layers or [])
        wanted = list(range(layer_count)) if layers is None else sorted(set(layers))
        missing = _missing_layers(root, key, prompts, wanted)
        texts = {prompt.prompt_id: prompt.text for prompt in prompts if prompt.prompt_id in missing}
        usable = {}
        if missing:
            usable = job.encode_usable(run, texts, template, skip_unusable=skip_unusable)
        if usable:
            _run_groups(root, run, job.load(run), key, usable, missing, token_budget)
    return job.summary(run, len(prompts), len(usable))


@dataclass(frozen=True)
class _Key:
    model: str
    model_id: str
    pooling: Pooling
    template: str


def _missing_layers(
    root: Path, key: _Key, prompts: Sequence[Prompt], wanted: list[int]
) -> dict[str, tuple[int, ...]]:
    """Prompt id -> the wanted layers that are not stored yet; complete prompts are left out."""
    found = rows(
        connect(root),
        """
        select prompt_id, list(distinct layer) as layers
        from activations
        where model = ? and model_id = ? and site = ? and pooling = ? and template = ?
        group by prompt_id
        """,
        [key.model, key.model_id, SITE, key.pooling.name, key.template],
    )
    there = {row["prompt_id"]: set(row["layers"]) for row in found}
    missing = {}
    for prompt in prompts:
        layers = tuple(sorted(set(wanted) - there.get(prompt.prompt_id, set())))
        if layers:
            missing[prompt.prompt_id] = layers
    return missing


def _run_groups(
    root: Path,
    run: Run,
    loaded: LoadedModel,
    key: _Key,
    encoded: dict[str, list[int]],
    missing: dict[str, tuple[int, ...]],
    token_budget: int,
) -> None:
    """Run prompts that lack the same layers together; usually that is one group."""
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for prompt_id in encoded:
        groups[missing[prompt_id]].append(prompt_id)
    total = sum(len(tokens) for tokens in encoded.values())
    with track(f"ingest {key.model}", total, "tok") as advance:
        for layers, prompt_ids in groups.items():
            with _ChunkWriter(root, run, loaded, key, layers) as writer:
                _run_group(run, loaded, writer, encoded, prompt_ids, token_budget, advance)


def _run_group(
    run: Run,
    loaded: LoadedModel,
    writer: _ChunkWriter,
    encoded: dict[str, list[int]],
    prompt_ids: list[str],
    token_budget: int,
    advance: Advance,
) -> None:
    """Run prompts in batches; where one does not fit the memory, go on with half the budget."""
    import torch

    left = prompt_ids
    while left:
        batches = plan_batches([len(encoded[name]) for name in left], token_budget)
        named = [[left[index] for index in batch] for batch in batches]
        try:
            while named:
                token_ids = [encoded[name] for name in named[0]]
                pooled = _pooled_outputs(loaded, token_ids, writer.layers, writer.key.pooling)
                names = named.pop(0)
                _require_finite(loaded, names, writer.layers, pooled)
                writer.add(names, token_ids, pooled)
                done = sum(len(row) for row in token_ids)
                run.tokens += done
                advance(done)
        except torch.OutOfMemoryError as error:
            longest = len(encoded[named[0][0]])
            if len(named[0]) == 1:
                raise ModelError(
                    f"a prompt of {longest} tokens does not fit the memory of {loaded.device} "
                    f"beside {loaded.spec.name}: try --dtype bfloat16 or --device auto"
                ) from error
            token_budget = max(token_budget // 2, longest)
            run.messages.append(f"out of memory: token budget halved to {token_budget}")
        left = [name for batch in named for name in batch]


def _pooled_outputs(
    loaded: LoadedModel, token_ids: list[list[int]], layers: Sequence[int], pooling: Pooling
) -> np.ndarray:
    """The pooled block outputs of one batch, float32 `[layer, prompt, d_model]`."""
    import torch

    tokens, mask = pad(token_ids, pad_id(loaded.tokenizer))
    outputs: dict[int, torch.Tensor] = {}

    def receive(layer: int, hidden: torch.Tensor) -> None:
        outputs[layer] = pooling.pool(hidden, mask.to(hidden.device))

    with record_blocks(loaded.blocks, layers, receive, leaves_early=True):
        run_backbone(loaded.model, tokens, mask)
    # One copy to the host per batch; with several devices each layer comes from its own.
    return torch.stack([outputs[layer].cpu() for layer in layers]).numpy()


def _require_finite(
    loaded: LoadedModel, names: list[str], layers: Sequence[int], pooled: np.ndarray
) -> None:
    bad = np.argwhere(~np.isfinite(pooled).all(axis=2))
    if len(bad):
        layer, row = bad[0]
        raise NonFiniteError(
            f"{loaded.spec.name} gives NaN or infinity at layer {layers[layer]} for prompt "
            f"{names[row]} in {loaded.identity.dtype}: try --dtype float32 or bfloat16"
        )


class _ChunkWriter:
    """Collects batches and commits them as one file, one row group per layer, every so often."""

    def __init__(
        self, root: Path, run: Run, loaded: LoadedModel, key: _Key, layers: tuple[int, ...]
    ) -> None:
        self.root, self.run, self.loaded, self.key, self.layers = root, run, loaded, key, layers
        self._clear()

    def __enter__(self) -> _ChunkWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # An interrupted job keeps what it has done; after an error the batch in hand is suspect.
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.flush()

    def add(self, names: list[str], token_ids: list[list[int]], pooled: np.ndarray) -> None:
        self.names += names
        self.token_ids += token_ids
        self.pooled.append(pooled)
        self.bytes += pooled.nbytes
        if self.bytes >= _FLUSH_BYTES or time.monotonic() - self.since >= _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        if not self.names:
            return
        key = self.key
        name = content_key(
            key.model_id, SITE, key.pooling.name, key.template, self.layers, self.names
        )
        matrix = np.concatenate(self.pooled, axis=1)
        described = [self._describe(*row) for row in zip(self.names, self.token_ids, strict=True)]
        groups = (
            self._row_group(layer, described, matrix[index])
            for index, layer in enumerate(self.layers)
        )
        write_rows(self.root, "activations", groups, name=name, partition=key.model)
        self.run.rows += len(self.names) * len(self.layers)
        self._clear()

    def _describe(self, name: str, token_ids: list[int]) -> dict[str, object]:
        start, end = self.key.pooling.span(len(token_ids))
        return {
            "model_id": self.key.model_id,
            "prompt_id": name,
            "site": SITE,
            "pooling": self.key.pooling.name,
            "template": self.key.template,
            "token_count": len(token_ids),
            "pooled_start": start,
            "pooled_end": end,
            "pooled_tokens": self.loaded.tokenizer.convert_ids_to_tokens(token_ids[start:end]),
            "run_id": self.run.run_id,
        }

    def _row_group(
        self, layer: int, described: list[dict[str, object]], vectors: np.ndarray
    ) -> pa.Table:
        norms = np.linalg.norm(vectors, axis=1)
        return rows_table(
            "activations",
            described,
            layer=pa.array(np.full(len(described), layer, dtype=np.int16)),
            vector=vector_array(vectors),
            norm=pa.array(norms.astype(np.float32)),
        )

    def _clear(self) -> None:
        self.names: list[str] = []
        self.token_ids: list[list[int]] = []
        self.pooled: list[np.ndarray] = []
        self.bytes = 0
        self.since = time.monotonic()
