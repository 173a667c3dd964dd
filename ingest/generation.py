"""Let a model continue a batch of prompts, and record what passes its blocks on the way.

Tokens are chosen by transformers' own `generate`; nothing it does is changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ingest.batching import pad, positions
from ingest.jobs import non_finite
from ingest.models import LoadedModel
from ingest.recording import Point, block_points, cache_argument, record
from ingest.templates import pad_id
from warehouse.errors import ModelError
from warehouse.writer import content_key

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
class Trace:
    """One completion: token ids, and per token log-probability, entropy and vectors by layer."""

    prompt_id: str
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    vectors: dict[int, np.ndarray] = field(default_factory=dict)
    is_stopped: bool = False


def generate(
    loaded: LoadedModel, encoded: dict[str, list[int]], layers: list[int], sampling: Sampling
) -> list[Trace]:
    """One completion for each prompt (id -> token ids), seeded by `sampling` and the prompts.

    Raises `NonFiniteError` for NaN or infinity and `ModelError` for too large a batch.
    """
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
    recorder = _StepRecorder(loaded, list(encoded), layers, end_ids)
    torch.manual_seed(int(content_key(sampling.seed, list(encoded)), 16) % 2**63)
    points = block_points(loaded.blocks, layers)
    try:
        with record(points, recorder.receive), torch.inference_mode():
            result = model.generate(
                tokens.to(loaded.device),
                attention_mask=mask.long().to(loaded.device),
                generation_config=config,
                logits_processor=LogitsProcessorList([recorder]),
            )
            sequences = result.sequences
            recorder.choose(sequences[:, -1])
            cache = result["cache" if "cache" in result else "past_key_values"]
            _step_over_last(model, sequences, mask, cache)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{len(encoded)} completions at once do not fit the memory of {loaded.device} beside "
            f"{loaded.spec.name}: try a smaller --batch-size, or --dtype bfloat16"
        ) from error
    traces = recorder.traces(sequences[:, tokens.shape[1] :].cpu())
    _require_finite(loaded, traces)
    return traces


def _require_finite(loaded: LoadedModel, traces: list[Trace]) -> None:
    for trace in traces:
        for layer, vectors in trace.vectors.items():
            if not np.isfinite(vectors).all():
                raise non_finite(loaded, f"at layer {layer} for prompt {trace.prompt_id}")


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
    }
    # A state-space model's state holds all that went before, and takes no mask.
    if not any(hasattr(layer, "keys") for layer in getattr(cache, "layers", ())):
        inputs = {}
    inputs[cache_argument(model.base_model)] = cache
    model.base_model(input_ids=sequences[:, -1:], use_cache=True, **inputs)


class _StepRecorder:
    """A logits processor that reads and changes nothing, and the receiver of the block outputs.

    `generate` calls it with the logits before sampling changes them, once per step; the tokens it
    then chose are the last column of the next call.
    """

    def __init__(
        self, loaded: LoadedModel, prompt_ids: list[str], layers: list[int], end_ids: list[int]
    ) -> None:
        self.loaded, self.prompt_ids, self.end_ids = loaded, prompt_ids, end_ids
        self.vectors: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
        self.logprobs: list[torch.Tensor] = []
        self.entropies: list[torch.Tensor] = []
        self._pending: torch.Tensor | None = None

    def receive(self, point: Point, hidden: torch.Tensor) -> None:
        self.vectors[point.layer].append(hidden[:, -1].float().cpu())

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        if self._pending is not None:
            self.choose(input_ids[:, -1])
        log_probabilities = scores.float().log_softmax(-1)
        # Not -(p * log p): a token that the model rules out has 0 times minus infinity.
        self.entropies.append(torch.special.entr(log_probabilities.exp()).sum(-1).cpu())
        self._require_choice(input_ids, log_probabilities)
        self._pending = log_probabilities
        return scores

    def _require_choice(self, input_ids: torch.Tensor, log_probabilities: torch.Tensor) -> None:
        """Raise `NonFiniteError` where a row has no next token: drawing one would fail or lie."""
        import torch

        is_bad = log_probabilities.isnan().any(1)
        if self.logprobs:
            generated = input_ids[:, -len(self.logprobs) :]
            ends = torch.tensor(self.end_ids, device=generated.device)
            is_bad &= ~torch.isin(generated, ends).any(1)
        for row in is_bad.nonzero().flatten().tolist():
            steps = {layer: vectors[-1][row] for layer, vectors in self.vectors.items()}
            layer = next((layer for layer in steps if not steps[layer].isfinite().all()), None)
            place = f"above layer {max(steps)}" if layer is None else f"at layer {layer}"
            raise non_finite(self.loaded, f"{place} for prompt {self.prompt_ids[row]}")

    def choose(self, token_ids: torch.Tensor) -> None:
        assert self._pending is not None
        self.logprobs.append(self._pending.gather(1, token_ids[:, None]).squeeze(1).cpu())

    def traces(self, sequences: torch.Tensor) -> list[Trace]:
        """Cut each row at its end token; `vectors[layer][0]` is the prompt's last position."""
        import torch

        logprobs, entropies = torch.stack(self.logprobs, 1), torch.stack(self.entropies, 1)
        vectors = {layer: torch.stack(steps[1:], 1) for layer, steps in self.vectors.items()}
        traces = []
        for row, prompt_id in enumerate(self.prompt_ids):
            ids = sequences[row].tolist()
            stops = [step for step, token in enumerate(ids) if token in self.end_ids]
            count = stops[0] + 1 if stops else len(ids)
            traces.append(
                Trace(
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
