"""The real thing: recording on the demo's models against their own hidden states.

SmolLM2 is fetched if it is not in the user's cache, so that a green run always means a real model.
"""

from __future__ import annotations

import pytest
import torch

from axes.ingest.forward.batching import pad
from axes.ingest.forward.recording import block_points, record, run_backbone
from axes.ingest.forward.templates import Template, pad_id, render
from axes.ingest.models.download import fetch
from axes.ingest.models.identity import identify
from axes.ingest.models.load import LoadedModel, load
from axes.ingest.models.registry import resolve
from axes.warehouse.settings import cache_folder

# Taken at import, before the fixtures give each test an empty cache.
USER_CACHE = cache_folder()

TEXTS = ["Name three rivers.", "Hi", "How do I keep a sourdough starter alive through the winter?"]


@pytest.fixture(scope="module", params=["smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b"])
def loaded(request: pytest.FixtureRequest) -> LoadedModel:
    spec = resolve(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AXES_CACHE", str(USER_CACHE))
        is_cached = (USER_CACHE / "models" / f"gguf-{spec.sha256[:16]}").exists()
        if not is_cached and request.param != "smollm2-135m":
            pytest.skip(f"{request.param} is not in {USER_CACHE}: `make demo` fetches it")
        folder = fetch(spec)
        return load(spec, folder, identify(spec, folder, "float32"), "cpu")


def recorded(loaded: LoadedModel, run) -> list[torch.Tensor]:
    outputs: dict[int, torch.Tensor] = {}
    layers = range(loaded.layer_count)
    points = block_points(loaded.blocks, layers)
    with record(points, lambda point, hidden: outputs.update({point.layer: hidden.clone()})):
        run()
    return [outputs[layer] for layer in layers]


def token_ids(loaded: LoadedModel, texts: list[str], policy: str = "raw") -> list[list[int]]:
    rendered = render(loaded.tokenizer, texts, Template(policy), loaded.spec.name)
    return [prompt.token_ids for prompt in rendered]


def test_recorded_outputs_are_the_models_own_hidden_states(loaded):
    rows = token_ids(loaded, TEXTS)
    with torch.inference_mode():
        own = [
            loaded.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            for ids in rows
        ]
    for side in ("right", "left"):
        tokens, mask = pad(rows, pad_id(loaded.tokenizer), side=side)
        batch = recorded(loaded, lambda at=tokens, of=mask: run_backbone(loaded.model, at, of))
        for row, states in enumerate(own):
            assert len(states) == loaded.layer_count + 1
            # All blocks but the last, whose entry the final norm has changed.
            for layer in range(loaded.layer_count - 1):
                mine, theirs = batch[layer][row][mask[row]], states[layer + 1][0]
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max())


def test_the_last_block_is_recorded_before_the_final_norm(loaded):
    rows = token_ids(loaded, TEXTS[:1])
    tokens, mask = pad(rows, 0)
    last = recorded(loaded, lambda: run_backbone(loaded.model, tokens, mask))[-1]
    with torch.inference_mode():
        own = loaded.model(tokens, output_hidden_states=True).hidden_states[-1]
        normed = loaded.model.base_model.norm(last)
    torch.testing.assert_close(normed, own, rtol=1e-4, atol=1e-4 * float(own.abs().max()))
    assert not torch.allclose(last, own, rtol=1e-2)


def test_bos_and_pad_side_are_the_tokenizers_own(loaded):
    ids = token_ids(loaded, ["Hello"])[0]
    has_bos = ids[0] == loaded.tokenizer.bos_token_id
    assert has_bos == loaded.spec.name.startswith("gemma3")
    if loaded.tokenizer.chat_template is not None:
        chat = token_ids(loaded, ["Hello"], "chat")[0]
        assert len(chat) > len(ids) and chat.count(ids[-1]) >= 1
