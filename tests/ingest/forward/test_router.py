"""The gate's logits are the model's own `router_logits`, as rows of the site `router`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from axes.analysis.activations import find_space
from axes.ingest.forward.batching import pad
from axes.ingest.forward.recording import find_points, recorded
from axes.ingest.models.registry import resolve
from axes.warehouse.errors import ModelError
from axes.warehouse.handle import Warehouse
from tests.ingest.conftest import (
    ImportTexts,
    assert_checks_pass,
    ingest_texts,
    loaded_on_cpu,
    read,
)
from tests.ingest.forward.families import FAMILIES, ROWS, loaded_tiny, shared_tiny
from tests.tiny_models import save_tiny

# The blocks of a family that have a router.
ROUTED = {
    "deepseek_v3": [1, 2, 3],
    "gpt_oss": [0, 1, 2, 3],
    "granitemoehybrid": [0, 1, 2, 3],
    "jamba": [1, 3],
    "llama4_text": [0, 1, 2, 3],
    "mixtral": [0, 1, 2, 3],
    "nemotron_h": [3],
    "olmoe": [0, 1, 2, 3],
    "qwen3_moe": [0, 1, 2, 3],
    "qwen3_next": [0, 1, 2, 3],
}


@pytest.mark.parametrize(("family", "layers"), ROUTED.items())
def test_the_logits_are_the_models_own(family: str, layers: list[int]) -> None:
    loaded = shared_tiny(family)
    points = find_points(loaded, layers, ("router",))
    tokens, mask = pad(ROWS, 0)
    found = recorded(loaded.model, list(points.values()), tokens, mask)
    for index, row in enumerate(ROWS):
        with torch.no_grad():
            own = loaded.model(torch.tensor([row]), output_router_logits=True, use_cache=False)
        assert len(own.router_logits) == len(layers)
        for layer, expected in zip(layers, own.router_logits, strict=True):
            logits = found[points[layer, "router"]][index][mask[index]]
            assert logits.shape == (len(row), 4)
            torch.testing.assert_close(logits, expected.reshape(logits.shape))


def test_a_block_without_a_router_is_one_line_that_names_those_with_one() -> None:
    for family, message in (
        ("llama", "^tiny-llama has no router at layer 0$"),
        ("deepseek_v3", "^tiny-deepseek_v3 has no router at layer 0: choose of --layers 1,2,3$"),
    ):
        with pytest.raises(ModelError, match=message):
            find_points(shared_tiny(family), range(4), ("router",))
    two = loaded_tiny("mixtral")
    two.blocks[1].more = two.blocks[0].mlp
    with pytest.raises(ModelError, match="no router at layer 1: choose of --layers 0,2,3"):
        find_points(two, [1], ("router",))


def test_experts_that_ran_are_the_largest_logits_of_stored_rows(
    root: Path, tmp_path: Path, import_texts: ImportTexts
) -> None:
    import_texts(["hello there", "hi"])
    spec = resolve(str(save_tiny(tmp_path / "moe", "mixtral", **FAMILIES["mixtral"])))
    # A shared prefix too: "<s>A rather " begins both prompts under this template.
    chosen = {"template": "chat", "system": "A rather long one."}
    kept = {"sites": ("router", "resid_post"), "poolings": ("mean", "last"), "token_layers": (1,)}
    summary = ingest_texts(root, spec, layers=(1, 2), **kept, **chosen)
    assert_checks_pass(root)
    rows = read(
        root,
        "select text, position, list_grade_up(vector, 'desc')[:2] as experts "
        "from prompt_tokens join (select distinct prompt_id, text from prompts) using (prompt_id) "
        "where site = 'router' and layer = 1 order by text, position",
    )
    loaded = loaded_on_cpu(spec)
    ran: list[torch.Tensor] = []
    handle = loaded.blocks[1].mlp.gate.register_forward_hook(lambda *got: ran.append(got[2][2]))
    for text in ("hello there", "hi"):
        rendered = f"<system>A rather long one.<user>{text}<assistant>"
        loaded.model(torch.tensor([loaded.tokenizer(rendered).input_ids]))
    handle.remove()
    expected = [sorted(pair) for pair in torch.cat(ran).tolist()]
    assert [sorted(expert - 1 for expert in row["experts"]) for row in rows] == expected
    (last,) = read(
        root,
        "select vector from activations join (select distinct prompt_id, text from prompts) "
        "using (prompt_id) where site = 'router' and layer = 1 and pooling = 'last' "
        "and text = 'hi'",
    )
    (token,) = read(
        root,
        "select vector from prompt_tokens join (select distinct prompt_id, text from prompts) "
        "using (prompt_id) where site = 'router' and text = 'hi' "
        "order by position desc limit 1",
    )
    np.testing.assert_allclose(last["vector"], token["vector"], atol=1e-5)
    assert summary.rows == 2 * 2 * 2 * 2 + 2 * len(rows)
    with pytest.raises(ModelError, match=r"^router rows are gate logits, .* read them with SQL$"):
        find_space(Warehouse.open(root), "moe", site="router")
