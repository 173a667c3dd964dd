"""Rows of another engine: the same vectors under a key of their own, or one line why not.

vLLM is a package of the test's (`fake_vllm`) that the driver and the connector run in; with the
real one they run in `tests/engines`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from axes.ingest.activations import plan_activations
from axes.ingest.model_doctor import FAIL, PASS, examine
from axes.ingest.models.registry import VLLM, ModelSpec
from axes.warehouse.errors import LayerError, ModelError, PromptError
from tests import commands
from tests.ingest.conftest import (
    ImportTexts,
    assert_checks_pass,
    for_texts,
    ingest_texts,
    read,
)
from tests.ingest.fake_vllm import FakeVllm, install
from tests.tiny_models import SIZES

TEXTS = ["hello there, you", "hi", "a rather longer prompt than the others are", "what is it"]
POOLING = """
from axes.ingest.forward.pooling import Pooling, maximum
POOLING = Pooling("first3_max", lambda count, user_end: (0, min(3, count)), maximum)
"""


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> FakeVllm:
    return install(monkeypatch)


@pytest.fixture
def spec(llama: ModelSpec) -> ModelSpec:
    """The tiny llama, run by vLLM."""
    return replace(llama, engine=VLLM)


def vectors(root: Path, model_id: str) -> dict[tuple, np.ndarray]:
    """Key but for the model version -> vector, pooled and of every token."""
    found = read(
        root,
        "select prompt_id, layer, site, pooling, 0 as position, vector from activations "
        "where model_id = $id union all "
        "select prompt_id, layer, site, '', position, vector from prompt_tokens "
        "where model_id = $id",
        {"id": model_id},
    )
    return {tuple(row.values())[:-1]: np.float32(row["vector"]) for row in found}


def test_rows_are_those_of_transformers_under_a_key_of_their_own(
    root: Path, llama: ModelSpec, spec: ModelSpec, vllm: FakeVllm, import_texts, tmp_path
):
    import_texts(TEXTS)
    (tmp_path / "first3.py").write_text(POOLING)
    options = {
        "poolings": ["last5_mean", "max", str(tmp_path / "first3.py"), "mean+bfloat16"],
        "sites": ["resid_post", "resid_pre"],
        "token_layers": [0, 3],
        "token_budget": 40,
    }
    mine, others = ingest_texts(root, llama, **options), ingest_texts(root, spec, **options)
    assert mine.model == others.model and mine.model_id != others.model_id
    assert mine.rows == others.rows and mine.tokens == others.tokens
    expected, found = vectors(root, mine.model_id), vectors(root, others.model_id)
    assert expected.keys() == found.keys() and len(found) == mine.rows
    for key, vector in expected.items():
        tolerance = 1e-2 if key[3] == "mean+bfloat16" else 1e-5
        np.testing.assert_allclose(found[key], vector, rtol=tolerance, atol=1e-6, err_msg=str(key))
    versions = read(root, "select attention, parameter_count from models order by attention")
    assert [row["attention"] for row in versions] == ["sdpa", "vllm-0.32.0"]
    assert len({row["parameter_count"] for row in versions}) == 1
    assert read(root, "select parameters ->> 'engine' as engine from runs order by started_at") == [
        {"engine": "transformers"},
        {"engine": "vllm"},
    ]
    assert_checks_pass(root)
    # Nothing is sent to the makers of vLLM, and its memory is free again.
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1" and vllm.running == 0


def test_missing_rows_alone_are_run_and_another_version_is_another_key(
    root: Path, spec: ModelSpec, vllm: FakeVllm, import_texts: ImportTexts, monkeypatch
):
    import_texts(TEXTS)
    first = ingest_texts(root, spec, layers=[1])
    assert ingest_texts(root, spec, layers=[1]).rows == 0 and len(vllm.made) == 1
    import_texts([*TEXTS, "a new one"])
    # Two groups of prompts, which miss different layers, and one engine for both.
    added = ingest_texts(root, spec, layers=[1, 2])
    assert added.model_id == first.model_id and added.rows == len(TEXTS) + 2
    assert len(vllm.made) == 2
    monkeypatch.setattr(sys.modules["vllm"], "__version__", "0.33.0")
    assert ingest_texts(root, spec, layers=[1]).model_id != first.model_id


def test_a_dry_run_times_a_batch_and_writes_nothing(
    root: Path, spec: ModelSpec, vllm: FakeVllm, import_texts: ImportTexts
):
    import_texts(TEXTS)
    plan = plan_activations(root, spec, for_texts())
    assert plan.rows == 4 * len(TEXTS) and plan.tokens_per_second and vllm.running == 0
    assert read(root, "from activations") == []


def test_what_the_engine_cannot_do_is_said_in_one_line(
    root: Path, spec: ModelSpec, vllm: FakeVllm, import_texts: ImportTexts
):
    import_texts(TEXTS)
    cases = [
        (
            spec,
            {"sites": ["resid_post", "mlp_out"]},
            "--engine vllm does not go with --site mlp_out",
        ),
        (spec, {"sites": ["resid_mid"]}, "--engine vllm does not go with --site resid_mid"),
        (replace(spec, adapter="./lora"), {}, "--engine vllm does not go with --adapter"),
        (replace(spec, attention="eager"), {}, "--engine vllm does not go with --attention"),
        (spec, {"device": "cuda"}, "vllm is built for cpu, not cuda"),
    ]
    for each, options, message in cases:
        with pytest.raises(ModelError, match=message):
            ingest_texts(root, each, **options)
    with pytest.raises(LayerError, match="layer 4 of tiny-llama does not exist"):
        ingest_texts(root, spec, layers=[4])
    vllm.failure = RuntimeError("Model does not support\nEAGLE3 interface")
    with pytest.raises(ModelError, match="vllm cannot run tiny-llama: Model does not support EAG"):
        ingest_texts(root, spec)
    vllm.failure, vllm.splits = None, True
    with pytest.raises(ModelError, match="vllm stopped at tiny-llama: a prompt was split"):
        ingest_texts(root, spec)
    assert vllm.running == 0 and read(root, "from activations") == []


def test_a_prompt_needs_room_for_the_token_that_vllm_generates(
    root: Path, llama: ModelSpec, spec: ModelSpec, vllm: FakeVllm, import_texts: ImportTexts
):
    # One token a byte, and BOS before.
    import_texts(["x" * (SIZES["max_position_embeddings"] - 1)])
    assert ingest_texts(root, llama).new_count == 1
    with pytest.raises(PromptError, match="512 tokens and 2 new ones, the context is 512"):
        ingest_texts(root, spec)


def test_the_doctor_compares_the_engines_and_fails_one_that_counts_layers_otherwise(
    spec: ModelSpec, vllm: FakeVllm
):
    *_, finding = examine(spec, device="cpu")
    assert (finding.check, finding.result) == ("vllm-0.32.0 = transformers", PASS)
    assert "largest difference" in finding.detail and "allowed 4e-04" in finding.detail
    vllm.shift = 1
    *_, finding = examine(spec, device="cpu")
    assert finding.result == FAIL and vllm.running == 0


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed")
def test_both_commands_say_what_to_install(root: Path, llama_folder: Path):
    message = "Error: vllm is not installed: pip install 'safety-axes[vllm]'"
    where = (llama_folder, "--engine", "vllm")
    assert commands.refused("models", "doctor", *where) == message
    ingest = ("ingest", "activations", *where, "--prompts", "demo_safety", "--root", root)
    assert commands.refused(*ingest) == message
    assert "'sglang' is not one of" in commands.refused(
        *ingest[:3], "--engine", "sglang", *ingest[5:]
    )
