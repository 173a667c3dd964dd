"""A package vllm with the interface that ours uses: transformers runs the model, into pages."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

CONNECTOR = "axes.ingest.forward.vllm_connector"
VARIABLES = (
    "VLLM_ENABLE_V1_MULTIPROCESSING",
    "VLLM_NO_USAGE_STATS",
    "VLLM_LOGGING_LEVEL",
    "VLLM_CPU_KVCACHE_SPACE",
)
# Smaller than a prompt, so that one is spread over pages.
PAGE = 4


class Connector:
    """Their base class, as far as ours relies on it."""

    cache_layers = ("cache_only_layers.4",)
    _cache_kv_group_id = 1
    _is_tp_rank_zero = True

    def __init__(self, transfer: dict[str, Any]) -> None:
        self._kv_transfer_config = SimpleNamespace(**transfer)

    def _get_connector_metadata(self) -> Any:
        return self.metadata


class FakeVllm:
    """What the next models do, and the options of those that were made."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        # Added to each number: 1 gives the next block.
        self.shift = 0
        self.splits = False
        self.running = 0

    def model(self, folder: str, **options: Any) -> SimpleNamespace:
        """`vllm.LLM`."""
        if self.failure is not None:
            raise self.failure
        self.made.append(options)
        self.running += 1
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, options["dtype"]))
        model.model.norm = torch.nn.Identity()
        transfer = options["kv_transfer_config"]
        kind = getattr(
            importlib.import_module(transfer["kv_connector_module_path"]), transfer["kv_connector"]
        )
        self.connector = connector = kind(transfer)
        hf_config = options["speculative_config"]["draft_model_config"]["hf_config"]
        numbers = [number + self.shift for number in hf_config["eagle_aux_hidden_state_layer_ids"]]

        def generate(prompts: list[dict], parameters: list[Any], use_tqdm: bool) -> None:
            every_ids = [prompt["prompt_token_ids"] for prompt in prompts]
            pages = sum(-(-len(ids) // PAGE) for ids in every_ids)
            # Pages that no prompt has hold NaN, and they are given out in no order.
            cache = torch.full((2 * pages, len(numbers), PAGE, model.config.hidden_size), torch.nan)
            free = torch.randperm(2 * pages).tolist()
            requests = []
            for place, ids in enumerate(every_ids):
                blocks = [free.pop() for _ in range(-(-len(ids) // PAGE))]
                with torch.inference_mode():
                    states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
                for position in range(len(ids)):
                    for index, number in enumerate(numbers):
                        vector = states[min(number, len(states) - 1)][0, position]
                        cache[blocks[position // PAGE], index, position % PAGE] = vector
                requests.append(
                    SimpleNamespace(
                        req_id=str(place),
                        prompt_token_ids=ids,
                        sampling_params=parameters[place],
                        block_ids=([], blocks),
                    )
                )
            counts = {str(place): len(ids) - self.splits for place, ids in enumerate(every_ids)}
            connector.metadata = connector.build_connector_meta(
                SimpleNamespace(scheduled_new_reqs=requests, num_scheduled_tokens=counts)
            )
            connector.save_kv_layer("layers.0", cache, None)
            connector.save_kv_layer("cache_only_layers.4", cache, None)

        def shutdown() -> None:
            self.running -= 1

        return SimpleNamespace(
            generate=generate,
            collective_rpc=lambda function: [function(None)],
            llm_engine=SimpleNamespace(engine_core=SimpleNamespace(shutdown=shutdown)),
        )


def install(monkeypatch: pytest.MonkeyPatch) -> FakeVllm:
    """The package in the place of the real one, until the test ends."""
    fake = FakeVllm()
    contents: dict[str, dict[str, Any]] = {
        "vllm": {
            "LLM": fake.model,
            "SamplingParams": SimpleNamespace,
            "__version__": "0.32.0",
            "__spec__": ModuleSpec("vllm", None),
        },
        "vllm.platforms": {"current_platform": SimpleNamespace(device_type="cpu")},
        "vllm.distributed": {},
        "vllm.distributed.kv_transfer": {"get_kv_transfer_group": lambda: fake.connector},
        "vllm.distributed.kv_transfer.kv_connector": {},
        "vllm.distributed.kv_transfer.kv_connector.v1": {},
        "vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector": {
            "ExampleHiddenStatesConnector": Connector
        },
    }
    for name, values in contents.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # So that the test's end takes it away again.
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, CONNECTOR, raising=False)
    monkeypatch.setitem(sys.modules, CONNECTOR, importlib.import_module(CONNECTOR))
    return fake
