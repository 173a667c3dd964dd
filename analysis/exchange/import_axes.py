"""Directions of other tools become axes: recognised, checked against the model, registered.

An imported axis is a row of `axes` of kind `imported`, a unit vector as every axis is, with the
file's norm beside it. Its id is a hash of the vector and of where it lies, so that importing again,
from this file or from another format, finds it there. What a file does not say comes from the card
that this project writes, else from the user; nothing that decides where a vector lies is guessed.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from axes.analysis.activations import count_prompts
from axes.analysis.exchange.formats import FORMATS, Format, recognise
from axes.analysis.exchange.formats.contents import Card, Contents
from axes.analysis.exchange.placing import Asked, Placed, place
from axes.analysis.registry import Axis, write_axes
from axes.warehouse.connection import Connection, connect, rows
from axes.warehouse.errors import AxisError, NonFiniteError
from axes.warehouse.runs import record_run
from axes.warehouse.sites import RESID_POST
from axes.warehouse.writer import content_key

# A vector this near to unit length is taken as it is, so that it keeps its bits from file to file.
_UNIT = 1e-6

_EXPECTED = "see `axes import --help` for the formats, and name it with --from"


@dataclass(frozen=True)
class ImportedAxis:
    """An axis as it is registered now; `is_new` unless it was there before."""

    axis_id: str
    name: str
    model: str
    layer: int
    site: str
    pooling: str
    template: str
    raw_norm: float
    is_new: bool


@dataclass(frozen=True)
class Imported:
    """The axes of a file, its format, and what was assumed or left out."""

    format: str
    axes: tuple[ImportedAxis, ...]
    remarks: tuple[str, ...]


def import_axes(root: Path, path: Path, asked: Asked) -> Imported:
    """Register the directions of a file or folder as axes of a model of the warehouse.

    Raises `AxisError` for a file that is not understood, that does not say enough, or that does not
    fit the model; `ModelError` and `LayerError` for those.
    """
    connection = connect(root)
    kind = _format(path, asked.format)
    contents = _read(path, kind)
    placed, remarks = place(connection, path, contents, asked)
    if asked.fitted_on is not None:
        count_prompts(connection, asked.fitted_on)
    given = asdict(asked).items()
    named = {name: value for name, value in given if value is not None and value is not False}
    with record_run(root, "import", {"file": str(path.resolve()), **named}) as run:
        axes = [_axis(connection, path, kind, item, asked) for item in placed]
        there = {row["axis_id"]: row for row in _registered(connection, axes)}
        write_axes(root, connection, run, axes)
    return Imported(
        kind.name, tuple(_imported(axis, there.get(axis.axis_id)) for axis in axes), tuple(remarks)
    )


def _format(path: Path, name: str | None) -> Format:
    if not path.exists():
        raise AxisError(f"there is no file or folder {path}")
    kind = recognise(path) if name is None else FORMATS[name]
    if kind is None:
        raise AxisError(f"{path} is in no format that is known: {_EXPECTED}")
    return kind


def _read(path: Path, kind: Format) -> Contents:
    """The file's vectors, of one width, finite and not zero."""
    from safetensors import SafetensorError

    broken = (ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile)
    try:
        contents: Contents = kind.module.read(path)
    except (SafetensorError, *broken) as error:
        reason = str(error) or type(error).__name__
        raise AxisError(f"{path} cannot be read as {kind.name} ({reason}): {_EXPECTED}") from error
    shapes = {vector.shape for vector in contents.vectors.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise AxisError(
            f"{path}: expected vectors of one width, found {', '.join(map(str, sorted(shapes)))}"
        )
    for number, vector in contents.vectors.items():
        which = f"{path}, direction {number}" if number is not None else f"{path}"
        if not np.isfinite(vector).all():
            raise NonFiniteError(f"{which} holds NaN or infinity: nothing was imported")
        if not vector.any():
            raise AxisError(f"{which} is zero, and has no direction: nothing was imported")
    return contents


def _axis(connection: Connection, path: Path, kind: Format, placed: Placed, asked: Asked) -> Axis:
    space, card = placed.space, placed.card or {}
    norm = float(np.linalg.norm(placed.vector.astype(np.float64)))
    is_unit = abs(norm - 1) <= _UNIT
    vector = placed.vector if is_unit else (placed.vector / norm).astype(np.float32)
    key = content_key(
        "imported",
        space.model_id,
        space.layer,
        space.site,
        space.pooling,
        space.template,
        vector.tolist(),
    )
    label = asked.name or path.resolve().name.removesuffix(kind.suffix)
    where = [] if space.site == RESID_POST else [space.site]
    origin = {name: value for name, value in card.items() if name != "parameters"}
    parameters = {
        "file": path.name,
        "format": kind.name,
        "number": placed.number,
        "card": {**origin, "parameters": _without_card(card)} if card else None,
    }
    row = {
        "axis_id": key,
        "name": "/".join(["imported", space.model, str(space.layer), label, *where]),
        "kind": "imported",
        "method": card.get("method", "unknown"),
        "space_model": space.model,
        "space_model_id": space.model_id,
        "layer": space.layer,
        "site": space.site,
        "pooling": space.pooling,
        "template": space.template,
        "raw_norm": card["raw_norm"] if card and card["is_unit_norm"] else norm,
        "fitted_model": card.get("fitted_model"),
        "held_out_model": card.get("held_out_model"),
        "alignment_id": None,
        "source_axis_ids": [],
        **_fitted_on(connection, card, asked.fitted_on),
        "parameters": json.dumps(parameters, sort_keys=True),
    }
    return Axis(key, row["name"], "imported", space, vector.astype(np.float64), row)


def _without_card(card: Card) -> dict[str, Any]:
    """The parameters of a card; of one that was itself imported, without what it came from."""
    return {name: value for name, value in card["parameters"].items() if name != "card"}


def _fitted_on(connection: Connection, card: Card, prompt_set: str | None) -> dict[str, Any]:
    """What it was fitted on, by the user or by its card."""
    if prompt_set is None:
        names = ("prompt_set", "row_set_hash", "query")
        counts = ("positive_count", "negative_count")
        return {name: card.get(name, "") for name in names} | {
            name: card.get(name, 0) for name in counts
        }
    (counted,) = rows(
        connection,
        "select count(*) filter (where is_positive) as positive_count, "
        "count(*) filter (where not is_positive) as negative_count "
        "from v_prompts where prompt_set = ?",
        [prompt_set],
    )
    return {"prompt_set": prompt_set, "row_set_hash": "", "query": "", **counted}


def _registered(connection: Connection, axes: Sequence[Axis]) -> list[dict[str, Any]]:
    return rows(
        connection,
        "select axis_id, name, raw_norm from axes where list_contains(?, axis_id)",
        [[axis.axis_id for axis in axes]],
    )


def _imported(axis: Axis, there: dict[str, Any] | None) -> ImportedAxis:
    known = there or axis.row
    return ImportedAxis(
        axis_id=axis.axis_id,
        name=known["name"],
        model=axis.space.model,
        layer=axis.space.layer,
        site=axis.space.site,
        pooling=axis.space.pooling,
        template=axis.space.template,
        raw_norm=known["raw_norm"],
        is_new=there is None,
    )
