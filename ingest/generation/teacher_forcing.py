"""Read texts that are given, prompt and completion, in one teacher-forced pass.

The token ids are the prompt's as rendered, with the completion's behind them: the boundary is where
the two lists meet. Nothing is tokenised across it, so that no token can swallow it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from axes.ingest.forward.batching import HostCopy, pad, plan_batches, positions, to_device
from axes.ingest.forward.recording import Point, block_points, record, takes_argument
from axes.ingest.forward.templates import pad_id
from axes.ingest.generation.token_statistics import (
    Distributions,
    Kept,
    Projector,
    Trace,
    require_finite,
)
from axes.ingest.models.load import LoadedModel

# Logits of a batch, at most: 256 MB of float32.
_MOST_LOGITS = 64 << 20


@dataclass(frozen=True)
class Given:
    """A prompt's tokens and a completion's; either may be what is read."""

    prompt_id: str
    prompt: Sequence[int]
    completion: Sequence[int] = ()

    @property
    def token_ids(self) -> list[int]:
        return [*self.prompt, *self.completion]


def batches(loaded: LoadedModel, texts: Sequence[Given], token_budget: int) -> list[list[int]]:
    """Indices of texts to read together: longest first, and few enough for their logits."""
    vocabulary = loaded.model.config.get_text_config().vocab_size
    budget = min(token_budget, max(_MOST_LOGITS // vocabulary, 1))
    return plan_batches([len(text.token_ids) for text in texts], budget)


def score(
    loaded: LoadedModel, texts: Sequence[Given], kept: Kept, *, reads_prompt: bool = False
) -> list[Trace]:
    """The completions' tokens, with `reads_prompt` the prompts' before them, in one pass.

    Raises `NonFiniteError` for NaN or infinity, and `torch.OutOfMemoryError` for too large a batch.
    """
    model: Any = loaded.model
    tokens, mask = pad([text.token_ids for text in texts], pad_id(loaded.tokenizer))
    starts = [0 if reads_prompt else len(text.prompt) for text in texts]
    spans = [(start, len(text.token_ids)) for start, text in zip(starts, texts, strict=True)]
    wanted = torch.zeros_like(mask)
    for row, (start, end) in enumerate(spans):
        wanted[row, start:end] = True
    wanted = to_device(wanted, loaded.device)
    projector = Projector(kept.readouts, loaded.device)
    hidden_rows: dict[int, Tensor] = {}
    projected: dict[tuple, Tensor] = {}

    def receive(point: Point, hidden: Tensor) -> None:
        rows = hidden[wanted.to(hidden.device)]
        if point.layer in kept.layers:
            hidden_rows[point.layer] = rows.float()
        if point.layer in projector.keys:
            values = projector.project(point.layer, rows)
            projected.update(zip(projector.keys[point.layer], values.unbind(-1), strict=True))

    # The distribution of a token is at the position before it.
    first = max(min(starts) - 1, 0)
    with record(block_points(loaded.blocks, kept.recorded_layers), receive), torch.inference_mode():
        logits = model(**_inputs(loaded, tokens, mask, first)).logits
        offset = tokens.shape[1] - logits.shape[1]
        figures = [
            _figures(logits[row, max(start - 1, 0) - offset : end - 1 - offset], text, start, kept)
            for row, ((start, end), text) in enumerate(zip(spans, texts, strict=True))
        ]
    vectors, projections = HostCopy(hidden_rows).result(), HostCopy(projected).result()
    return list(_traces(loaded, texts, spans, figures, vectors, projections))


def _inputs(loaded: LoadedModel, tokens: Tensor, mask: Tensor, first: int) -> dict[str, Any]:
    """The arguments of a pass over the whole texts; logits from position `first` on."""
    model, device = loaded.model, loaded.device
    inputs: dict[str, Any] = {"input_ids": to_device(tokens, device), "use_cache": False}
    if not mask.all():
        inputs["attention_mask"] = to_device(mask.long(), device)
        if takes_argument(model, "position_ids"):
            inputs["position_ids"] = to_device(positions(mask), device)
    if takes_argument(model, "logits_to_keep"):
        inputs["logits_to_keep"] = tokens.shape[1] - first
    return inputs


def _figures(logits: Tensor, text: Given, start: int, kept: Kept) -> dict[str, np.ndarray]:
    """Log-probability and entropy of each token read; NaN for one with nothing before it."""
    ids = torch.tensor(text.token_ids[max(start, 1) :], device=logits.device)
    read = Distributions(logits.float(), kept.top_count)
    figures: dict[str, Tensor] = {"logprob": read.logprobs(ids), "entropy": read.entropies}
    if read.top_ids is not None and read.top_logprobs is not None:
        figures |= {"top_ids": read.top_ids, "top_logprobs": read.top_logprobs}
    arrays = {name: values.cpu().numpy() for name, values in figures.items()}
    if start > 0:
        return arrays
    return {
        name: np.concatenate(
            [np.full_like(values[:1], np.nan if values.dtype.kind == "f" else -1), values]
        )
        for name, values in arrays.items()
    }


def _traces(
    loaded: LoadedModel,
    texts: Sequence[Given],
    spans: Sequence[tuple[int, int]],
    figures: Sequence[dict[str, np.ndarray]],
    vectors: dict[int, np.ndarray],
    projections: dict[tuple, np.ndarray],
) -> Iterator[Trace]:
    place = 0
    for text, (start, end), of_row in zip(texts, spans, figures, strict=True):
        rows = slice(place, place + end - start)
        place = rows.stop
        trace = Trace(
            prompt_id=text.prompt_id,
            token_ids=text.token_ids[start:end],
            logprobs=of_row["logprob"].tolist(),
            entropies=of_row["entropy"].tolist(),
            vectors={layer: values[rows] for layer, values in vectors.items()},
            projections={key: values[rows] for key, values in projections.items()},
            top_ids=of_row.get("top_ids"),
            top_logprobs=of_row.get("top_logprobs"),
            finish_reason="given",
            first_step=start - len(text.prompt),
        )
        require_finite(loaded, trace)
        yield trace
