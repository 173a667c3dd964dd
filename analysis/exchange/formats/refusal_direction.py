"""refusal_direction: a folder with direction.pt `[d_model]` and direction_metadata.json, `pos` and
`layer`.

Their `layer` is the block at whose input the direction was read and is added: HF's `hidden_states`
index, one above the block that puts it out. `pos` is the position from the prompt's end, null where
a pooling is not one position. The card is card.json.
"""

from __future__ import annotations

import json
from pathlib import Path

from axes.analysis.exchange.formats import torch_file
from axes.analysis.exchange.formats.arrays import by_number
from axes.analysis.exchange.formats.contents import (
    HIDDEN_STATES,
    Contents,
    read_sidecar,
    write_sidecar,
)
from axes.warehouse.errors import AxisError

_DIRECTION, _METADATA = "direction.pt", "direction_metadata.json"
_POSITIONS = {"last": -1}


def recognises(path: Path) -> bool:
    """A folder with their metadata."""
    return (path / _METADATA).is_file()


def write(contents: Contents, path: Path) -> None:
    """Write the folder."""
    ((number, vector),) = contents.vectors.items()
    path.mkdir(exist_ok=True)
    torch_file.save(vector, path / _DIRECTION)
    metadata = {"pos": _POSITIONS.get(contents.cards[0]["pooling"]), "layer": number}
    (path / _METADATA).write_text(json.dumps(metadata, indent=4) + "\n")
    write_sidecar(path, contents.cards)


def read(path: Path) -> Contents:
    """Read a folder of theirs or of this project."""
    metadata = json.loads((path / _METADATA).read_text())
    vectors, _ = by_number(torch_file.load(path / _DIRECTION))
    if len(vectors) != 1:
        raise AxisError(f"expected one direction in {path / _DIRECTION}, found {len(vectors)}")
    return Contents(
        vectors={int(metadata["layer"]): next(iter(vectors.values()))},
        convention=HIDDEN_STATES,
        cards=read_sidecar(path),
    )
