"""The figures of docs/findings.md and docs/results.md: small SVG files.

The same numbers give the same bytes.

Colours are Okabe and Ito's, which colour-blind readers tell apart; nothing is said by colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from axes.warehouse.connection import Connection, rows

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"
_STYLES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, ":"), (GREY, "-."))
_SETTINGS = {
    # Text stays text, and ids do not change from run to run.
    "svg.fonttype": "none",
    "svg.hashsalt": "findings",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

Row = dict[str, Any]


def write_figure(figure: Figure, path: Path) -> None:
    """Write an SVG without date or version."""
    path.parent.mkdir(exist_ok=True)
    with mpl.rc_context(_SETTINGS):
        metadata = {"Date": None, "Creator": None}
        figure.savefig(path, format="svg", bbox_inches="tight", metadata=metadata)
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def drift_figure(connection: Connection, drifts: Sequence[Row]) -> Figure:
    """Per model the difference of the classes' mean projections by step, with its band."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.5, 2.4), layout="constrained")
        panels = figure.subplots(1, len(drifts), squeeze=False)[0]
        for panel, row in zip(panels, drifts, strict=True):
            curve = rows(
                connection,
                "select step, estimate, band_lower, band_upper from v_drift_curve "
                "where drift_id = ? and curve = 'mean_difference' and control = 'none' "
                "and band_lower is not null order by step",
                [row["drift_id"]],
            )
            steps = [point["step"] for point in curve]
            panel.fill_between(
                steps,
                [point["band_lower"] for point in curve],
                [point["band_upper"] for point in curve],
                color=BLUE,
                alpha=0.25,
                linewidth=0,
            )
            panel.plot(steps, [point["estimate"] for point in curve], color=BLUE)
            panel.axhline(0, color=GREY, linewidth=0.8)
            panel.set_title(row["model"], fontsize=9)
            panel.set_xlabel("generated token")
        panels[0].set_ylabel("positive less negative class")
    return figure


def routing_figure(connection: Connection, policies: Sequence[Row]) -> Figure:
    """Per policy the outcome with its interval; raw policies are open circles."""
    names = [row["policy"].replace("_", " ") for row in policies]
    return intervals_figure(
        names,
        [(policies, "outcome", BLUE, "o", "outcome (lower is better)")],
        hollow=[row["policy"].endswith("_raw") for row in policies],
        label="share of answers with the outcome",
    )


def comparison_figure(connection: Connection, ranking: Sequence[Row]) -> Figure:
    """Per model the calibrated probability next to the labelled outcome."""
    return intervals_figure(
        [row["model"] for row in ranking],
        [
            (ranking, "probability", BLUE, "o", "calibrated chance, by projection"),
            (ranking, "outcome", ORANGE, "s", "labelled"),
        ],
        hollow=[False] * len(ranking),
        label="share of answers with the outcome",
    )


def intervention_figure(connection: Connection, effects: Sequence[Row]) -> Figure:
    """Per effect its interval, with the span of the random directions behind it."""
    shown = [row for row in effects if row["p_value"] is not None]
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.5, 0.8 + 0.24 * len(shown)), layout="constrained")
        panel = figure.subplots()
        for place, row in enumerate(shown):
            span = (row["random_upper"] - row["random_lower"]) or 1e-12
            panel.barh(place, span, left=row["random_lower"], height=0.7, color="#D9D9D9")
            _whisker(panel, place, row["estimate"], row["lower"], row["upper"], BLUE, "o", False)
        panel.axvline(0, color=GREY, linewidth=0.8)
        names = [
            f"{row['model']}, {axis_label(row)}: {row['metric'].replace('_', ' ')}, "
            f"{row['prompts_class']}"
            for row in shown
        ]
        panel.set_yticks(range(len(shown)), names)
        panel.invert_yaxis()
        panel.set_xlabel("effect per unit of strength (grey: random directions)")
    return figure


def axis_label(row: Row) -> str:
    """What kind of axis a row is of, and how it was pulled back."""
    words = [row["axis_kind"], row["pull_back"]]
    return " by ".join(word.replace("_", " ") for word in words if word is not None)


def intervals_figure(
    names: Sequence[str],
    series: Sequence[tuple[Sequence[Row], str, str, str, str]],
    *,
    hollow: Sequence[bool],
    label: str,
) -> Figure:
    """Dots with intervals, one line per name, series beside each other."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.5, 0.8 + 0.3 * len(names)), layout="constrained")
        panel = figure.subplots()
        for number, (points, column, colour, marker, title) in enumerate(series):
            shift = 0.24 * (number - (len(series) - 1) / 2)
            for place, row in enumerate(points):
                ends = row[f"{column}_lower"], row[f"{column}_upper"]
                _whisker(panel, place + shift, row[column], *ends, colour, marker, hollow[place])
            panel.plot([], [], color=colour, marker=marker, label=title)
        panel.set_yticks(range(len(names)), names)
        panel.invert_yaxis()
        panel.set_xlim(-0.02, 1.02)
        panel.set_xlabel(label)
        if len(series) > 1:
            panel.legend(frameon=False, fontsize=8)
    return figure


def _whisker(
    panel: Any,
    place: float,
    value: float,
    lower: float,
    upper: float,
    colour: str,
    marker: str,
    is_hollow: bool,
) -> None:
    panel.plot([lower, upper], [place, place], color=colour, linewidth=1.5)
    face = "white" if is_hollow else colour
    panel.plot([value], [place], marker=marker, color=colour, markerfacecolor=face)
