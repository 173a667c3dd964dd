"""What the peers' processes share: load a model once, then extract on command.

`python PEER.py MODEL_FOLDER PROMPTS.json THREADS` prints `ready` when the model is loaded. A line
`run` on stdin is answered with the seconds of one extraction, a line `save PATH` with the vectors
of one, float32 `[prompt, layer, d_model]`, in a NumPy file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH_SIZE = 32
LAST = 5

Extract = Callable[[Any, Any, list[str]], np.ndarray]


def serve(extract: Extract, prepare: Callable[[Any, Any], Any] = lambda model, _: model) -> None:
    """Answer the commands with `extract(model, tokenizer, texts)`; `prepare` wraps the model."""
    folder, prompts, threads = sys.argv[1:]
    # Whatever the peer prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(int(threads))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model = prepare(plain, tokenizer)
    texts = json.loads(Path(prompts).read_text())
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        command, _, path = line.strip().partition(" ")
        start = time.perf_counter()
        vectors = extract(model, tokenizer, texts)
        answer = time.perf_counter() - start
        if command == "save":
            np.save(path, vectors.astype(np.float32, copy=False))
        print(answer, file=answers, flush=True)


def batches(texts: list[str]) -> list[list[str]]:
    """The texts in the order they come, as many at once as people take."""
    return [texts[start : start + BATCH_SIZE] for start in range(0, len(texts), BATCH_SIZE)]


def mean_of_last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the last five prompt tokens of left-padded rows: `[..., batch, d_model]`."""
    weight = mask[:, -LAST:, None].to(hidden.dtype)
    return (hidden[..., -LAST:, :] * weight).sum(-2) / weight.sum(-2)
