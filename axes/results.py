"""Results of Python's functions: frozen, shown as tables in notebooks and terminals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from axes.warehouse.errors import AxisError
from axes.warehouse.render import html_record, html_table, render

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

# The fields of a card that a notebook shows, in this order.
_SHOWN = (
    "name",
    "kind",
    "method",
    "axis_id",
    "space_model",
    "layer",
    "site",
    "pooling",
    "template",
    "fit_query",
    "row_set_hash",
    "run_id",
)


@dataclass(frozen=True, eq=False)
class Result:
    """Rows that a function computed or read; `sql`, if any, reads them again from the warehouse.

    `ids` are those of the stored results (studies, evaluations, axes), `notes` what the command
    says besides its rows, `command` the command that does the same.
    """

    title: str
    table: pa.Table
    sql: str | None = None
    ids: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    command: str = ""
    root: Path | None = None

    @property
    def id(self) -> str | None:
        """The id of the stored result, the first where there are several."""
        return self.ids[0] if self.ids else None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows as dicts."""
        return self.table.to_pylist()

    def pl(self) -> pl.DataFrame:
        """The rows as a polars frame."""
        import polars as pl

        frame = pl.from_arrow(self.table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def plot(self, name: str | None = None) -> alt.FacetChart:
        """An Altair chart with its rows; `name` is a chart of a study's report, such as `cosines`.

        Raises `AxesError` for a result that has no chart, or an unknown name.
        """
        from axes.plots import plot

        return plot(self, name)

    def __len__(self) -> int:
        return self.table.num_rows

    def __repr__(self) -> str:
        warnings = (f"warning: {warning}" for warning in self.warnings)
        below = "".join(f"{line}\n" for line in (*warnings, *self.notes))
        return f"{self.title}\n{render(self.table, 'table').decode()}{below}"

    def _repr_html_(self) -> str:
        return html_table(self.rows, self.title, (*self.warnings, *self.notes))


@dataclass(frozen=True, eq=False, repr=False)
class Study(Result):
    """A study's table, one row for each model and prompt set; `figures` has all of its numbers.

    The keys of `figures` are those of `axes study --format json`.
    """

    figures: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Axis:
    """A registered direction: `vector` is float32 `[d_model]` of unit norm, `card` describes it.

    The vector is in the space of the card's `space_model` at `layer` and `site`. A universal axis
    is in the reference's space; other models reach it through their alignments (`axes.score`).
    """

    vector: Float[np.ndarray, " d_model"]
    card: dict[str, Any]

    @property
    def name(self) -> str:
        """The axis's name in the warehouse."""
        return self.card["name"]

    def project(self, x: Float[np.ndarray, "*batch d_model"]) -> Float[np.ndarray, "*batch"]:
        """Projections of activations in the axis's space, in units of the activations.

        `x` is an array-like whose last dimension is `d_model`. Raises `AxisError` for another
        width.
        """
        from axes.analysis.methods.directions import float_rows

        values = float_rows(x)
        width = values.shape[-1] if values.ndim else 0
        if width != len(self.vector):
            raise AxisError(
                f"activations of {width} numbers do not fit {self.name}, which has the "
                f"{len(self.vector)} of {self.card['space_model']}: axes.score projects other "
                "models through their alignment"
            )
        return values @ self.vector.astype(np.float64)

    def __repr__(self) -> str:
        card = self.card
        return (
            f"Axis({card['name']!r}, {card['kind']}, {len(self.vector)} numbers in "
            f"{card['space_model']} at layer {card['layer']})"
        )

    def _repr_html_(self) -> str:
        card = {name: self.card[name] for name in _SHOWN if self.card.get(name) is not None}
        text = html_record({**card, "d_model": len(self.vector)}, f"axis {self.name}")
        evaluations = self.card.get("evaluation")
        return text + (html_table(evaluations, "evaluated on") if evaluations else "")
