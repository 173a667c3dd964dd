"""What a `SteeringVector` of steering-vectors is made of; the package has no file of its own.

A safetensors file with a tensor for each block, named by its number, and `layer_type` in the
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
from pathlib import Path

from axes.analysis.exchange.formats import safetensors_file
from axes.analysis.exchange.formats.contents import BLOCK, Contents, pack, unpack
from axes.warehouse.errors import AxisError

# What their `decoder_block` hooks is a block's output.
_LAYER_TYPE = "decoder_block"


def recognises(path: Path) -> bool:
    """A safetensors file that names a layer type."""
    if not safetensors_file.recognises(path):
        return False
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, path.stat().st_size))
    try:
        return "layer_type" in json.loads(header).get("__metadata__", {})
    except ValueError:
        return False


def write(contents: Contents, path: Path) -> None:
    """Write vectors by block, and the cards in the metadata."""
    from safetensors.numpy import save_file

    metadata = {
        "format": "pt",
        "layer_type": _LAYER_TYPE,
        "card": json.dumps(pack(contents.cards)),
    }
    tensors = {str(block): vector for block, vector in contents.vectors.items()}
    save_file(tensors, path, metadata=metadata)


def read(path: Path) -> Contents:
    """Read vectors of block outputs; raises `AxisError` for another layer type."""
    tensors, metadata = safetensors_file.read_tensors(path)
    layer_type = metadata.get("layer_type", _LAYER_TYPE)
    if layer_type != _LAYER_TYPE:
        raise AxisError(
            f"expected vectors of {_LAYER_TYPE}, found {layer_type}: what {layer_type} puts out is "
            "no site of the warehouse in every architecture"
        )
    return Contents(
        vectors={int(block): vector for block, vector in tensors.items()},
        convention=BLOCK,
        cards=unpack(json.loads(metadata.get("card", "null"))),
    )
