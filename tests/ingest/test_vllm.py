"""The real vLLM gives the rows of transformers; `make test-engines` has an environment with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from axes.ingest.model_doctor import PASS, examine
from axes.ingest.models.registry import VLLM, resolve
from tests import commands
from tests.ingest.conftest import ImportTexts, ingest_texts, read
from tests.tiny_models import save_tiny

pytestmark = pytest.mark.engines

# More prompts than a step takes, and one longer than a page of the cache.
TEXTS = [f"number {number}" for number in range(300)] + ["a rather longer prompt " * 15]
# Kernels of attention want heads of 32 or more.
WIDE = {"hidden_size": 128}
DEVIATIONS = """
with vectors as (
    select prompt_id, layer, site, pooling, 0 as position, vector, attention
    from activations inner join models using (model_id)
    union all
    select prompt_id, layer, site, '', position, vector, attention
    from prompt_tokens inner join models using (model_id)
)
select site, pooling, layer, count(*) as row_count,
    max(list_distance(mine.vector, other.vector) / sqrt(list_dot_product(mine.vector, mine.vector)))
        as deviation
from vectors as mine inner join vectors as other
    using (prompt_id, layer, site, pooling, position)
where mine.attention = 'sdpa' and other.attention like 'vllm-%'
group by all
order by all
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("engines") / "tiny-llama", "llama", **WIDE)


def test_a_family_that_gives_no_hidden_states_is_refused_in_one_line(root: Path, tmp_path: Path):
    folder = save_tiny(tmp_path / "gemma", "gemma3_text", **WIDE, head_dim=32)
    words = ("ingest", "activations", folder, "--prompts", "demo_safety", "--engine", "vllm")
    message = commands.refused(*words, "--limit", 2, "--root", root)
    assert message.startswith("Error: vllm cannot run gemma: Model does not support EAGLE3")
    assert read(root, "from activations") == []


def test_every_token_and_pooled_row_is_that_of_transformers(
    root: Path, folder: Path, import_texts: ImportTexts, capsys: pytest.CaptureFixture[str]
):
    import_texts(TEXTS)
    spec = resolve(str(folder))
    options = {
        "poolings": ["last5_mean", "max"],
        "sites": ["resid_post", "resid_pre"],
        "token_layers": [3],
        "token_budget": 4096,
    }
    capsys.readouterr()
    rows = ingest_texts(root, replace(spec, engine=VLLM), **options).rows
    assert capsys.readouterr().out == ""
    assert ingest_texts(root, spec, **options).rows == rows
    found = read(root, DEVIATIONS)
    assert sum(row["row_count"] for row in found) == rows
    assert max(row["deviation"] for row in found) < 2e-6, found
    # A second job in this process finds a free engine.
    again = ingest_texts(root, replace(spec, engine=VLLM), poolings=["mean"], layers=[2])
    assert again.rows == len(TEXTS)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_the_doctor_finds_no_difference(family: str, tmp_path: Path):
    sizes = WIDE | ({"head_dim": 32} if family == "qwen3" else {})
    spec = resolve(str(save_tiny(tmp_path / family, family, **sizes)), engine=VLLM)
    *_, finding = examine(spec, device="cpu")
    assert finding.result == PASS, finding
    assert float(finding.detail.split()[2].rstrip(",")) < 2e-6
