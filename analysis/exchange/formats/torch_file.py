"""Torch's `.pt`: a tensor, or tensors by name or number, read with `weights_only=True`.

That unpickler makes tensors, numbers and containers of them and runs nothing; what needs more is
refused. A matrix `[layers, d_model]` may count either way, which its rows tell once the model is
known: L + 1 of persona_vectors, L of hidden-directions.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from axes.analysis.exchange.formats.arrays import read_arrays
from axes.analysis.exchange.formats.contents import Contents, read_sidecar
from axes.warehouse.errors import AxisError


def recognises(path: Path) -> bool:
    """A zip with a pickle in it, or a file that its suffix says is of the older kind."""
    if not path.is_file():
        return False
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    return path.suffix in (".pt", ".pth")


def save(array: np.ndarray, path: Path) -> None:
    """Write an array as a tensor."""
    import torch

    torch.save(torch.from_numpy(array), path)


def load(path: Path) -> dict[str, np.ndarray]:
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
    tensors: dict[Any, Any] = loaded if isinstance(loaded, dict) else {"direction": loaded}
    if isinstance(loaded, list | tuple):
        tensors = {f"row {row}": value for row, value in enumerate(loaded)}
    strangers = [name for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if strangers:
        raise AxisError(f"{path} holds more than tensors: {', '.join(map(str, strangers))}")
    return {str(name): tensor.float().numpy() for name, tensor in tensors.items()}


def read(path: Path) -> Contents:
    """Read a file of another tool, or of this project with the card beside it."""
    return read_arrays(load(path), read_sidecar(path))
