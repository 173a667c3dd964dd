"""One batch of prompts through the model: record, pool, and send the results on their way home."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from axes.ingest.forward.activation_keys import Item
from axes.ingest.forward.batching import HostCopy, pad, to_device
from axes.ingest.forward.pooling import Pooling, Reduce
from axes.ingest.forward.prefix_cache import SharedPrefix
from axes.ingest.forward.recording import Point, by_position, record, run_backbone
from axes.ingest.forward.templates import Rendered, pad_id
from axes.ingest.models.load import LoadedModel
from axes.warehouse.runs import Run

Span = tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """Prompts that were run together; `spans` are the positions by pooling."""

    prompt_ids: list[str]
    rendered: list[Rendered]
    spans: dict[str, list[Span]]
    _results: HostCopy[Item]

    @cached_property
    def vectors(self) -> dict[Item, np.ndarray]:
        """Item -> what was recorded, once it has arrived: float32 `[prompt, d_model]`.

        For an item without a pooling `[token, d_model]`, the tokens of all prompts one after the
        other.
        """
        return self._results.result()


class Forward:
    """Runs batches for a fixed choice of items; `shared` tokens of `prefix` begin every prompt."""

    def __init__(
        self,
        run: Run,
        loaded: LoadedModel,
        points: dict[tuple[int, str], Point],
        items: Sequence[Item],
        poolings: Mapping[str, Pooling],
        prefix: SharedPrefix | None,
    ) -> None:
        self._run = run
        self._loaded, self._poolings, self._prefix = loaded, poolings, prefix
        self.shared = 0 if prefix is None else prefix.length
        self._items_at: dict[Point, list[Item]] = defaultdict(list)
        for item in items:
            self._items_at[points[item.layer, item.site]].append(item)

    def start(self, prompt_ids: list[str], rendered: list[Rendered]) -> Batch:
        """Compute a batch; on an accelerator its vectors are still under way."""
        prefix = self._prefix
        rows = [prompt.token_ids[self.shared :] for prompt in rendered]
        tokens, mask = pad(rows, pad_id(self._loaded.tokenizer))
        spans = {name: spans_of(pooling, rendered) for name, pooling in self._poolings.items()}
        readers = {name: SpanReader(places, prefix) for name, places in spans.items()}
        every_token = SpanReader([(0, len(row.token_ids)) for row in rendered], prefix)
        results: dict[Item, Tensor] = {}

        @self._run.stage("pool")
        def receive(point: Point, hidden: Tensor) -> None:
            hidden = by_position(hidden, tokens)
            for item in self._items_at[point]:
                if item.pooling:
                    reduce = self._poolings[item.pooling].reduce
                    results[item] = readers[item.pooling].read(hidden, reduce, point)
                else:
                    # [token, d_model]: all prompts' tokens, one prompt after the other.
                    results[item] = every_token.read(hidden, lambda rows, real: rows[real], point)

        with record(list(self._items_at), receive, leaves_early=True):
            cache = None if prefix is None else prefix.cache(len(rendered))
            run_backbone(self._loaded.model, tokens, mask, cache=cache)
        with self._run.stage("copy"):
            return Batch(prompt_ids, rendered, spans, HostCopy(results))


def spans_of(pooling: Pooling, rendered: Sequence[Rendered]) -> list[Span]:
    """The positions of each prompt that a pooling reads."""
    spans = (pooling.positions(row) for row in rendered)
    return [span for span in spans if span is not None]


class SpanReader:
    """Reads one span of each row of a batch; made once for all layers.

    Spans count from the start of the prompt. The activations of a prefix that was run before are
    put in front only where a span reaches into it.
    """

    def __init__(self, spans: Sequence[Span], prefix: SharedPrefix | None = None) -> None:
        shared = 0 if prefix is None else prefix.length
        reaches_in = min(start for start, _ in spans) < shared
        self._prefix = prefix if reaches_in else None
        bounds = torch.tensor(spans) - (0 if reaches_in else shared)
        start, end = bounds[:, :1], bounds[:, 1:]
        index = start + torch.arange(int((end - start).max()))
        self._mask = index < end
        self._index = torch.where(self._mask, index, start)
        self._placed: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}

    def read(
        self,
        hidden: Float[Tensor, "batch position d_model"],
        reduce: Reduce,
        point: Point | None = None,
    ) -> Float[Tensor, "batch d_model"]:
        """`reduce` over the positions of each row's span, in float32 whatever comes in.

        `point` is where `hidden` was recorded, which a prefix needs to know.

        >>> from axes.ingest.forward.pooling import mean
        >>> reader = SpanReader([(0, 2), (2, 3)])
        >>> reader.read(torch.arange(6.0).reshape(2, 3, 1), mean).tolist()
        [[0.5], [5.0]]
        """
        if self._prefix is not None and point is not None:
            before = self._prefix.hidden[point].expand(len(hidden), -1, -1)
            hidden = torch.cat([before, hidden], dim=1)
        places, mask = self._place(hidden.device, hidden.shape[1])
        # Whole rows of the flattened batch: a gather looks every number up, at ten times the cost.
        picked = hidden.reshape(-1, hidden.shape[2]).index_select(0, places)
        return reduce(picked.view(*mask.shape, -1).float(), mask)

    def _place(self, device: torch.device, width: int) -> tuple[Tensor, Tensor]:
        """Where the spans lie in batches of this width, counted over all rows, and the mask."""
        if (device, width) not in self._placed:
            places = width * torch.arange(len(self._index))[:, None] + self._index
            self._placed[device, width] = (
                to_device(places.flatten(), device),
                to_device(self._mask, device),
            )
        return self._placed[device, width]
