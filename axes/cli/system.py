"""`axes doctor`: parse, examine, print.

`axes config`: which settings hold, and where each comes from.

`axes completion`: the script that makes a shell complete commands, options and names.

`axes explore`: serve the page, say where it is, and end with Ctrl-C.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

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


@click.group()
def config() -> None:
    """Show settings, and where each comes from: a flag, the environment, axes.toml or a default.

    A file axes.toml in this folder or one above it, and safety-axes/axes.toml of the XDG
    configuration folder, set what is not typed; docs/command-line.md lists the keys.

    \b
    axes config show
    axes config path
    """


@config.command("show")
@format_option
def show_command(output_format: str) -> None:
    """Every setting with its value and what set it; below them, what files set for a command.

    \b
    axes config show
    AXES_DEVICE=cuda axes config show --format json
    """
    from axes.warehouse.render import show_rows

    show_rows(_settings(), output_format, cell_width=200)


@config.command("path")
def path_command() -> None:
    """Where axes.toml is looked for, the first to be asked first; those that are there say so.

    \b
    axes config path
    """
    from axes.warehouse.settings import places

    for place in dict.fromkeys(places()):
        click.echo(f"{place}{'' if place.is_file() else ' (not there)'}")


def _settings() -> list[dict[str, Any]]:
    from axes.warehouse.settings import SETTINGS, config_files

    files = config_files()
    found = []
    for name, setting in SETTINGS.items():
        row = {"setting": name, "value": setting.default, "source": "default"}
        for file in reversed(files):
            if name in file.settings:
                row |= {"value": str(file.settings[name]), "source": str(file.path)}
        if given := os.environ.get(setting.variable):
            row |= {"value": given, "source": f"environment {setting.variable}"}
        found.append({**row, "variable": setting.variable})
    return [*found, *_of_commands()]


def _of_commands() -> list[dict[str, Any]]:
    """What the tables of commands set; reading them checks them all."""
    from axes.cli.settings import command_defaults, require_known_tables
    from axes.warehouse.settings import config_files

    files = config_files()
    group = click.get_current_context().find_root().command
    assert isinstance(group, click.Group)
    context = click.Context(group)
    commands = group.list_commands(context)
    require_known_tables(files, commands)
    found: dict[str, dict[str, Any]] = {}
    for file in reversed(files):
        for name, table in file.tables.items():
            command = group.get_command(context, name)
            assert command is not None
            command_defaults((name,), command, [file])
            for key, value in _leaves(name, table):
                found[key] = {
                    "setting": key,
                    "value": str(value),
                    "source": str(file.path),
                    "variable": None,
                }
    return list(found.values())


def _leaves(name: str, value: Any) -> list[tuple[str, Any]]:
    """Keys of nested tables with dots between them, and what each is set to."""
    if not isinstance(value, dict):
        return [(name, value)]
    return [leaf for key, inner in value.items() for leaf in _leaves(f"{name}.{key}", inner)]


_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes commands, options, models and prompt sets.

    Have it read when a shell starts; then open a new one.

    \b
    axes completion bash > ~/.local/share/bash-completion/completions/axes
    axes completion zsh > ~/.zfunc/_axes     # with fpath+=~/.zfunc before compinit in ~/.zshrc
    axes completion fish > ~/.config/fish/completions/axes.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    root = context.find_root()
    click.echo(script(root.command, {}, "axes", "_AXES_COMPLETE").source())


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
    from axes.explore.server import serve

    def tell(address: str) -> None:
        click.echo(address)
        click.echo("Ctrl-C ends it", err=True)
        if not no_browser:
            click.launch(address)

    serve(root, port=port, tell=tell)
