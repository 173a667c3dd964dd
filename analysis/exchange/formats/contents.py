"""What a file of directions holds, whatever its format: vectors by number, and what is counted.

Three ways of counting are about, one off from each other, and few files say which is theirs:

`block`          number n is what block n puts out, blocks counted from 0
`hidden_states`  number n is HF's `hidden_states[n]`: what block n takes in and block n - 1 puts out
`layer`          number n is the `layer` of this warehouse, at the site that the card names
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from axes.warehouse.errors import AxisError
from axes.warehouse.names import RESID_POST

BLOCK, HIDDEN_STATES, LAYER = "block", "hidden_states", "layer"
RESID_PRE = "resid_pre"

Vectors = Mapping[int | None, Float[np.ndarray, " d_model"]]
Card = dict[str, Any]

# What an import takes from a card: an object without them is somebody else's.
_READ = {
    *("axis_id", "file", "layer", "site", "pooling", "template", "method", "raw_norm"),
    *("is_unit_norm", "parameters", "space", "space_model", "space_model_id"),
}


@dataclass(frozen=True, eq=False)
class Contents:
    """Directions of one model by the number that the file gives each; None: it gives none.

    `convention` says what the numbers count, None where the file does not. `row_count` is that of a
    matrix `[row, d_model]` with a row for every number, whose rows of zeros are left out of
    `vectors`. `model_type` is as transformers names it, `model_name` as the file's author did;
    `layer_count` is known when a file is written. `cards` say all that the format does not. `site`
    is that of the file where it names one; `number` is that of all vectors where these are the
    features of an autoencoder by index. `is_subspace`: the vectors are one basis, in order from 0.
    """

    vectors: Vectors
    convention: str | None = None
    row_count: int | None = None
    model_type: str | None = None
    model_name: str | None = None
    method: str | None = None
    layer_count: int | None = None
    cards: Sequence[Card] = ()
    site: str | None = None
    number: int | None = None
    is_subspace: bool = False

    def card(self, number: int | None) -> Card | None:
        """The card of one of the vectors: that with its number, or the only one."""
        if len(self.cards) == 1 and len(self.vectors) == 1:
            return self.cards[0]
        return next((card for card in self.cards if card["file"]["number"] == number), None)

    def matrix(self, row_count: int) -> Float[np.ndarray, "row d_model"]:
        """The vectors as rows by number, float32, zeros where there is none."""
        width = len(next(iter(self.vectors.values())))
        rows = np.zeros((row_count, width), dtype=np.float32)
        for number, vector in self.vectors.items():
            rows[number] = vector
        return rows


class FileKind(NamedTuple):
    """How one kind of file (or folder) is told by its content, read, and written."""

    recognises: Callable[[Path], bool]
    read: Callable[[Path], Contents]
    write: Callable[[Contents, Path], None]


def head(path: Path, length: int) -> bytes:
    """The first bytes of a file, none of a folder."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(length)


# What is added to a layer of the residual stream to number it.
_OFFSETS = {
    (BLOCK, RESID_POST): 0,
    (BLOCK, RESID_PRE): -1,
    (HIDDEN_STATES, RESID_POST): 1,
    (HIDDEN_STATES, RESID_PRE): 0,
}


def layer_of(number: int, convention: str, site: str) -> int:
    """The layer at a site that a file's number stands for; below 0 where there is none.

    >>> layer_of(5, "block", "resid_post"), layer_of(5, "hidden_states", "resid_post")
    (5, 4)
    """
    if convention == HIDDEN_STATES and (convention, site) not in _OFFSETS:
        raise AxisError(f"HF's hidden_states hold the residual stream, and no {site}")
    return number - _OFFSETS.get((convention, site), 0)


def number_of(layer: int, convention: str, site: str) -> int:
    """The number of a layer at a site; below 0 where the convention has none for it.

    >>> number_of(4, "hidden_states", "resid_post"), number_of(4, "block", "resid_pre")
    (5, 3)
    """
    if convention != LAYER and (convention, site) not in _OFFSETS:
        raise AxisError(
            f"the axis lies in {site}, and the format means the residual stream, to which its "
            "readers would add it: use safetensors, npz, json or hub"
        )
    return layer + _OFFSETS.get((convention, site), 0)


def pack(cards: Sequence[Card]) -> Card:
    """The cards of a file as one JSON object: the card, or several under `axes`."""
    return cards[0] if len(cards) == 1 else {"axes": list(cards)}


def unpack(packed: Any) -> list[Card]:
    """The cards of a packed object; none where it is something else."""
    if not isinstance(packed, dict):
        return []
    cards = packed.get("axes", [packed])
    return cards if isinstance(cards, list) and all(map(_is_card, cards)) else []


def _is_card(card: Any) -> bool:
    return (
        isinstance(card, dict)
        and card.keys() >= _READ
        and isinstance(card["file"], dict)
        and card["file"].keys() >= {"number", "convention"}
    )


def sidecar(path: Path) -> Path:
    """Where the card of a file or folder lies whose format cannot hold one."""
    return path / "card.json" if path.is_dir() else path.with_name(path.name + ".card.json")


def write_sidecar(path: Path, cards: Sequence[Card]) -> None:
    """Write the cards beside a file, or into a folder."""
    sidecar(path).write_text(json.dumps(pack(cards), indent=2) + "\n")


def read_sidecar(path: Path) -> list[Card]:
    """The cards beside a file or in a folder; none where there is no such file."""
    beside = sidecar(path)
    return unpack(json.loads(beside.read_text())) if beside.exists() else []
