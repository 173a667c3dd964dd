"""Examine a model before a long job: is what would be stored what the model computes?

Each finding is a question that has gone wrong in somebody's scripts: a second BOS, a pad side, a
list of blocks that is not the blocks, an activation that depends on what else is in the batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from axes.ingest.forward.activation_keys import Item
from axes.ingest.forward.batching import pad
from axes.ingest.forward.prefix_cache import share_prefix, tolerated
from axes.ingest.forward.recording import Point, block_points, find_points, recorded
from axes.ingest.forward.templates import (
    Rendered,
    Template,
    chat_texts,
    foreign_token,
    pad_id,
    render,
    unused_additions,
)
from axes.ingest.forward.vllm_engine import VllmEngine
from axes.ingest.jobs import Job, open_job
from axes.ingest.models.load import LoadedModel, blocks_path, require_engine
from axes.ingest.models.registry import TRANSFORMERS, VLLM, ModelSpec
from axes.ingest.requests import ModelRequest
from axes.warehouse.errors import ModelError, NonFiniteError
from axes.warehouse.names import RESID_POST, SITES, counted
from axes.warehouse.progress import waiting

PROMPTS = (
    "Hi",
    "Name three rivers.",
    "What is the boiling point of water at sea level?",
    "Write one sentence about a lighthouse.",
    "Translate into French: the bread is on the table.",
    "How do I keep a sourdough starter alive through a cold winter?",
    "List two differences between a violin and a viola, and say which of them is the larger one.",
    "Is 91 a prime number? Explain in one line.",
    "A train leaves at nine and arrives at half past eleven. How long does it take, in minutes?",
    "Sum up in your own words why the sky looks blue by day and red in the evening, as you would "
    "for a curious child of eight who has just asked you on the way home from school.",
)

_SHOWN = PROMPTS[1]

PASS, FAIL, NOTE = "pass", "FAIL", "note"


@dataclass(frozen=True)
class Finding:
    """One question about a model; `result` is pass, FAIL or note."""

    check: str
    result: str
    detail: str


def examine(
    spec: ModelSpec,
    *,
    device: str | None = None,
    dtype: str | None = None,
    template: Template | None = None,
) -> Iterator[Finding]:
    """Findings about a model as it would be loaded; raises `ModelError` where it cannot be.

    `template` is examined too, and shown on a prompt instead of the plain chat template.
    """
    # Nothing of a warehouse is read: the jobs are never run.
    request = ModelRequest(device=device, dtype=dtype)
    require_engine(spec)
    job = open_job(Path(), replace(spec, engine=TRANSFORMERS), request)
    identity, loaded = job.identity, job.load()
    details = f"{identity.dtype} on {loaded.device}, {identity.attention} attention"
    yield Finding("load", PASS, f"{details}, model_id {identity.model_id}")
    yield from _tokenizer(loaded, template)
    yield Finding(
        "blocks", PASS, f"{blocks_path(loaded)}: {loaded.layer_count}, d_model {loaded.d_model}"
    )
    steps = {"run prompts": _recording, "find sites": _sites, "share a prefix": _shared_prefix}
    for step, check in steps.items():
        with waiting(f"{step}: {spec.name}"):
            findings = list(check(loaded))
        yield from findings
    if spec.engine == VLLM:
        rendered = render(loaded.tokenizer, PROMPTS, Template(), spec.name)
        right = _recorded(loaded, [prompt.token_ids for prompt in rendered], "right")
        del loaded  # The engine needs its memory.
        with waiting(f"run prompts in vllm: {spec.name}"):
            finding = _engine(open_job(Path(), spec, request), rendered, right)
        yield finding


def _tokenizer(loaded: LoadedModel, requested: Template | None) -> Iterator[Finding]:
    tokenizer, name = loaded.tokenizer, loaded.spec.name
    kind = "fast" if tokenizer.is_fast else "slow: no offsets"
    yield Finding("tokenizer", PASS, f"{type(tokenizer).__name__}, {kind}")
    if tokenizer.pad_token_id is None:
        yield Finding("pad token", NOTE, f"none: padded with {pad_id(tokenizer)}, which is masked")
    else:
        yield Finding("pad token", PASS, f"{tokenizer.pad_token!r}, masked on either side")
    bos = tokenizer.bos_token_id
    templates = {
        "raw": Template(),
        "chat": Template("chat"),
        "chat with a system prompt": Template("chat", "Answer in one line."),
    }
    if requested is not None:
        templates[requested.name] = requested
    for label, template in templates.items():
        try:
            (prompt,) = render(tokenizer, [_SHOWN], template, name)
        except ModelError as error:
            yield Finding(label, NOTE, str(error))
            continue
        ids = prompt.token_ids
        lead = "one BOS" if bos is not None and ids[0] == bos else "no BOS"
        last = " ".join(tokenizer.convert_ids_to_tokens(ids[-5:]))
        if bos is not None and ids[:2] == [bos, bos]:
            yield Finding(label, FAIL, "two BOS: the text or template writes the second")
        elif prompt.user_end is None:
            yield Finding(label, NOTE, f"{lead}; the end of the user's text is unknown")
        else:
            yield Finding(
                label, PASS, f"{lead}, {counted(len(ids), 'token')}, the last five: {last}"
            )
    if tokenizer.chat_template is not None:
        shown = requested or templates["chat"]
        (text,) = chat_texts(tokenizer, [_SHOWN], shown, name)
        yield Finding("rendered text", NOTE, repr(text))
        for remark in unused_additions(tokenizer, shown, name):
            yield Finding("template", NOTE, remark)


def _recording(loaded: LoadedModel) -> Iterator[Finding]:
    rendered = render(loaded.tokenizer, PROMPTS, Template(), loaded.spec.name)
    rows = [prompt.token_ids for prompt in rendered]
    every_token = [token for row in rows for token in row]
    if (fault := foreign_token(every_token, loaded.vocab_size)) is not None:
        raise ModelError(f"{loaded.spec.name} cannot run its tokenizer's prompts: {fault}")
    right = _recorded(loaded, rows, "right")
    started = time.perf_counter()
    _recorded(loaded, rows, "right")
    seconds = time.perf_counter() - started
    if not all(torch.isfinite(row).all() for row in right):
        yield Finding("finite", FAIL, f"NaN or infinity in {loaded.identity.dtype}")
        return
    largest = max(float(row.abs().max()) for row in right)
    yield Finding("finite", PASS, f"{len(rows)} prompts, the largest activation {largest:.3g}")
    yield _compared(
        "own hidden_states", loaded, right, [_hidden_states(loaded, row) for row in rows]
    )
    alone = [_recorded(loaded, [row], "right")[0] for row in rows]
    yield _compared("alone = in a batch", loaded, right, alone)
    yield _compared("left = right padding", loaded, right, _recorded(loaded, rows, "left"))
    count = sum(map(len, rows))
    yield Finding("speed", NOTE, f"{count / seconds:.0f} tokens/s in one batch of {count} tokens")


def _recorded(loaded: LoadedModel, rows: list[list[int]], side: str) -> list[Tensor]:
    """Per prompt the block outputs `[layer, position, d_model]`, the padding cut away."""
    tokens, mask = pad(rows, pad_id(loaded.tokenizer), side=side)
    points = block_points(loaded.blocks, range(loaded.layer_count))
    found = recorded(loaded.model, points, tokens, mask)
    stacked = torch.stack([found[point].float().cpu() for point in points], dim=1)
    return [stacked[index][:, mask[index]] for index in range(len(rows))]


@torch.inference_mode()
def _hidden_states(loaded: LoadedModel, row: list[int]) -> Tensor:
    """The model's own list for one prompt, the normed last entry left out."""
    tokens = torch.tensor([row], device=loaded.device)
    states = loaded.model(tokens, output_hidden_states=True, use_cache=False).hidden_states
    first = Point(0, "resid_pre", loaded.blocks[0], reads_input=True)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    embeddings = recorded(loaded.model, [first], tokens, mask)[first]
    # The list begins with the embeddings, but for a few families that leave them out.
    start = 1 if torch.equal(states[0], embeddings) else 0
    inner = states[start : start + loaded.layer_count - 1]
    return torch.stack([state[0].float().cpu() for state in inner])


def _engine(job: Job, rendered: list[Rendered], right: list[Tensor]) -> Finding:
    lengths = [len(prompt.token_ids) for prompt in rendered]
    items = [Item(layer, RESID_POST, "") for layer in range(len(right[0]))]
    with closing(VllmEngine(job, items, {}, max(lengths), sum(lengths))) as engine:
        vectors = engine.start([""] * len(rendered), rendered).vectors
    hidden = torch.stack([torch.from_numpy(vectors[item]) for item in items])
    check = f"{job.identity.attention} = transformers"
    return _compared(check, job.load(), list(hidden.split(lengths, dim=1)), right)


def _compared(check: str, loaded: LoadedModel, mine: list[Tensor], other: list[Tensor]) -> Finding:
    """Largest difference over the norm; another engine rounds elsewhere, and is allowed more."""
    worst = 0.0
    for one, two in zip(mine, other, strict=True):
        layers = min(len(one), len(two))
        gap = (one[:layers] - two[:layers]).norm(dim=-1) / two[:layers].norm(dim=-1)
        worst = max(worst, float(gap.max()))
    tolerance = tolerated(loaded.model.dtype) * (4 if loaded.spec.engine == VLLM else 1)
    result = PASS if worst <= tolerance else FAIL
    return Finding(check, result, f"largest difference {worst:.1e}, allowed {tolerance:.0e}")


def _sites(loaded: LoadedModel) -> Iterator[Finding]:
    try:
        points = find_points(loaded, range(loaded.layer_count), SITES)
    except (ModelError, NonFiniteError) as error:
        result = FAIL if isinstance(error, NonFiniteError) else NOTE
        yield Finding("sites", result, str(error))
        return
    paths = {id(module): path for path, module in loaded.blocks[0].named_modules()}
    attention, mlp = (paths[id(points[0, site].module)] for site in ("attn_out", "mlp_out"))
    yield Finding("sites", PASS, f"attn_out is {attention}, mlp_out is {mlp} of each block")


def _shared_prefix(loaded: LoadedModel) -> Iterator[Finding]:
    policy = "chat" if loaded.tokenizer.chat_template else "raw"
    texts = [f"Answer in one short sentence, please. {text}" for text in PROMPTS]
    rendered = render(loaded.tokenizer, texts, Template(policy), loaded.spec.name)
    points = block_points(loaded.blocks, range(loaded.layer_count))
    prefix, remark = share_prefix(loaded, [prompt.token_ids for prompt in rendered], points)
    if prefix is not None:
        yield Finding("shared prefix", PASS, f"{prefix.length} tokens under {policy} are run once")
    elif remark is not None:
        yield Finding("shared prefix", NOTE, remark)
