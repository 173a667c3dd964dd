"""The installation: `axes doctor`, `axes config`, `axes completion`.

And the settings themselves: what axes.toml says becomes click's `default_map`. A key of the file
sets every option that has its variable; the table `[ingest.activations]` sets any option of that
command, by the option's long name. click's `auto_envvar_prefix` is not used: it would give every
option of every command a variable of its own (AXES_SQL_FORMAT, ...), where one AXES_FORMAT serves
all commands, `axes config show` and Python.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.shell_completion import get_completion_class

from axes.cli.options import format_option, root_option
from axes.command_line import parameters
from axes.warehouse.errors import ConfigError
from axes.warehouse.names import did_you_mean
from axes.warehouse.render import echo, show_rows
from axes.warehouse.settings import SETTINGS, ConfigFile, allow, at_file, config_files, locations


@click.command()
@root_option
@format_option
def doctor(root: Path, output_format: str) -> None:
    """Check the installation, the device, the cache, the warehouse and the settings.

    Each line is pass, note or FAIL, with what to do. Exit code 1 where one is FAIL. Check a model
    with `axes models doctor`.

    \b
    axes doctor
    axes doctor --root lake --format json
    """
    from axes.doctor import examine

    print_findings(examine(root), output_format)


def print_findings(findings: Iterable[Any], output_format: str) -> None:
    """Print the findings of a doctor; exit code 1 where one is FAIL."""
    examined = list(findings)
    show_rows(examined, output_format, cell_width=600)
    if any(finding.result == "FAIL" for finding in examined):
        raise click.exceptions.Exit(1)


@click.group()
def config() -> None:
    """Show settings, and where each comes from: an option, the environment, axes.toml or a default.

    An axes.toml in this folder or one above it, and safety-axes/axes.toml in the XDG configuration
    folder, set what is not typed; docs/command-line.md lists the keys. The first must be allowed
    before it sets more than format, device, dtype, memory_limit and json_log.

    \b
    axes config show
    axes config allow
    """


class _Source(NamedTuple):
    """One line of `axes config show`."""

    setting: str
    value: str
    source: str
    variable: str | None = None


@config.command("show")
@format_option
def show_command(output_format: str) -> None:
    """Print every setting with its value and source, then what files set for single commands.

    \b
    axes config show
    AXES_DEVICE=cuda axes config show --format json
    """

    files = config_files()
    group = click.get_current_context().find_root().command
    assert isinstance(group, click.Group)
    rows = {row.setting: row for row in [*_settings(files), *_command_settings(files, group)]}
    show_rows(rows.values(), output_format, cell_width=200)


@config.command("path")
def path_command() -> None:
    """Print the paths at which axes.toml is searched, in order.

    \b
    axes config path
    """
    for path in dict.fromkeys(locations()):
        echo(f"{path}{'' if path.is_file() else ' (not there)'}")


@config.command("allow")
def allow_command() -> None:
    """Allow all keys of the axes.toml in this folder or above it. Read it first.

    A key can name the address that receives prompts, a model to fetch, code to run or the folders
    that are written. A file that changes or moves must be allowed again.

    \b
    axes config allow
    """
    file = allow()
    echo(f"allowed {file.path}: {', '.join(file.names)}")


def _source(file: ConfigFile, name: str) -> str:
    return f"{file.path}{'' if file.may_set(name) else ' (not allowed)'}"


def _settings(files: Sequence[ConfigFile]) -> Iterator[_Source]:
    for name, setting in SETTINGS.items():
        variable = setting.variable
        file = next((file for file in files if name in file.settings), None)
        if value := os.environ.get(variable):
            yield _Source(name, value, f"environment {variable}", variable)
        elif file is not None:
            yield _Source(name, str(file.settings[name]), _source(file, name), variable)
        else:
            yield _Source(name, setting.default, "default", variable)


def _command_settings(files: Sequence[ConfigFile], group: click.Group) -> Iterator[_Source]:
    """What the tables of commands set, the file that wins last; reading them checks them all."""
    context = click.Context(group)
    require_known_tables(files, group.list_commands(context))
    for file in reversed(files):
        for name, table in file.tables.items():
            command = group.get_command(context, name)
            assert command is not None
            command_defaults((name,), command, [file])
            for key, value in _leaves(name, table):
                yield _Source(key, str(value), _source(file, key))


def _leaves(name: str, value: Any) -> list[tuple[str, Any]]:
    """Keys of nested tables with dots between them, and what each is set to."""
    if not isinstance(value, dict):
        return [(name, value)]
    return [leaf for key, inner in value.items() for leaf in _leaves(f"{name}.{key}", inner)]


def require_known_tables(files: Sequence[ConfigFile], commands: Iterable[str]) -> None:
    """Raise `ConfigError` for a table that is not named after a command."""
    for file in files:
        for name in file.tables:
            if name not in commands:
                raise ConfigError(
                    f"{file.path}: [{name}] is not a command{did_you_mean(name, commands)}: "
                    "tables are named after commands, such as [ingest.activations]"
                )


def command_defaults(
    path: tuple[str, ...], command: click.Command, files: Sequence[ConfigFile]
) -> dict[str, Any]:
    """click's `default_map` of a command and its subcommands; `path` is its name in words.

    Raises `ConfigError` for a key that is not an option of the command, or an invalid value.
    """
    tables = [(file, _table(file, path)) for file in files]
    if isinstance(command, click.Group):
        for file, table in tables:
            for name in table:
                if name not in command.commands:
                    raise ConfigError(
                        f"{file.path}: [{'.'.join(path)}] has no command "
                        f"{name}{did_you_mean(name, command.commands)}: choose from "
                        f"{', '.join(command.commands)}, each with its own table"
                    )
        return {
            name: command_defaults((*path, name), inner, files)
            for name, inner in command.commands.items()
        }
    options = {
        name: param
        for name, param in parameters(command).items()
        if isinstance(param, click.Option) and param.expose_value and not param.is_eager
    }
    defaults: dict[str, Any] = {}
    # The first file wins over the others, and in a file the command's table over the settings.
    for file, table in reversed(tables):
        for option in options.values():
            for key, setting in SETTINGS.items():
                if setting.variable == option.envvar and key in file.settings:
                    value = _converted(file, key, file.settings[key], command, option)
                    defaults[str(option.name)] = value
        for key, value in table.items():
            plain = key.replace("-", "_")
            if plain not in options:
                raise ConfigError(
                    f"{file.path}: axes {' '.join(path)} has no option "
                    f"{key}{did_you_mean(plain, options)}: choose from {', '.join(options)}"
                )
            where = ".".join((*path, key))
            option = options[plain]
            if isinstance(option.type, click.Path) and isinstance(value, str):
                value = at_file(file.path, value)
            defaults[str(option.name)] = _converted(file, where, value, command, option)
    return defaults


def _table(file: ConfigFile, path: tuple[str, ...]) -> dict[str, Any]:
    """The table of a command, empty where it is missing."""
    table: Any = file.tables
    for name in path:
        table = table.get(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{file.path}: {name} is a value, expected the table of a command")
    return table


def _converted(
    file: ConfigFile, key: str, value: Any, command: click.Command, option: click.Option
) -> Any:
    """The value if the option accepts it, as a list for a repeatable option.

    Where the file may not set it: the error, raised if the option is neither typed nor in the
    environment.
    """
    if not file.may_set(key):
        return partial(file.require_allowed, key)
    values = [value] if option.multiple and not isinstance(value, list) else value
    try:
        option.type_cast_value(click.Context(command), values)
    except click.UsageError as error:
        raise ConfigError(f"{file.path}: {key}: {error.message}") from error
    return values


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that lets SHELL complete commands, options and stored names.

    Let the shell read it at its start, then open a new one.

    \b
    axes completion bash > ~/.local/share/bash-completion/completions/axes
    axes completion zsh > ~/.zfunc/_axes     # with fpath+=~/.zfunc before compinit in ~/.zshrc
    axes completion fish > ~/.config/fish/completions/axes.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    echo(script(context.find_root().command, {}, "axes", "_AXES_COMPLETE").source())
