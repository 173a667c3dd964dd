"""Squares coloured by a value, with the value in them."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from axes.analysis.report.charts.panels import in_order, panels
from axes.analysis.report.charts.theme import SCHEME
from axes.analysis.report.section import Rows

_SIDE = 56


def heat_map(
    rows: Rows,
    *,
    x: str,
    y: str,
    value: str,
    domain: tuple[float, float],
    by: str,
    tooltip: Sequence[alt.Tooltip],
    x_title: str | None = None,
    y_title: str | None = None,
) -> alt.FacetChart:
    """A map for each value of the Vega expression `by`; colours run over `domain`."""
    columns = list(dict.fromkeys(row[x] for row in rows))
    lines = in_order(rows, y, columns)
    at = {
        "x": alt.X(f"{x}:N", title=x_title, sort=columns, axis=alt.Axis(labelAngle=35)),
        "y": alt.Y(f"{y}:N", title=y_title, sort=lines),
    }
    scale = alt.Scale(scheme=SCHEME, domain=domain, clamp=True)
    colour = alt.Color(f"{value}:Q", title=value.replace("_", " "), scale=scale)
    squares = alt.Chart().mark_rect().encode(**at, color=colour, tooltip=list(tooltip))
    # Cividis runs from dark blue to light yellow in either theme.
    is_light = alt.when(f"datum.{value} > {sum(domain) / 2}")
    ink = is_light.then(alt.value("#000000")).otherwise(alt.value("#ffffff"))
    text = alt.Text(f"{value}:Q", format=".2f")
    figures = alt.Chart().mark_text().encode(**at, text=text, color=ink)
    return panels(
        squares,
        figures,
        by=by,
        width=_SIDE * len(columns),
        height=_SIDE * len(lines) * 2 // 3,
        columns=2,
        margin=150,
        is_stretched=False,
    )
