"""Arrays with names, as safetensors and npz files hold them, to vectors by number and back.

Arrays of one dimension are numbered by the integer in their names, of which a single one needs
none; one array of two dimensions has a direction in every row that is not zero.

`safetensors`: tensor `direction`, or `direction.{layer}` where there are several; the card, as
JSON, in the header's metadata. `npz`: the same arrays, and `card`, a string of JSON. Any file of
directions is read, a card or none, npy files too, but never a pickled array. A subspace is an array
`subspace` [rank, d_model] with a card for each row.

`steering-vectors`: what a `SteeringVector` of that package is made of, which has no file of its
own. A safetensors file with a tensor for each block, named by its number, and `layer_type` in the
metadata:

    from safetensors.torch import load_file
    from steering_vectors import SteeringVector

    layers = {int(block): vector for block, vector in load_file("axis.safetensors").items()}
    SteeringVector(layer_activations=layers, layer_type="decoder_block")

One is brought here by writing that file, from a `SteeringVector` called `steering`:

    save_file(
        {str(block): vector for block, vector in steering.layer_activations.items()},
        "axis.safetensors",
        metadata={"layer_type": steering.layer_type},
    )
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from axes.analysis.exchange.formats.contents import (
    BLOCK,
    Card,
    Contents,
    FileKind,
    head,
    pack,
    unpack,
)
from axes.warehouse.errors import AxisError
from axes.warehouse.tables.bounds import read_npz_headers

_NPY = b"\x93NUMPY"
# What their `decoder_block` hooks is a block's output.
_LAYER_TYPE = "decoder_block"


def read_arrays(named: Mapping[str, np.ndarray], cards: Sequence[Card] = ()) -> Contents:
    """The contents of a file of arrays, with the cards if it is of this project.

    Raises `AxisError` for other arrays than the module describes: names, shapes and expectation.
    """
    vectors: dict[int | None, np.ndarray] = {}
    contents = Contents(vectors, cards[0]["file"]["convention"] if cards else None, cards=cards)
    if cards and "subspace" in named:
        basis = named["subspace"].astype(np.float32)
        _require_basis(cards, len(basis))
        return replace(contents, vectors=dict(enumerate(basis)), is_subspace=True)
    numbers = {name: re.findall(r"\d+", name) for name in named}
    if len(named) == 1:
        ((name, array),) = named.items()
        if array.ndim == 2 and len(array) == 1:
            array = array[0]
        if array.ndim == 1:
            number = int(numbers[name][0]) if len(numbers[name]) == 1 else None
            return replace(contents, vectors={number: array.astype(np.float32)})
        if array.ndim == 2:
            rows = array.astype(np.float32)
            kept = np.flatnonzero(rows.any(axis=1)).tolist()
            vectors = {row: rows[row] for row in kept}
            return replace(contents, vectors=vectors, row_count=len(rows))
    is_numbered = all(len(found) == 1 for found in numbers.values())
    if not named or not is_numbered or any(array.ndim != 1 for array in named.values()):
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in named.items())
        raise AxisError(
            "expected one array [d_model], one [layers, d_model], or several [d_model] with a "
            f"layer's number in each name, found {shapes or 'none'}"
        )
    names = sorted(named, key=lambda name: int(numbers[name][0]))
    vectors = {int(numbers[name][0]): named[name].astype(np.float32) for name in names}
    if len(vectors) < len(named):
        raise AxisError(f"two arrays have the same number: {', '.join(sorted(named))}")
    return replace(contents, vectors=vectors)


def _require_basis(cards: Sequence[Card], rank: int) -> None:
    """Refuse cards that do not say all that the scores of a subspace follow from."""
    for number, card in enumerate(cards):
        stated = card["parameters"]
        try:
            places = (stated["rank"], stated["component"], card["file"]["number"])
            numbers = np.array(
                [stated["offset"], stated["intercept"], *stated["weights"]], np.float64
            )
        except (KeyError, TypeError, ValueError) as error:
            raise AxisError(f"card {number} is not of a subspace: {error}") from error
        is_complete = len(numbers) == 2 + 2 * rank and np.isfinite(numbers).all()
        if places != (rank, number + 1, number) or len(cards) != rank or not is_complete:
            raise AxisError(f"card {number} is not of vector {number + 1} of {rank} of a subspace")


def _named(contents: Contents) -> dict[str, np.ndarray]:
    """The vectors under the names that this project's own formats give them."""
    if contents.is_subspace:
        return {"subspace": contents.matrix(len(contents.vectors))}
    if len(contents.vectors) == 1:
        return {"direction": next(iter(contents.vectors.values()))}
    return {f"direction.{number}": vector for number, vector in contents.vectors.items()}


def _is_safetensors(path: Path) -> bool:
    """Eight bytes of length, then a JSON object."""
    return head(path, 9)[8:] == b"{"


def _write_safetensors(contents: Contents, path: Path) -> None:
    _save(_named(contents), path, contents.cards)


def _save(
    tensors: Mapping[str, np.ndarray], path: Path, cards: Sequence[Card], **metadata: str
) -> None:
    """Write tensors, float32, with the cards and more in the header; the same bytes each time."""
    from safetensors.numpy import save

    data = save(dict(tensors), {"format": "pt", **metadata, "card": json.dumps(pack(cards))})
    start = 8 + int.from_bytes(data[:8], "little")
    # The library leaves the order of the metadata to chance.
    header = json.dumps(json.loads(data[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[start:])


def _read_safetensors(path: Path) -> Contents:
    tensors, metadata = _load(path)
    return read_arrays(tensors, _cards(metadata))


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors as float32 (half precision is widened), and the metadata of the header."""
    from safetensors import safe_open

    # By way of torch, since NumPy has no bfloat16.
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).float().numpy() for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}


def _cards(metadata: Mapping[str, str]) -> list[Card]:
    return unpack(json.loads(metadata.get("card", "null")))


def _is_npz(path: Path) -> bool:
    """A zip of npy files, or one npy file."""
    if path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    return head(path, len(_NPY)) == _NPY


def _write_npz(contents: Contents, path: Path) -> None:
    arrays = {**_named(contents), "card": np.array(json.dumps(pack(contents.cards)))}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _read_npz(path: Path) -> Contents:
    if zipfile.is_zipfile(path):
        read_npz_headers(path)  # Refuses one that would fill the memory.
    loaded = np.load(path, allow_pickle=False)
    arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"direction": loaded}
    card = arrays.pop("card", None)
    return read_arrays(arrays, [] if card is None else unpack(json.loads(str(card))))


def _is_steering_vectors(path: Path) -> bool:
    """A safetensors file that names a layer type."""
    if not _is_safetensors(path):
        return False
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, path.stat().st_size))
    try:
        return "layer_type" in json.loads(header).get("__metadata__", {})
    except ValueError:
        return False


def _write_steering_vectors(contents: Contents, path: Path) -> None:
    tensors = {str(block): vector for block, vector in contents.vectors.items()}
    _save(tensors, path, contents.cards, layer_type=_LAYER_TYPE)


def _read_steering_vectors(path: Path) -> Contents:
    """Vectors of block outputs; raises `AxisError` for another layer type."""
    tensors, metadata = _load(path)
    layer_type = metadata.get("layer_type", _LAYER_TYPE)
    if layer_type != _LAYER_TYPE:
        raise AxisError(
            f"expected vectors of {_LAYER_TYPE}, found {layer_type}: what {layer_type} puts out is "
            "no site of the warehouse in every architecture"
        )
    return Contents(
        vectors={int(block): vector for block, vector in tensors.items()},
        convention=BLOCK,
        cards=_cards(metadata),
    )


SAFETENSORS = FileKind(_is_safetensors, _read_safetensors, _write_safetensors)
NPZ = FileKind(_is_npz, _read_npz, _write_npz)
STEERING_VECTORS = FileKind(_is_steering_vectors, _read_steering_vectors, _write_steering_vectors)
