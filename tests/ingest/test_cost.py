"""What an ingest is said to cost is what it then writes, and every part of it can be changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import axes
from axes.ingest.cost import Cost, measure_stored
from axes.ingest.model_estimate import plan_models
from axes.ingest.requests import PlanRequest
from axes.warehouse.errors import AxesError, LayerError
from axes.warehouse.storage.layout import partition_folder
from axes.warehouse.tables.schemas import TABLES
from tests import commands
from tests.ingest.conftest import put_texts
from tests.rows import put
from tests.tiny_models import tiny_model

# The study on paper: 1,000 models of 50 blocks, d_model 4,096, on a million prompts of 20 tokens.
PAPER = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 50,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32_000,
}
WEIGHTS = 50 * (4096 * (2 * 4096 + 2 * 1024) + 3 * 4096 * 11_008)


@pytest.fixture
def paper(tmp_path: Path) -> str:
    folder = tmp_path / "paper-7b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(PAPER))
    return str(folder)


def priced(root: Path, model: str, **options) -> Cost:
    (cost,) = plan_models(root, [model], PlanRequest(**{"prompt_count": 1_000_000, **options}))
    return cost


def test_the_study_on_paper(paper: str, tmp_path: Path):
    cost = priced(
        tmp_path / "none",
        paper,
        copies=1000,
        file_mib=512,
        teraflops=989.0,
        efficiency=0.4,
        rate=3.0,
        storage_rate=23.0,
    )
    assert cost.rows == 50_000_000_000
    assert cost.bytes == 50_000_000_000 * (4 * 4096 + 40)
    assert cost.files == 1000 * 1530  # 821.2 GB in files of 512 MiB
    assert cost.layer_requests == 2 * 1530  # a footer and one row group each
    assert cost.seconds == pytest.approx(1000 * 2 * WEIGHTS * 20e6 / (989e12 * 0.4))
    assert cost.compute_cost == pytest.approx(cost.seconds / 3600 * 3)
    assert cost.storage_cost == pytest.approx(cost.bytes / 1e12 * 23)
    assert (cost.bytes_from, cost.seconds_from) == ("schema", "operations")
    assert not (tmp_path / "none").exists()


def test_fewer_layers_take_fewer_bytes_and_less_time(paper: str, tmp_path: Path):
    every, some = priced(tmp_path, paper), priced(tmp_path, paper, layers=(9, 24))
    assert (some.rows, some.bytes) == (every.rows * 2 / 50, every.bytes * 2 / 50)
    assert some.seconds == pytest.approx(every.seconds / 2)  # blocks 0 to 24 of 50
    assert priced(tmp_path, paper, vectors=6).bytes == 6 * every.bytes
    rounded = priced(tmp_path, paper, store_dtype="bfloat16")
    assert rounded.bytes / rounded.rows == pytest.approx(1.4 * 4096 + 40)
    assert every.compute_cost is every.storage_cost is None
    with pytest.raises(LayerError, match="layer 50 of paper-7b"):
        priced(tmp_path, paper, layers=(50,))


def test_a_warehouse_gives_the_bytes_of_its_files_and_the_speed_of_its_longest_job(
    root: Path, tmp_path: Path, paper: str
):
    assert priced(root, paper).bytes_from == "schema"
    names = [f"{number:016x}" for number in range(300)]
    rows = [{"prompt_id": name, "layer": 0, "vector": [1.0] * 4096} for name in names]
    put(root, "activations", *({"model": "paper-7b", "pooled_tokens": ["ab"], **r} for r in rows))
    jobs = [(100, 9.0, "finished"), (5000, 40.0, "finished"), (9000, 70.0, "failed")]
    for number, (tokens, speed, status) in enumerate(jobs):
        job = {"run_id": f"r{number}", "command": "ingest activations", "status": status}
        job |= {"tokens": tokens, "tokens_per_second": speed}
        put(root, "runs", {**job, "parameters": json.dumps({"model": "paper-7b"})})
    (file,) = partition_folder(root, TABLES["activations"], "paper-7b").glob("*.parquet")
    measured = measure_stored(root, "paper-7b")
    assert measured.row_bytes == pytest.approx(file.stat().st_size / 300 - 4 * 4096, abs=8)
    cost = priced(root, paper, prompt_count=300, layers=(0,), tokens=20.0)
    assert cost.bytes == pytest.approx(file.stat().st_size, rel=1e-3)
    assert cost.seconds == 300 * 20 / 40.0 / 50  # one block of 50
    assert (cost.bytes_from, cost.seconds_from) == ("files", "job")
    # A machine that is named goes before the one that was measured.
    assert priced(root, paper, teraflops=1.0).seconds_from == "operations"


def test_prompts_are_counted_and_their_texts_measured(root: Path, tmp_path: Path):
    tiny_model("llama").config.save_pretrained(tmp_path / "tiny")
    put_texts(root, ["a" * 40, "b" * 80])
    model = str(tmp_path / "tiny")
    table = axes.plan([model, model], prompts="texts", root=root).pl()
    assert table["prompt_count"].to_list() == [2, 2]
    assert table["token_count"].to_list() == [30, 30]
    printed = commands.ok(
        "plan", model, model, "--prompts", "texts", "--tokens", "9", "--root", root
    )
    assert "all 2" in printed.stdout and "36" in printed.stdout
    with pytest.raises(AxesError, match="give --prompts SET or --prompt-count N"):
        axes.plan(model, root=root)


def test_what_a_model_in_wheels_takes_is_unknown_before_it_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("AXES_CACHE", str(tmp_path / "cache"))
    (cost,) = plan_models(tmp_path, ["smollm2-135m"], PlanRequest(prompt_count=10))
    assert (cost.rows, cost.bytes, cost.seconds, cost.token_count) == (None, None, None, 200)
