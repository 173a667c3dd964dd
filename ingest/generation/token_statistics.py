"""The statistics of each token that a model runs: distribution, vectors, projections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from axes.ingest.models.load import LoadedModel, non_finite
from axes.warehouse.axes import AxisReadout

# Below this difference of logits the probability is exactly 0; it replaces minus infinity.
_RULED_OUT = -1e4


@dataclass(frozen=True)
class Kept:
    """What is kept of each token: vectors at `layers`, projections, the likeliest `top_count`."""

    layers: Sequence[int] = ()
    readouts: Sequence[AxisReadout] = ()
    top_count: int = 0

    @property
    def recorded_layers(self) -> list[int]:
        """The layers that have rows."""
        return sorted({*self.layers, *(readout.layer for readout in self.readouts)})


@dataclass
class Trace:
    """One completion: token ids, and the statistics of each token.

    `statistics` are those of `token_statistics`, `[token, ...]`; a token with no distribution
    before it has NaN, and -1 as ids. `vectors` are by layer, `projections` by `AxisReadout.key`.
    `first_step` is the step of the first token: below 0 where the prompt's tokens come first.
    """

    prompt_id: str
    token_ids: list[int]
    statistics: dict[str, np.ndarray]
    vectors: dict[int, np.ndarray]
    projections: dict[tuple, np.ndarray]
    finish_reason: str
    first_step: int = 0


def require_finite(loaded: LoadedModel, trace: Trace) -> None:
    """Raise `NonFiniteError` where a trace holds NaN or infinity, naming the lowest layer."""
    prompt = f"for prompt {trace.prompt_id}"
    kept = [
        *trace.vectors.items(),
        *((key[1], values) for key, values in trace.projections.items()),
    ]
    for layer, values in sorted(kept, key=lambda item: item[0]):
        if not np.isfinite(values).all():
            raise non_finite(loaded, f"at layer {layer} {prompt}")
    # The first token of a prompt has no distribution before it.
    start = 0 if trace.first_step == 0 else 1
    if np.isnan(trace.statistics["entropy"][start:]).any():
        place = f"above layer {max(layer for layer, _ in kept)}" if kept else "in the logits"
        raise non_finite(loaded, f"{place} {prompt}")


class Projector:
    """Projects the outputs of a layer on its readouts, in float64 where the device supports it."""

    def __init__(self, readouts: Sequence[AxisReadout], device: torch.device) -> None:
        self._dtype = torch.float32 if device.type == "mps" else torch.float64
        self._maps: dict[int, tuple[Tensor, Tensor]] = {}
        self.keys: dict[int, list[tuple]] = {}
        for layer in {readout.layer for readout in readouts}:
            of_layer = [readout for readout in readouts if readout.layer == layer]
            # [d_model, readout]: one product gives the projections on all readouts of the layer.
            matrix = np.stack([readout.vector for readout in of_layer], axis=1)
            offsets = np.array([readout.offset for readout in of_layer])
            self._maps[layer] = (
                torch.as_tensor(matrix, dtype=self._dtype, device=device),
                torch.as_tensor(offsets, dtype=self._dtype, device=device),
            )
            self.keys[layer] = [readout.key for readout in of_layer]

    def project(
        self, layer: int, hidden: Float[Tensor, "*batch d_model"]
    ) -> Float[Tensor, "*batch readout"]:
        """Projections on `keys[layer]`, in that order."""
        matrix, offset = self._maps[layer]
        # A model may be spread over devices.
        matrix, offset = matrix.to(hidden.device), offset.to(hidden.device)
        return hidden.to(self._dtype) @ matrix + offset


def token_statistics(
    logits: Float[Tensor, "row vocabulary"], token_ids: Int[Tensor, " row"], top_count: int = 0
) -> dict[str, Tensor]:
    """`logprob` of one token in each row and `entropy` (nats), without a second copy of the logits.

    With `top_count` the likeliest tokens as well: `top_ids` and `top_logprobs`, `[row, top_count]`.
    With `m` the largest logit and `Z = sum exp(x - m)`: `log p = x - m - log Z`, and the entropy is
    `log Z - sum p (x - m)`. NaN wherever a logit is NaN or plus infinity.
    """
    largest = logits.amax(-1, keepdim=True)
    # In place from here on: the buffer is of the size of the logits, and fresh memory is slow.
    shifted = (logits - largest).clamp_(min=_RULED_OUT)
    # exp(x - m), [row, vocabulary]; its sum is Z.
    exponentials = shifted.exp()
    total = exponentials.sum(-1, keepdim=True)
    log_total = total.log()
    weighed = shifted.mul_(exponentials).sum(-1, keepdim=True)
    chosen = logits.gather(1, token_ids[:, None])
    statistics = {
        "logprob": (chosen - largest - log_total).squeeze(1),
        "entropy": (log_total - weighed / total).squeeze(1),
    }
    if top_count:
        top = logits.topk(min(top_count, logits.shape[-1]), -1)
        statistics |= {"top_ids": top.indices, "top_logprobs": top.values - largest - log_total}
    return statistics
