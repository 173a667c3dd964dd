"""The job: read completions that are given, from any model or service, as if the model wrote them.

A file names prompts of the warehouse (by text or `prompt_id`) and completions. Each pair is run in
one pass: the prompt's tokens as the template renders them, then the completion's own, tokenised
alone and without special tokens. A column `token_ids` is taken as it is instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from axes.ingest.forward.batching import DEFAULT_TOKEN_BUDGET
from axes.ingest.forward.templates import Rendered, Template
from axes.ingest.generation.teacher_forcing import Given, batches, score
from axes.ingest.generation.token_statistics import Kept, Trace
from axes.ingest.generation.traces import (
    generations_there,
    kept_key,
    kept_parameters,
    what_to_keep,
    write_traces,
)
from axes.ingest.jobs import IngestSummary, Job, open_job, stops_between_batches
from axes.ingest.models.load import LoadedModel, context_length
from axes.ingest.models.registry import ModelSpec
from axes.ingest.prompt_sources import PromptSource, read_source
from axes.ingest.prompts import normalise, prompt_id
from axes.warehouse.connection import connect_tables, rows
from axes.warehouse.errors import ModelError, PromptError
from axes.warehouse.progress import track
from axes.warehouse.runs import Run, record_run
from axes.warehouse.writer import content_key


@dataclass(frozen=True)
class Pair:
    """A prompt of the warehouse and what was answered; `source` says by whom."""

    prompt_id: str
    completion: str
    token_ids: tuple[int, ...] | None
    source: str

    @property
    def content(self) -> Any:
        """What of it is the model's input."""
        return self.completion if self.token_ids is None else list(self.token_ids)


def ingest_completions(
    root: Path,
    spec: ModelSpec,
    file: Path,
    *,
    layers: Sequence[int] | None = None,
    layer_fraction: float = 0.8,
    axes: Sequence[str] = (),
    prompt_tokens: bool = False,
    top_tokens: int = 0,
    template: str = "raw",
    system: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    limit: int | None = None,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    skip_unusable: bool = False,
) -> IngestSummary:
    """Read the prompt-completion pairs of a .parquet, .csv or .jsonl file, sorted by length.

    Columns: `prompt` or `prompt_id`, `completion` or `token_ids`, and of `source` and `model` what
    there is. What is kept is as in `ingest_traces`. Pairs that are there are not run again. Raises
    `PromptError` for prompts that are not in the warehouse or pairs that cannot be run.
    """
    policy = Template(template, system)
    pairs, texts = read_pairs(root, file, limit)
    job = open_job(root, spec, device, dtype)
    kept = what_to_keep(job, layers, layer_fraction, axes, top_tokens)
    parameters = {
        **job.described(),
        "completions": str(file.resolve()),
        **kept_parameters(kept, layers, axes, prompt_tokens),
        "template": policy.name,
        "system": system,
        "limit": limit,
    }
    with (
        job.lock(),
        record_run(root, "ingest traces", parameters, device=job.device) as run,
        stops_between_batches() as check_interrupt,
    ):
        there = generations_there(root, spec.name)
        settings = kept_key(kept, prompt_tokens)
        wanted = {
            content_key(
                job.identity.model_id,
                policy.name,
                list(kept.layers),
                {**settings, "given": pair.content, "source": pair.source},
                pair.prompt_id,
            ): pair
            for pair in pairs
        }
        pair_count = len(wanted)
        wanted = {key: pair for key, pair in wanted.items() if key not in there}
        rendered = job.render_usable(
            {pair.prompt_id: texts[pair.prompt_id] for pair in wanted.values()},
            policy,
            skipped=run.skipped,
            skip_unusable=skip_unusable,
        )
        given = _usable(job, run, wanted, rendered, skip_unusable)
        if given or not (wanted or job.is_registered()):
            loaded = job.load()
            job.register(loaded, run)
            with track(f"completions {spec.name}", len(given), "completions") as advance:
                for traces in _score_all(loaded, run, given, kept, prompt_tokens, token_budget):
                    described = {
                        key: {
                            "template": policy.name,
                            "prompt_token_count": len(given[key].prompt),
                            "source": wanted[key].source,
                        }
                        for key in traces
                    }
                    write_traces(root, run, loaded, kept, traces, described)
                    advance(len(traces))
                    check_interrupt()
    return job.summary(run, pair_count, len(given))


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
    found = rows(
        connect_tables(root, "prompts"),
        "select distinct prompt_id, text from prompts where list_contains(?, prompt_id)",
        [sorted({pair.prompt_id for pair in pairs})],
    )
    texts = {row["prompt_id"]: row["text"] for row in found}
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
    run: Run,
    wanted: Mapping[str, Pair],
    rendered: Mapping[str, Rendered],
    skip_unusable: bool,
) -> dict[str, Given]:
    """The pairs as token ids, without those that are empty or too long for the model."""
    longest = context_length(job.folder)
    usable = {}
    for key, pair in wanted.items():
        if pair.prompt_id not in rendered:
            continue
        completion = pair.token_ids
        if completion is None:
            encoded = job.tokenizer(pair.completion, add_special_tokens=False, verbose=False)
            completion = tuple(encoded.input_ids)
        given = Given(pair.prompt_id, rendered[pair.prompt_id].token_ids, completion)
        reason = None
        if not completion:
            reason = "the completion has no tokens"
        elif longest is not None and len(given.token_ids) > longest:
            reason = f"{len(given.token_ids)} tokens with its completion, the context is {longest}"
        if reason is None:
            usable[key] = given
        elif skip_unusable:
            run.skipped.append({"prompt_id": pair.prompt_id, "reason": reason})
        else:
            raise PromptError(
                f"prompt {pair.prompt_id} cannot be run by {job.spec.name}: {reason}; "
                "--skip-unusable leaves such pairs out and records it"
            )
    return usable


def _score_all(
    loaded: LoadedModel,
    run: Run,
    given: Mapping[str, Given],
    kept: Kept,
    prompt_tokens: bool,
    token_budget: int,
) -> Iterator[dict[str, Trace]]:
    """Traces by key, batch after batch; the budget is halved where one does not fit the memory."""
    left = list(given)
    while left:
        (first, *_) = batches(loaded, [given[key] for key in left], token_budget)
        batch = [left[index] for index in first]
        try:
            traces = score(loaded, [given[key] for key in batch], kept, reads_prompt=prompt_tokens)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise ModelError(
                    f"a text of {len(given[batch[0]].token_ids)} tokens does not fit the memory "
                    f"of {loaded.device} beside {loaded.spec.name}: try --dtype bfloat16"
                ) from error
            token_budget = sum(len(given[key].token_ids) for key in batch) // 2
            run.messages.append(f"out of memory: token budget halved to {token_budget}")
            continue
        yield dict(zip(batch, traces, strict=True))
        done = set(batch)
        left = [key for key in left if key not in done]
