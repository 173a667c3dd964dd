"""persona_vectors: one `.pt` of `[L + 1, d_model]`, a row for each of HF's hidden_states.

Rows without an axis are zeros. The tool takes row l for block l - 1. Its own last row was read
after the model's final norm, which this warehouse's last layer is not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from axes.analysis.exchange.formats import torch_file
from axes.analysis.exchange.formats.contents import HIDDEN_STATES, Contents, write_sidecar

recognises = torch_file.recognises


def write(contents: Contents, path: Path) -> None:
    """Write the matrix, and the cards beside it."""
    assert contents.layer_count is not None
    torch_file.save(contents.matrix(contents.layer_count + 1), path)
    write_sidecar(path, contents.cards)


def read(path: Path) -> Contents:
    """Read a matrix as one of theirs."""
    return replace(torch_file.read(path), convention=HIDDEN_STATES)
