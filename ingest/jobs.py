"""What both ingest jobs share: a model identified but not loaded, its lock and its prompts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from ingest.fetch import fetch
from ingest.models import (
    LoadedModel,
    ModelIdentity,
    ModelSpec,
    context_length,
    default_device,
    default_dtype,
    identify,
    load,
    load_tokenizer,
    model_row,
)
from ingest.templates import encode
from warehouse.connection import connect, rows
from warehouse.errors import ModelError, PromptError
from warehouse.progress import waiting
from warehouse.runs import Run
from warehouse.writer import data_file, rows_table, write_rows


@dataclass(frozen=True)
class IngestSummary:
    """What a job did: `prompt_count` asked for, of which `new_count` were run through the model."""

    model: str
    model_id: str
    run_id: str
    prompt_count: int
    new_count: int
    skipped_count: int
    rows: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Job:
    """A model about to run on a root: fetched and identified, its weights not read yet."""

    root: Path
    spec: ModelSpec
    folder: Path
    identity: ModelIdentity
    device: str
    started: float = field(default_factory=time.monotonic)

    def lock(self) -> FileLock:
        """One job at a time on a model of a root; a second waits, and then finds the rows there."""
        folder = self.root / ".locks"
        folder.mkdir(exist_ok=True)
        return FileLock(folder / f"{self.identity.model_id}.lock")

    def layer_count(self) -> int:
        """Number of blocks: as registered, else by the configuration; no weights are loaded."""
        known = rows(
            connect(self.root),
            "select layer_count from models where model_id = ?",
            [self.identity.model_id],
        )
        if known:
            return known[0]["layer_count"]
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(self.folder)
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.folder}: config.json cannot be read: {error}") from error
        return config.get_text_config().num_hidden_layers

    def encode_usable(
        self,
        run: Run,
        texts: Mapping[str, str],
        template: str,
        *,
        skip_unusable: bool,
        room: int = 0,
    ) -> dict[str, list[int]]:
        """Token ids of the prompts (id -> text) that fit the model with `room` tokens to spare.

        Raises `PromptError` naming the first that is empty or too long; with `skip_unusable` it is
        left out and recorded in the run row.
        """
        longest = context_length(self.folder)
        tokenizer = load_tokenizer(self.folder)
        encoded = encode(tokenizer, list(texts.values()), template, self.spec.name)
        usable = {}
        for (prompt_id, text), tokens in zip(texts.items(), encoded, strict=True):
            reason = None
            if not tokens:
                reason = "no tokens"
            elif longest is not None and len(tokens) + room > longest:
                asked = f"{len(tokens)} tokens" + (f" and {room} new ones" if room else "")
                reason = f"{asked}, the context of {self.spec.name} is {longest}"
            if reason is None:
                usable[prompt_id] = tokens
            elif skip_unusable:
                run.skipped.append({"prompt_id": prompt_id, "reason": reason})
            else:
                raise PromptError(
                    f"prompt {prompt_id} ({text[:40]!r}...) cannot be run: {reason}; "
                    "--skip-unusable leaves such prompts out and records it"
                )
        return usable

    def load(self, run: Run) -> LoadedModel:
        """Load the weights, and register the model unless it is."""
        with waiting(f"load {self.spec.name}"):
            loaded = load(self.spec, self.folder, self.identity, self.device)
        name = self.identity.model_id
        if not data_file(self.root, "models", name).exists():
            table = rows_table("models", [model_row(loaded, run.run_id)])
            write_rows(self.root, "models", table, name=name)
        return loaded

    def summary(self, run: Run, prompt_count: int, new_count: int) -> IngestSummary:
        """What `run` did for this model."""
        return IngestSummary(
            model=self.spec.name,
            model_id=self.identity.model_id,
            run_id=run.run_id,
            prompt_count=prompt_count,
            new_count=new_count,
            skipped_count=len(run.skipped),
            rows=run.rows,
            tokens=run.tokens,
            seconds=time.monotonic() - self.started,
        )


def open_job(root: Path, spec: ModelSpec, device: str | None, dtype: str | None) -> Job:
    """Fetch and identify a model; the defaults are the best device and its dtype."""
    device = device or default_device()
    folder = fetch(spec)
    identity = identify(spec, folder, dtype or default_dtype(folder, device))
    return Job(root, spec, folder, identity, device)
