"""How a completion goes on and ends: greedy or drawn tokens, end tokens, stop strings.

A row draws with numbers of its own, which come from the seed and the row alone: what it says does
not depend on the rows beside it, so that a batch may be of any size and in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import StoppingCriteria

from axes.warehouse.errors import ModelError
from axes.warehouse.writer import content_key

if TYPE_CHECKING:
    from axes.ingest.models.load import LoadedModel

# A stop string is looked for in this many tokens beyond one for each of its bytes.
_MARGIN = 8


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: temperature 0 is greedy, top_p 1 keeps the whole distribution.

    `stop_strings` end a completion with the token that completes one of them; `end_tokens`, as the
    vocabulary writes them, with themselves, beside those of the checkpoint.
    """

    max_new_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop_strings: tuple[str, ...] = ()
    end_tokens: tuple[str, ...] = ()

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    def columns(self) -> dict[str, Any]:
        """The same as columns of `generations`."""
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop_strings": list(self.stop_strings) or None,
        }

    def key(self, sample: int = 0) -> dict[str, Any]:
        """What of it makes one completion of a prompt another; what is not asked for is left out.

        >>> Sampling().key()
        {'max_new_tokens': 32, 'temperature': 0.0, 'top_p': 1.0, 'seed': 0}
        """
        asked = {"stop_strings": self.stop_strings, "end_tokens": self.end_tokens}
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            **{name: list(values) for name, values in asked.items() if values},
            **({} if self.is_greedy else {"sample": sample}),
        }


def uniforms(seeds: Sequence[int], count: int, device: torch.device) -> Float[Tensor, "batch step"]:
    """For each row `count` numbers in [0, 1), which its seed alone determines."""
    # On the host and as float32, so that every device draws the same.
    rows = [torch.rand(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(device)


def row_seed(*parts: Any) -> int:
    """A seed for `torch.Generator`, from what names a row."""
    return int(content_key(*parts), 16) % 2**63


def draw(
    logits: Float[Tensor, "batch vocabulary"],
    uniform: Float[Tensor, " batch"],
    sampling: Sampling,
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
        least = ordered.masked_fill(before >= sampling.top_p, torch.inf).amin(-1, keepdim=True)
        chances = chances.masked_fill(chances < least, 0.0)
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    cumulated = chances.cumsum(-1, dtype=wide)
    place = uniform.to(wide)[:, None] * cumulated[:, -1:]
    found = torch.searchsorted(cumulated, place, right=True).squeeze(1)
    return found.clamp(max=logits.shape[-1] - 1)


def end_ids(loaded: LoadedModel, sampling: Sampling) -> list[int]:
    """The token ids that end a completion: the checkpoint's, the tokenizer's own and those asked.

    Raises `ModelError` for an end token that is not in the vocabulary.
    """
    configured = loaded.model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    ids = [*ids, loaded.tokenizer.eos_token_id]
    vocabulary = loaded.tokenizer.get_vocab() if sampling.end_tokens else {}
    for token in sampling.end_tokens:
        if token not in vocabulary:
            raise ModelError(
                f"{token!r} is no token of {loaded.spec.name}: "
                "give an end token as the vocabulary writes it, or use --stop"
            )
        ids.append(vocabulary[token])
    return sorted({token for token in ids if token is not None})


class StopStrings(StoppingCriteria):
    """Ends a row with the token that completes a stop string; `ends[row]` is then its count."""

    def __init__(self, loaded: LoadedModel, strings: Sequence[str], prompt_width: int) -> None:
        self._tokenizer, self._strings, self._start = loaded.tokenizer, strings, prompt_width
        self._reach = max(len(string.encode()) for string in strings) + _MARGIN
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
