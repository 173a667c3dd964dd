"""The logit lens: which tokens a direction of the residual stream makes likelier.

A direction goes through the model's final norm (its weights, and the mean of a layer norm, but not
its bias or scale) and the unembedding (nostalgebraist 2020, "interpreting GPT: the logit lens").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from axes.ingest.models.load import blocks_path
from axes.warehouse.errors import ModelError

if TYPE_CHECKING:
    import torch

    from axes.ingest.models.load import LoadedModel


def near_tokens(
    loaded: LoadedModel, direction: Float[np.ndarray, " d_model"], count: int
) -> list[tuple[int, str, float]]:
    """Rank, token and value of the `count` tokens that the direction raises most, and lowers most.

    Ranks count from the highest, and below zero from the lowest; values are logits along the
    direction in standard deviations of all tokens. Raises `ModelError` for a model without an
    unembedding or of another width.
    """
    import torch

    head = loaded.model.get_output_embeddings()
    if head is None or len(direction) != loaded.d_model:
        raise ModelError(f"{loaded.spec.name} has no unembedding of {len(direction)} numbers")
    with torch.inference_mode():
        placed = torch.from_numpy(direction).to(loaded.device, loaded.model.dtype)
        logits = _linear(head, _linear(_final_norm(loaded), placed)).float().cpu().numpy()
    # The rest of the unembedding's rows are padding.
    logits = logits[: len(loaded.tokenizer)]
    values = (logits - logits.mean()) / logits.std()
    order = np.argsort(-values, kind="stable").tolist()
    lowest = order[-count:]
    ranked = [*enumerate(order[:count], 1), *enumerate(lowest, -len(lowest))]
    return [
        (rank, str(loaded.tokenizer.decode([token_id])), float(values[token_id]))
        for rank, token_id in ranked
    ]


def _linear(module: torch.nn.Module | None, vector: torch.Tensor) -> torch.Tensor:
    """What a module makes of a vector, less what it makes of zero, its bias."""
    import torch

    return vector if module is None else module(vector) - module(torch.zeros_like(vector))


def _final_norm(loaded: LoadedModel) -> torch.nn.Module | None:
    """The last norm of the module that holds the blocks, where it has one."""
    around = loaded.model.get_submodule(blocks_path(loaded).rpartition(".")[0])
    norms = [each for each in around.children() if "norm" in type(each).__name__.lower()]
    return norms[-1] if norms else None
