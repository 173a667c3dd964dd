"""`axes config`: which settings hold, and where each comes from."""

from __future__ import annotations

import os
from typing import Any

import click

from axes.cli.options import format_option


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
