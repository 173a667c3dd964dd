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
    decide_class,
    label_completions,
)
from axes.ingest.models.config import default_device
from axes.ingest.models.download import fetch, files_hash
from axes.ingest.models.registry import resolve
from axes.warehouse.errors import ModelError
from axes.warehouse.progress import quiet_transformers
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
    loaded = _load(spec.name, folder, default_device() if device in (None, "auto") else device)
    labels = [loaded.model.config.id2label[index] for index in range(loaded.label_count)]
    is_positive = decide_class(labels, positive)
    files = [path for path in folder.iterdir() if path.suffix in (".json", ".safetensors")]
    labeler = f"classifier/{spec.name}@{files_hash(files)[:8]}"
    if reads_prompt:
        labeler += "+prompt"

    def decide(_run: Run, completions: Sequence[Completion]) -> Iterator[Label]:
        for completion, chances in loaded.classify(completions, reads_prompt):
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


class _Classifier:
    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self._tokenizer = model, tokenizer
        self.label_count = model.config.num_labels

    def classify(
        self, completions: Sequence[Completion], reads_prompt: bool
    ) -> Iterator[tuple[Completion, torch.Tensor]]:
        """Each completion with the probability of each label, in an order of their lengths."""
        encoded = [self._encode(completion, reads_prompt) for completion in completions]
        lengths = [len(item["input_ids"]) for item in encoded]
        for indices in plan_batches(lengths, _TOKEN_BUDGET):
            batch = self._tokenizer.pad(
                {name: [encoded[index][name] for index in indices] for name in encoded[0]},
                return_tensors="pt",
            )
            with torch.inference_mode():
                logits = self.model(**batch.to(self.model.device)).logits.float().cpu()
            yield from zip(
                (completions[index] for index in indices), logits.softmax(-1), strict=True
            )

    def _encode(self, completion: Completion, reads_prompt: bool) -> Any:
        texts = (completion.prompt, completion.text) if reads_prompt else (completion.text,)
        # RoBERTa models count positions from two on, so that the tokenizer's limit is lower.
        max_length = min(
            self.model.config.max_position_embeddings, self._tokenizer.model_max_length
        )
        return self._tokenizer(*texts, truncation=True, max_length=max_length)


def _load(name: str, folder: Path, device: str) -> _Classifier:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    quiet_transformers()
    try:
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{name} cannot be loaded as a text classifier: {reason}") from error
    if model.config.num_labels < 2:
        raise ModelError(f"{name} gives one number and no classes: two labels or more are needed")
    return _Classifier(model.to(device).eval(), tokenizer)
