"""GGUF control vectors: tensors `direction.{number}`, as repeng, EasySteer and llama.cpp name them.

repeng and EasySteer number a vector by the block whose output it was fitted on, and llama.cpp adds
`direction.{n}` to the output of block n: the three agree. llama.cpp's own cvector-generator does
not: what it fits on block n it calls `direction.{n+1}`, so that its loader adds it one block later
than it was fitted. It counts as HF's `hidden_states` do. It writes `layer_count` as a signed number
and numbers from 1 without a gap, by which its files are told. llama.cpp refuses a file with
`direction.0`, repeng one without `model_hint`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from axes.analysis.exchange.formats.contents import (
    BLOCK,
    HIDDEN_STATES,
    Contents,
    FileKind,
    head,
    pack,
    unpack,
)
from axes.warehouse.errors import AxisError

_ARCHITECTURE = "controlvector"
_CARD = "safety_axes.card"


def _is_gguf(path: Path) -> bool:
    return head(path, 4) == b"GGUF"


def _write(contents: Contents, path: Path) -> None:
    """Write vectors, what the readers want to know, and the cards as JSON."""
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), _ARCHITECTURE)
    writer.add_string("controlvector.model_hint", contents.model_type or "unknown")
    writer.add_string("controlvector.method", contents.method or "unknown")
    is_cvector = contents.convention == HIDDEN_STATES
    add_count = writer.add_int32 if is_cvector else writer.add_uint32
    add_count("controlvector.layer_count", len(contents.vectors))
    writer.add_string(_CARD, json.dumps(pack(contents.cards)))
    for number, vector in contents.vectors.items():
        writer.add_tensor(f"direction.{number}", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read(path: Path) -> Contents:
    """Read a control vector; raises `AxisError` for a GGUF file that is something else."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if (found := fields.get("general.architecture")) != _ARCHITECTURE:
        raise AxisError(f"expected a GGUF file of architecture {_ARCHITECTURE}, found {found}")
    vectors: dict[int | None, np.ndarray] = {}
    for tensor in reader.tensors:
        prefix, _, number = tensor.name.partition(".")
        if prefix != "direction" or not number.isdecimal():
            raise AxisError(f"expected tensors called direction.NUMBER, found {tensor.name}")
        if tensor.data.dtype not in (np.float32, np.float16):
            raise AxisError(f"{tensor.name} is {tensor.tensor_type.name}: float32 is expected")
        vectors[int(number)] = np.array(tensor.data, dtype=np.float32)
    cards = unpack(json.loads(fields.get(_CARD, "null")))
    return Contents(
        vectors=vectors,
        convention=cards[0]["file"]["convention"] if cards else _convention(reader, vectors),
        model_type=fields.get("controlvector.model_hint"),
        method=fields.get("controlvector.method"),
        cards=cards,
    )


def _convention(reader: object, vectors: dict[int | None, np.ndarray]) -> str | None:
    """How a file of another tool counts; None where it could be either."""
    from gguf import GGUFValueType

    count = reader.fields.get("controlvector.layer_count")  # type: ignore[attr-defined]
    if count is None or count.types[0] != GGUFValueType.INT32:
        return BLOCK
    is_gapless = sorted(number or 0 for number in vectors) == list(range(1, len(vectors) + 1))
    return HIDDEN_STATES if is_gapless and len(vectors) > 1 else None


GGUF = FileKind(_is_gguf, _read, _write)
