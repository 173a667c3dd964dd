"""`axes doctor`: parse, examine, print."""

from __future__ import annotations

from pathlib import Path

import click

from axes.cli.options import format_option, root_option


@click.command()
@root_option
@format_option
def doctor(root: Path, output_format: str) -> None:
    """Examine the installation, the device, the cache, the warehouse and the settings.

    Each line is pass, note or FAIL, with what to do. Exit 1 where one is FAIL. A model is examined
    by `axes models doctor`.

    \b
    axes doctor
    axes doctor --root lake --format json
    """
    from dataclasses import asdict

    from axes.doctor import FAIL, examine
    from axes.warehouse.render import show_rows

    findings = list(examine(root))
    show_rows([asdict(finding) for finding in findings], output_format, cell_width=200)
    if any(finding.result == FAIL for finding in findings):
        raise click.exceptions.Exit(1)
