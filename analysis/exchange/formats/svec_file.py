"""IBM activation-steering's `.svec`: JSON with `model_type`, `directions` (block -> numbers) and
`explained_variances` (block -> number).

Their `SteeringVector.load` wants a variance for each block and ignores further keys, so the card
is one. An axis has no explained variance: 1.0 is written, as they do for methods without one.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from axes.analysis.exchange.formats.contents import BLOCK, Contents, pack, unpack
from axes.analysis.exchange.formats.json_file import read_object


def recognises(path: Path) -> bool:
    """A JSON object with the keys that the peer wants."""
    return {"model_type", "directions"} <= (read_object(path) or {}).keys()


def write(contents: Contents, path: Path) -> None:
    """Write vectors as numbers, and the cards under `card`."""
    content = {
        "model_type": contents.model_type,
        "directions": {str(block): vector.tolist() for block, vector in contents.vectors.items()},
        "explained_variances": {str(block): 1.0 for block in contents.vectors},
        "card": pack(contents.cards),
    }
    path.write_text(json.dumps(content) + "\n")


def read(path: Path) -> Contents:
    """Read a file of this project or theirs."""
    content = read_object(path) or {}
    return Contents(
        vectors={
            int(block): np.array(values, dtype=np.float32)
            for block, values in content["directions"].items()
        },
        convention=BLOCK,
        model_type=content["model_type"],
        cards=unpack(content.get("card")),
    )
