"""Teacher-force texts, prompt and completion, in one pass.

The token ids are the prompt's as rendered, with the completion's behind them: the boundary is where
the two lists meet. Nothing is tokenised across it, so that no token can span it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from axes.ingest.forward.batching import HostCopy, pad, to_device
from axes.ingest.forward.recording import Point, block_points, last_logits, record
from axes.ingest.forward.templates import pad_id
from axes.ingest.generation.token_statistics import (
    Kept,
    Projector,
    Trace,
    require_finite,
    token_statistics,
)
from axes.ingest.models.load import LoadedModel

# Logits of a batch, at most: 256 MB of float32.
_MAX_LOGITS = 64 << 20


@dataclass(frozen=True)
class Text:
    """A prompt's tokens and a completion's; the statistics of either may be kept."""

    prompt_id: str
    prompt: Sequence[int]
    completion: Sequence[int] = ()

    @property
    def token_ids(self) -> list[int]:
        return [*self.prompt, *self.completion]


def logits_budget(vocabulary: int, token_budget: int) -> int:
    """The tokens of a batch whose logits are kept: `token_budget`, or fewer for a vocabulary."""
    return min(token_budget, max(_MAX_LOGITS // vocabulary, 1))


def score(
    loaded: LoadedModel, texts: Sequence[Text], kept: Kept, *, reads_prompt: bool = False
) -> list[Trace]:
    """The completions' tokens, with `reads_prompt` the prompts' before them, in one pass.

    Raises `NonFiniteError` for NaN or infinity, and `torch.OutOfMemoryError` for too large a batch.
    """
    tokens, mask = pad([text.token_ids for text in texts], pad_id(loaded.tokenizer))
    starts = [0 if reads_prompt else len(text.prompt) for text in texts]
    spans = [(start, len(text.token_ids)) for start, text in zip(starts, texts, strict=True)]
    # [text, position]: the tokens whose statistics are kept.
    is_kept = torch.zeros_like(mask)
    for row, (start, end) in enumerate(spans):
        is_kept[row, start:end] = True
    is_kept = to_device(is_kept, loaded.device)
    projector = Projector(kept.readouts, loaded.device)
    hidden_rows: dict[int, Tensor] = {}
    projected: dict[tuple, Tensor] = {}

    def receive(point: Point, hidden: Tensor) -> None:
        rows = hidden[is_kept.to(hidden.device)]
        if point.layer in kept.layers:
            hidden_rows[point.layer] = rows.float()
        if point.layer in projector.keys:
            values = projector.project(point.layer, rows)
            projected.update(zip(projector.keys[point.layer], values.unbind(-1), strict=True))

    # The distribution of a token is at the position before it.
    first = max(min(starts) - 1, 0)
    with record(block_points(loaded.blocks, kept.recorded_layers), receive), torch.inference_mode():
        logits = last_logits(loaded.model, tokens, mask, tokens.shape[1] - first)
        offset = tokens.shape[1] - logits.shape[1]
        statistics = [
            _statistics(
                logits[row, max(start - 1, 0) - offset : end - 1 - offset], text, start, kept
            )
            for row, ((start, end), text) in enumerate(zip(spans, texts, strict=True))
        ]
    vectors, projections = HostCopy(hidden_rows).result(), HostCopy(projected).result()
    return list(_traces(loaded, texts, spans, statistics, vectors, projections))


def _statistics(logits: Tensor, text: Text, start: int, kept: Kept) -> dict[str, np.ndarray]:
    """The statistics of each token read; NaN for one with nothing before it."""
    ids = torch.tensor(text.token_ids[max(start, 1) :], device=logits.device)
    found = token_statistics(logits.float(), ids, kept.top_count)
    arrays = {name: values.cpu().numpy() for name, values in found.items()}
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
    texts: Sequence[Text],
    spans: Sequence[tuple[int, int]],
    statistics: Sequence[dict[str, np.ndarray]],
    vectors: dict[int, np.ndarray],
    projections: dict[tuple, np.ndarray],
) -> Iterator[Trace]:
    place = 0
    for text, (start, end), values_of_text in zip(texts, spans, statistics, strict=True):
        # The kept tokens of all texts lie one after the other, [token, ...].
        rows = slice(place, place + end - start)
        place = rows.stop
        trace = Trace(
            prompt_id=text.prompt_id,
            token_ids=text.token_ids[start:end],
            statistics=values_of_text,
            vectors={layer: values[rows] for layer, values in vectors.items()},
            projections={key: values[rows] for key, values in projections.items()},
            finish_reason="given",
            first_step=start - len(text.prompt),
        )
        require_finite(loaded, trace)
        yield trace
