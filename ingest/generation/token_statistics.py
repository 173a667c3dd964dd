"""The statistics of each token that a model runs: distribution, vectors, projections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
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

    `first_step` is the step of the first token: below 0 where the prompt's tokens come first.
    `vectors` are by layer, `projections` by `AxisReadout.key`, `top_ids` and `top_logprobs`
    `[token, top_count]`. A token with no distribution before it has NaN as log-probability.
    """

    prompt_id: str
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    vectors: dict[int, np.ndarray] = field(default_factory=dict)
    projections: dict[tuple, np.ndarray] = field(default_factory=dict)
    top_ids: np.ndarray | None = None
    top_logprobs: np.ndarray | None = None
    finish_reason: str = "length"
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
    if np.isnan(trace.entropies[start:]).any():
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


class Distributions:
    """Log-probabilities and entropies (nats) of rows of logits, without a second copy of them.

    With `m` the largest logit and `Z = sum exp(x - m)`: `log p = x - m - log Z`, and the entropy is
    `log Z - sum p (x - m)`. NaN wherever a logit is NaN or plus infinity.
    """

    def __init__(self, logits: Float[Tensor, "row vocabulary"], top_count: int = 0) -> None:
        self._logits = logits
        self._max = logits.amax(-1, keepdim=True)
        # In place from here on: the buffer is of the size of the logits, and fresh memory is slow.
        shifted = (logits - self._max).clamp_(min=_RULED_OUT)
        # exp(x - m), [row, vocabulary]; its sum is Z.
        exponentials = shifted.exp()
        total = exponentials.sum(-1, keepdim=True)
        self._log_total = total.log()
        weighed = torch.bmm(exponentials[:, None, :], shifted[:, :, None])[:, 0]
        self.entropies = (self._log_total - weighed / total).squeeze(1)
        self.top_ids, self.top_logprobs = None, None
        if top_count:
            top = logits.topk(min(top_count, logits.shape[-1]), -1)
            self.top_ids = top.indices
            self.top_logprobs = top.values - self._max - self._log_total

    def logprobs(self, token_ids: Tensor) -> Float[Tensor, " row"]:
        """The log-probability of one token in each row."""
        chosen = self._logits.gather(1, token_ids[:, None])
        return (chosen - self._max - self._log_total).squeeze(1)
