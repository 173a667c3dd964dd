"""Write docs/results.md and its figures from a warehouse: what the study shows on small models.

`make results DATA=FOLDER` runs the commands of the page on the warehouse of `make demo`, with the
published prompts of that folder, and writes it; `python -m docs.results --root lake` only writes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from statistics import fmean

import click

from axes.warehouse.connection import Connection
from docs.findings_figures import BLUE, GREEN, GREY, ORANGE, Figure, intervals_figure
from docs.result_page import FOLDER, Row, Section, commands_of, interval, run_commands, write_page

QUERIES = FOLDER / "results"

_INTRODUCTION = """\
<!-- Written by docs/results.py (make results); edit the source, not this file. -->

# Results on three small models

Do SmolLM2 135M, Gemma 3 270M and Qwen2.5-Coder 0.5B share an unsafe direction? Each question below
has one table with 95 % intervals and nulls, the query that reads it, and the commands that wrote
its rows. Directions are fitted on one labelled set; every number but those of the sensitivity is
of prompts that no direction was fitted on: of that set out of fold, or of another set.

- `demo_safety`: our own matched pairs, one word apart (built in). Words alone should tell little.
- `safety_600`: StrongREJECT, AdvBench and MaliciousInstruct against Alpaca and over-refusal sets,
  300 + 300. The source of a prompt gives its label away.
- `harmbench`: 382 prompts, judged by the directions of `safety_600`.

The published sets are third-party and not part of this repository. The models are ten to a hundred
times smaller than those of the source study, so these tables say nothing of its models.

Pages beside this one: [findings](findings.md) on generated text, [costs](costs.md) in time,
[planted worlds](worlds.md) where the answer is known.
"""

_DEMO = "axes study --group demo --prompts demo_safety --align demo_alignment --align-rows 1500"
_PUBLISHED = "axes study --group demo --prompts safety_600 --align alpaca --evaluate harmbench"
_IMPORTS = (
    "axes prompts import safety_600 safety_600.parquet",
    "axes prompts import alpaca alignment_alpaca.parquet",
    "axes prompts import harmbench heldout_harmbench.parquet",
)
_MAIN = (*_IMPORTS, _DEMO, _PUBLISHED)
_POOLINGS = ("last", "content_mean", "content_max")
_MODELS = ("smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b")
_RANKS = tuple(
    f"axes evaluate {model} --prompts {prompts} --max-rank 5"
    for prompts in ("demo_safety", "safety_600")
    for model in _MODELS
)
_CONCEPTS = (
    "axes study --group demo --align demo_alignment --align-rows 1500 --concepts "
    "concept_formality,concept_sentiment,concept_certainty,concept_tense,concept_concreteness,"
    "concept_politeness"
)
_POOLED = (
    *(
        f"axes ingest activations {model} --prompts demo_safety --prompts demo_alignment "
        f"--limit 1500 {' '.join(f'--pooling {name}' for name in _POOLINGS)}"
        for model in _MODELS
    ),
    *(f"{_DEMO} --pooling {name}" for name in _POOLINGS),
)


def separation_verdict(found: Sequence[Row]) -> list[str]:
    """How many universal axes are shown to exceed every baseline, over all and per prompt set."""
    axes = [row for row in found if row["axis"] == "universal"]
    above = [row for row in axes if (row["least_excess"] or 0.0) > 0]
    lines = [
        f"**{len(above)} of {len(axes)} universal axes are shown to rank unseen prompts better "
        "than every baseline that reads the words alone.**"
    ]
    for prompt_set, judged in _by_set(found):
        best = next(row for row in judged if row["model"] == "without a model")
        rates = [row for row in judged if row["axis"] == "universal"]
        told = [row for row in rates if (row["tpr_lower"] or 0.0) > 0.01]
        lines.append(
            f"- `{prompt_set}`: the best baseline, {best['axis'].replace('_', ' ')}, has "
            f"{interval(best, 'auroc', 'auroc_')}. At 1 % false positives {len(told)} of "
            f"{len(rates)} universal axes are shown to find more than chance does (1 %)."
        )
    return lines


def agreement_verdict(found: Sequence[Row]) -> list[str]:
    """Of how many models the axis of the others exceeds its null, in AUROC and in cosine."""
    lines = ["**The axis of the other models, by prompt set:**"]
    for prompt_set, judged in _by_set(found):
        above = [row for row in judged if row["leave_one_out_lower"] > row["leave_one_out_null"]]
        alike = [row for row in judged if row["p_value"] < 0.05]
        lines.append(
            f"- `{prompt_set}`: its AUROC exceeds the null on {len(above)} of {len(judged)} "
            f"models, its cosine with the model's own direction on {len(alike)} (p below 0.05, "
            "each model by itself)."
        )
    return lines


def variants_verdict(column: str, found: Sequence[Row]) -> list[str]:
    """Per prompt set the value of `column` with the highest and the lowest mean AUROC."""
    lines = ["**No difference between these choices is tested; their intervals overlap or not.**"]
    for prompt_set, judged in _by_set(found):
        parts = []
        for axis in ("native", "universal"):
            areas = defaultdict(list)
            for row in judged:
                areas[_value(row, column)].append(row[axis])
            means = {value: fmean(some) for value, some in areas.items()}
            best, worst = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
            if means[best] > means[worst]:
                parts.append(
                    f"the mean {axis} AUROC of the models is highest with {best} "
                    f"({means[best]:.3f}) and lowest with {worst} ({means[worst]:.3f})"
                )
        lines.append(f"- `{prompt_set}`: {'; '.join(parts)}.")
    return lines


def rank_verdict(found: Sequence[Row]) -> list[str]:
    """How many subspaces, and last dimensions of them, are shown to add; then the best by set."""
    better, longer = (
        [row for row in found if (row[name] or 0.0) > 0 and row[f"{name}_p_value"] < 0.05]
        for name in ("gain", "last_gain")
    )
    added = sum(row["last_gain"] is not None for row in found)
    lines = [
        f"**{len(better)} of {len(found)} subspaces are shown to rank better than the model's own "
        f"direction, and {len(longer)} of {added} further dimensions to add to the ones before** "
        "(p below 0.05, corrected over the ranks of each model and set)."
    ]
    for prompt_set, judged in _by_set(found):
        best = max(judged, key=itemgetter("auroc"))
        lines.append(
            f"- `{prompt_set}`: the highest AUROC has {best['model']} with {best['rank']} "
            f"{'dimension' if best['rank'] == 1 else 'dimensions'}, "
            f"{interval(best, 'auroc', 'auroc_')}; over the direction alone it gains "
            f"{interval(best, 'gain', 'gain_')}."
        )
    return lines


def concepts_verdict(found: Sequence[Row]) -> list[str]:
    """Of how many models axes name the concept better than word counts, by alignment."""
    carried = sum(row["leave_one_out_lower"] > row["baseline_upper"] for row in found)
    lines = [
        f"**On {carried} of {len(found)} models and alignments, axes of the other models are shown "
        "to name the concept within a pair better than word counts do** (their interval lies above "
        "that of the word counts)."
    ]
    for alignment, group in groupby(found, itemgetter("alignment")):
        judged = list(group)
        own, others = (
            sum(row[f"{axes}_lower"] > row["baseline_upper"] for row in judged)
            for axes in ("native", "leave_one_out")
        )
        chance = sum(row["leave_one_out_lower"] > row["null_95"] for row in judged)
        lines.append(
            f"- `{alignment}`: the model's own axes on {own} of {len(judged)} models, axes of the "
            f"other models on {others}; these exceed concepts dealt at random on {chance}. The "
            f"mean over models of the {judged[0]['concepts']}-way accuracy is "
            f"{fmean(row['native'] for row in judged):.3f} and "
            f"{fmean(row['leave_one_out'] for row in judged):.3f}, of word counts "
            f"{judged[0]['baseline']:.3f}; the mean AUROC of a concept "
            f"{fmean(row['native_auroc'] for row in judged):.3f} and "
            f"{fmean(row['leave_one_out_auroc'] for row in judged):.3f}, of the best baseline "
            f"{judged[0]['best_baseline_auroc']:.3f}."
        )
    return lines


def sensitivity_verdict(found: Sequence[Row]) -> list[str]:
    """The widest range of the universal AUROC, and the largest cosine at a smallest AUROC."""
    widest = max(found, key=lambda row: row["largest"] - row["smallest"])
    alike = max(found, key=lambda row: row["cosine_at_smallest"])
    return [
        f"**One setting moves the universal AUROC of {widest['model']} on `{widest['prompt_set']}` "
        f"between {widest['smallest']:.3f} and {widest['largest']:.3f}.**",
        f"- A high cosine does not validate an axis: where the AUROC of {alike['model']} on "
        f"`{alike['prompt_set']}` is {alike['smallest']:.3f}, its cosine with the axis is "
        f"{alike['cosine_at_smallest']:.2f}.",
    ]


def claims_verdict(found: Sequence[Row]) -> list[str]:
    """How often each verdict is given, per prompt set."""
    lines = ["**Verdicts by rules that were fixed before ([methods](methods.md)):**"]
    for prompt_set, judged in _by_set(found):
        counts = Counter(row["verdict"] for row in judged)
        told = ", ".join(f"{verdict} {count}" for verdict, count in sorted(counts.items()))
        lines.append(f"- `{prompt_set}`: {told}.")
    return lines


def separation_figure(connection: Connection, found: Sequence[Row]) -> Figure:
    """AUROCs of the three axes per model and set, and of the best baseline."""
    places = list(dict.fromkeys((row["prompt_set"], row["model"]) for row in found))
    styles = {"native": (ORANGE, "s"), "universal": (BLUE, "o"), "leave_one_out": (GREEN, "^")}
    by_axis = {(row["prompt_set"], row["model"], row["axis"]): row for row in found}
    baselines = {row["prompt_set"]: row for row in found if row["model"] == "without a model"}
    models = [place for place in places if place[1] != "without a model"]
    series = [
        ([by_axis[*place, axis] for place in models], "auroc", colour, marker, axis)
        for axis, (colour, marker) in styles.items()
    ]
    without = [baselines[prompt_set] for prompt_set, _ in models]
    return intervals_figure(
        [f"{prompt_set}: {model}" for prompt_set, model in models],
        [*series, (without, "auroc", GREY, "x", "best baseline without a model")],
        hollow=[False] * len(models),
        label="AUROC on prompts that no direction was fitted on",
    )


def agreement_figure(connection: Connection, found: Sequence[Row]) -> Figure:
    """AUROC of the axis of the other models per model and set."""
    return intervals_figure(
        [f"{row['prompt_set']}: {row['model']}" for row in found],
        [(found, "leave_one_out", BLUE, "o", "axis of the other models")],
        hollow=[row["leave_one_out_lower"] <= row["leave_one_out_null"] for row in found],
        label="AUROC of the axis of the other models (open: not above its null)",
    )


def variants_figure(column: str, connection: Connection, found: Sequence[Row]) -> Figure:
    """Universal AUROCs of every value of `column`, per model and set."""
    return intervals_figure(
        [f"{row['prompt_set']}: {row['model']}, {_value(row, column)}" for row in found],
        [(found, "universal", BLUE, "o", "universal")],
        hollow=[False] * len(found),
        label="AUROC of the universal axis",
    )


def concepts_figure(connection: Connection, found: Sequence[Row]) -> Figure:
    """Accuracy of own axes, of other models' axes, and of word counts, per alignment and model."""
    return intervals_figure(
        [f"{row['alignment'].replace('_', ' ')}: {row['model']}" for row in found],
        [
            (found, "native", ORANGE, "s", "its own axes"),
            (found, "leave_one_out", BLUE, "o", "axes of the other models"),
            (found, "baseline", GREY, "x", "best word counts"),
        ],
        hollow=[False] * len(found),
        label="share of pairs whose concept is named (chance: 1 of 6)",
    )


def angle_verdict(found: Sequence[Row]) -> list[str]:
    """The smallest and the largest angle."""
    least, *_, most = sorted(found, key=itemgetter("angle"))
    return [
        f"**The angles lie between {least['angle']:.0f} and {most['angle']:.0f} degrees.**",
        *(
            f"- {row['model']}: `{row['pooling']}` and `{row['other_pooling']}` are "
            f"{row['angle']:.0f} degrees apart."
            for row in (least, most)
        ),
    ]


def _variants(option: str, values: Sequence[str]) -> tuple[str, ...]:
    studies = (*_IMPORTS, _DEMO, _PUBLISHED)
    varied = [f"{study} --{option} {value}" for value in values for study in (_DEMO, _PUBLISHED)]
    return (*studies, *varied)


def _varied(column: str, title: str, explanation: str, commands: tuple[str, ...]) -> Section:
    return Section(
        QUERIES / "varied.sql",
        title,
        explanation,
        commands,
        partial(variants_verdict, column),
        partial(variants_figure, column),
        varied=column,
    )


def _value(row: Row, column: str) -> str:
    value = row[column]
    return "chosen" if value is None else str(value)


def _by_set(found: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    return [(name, list(group)) for name, group in groupby(found, itemgetter("prompt_set"))]


SECTIONS = (
    Section(
        QUERIES / "separation.sql",
        "Does a direction tell unsafe prompts apart, and better than their words?",
        "The model's own direction, the universal axis, and the axis made without the model. "
        "Without a model, word counts, word pairs, tf-idf, surface form, length and all of them "
        "together are fitted in the same folds.",
        _MAIN,
        separation_verdict,
        separation_figure,
    ),
    Section(
        QUERIES / "agreement.sql",
        "Is it shared?",
        "The axis made of the other models, which has seen no label of this one. Its AUROC has to "
        "exceed 0.5, random directions and shuffled alignments; its cosine that of shuffled "
        "labels.",
        _MAIN,
        agreement_verdict,
        agreement_figure,
    ),
    Section(
        QUERIES / "claims.sql",
        "What may be said of the source study's claims?",
        "Cannot tell: a premise fails, so that the numbers say nothing either way. Undecided: the "
        "interval holds both answers.",
        _MAIN,
        claims_verdict,
        None,
    ),
    _varied(
        "direction",
        "Does the way to make a direction matter?",
        "Difference in means, the same whitened, logistic regression, and the direction that "
        "maximises a smooth AUROC (soft_auc; arXiv 2604.18901 finds it best on larger models).",
        _variants("direction", ("whitened", "logistic", "soft_auc")),
    ),
    _varied(
        "alignment",
        "Does the map into the reference matter?",
        "All are fitted on the same benign prompts, without safety labels. By anchor projection "
        "arXiv 2605.09875 carries ten axes to unseen model families, at a mean AUROC of 0.95.",
        _variants("alignment", ("procrustes", "reduced_rank", "cca", "anchor_projection")),
    ),
    _varied(
        "ridge_lambda",
        "Does lambda matter?",
        "One lambda for all models has another effect in each, since it depends on the scale of "
        "the activations. R2 is that of the map on held-out rows.",
        _variants("ridge-lambda", ("1", "10000", "1000000")),
    ),
    _varied(
        "pooling",
        "Does the choice of tokens matter?",
        "Over which tokens of a prompt activations are pooled: the last five, the last, and mean "
        "and maximum over the content tokens, which leave the template's tokens out.",
        _POOLED,
    ),
    Section(
        QUERIES / "angle.sql",
        "Do poolings give the same direction?",
        "Both directions are of the same model, layer and prompts. arXiv 2604.18901 has two "
        "poolings at 73 degrees.",
        _POOLED,
        angle_verdict,
        None,
    ),
    Section(
        QUERIES / "rank.sql",
        "Does the concept take more than one direction?",
        "Subspaces of one to five dimensions at the study's layer, with a logistic regression on "
        "their coordinates and squares. arXiv 2602.02132 and 2507.21141 have several directions.",
        _RANKS,
        rank_verdict,
        None,
    ),
    Section(
        QUERIES / "concepts.sql",
        "Do many concepts carry over to another model at once?",
        "Six built-in concepts of matched pairs. By anchor projection arXiv 2605.09875 carries ten "
        "to unseen model families at a mean AUROC of 0.95 and a ten-way accuracy of 0.83, on other "
        "concepts and larger models.",
        (_CONCEPTS, f"{_CONCEPTS} --alignment anchor_projection"),
        concepts_verdict,
        concepts_figure,
    ),
    Section(
        QUERIES / "sensitivity.sql",
        "How much does one choice move the result?",
        "Reference, lambda, depth, number of alignment rows and the prompts that directions are "
        "fitted on, one at a time. These AUROCs are in sample on the fitted set.",
        (*_IMPORTS, *(f"{study} --sensitivity" for study in (_DEMO, _PUBLISHED))),
        sensitivity_verdict,
        None,
    ),
)


def write_results(root: Path, page: Path = FOLDER / "results.md") -> list[str]:
    """Write the page and its figures; the names of sections whose rows are missing."""
    closing = (
        "## Run time\n\nThe jobs of the warehouse, including those of `make demo`, in wall time. "
        "Other jobs ran at the same time.\n",
        FOLDER / "findings" / "runs.sql",
    )
    return write_page(root, page, _INTRODUCTION, SECTIONS, closing)


@click.command()
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="Warehouse of the demo.",
)
@click.option(
    "--run",
    "data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Run the commands of the page first, with the published prompts of this folder.",
)
def main(root: Path, data: Path | None) -> None:
    """Write the page."""
    if data is not None:
        run_commands(root, commands_of(SECTIONS), data)
    for name in write_results(root):
        click.echo(f"no rows for {name}: the page names the command that writes them", err=True)


if __name__ == "__main__":
    main()
