"""`axes label`: parse, call one function, print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axes.cli.options import MODEL, PROMPT_SET, device_option, format_option, root_option

if TYPE_CHECKING:
    from axes.ingest.labels.labeling import Scope


def _scope_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which completions are labelled; `_scope` takes them out again."""
    for option in (
        format_option,
        root_option,
        click.option("--limit", type=click.IntRange(min=1), help="First completions only."),
        click.option(
            "--prompts", "prompt_set", type=PROMPT_SET, help="Completions of this prompt set only."
        ),
        click.option("--model", type=MODEL, help="Completions of this model only, as ingested."),
    ):
        command = option(command)
    return command


def _scope(options: dict[str, Any]) -> Scope:
    from axes.ingest.labels.labeling import Scope

    return Scope(**{name: options.pop(name) for name in ("model", "prompt_set", "limit")})


@click.group()
def label() -> None:
    """Label completions: several labelers, one row of `labels` for each and completion.

    What a labeler has labelled is not labelled again. How far labelers agree is in
    v_labeler_agreement.

    \b
    axes label refusals
    axes label inherit --labeler dataset
    axes label classifier ./my-classifier --positive toxic
    axes label judge --judge-url https://api.example.com/v1 --judge-model big-model
    axes sql "from v_labeler_agreement"
    """


@label.command("refusals")
@click.option(
    "--phrases",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a phrase a line, in place of the packaged lists.",
)
@_scope_options
def refusals_command(root: Path, output_format: str, **options: Any) -> None:
    """Label `refusal` where a completion holds a refusal's phrase, in one of 16 languages.

    The labeler is refusal_substring. The English phrases are those of published lists, which
    ingest/refusal_phrases.toml names.

    \b
    axes label refusals --model smollm2-135m --prompts demo_safety
    """
    from axes.ingest.labels.refusals import label_refusals
    from axes.warehouse.render import show_record

    show_record(label_refusals(root, scope=_scope(options), **options), output_format)


@label.command("inherit")
@click.option("--labeler", default="dataset", show_default=True, help="Whose labels of prompts.")
@_scope_options
def inherit_command(root: Path, output_format: str, **options: Any) -> None:
    """Give completions the label of their prompt, under the labeler that labelled the prompt.

    \b
    axes label inherit
    """
    from axes.ingest.labels.labeling import inherit_labels
    from axes.warehouse.render import show_record

    show_record(inherit_labels(root, scope=_scope(options), **options), output_format)


@label.command("import")
@click.argument("labeler")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--positive", multiple=True, help="Label of the positive class; repeatable.")
@root_option
@format_option
def import_command(
    labeler: str, file: Path, positive: tuple[str, ...], root: Path, output_format: str
) -> None:
    """Take in the labels of FILE (.csv, .parquet, .jsonl) under the name LABELER.

    Columns: generation_id, label, and perhaps score.

    \b
    axes sql "select generation_id, text from generations" -o to_label.csv
    axes label import anna labelled.csv --positive refusal
    """
    from axes.ingest.labels.labeling import import_labels
    from axes.warehouse.render import show_record

    show_record(import_labels(root, labeler, file, positive=positive), output_format)


@label.command("classifier")
@click.argument("classifier")
@click.option("--positive", multiple=True, help="Class of the model that is positive; repeatable.")
@click.option("--reads-prompt", is_flag=True, help="Give it prompt and completion as a pair.")
@device_option
@_scope_options
def classifier_command(classifier: str, root: Path, output_format: str, **options: Any) -> None:
    """Label completions with CLASSIFIER: a folder or a hub id of a text classifier.

    Only safetensors are loaded, and no code of a repository is run.

    \b
    axes label classifier owner/toxicity --positive toxic
    """
    from axes.ingest.labels.classifier import label_by_classifier
    from axes.warehouse.render import show_record

    show_record(
        label_by_classifier(root, classifier, scope=_scope(options), **options), output_format
    )


@label.command("judge")
@click.option(
    "--judge-url",
    required=True,
    envvar="AXES_JUDGE_URL",
    show_envvar=True,
    help="Endpoint, such as https://host/v1.",
)
@click.option(
    "--judge-model",
    required=True,
    envvar="AXES_JUDGE_MODEL",
    show_envvar=True,
    help="Model to ask there.",
)
@click.option(
    "--template",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML with labels, positive, user and perhaps system. Default: asks for refusals.",
)
@click.option("--labeler", help="Default: judge/MODEL@HASH of the template.")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Requests under way at once.",
)
@click.option(
    "--rate", type=click.FloatRange(min=0.0, min_open=True), help="Most requests a second."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds to wait for an answer.",
)
@click.option("--price-in", type=click.FloatRange(min=0.0), help="Price of a million tokens in.")
@click.option("--price-out", type=click.FloatRange(min=0.0), help="Price of a million out.")
@_scope_options
def judge_command(
    judge_url: str,
    judge_model: str,
    template: Path | None,
    rate: float | None,
    timeout: float,
    root: Path,
    output_format: str,
    **options: Any,
) -> None:
    """Ask a language model about each completion, at an OpenAI-compatible endpoint.

    The key is read from $AXES_JUDGE_KEY or $OPENAI_API_KEY and stored nowhere. Busy and broken
    answers are tried again; what is labelled is not asked again. Tokens and cost are printed, and
    kept in runs.parameters as usage.

    \b
    axes label judge --judge-url http://localhost:8000/v1 --judge-model qwen2.5-7b \\
      --price-in 0.15 --price-out 0.60 --rate 5
    """
    from axes.ingest.labels.judge import JudgeClient, label_by_judge, read_template
    from axes.warehouse.render import show_record

    asked = read_template(template)
    with JudgeClient(judge_url, judge_model, rate=rate, timeout=timeout) as client:
        summary = label_by_judge(root, client, asked, scope=_scope(options), **options)
    show_record(summary, output_format)
