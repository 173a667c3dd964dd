"""Batches of prompts of like length, so that a forward pass spends little time on padding.

Batches are copied to the device, and results back to the host, without waiting for the copy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from axes.warehouse.errors import ModelError

if TYPE_CHECKING:
    from axes.ingest.models.load import LoadedModel
    from axes.warehouse.runs import Run

Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")


def plan_batches(lengths: Mapping[Name, int], token_budget: int) -> list[list[Name]]:
    """Group names into batches whose padded size stays within `token_budget` tokens.

    Longest first, so that a budget that does not fit the memory fails at once and not after an
    hour. A prompt longer than the budget gets a batch for itself.

    >>> plan_batches({"a": 2, "b": 9, "c": 3, "d": 2}, token_budget=6)
    [['b'], ['c', 'a'], ['d']]
    """
    batches: list[list[Name]] = []
    for name in sorted(lengths, key=lambda name: -lengths[name]):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= token_budget:
            batches[-1].append(name)
        else:
            batches.append([name])
    return batches


@dataclass
class Batches:
    """Runs batches of at most `budget`, which is halved where one does not fit the memory.

    `unit` is what the run's messages call the budget.
    """

    loaded: LoadedModel
    run: Run
    budget: int
    unit: str = "token budget"

    def compute(
        self,
        sizes: Mapping[Name, int],
        compute: Callable[[list[Name]], Result],
        describe: Callable[[Name], str],
    ) -> Iterator[tuple[list[Name], Result]]:
        """The names of each batch with what `compute` returns for them, the largest first.

        Raises `ModelError` where one alone does not fit; `describe` says what that one is.
        """
        remaining = dict(sizes)
        while remaining:
            for names in plan_batches(remaining, self.budget):
                result = self.attempt(names, compute, describe)
                if result is None:
                    break
                for name in names:
                    del remaining[name]
                yield names, result

    def attempt(
        self,
        names: list[Name],
        compute: Callable[[list[Name]], Result],
        describe: Callable[[Name], str],
    ) -> Result | None:
        """What `compute` returns; None where it runs out of memory, and then plan again."""
        try:
            return compute(names)
        except torch.OutOfMemoryError as error:
            if len(names) == 1:
                raise ModelError(
                    f"{describe(names[0])} does not fit the memory of {self.loaded.device} next to "
                    f"{self.loaded.spec.name}: try --dtype bfloat16 or --device auto"
                ) from error
            # Two or more were within the budget: half of it holds fewer, and still one.
            self.budget //= 2
            self.run.messages.append(f"out of memory: {self.unit} halved to {self.budget}")
            return None


def pad(
    rows: Sequence[Sequence[int]], pad_id: int, *, side: str = "right"
) -> tuple[Int[Tensor, "batch position"], Bool[Tensor, "batch position"]]:
    """Token ids of one batch padded to its longest row, and the mask of real positions.

    >>> pad([[5, 6, 7], [8]], pad_id=0, side="left")[0].tolist()
    [[5, 6, 7], [0, 0, 8]]
    """
    width = max(len(row) for row in rows)
    tokens = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for index, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        tokens[index, place] = torch.tensor(row, dtype=torch.long)
        mask[index, place] = True
    return tokens, mask


def positions(mask: Bool[Tensor, "batch position"]) -> Int[Tensor, "batch position"]:
    """Position ids that count real tokens only, so that the side of the padding does not matter.

    >>> positions(torch.tensor([[False, True, True]])).tolist()
    [[0, 0, 1]]
    """
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A small host tensor to the device; on CUDA from pinned memory, so that nothing waits."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class HostCopy(Generic[Name]):
    """Named tensors on their way to the host, behind the computations that follow.

    On CUDA the copies go into pinned memory while the next batch is computed, one copy for each
    shape, and for each device that a model is spread over.
    """

    def __init__(self, tensors: Mapping[Name, Tensor]) -> None:
        alike: dict[tuple[torch.device, torch.Size], list[Name]] = defaultdict(list)
        for name, tensor in tensors.items():
            alike[tensor.device, tensor.shape].append(name)
        self._copies = [
            (names, *_start_copy(torch.stack([tensors[name] for name in names])))
            for names in alike.values()
        ]

    def result(self) -> dict[Name, np.ndarray]:
        """The tensors as arrays, once they have arrived."""
        arrived: dict[Name, np.ndarray] = {}
        for names, host, event in self._copies:
            if event is not None:
                event.synchronize()
            arrived.update(zip(names, host.numpy(), strict=True))
        return arrived


def _start_copy(tensor: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    if tensor.device.type != "cuda":
        return tensor.cpu(), None
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    with torch.cuda.device(tensor.device):
        host.copy_(tensor, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
    return host, event
