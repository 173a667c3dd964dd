"""The floor and the job generate the same tokens, and every round is a whole job."""

from __future__ import annotations

from pathlib import Path

import pytest

import benchmarks.traces
from axes.ingest.prompt_sources import PromptSource
from benchmarks.ingest.workload import workload
from benchmarks.traces import _generate, _job_seconds, _put_axes, _require_same_tokens
from tests.tiny_models import save_tiny

TEXTS = ["hi", "a rather longer prompt than the others are", "what is it", "hello there, you"]


def test_the_floor_is_the_same_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("NEW_TOKENS", 5), ("BATCH_SIZE", 3), ("LAYERS", (1, 2))):
        monkeypatch.setattr(benchmarks.traces, name, value)
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("\n".join(["text", *(f'"{text}"' for text in TEXTS)]))
    model = save_tiny(tmp_path / "tiny", "llama")
    with workload(str(model), 4, source=PromptSource(str(prompts))) as work:
        batches = work.batches(3)
        _require_same_tokens(work, batches)
        axes = _put_axes(work)
        assert len(axes) == 4
        assert _job_seconds(work, axes=axes) > 0
        monkeypatch.setattr(
            benchmarks.traces,
            "_generate",
            lambda *given: [row[::-1] for row in _generate(*given)],
        )
        with pytest.raises(ValueError, match="do not generate the same tokens"):
            _require_same_tokens(work, batches)
