"""Import the directions of other tools: recognise the file, check it against the model, register.

An imported axis is a row of `axes` of kind `imported`: a unit vector as every axis is, and the
file's norm. Its id is a hash of the vector and of its space, so importing it again, from this file
or from another format, gives the stored axis. What the file or its card does not say (model, layer,
site, ...) the user has to say; nothing that decides where a vector lies is guessed.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from axes.analysis.activations import Space, count_prompts, find_space
from axes.analysis.exchange.formats import FORMATS, ImportRequest, recognise
from axes.analysis.exchange.formats.contents import (
    BLOCK,
    HIDDEN_STATES,
    RESID_PRE,
    Card,
    Contents,
    layer_of,
)
from axes.analysis.exchange.formats.sae import is_sae, read_features
from axes.analysis.registry import write_axes
from axes.warehouse.axes import Axis, read_axes
from axes.warehouse.errors import AxesError, AxisError, NonFiniteError
from axes.warehouse.handle import Warehouse
from axes.warehouse.names import RESID_POST
from axes.warehouse.writer import content_key

# A vector this near to unit length is taken as it is, so that it keeps its bits from file to file.
_UNIT = 1e-6
_DEFAULTS = {"site": RESID_POST, "pooling": "last5_mean", "template": "raw"}
_EXPECTED = "see `axes import --help` for the formats, and name it with --from"


@dataclass(frozen=True)
class ImportedAxis:
    """An axis as it is registered; `is_new` unless it was registered before."""

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
class ImportResult:
    """The axes of a file, its format, and what was assumed or left out."""

    format: str
    axes: tuple[ImportedAxis, ...]
    remarks: tuple[str, ...]


def import_axes(warehouse: Warehouse, path: Path, request: ImportRequest) -> ImportResult:
    """Register the directions of a file or folder as axes of a model of the warehouse.

    Raises `AxisError` for a file that is not understood, that does not say enough, or that does not
    fit the model; `ModelError` and `LayerError` for an unknown model or layer.
    """
    file = _open(path, request)
    space = _space(warehouse, file)
    remarks = [*_model_remarks(warehouse, file, space), *_assumptions(file)]
    directions = list(_directions(file, space, remarks))
    if not directions:
        raise AxisError(f"nothing of {path} can be imported: {'; '.join(remarks)}")
    fitted_on = None if request.fitted_on is None else _fitted_on(warehouse, request.fitted_on)
    options = {name: value for name, value in asdict(request).items() if value not in (None, False)}
    with warehouse.run("import", {"file": str(path.resolve()), **options}) as run:
        axes = [_axis(file, *direction, fitted_on) for direction in directions]
        stored = set(warehouse.column("select axis_id from axes"))
        write_axes(warehouse, run, axes)
    registered = read_axes(warehouse, [axis.axis_id for axis in axes])
    rows = tuple(
        ImportedAxis(
            axis_id=axis.axis_id,
            name=axis.name,
            model=axis.space.model,
            layer=axis.space.layer,
            site=axis.space.site,
            pooling=axis.space.pooling,
            template=axis.space.template,
            raw_norm=axis.raw_norm,
            is_new=axis.axis_id not in stored,
        )
        for axis in registered
    )
    return ImportResult(file.format, rows, tuple(remarks))


def is_registry(path: Path) -> bool:
    """Whether it is a folder of folders that `axes export --to hub` wrote."""
    return not (path / "card.json").exists() and any(path.glob("*/card.json"))


def import_registry(warehouse: Warehouse, path: Path, request: ImportRequest) -> ImportResult:
    """Register the axes of each folder; those that do not fit this warehouse are remarks.

    Raises `AxisError` where none does.
    """
    axes: list[ImportedAxis] = []
    remarks: list[str] = []
    for card in sorted(path.glob("*/card.json")):
        try:
            name = replace(request, name=request.name or card.parent.name)
            imported = import_axes(warehouse, card.parent, name)
        except AxesError as error:
            remarks.append(f"left out: {error}")
        else:
            axes += imported.axes
            remarks += imported.remarks
    if not axes:
        raise AxisError(f"nothing of {path} can be imported: {'; '.join(remarks)}")
    return ImportResult("hub", tuple(axes), tuple(remarks))


@dataclass(frozen=True, eq=False)
class _File:
    """A file of directions as it was read, with what the user says about it."""

    path: Path
    format: str
    label: str
    contents: Contents
    request: ImportRequest

    @cached_property
    def cards(self) -> list[Card]:
        """The cards of the vectors that have one."""
        return [card for number in self.contents.vectors if (card := self.contents.card(number))]

    @property
    def width(self) -> int:
        return len(next(iter(self.contents.vectors.values())))


def _open(path: Path, request: ImportRequest) -> _File:
    if is_sae(path):
        read = partial(read_features, features=request.features)
        label = request.name or path.resolve().name
        return _File(path, "sae", label, _read(path, "sae", read), request)
    if request.features is not None:
        raise AxisError(f"{path} is not a sparse autoencoder, of which --features chooses")
    if not path.exists():
        raise AxisError(f"there is no file or folder {path}")
    kind = recognise(path) if request.format is None else FORMATS[request.format]
    if kind is None:
        raise AxisError(f"{path} is in no format that is known: {_EXPECTED}")
    label = request.name or path.resolve().name.removesuffix(kind.suffix)
    return _File(path, kind.name, label, _read(path, kind.name, kind.file.read), request)


def _read(path: Path, name: str, read: Callable[[Path], Contents]) -> Contents:
    """The file's vectors, of one width, finite and not zero."""
    from safetensors import SafetensorError

    broken = (OSError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile)
    too_large = (MemoryError, RecursionError)
    try:
        contents = read(path)
    except (SafetensorError, *broken, *too_large) as error:
        reason = str(error) or type(error).__name__
        raise AxisError(f"{path} cannot be read as {name} ({reason}): {_EXPECTED}") from error
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


def _space(warehouse: Warehouse, file: _File) -> Space:
    """The model, at layer 0, and the site, pooling and template where the vectors lie."""
    contents, cards, request = file.contents, file.cards, file.request
    card = cards[0] if cards else {}
    model = request.model or _model_of(warehouse, card, contents)
    missing = []
    if model is None:
        models = warehouse.column(
            "select distinct model from models where d_model = ? order by model", [file.width]
        )
        missing.append(
            "of which model of the warehouse it is "
            f"(--model; {file.width} wide are: {', '.join(models) or 'none'})"
        )
    if None in contents.vectors and not cards and request.layer is None:
        missing.append("its layer (--layer, blocks counted from 0)")
    is_counted = contents.convention or request.convention or contents.row_count or cards
    if None not in contents.vectors and not is_counted:
        missing.append("what its numbers count (--convention block or hidden_states)")
    if missing or model is None:
        raise AxisError(f"{file.path} does not say " + ", nor ".join(missing))
    site = card.get("site", contents.site)
    # What a block puts out is what the next one takes in.
    sites = {None, site} | ({RESID_PRE} if contents.site == RESID_POST else set())
    if site is not None and request.site not in sites:
        source = "the card of " if card else ""
        raise AxisError(f"{source}{file.path} says {site}, and --site {request.site}")
    stated = card or ({} if site is None else {"site": site})
    where = {
        name: getattr(request, name) or stated.get(name, default)
        for name, default in _DEFAULTS.items()
    }
    return find_space(warehouse, model, **where)


def _model_of(warehouse: Warehouse, card: Card, contents: Contents) -> str | None:
    """NAME@ID of the model that a card, or the file, names, where it is in the warehouse."""
    named = warehouse.query(
        """
        select model || '@' || model_id as name, coalesce(model_id = $id, false) as is_same
        from models
        where
            model_id = $id or weights_hash = $weights_hash or model = $name
            or source in ($name, 'hf:' || $name)
        order by is_same desc, model_id
        """,
        {
            "id": card.get("space_model_id"),
            "weights_hash": (card.get("space") or {}).get("weights_hash"),
            "name": contents.model_name,
        },
    ).to_pydict()
    is_clear = named["name"] and (named["is_same"][0] or len(named["name"]) == 1)
    return named["name"][0] if is_clear else None


def _model_remarks(warehouse: Warehouse, file: _File, space: Space) -> Iterator[str]:
    """Refuse a file of another width, depth or model; remarks on what cannot be told."""
    path, contents, cards = file.path, file.contents, file.cards
    if file.width != space.d_model:
        raise AxisError(
            f"{path} holds vectors of {file.width} numbers, and the blocks of {space.model} put "
            f"out {space.d_model}: name the model that it was made with"
        )
    expected = {BLOCK: space.layer_count, HIDDEN_STATES: space.layer_count + 1}
    if contents.row_count is not None and not cards:
        fitting = {expected[contents.convention]} if contents.convention else {*expected.values()}
        if contents.row_count not in fitting:
            raise AxisError(
                f"{path} has {contents.row_count} rows, and {space.model} has {space.layer_count} "
                f"layers: {' or '.join(map(str, sorted(fitting)))} rows are expected"
            )
    (model,) = warehouse.query(
        "select architecture, weights_hash from models where model_id = ?", [space.model_id]
    ).to_pylist()
    differences = []
    hint = contents.model_type
    if hint and hint != "unknown" and _family(hint) != _family(model["architecture"]):
        differences.append(f"type {hint} (here: {model['architecture']})")
    if cards and (cards[0]["space"] or {}).get("weights_hash") != model["weights_hash"]:
        if cards[0]["space_model"] != space.model:
            differences.append(f"model {cards[0]['space_model']} (here: {space.model})")
        else:
            yield f"the card is of other weights of {space.model} than are in the warehouse"
    if differences and not file.request.is_other_model:
        raise AxisError(
            f"{path} says that it is of {', '.join(differences)}: give the --model that it is of, "
            "or --other-model to take it all the same"
        )
    yield from (f"the file says that it is of {difference}" for difference in differences)


def _family(model_type: str) -> str:
    """A model type without what llama.cpp and transformers spell differently."""
    return re.sub(r"[^a-z0-9]", "", model_type.lower()).removesuffix("text")


def _assumptions(file: _File) -> Iterator[str]:
    if file.cards:
        return
    assumed = [
        f"{name} {default}"
        for name, default in _DEFAULTS.items()
        if getattr(file.request, name) is None and getattr(file.contents, name, None) is None
    ]
    if assumed:
        yield f"the file does not say it, taken for: {', '.join(assumed)}"
    if file.request.fitted_on is None:
        yield "what it was fitted on is not known (--fitted-on): no row counts as in sample"


def _directions(
    file: _File, space: Space, remarks: list[str]
) -> Iterator[tuple[int | None, Float[np.ndarray, " d_model"], Space]]:
    """Number, vector and space of each direction; remarks on those that are left out."""
    contents, wanted = file.contents, file.request.layer
    convention = file.request.convention or contents.convention
    if convention is None and contents.row_count is not None:
        convention = HIDDEN_STATES if contents.row_count > space.layer_count else BLOCK
    layers = []
    for number, vector in contents.vectors.items():
        card = contents.card(number)
        layer = wanted
        if card is not None:
            layer = card["layer"]
        elif number is not None:
            assert convention is not None
            counted = number if contents.number is None else contents.number
            layer = layer_of(counted, convention, space.site)
        assert layer is not None
        layers.append(layer)
        # HF's last hidden state, which tools store that store them all.
        is_normed = number == space.layer_count == (contents.row_count or 0) - 1 and card is None
        if wanted not in (None, layer):
            continue
        if layer < 0:
            remarks.append(
                f"direction {number} is left out: it is of the embedding, which no block puts out "
                "(--site resid_pre takes it, as the input of block 0)"
            )
        elif is_normed and wanted is None:
            remarks.append(
                f"direction {number} is left out: HF's last hidden state is after the final norm, "
                f"and layer {layer} before it (--layer {layer} takes it)"
            )
        else:
            yield number, vector, space.at(layer)
    if wanted is not None and wanted not in layers:
        raise AxisError(
            f"{file.path} has nothing at layer {wanted}: it holds "
            f"{', '.join(map(str, layers))} (blocks counted from 0)"
        )


def _axis(
    file: _File,
    number: int | None,
    vector: Float[np.ndarray, " d_model"],
    space: Space,
    fitted_on: Card | None,
) -> Axis:
    card = file.contents.card(number) or {}
    origin = card if fitted_on is None else fitted_on
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    unit = vector if abs(norm - 1) <= _UNIT else (vector / norm).astype(np.float32)
    _, model_id, site, pooling, template = space.key
    parts = ["imported", space.model, str(space.layer), file.label]
    if file.contents.number is not None:
        parts.append(str(number))
    # Of a card that was itself imported, without what that came from.
    inner = {key: value for key, value in card.get("parameters", {}).items() if key != "card"}
    parameters = {
        "file": file.path.name,
        "format": file.format,
        "number": number,
        "card": {**card, "parameters": inner} if card else None,
    }
    place = ("imported", model_id, space.layer, site, pooling, template)
    name = "/".join(parts if site == RESID_POST else [*parts, site])
    if file.contents.is_subspace:
        basis = file.contents.matrix(len(file.contents.vectors))
        subspace_id = content_key(*place, basis.tolist())
        parameters = {**inner, **parameters, "subspace": name, "subspace_id": subspace_id}
        name += f"/{inner['component']}"
    return Axis(
        axis_id=content_key(*place, unit.tolist()),
        name=name,
        kind="subspace" if file.contents.is_subspace else "imported",
        method=card.get("method") or file.contents.method or "unknown",
        space=space,
        vector=unit.astype(np.float64),
        raw_norm=card["raw_norm"] if card and card["is_unit_norm"] else norm,
        prompt_set=origin.get("prompt_set", ""),
        positive_count=origin.get("positive_count", 0),
        negative_count=origin.get("negative_count", 0),
        row_set_hash=origin.get("row_set_hash", ""),
        query=origin.get("query", ""),
        parameters=json.dumps(parameters, sort_keys=True),
        fitted_model=card.get("fitted_model"),
        held_out_model=card.get("held_out_model"),
    )


def _fitted_on(warehouse: Warehouse, prompt_set: str) -> Card:
    """What a card says of the prompts, for a labelled set that the user names."""
    count_prompts(warehouse, prompt_set)
    is_positive = warehouse.column(
        "select is_positive from v_prompts where prompt_set = ?", [prompt_set]
    )
    return {
        "prompt_set": prompt_set,
        "positive_count": is_positive.count(True),
        "negative_count": is_positive.count(False),
    }
