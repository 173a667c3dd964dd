"""The charts of results: those of the report, or a point with its interval for each of their rows.

A chart of `_CHARTS` is `report section, SQL`; the SQL returns the columns of the section's for the
results `$ids`. A study has every chart of its report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from axes.warehouse.connection import connect, query
from axes.warehouse.errors import AxesError
from axes.warehouse.names import did_you_mean

if TYPE_CHECKING:
    import altair as alt

    from axes.results import Result

# Command -> the columns that name a row, the numbers of which the first that a result has is drawn,
# and the columns that name a panel.
_POINTS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "calibrate": (["model"], ["threshold"], ["method", "target"]),
    "compare": (["model"], ["probability"], []),
    "diagnose": (["model"], ["auroc"], ["prompt_set"]),
    "diff": (["layer", "axis_name", "prompt_id"], ["relative_norm", "moved"], []),
    "explain": (["rank", "text"], ["value"], ["part"]),
    "intervene": (["axis_name", "layers"], ["estimate"], ["metric", "prompts_class", "strength"]),
    "monitor": (["step", "token"], ["projection"], []),
    "route": (["policy"], ["outcome"], []),
    "study claims": (["claim"], ["estimate"], ["prompt_set"]),
    "study diff": (["model"], ["difference"], ["metric", "prompt_set"]),
}
_CHARTS = {
    "fit": (
        "layer_areas",
        """
        select
            model, prompt_set, if(is_in_sample, 'in sample', 'held out') as fold, layer,
            layer / greatest(layer_count - 1, 1) as depth, auroc, null as lower, null as upper,
            false as is_of_study
        from v_auroc
        inner join models using (model, model_id)
        where list_contains($ids, axis_id) and auroc is not null
        order by prompt_set, fold, layer
        """,
    ),
    "evaluate": (
        "layer_areas",
        """
        select
            model, prompt_set, 'out of fold' as fold, layer,
            layer / greatest(layer_count - 1, 1) as depth, auroc, auroc_lower as lower,
            auroc_upper as upper, false as is_of_study
        from v_layer_tests
        inner join models using (model, model_id)
        where list_contains($ids, study_id) and auroc is not null
        order by layer
        """,
    ),
    "score": (
        "densities",
        """
        select
            model, prompt_set, 'projection' as scorer, label, row_count, projection, density,
            is_positive
        from v_projection_densities
        where list_contains($ids, axis_id)
        order by prompt_set, model, is_positive, projection
        """,
    ),
    "transfer": (
        "thresholds",
        """
        select
            replace(method, '_', ' ') as method, prompt_set, fitted_on, model as judged_on,
            balanced_accuracy, balanced_accuracy_lower as lower, balanced_accuracy_upper as upper,
            accuracy_loss, accuracy_loss_p, false_positive_rate, false_positive_shift
        from v_threshold_transfer
        where list_contains($ids, study_id)
        order by method != 'uncalibrated', method, fitted_on, judged_on
        """,
    ),
    "drift": (
        "drift",
        """
        select
            curves.model, curves.prompt_set, template, max_new_tokens,
            coalesce(curves.labeler, 'label of the prompt') as labeler,
            replace(curve, '_', ' ') as curve, step, estimate, band_lower, band_upper,
            curves.positive_count, curves.negative_count
        from v_drift_curve as curves
        inner join v_drift as analyses using (drift_id)
        where list_contains($ids, drift_id) and control = 'none' and estimate is not null
        order by curve, curves.model, step
        """,
    ),
}


def plot(result: Result, name: str | None) -> alt.FacetChart:
    """A chart of the results of a command; `name` is one of a study's charts.

    Raises `AxesError` for a result without a chart, or without rows for it.
    """
    from axes.analysis.report.charts.theme import PAPER
    from axes.analysis.report.page import PARTS
    from axes.analysis.report.section import study_names

    command = result.command
    if name is None and command in _POINTS:
        return _points(result).configure(**PAPER)
    sections = {each.name: each for part in PARTS.values() for each in part if each.draw}
    is_of_study = command.startswith("study") and bool(result.ids)
    names = list(sections) if is_of_study else [_CHARTS[command][0]] if command in _CHARTS else []
    if not names:
        raise AxesError(f"a result of axes {command or 'this command'} has no chart {name or ''}")
    chosen = name or ("sensitivity" if command == "study sensitivity" else names[0])
    if chosen not in names:
        near = did_you_mean(chosen, names)
        raise AxesError(f"no chart {chosen}{near}: choose {', '.join(names)}")
    assert result.root is not None
    connection = connect(result.root)
    section = sections[chosen]
    parameters: dict[str, object] = {"ids": list(result.ids)}
    if is_of_study:
        named = study_names(connection, result.ids[0])
        parameters = {key: value for key, value in named.items() if f"${key}" in section.sql}
    sql = section.sql if is_of_study else _CHARTS[command][1]
    rows = query(connection, sql, parameters).to_pylist()
    if not rows or section.draw is None:
        raise AxesError(f"the warehouse has no rows for the chart {chosen}")
    chart: alt.FacetChart = section.draw(rows)
    return chart.properties(title=section.title, datasets={"rows": rows}).configure(**PAPER)


def _points(result: Result) -> alt.FacetChart:
    """The rows of a result from top to bottom, each with its number and the interval of it."""
    import altair as alt

    from axes.analysis.report.charts.panels import numbers, panels, words

    labels, values, headings = _POINTS[result.command]
    value = next((each for each in values if each in result.table.column_names), "")
    rows = [
        {
            "label": _named(row, labels),
            "value": row[value],
            "lower": row.get(f"{value}_lower", row.get("lower")),
            "upper": row.get(f"{value}_upper", row.get("upper")),
            "panel": _named(row, headings),
        }
        for row in result.rows
        if row.get(value) is not None
    ]
    if not rows:
        raise AxesError(f"this result of axes {result.command} has no numbers for a chart")
    y = alt.Y("label:N", title=None, sort=None)
    x = alt.X("value:Q", title=value.replace("_", " ")).scale(zero=False)
    tooltip = [*words("label"), *numbers("value", "lower", "upper")]
    points = alt.Chart().mark_point(filled=True).encode(x=x, y=y, tooltip=tooltip)
    ends = alt.Chart().mark_rule().encode(x="lower:Q", x2="upper:Q", y=y)
    height = 18 * len({row["label"] for row in rows})
    chart = panels(ends, points, by="datum.panel", height=height, independent=("x", "y"))
    return chart.properties(title=result.title, datasets={"rows": rows})


def _named(row: Mapping[str, object], columns: list[str]) -> str:
    return " ".join(str(row[name]) for name in columns if row.get(name) is not None)
