"""The look of charts: on paper in fixed colours, on the page in those of its style sheet.

Series are in the colours of Okabe and Ito (2008), which colour-blind readers distinguish, areas in
cividis; dashes and shapes repeat the distinction. The page names its colours as CSS variables, so
that light, dark and print need no second drawing.
"""

from __future__ import annotations

from typing import Any, Literal

# A Vega-Lite specification, or a part of one.
Json = dict[str, Any]

# Yellow, the eighth, is left out: it is invisible on white.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 4], [4, 2, 1, 2], [1, 4])
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-left")
SCHEME: Literal["cividis"] = "cividis"

# Styles that marks name: a reference line, and a note.
REFERENCE, NOTE = "reference", "note"


def _config(*, ink: str, soft: str, line: str, series: tuple[str, ...], font: str) -> Json:
    """A Vega-Lite configuration."""
    text = {"labelColor": ink, "titleColor": ink, "labelFontSize": 11, "titleFontSize": 11}
    return {
        "background": "transparent",
        "font": font,
        "view": {"stroke": None},
        "axis": {
            **text,
            "titleFontWeight": "normal",
            "domainColor": soft,
            "tickColor": soft,
            "gridColor": line,
            "labelLimit": 240,
        },
        "axisX": {"labelFlush": False},
        "legend": {
            **text,
            "titleFontWeight": "normal",
            "orient": "top",
            "symbolStrokeWidth": 2,
            "symbolSize": 90,
            "labelLimit": 300,
            "gradientLength": 160,
        },
        "header": {
            "labelColor": ink,
            "titleColor": ink,
            "labelFontSize": 11,
            "labelFontWeight": "bold",
            "labelLimit": 360,
        },
        "title": {"color": ink},
        "text": {"color": ink, "fontSize": 11},
        "line": {"strokeWidth": 2},
        "range": {"category": list(series)},
        "style": {
            REFERENCE: {"color": soft, "strokeDash": [4, 4], "strokeWidth": 1},
            NOTE: {"color": ink, "fontSize": 11},
        },
    }


PAPER: Json = {
    **_config(ink="#1a1a1a", soft="#767676", line="#e3e3e3", series=OKABE_ITO, font="sans-serif"),
    "background": "white",
}

PAGE: Json = _config(
    ink="var(--ink)",
    soft="var(--soft)",
    line="var(--line)",
    series=tuple(f"var(--series-{number})" for number in range(1, len(OKABE_ITO) + 1)),
    font="system-ui, sans-serif",
)
