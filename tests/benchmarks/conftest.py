"""A tiny model and prompts of several lengths, as a workload of benchmarks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from axes.ingest.prompt_sources import PromptSource
from benchmarks.ingest.workload import Workload, workload
from tests.tiny_models import save_tiny

TEXTS = ["hi", "a rather longer prompt than the others are", "what is it", "hello there, you"]


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workload]:
    folder = tmp_path_factory.mktemp("benchmark")
    prompts = folder / "prompts.csv"
    prompts.write_text("\n".join(["text", *(f'"{text}"' for text in TEXTS)]))
    model = save_tiny(folder / "tiny", "llama")
    with workload(str(model), len(TEXTS), source=PromptSource(str(prompts))) as ready:
        yield ready
