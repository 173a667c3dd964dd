"""A concept that is not safety, from two text files through the whole chain, on tiny models."""

from __future__ import annotations

import json
import re

import pytest

from axes.ingest.prompt_sources import BUILTIN
from axes.warehouse.maintenance.check import check
from tests.commands import ok
from tests.tiny_models import save_tiny

# Words that only a study of safety may say; `safetensors` and the package's name are none.
_OF_SAFETY = re.compile(r"unsafe|harm|\bsafe\b|demo_safety|jailbreak", re.IGNORECASE)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command of docs/concept.md says, on stdout and stderr, and the report."""
    base = tmp_path_factory.mktemp("concept")
    save_tiny(base / "small", "llama", seed=1)
    save_tiny(base / "large", "qwen2", seed=2, hidden_size=48)
    root, report = base / "lake", base / "report.md"
    models = ["--model", base / "small", "--model", base / "large", "--reference", base / "large"]
    asked = ["--prompts", "formality", "--align", "demo_alignment", "--align-rows", 60]
    commands = {
        "import": [
            *("prompts", "import", "formality"),
            *("--positive-file", BUILTIN / "formal.txt"),
            *("--negative-file", BUILTIN / "informal.txt"),
        ],
        "study": ["study", *models, *asked, "--report", report],
        "claims": ["study", "claims"],
        "evaluate": ["evaluate", "small", "--prompts", "formality"],
        "calibrate": ["calibrate", "universal/large/2/formality/lambda-held_out"],
        "traces": ["ingest", "traces", base / "small", "--limit", 8, "--max-new-tokens", 4],
        "drift": [
            *("drift", "--axis", "universal/large/2/formality/lambda-held_out"),
            *("--model", "small", "--min-steps", 2),
        ],
        "diagnose": ["diagnose"],
        "sql": ["sql", "from v_auroc order by all", "--format", "json"],
    }
    for name in ("calibrate", "traces", "drift"):
        commands[name] += ["--prompts", "formality"]
    outputs = {name: ok(*words, "--root", root).output for name, words in commands.items()}
    outputs["report"] = report.read_text()
    assert not any(check(root)["row_count"].to_pylist())
    return outputs


def test_every_step_gives_figures_of_the_concept(said: dict[str, str]) -> None:
    found = json.loads(said["sql"])
    kinds = {row["kind"] for row in found if row["prompt_set"] == "formality"}
    assert kinds >= {"native", "universal", "leave_one_out"}
    assert all(row["positive_count"] == row["negative_count"] == 60 for row in found)
    assert "best_baseline" in said["report"]
    assert "small's direction separates formality" in said["evaluate"]
    assert "does the positive class drift up (small" in said["drift"]


def test_nothing_that_is_said_takes_the_concept_for_safety(said: dict[str, str]) -> None:
    for name, text in said.items():
        assert not (words := _OF_SAFETY.findall(text)), (name, words)
