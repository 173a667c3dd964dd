"""`axes fit` and `axes report`: parse, call one function, print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from axes.cli.method_options import direction_option, method_options
from axes.cli.names import GROUP, MODEL, PROMPT_SET
from axes.cli.options import format_option, memory_limit_option, root_option
from axes.warehouse.sites import SITES


def space_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which of a model's stored activations are read."""
    for option in (
        click.option(
            "--template",
            default="raw",
            show_default=True,
            help="As stored: raw, chat, chat+system:HASH.",
        ),
        click.option(
            "--pooling", default="last5_mean", show_default=True, help="As stored: last, mean, ..."
        ),
        click.option("--site", type=click.Choice(SITES), default=SITES[0], show_default=True),
    ):
        command = option(command)
    return command


def study_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a study is, as options; each is a key of a study file too."""
    for option in reversed(
        (
            click.option("--group", type=GROUP, help="Models of this group of the registry."),
            click.option(
                "--model", "models", type=MODEL, multiple=True, help="A model; repeatable."
            ),
            click.option("--reference", type=MODEL, help="The model whose space is aligned into."),
            click.option(
                "--prompts", type=PROMPT_SET, help="Labelled set that the directions are fitted on."
            ),
            click.option(
                "--align", type=PROMPT_SET, help="Unlabelled set that the alignments are fitted on."
            ),
            click.option(
                "--evaluate",
                type=PROMPT_SET,
                multiple=True,
                help="Another labelled set; repeatable.",
            ),
            click.option(
                "--align-rows", type=click.IntRange(min=10), default=3000, show_default=True
            ),
            click.option(
                "--layer-fraction",
                type=click.FloatRange(0.0, 1.0),
                default=0.8,
                show_default=True,
                help="Layer round(fraction * (layer_count - 1)) of each model.",
            ),
            method_options,
            space_options,
            click.option("--seed", type=int, default=0, show_default=True),
            click.option(
                "--allow-missing", is_flag=True, help="Go on where rows are missing, and say so."
            ),
        )
    ):
        command = option(command)
    return command


@click.command()
@click.argument("model", type=MODEL)
@click.option("--prompts", type=PROMPT_SET, required=True, help="Labelled prompt set.")
@click.option(
    "--evaluate",
    type=PROMPT_SET,
    multiple=True,
    help="Another labelled set to judge on; repeatable.",
)
@direction_option
@space_options
@click.option("--allow-missing", is_flag=True, help="Go on where rows are missing.")
@memory_limit_option
@root_option
@format_option
def fit(
    model: str,
    prompts: str,
    evaluate: tuple[str, ...],
    direction: str,
    site: str,
    pooling: str,
    template: str,
    allow_missing: bool,
    memory_limit: int | None,
    root: Path,
    output_format: str,
) -> None:
    """Fit MODEL's direction at every layer, and project the prompts on it.

    \b
    axes fit smollm2-135m --prompts demo_safety
    axes fit smollm2-135m --prompts demo_safety --direction whitened
    """
    from axes.api import fit as fit_directions
    from axes.warehouse.render import show

    fitted = fit_directions(
        model,
        prompts,
        root=root,
        evaluate=evaluate,
        direction=direction,
        site=site,
        pooling=pooling,
        template=template,
        allow_missing=allow_missing,
        memory_limit=memory_limit,
    )
    show(fitted.table, output_format)


@click.command("report")
@click.argument("study", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="A page (.html) or Markdown (.md).",
)
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write every chart as SVG and PNG, its rows as CSV and its SQL, to this folder.",
)
@root_option
def report_command(study: str | None, output: Path, figures: Path | None, root: Path) -> None:
    """Write all that is known of STUDY (the start of its id; default the last) as one file.

    The page opens from disk and needs no network: tables to sort, charts, and the SQL behind each.
    What was not computed yet is named with the command that computes it.

    \b
    axes report
    axes report 31011258 -o study.html --figures figures
    axes report -o report.md
    """
    from axes.analysis.report.report import write_report

    click.echo(write_report(root, output, study, figures=figures))
