"""The job: teacher-force completions that any model or service wrote, as if the model wrote them.

A file names prompts of the warehouse (by text or `prompt_id`) and completions. Each pair is run in
one pass: the prompt's tokens as the template renders them, then the completion's, tokenised alone
and without special tokens. A column `token_ids` is taken as it is instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axes.ingest.forward.batching import Batches
from axes.ingest.forward.templates import Rendered, foreign_token
from axes.ingest.generation.teacher_forcing import Text, logits_budget, score
from axes.ingest.generation.token_statistics import Trace
from axes.ingest.generation.traces import (
    stored_generations,
    token_parameters,
    what_to_keep,
    write_traces,
)
from axes.ingest.jobs import IngestSummary, Job, Part, Skipped, open_job
from axes.ingest.models.config import context_length
from axes.ingest.models.load import LoadedModel
from axes.ingest.models.registry import ModelSpec
from axes.ingest.prompt_sources import PromptSource, read_source
from axes.ingest.prompts import Prompt, normalise, prompt_id
from axes.ingest.requests import CompletionRequest
from axes.ingest.sinks import Direct
from axes.warehouse.errors import PromptError
from axes.warehouse.handle import Warehouse
from axes.warehouse.names import counted


@dataclass(frozen=True)
class Pair:
    """A prompt of the warehouse and a completion; `source` names who wrote it."""

    prompt_id: str
    completion: str
    token_ids: tuple[int, ...] | None
    source: str


def ingest_completions(root: Path, spec: ModelSpec, request: CompletionRequest) -> IngestSummary:
    """Read the prompt-completion pairs of a file that are not stored, and store their tokens.

    Columns: `prompt` or `prompt_id`, `completion` or `token_ids`, and perhaps `source` or `model`.
    Raises `PromptError` for prompts that are not in the warehouse or pairs that cannot be run.
    """
    pairs, texts = read_pairs(root, request.completions, request.limit)
    job = open_job(root, spec, request)
    kept = what_to_keep(job, request)
    with job.running("ingest traces", token_parameters(request, kept)) as running:
        by_key = {
            request.key(
                job.identity.model_id,
                kept,
                pair.prompt_id,
                {"given": pair.token_ids or pair.completion, "source": pair.source},
            ): pair
            for pair in pairs
        }
        stored = stored_generations(root, spec.name)
        missing = {key: pair for key, pair in by_key.items() if key not in stored}
        rendered = job.render_usable(
            {pair.prompt_id: texts[pair.prompt_id] for pair in missing.values()},
            request,
            skipped=running.run.skipped,
        )
        usable = _usable(job, request, missing, rendered, running.run.skipped)

        def compute(loaded: LoadedModel, _: object, done: Callable[[int], None]) -> None:
            def read(keys: list[str]) -> list[Trace]:
                batch = [usable[key] for key in keys]
                return score(loaded, batch, kept, reads_prompt=request.prompt_tokens)

            sizes = {key: len(text.token_ids) for key, text in usable.items()}
            columns = {
                key: {
                    "template": request.rendering.name,
                    "prompt_token_count": len(text.prompt),
                    "source": missing[key].source,
                }
                for key, text in usable.items()
            }
            budget = logits_budget(loaded.vocab_size, request.token_budget)
            batches = Batches(loaded, running.run, budget)
            traces = batches.compute(
                sizes, read, lambda key: f"a text of {counted(sizes[key], 'token')}"
            )
            sink = Direct(root, spec.name)
            write_traces(running.run, loaded, kept, traces, columns, sink, done)

        part = Part((), len(usable), not missing)
        running.compute("completions", "completions", [part], compute)
    return job.summary(running.run, len(by_key), len(usable))


def read_pairs(root: Path, file: Path, limit: int | None) -> tuple[list[Pair], dict[str, str]]:
    """The pairs of a file, and the texts of their prompts by id.

    Raises `PromptError` for missing columns and for prompts that are in no set.
    """
    frame = read_source(PromptSource(str(file)))
    frame = frame if limit is None else frame.head(limit)
    columns = set(frame.columns)
    if not columns & {"prompt", "prompt_id"} or not columns & {"completion", "token_ids"}:
        raise PromptError(
            f"{file} needs a column prompt or prompt_id, and completion or token_ids; "
            f"it has {', '.join(frame.columns)}"
        )
    pairs = [_pair(row, file) for row in frame.to_dicts()]
    prompts = Warehouse.open_tables(root, "prompts").rows(
        Prompt,
        "select distinct prompt_id, text from prompts where list_contains(?, prompt_id)",
        [sorted({pair.prompt_id for pair in pairs})],
    )
    texts = {prompt.prompt_id: prompt.text for prompt in prompts}
    unknown = [pair for pair in pairs if pair.prompt_id not in texts]
    if unknown:
        raise PromptError(
            f"{len(unknown)} rows of {file} have a prompt that is in no set, the first is "
            f"{unknown[0].prompt_id}: import them first, `axes prompts import NAME {file}`"
        )
    return pairs, texts


def _pair(row: Mapping[str, Any], file: Path) -> Pair:
    token_ids = row.get("token_ids")
    if isinstance(token_ids, str):
        token_ids = json.loads(token_ids)
    source = row.get("source") or row.get("model") or file.name
    return Pair(
        prompt_id=row.get("prompt_id") or prompt_id(normalise(row.get("prompt") or "")),
        completion=row.get("completion") or "",
        token_ids=None if token_ids is None else tuple(int(token) for token in token_ids),
        source=str(source),
    )


def _usable(
    job: Job,
    request: CompletionRequest,
    pairs: Mapping[str, Pair],
    rendered: Mapping[str, Rendered],
    skipped: list[Skipped],
) -> dict[str, Text]:
    """The pairs as token ids, without those that are empty or too long for the model."""
    max_length = context_length(job.folder)
    usable = {}
    for key, pair in pairs.items():
        if pair.prompt_id not in rendered:
            continue
        completion = pair.token_ids
        if completion is None:
            encoded = job.tokenizer(pair.completion, add_special_tokens=False, verbose=False)
            completion = tuple(encoded.input_ids)
        text = Text(pair.prompt_id, rendered[pair.prompt_id].token_ids, completion)
        count, reason = len(text.token_ids), foreign_token(completion, job.vocab_size)
        if not completion:
            reason = "the completion has no tokens"
        elif max_length is not None and count > max_length:
            reason = f"{counted(count, 'token')} with its completion, the context is {max_length}"
        if reason is None:
            usable[key] = text
        elif request.skip_unusable:
            skipped.append({"prompt_id": pair.prompt_id, "reason": reason})
        else:
            raise PromptError(
                f"prompt {pair.prompt_id} cannot be run by {job.spec.name}: {reason}; "
                "--skip-unusable leaves such pairs out and records it"
            )
    return usable
