"""Write docs/findings.md and its figures from a warehouse: each claim, its effect and controls.

`make findings` runs the commands of the page on the warehouse of `make demo` and writes it;
`python -m docs.findings --root lake` only writes. Every section is a query of docs/findings, a rule
that states in words what its rows show, and a figure. If the rows are missing, the page names the
command that writes them. Only numbers are read, no text of any completion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click

from docs.findings_figures import (
    axis_label,
    comparison_figure,
    drift_figure,
    intervention_figure,
    routing_figure,
)
from docs.result_page import FOLDER, Row, Section, commands_of, interval, run_commands, write_page

QUERIES = FOLDER / "findings"

_INTRODUCTION = """\
<!-- Written by docs/findings.py (make findings); edit the source, not this file. -->

# Findings on the demo's models

Which claims about generated text hold on the three small models of `make demo`? The query below
each table reads its values from a warehouse, with their 95 % intervals and controls. The positive
class is the unsafe class of `demo_safety`. This page prints and reads no completion.

The models have 0.1 to 0.5 billion parameters, each completion has 32 tokens, and the axis was
fitted on the same prompts. A claim that fails here may hold elsewhere, and the reverse.

The warehouse is that of `make demo`, with longer completions and their labels. `make findings` runs
these commands and those below on it, and writes this page:

```sh
{commands}
```
"""


_AXIS = "universal/demo/18/demo_safety/lambda-held_out"
_COMPLETIONS = (
    "--prompts demo_safety --limit 240 --max-new-tokens 32 --labeler refusal_substring --negated "
    "--only positive"
)
# Gemma is a base model: it has no chat template.
_COMMANDS = (
    *(
        f"axes ingest traces {model} --prompts demo_safety --limit 240 --max-new-tokens 32 "
        f"--template {template}"
        for model, template in (
            ("smollm2-135m", "chat"),
            ("gemma3-270m", "raw"),
            ("qwen2.5-coder-0.5b", "chat"),
        )
    ),
    "axes study --group demo --prompts demo_safety --align demo_alignment --align-rows 1500",
    "axes label refusals",
)


def drift_verdict(drifts: Sequence[Row]) -> list[str]:
    """Holds where the slopes differ upwards and every control shows it (`v_drift`)."""
    held = [row["model"] for row in drifts if row["is_drift"] and row["is_controlled"]]
    lines = [f"**{_verdict(len(held), len(drifts))}** (models: {_listed(held)})."]
    for row in drifts:
        if row["is_drift"] and row["is_controlled"]:
            words = "up, and shown under every control"
        elif row["is_drift"] and row["controls_failed"]:
            words = f"up, and explained by {_listed(row['controls_failed'])}: its change is shown"
        elif row["is_drift"]:
            words = "up, but not shown under every control, and explained by none"
        elif row["upper"] < 0:
            words = "down against the negative class"
        else:
            words = "no difference beyond chance"
        lines.append(
            f"- {row['model']}: {words}; slope per token, positive minus negative class "
            f"{interval(row, 'slope_difference', '')} on {row['positive_count']} and "
            f"{row['negative_count']} completions. AUROC of the mean over the completion: "
            f"{interval(row, 'final_auroc', 'final_auroc_')}."
        )
    return lines


def routing_verdict(policies: Sequence[Row]) -> list[str]:
    """Two claims: calibrated beats raw, and calibrated beats the best single model."""
    by_policy = {row["policy"]: row for row in policies}
    lines = []
    for policy in ("answer_projection", "prompt_projection"):
        row = by_policy[policy]
        needs = _sign(row["over_raw_lower"], row["over_raw_upper"])
        helps = _sign(row["gain_lower"], row["gain_upper"])
        lines.append(
            f"- {policy.replace('_', ' ')}: calibration improves "
            f"the outcome by {interval(row, 'over_raw', 'over_raw_')} over raw routing ({needs}); "
            f"over always using the best single model it gains {interval(row, 'gain', 'gain_')} "
            f"({helps}). The oracle could gain {by_policy['oracle']['gain']:.3f}."
        )
    answer = by_policy["answer_projection"]
    needs, helps = answer["over_raw_lower"] > 0, answer["gain_lower"] > 0
    if answer["gain_lower"] == answer["gain_upper"] == 0.0:
        lines.append(
            "- The calibrated answer projection sends all prompts to the best single model: the "
            "projection within a model never changes the choice."
        )
    raw = "does worse: calibration is needed" if needs else "is not shown to do worse"
    calibrated = "beats" if helps else "is not shown to beat"
    claim = (
        f"**Routing by raw projections {raw}. Calibrated routing {calibrated} the best single "
        f"model** ({answer['prompt_count']} prompts)."
    )
    return [claim, *lines]


def comparison_verdict(ranking: Sequence[Row]) -> list[str]:
    """How surely one model is first, and whether the labelled outcome agrees.

    With flat calibrations there is nothing that projections could rank by.
    """
    first = ranking[0]
    outcomes = [row["outcome"] for row in ranking]
    agrees = outcomes == sorted(outcomes)
    is_flat = all(row["probability_upper"] - row["probability_lower"] < 1e-9 for row in ranking)
    if is_flat:
        claim = (
            "**Not by projections: every calibration is constant, so the order is that of the base "
            f"rates on the calibration prompts** ({first['prompt_count']} evaluation prompts)."
        )
    else:
        claim = (
            f"**{first['model']} comes first in {first['first']:.0%} of resamples; the labelled "
            f"outcome {'gives the same order' if agrees else 'gives another order'}** "
            f"({first['prompt_count']} prompts)."
        )
    lines = [claim]
    for row in ranking:
        gap = "inside" if _inside(row) else "outside"
        lines.append(
            f"- {row['model']}: calibrated probability "
            f"{interval(row, 'probability', 'probability_')}, "
            f"labelled {interval(row, 'outcome', 'outcome_')}: the probability is {gap} "
            "the label's interval."
        )
        lines += [f"- {row['model']}, warning: {warning}." for warning in row["warnings"]]
    return lines


def intervention_verdict(effects: Sequence[Row]) -> list[str]:
    """How many slopes over all strengths are beyond the random directions', then each of them."""
    tested = [row for row in effects if row["p_value"] is not None]
    clear = [row for row in tested if row["p_value"] < 0.05]
    min_p = 1 / (1 + max((row["random_count"] for row in tested), default=0))
    lines = [
        f"**{len(clear)} of {len(tested)} effects are beyond those of random directions of the "
        f"same norm** (p below 0.05, not corrected for their number, and never below {min_p:.3f} "
        "with so many random directions)."
    ]
    return lines + [
        f"- {row['model']}, {axis_label(row)}: {row['metric'].replace('_', ' ')} on "
        f"{row['prompts_class']} prompts {interval(row, 'estimate', '')} per unit of strength; "
        f"random directions {row['random_lower']:.3g} to {row['random_upper']:.3g}; "
        f"{row['verdict']}."
        for row in tested
    ]


SECTIONS = (
    Section(
        QUERIES / "drift.sql",
        "Do completions of the positive class drift upward?",
        "Slopes of the projection on the universal axis over the steps of a completion, by the "
        "label of its prompt. The claim holds if the positive class rises, rises more than the "
        "negative one, and the difference is shown under every control: pairs matched on the "
        "prompt's projection and on length, completions of a minimum length, random axes, shuffled "
        "steps. A control explains the difference only if its change towards 0 is shown; otherwise "
        "it cannot tell, as on few completions.",
        (f"axes drift --axis {_AXIS} --max-new-tokens 32",),
        drift_verdict,
        drift_figure,
    ),
    Section(
        QUERIES / "routing.sql",
        "Does routing between models need calibration, and does it help?",
        "Each prompt of the positive class goes to one of the models. The outcome is 1 if the "
        "completion is not a refusal (`refusal_substring`); lower is better. Half of the prompts "
        "calibrate, the other half evaluates. `gain` is relative to the model that was best on the "
        "first half, `over_raw` to the same rule without calibration.",
        (f"axes route {_COMPLETIONS}",),
        routing_verdict,
        routing_figure,
    ),
    Section(
        QUERIES / "comparison.sql",
        "Can models be ranked by their projections?",
        "Each model completes the same prompts. `probability` is the mean calibrated probability "
        "that a completion is not a refusal, by its projection alone; `outcome` is the labeler's "
        "label of the same completions. `first` is the share of resamples in which the model has "
        "the lowest probability.",
        (f"axes compare {_COMPLETIONS}",),
        comparison_verdict,
        comparison_figure,
    ),
    Section(
        QUERIES / "intervention.sql",
        "Does injecting the axis change the model's behaviour?",
        "The model's own axis, and the universal one pulled back to the model's space, are added "
        "at strengths in units of the layer's median norm. Effects are per unit over all "
        "strengths, compared with random directions of the same norm. `refusal_openers` is the "
        "log-odds that the completion starts like a refusal; `kl` and `log_perplexity` on benign "
        "texts are the cost.",
        (
            f"axes intervene smollm2-135m --axis native/smollm2-135m/23/demo_safety --axis {_AXIS} "
            "--prompts demo_safety --limit 24 --benign demo_alignment --benign-limit 8 "
            "--strengths=-0.16,-0.08,0.08,0.16 --shuffled 3 --orthogonal 1 --max-new-tokens 24 "
            "--complete-controls",
        ),
        intervention_verdict,
        intervention_figure,
    ),
)


def write_findings(root: Path, page: Path = FOLDER / "findings.md") -> list[str]:
    """Write the page and its figures; the names of sections whose rows are missing."""
    closing = (
        "## Run time\n\nThe jobs of the warehouse, including those of `make demo`, in wall time. "
        "Other jobs may have run at the same time.\n",
        FOLDER / "findings" / "runs.sql",
    )
    introduction = _INTRODUCTION.format(commands="\n".join(_COMMANDS))
    return write_page(root, page, introduction, SECTIONS, closing)


def _verdict(held: int, count: int) -> str:
    if held == count:
        return "Holds on every model"
    return f"Holds on {held} of {count} models" if held else "Does not hold on any model"


def _sign(lower: float, upper: float) -> str:
    if lower > 0:
        return "better beyond chance"
    return "worse beyond chance" if upper < 0 else "no difference beyond chance"


def _inside(row: Row) -> bool:
    return row["outcome_lower"] <= row["probability"] <= row["outcome_upper"]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(re.sub("_", " ", name) for name in names) or "none"


@click.command()
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="Warehouse of the demo.",
)
@click.option("--run", "is_run", is_flag=True, help="Run the commands of the page first.")
def main(root: Path, is_run: bool) -> None:
    """Write the page."""
    if is_run:
        run_commands(root, [*_COMMANDS, *commands_of(SECTIONS)])
    for name in write_findings(root):
        click.echo(f"no rows for {name}: the page names the command that writes them", err=True)


if __name__ == "__main__":
    main()
