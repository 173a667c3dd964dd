"""The files in which directions travel between tools, a module for those that are alike.

What a file does not say of its directions, an `ImportRequest` says.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from axes.warehouse.names import SITES
from axes.warehouse.settings import option

if TYPE_CHECKING:
    from axes.analysis.exchange.formats.contents import FileKind


@dataclass(frozen=True)
class Format:
    """A name of `--to`: its kind of file, what its numbers count, and how its reader takes it in.

    `kind` is MODULE.KIND. Without a `suffix` it is a folder. `min_number` is the lowest that its
    reader allows.
    """

    name: str
    kind: str
    convention: str
    suffix: str
    usage: str
    holds_several: bool = True
    min_number: int = 0

    @property
    def file(self) -> FileKind:
        """Imported on use: some take a second."""
        module, name = self.kind.split(".")
        kind: FileKind = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        return kind


_GGUF = ("control_vector.GGUF", "block", ".gguf")
_STEERING_VECTOR = (
    "SteeringVector({int(block): v for block, v in safetensors.torch.load_file(PATH).items()}, "
    '"decoder_block")'
)
_LISTED = (
    Format(
        "safetensors",
        "array_files.SAFETENSORS",
        "layer",
        ".safetensors",
        "safetensors.numpy.load_file(PATH)",
    ),
    Format("npz", "array_files.NPZ", "layer", ".npz", "numpy.load(PATH)"),
    Format("json", "json_files.JSON", "layer", ".json", "json.load(open(PATH))"),
    Format(
        "hub", "hub_folder.HUB", "layer", "", "huggingface_hub.upload_folder(folder_path=PATH, ...)"
    ),
    Format("gguf", *_GGUF, "llama-server --control-vector-scaled PATH:STRENGTH", min_number=1),
    Format(
        "gguf-cvector",
        "control_vector.GGUF",
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
    Format(
        "steering-vectors",
        "array_files.STEERING_VECTORS",
        "block",
        ".safetensors",
        _STEERING_VECTOR,
    ),
    Format(
        "refusal-direction",
        "torch_files.REFUSAL_DIRECTION",
        "hidden_states",
        "",
        'torch.load(PATH + "/direction.pt"); its layer is in direction_metadata.json',
        holds_several=False,
    ),
    Format(
        "persona-vectors",
        "torch_files.PERSONA_VECTORS",
        "hidden_states",
        ".pt",
        "torch.load(PATH)[layer + 1]",
    ),
    Format(
        "hidden-directions",
        "torch_files.HIDDEN_DIRECTIONS",
        "block",
        "",
        'torch.load(PATH + "/direction.pt")[layer]',
    ),
    Format("svec", "json_files.SVEC", "block", ".svec", "SteeringVector.load(PATH)"),
    Format(
        "vllm-lens",
        "json_files.VLLM_LENS",
        "block",
        ".json",
        "vllm_lens.SteeringVector.model_validate(json.load(open(PATH)))",
    ),
)

FORMATS = {listed.name: listed for listed in _LISTED}

# In this order: of files that two would read, the first has more to say.
_RECOGNISED = (
    *("hub", "refusal-direction", "hidden-directions", "repeng", "steering-vectors"),
    *("safetensors", "svec", "vllm-lens", "json", "npz"),
)
# What a `.pt` counts is told by its rows.
_TORCH = Format("torch", "torch_files.TORCH", "block", ".pt", "torch.load(PATH)")


def recognise(path: Path) -> Format | None:
    """The format of a file or folder by its content, or None."""
    known = (*(FORMATS[name] for name in _RECOGNISED), _TORCH)
    return next((each for each in known if each.file.recognises(path)), None)


@dataclass(frozen=True)
class ImportRequest:
    """What the user says about a file; None: as the file or its card says, else the default."""

    format: str | None = option(
        None,
        "Format of FILE, where its content is ambiguous or not recognised.",
        FORMATS,
        flag="--from",
    )
    model: str | None = option(
        None, "Stored model whose space the directions are in.", names="model"
    )
    layer: int | None = option(
        None,
        "Zero-based block of the direction; of a file with several layers, the one to import.",
        minimum=0,
    )
    site: str | None = option(None, "Default: that of the card, or resid_post.", SITES)
    pooling: str | None = option(
        None,
        "Pooling of the activations to project. Default: that of the card, or last5_mean.",
        names="pooling",
    )
    template: str | None = option(
        None, "Template of the activations to project. Default: that of the card, or raw."
    )
    convention: str | None = option(
        None,
        "How FILE numbers layers: by block, or as the hidden_states of HF transformers.",
        ("block", "hidden_states"),
    )
    name: str | None = option(None, "Last part of the axis's name. Default: the file's name.")
    features: tuple[int, ...] | None = option(
        None, "Features of a sparse autoencoder to import, such as 12,40-50."
    )
    fitted_on: str | None = option(
        None, "Labelled set that they were fitted on.", names="prompt_set"
    )
    is_other_model: bool = option(
        False, "Import even if the card names another model.", flag="--other-model"
    )
