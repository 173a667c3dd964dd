"""Torch's `.pt`: a tensor, or tensors by name or number, alone or in the layout of another tool.

It is read with `weights_only=True`: that unpickler makes tensors, numbers and containers of them
and runs nothing; what needs more is refused. A matrix `[layers, d_model]` may count either way,
which its rows tell once the model is known. Rows without an axis are zeros. A `.pt` has no place
for the card, which is written beside it, or as card.json into the folder.

`persona_vectors`: one `.pt` of `[L + 1, d_model]`, a row for each of HF's hidden_states. The tool
takes row l for block l - 1. Its own last row was read after the model's final norm, which this
warehouse's last layer is not.

`refusal_direction`: a folder with direction.pt `[d_model]` and direction_metadata.json, `pos` and
`layer`. Their `layer` is the block at whose input the direction was read and is added: HF's
`hidden_states` index, one above the block that puts it out. `pos` is the position from the prompt's
end, null where a pooling is not one position.

`hidden-directions`: a folder with a `.pt` of `[L, d_model]`, row b of block b, and manifest.json.
A manifest lists several directions by name; a folder of several is read by the path of one file.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from axes.analysis.exchange.formats.array_files import read_arrays
from axes.analysis.exchange.formats.contents import (
    BLOCK,
    HIDDEN_STATES,
    Contents,
    FileKind,
    read_sidecar,
    write_sidecar,
)
from axes.analysis.exchange.formats.json_files import read_object
from axes.warehouse.errors import AxisError

_NAME = "direction"
_DIRECTION, _METADATA, _MANIFEST = f"{_NAME}.pt", "direction_metadata.json", "manifest.json"
_POSITIONS = {"last": -1}


def _is_torch(path: Path) -> bool:
    """A zip with a pickle in it, or a file that its suffix says is of the older kind."""
    if not path.is_file():
        return False
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    return path.suffix in (".pt", ".pth")


def _save(array: np.ndarray, path: Path) -> None:
    """Write an array as a tensor."""
    import torch

    torch.save(torch.from_numpy(array), path)


def _load(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name, float32; a tensor alone is called `direction`.

    Raises `AxisError` for a file that holds anything but tensors.
    """
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise AxisError(
            f"{path} cannot be read without running code from it (torch.load with weights_only): "
            "save its tensors alone, as safetensors or with torch.save"
        ) from error
    tensors: dict[Any, Any] = loaded if isinstance(loaded, dict) else {_NAME: loaded}
    if isinstance(loaded, list | tuple):
        tensors = {f"row {row}": value for row, value in enumerate(loaded)}
    strangers = [name for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if strangers:
        raise AxisError(f"{path} holds more than tensors: {', '.join(map(str, strangers))}")
    return {str(name): tensor.float().numpy() for name, tensor in tensors.items()}


def _read(path: Path) -> Contents:
    return read_arrays(_load(path), read_sidecar(path))


def _write_persona_vectors(contents: Contents, path: Path) -> None:
    assert contents.layer_count is not None
    _save(contents.matrix(contents.layer_count + 1), path)
    write_sidecar(path, contents.cards)


def _read_persona_vectors(path: Path) -> Contents:
    return replace(_read(path), convention=HIDDEN_STATES)


def _is_refusal_direction(path: Path) -> bool:
    return (path / _METADATA).is_file()


def _write_refusal_direction(contents: Contents, path: Path) -> None:
    ((number, vector),) = contents.vectors.items()
    path.mkdir(exist_ok=True)
    _save(vector, path / _DIRECTION)
    metadata = {"pos": _POSITIONS.get(contents.cards[0]["pooling"]), "layer": number}
    (path / _METADATA).write_text(json.dumps(metadata, indent=4) + "\n")
    write_sidecar(path, contents.cards)


def _read_refusal_direction(path: Path) -> Contents:
    metadata = json.loads((path / _METADATA).read_text())
    vectors = read_arrays(_load(path / _DIRECTION)).vectors
    if len(vectors) != 1:
        raise AxisError(f"expected one direction in {path / _DIRECTION}, found {len(vectors)}")
    return Contents(
        vectors={int(metadata["layer"]): next(iter(vectors.values()))},
        convention=HIDDEN_STATES,
        cards=read_sidecar(path),
    )


def _is_hidden_directions(path: Path) -> bool:
    return "directions" in (read_object(path / _MANIFEST) or {})


def _write_hidden_directions(contents: Contents, path: Path) -> None:
    assert contents.layer_count is not None
    matrix = contents.matrix(contents.layer_count)
    path.mkdir(exist_ok=True)
    _save(matrix, path / _DIRECTION)
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


def _read_hidden_directions(path: Path) -> Contents:
    """Read a folder of one direction, or one `.pt` of it."""
    if path.is_file():
        return replace(_read(path), convention=BLOCK)
    manifest = json.loads((path / _MANIFEST).read_text())
    names = [described["name"] for described in manifest["directions"]]
    if len(names) != 1:
        raise AxisError(
            f"{path} holds {len(names)} directions ({', '.join(names)}): give the path of one, "
            f"such as {path / f'{names[0] if names else _NAME}.pt'}"
        )
    return replace(
        _read(path / f"{names[0]}.pt"),
        convention=BLOCK,
        model_name=manifest.get("model"),
        cards=read_sidecar(path),
    )


PERSONA_VECTORS = FileKind(_is_torch, _read_persona_vectors, _write_persona_vectors)
# Of an unknown tool: what it counts is told by its rows. It is read, and never written.
TORCH = PERSONA_VECTORS._replace(read=_read)
REFUSAL_DIRECTION = FileKind(
    _is_refusal_direction, _read_refusal_direction, _write_refusal_direction
)
HIDDEN_DIRECTIONS = FileKind(
    _is_hidden_directions, _read_hidden_directions, _write_hidden_directions
)
