"""`axes score`: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path

import click

from axes.cli.names import MODEL, PROMPT_SET
from axes.cli.options import format_option, memory_limit_option, root_option


@click.command()
@click.argument("axis")
@click.option("--model", "models", type=MODEL, multiple=True, help="Only this model; repeatable.")
@click.option(
    "--prompts", "prompt_sets", type=PROMPT_SET, multiple=True, help="Only this set; repeatable."
)
@click.option("--alignment", help="Id of the map to use, where a model has several.")
@memory_limit_option
@root_option
@format_option
def score(
    axis: str,
    models: tuple[str, ...],
    prompt_sets: tuple[str, ...],
    alignment: str | None,
    memory_limit: int | None,
    root: Path,
    output_format: str,
) -> None:
    """Project stored activations on AXIS (an id, the start of one, or a name); idempotent.

    Models in the axis's own space are projected as they are, others through their alignment into
    it. The rows are in `projections`.

    \b
    axes score universal/demo/18/demo_safety/lambda-held_out --prompts harmbench
    """
    from dataclasses import asdict

    from axes.analysis.projections import score as score_axis
    from axes.warehouse.render import show_rows

    done = score_axis(
        root,
        axis,
        models=models,
        prompt_sets=prompt_sets,
        alignment=alignment,
        memory_limit=memory_limit,
    )
    show_rows([asdict(item) for item in done], output_format)
