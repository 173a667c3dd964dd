"""JSON: the card with the vector as numbers, or `{"axes": [...]}` with several of those.

Reads also what has no card: `{"vector": [...]}`, and `{"directions": {number: [...]}}`.

IBM activation-steering's `.svec` is JSON with `model_type`, `directions` (block -> numbers) and
`explained_variances` (block -> number). Their `SteeringVector.load` wants a variance for each block
and ignores further keys, so the card is one. An axis has no explained variance: 1.0 is written, as
they do for methods without one.

vLLM-Lens takes a `SteeringVector` by `model_validate` of such a JSON object: `activations` (little-
endian rows, zstd in base64), `layer_indices` (the blocks whose outputs they are added to), `scale`.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

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
from axes.warehouse.tables.bounds import require_bounded


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


def _is_vllm_lens(path: Path) -> bool:
    return {"activations", "layer_indices"} <= (read_object(path) or {}).keys()


def _write_vllm_lens(contents: Contents, path: Path) -> None:
    rows = np.stack([*contents.vectors.values()]).astype("<f4")
    data = pa.compress(rows.tobytes(), codec="zstd", asbytes=True)
    content = {
        "activations": {
            "data": base64.b64encode(data).decode(),
            "dtype": "float32",
            "original_dtype": "torch.float32",
            "shape": rows.shape,
            "compression": "zstd",
        },
        "layer_indices": list(contents.vectors),
        "scale": 1.0,
        "norm_match": False,
        "position_indices": None,
        "card": pack(contents.cards),
    }
    path.write_text(json.dumps(content) + "\n")


def _read_vllm_lens(path: Path) -> Contents:
    """The vectors as they are added: of the scale's length, and of its sign."""
    content = read_object(path) or {}
    entry = content["activations"]
    shape, dtype = entry["shape"], np.dtype(entry["dtype"])
    if len(shape) != 2:
        raise ValueError(f"activations {shape} are of single positions: [layer, d_model] is read")
    data, size = base64.b64decode(entry["data"]), math.prod(shape) * dtype.itemsize
    require_bounded(path, size)
    if entry.get("compression") == "zstd":
        data = pa.decompress(data, size, codec="zstd", asbytes=True)
    rows = np.frombuffer(data, dtype).reshape(shape)
    if entry.get("original_dtype") == "torch.bfloat16":  # Stored as 16-bit integers.
        rows = (rows.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    rows = rows.astype(np.float32) * np.float32(content.get("scale", 1.0))
    return Contents(
        vectors=dict(zip(content["layer_indices"], rows, strict=True)),
        convention=BLOCK,
        cards=unpack(content.get("card")),
    )


def _arrays(numbers: Mapping[Any, Any]) -> dict[Any, np.ndarray]:
    return {name: np.array(values, dtype=np.float32) for name, values in numbers.items()}


JSON = FileKind(_is_json, _read_json, _write_json)
SVEC = FileKind(_is_svec, _read_svec, _write_svec)
VLLM_LENS = FileKind(_is_vllm_lens, _read_vllm_lens, _write_vllm_lens)
