"""Directions of other tools become axes: recognised, checked against the model, registered.

An imported axis is a row of `axes` of kind `imported`, a unit vector as every axis is, with the
file's norm beside it. Its id is a hash of the vector and of where it lies, so that importing again,
from this file or from another format, finds it there. What a file does not say comes from the card
that this project writes, else from the user; nothing that decides where a vector lies is guessed.

Where the directions of a file lie: which model, layer, site; and whether they fit it.

What the card or the file says is taken, then what the user says; what is missing is said at once.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from axes.analysis.activations import Space, count_prompts, find_space
from axes.analysis.exchange.formats import FORMATS, Format, recognise
from axes.analysis.exchange.formats.contents import BLOCK, HIDDEN_STATES, Card, Contents, layer_of
from axes.analysis.registry import write_axes
from axes.warehouse.axes import Axis
from axes.warehouse.connection import Connection, connect, rows
from axes.warehouse.errors import AxisError, NonFiniteError
from axes.warehouse.names import RESID_POST
from axes.warehouse.runs import record_run
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
    return Axis(
        axis_id=key,
        name="/".join(["imported", space.model, str(space.layer), label, *where]),
        kind="imported",
        method=card.get("method", "unknown"),
        space=space,
        vector=vector.astype(np.float64),
        raw_norm=card["raw_norm"] if card and card["is_unit_norm"] else norm,
        fitted_model=card.get("fitted_model"),
        held_out_model=card.get("held_out_model"),
        parameters=json.dumps(parameters, sort_keys=True),
        **_fitted_on(connection, card, asked.fitted_on),
    )


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
    return ImportedAxis(
        axis_id=axis.axis_id,
        name=there["name"] if there else axis.name,
        model=axis.space.model,
        layer=axis.space.layer,
        site=axis.space.site,
        pooling=axis.space.pooling,
        template=axis.space.template,
        raw_norm=there["raw_norm"] if there else axis.raw_norm,
        is_new=there is None,
    )


@dataclass(frozen=True)
class Asked:
    """What the user says of a file; None: as the file or its card says, else as is usual.

    `is_other_model` takes a file although it says that it is of another model.
    """

    format: str | None = None
    model: str | None = None
    layer: int | None = None
    site: str | None = None
    pooling: str | None = None
    template: str | None = None
    convention: str | None = None
    name: str | None = None
    fitted_on: str | None = None
    is_other_model: bool = False


@dataclass(frozen=True, eq=False)
class Placed:
    """One vector of a file at its layer."""

    number: int | None
    vector: Float[np.ndarray, " d_model"]
    space: Space
    card: Card | None


def place(
    connection: Connection, path: Path, contents: Contents, asked: Asked
) -> tuple[list[Placed], list[str]]:
    """The vectors of a file at their layers of a model, and what was assumed or left out.

    Raises `AxisError` for a file that does not say enough or does not fit the model, `ModelError`
    and `LayerError` for those.
    """
    cards = [card for number in contents.vectors if (card := contents.card(number))]
    space = _space(connection, path, contents, cards, asked)
    remarks = list(_require_model(connection, path, contents, cards, space, asked))
    remarks += _assumed(cards, asked)
    placed = list(_placed(path, contents, space, asked, remarks))
    if not placed:
        raise AxisError(f"nothing of {path} can be imported: {'; '.join(remarks)}")
    return placed, remarks


def _space(
    connection: Connection, path: Path, contents: Contents, cards: Sequence[Card], asked: Asked
) -> Space:
    """The model, at layer 0, and at the site, pooling and template where the vectors lie."""
    first = cards[0] if cards else {}
    model = asked.model or _model_of(connection, first, contents)
    missing = []
    if model is None:
        width = len(next(iter(contents.vectors.values())))
        fitting = rows(
            connection,
            "select distinct model from models where d_model = ? order by model",
            [width],
        )
        there = ", ".join(row["model"] for row in fitting) or "none"
        missing.append(
            f"of which model of the warehouse it is (--model; {width} wide are: {there})"
        )
    if None in contents.vectors and not cards and asked.layer is None:
        missing.append("its layer (--layer, blocks counted from 0)")
    is_counted = contents.convention or asked.convention or contents.row_count or cards
    if None not in contents.vectors and not is_counted:
        missing.append("what its numbers count (--convention block or hidden_states)")
    if missing or model is None:
        raise AxisError(f"{path} does not say " + ", nor ".join(missing))
    if first and asked.site not in (None, first["site"]):
        raise AxisError(f"the card of {path} says {first['site']}, and --site {asked.site}")
    return find_space(
        connection,
        model,
        site=asked.site or first.get("site", RESID_POST),
        pooling=asked.pooling or first.get("pooling", "last5_mean"),
        template=asked.template or first.get("template", "raw"),
    )


def _model_of(connection: Connection, card: Card, contents: Contents) -> str | None:
    """NAME@ID of the model that a card, or the file, names, where it is here."""
    found = rows(
        connection,
        """
        select model, model_id, model_id = $id as is_it
        from models
        where model_id = $id or weights_hash = $weights_hash or source in ($name, 'hf:' || $name)
        order by is_it desc, model_id
        """,
        {
            "id": card.get("space_model_id"),
            "weights_hash": (card.get("space") or {}).get("weights_hash"),
            "name": contents.model_name,
        },
    )
    is_clear = found and (found[0]["is_it"] or len(found) == 1)
    return f"{found[0]['model']}@{found[0]['model_id']}" if is_clear else None


def _require_model(
    connection: Connection,
    path: Path,
    contents: Contents,
    cards: Sequence[Card],
    space: Space,
    asked: Asked,
) -> Iterator[str]:
    """Refuse a file of another width, depth or model; remarks on what cannot be told."""
    (row,) = rows(
        connection,
        "select architecture, weights_hash, source from models where model_id = ?",
        [space.model_id],
    )
    width = len(next(iter(contents.vectors.values())))
    if width != space.d_model:
        raise AxisError(
            f"{path} holds vectors of {width} numbers, and the blocks of {space.model} put out "
            f"{space.d_model}: name the model that it was made with"
        )
    expected = {BLOCK: space.layer_count, HIDDEN_STATES: space.layer_count + 1}
    counted = contents.row_count
    if counted is not None and not cards:
        fitting = {expected[contents.convention]} if contents.convention else {*expected.values()}
        if counted not in fitting:
            wanted = " or ".join(map(str, sorted(fitting)))
            raise AxisError(
                f"{path} has {counted} rows, and {space.model} has {space.layer_count} layers: "
                f"{wanted} rows are expected"
            )
    says = []
    hint = contents.model_type
    if hint and hint != "unknown" and _family(hint) != _family(row["architecture"]):
        says.append(f"type {hint} (here: {row['architecture']})")
    for card in cards[:1]:
        described = card["space"] or {}
        if described.get("weights_hash") == row["weights_hash"]:
            continue
        if card["space_model"] != space.model:
            says.append(f"model {card['space_model']} (here: {space.model})")
        else:
            yield f"the card is of other weights of {space.model} than are in the warehouse"
    if says and not asked.is_other_model:
        raise AxisError(
            f"{path} says that it is of {', '.join(says)}: give the --model that it is of, or "
            "--other-model to take it all the same"
        )
    yield from (f"the file says that it is of {said}" for said in says)


def _family(model_type: str) -> str:
    """A model type without what llama.cpp and transformers spell differently."""
    return re.sub(r"[^a-z0-9]", "", model_type.lower()).removesuffix("text")


def _assumed(cards: Sequence[Card], asked: Asked) -> Iterator[str]:
    if cards:
        return
    usual = {"site": RESID_POST, "pooling": "last5_mean", "template": "raw"}
    assumed = [f"{name} {value}" for name, value in usual.items() if getattr(asked, name) is None]
    if assumed:
        yield f"the file does not say it, taken for: {', '.join(assumed)}"
    if asked.fitted_on is None:
        yield "what it was fitted on is not known (--fitted-on): no row counts as in sample"


def _placed(
    path: Path, contents: Contents, space: Space, asked: Asked, remarks: list[str]
) -> Iterator[Placed]:
    """The vectors at their layers; those that no block of the model puts out are left out."""
    convention = asked.convention or contents.convention
    if convention is None and contents.row_count is not None:
        convention = HIDDEN_STATES if contents.row_count > space.layer_count else BLOCK
    layers = []
    for number, vector in contents.vectors.items():
        card = contents.card(number)
        if card is not None:
            layer = card["layer"]
        elif number is None:
            assert asked.layer is not None
            layer = asked.layer
        else:
            assert convention is not None
            layer = layer_of(number, convention, space.site)
        layers.append(layer)
        if asked.layer not in (None, layer):
            continue
        if layer < 0:
            remarks.append(
                f"direction {number} is left out: it is of the embedding, which no block puts out "
                "(--site resid_pre takes it, as the input of block 0)"
            )
        elif _is_normed(number, contents, card, space) and asked.layer is None:
            remarks.append(
                f"direction {number} is left out: HF's last hidden state is after the final norm, "
                f"and layer {layer} before it (--layer {layer} takes it)"
            )
        else:
            yield Placed(number, vector, space.at(layer), card)
    if asked.layer is not None and asked.layer not in layers:
        raise AxisError(
            f"{path} has nothing at layer {asked.layer}: it holds "
            f"{', '.join(map(str, layers))} (blocks counted from 0)"
        )


def _is_normed(number: int | None, contents: Contents, card: Card | None, space: Space) -> bool:
    """Whether a row is that of HF's last hidden state, as tools read it that store them all."""
    is_last = number == space.layer_count
    return is_last and contents.row_count == space.layer_count + 1 and card is None
