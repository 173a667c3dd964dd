"""Skip parts of a pass that were computed before: a shared prefix of prompts, or lower blocks.

`share_prefix` runs tokens that every prompt begins with once, and reuses their keys and values.
Under a chat template, and more so under a system prompt, that is most of each prompt. It is used
only where the cache holds every position of every layer, and only after the longest prompt, run
both ways, has given the same activations. A `PrefixPath` then runs those that only some share.

`resume_after` runs a model from the output of one of its blocks on. An intervention changes the
same prompts at the same block in many ways: the blocks below need to be run once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from axes.ingest.forward.batching import pad
from axes.ingest.forward.prefix_tree import Family, Tokens, prefix_length
from axes.ingest.forward.recording import Point, cache_argument, recorded
from axes.ingest.models.load import LoadedModel

if TYPE_CHECKING:
    from transformers import DynamicCache


def tolerated(dtype: torch.dtype) -> float:
    """Difference over the norm at a position: rounding in another order, and nothing more."""
    return 1e-4 if dtype == torch.float32 else 5e-2


@dataclass(frozen=True)
class SharedPrefix:
    """Tokens that prompts begin with, as the model has read them.

    `hidden` are its activations at each point, `[1, position, d_model]`.
    """

    tokens: Tokens
    hidden: dict[Point, Float[Tensor, "1 position d_model"]]
    _cache: DynamicCache

    @property
    def length(self) -> int:
        return len(self.tokens)

    def cache(self, batch_size: int) -> DynamicCache:
        """The keys and values for `batch_size` rows; the model may append to them."""
        cache = copy.copy(self._cache)
        cache.layers = []
        for layer in self._cache.layers:
            repeated: Any = copy.copy(layer)
            if repeated.is_initialized:
                # A view: the model's `cat` with the new keys makes the copy.
                repeated.keys = repeated.keys.expand(batch_size, -1, -1, -1)
                repeated.values = repeated.values.expand(batch_size, -1, -1, -1)
            cache.layers.append(repeated)
        return cache


def share_prefix(
    loaded: LoadedModel, token_ids: Sequence[Tokens], points: Sequence[Point]
) -> tuple[SharedPrefix | None, str | None]:
    """Run the tokens that all rows begin with, if that saves anything and changes nothing.

    Returns the prefix, or None and, if one exists, the reason why it is not shared.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    if not (length := prefix_length(token_ids)):
        return None, None
    refused = f"a shared prefix of {length} tokens was run with every prompt: "
    if cache_argument(loaded.model.base_model) not in ("cache", "past_key_values"):
        return None, refused + f"{loaded.model.config.model_type} keeps no keys and values"
    cache = DynamicCache(config=loaded.model.config)
    partial = {type(layer).__name__ for layer in cache.layers if type(layer) is not DynamicLayer}
    if partial:
        return None, refused + f"the cache has {', '.join(sorted(partial))}"
    if loaded.model._is_stateful:
        return None, refused + f"{loaded.model.config.model_type} carries a state"
    prefix = run_prefix(loaded, token_ids[0][:length], points)
    difference = _difference(loaded, prefix, max(token_ids, key=len), points)
    if difference > tolerated(loaded.model.dtype):
        return None, refused + f"reused, activations differ by {difference:.1e}"
    return prefix, None


def run_prefix(
    loaded: LoadedModel,
    tokens: Tokens,
    points: Sequence[Point],
    before: SharedPrefix | None = None,
) -> SharedPrefix:
    """Run some tokens as a prefix; those of the prefix `before` are not run again."""
    from transformers.cache_utils import DynamicCache

    cache = before.cache(1) if before else DynamicCache(config=loaded.model.config)
    hidden = _record(loaded, tokens[before.length if before else 0 :], points, cache)
    if before:
        hidden = {at: torch.cat([before.hidden[at], added], 1) for at, added in hidden.items()}
    return SharedPrefix(tokens, hidden, cache)


class PrefixPath:
    """The prefixes of one family after the other: kept are those that the next one lies in."""

    def __init__(self, loaded: LoadedModel, points: Sequence[Point], first: SharedPrefix) -> None:
        self._loaded, self._points, self._path = loaded, points, [first]

    def move_to(self, family: Family) -> int:
        """Run what is missing of a family's prefixes; returns how many tokens that was."""
        prefixes = family.prefixes()
        while [each.tokens for each in self._path] != prefixes[: len(self._path)]:
            self._path.pop()
        kept = self.last.length if self.last else 0
        for tokens in prefixes[len(self._path) :]:
            self._path.append(run_prefix(self._loaded, tokens, self._points, self.last))
        return len(family.tokens) - kept

    @property
    def last(self) -> SharedPrefix | None:
        """All the tokens of the family, if it has any."""
        return self._path[-1] if self._path else None


def _difference(
    loaded: LoadedModel, prefix: SharedPrefix, token_ids: Sequence[int], points: Sequence[Point]
) -> float:
    """How far one prompt's activations after the prefix are from those of a pass over all of it."""
    complete = _record(loaded, token_ids, points)
    rest = _record(loaded, token_ids[prefix.length :], points, prefix.cache(1))
    ends = {point: hidden[:, prefix.length :].float() for point, hidden in complete.items()}
    return max(
        float(((ends[point] - rest[point]).norm(dim=-1) / ends[point].norm(dim=-1)).max())
        for point in points
    )


def _record(
    loaded: LoadedModel,
    token_ids: Sequence[int],
    points: Sequence[Point],
    cache: DynamicCache | None = None,
) -> dict[Point, Tensor]:
    """The activations of one row of tokens, after those of the cache."""
    tokens, mask = pad([token_ids], 0)
    return recorded(loaded.model, points, tokens, mask, cache=cache)


@contextmanager
def resume_after(
    loaded: LoadedModel, layer: int, hidden: Float[Tensor, "batch position d_model"]
) -> Iterator[None]:
    """While active, block `layer` puts out `hidden`, and the blocks before it compute nothing.

    For passes over the same batch without a cache. Hooks on the blocks see what they put out.
    """
    is_tuple = _puts_out_tuples(loaded)
    with ExitStack() as restored:
        for index in range(layer + 1):
            block = loaded.blocks[index]
            # Taken off at the end, and then a forward pass that the block itself had is put back.
            own = {name: value for name, value in vars(block).items() if name == "forward"}
            restored.callback(vars(block).update, own)
            restored.callback(vars(block).pop, "forward")
            block.forward = _Instead(hidden if index == layer else None, is_tuple)
        yield


class _Instead:
    """A block's forward pass that returns its input, or the output that was computed before."""

    def __init__(self, hidden: Tensor | None, is_tuple: bool) -> None:
        self._hidden, self._is_tuple = hidden, is_tuple

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        hidden = hidden_states if self._hidden is None else self._hidden
        return (hidden, None) if self._is_tuple else hidden


@torch.inference_mode()
def _puts_out_tuples(loaded: LoadedModel) -> bool:
    """Whether blocks put out a tuple whose first is the hidden states: seen on one token."""
    seen: list[bool] = []
    handle = loaded.blocks[0].register_forward_hook(
        lambda _module, _args, output: seen.append(isinstance(output, tuple))
    )
    try:
        token = torch.zeros((1, 1), dtype=torch.long, device=loaded.device)
        loaded.model.base_model(input_ids=token, use_cache=False)
    finally:
        handle.remove()
    return seen[0]
