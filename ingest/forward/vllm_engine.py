"""Batches through vLLM instead of transformers, pooled where the model runs.

vLLM numbers hidden states by the block that reads them: number k is the input of block k, and the
output of block k - 1 before any final norm.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping

import numpy as np
import torch

from axes.ingest.forward.activation_keys import Item
from axes.ingest.forward.batching import HostCopy
from axes.ingest.forward.forward import Batch, spans_of
from axes.ingest.forward.pooling import Pooling
from axes.ingest.forward.templates import Rendered
from axes.ingest.jobs import Job
from axes.ingest.models.config import loading
from axes.ingest.models.load import import_vllm
from axes.ingest.models.registry import VLLM_ROOM
from axes.warehouse.errors import ModelError
from axes.warehouse.names import RESID_POST


class VllmEngines:
    """The engine of a job; another takes its place for prompts that are longer."""

    def __init__(self, job: Job, items: list[Item], poolings: Mapping[str, Pooling]) -> None:
        self._job, self._items, self._poolings = job, items, poolings
        self._longest = 0
        self._engine: VllmEngine | None = None

    def engine(self, longest: int, budget: int) -> VllmEngine:
        """One for prompts of at most `longest` tokens."""
        if self._engine is None or longest > self._longest:
            self.close()
            self._engine = VllmEngine(self._job, self._items, self._poolings, longest, budget)
            self._longest = longest
        return self._engine

    def close(self) -> None:
        """End the engine, if there is one."""
        if self._engine is not None:
            self._engine.close()
        self._engine = None


class VllmEngine:
    """What `Forward` is, for `items` of prompts of at most `longest` tokens.

    Raises `ModelError` where vLLM is built for another device or cannot run the model.
    """

    def __init__(
        self,
        job: Job,
        items: list[Item],
        poolings: Mapping[str, Pooling],
        longest: int,
        budget: int,
    ) -> None:
        self._vllm = import_vllm()
        import cloudpickle
        from vllm.platforms import current_platform

        if job.device not in (current_platform.device_type, "auto"):
            raise ModelError(f"vllm is built for {current_platform.device_type}, not {job.device}")
        gc.collect()  # Of a model that was run before, in this process.
        torch.cuda.empty_cache()
        self._name, self._poolings = job.spec.name, poolings
        numbers = {item: item.layer + (item.site == RESID_POST) for item in items}
        layer_ids = sorted({*numbers.values()})
        self._places = {item: layer_ids.index(number) for item, number in numbers.items()}
        reduces = {name: pooling.reduce for name, pooling in poolings.items()}
        numbered = {"hf_config": {"eagle_aux_hidden_state_layer_ids": layer_ids}}
        max_length = longest + VLLM_ROOM
        with loading(f"vllm cannot run {self._name}"):
            self._llm = self._vllm.LLM(
                str(job.folder),
                dtype=job.identity.dtype,
                skip_tokenizer_init=True,
                tensor_parallel_size=torch.cuda.device_count() or 1 if job.device == "auto" else 1,
                enforce_eager=True,  # Compiling takes minutes, and is for generating.
                async_scheduling=False,
                enable_prefix_caching=False,
                max_model_len=max_length,
                max_num_batched_tokens=max(budget, max_length),  # A batch is one step.
                speculative_config={
                    "method": "extract_hidden_states",
                    "num_speculative_tokens": 1,
                    "draft_model_config": numbered,
                },
                kv_transfer_config={
                    "kv_connector": "PoolingConnector",
                    "kv_connector_module_path": "axes.ingest.forward.vllm_connector",
                    "kv_role": "kv_producer",
                    "kv_connector_extra_config": {"reduces": cloudpickle.dumps(reduces)},
                },
            )

    def start(self, prompt_ids: list[str], rendered: list[Rendered]) -> Batch:
        """Compute a batch, and wait for it."""
        from axes.ingest.forward.vllm_connector import take_pooled

        spans = {name: spans_of(pooling, rendered) for name, pooling in self._poolings.items()}
        places = {**spans, "": [(0, len(row.token_ids)) for row in rendered]}
        names = {item.pooling for item in self._places}
        by_prompt = [{name: places[name][row] for name in names} for row in range(len(rendered))]
        parameters = [
            self._vllm.SamplingParams(max_tokens=1, detokenize=False, extra_args={"prompt": prompt})
            for prompt in enumerate(by_prompt)
        ]
        prompts = [{"prompt_token_ids": list(row.token_ids)} for row in rendered]
        with loading(f"vllm stopped at {self._name}"):
            self._llm.generate(prompts, parameters, use_tqdm=False)
            pooled = self._llm.collective_rpc(take_pooled)[0]
        results = {}
        for item, place in self._places.items():
            rows = [pooled[number, item.pooling][place] for number in range(len(rendered))]
            results[item] = torch.from_numpy(np.stack(rows) if item.pooling else np.vstack(rows))
        return Batch(prompt_ids, rendered, spans, HostCopy(results))

    def close(self) -> None:
        """End the engine."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
