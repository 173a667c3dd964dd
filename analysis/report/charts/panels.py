"""The parts of every chart: panels side by side, series that differ in colour and in form.

A chart names its data `rows` and holds none. Selections and views are named here, since Altair
would number them over the process, and two reports of the same rows would differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import altair as alt

from axes.analysis.report.charts.theme import DASHES, REFERENCE, SHAPES, Json
from axes.analysis.report.section import Rows

ROWS = alt.NamedData(name="rows")
# The most frequent heading of a panel, as a Vega expression.
MODEL_AND_SET = "datum.model + ' on ' + datum.prompt_set"

# The legend of lines with a band, which would show the band.
LINES = alt.Legend(symbolType="stroke", symbolOpacity=1)


def panels(
    *layers: alt.Chart,
    by: str = MODEL_AND_SET,
    width: int = 230,
    height: int = 200,
    columns: int = 3,
    margin: int = 60,
    gutter: int = 25,
    is_stretched: bool = True,
    independent: Iterable[str] = (),
) -> alt.FacetChart:
    """The layers once for each value of the Vega expression `by`, which is the panel's heading.

    ` | ` in it begins a line. Every panel has its own scale for the channels `independent`. The
    page uses as many columns as fit next to a `margin` (pixels) on the left and a `gutter` for
    each, and stretches panels over the remaining width, if they may be stretched.
    """
    chart = alt.layer(*layers).properties(width=width, height=height, name="panel")
    lines = alt.Header(labelExpr="split(datum.label, ' | ')")
    facet = alt.Facet("panel:N", title=None, header=lines)
    faceted = chart.facet(facet=facet, columns=columns, data=ROWS)
    meta = {"margin": margin, "gutter": gutter, "isStretched": is_stretched}
    faceted = faceted.transform_calculate(panel=by).properties(usermeta=meta)
    resolved: Json = dict.fromkeys(independent, "independent")
    # Every panel has its own x axis: in one column the shared one would be far below.
    return faceted.resolve_scale(**resolved).resolve_axis(x="independent")


def in_order(rows: Rows, column: str, first: Sequence[str] = ()) -> list[str]:
    """The values of a column: those of `first` in that order, then the others sorted."""
    values = {row[column] for row in rows}
    return [value for value in first if value in values] + sorted(values - set(first))


def classes(rows: Rows) -> list[str]:
    """Labels, those of positive classes first."""
    labels = {(not row["is_positive"], row["label"]) for row in rows}
    return list(dict.fromkeys(label for _, label in sorted(labels)))


@dataclass(frozen=True)
class Series:
    """The values of a field, each with its colour and its dash or shape.

    A click on the legend selects a value, another click selects all; what is not selected fades.
    Lines and intervals carry the selection, of which a panel needs one.
    """

    field: str
    values: Sequence[str]
    legend: Any = alt.Undefined

    @property
    def color(self) -> alt.Color:
        scale = alt.Scale(domain=list(self.values))
        return alt.Color(f"{self.field}:N", title=None, scale=scale, legend=self.legend)

    def opacity(self, opacity: float = 1.0) -> Any:
        """This opacity where the row is selected, else nearly transparent."""
        selected = alt.when(self._selection).then(alt.value(opacity))
        return selected.otherwise(alt.value(opacity * 0.12))

    def lines(self, **channels: Any) -> alt.Chart:
        """Lines with a dash for each value, solid first."""
        dash = alt.StrokeDash(f"{self.field}:N", title=None, scale=self._scale(DASHES))
        return self._draw(alt.Chart().mark_line(), strokeDash=dash, **channels).add_params(
            self._selection
        )

    def intervals(self, **channels: Any) -> alt.Chart:
        """Rules from one channel to the second of its kind."""
        rules = alt.Chart().mark_rule(strokeWidth=2)
        return self._draw(rules, **channels).add_params(self._selection)

    def points(self, *, mark_size: float | None = None, **channels: Any) -> alt.Chart:
        """Filled points with a shape for each value."""
        mark: Any = {} if mark_size is None else {"size": mark_size}
        shape = alt.Shape(f"{self.field}:N", title=None, scale=self._scale(SHAPES))
        return self._draw(alt.Chart().mark_point(filled=True, **mark), shape=shape, **channels)

    def bands(self, opacity: float = 0.2, **channels: Any) -> alt.Chart:
        """Areas, pale enough to see a line on them."""
        return self._draw(alt.Chart().mark_area(), opacity, **channels)

    def _draw(self, chart: alt.Chart, opacity: float = 1.0, **channels: Any) -> alt.Chart:
        return chart.encode(color=self.color, opacity=self.opacity(opacity), **channels)

    def _scale(self, values: Sequence[Any]) -> alt.Scale:
        cycled = list(islice(cycle(values), len(self.values)))
        return alt.Scale(domain=list(self.values), range=cycled)

    @property
    def _selection(self) -> alt.Parameter:
        name = f"picked_{self.field}"
        return alt.selection_point(name=name, fields=[self.field], bind="legend")


def reference(**at: float) -> alt.Chart:
    """A rule through a panel at a value of `x` or `y`."""
    channels = {channel: alt.datum(value) for channel, value in at.items()}
    return alt.Chart().mark_rule(style=REFERENCE).encode(**channels)


def numbers(*fields: str, digits: int = 3, **titles: str) -> list[alt.Tooltip]:
    """Numbers of a tooltip: fields, and FIELD=TITLE."""
    named = {field: _words(field) for field in fields} | titles
    return [
        alt.Tooltip(f"{field}:Q", title=title, format=f".{digits}f")
        for field, title in named.items()
    ]


def words(*fields: str, **titles: str) -> list[alt.Tooltip]:
    """Texts of a tooltip: fields, and FIELD=TITLE."""
    named = {field: _words(field) for field in fields} | titles
    return [alt.Tooltip(f"{field}:N", title=title) for field, title in named.items()]


def _words(field: str) -> str:
    return field.replace("_", " ")
