"""Where the directions of a file lie: which model, layer, site; and whether they fit it.

What the card or the file says is taken, then what the user says; what is missing is said at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from axes.analysis.activations import Space, find_space
from axes.analysis.exchange.formats.contents import BLOCK, HIDDEN_STATES, Card, Contents, layer_of
from axes.warehouse.connection import Connection, rows
from axes.warehouse.errors import AxisError
from axes.warehouse.sites import RESID_POST


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
