"""Pooling in the workers of vLLM, which imports this module by its name (`vllm_engine`).

vLLM's connector moves hidden states, which lie in pages as keys do, to files. This one pools each
prompt on the device, in the step that computes it.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.distributed.kv_transfer import get_kv_transfer_group
from vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector import (
    ExampleHiddenStatesConnector,
)

from axes.ingest.forward.batching import HostCopy


class PoolingConnector(ExampleHiddenStatesConnector):
    """One of it serves the scheduler, and one each worker."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._reduces = pickle.loads(self._kv_transfer_config.kv_connector_extra_config["reduces"])
        self.pooled: dict[tuple[int, str], Tensor] = {}

    def build_connector_meta(self, scheduler_output: Any) -> Any:
        """Number, spans by pooling, and pages of each prompt of a step."""
        step, counts = [], scheduler_output.num_scheduled_tokens
        for request in scheduler_output.scheduled_new_reqs:
            if counts[request.req_id] < len(request.prompt_token_ids):
                raise RuntimeError("a prompt was split over two steps")
            pages = request.block_ids[self._cache_kv_group_id]
            step.append((*request.sampling_params.extra_args["prompt"], pages))
        return step

    def save_kv_layer(self, layer_name: str, kv_layer: Tensor, *_: Any, **__: Any) -> None:
        """Pool the prompts of this step; `kv_layer` is `[page, layer, place in page, d_model]`."""
        # Where a model is spread over devices, each of them has the same pages.
        if layer_name not in self.cache_layers or not self._is_tp_rank_zero:
            return
        device, size = kv_layer.device, kv_layer.shape[2]
        for number, spans, pages in self._get_connector_metadata():
            for name, (start, end) in spans.items():
                positions = torch.arange(start, end)
                page = torch.tensor(pages)[positions // size].to(device)
                # Layers take the part of a batch's rows: [layer, position, d_model].
                hidden = kv_layer[page, :, (positions % size).to(device)].transpose(0, 1).float()
                if name:
                    mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=device)
                    hidden = self._reduces[name](hidden, mask)
                self.pooled[number, name] = hidden


def take_pooled(_worker: Any) -> dict[tuple[int, str], np.ndarray]:
    """(prompt, pooling) -> `[layer, d_model]`: what was pooled since the last time."""
    connector = get_kv_transfer_group()
    pooled, connector.pooled = connector.pooled, {}
    return HostCopy(pooled).result()
