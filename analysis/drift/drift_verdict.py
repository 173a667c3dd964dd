"""A drift analysis in words, every number as `v_drift` and `v_drift_controls` hold it."""

from __future__ import annotations

import json
from typing import Any

from axes.warehouse.connection import Connection, rows

_CONTROLS = {
    "matched_prompt": "matched on the prompt's projection",
    "matched_length": "matched on length",
    "lasting": "completions that last, cut to one length",
}
_NULLS = {"random_axes": "random axes", "shuffled_tokens": "shuffled steps"}


def verdict(connection: Connection, drift_id: str) -> str:
    """Whether the positive class drifts up, with the figures and what each control says."""
    found = rows(connection, "from v_drift where drift_id = ?", [drift_id])[0]
    controls = {
        row["control"]: row
        for row in rows(connection, "from v_drift_controls where drift_id = ?", [drift_id])
    }
    lines = [_answer(found), _slopes(found)]
    lines += [
        f"{words}: {_figure(controls[name], 'difference')} on "
        f"{controls[name]['positive_count']} and {controls[name]['negative_count']}; "
        f"{'holds' if controls[name]['holds'] else 'does not hold'}"
        for name, words in _CONTROLS.items()
        if name in controls
    ]
    lines += [
        f"{words} give {_figure(controls[name], 'difference')}, p {controls[name]['p_value']:.3f}"
        for name, words in _NULLS.items()
        if name in controls
    ]
    if "other_text" in controls:
        lines.append(_other_text(found, controls["other_text"]))
    lines.append(_early_warning(found))
    if found["controls_missing"]:
        lines.append(f"not computed: {', '.join(found['controls_missing'])}")
    return "\n".join(lines)


def _answer(found: dict[str, Any]) -> str:
    names = ("model", "axis_name", "prompt_set", "template", "labeler")
    place = ", ".join(found[name] for name in names if found[name] is not None)
    if found["is_drift"] and found["is_controlled"]:
        answer = "yes, and every control agrees"
    elif found["is_drift"] and found["controls_failed"]:
        failed = ", ".join(found["controls_failed"])
        answer = f"it seems to, but these controls do not agree: {failed}"
    elif found["is_drift"]:
        answer = "it seems to, but not every control could be computed"
    elif found["upper"] < 0:
        answer = "no, it drifts down against the negative class"
    elif found["lower"] > 0:
        answer = "no, though it falls less than the negative class, or its own slope is unclear"
    else:
        answer = "not shown, the classes' slopes do not differ beyond chance"
    return f"does the positive class drift up ({place})? {answer}"


def _slopes(found: dict[str, Any]) -> str:
    return (
        f"slope per token: positive {_figure(found, 'positive_slope', 'positive_slope_')}, "
        f"negative {_figure(found, 'negative_slope', 'negative_slope_')}, "
        f"difference {_figure(found, 'slope_difference')}, p {found['p_value']:.3f}, "
        f"on {found['positive_count']} and {found['negative_count']} completions"
    )


def _other_text(found: dict[str, Any], control: dict[str, Any]) -> str:
    figure = _figure(control, "difference")
    if control["lower"] <= 0 <= control["upper"]:
        meaning = "neither the prompt nor the text alone makes a difference"
    elif (control["difference"] > 0) == (found["slope_difference"] > 0):
        meaning = "the difference follows the prompt"
    else:
        meaning = "the difference follows the text"
    return f"reading the other class's text: {figure}; {meaning}"


def _early_warning(found: dict[str, Any]) -> str:
    area = _figure(found, "final_auroc", "final_auroc_")
    bound = json.loads(found["parameters"])["bound"]
    if found["decided_step"] is None:
        return f"AUROC of the mean over whole completions is {area}: below {bound:g} at the end"
    step = _figure(found, "decided_step", "decided_step_")
    late = _figure(found, "lead", "lead_") if found["lead"] is not None else "no event"
    return (
        f"AUROC of the mean over whole completions is {area}; "
        f"it stays at {bound:g} or above from step {step} on, {late} tokens before the event"
    )


def _figure(row: dict[str, Any], name: str, prefix: str = "") -> str:
    lower, upper = (
        "no end" if row[f"{prefix}{end}"] is None else f"{row[f'{prefix}{end}']:.3g}"
        for end in ("lower", "upper")
    )
    return f"{row[name]:.3g} ({lower} to {upper})"
