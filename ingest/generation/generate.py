"""Let a model continue a batch of prompts, and record what passes its blocks on the way.

transformers' own `generate` runs the model and keeps its cache. A logits processor reads what it
puts out and, where tokens are drawn, draws them; results are sent to the host a few dozen steps at
a time, so that no step waits for them.

Tokens are greedy or drawn; end tokens and stop strings end a completion. A row draws with random
numbers that come from the seed and the row alone, so that its completion does not depend on the
other rows: a batch may be of any size and in any order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import StoppingCriteria

from axes.ingest.forward.batching import HostCopy, pad, positions
from axes.ingest.forward.recording import Point, block_points, cache_argument, keeps_keys, record
from axes.ingest.forward.templates import pad_id
from axes.ingest.generation.token_statistics import (
    Kept,
    Projector,
    Trace,
    require_finite,
    token_statistics,
)
from axes.ingest.models.load import LoadedModel
from axes.ingest.requests import Sampling
from axes.warehouse.errors import ModelError
from axes.warehouse.writer import content_key

if TYPE_CHECKING:
    from transformers import GenerationConfig

# Steps whose results are kept on the device before they are sent to the host together.
_STEPS_AT_ONCE = 32


def generate(
    loaded: LoadedModel,
    encoded: Mapping[str, Sequence[int]],
    kept: Kept,
    sampling: Sampling,
    *,
    seeds: Sequence[int] | None = None,
) -> list[Trace]:
    """One completion for each prompt (name -> token ids), in that order.

    Where tokens are drawn, a row's seed is that of `seeds`, else from `sampling.seed` and its name.
    Raises `NonFiniteError` for NaN or infinity, and `torch.OutOfMemoryError` for too large a batch.
    """
    from transformers import LogitsProcessorList, StoppingCriteriaList

    model: Any = loaded.model
    tokens, mask = pad(list(encoded.values()), pad_id(loaded.tokenizer), side="left")
    ends = end_ids(loaded, sampling.end_tokens)
    seeds = seeds or [row_seed(sampling.seed, name) for name in encoded]
    recorder = StepRecorder(kept, sampling, seeds, loaded.device)
    stops = StopStrings(loaded, sampling.stop_strings, tokens.shape[1])
    with (
        own_config(loaded, sampling.max_new_tokens, ends) as config,
        record(block_points(loaded.blocks, kept.recorded_layers), recorder.receive),
        torch.inference_mode(),
    ):
        result = model.generate(
            tokens.to(loaded.device),
            attention_mask=mask.long().to(loaded.device),
            generation_config=config,
            return_dict_in_generate=True,
            logits_processor=LogitsProcessorList([recorder]),
            stopping_criteria=StoppingCriteriaList([stops] if sampling.stop_strings else []),
        )
        sequences = result.sequences
        recorder.choose(sequences[:, -1])
        if kept.recorded_layers:
            cache = result["cache" if "cache" in result else "past_key_values"]
            _step_over_last(model, sequences, mask, cache)
    generated = sequences[:, tokens.shape[1] :].tolist()
    traces = _cut(list(encoded), generated, ends, stops, recorder)
    for trace in traces:
        require_finite(loaded, trace)
    return traces


@contextmanager
def own_config(
    loaded: LoadedModel, max_new_tokens: int, ends: Sequence[int], **drawing: Any
) -> Iterator[GenerationConfig]:
    """A configuration of `generate`, greedy without `drawing`; none of the checkpoint's is used."""
    from transformers import GenerationConfig

    model: Any = loaded.model
    common = {"eos_token_id": list(ends), "pad_token_id": pad_id(loaded.tokenizer)}
    # The checkpoint's own sampling defaults (a repetition penalty, a top_k) must not slip in.
    checkpoint, model.generation_config = model.generation_config, GenerationConfig(**common)
    try:
        yield GenerationConfig(
            max_new_tokens=max_new_tokens, **{"do_sample": False, **common, **drawing}
        )
    finally:
        model.generation_config = checkpoint


def _step_over_last(model: Any, sequences: Tensor, prompt_mask: Tensor, cache: Any) -> None:
    """Feed the last generated tokens, which `generate` chose but never ran, for their vectors."""
    steps = sequences.shape[1] - prompt_mask.shape[1]
    mask = torch.cat([prompt_mask, prompt_mask.new_ones(len(prompt_mask), steps)], dim=1)
    inputs = {
        "attention_mask": mask.long().to(sequences.device),
        "position_ids": positions(mask)[:, -1:].to(sequences.device),
    }
    # A state-space model's state takes no mask.
    if not keeps_keys(cache):
        inputs = {}
    inputs[cache_argument(model.base_model)] = cache
    model.base_model(input_ids=sequences[:, -1:], use_cache=True, **inputs)


def _cut(
    names: Sequence[str],
    generated: Sequence[Sequence[int]],
    ends: Sequence[int],
    stops: StopStrings,
    recorder: StepRecorder,
) -> list[Trace]:
    """Each row up to where it ended; the first vector is that of the prompt's last position."""
    statistics, vectors, projections = recorder.results()
    traces = []
    for row, (name, ids) in enumerate(zip(names, generated, strict=True)):
        count = stops.ends.get(row, len(ids))
        reason = "stop_string" if row in stops.ends else "length"
        ended = next((step for step, token in enumerate(ids[:count]) if token in ends), None)
        if ended is not None:
            count, reason = ended + 1, "stop"
        traces.append(
            Trace(
                prompt_id=name,
                token_ids=list(ids[:count]),
                statistics={name: values[row, :count] for name, values in statistics.items()},
                vectors={layer: v[row, 1 : count + 1] for layer, v in vectors.items()},
                projections={key: v[row, 1 : count + 1] for key, v in projections.items()},
                finish_reason=reason,
            )
        )
    return traces


class StepRecorder:
    """A logits processor that reads each step's logits, and the receiver of the block outputs.

    Greedy logits go on unchanged; where tokens are drawn, the one that was drawn stands out.
    """

    def __init__(
        self, kept: Kept, sampling: Sampling, seeds: Sequence[int], device: torch.device
    ) -> None:
        self._kept, self._sampling, self._numbers = kept, sampling, None
        if not sampling.is_greedy:
            self._numbers = uniforms(seeds, sampling.max_new_tokens, device)
        self._projector = Projector(kept.readouts, device)
        self._vectors = {layer: _Outbox() for layer in kept.layers}
        self._projections = {layer: _Outbox() for layer in self._projector.keys}
        self._statistics: dict[str, _Outbox] = defaultdict(_Outbox)
        self._seen: Tensor | None = None
        self._step = 0

    def receive(self, point: Point, hidden: Tensor) -> None:
        last = hidden[:, -1]
        if point.layer in self._vectors:
            self._vectors[point.layer].put(last.to(torch.float32, copy=True))
        if point.layer in self._projections:
            self._projections[point.layer].put(self._projector.project(point.layer, last))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._seen is not None:
            self.choose(input_ids[:, -1])
        self._seen = scores
        if self._numbers is None:
            return scores
        drawn = draw(scores, self._numbers[:, self._step], self._sampling)
        self._step += 1
        return scores.scatter(1, drawn[:, None], torch.inf)

    def choose(self, token_ids: Tensor) -> None:
        """Record the tokens that were chosen by the logits seen last."""
        assert self._seen is not None
        found = token_statistics(self._seen, token_ids, self._kept.top_count)
        for name, values in found.items():
            self._statistics[name].put(values)

    def results(
        self,
    ) -> tuple[dict[str, np.ndarray], dict[int, np.ndarray], dict[tuple, np.ndarray]]:
        """`[row, step, ...]` by statistic; by layer and by readout key, the prompt's end first."""
        statistics = {name: outbox.steps() for name, outbox in self._statistics.items()}
        vectors = {layer: outbox.steps() for layer, outbox in self._vectors.items()}
        projections = {}
        for layer, outbox in self._projections.items():
            values = outbox.steps()
            for index, key in enumerate(self._projector.keys[layer]):
                projections[key] = values[..., index]
        return statistics, vectors, projections


class _Outbox:
    """One tensor a step, on the way to the host a few dozen at a time."""

    def __init__(self) -> None:
        self._waiting: list[Tensor] = []
        self._sent: list[HostCopy[int]] = []

    def put(self, values: Tensor) -> None:
        self._waiting.append(values)
        if len(self._waiting) == _STEPS_AT_ONCE:
            self._send()

    def _send(self) -> None:
        self._sent.append(HostCopy(dict(enumerate(self._waiting))))
        self._waiting = []

    def steps(self) -> np.ndarray:
        """`[row, step, ...]`, once all have arrived."""
        if self._waiting:
            self._send()
        arrived = [values for copy in self._sent for values in copy.result().values()]
        return np.stack(arrived, axis=1)


# A stop string is looked for in this many tokens beyond one for each of its bytes.
_MARGIN = 8


def uniforms(seeds: Sequence[int], count: int, device: torch.device) -> Float[Tensor, "batch step"]:
    """For each row `count` numbers in [0, 1), which its seed alone determines."""
    # On the host and as float32, so that every device draws the same.
    rows = [torch.rand(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(device)


def row_seed(*parts: Any) -> int:
    """A seed for `torch.Generator`, from what names a row."""
    return int(content_key(*parts), 16) % 2**63


def draw(
    logits: Float[Tensor, "batch vocabulary"], uniform: Float[Tensor, " batch"], sampling: Sampling
) -> Int[Tensor, " batch"]:
    """The token of each row at its place in the cumulated distribution (inverse transform).

    With `top_p` only the fewest likeliest tokens that together have that mass are kept (Holtzman
    et al. 2020). Cumulated in the order of the vocabulary: an order by probability would change
    with the last digits, which depend on the batch.
    """
    chances = (logits.float() / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        ordered = chances.sort(-1, descending=True).values
        before = ordered.cumsum(-1) - ordered
        min_chance = ordered.masked_fill(before >= sampling.top_p, torch.inf).amin(-1, keepdim=True)
        chances = chances.masked_fill(chances < min_chance, 0.0)
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    cumulated = chances.cumsum(-1, dtype=wide)
    place = uniform.to(wide)[:, None] * cumulated[:, -1:]
    token_ids = torch.searchsorted(cumulated, place, right=True).squeeze(1)
    return token_ids.clamp(max=logits.shape[-1] - 1)


def end_ids(loaded: LoadedModel, end_tokens: Sequence[str] = ()) -> list[int]:
    """The token ids that end a completion: the checkpoint's, the tokenizer's and `end_tokens`.

    Raises `ModelError` for an end token that is not in the vocabulary.
    """
    configured = loaded.model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    ids = [*ids, loaded.tokenizer.eos_token_id]
    vocabulary = loaded.tokenizer.get_vocab() if end_tokens else {}
    for token in end_tokens:
        if token not in vocabulary:
            raise ModelError(
                f"{token!r} is not a token of {loaded.spec.name}: "
                "give an end token as the vocabulary writes it, or use --stop"
            )
        ids.append(vocabulary[token])
    return sorted({token for token in ids if token is not None})


class StopStrings(StoppingCriteria):
    """Ends a row with the token that completes a stop string; `ends[row]` is then its count."""

    def __init__(self, loaded: LoadedModel, strings: Sequence[str], prompt_width: int) -> None:
        self._tokenizer, self._strings, self._start = loaded.tokenizer, strings, prompt_width
        self._reach = max((len(string.encode()) for string in strings), default=0) + _MARGIN
        self.ends: dict[int, int] = {}

    def __call__(self, input_ids: Tensor, _scores: Any, **_: Any) -> Tensor:
        count = input_ids.shape[1] - self._start
        recent = input_ids[:, max(self._start, input_ids.shape[1] - self._reach) :].tolist()
        for row, ids in enumerate(recent):
            text = "" if row in self.ends else self._tokenizer.decode(ids)
            if any(string in text for string in self._strings):
                self.ends[row] = count
        is_done = [row in self.ends for row in range(len(recent))]
        return torch.tensor(is_done, device=input_ids.device)
