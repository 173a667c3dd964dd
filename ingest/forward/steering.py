"""Change the outputs of a model's blocks along an axis, while it runs.

`add`     moves a block's output by `strength * unit` along the axis (Turner et al. 2023; Rimsky et
          al. 2024)
`ablate`  takes the share `strength` of the component along the axis away (Arditi et al. 2024)
`clamp`   sets the projection on the axis to `strength * unit`

The change is made after the block, as llama.cpp applies a control vector: the
`resid_post` of that block is the changed output. The axis is a unit vector in the model's space;
an axis of another space is pulled back first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from axes.ingest.forward.recording import CACHE_ARGUMENTS, keeps_keys
from axes.ingest.models.load import LoadedModel, require_layers
from axes.ingest.requests import CONDITIONS, STEERED_POSITIONS, STEERING_MODES
from axes.warehouse.errors import AxisError

# How far from 1 the norm of a unit vector may be, which was stored as float32.
_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Intervention:
    """One change, made after each block of `layers`.

    `axis` is a unit vector `[d_model]`. `strength` is a number, or a tensor `[batch]` with one for
    every row of the batch. `unit` is what a strength of 1 stands for, such as the median norm of
    activations at the layer (or block -> unit). `positions` are all, those of the prompt or those
    that are generated. With `above` only what projects higher than `above * unit` before the change
    is changed: position by position, or with `condition` "row" all of a row whose last prompt
    token does.
    """

    axis: Float[Tensor, " d_model"] | Float[np.ndarray, " d_model"]
    layers: Sequence[int]
    mode: str = "add"
    strength: float | Float[Tensor, " batch"] = 1.0
    unit: float | Mapping[int, float] = 1.0
    positions: str = "all"
    above: float | None = None
    condition: str = "position"


@contextmanager
def steer(
    loaded: LoadedModel,
    interventions: Sequence[Intervention],
    *,
    prompt_width: int | Sequence[int] | None = None,
) -> Iterator[None]:
    """While active, the interventions change the outputs of the model's blocks.

    Works for a forward pass, with a KV cache and with `generate`; several interventions at one
    block are made in their order. The tensors that blocks put out are replaced, never changed.

    `prompt_width` is the number of columns, padding included, before the first generated token, or
    one for every row. Default: what the pass without a cache before it holds, as in `generate`.

    Raises `LayerError` for a block that does not exist; `AxisError` for an axis of another width or
    not of unit length, or strengths that are not one for each row.

        with steer(loaded, [Intervention(axis, layers=[20], strength=0.1, unit=390.0)]):
            loaded.model.generate(tokens)
    """
    for intervention in interventions:
        _require_sound(loaded, intervention)
    current = _Pass(prompt_width)
    with ExitStack() as hooks:
        if any(item.positions != "all" or item.condition == "row" for item in interventions):
            handle = loaded.model.base_model.register_forward_pre_hook(
                current.begin, with_kwargs=True
            )
            hooks.callback(handle.remove)
        for intervention in interventions:
            for layer in intervention.layers:
                change = _Change(intervention, layer, current)
                hooks.callback(loaded.blocks[layer].register_forward_hook(change).remove)
        yield


def _require_sound(loaded: LoadedModel, intervention: Intervention) -> None:
    require_layers(loaded.spec.name, loaded.layer_count, intervention.layers)
    for name, value, allowed in (
        ("mode", intervention.mode, STEERING_MODES),
        ("positions", intervention.positions, STEERED_POSITIONS),
        ("condition", intervention.condition, CONDITIONS),
    ):
        if value not in allowed:
            raise AxisError(f"{name} {value} is unknown: it is {', '.join(allowed)}")
    axis = torch.as_tensor(intervention.axis)
    if axis.shape != (loaded.d_model,):
        raise AxisError(
            f"an axis of shape {list(axis.shape)} does not fit {loaded.spec.name}, whose blocks "
            f"put out {loaded.d_model} numbers: one of another model is pulled back first"
        )
    norm = float(axis.double().norm())
    if abs(norm - 1) > _TOLERANCE:
        raise AxisError(
            f"the axis has norm {norm:.4g}: divide it by that and scale the strength instead"
        )


class _Pass:
    """Which columns of the pass under way are the prompt's, and which hold tokens at all."""

    def __init__(self, prompt_width: int | Sequence[int] | None) -> None:
        self._given = prompt_width
        self._width: int | None = None
        self._mask: Tensor | None = None
        self._cache: Any = None
        self._counted = 0
        self.before = 0

    def begin(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """See the inputs of a pass; a mask of two dimensions covers what the cache holds too."""
        inputs = args[0] if args else kwargs.get("input_ids")
        width = (kwargs["inputs_embeds"] if inputs is None else inputs).shape[1]
        mask = kwargs.get("attention_mask")
        self._mask = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
        cache = next(
            (kwargs[name] for name in CACHE_ARGUMENTS if kwargs.get(name) is not None), None
        )
        self.before = self._seen(cache) if self._mask is None else self._mask.shape[1] - width
        self._cache, self._counted = cache, self.before + width
        if self.before == 0 or self._width is None:
            self._width = self.before + width

    def is_generated(self, hidden: Tensor) -> Bool[Tensor, "rows position"]:
        """Which positions stand behind the prompt."""
        columns = self.before + torch.arange(hidden.shape[1], device=hidden.device)
        width = self._width if self._given is None else self._given
        assert width is not None
        return columns >= torch.as_tensor(width, device=hidden.device).reshape(-1, 1)

    def last_of_prompt(self, hidden: Tensor) -> Tensor:
        """`[batch]`: where in this pass each row's last prompt token stands."""
        is_prompt = ~self.is_generated(hidden)
        if self._mask is not None:
            is_prompt = is_prompt & self._mask[:, self.before :].bool().to(hidden.device)
        columns = torch.arange(hidden.shape[1], device=hidden.device)
        return torch.where(is_prompt, columns, 0).amax(1).expand(len(hidden))

    def _seen(self, cache: Any) -> int:
        """Columns that were run into a cache; one of states alone cannot tell, and is counted."""
        if cache is None:
            return 0
        if keeps_keys(cache):
            return int(cache.get_seq_length())
        return self._counted if cache is self._cache else 0


class _Change:
    """The hook of one intervention at one block."""

    def __init__(self, intervention: Intervention, layer: int, current: _Pass) -> None:
        self._intervention, self._pass = intervention, current
        unit = intervention.unit
        self._unit = unit[layer] if isinstance(unit, Mapping) else unit
        self._strength = torch.as_tensor(intervention.strength, dtype=torch.float64).reshape(-1, 1)
        self._ready: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self._is_open: Tensor | None = None

    def __call__(self, module: torch.nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (self._changed(output[0]), *output[1:])
        return self._changed(output)

    def _changed(self, hidden: Tensor) -> Tensor:
        # Half precision is widened, since the projection is a sum over all of the width.
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        axis, strength = self._on(hidden.device, dtype)
        if len(strength) not in (1, len(hidden)):
            raise AxisError(f"{len(strength)} strengths for a batch of {len(hidden)} rows")
        wide = hidden.to(dtype)
        amount = self._unit * strength  # [#batch, 1]
        if self._intervention.mode != "add" or self._intervention.above is not None:
            projection = wide @ axis  # [batch, position]
            if self._intervention.mode == "ablate":
                amount = -strength * projection
            elif self._intervention.mode == "clamp":
                amount = amount - projection
            if self._intervention.above is not None:
                amount = torch.where(self._passes(hidden, projection), amount, 0.0)
        if self._intervention.positions != "all":
            wants_generated = self._intervention.positions == "generated"
            is_meant = self._pass.is_generated(hidden) == wants_generated
            amount = torch.where(is_meant, amount, 0.0)
        return torch.addcmul(wide, amount[..., None], axis).to(hidden.dtype)

    def _on(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Axis and strengths where the block is: a model may be spread over several devices."""
        if (device, dtype) not in self._ready:
            axis = torch.as_tensor(self._intervention.axis).to(device, dtype)
            self._ready[device, dtype] = axis, self._strength.to(device, dtype)
        return self._ready[device, dtype]

    def _passes(self, hidden: Tensor, projection: Tensor) -> Bool[Tensor, "batch columns"]:
        assert self._intervention.above is not None
        is_above = projection > self._intervention.above * self._unit
        if self._intervention.condition == "position":
            return is_above
        if self._pass.before == 0 or self._is_open is None:
            self._is_open = is_above.gather(1, self._pass.last_of_prompt(hidden)[:, None])
        return self._is_open
