"""JSON: the card with the vector as numbers, or `{"axes": [...]}` with several of those.

Reads also what has no card: `{"vector": [...]}`, and `{"directions": {number: [...]}}`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from axes.analysis.exchange.formats.arrays import read_arrays
from axes.analysis.exchange.formats.contents import LAYER, Card, Contents, pack, unpack


def recognises(path: Path) -> bool:
    """A JSON object."""
    return read_object(path) is not None


def read_object(path: Path) -> Card | None:
    """The JSON object in a file, or None where that is something else."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        if file.read(64).lstrip()[:1] != b"{":
            return None
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def write(contents: Contents, path: Path) -> None:
    """Write each card with its vector in it."""
    filled = [
        {**card, "vector": vector.tolist()}
        for card, vector in zip(contents.cards, contents.vectors.values(), strict=True)
    ]
    path.write_text(json.dumps(pack(filled), indent=2) + "\n")


def read(path: Path) -> Contents:
    """Read a file of this project or another's."""
    content = read_object(path) or {}
    filled = unpack(content)
    if filled:
        with_cards = {
            card["file"]["number"]: np.array(card.pop("vector"), dtype=np.float32)
            for card in filled
        }
        return Contents(vectors=with_cards, convention=LAYER, cards=filled)
    given = content.get("directions", {"vector": content.get("vector", [])})
    arrays = {str(name): np.array(values, dtype=np.float32) for name, values in given.items()}
    return read_arrays(arrays)
