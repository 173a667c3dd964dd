"""`axes prompts`: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from axes.cli.names import PROMPT_SET
from axes.cli.options import format_option, root_option


@click.group()
def prompts() -> None:
    """Import and list prompt sets.

    \b
    axes prompts import demo_safety
    axes prompts import mine prompts.csv --positive toxic
    axes prompts list
    """


@prompts.command("import")
@click.argument("prompt_set", type=PROMPT_SET, metavar="SET")
@click.argument("source", required=False)
@click.option("--positive-file", help="Two files instead of SOURCE: the positive class.")
@click.option("--negative-file", help="The negative class; line i of both is a matched pair.")
@click.option(
    "--unpaired", is_flag=True, help="The lines of the two files are not matched with each other."
)
@click.option("--text-column", help="Column of the text. Default: text, else prompt.")
@click.option("--label-column", help="Column of the label. Default: label.")
@click.option("--category-column", help="Column of the category. Default: category.")
@click.option(
    "--positive",
    multiple=True,
    help="Label of the positive class; repeatable. Known without it: positive, 1, unsafe, ...",
)
@click.option("--labeler", default="dataset", show_default=True, help="Whose labels these are.")
@click.option("--license", help="Licence of the text where the source has no column for it.")
@click.option("--split", help="Split of a hub data set. Default: train.")
@click.option("--limit", type=click.IntRange(min=1), help="First rows only.")
@click.option("--per-label", type=click.IntRange(min=1), help="First rows of each class only.")
@click.option("--replace", "replace_set", is_flag=True, help="Replace other rows of that name.")
@click.option("--keep-whitespace", is_flag=True, help="Keep white space around a prompt.")
@click.option("--skip-unusable", is_flag=True, help="Leave out empty prompts, and record which.")
@root_option
@format_option
def prompts_import(
    prompt_set: str,
    source: str | None,
    positive_file: str | None,
    negative_file: str | None,
    unpaired: bool,
    text_column: str | None,
    label_column: str | None,
    category_column: str | None,
    license: str | None,
    split: str | None,
    per_label: int | None,
    root: Path,
    output_format: str,
    **options: Any,
) -> None:
    """Import SET from SOURCE: a .parquet, .csv, .jsonl or .txt file (a prompt a line), or
    hf:OWNER/NAME[:CONFIG][@REV].

    A concept also comes as two files, one for each class. The ready sets demo_safety,
    demo_formality, demo_alignment, prompt_safety and alpaca need no SOURCE. Text is normalised and
    deduplicated, the order of the source is kept.

    \b
    axes prompts import safety_600 safety_600.parquet
    axes prompts import formality --positive-file formal.txt --negative-file informal.txt
    axes prompts import alpaca hf:tatsu-lab/alpaca --text-column instruction
    """
    from axes.ingest.prompt_sources import prompt_source
    from axes.ingest.prompts import import_prompts
    from axes.warehouse.render import show_record

    if (positive_file is None) != (negative_file is None):
        raise click.UsageError("--positive-file and --negative-file go together")
    if positive_file is not None and source is not None:
        raise click.UsageError("give SOURCE, or two files, not both")
    if unpaired and positive_file is None:
        raise click.UsageError("--unpaired needs --positive-file and --negative-file")
    named = {"text": text_column, "label": label_column, "category": category_column}
    columns = {ours: theirs for ours, theirs in named.items() if theirs is not None}
    origin = prompt_source(
        prompt_set,
        source,
        positive_file=positive_file,
        negative_file=negative_file,
        is_paired=not unpaired,
        columns=columns,
        license=license,
        split=split,
        per_label=per_label,
    )
    show_record(import_prompts(root, prompt_set, origin, **options), output_format)


@prompts.command("list")
@root_option
@format_option
def prompts_list(root: Path, output_format: str) -> None:
    """The prompt sets of the warehouse; on stderr the ready ones.

    \b
    axes prompts list
    """
    from axes.ingest.prompt_sources import ready_sets
    from axes.warehouse.connection import connect, query
    from axes.warehouse.render import show

    show(query(connect(root), "from v_prompt_sets order by prompt_set"), output_format)
    click.echo(f"ready to import by name: {', '.join(ready_sets())}", err=True)
