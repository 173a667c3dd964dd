"""safetensors: tensor `direction`, or `direction.{layer}` where there are several; the card, as
JSON, in the header's metadata. Reads any safetensors file of directions, a card or none.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from axes.analysis.exchange.formats.arrays import read_arrays
from axes.analysis.exchange.formats.contents import Contents, pack, unpack


def recognises(path: Path) -> bool:
    """Eight bytes of length, then a JSON object."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def write(contents: Contents, path: Path) -> None:
    """Write vectors, float32, and cards."""
    from safetensors.numpy import save_file

    metadata = {"format": "pt", "card": json.dumps(pack(contents.cards))}
    save_file(named(contents), path, metadata=metadata)


def named(contents: Contents) -> dict[str, np.ndarray]:
    """The vectors under the names that this project's own formats give them."""
    if len(contents.vectors) == 1:
        return {"direction": next(iter(contents.vectors.values()))}
    return {f"direction.{number}": vector for number, vector in contents.vectors.items()}


def read(path: Path) -> Contents:
    """Read a file of this project or another's; half-precision tensors are widened."""
    tensors, metadata = read_tensors(path)
    return read_arrays(tensors, unpack(json.loads(metadata.get("card", "null"))))


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors as float32, and the metadata of the header."""
    from safetensors import safe_open

    # By way of torch, since NumPy has no bfloat16.
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).float().numpy() for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}
