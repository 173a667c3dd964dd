"""Measure what sweeps do to a model, one batch of prompts at a time, as rows of outcomes.

Every batch is run once as the model is; then once for each sweep, all its strengths side by side in
the batch, from the first block that is changed on. The metrics themselves are pure functions of
logits and token ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from axes.ingest.forward.batching import pad
from axes.ingest.forward.prefix_cache import resume_after
from axes.ingest.forward.recording import Point, block_points, last_logits, record
from axes.ingest.forward.steering import steer
from axes.ingest.forward.templates import pad_id
from axes.ingest.generation.generate import generate
from axes.ingest.generation.sweeps import Outcome, Sweep
from axes.ingest.generation.token_statistics import Kept, Trace
from axes.ingest.models.load import LoadedModel, non_finite
from axes.ingest.requests import Sampling

# Prompt tokens whose mean is an activation, as in the default pooling.
_TAIL = 5


def measure_prompts(
    loaded: LoadedModel,
    encoded: Mapping[str, list[int]],
    sweeps: Sequence[Sweep],
    template: str,
    openers: dict[str, list[int]],
) -> Iterator[Outcome]:
    """How likely answers to prompts (id -> token ids) open in a way, and `projection_shift`.

    The former is one metric for each of `openers`, name -> first token ids. The latter is how far
    the mean of the last block's output at the last five prompt tokens has moved along the axis.
    """
    tokens, mask = pad(list(encoded.values()), pad_id(loaded.tokenizer), side="left")
    plain = _run(loaded, tokens, mask, sweeps, keeps_all=False)
    for sweep in sweeps:
        count = len(sweep.strengths)
        steered = _steered(loaded, tokens, mask, sweep, plain, keeps_all=False)
        values = {
            f"{name}_openers": opener_log_odds(steered.logits[:, -1], first_ids)
            for name, first_ids in openers.items()
        }
        if sweep.vector is not None:
            # [prompt * strength, d_model], one strength after the other for each prompt.
            moved = _tail_mean(steered, mask.repeat_interleave(count, 0)) - _tail_mean(
                plain, mask
            ).repeat_interleave(count, 0)
            values["projection_shift"] = moved @ sweep.vector.to(moved)
        yield from _rows(loaded, list(encoded), sweep, template, values)


def measure_texts(
    loaded: LoadedModel, encoded: Mapping[str, list[int]], sweeps: Sequence[Sweep], template: str
) -> Iterator[Outcome]:
    """`kl` from the unsteered model and `log_perplexity` of texts (id -> token ids).

    Both are teacher-forced; for a change of generated tokens alone all but a text's first token
    count as generated.
    """
    tokens, mask = pad(list(encoded.values()), pad_id(loaded.tokenizer))
    plain = _run(loaded, tokens, mask, sweeps, keeps_all=True)
    before = plain.logits.float().log_softmax(-1)
    for sweep in sweeps:
        count = len(sweep.strengths)
        steered = _steered(loaded, tokens, mask, sweep, plain, keeps_all=True)
        after = steered.logits.float().log_softmax(-1)
        wide = [value.repeat_interleave(count, 0).to(after.device) for value in (tokens, mask)]
        values = {"log_perplexity": log_perplexity(after, *wide)}
        if sweep.vector is not None:
            # Rows of `after` are prompt-major, [prompt * strength]: every `count`th row is one
            # strength. A KL for each strength in turn, so that `before` is never repeated.
            device_mask = mask.to(after.device)
            by_strength = [divergence(before, after[i::count], device_mask) for i in range(count)]
            values["kl"] = torch.stack(by_strength, dim=1).flatten()
        yield from _rows(loaded, list(encoded), sweep, template, values)


def complete(
    loaded: LoadedModel,
    pairs: Sequence[tuple[str, float]],
    encoded: Mapping[str, list[int]],
    sweep: Sweep,
    max_new_tokens: int,
) -> list[Trace]:
    """A greedy completion for each prompt id and strength."""
    named = {f"{name} at {strength}": encoded[name] for name, strength in pairs}
    strengths = torch.tensor([strength for _, strength in pairs], dtype=torch.float64)
    with steer(loaded, sweep.interventions(strengths)):
        return generate(loaded, named, Kept(), Sampling(max_new_tokens=max_new_tokens))


@dataclass(frozen=True)
class _Seen:
    """One pass: logits (of the last position or of all), and block outputs by layer."""

    logits: Tensor
    hidden: dict[int, Tensor]


def _steered(
    loaded: LoadedModel,
    tokens: Tensor,
    mask: Tensor,
    sweep: Sweep,
    plain: _Seen,
    *,
    keeps_all: bool,
) -> _Seen:
    """The batch with every prompt as often as there are strengths, one after the other."""
    if sweep.vector is None:
        return plain
    count, first = len(sweep.strengths), min(sweep.layers)
    strengths = torch.tensor(sweep.strengths, dtype=torch.float64).repeat(len(tokens))
    below = plain.hidden[first].repeat_interleave(count, 0)
    width = 1 if keeps_all and sweep.change.positions == "generated" else None
    with (
        resume_after(loaded, first, below),
        steer(loaded, sweep.interventions(strengths), prompt_width=width),
    ):
        return _run(
            loaded,
            tokens.repeat_interleave(count, 0),
            mask.repeat_interleave(count, 0),
            [],
            keeps_all=keeps_all,
        )


@torch.inference_mode()
def _run(
    loaded: LoadedModel, tokens: Tensor, mask: Tensor, sweeps: Sequence[Sweep], *, keeps_all: bool
) -> _Seen:
    """One pass; keeps what the first changed block of each sweep and the last block put out."""
    hidden: dict[int, Tensor] = {}
    last = loaded.layer_count - 1
    layers = sorted({last, *(min(sweep.layers) for sweep in sweeps if sweep.layers)})

    def receive(point: Point, output: Tensor) -> None:
        # A copy: a block above may add to it in place.
        hidden[point.layer] = output.clone()

    with record(block_points(loaded.blocks, layers), receive):
        logits = last_logits(loaded.model, tokens, mask, tokens.shape[1] if keeps_all else 1)
    return _Seen(logits, hidden)


def _tail_mean(seen: _Seen, mask: Tensor) -> Tensor:
    """Mean of the last block's output at the last five tokens of left-padded rows."""
    last = seen.hidden[max(seen.hidden)][:, -_TAIL:].float()
    counts = mask[:, -_TAIL:, None].to(last)
    return (last * counts).sum(1) / counts.sum(1)


def _rows(
    loaded: LoadedModel,
    prompt_ids: Sequence[str],
    sweep: Sweep,
    template: str,
    values: dict[str, Tensor],
) -> Iterator[Outcome]:
    """A row per prompt, strength and metric; raises `NonFiniteError` for NaN and infinity."""
    for metric, measured in values.items():
        by_prompt = measured.reshape(len(prompt_ids), len(sweep.strengths)).tolist()
        for prompt_id, by_strength in zip(prompt_ids, by_prompt, strict=True):
            for strength, value in zip(sweep.strengths, by_strength, strict=True):
                if not math.isfinite(value):
                    place = f"for {metric} of prompt {prompt_id} at strength {strength}"
                    raise non_finite(loaded, place)
                yield {
                    **sweep.columns(loaded.identity.model_id, template, strength),
                    "prompt_id": prompt_id,
                    "metric": metric,
                    "new_tokens": 0,
                    "value": value,
                }


# Runs of so many tokens count as repeated.
_NGRAM = 3


def opener_log_odds(
    logits: Float[Tensor, "batch vocabulary"], first_ids: Sequence[int]
) -> Float[Tensor, " batch"]:
    """Log-odds that the next token is one of `first_ids` (Arditi et al. 2024, refusal score)."""
    chances = logits.float().log_softmax(-1)
    is_opener = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    is_opener[list(first_ids)] = True
    # Both sides are summed, since 1 minus a chance near 1 has no digits left.
    inside = chances.masked_fill(~is_opener, -torch.inf).logsumexp(-1)
    outside = chances.masked_fill(is_opener, -torch.inf).logsumexp(-1)
    return inside - outside


def divergence(
    before: Float[Tensor, "batch position vocabulary"],
    after: Float[Tensor, "batch position vocabulary"],
    mask: Bool[Tensor, "batch position"],
) -> Float[Tensor, " batch"]:
    """KL of the next-token distributions, `before` from `after`, in nats: mean over positions.

    Both are log-probabilities; `mask` says which positions hold tokens.
    """
    by_position = (before.exp() * (before - after)).sum(-1)
    return _mean(by_position, mask)


def log_perplexity(
    chances: Float[Tensor, "batch position vocabulary"],
    tokens: Int[Tensor, "batch position"],
    mask: Bool[Tensor, "batch position"],
) -> Float[Tensor, " batch"]:
    """Mean negative log-probability (nats) of every token but the first, teacher-forced.

    A text of one token has nothing to predict, and gets 0.
    """
    given = chances[:, :-1].gather(2, tokens[:, 1:, None]).squeeze(2)
    return _mean(-given, mask[:, 1:])


def repetition(token_ids: Sequence[int]) -> float:
    """Share of three-token runs that occurred before: 1 - distinct-3 (Li et al. 2016).

    >>> repetition([1, 2, 3, 4, 5]), repetition([1, 1, 1, 1, 1, 1])
    (0.0, 0.75)
    """
    grams = [tuple(token_ids[at : at + _NGRAM]) for at in range(len(token_ids) - _NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def longest_repeat(token_ids: Sequence[int]) -> float:
    """Length of the longest run of tokens that occurs twice, as a share of the completion.

    >>> longest_repeat([1, 2, 3, 9, 1, 2, 3, 8]), longest_repeat([1, 2, 3])
    (0.375, 0.0)
    """
    count = len(token_ids)
    longest, before = 0, [0] * (count + 1)
    for end in range(count):
        row = [0] * (count + 1)
        for other in range(end):
            if token_ids[end] == token_ids[other]:
                row[other + 1] = before[other] + 1
        before, longest = row, max(longest, *row)
    return longest / count if count else 0.0


def _mean(
    values: Float[Tensor, "batch position"], mask: Bool[Tensor, "batch position"]
) -> Float[Tensor, " batch"]:
    """Mean over the positions of the mask, and 0 where it has none."""
    counted = torch.where(mask, values, 0.0).sum(1)
    return counted / mask.sum(1).clamp(min=1)
