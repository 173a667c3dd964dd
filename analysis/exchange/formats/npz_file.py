"""NumPy's npz: `direction`, or `direction.{layer}` where there are several, and `card`, a string of
JSON. Reads any npz or npy of directions; never a pickled array.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from axes.analysis.exchange.formats.arrays import read_arrays
from axes.analysis.exchange.formats.contents import Contents, pack, unpack
from axes.analysis.exchange.formats.safetensors_file import named

_NPY = b"\x93NUMPY"


def recognises(path: Path) -> bool:
    """A zip of npy files, or one npy file."""
    if not path.is_file():
        return False
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    with path.open("rb") as file:
        return file.read(len(_NPY)) == _NPY


def write(contents: Contents, path: Path) -> None:
    """Write vectors, float32, and cards."""
    arrays = {**named(contents), "card": np.array(json.dumps(pack(contents.cards)))}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read(path: Path) -> Contents:
    """Read a file of this project or another's."""
    loaded = np.load(path, allow_pickle=False)
    arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"direction": loaded}
    card = arrays.pop("card", None)
    return read_arrays(arrays, [] if card is None else unpack(json.loads(str(card))))
