"""What the charts have in common: panels side by side, series that are told apart twice over.

A chart names its data `rows` and holds none. Selections and views are named here, since Altair
would number them over the process, and two reports of the same rows would differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from axes.analysis.report.charts.theme import DASHES, SHAPES
from axes.analysis.report.section import Row

ROWS = alt.NamedData(name="rows")

# The legend of lines with a band, which would show the band.
LINES = alt.Legend(symbolType="stroke", symbolOpacity=1)
# The legend of marks with a band, which would be as pale as the band.
MARKS = alt.Legend(symbolOpacity=1)


def panels(
    *layers: alt.Chart,
    by: str,
    width: int = 230,
    height: int = 200,
    columns: int = 3,
    margin: int = 60,
    gutter: int = 25,
    is_stretched: bool = True,
    independent: Iterable[str] = (),
) -> alt.FacetChart:
    """Layers drawn once for each value of the Vega expression `by`, which stands above the panel.

    ` | ` in it begins a line. The scales `independent` are of each panel's own. The page takes as
    many columns as it has room for, beside a `margin` (pixels) on the left and a `gutter` for each,
    and makes panels that may be stretched as wide as that leaves.
    """
    chart = alt.layer(*layers).properties(width=width, height=height, name="panel")
    lines = alt.Header(labelExpr="split(datum.label, ' | ')")
    facet = alt.Facet("panel:N", title=None, header=lines)
    faceted = chart.facet(facet=facet, columns=columns, data=ROWS)
    meta = {"margin": margin, "gutter": gutter, "isStretched": is_stretched}
    faceted = faceted.transform_calculate(panel=by).properties(usermeta=meta)
    resolved: dict[str, Any] = dict.fromkeys(independent, "independent")
    # Every panel has its own x axis: in one column the shared one would be far below.
    return faceted.resolve_scale(**resolved).resolve_axis(x="independent")


def in_order(rows: Sequence[Row], column: str, known: Sequence[str] = ()) -> list[str]:
    """The values that the column has: those that are `known` in that order, then the others."""
    found = {row[column] for row in rows}
    return [value for value in known if value in found] + sorted(found - set(known))


def classes(rows: Sequence[Row]) -> list[str]:
    """Labels, those of positive classes first."""
    labels = {(not row["is_positive"], row["label"]) for row in rows}
    return list(dict.fromkeys(label for _, label in sorted(labels)))


def colours(domain: Sequence[str]) -> alt.Scale:
    """Each value with a colour of the theme's."""
    return alt.Scale(domain=list(domain))


def dashes(domain: Sequence[str]) -> alt.Scale:
    """Each value with a dash, solid first."""
    return alt.Scale(domain=list(domain), range=_repeated(DASHES, len(domain)))


def shapes(domain: Sequence[str]) -> alt.Scale:
    """Each value with a shape."""
    return alt.Scale(domain=list(domain), range=_repeated(SHAPES, len(domain)))


def picked(field: str) -> alt.Parameter:
    """A click on the legend picks a value of `field`; another click picks all."""
    return alt.selection_point(name=f"picked_{field}", fields=[field], bind="legend")


def faded(parameter: alt.Parameter, opacity: float = 1.0) -> Any:
    """As opaque as given where the row is picked, else hardly there."""
    return alt.when(parameter).then(alt.value(opacity)).otherwise(alt.value(opacity * 0.12))


def number(field: str, title: str | None = None, digits: int = 3) -> alt.Tooltip:
    """A number of a tooltip."""
    return alt.Tooltip(f"{field}:Q", title=title or _words(field), format=f".{digits}f")


def word(field: str, title: str | None = None) -> alt.Tooltip:
    """A text of a tooltip."""
    return alt.Tooltip(f"{field}:N", title=title or _words(field))


def _words(field: str) -> str:
    return field.replace("_", " ")


def _repeated(values: Sequence[Any], count: int) -> list[Any]:
    return [values[place % len(values)] for place in range(count)]
