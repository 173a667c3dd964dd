"""The files in which directions travel between tools: one module for each way of writing them.

A module has `recognises(path)`, `read(path) -> Contents` and `write(contents, path)`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class Format:
    """A name of `--to`: its module, what its numbers count, and how its reader takes it in.

    Without a `suffix` it is a folder. `min_number` is the lowest that its reader allows.
    """

    name: str
    module_name: str
    convention: str
    suffix: str
    usage: str
    holds_several: bool = True
    min_number: int = 0

    @property
    def module(self) -> ModuleType:
        """Imported on use: some take a second."""
        return importlib.import_module(f"axes.analysis.exchange.formats.{self.module_name}")


_GGUF = ("control_vector", "block", ".gguf")
_STEERING_VECTOR = (
    "SteeringVector({int(block): v for block, v in safetensors.torch.load_file(PATH).items()}, "
    '"decoder_block")'
)
_LISTED = (
    Format(
        "safetensors",
        "safetensors_file",
        "layer",
        ".safetensors",
        "safetensors.numpy.load_file(PATH)",
    ),
    Format("npz", "npz_file", "layer", ".npz", "numpy.load(PATH)"),
    Format("json", "json_file", "layer", ".json", "json.load(open(PATH))"),
    Format(
        "hub", "hub_folder", "layer", "", "huggingface_hub.upload_folder(folder_path=PATH, ...)"
    ),
    Format("gguf", *_GGUF, "llama-server --control-vector-scaled PATH:STRENGTH", min_number=1),
    Format(
        "gguf-cvector",
        "control_vector",
        "hidden_states",
        ".gguf",
        "as llama.cpp's cvector-generator numbers; llama.cpp adds it one block after its own",
        min_number=1,
    ),
    Format("repeng", *_GGUF, "repeng.ControlVector.import_gguf(PATH)"),
    Format(
        "easysteer",
        *_GGUF,
        "StatisticalControlVector.import_gguf(PATH), or easysteer.vectors.from_gguf(PATH)",
    ),
    Format("steering-vectors", "steering_vectors_file", "block", ".safetensors", _STEERING_VECTOR),
    Format(
        "refusal-direction",
        "refusal_direction",
        "hidden_states",
        "",
        'torch.load(PATH + "/direction.pt"); its layer is in direction_metadata.json',
        holds_several=False,
    ),
    Format(
        "persona-vectors", "persona_vectors", "hidden_states", ".pt", "torch.load(PATH)[layer + 1]"
    ),
    Format(
        "hidden-directions",
        "hidden_directions",
        "block",
        "",
        'torch.load(PATH + "/direction.pt")[layer]',
    ),
    Format("svec", "svec_file", "block", ".svec", "SteeringVector.load(PATH)"),
)

FORMATS = {listed.name: listed for listed in _LISTED}

# In this order: of files that two would read, the first has more to say.
_RECOGNISED = (
    *("hub", "refusal-direction", "hidden-directions", "repeng", "steering-vectors"),
    *("safetensors", "svec", "json", "npz"),
)
# What a `.pt` counts is told by its rows.
_TORCH = Format("torch", "torch_file", "block", ".pt", "torch.load(PATH)")


def recognise(path: Path) -> Format | None:
    """The format of a file or folder by its content, or None."""
    for known in (*(FORMATS[name] for name in _RECOGNISED), _TORCH):
        if known.module.recognises(path):
            return known
    return None
