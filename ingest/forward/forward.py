"""One batch of prompts through the model: record, pool, and send the results on their way home."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from axes.ingest.forward.activation_keys import Item
from axes.ingest.forward.batching import HostCopy, pad
from axes.ingest.forward.pooling import Pooling, Reduce, SpanReader
from axes.ingest.forward.prefix_cache import SharedPrefix
from axes.ingest.forward.recording import Point, record, run_backbone
from axes.ingest.forward.templates import Rendered, pad_id
from axes.ingest.models.load import LoadedModel

Span = tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """Prompts that were run together, and what was read of them.

    `pooled` is item -> float32 `[prompt, d_model]`; `tokens` is item -> `[token, d_model]`, the
    tokens of all prompts one after the other; `spans` are the positions by pooling.
    """

    prompt_ids: list[str]
    rendered: list[Rendered]
    spans: dict[str, list[Span]]
    pooled: dict[Item, np.ndarray]
    tokens: dict[Item, np.ndarray]


class Forward:
    """Runs batches for a fixed choice of items; `prefix` stands before every prompt."""

    def __init__(
        self,
        loaded: LoadedModel,
        points: dict[tuple[int, str], Point],
        items: Sequence[Item],
        poolings: dict[str, Pooling],
        prefix: SharedPrefix | None,
    ) -> None:
        self._loaded, self._poolings, self._prefix = loaded, poolings, prefix
        self._items_at: dict[Point, list[Item]] = defaultdict(list)
        for item in items:
            self._items_at[points[item.layer, item.site]].append(item)

    def start(self, prompt_ids: list[str], rendered: list[Rendered]) -> StartedBatch:
        """Compute a batch; on an accelerator its results are still under way."""
        prefix = self._prefix
        shared = 0 if prefix is None else prefix.length
        tokens, mask = pad(
            [prompt.token_ids[shared:] for prompt in rendered], pad_id(self._loaded.tokenizer)
        )
        spans = {name: _spans(pooling, rendered) for name, pooling in self._poolings.items()}
        readers = {name: _PromptReader(rows, prefix) for name, rows in spans.items()}
        every_token = _PromptReader([(0, len(row.token_ids)) for row in rendered], prefix)
        results: dict[Item, Tensor] = {}

        def receive(point: Point, hidden: Tensor) -> None:
            for item in self._items_at[point]:
                if item.pooling:
                    reduce = self._poolings[item.pooling].reduce
                    results[item] = readers[item.pooling].read(point, hidden, reduce)
                else:
                    results[item] = every_token.read(point, hidden, _real_rows)

        with record(list(self._items_at), receive, leaves_early=True):
            cache = None if prefix is None else prefix.cache(len(rendered))
            run_backbone(self._loaded.model, tokens, mask, cache=cache)
        return StartedBatch(prompt_ids, rendered, spans, results)


class StartedBatch:
    """A batch whose results may still be under way to the host."""

    def __init__(
        self,
        prompt_ids: list[str],
        rendered: list[Rendered],
        spans: dict[str, list[Span]],
        results: dict[Item, Tensor],
    ) -> None:
        self._described = prompt_ids, rendered, spans
        self._pooled = HostCopy({item: value for item, value in results.items() if item.pooling})
        self._tokens = HostCopy(
            {item: value for item, value in results.items() if not item.pooling}
        )

    def finish(self) -> Batch:
        """Wait for the results."""
        return Batch(*self._described, self._pooled.result(), self._tokens.result())


class _PromptReader:
    """Reads spans that count from the start of the prompt, whose prefix the model has read before.

    The prefix's own activations are put in front only where a span reaches into it.
    """

    def __init__(self, spans: Sequence[Span], prefix: SharedPrefix | None) -> None:
        shared = 0 if prefix is None else prefix.length
        reaches_in = min(start for start, _ in spans) < shared
        self._prefix = prefix if reaches_in else None
        offset = 0 if reaches_in else shared
        self._reader = SpanReader([(start - offset, end - offset) for start, end in spans])

    def read(self, point: Point, hidden: Tensor, reduce: Reduce) -> Tensor:
        if self._prefix is not None:
            before = self._prefix.hidden[point].expand(len(hidden), -1, -1)
            hidden = torch.cat([before, hidden], dim=1)
        return self._reader.read(hidden, reduce)


def _real_rows(hidden: Tensor, mask: Tensor) -> Tensor:
    """`[token, d_model]`: all prompts' tokens, one prompt after the other."""
    return hidden[mask]


def _spans(pooling: Pooling, rendered: Sequence[Rendered]) -> list[Span]:
    spans = (pooling.span(len(row.token_ids), row.user_end) for row in rendered)
    return [span for span in spans if span is not None]
