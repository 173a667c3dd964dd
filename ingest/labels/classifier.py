"""A labeler that runs a text classifier, loaded with transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from axes.ingest.forward.batching import plan_batches
from axes.ingest.labels.labeling import (
    EVERYTHING,
    Completion,
    Label,
    LabelSummary,
    Scope,
    label_completions,
)
from axes.ingest.models.config import default_device, load_tokenizer, loading, read_weights
from axes.ingest.models.download import fetch, files_hash
from axes.ingest.models.registry import resolve
from axes.ingest.prompt_sources import decide_class
from axes.warehouse.errors import ModelError
from axes.warehouse.runs import Run

_TOKEN_BUDGET = 4096


def label_by_classifier(
    root: Path,
    classifier: str,
    *,
    positive: Sequence[str] = (),
    reads_prompt: bool = False,
    device: str | None = None,
    scope: Scope = EVERYTHING,
) -> LabelSummary:
    """Label completions with a text-classification model: a folder or a hub id, safetensors only.

    It reads the completion, with `reads_prompt` prompt and completion as a pair; a text that is
    too long is truncated. The label is the likeliest; `score` is the probability of the classes
    called `positive` together. The labeler is `classifier/NAME@HASH` of its files.
    """
    spec = resolve(classifier)
    folder = fetch(spec)
    device = default_device() if device in (None, "auto") else device
    model, tokenizer = _load(spec.name, folder, device)
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    is_positive = decide_class(labels, positive)
    files = [path for path in folder.iterdir() if path.suffix in (".json", ".safetensors")]
    labeler = f"classifier/{spec.name}@{files_hash(files)[:8]}"
    if reads_prompt:
        labeler += "+prompt"

    def decide(_run: Run, completions: Sequence[Completion]) -> Iterator[Label]:
        for completion, chances in _classify(model, tokenizer, completions, reads_prompt):
            chosen = labels[int(chances.argmax())]
            score = sum(
                chance
                for label, chance in zip(labels, chances.tolist(), strict=True)
                if is_positive[label]
            )
            yield Label(completion.generation_id, chosen, is_positive[chosen], score)

    parameters = {
        "kind": "classifier",
        "classifier": classifier,
        "positive": list(positive),
        "reads_prompt": reads_prompt,
    }
    return label_completions(root, labeler, decide, parameters, scope=scope)


def _classify(
    model: Any, tokenizer: Any, completions: Sequence[Completion], reads_prompt: bool
) -> Iterator[tuple[Completion, torch.Tensor]]:
    """Each completion with the probability of each label, in an order of their lengths."""
    # RoBERTa models count positions from two on, so that the tokenizer's limit is lower.
    max_length = min(model.config.max_position_embeddings, tokenizer.model_max_length)
    encoded = [
        tokenizer(
            *((completion.prompt, completion.text) if reads_prompt else (completion.text,)),
            truncation=True,
            max_length=max_length,
        )
        for completion in completions
    ]
    lengths = {index: len(item["input_ids"]) for index, item in enumerate(encoded)}
    for indices in plan_batches(lengths, _TOKEN_BUDGET):
        rows = {name: [encoded[index][name] for index in indices] for name in encoded[0]}
        batch = tokenizer.pad(rows, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**batch.to(model.device)).logits.float().cpu()
        yield from zip((completions[index] for index in indices), logits.softmax(-1), strict=True)


def _load(name: str, folder: Path, device: str | None) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification

    with loading(f"{name} cannot be loaded as a text classifier"):
        model = read_weights(AutoModelForSequenceClassification, folder, use_safetensors=True)
    if model.config.num_labels < 2:
        raise ModelError(f"{name} gives one number and no classes: two labels or more are needed")
    return model.to(device).eval(), load_tokenizer(folder)
