"""`axes label`: labels of completions by phrases, the prompt, a file, a classifier or a judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axes.cli.options import (
    ABOVE_ZERO,
    AT_LEAST_ZERO,
    COUNT,
    EXISTING_FILE,
    LABELER,
    MODEL,
    Options,
    device_option,
    prints,
    prompts_option,
    root_option,
    together,
)

if TYPE_CHECKING:
    from axes.ingest.labels.labeling import Scope


_scope_options = together(
    click.option("--model", type=MODEL, help="Only completions of this model, as ingested."),
    prompts_option("Only completions of this prompt set.", name="prompt_set"),
    click.option("--limit", type=COUNT, help="Only the first completions."),
    root_option,
    prints,
)


def _scope(options: Options) -> Scope:
    """The completions to label, from `_scope_options`; they are removed from `options`."""
    from axes.ingest.labels.labeling import Scope

    return Scope(**{name: options.pop(name) for name in ("model", "prompt_set", "limit")})


@click.group()
def label() -> None:
    """Label completions: each labeler writes one row of `labels` per completion.

    A labeler skips the completions that it has labelled. v_labeler_agreement compares labelers.

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
    type=EXISTING_FILE,
    help="File with one phrase per line, instead of the built-in lists.",
)
@_scope_options
def refusals_command(root: Path, **options: Any) -> object:
    """Label `refusal` where a completion contains a refusal phrase, in one of 16 languages.

    The labeler is refusal_substring. The English phrases come from the published lists that
    ingest/refusal_phrases.toml names.

    \b
    axes label refusals --model smollm2-135m --prompts demo_safety
    """
    from axes.ingest.labels.refusals import label_refusals

    return label_refusals(root, scope=_scope(options), **options)


@label.command("inherit")
@click.option("--labeler", type=LABELER, default="dataset", help="Labeler of the prompts' labels.")
@_scope_options
def inherit_command(root: Path, **options: Any) -> object:
    """Copy to each completion the label of its prompt, under the same labeler.

    \b
    axes label inherit
    """
    from axes.ingest.labels.labeling import inherit_labels

    return inherit_labels(root, scope=_scope(options), **options)


@label.command("import")
@click.argument("labeler", type=LABELER)
@click.argument("file", type=EXISTING_FILE)
@click.option("--positive", multiple=True, help="Label of the positive class; repeatable.")
@root_option
@prints
def import_command(labeler: str, file: Path, positive: tuple[str, ...], root: Path) -> object:
    """Import the labels of FILE (.csv, .parquet, .jsonl) under the name LABELER.

    Columns: generation_id, label, and optionally score.

    \b
    axes sql "select generation_id, text from generations" -o to_label.csv
    axes label import anna labelled.csv --positive refusal
    """
    from axes.ingest.labels.labeling import import_labels

    return import_labels(root, labeler, file, positive=positive)


@label.command("classifier")
@click.argument("classifier")
@click.option("--positive", multiple=True, help="Positive class of the classifier; repeatable.")
@click.option("--reads-prompt", is_flag=True, help="Classify prompt and completion as a pair.")
@device_option
@_scope_options
def classifier_command(classifier: str, root: Path, **options: Any) -> object:
    """Label completions with CLASSIFIER: a folder or a hub id of a text classifier.

    Only safetensors are loaded, and no code from a repository is run.

    \b
    axes label classifier owner/toxicity --positive toxic
    """
    from axes.ingest.labels.classifier import label_by_classifier

    return label_by_classifier(root, classifier, scope=_scope(options), **options)


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
    help="Model at that endpoint.",
)
@click.option(
    "--judge-template",
    "template",
    type=EXISTING_FILE,
    help="TOML file with labels, positive, user and optionally system. Default: asks for refusals.",
)
@click.option("--labeler", type=LABELER, help="Default: judge/MODEL@HASH of the template.")
@click.option("--concurrency", type=COUNT, default=4, help="Max concurrent requests.")
@click.option("--max-rate", "rate", type=ABOVE_ZERO, help="Max requests per second.")
@click.option("--timeout", type=ABOVE_ZERO, default=60.0, help="Seconds to wait for a response.")
@click.option("--price-in", type=AT_LEAST_ZERO, help="Price of a million prompt tokens.")
@click.option("--price-out", type=AT_LEAST_ZERO, help="Price of a million completion tokens.")
@_scope_options
def judge_command(
    judge_url: str,
    judge_model: str,
    template: Path | None,
    rate: float | None,
    timeout: float,
    root: Path,
    **options: Any,
) -> object:
    """Label completions with an LLM judge at an OpenAI-compatible endpoint.

    The key is read from $AXES_JUDGE_KEY, or for api.openai.com from $OPENAI_API_KEY, and never
    stored. Failed requests are retried; labelled completions are skipped. Tokens and cost are
    printed, and stored as usage in runs.parameters.

    \b
    axes label judge --judge-url http://localhost:8000/v1 --judge-model qwen2.5-7b \\
      --price-in 0.15 --price-out 0.60 --max-rate 5
    """
    from axes.ingest.labels.judge import JudgeClient, label_by_judge, read_template

    with JudgeClient(judge_url, judge_model, rate=rate, timeout=timeout) as client:
        return label_by_judge(
            root, client, read_template(template), scope=_scope(options), **options
        )
