"""hidden-directions: a folder with a `.pt` of `[L, d_model]`, row b of block b, and manifest.json.

A manifest lists several directions by name; a folder of several is read by the path of one file.
Rows without an axis are zeros. The card is card.json.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from axes.analysis.exchange.formats import torch_file
from axes.analysis.exchange.formats.contents import BLOCK, Contents, read_sidecar, write_sidecar
from axes.analysis.exchange.formats.json_file import read_object
from axes.warehouse.errors import AxisError

_MANIFEST = "manifest.json"
_NAME = "direction"


def recognises(path: Path) -> bool:
    """A folder with a manifest that lists directions."""
    return "directions" in (read_object(path / _MANIFEST) or {})


def write(contents: Contents, path: Path) -> None:
    """Write the folder."""
    assert contents.layer_count is not None
    matrix = contents.matrix(contents.layer_count)
    path.mkdir(exist_ok=True)
    torch_file.save(matrix, path / f"{_NAME}.pt")
    described = {
        "name": _NAME,
        "shape": list(matrix.shape),
        "dtype": "torch.float32",
        "recommended_layer": max(number or 0 for number in contents.vectors),
    }
    manifest = {
        "model": contents.model_name,
        "extracted_via": "safety-axes (card.json)",
        "directions": [described],
    }
    (path / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    write_sidecar(path, contents.cards)


def read(path: Path) -> Contents:
    """Read a folder of one direction, or one `.pt` of it."""
    if path.is_file():
        return replace(torch_file.read(path), convention=BLOCK)
    manifest = json.loads((path / _MANIFEST).read_text())
    names = [described["name"] for described in manifest["directions"]]
    if len(names) != 1:
        raise AxisError(
            f"{path} holds {len(names)} directions ({', '.join(names)}): give the path of one, "
            f"such as {path / f'{names[0] if names else _NAME}.pt'}"
        )
    return replace(
        torch_file.read(path / f"{names[0]}.pt"),
        convention=BLOCK,
        model_name=manifest.get("model"),
        cards=read_sidecar(path),
    )
