"""JSON: the card with the vector as numbers, or `{"axes": [...]}` with several of those.

Reads also what has no card: `{"vector": [...]}`, and `{"directions": {number: [...]}}`.

IBM activation-steering's `.svec` is JSON with `model_type`, `directions` (block -> numbers) and
`explained_variances` (block -> number). Their `SteeringVector.load` wants a variance for each block
and ignores further keys, so the card is one. An axis has no explained variance: 1.0 is written, as
they do for methods without one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from axes.analysis.exchange.formats.array_files import read_arrays
from axes.analysis.exchange.formats.contents import (
    BLOCK,
    LAYER,
    Card,
    Contents,
    FileKind,
    head,
    pack,
    unpack,
)


def read_object(path: Path) -> Card | None:
    """The JSON object in a file, or None where that is something else."""
    if head(path, 64).lstrip()[:1] != b"{":
        return None
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _is_json(path: Path) -> bool:
    return read_object(path) is not None


def _write_json(contents: Contents, path: Path) -> None:
    """Write each card with its vector in it."""
    filled = [
        {**card, "vector": vector.tolist()}
        for card, vector in zip(contents.cards, contents.vectors.values(), strict=True)
    ]
    path.write_text(json.dumps(pack(filled), indent=2) + "\n")


def _read_json(path: Path) -> Contents:
    content = read_object(path) or {}
    cards = unpack(content)
    if cards:
        vectors = _arrays({card["file"]["number"]: card.pop("vector") for card in cards})
        return Contents(vectors=vectors, convention=LAYER, cards=cards)
    given = content.get("directions", {"vector": content.get("vector", [])})
    return read_arrays(_arrays(given))


def _is_svec(path: Path) -> bool:
    """A JSON object with the keys that the peer wants."""
    return {"model_type", "directions"} <= (read_object(path) or {}).keys()


def _write_svec(contents: Contents, path: Path) -> None:
    content = {
        "model_type": contents.model_type,
        "directions": {str(block): vector.tolist() for block, vector in contents.vectors.items()},
        "explained_variances": {str(block): 1.0 for block in contents.vectors},
        "card": pack(contents.cards),
    }
    path.write_text(json.dumps(content) + "\n")


def _read_svec(path: Path) -> Contents:
    content = read_object(path) or {}
    return Contents(
        vectors={int(block): vector for block, vector in _arrays(content["directions"]).items()},
        convention=BLOCK,
        model_type=content["model_type"],
        cards=unpack(content.get("card")),
    )


def _arrays(numbers: Mapping[Any, Any]) -> dict[Any, np.ndarray]:
    return {name: np.array(values, dtype=np.float32) for name, values in numbers.items()}


JSON = FileKind(_is_json, _read_json, _write_json)
SVEC = FileKind(_is_svec, _read_svec, _write_svec)
