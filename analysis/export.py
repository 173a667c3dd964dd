"""Axes leave the warehouse: a unit vector and a card that says what it is.

`safetensors`  tensor `direction` [d_model] float32, the card in the header as JSON
`json`         the card with the vector as numbers
`gguf`         a control vector as repeng writes it: tensor `direction.{layer}` where `layer` is
               the zero-based block whose output the vector is. llama.cpp applies it after that
               block and refuses a file with `direction.0`, so an axis of block 0 cannot be written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from warehouse.axes import find_axis
from warehouse.connection import Connection, rows
from warehouse.errors import AxisError

FORMATS = ("safetensors", "json", "gguf")


def axis_card(connection: Connection, row: dict[str, Any]) -> dict[str, Any]:
    """Everything that is known of an axis but the vector; values are JSON types."""
    space = rows(
        connection,
        "select source, revision, architecture, d_model, layer_count, dtype, weights_hash, license "
        "from models where model_id = ?",
        [row["space_model_id"]],
    )
    evaluations = rows(
        connection,
        "select model, prompt_set, auroc, positive_count, negative_count, is_in_sample "
        "from v_auroc where axis_id = ? order by model, prompt_set",
        [row["axis_id"]],
    )
    columns = {name: value for name, value in row.items() if name != "vector"}
    return {
        **columns,
        "parameters": json.loads(row["parameters"]),
        "layer_convention": "zero-based block index; the vector lies in that block's output "
        "(HF hidden_states[layer + 1], before any final norm)",
        "is_unit_norm": True,
        "is_centred": False,
        "space": space[0] if space else None,
        "evaluation": evaluations,
    }


def export_axis(connection: Connection, axis: str, to: str, output: Path) -> Path:
    """Write an axis to `output` and return the path; raises `AxisError`, for GGUF at block 0."""
    row = find_axis(connection, axis)
    card = axis_card(connection, row)
    output.parent.mkdir(parents=True, exist_ok=True)
    writers = {"safetensors": _write_safetensors, "json": _write_json, "gguf": _write_gguf}
    writers[to](row["vector"], card, output)
    return output


def _write_safetensors(vector: np.ndarray, card: dict[str, Any], output: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"direction": vector}, output, metadata={"card": json.dumps(card)})


def _write_json(vector: np.ndarray, card: dict[str, Any], output: Path) -> None:
    output.write_text(json.dumps({**card, "vector": vector.tolist()}, indent=2) + "\n")


def _write_gguf(vector: np.ndarray, card: dict[str, Any], output: Path) -> None:
    from gguf import GGUFWriter

    if card["layer"] == 0:
        raise AxisError(
            f"axis {card['name']} is at block 0, and llama.cpp refuses a control vector with "
            "direction.0: use safetensors or json"
        )
    architecture = card["space"]["architecture"] if card["space"] else "unknown"
    writer = GGUFWriter(str(output), "controlvector")
    writer.add_string("controlvector.model_hint", architecture)
    writer.add_uint32("controlvector.layer_count", 1)
    writer.add_string("controlvector.method", card["method"])
    writer.add_string("safety_axes.card", json.dumps(card))
    writer.add_tensor(f"direction.{card['layer']}", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
