"""A model that stays loaded, prompts to run through it, and the whole job timed on fresh roots."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor

from axes.ingest.activations import ingest_activations
from axes.ingest.forward.batching import pad
from axes.ingest.forward.templates import Template, pad_id, render
from axes.ingest.jobs import IngestSummary
from axes.ingest.models.download import fetch
from axes.ingest.models.identity import identify
from axes.ingest.models.load import LoadedModel, load
from axes.ingest.models.registry import resolve
from axes.ingest.prompt_sources import PromptSource, prompt_source
from axes.ingest.prompts import import_prompts, read_prompts
from axes.ingest.requests import ActivationRequest, PromptRequest
from benchmarks.run import seconds

SET = "benchmark"


@dataclass(frozen=True)
class Workload:
    """Prompts and a loaded model; `lake` is a warehouse with the prompts and nothing else."""

    loaded: LoadedModel
    folder: Path
    lake: Path

    @property
    def name(self) -> str:
        return self.loaded.spec.name

    def texts(self) -> list[str]:
        return [prompt.text for prompt in read_prompts(self.lake, {SET: None})]

    def batches(self, size: int, template: str = "raw") -> list[tuple[Tensor, Tensor]]:
        """Batches for generation as jobs make them: longest prompts first, padded on the left."""
        tokenizer = self.loaded.tokenizer
        rendered = render(tokenizer, self.texts(), Template(template), self.name)
        ids = sorted((prompt.token_ids for prompt in rendered), key=len, reverse=True)
        starts = range(0, len(ids), size)
        return [pad(ids[at : at + size], pad_id(tokenizer), side="left") for at in starts]

    def job_seconds(self, **options: Any) -> float:
        """The job on a fresh root: tokenise, sort, forward, pool, write and commit."""
        with self.fresh_root() as root:
            return seconds(lambda: self.run_job(root, **options))

    def run_job(self, root: Path, *, limit: int | None = None, **options: Any) -> IngestSummary:
        """The job on `root`, with the weights and the tokenizer that are loaded already."""
        device = str(self.loaded.device)
        request = ActivationRequest(prompt_sets={SET: limit}, device=device, **options)
        with self.preloaded():
            return ingest_activations(root, self.loaded.spec, request)

    @contextmanager
    def preloaded(self) -> Iterator[None]:
        """While active, jobs take the weights and the tokenizer that are loaded already."""
        with (
            mock.patch("axes.ingest.jobs.load", lambda *_: self.loaded),
            mock.patch("axes.ingest.jobs.load_tokenizer", lambda *_: self.loaded.tokenizer),
        ):
            yield

    def warm_up(self) -> None:
        """A few prompts, so that no round pays for what a process does once."""
        with self.fresh_root() as root:
            self.run_job(root, limit=8)

    @contextmanager
    def fresh_root(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name) / "lake"
            shutil.copytree(self.lake, root)
            yield root


@contextmanager
def workload(
    model: str,
    prompt_count: int,
    *,
    source: PromptSource | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> Iterator[Workload]:
    """The first prompts of `source` (default: `benchmark_prompts`) and the model."""
    spec = resolve(model)
    folder = fetch(spec)
    loaded = load(spec, folder, identify(spec, folder, dtype), device)
    with tempfile.TemporaryDirectory() as name:
        lake = Path(name) / "lake"
        import_prompts(lake, SET, source or benchmark_prompts(), PromptRequest(limit=prompt_count))
        yield Workload(loaded, folder, lake)


def benchmark_prompts() -> PromptSource:
    """`$AXES_BENCH_PROMPTS`, a file with a column `text`, else the built-in `demo_alignment`."""
    path = os.environ.get("AXES_BENCH_PROMPTS") or None
    return prompt_source("demo_alignment" if path is None else SET, path)
