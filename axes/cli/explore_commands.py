"""`axes explore`: serve the page, say where it is, and end with Ctrl-C."""

from __future__ import annotations

from pathlib import Path

import click

from axes.cli.options import root_option


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    show_default=True,
    help="Port on this machine; 0 takes a free one.",
)
@click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")
@root_option
def explore(port: int, no_browser: bool, root: Path) -> None:
    """A page to look at a warehouse: SQL with charts, prompts, tokens by projection.

    Answers this machine only, and only the address that is printed, which is another each time.
    Nothing can be written. Texts of the positive class are hidden until clicked. SQL is run as
    `axes sql --safe` runs it. Over ssh, forward the same port: ssh -L 8600:127.0.0.1:8600.

    \b
    axes explore
    axes explore --root lake --port 8600 --no-browser
    """
    from axes.explore.serving import serve

    def tell(address: str) -> None:
        click.echo(address)
        click.echo("Ctrl-C ends it", err=True)
        if not no_browser:
            click.launch(address)

    serve(root, port=port, tell=tell)
