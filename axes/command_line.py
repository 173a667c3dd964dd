"""The command line that runs a command again, from the values of its parameters.

Every job stores it in its row of `runs`, where `axes warehouse repair` reads it. Values that came
from the environment or from axes.toml are written out and paths are absolute, so that the line
means the same in another folder. `--root` is left out: a warehouse may be moved.
"""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from axes.warehouse.settings import invoked

Function = TypeVar("Function", bound=Callable[..., Any])

# Where results are printed, and what the process may take: no row depends on these.
_WITHOUT = {"root", "output_format", "output", "report", "figures", "memory_limit"}


def of_context(context: click.Context) -> str:
    """The command line of the command that click is running."""
    stated = {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    names = context.command_path.split()[1:]
    return shlex.join(["axes", *names, *_words(context.command, stated)])


def find_command(group: click.Group, command_name: str) -> click.Command:
    """The command of a name such as `label refusals`."""
    command: Any = group
    for name in command_name.split():
        command = command.get_command(click.Context(command), name)
    return cast(click.Command, command)


def parameters(command: click.Command) -> dict[str, click.Parameter]:
    """A command's parameters by the names of a Python function's: `fit_fraction`, `model`.

    They are those of the options, and of the arguments as help shows them.
    """
    return {_python_name(param): param for param in command.params}


def _python_name(param: click.Parameter) -> str:
    if isinstance(param, click.Option):
        return max(param.opts, key=len).lstrip("-").replace("-", "_")
    # SET would hide a name of Python's.
    shown = (param.metavar or "").strip("[].").lower()
    return str(param.name) if shown in ("", "set") else shown


def of_call(group: click.Group, command_name: str, arguments: Mapping[str, Any]) -> str:
    """The command line that does what a Python function did with these arguments.

    `arguments` are by the names of `parameters`; what is None or no parameter is left out.
    """
    command = find_command(group, command_name)
    # A key of a study file has the name of the parameter: `models`.
    named = {
        str(param.name): arguments.get(name, arguments.get(str(param.name)))
        for name, param in parameters(command).items()
    }
    return shlex.join(["axes", *command_name.split(), *_words(command, named)])


def as_command(group: click.Group, command_name: str) -> Callable[[Function], Function]:
    """Let jobs that the function runs store the command line of `axes COMMAND_NAME`.

    The function's arguments have the names of the command's `parameters`.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = dict(signature.bind(*args, **kwargs).arguments)
            bound |= bound.pop("options", {})
            with invoked(lambda: of_call(group, command_name, bound)):
                return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate


def _words(command: click.Command, values: Mapping[str, Any]) -> list[str]:
    """Arguments first, then options, each in the order of the command."""
    words: dict[str, list[str]] = {"argument": [], "option": []}
    for param in command.params:
        value = values.get(str(param.name))
        if value is not None and param.name not in _WITHOUT and value != ():
            if isinstance(param.type, click.Path) and param.type.exists and not _exists(str(value)):
                # Python code gave the text itself, such as a system prompt.
                value = f"FILE-WITH-{str(param.name).removesuffix('_file')}"
            words[param.param_type_name] += typed(param, value)
    return words["argument"] + words["option"]


def typed(param: click.Parameter, value: Any) -> Iterator[str]:
    """A parameter as it is typed: a text for one that takes several is one of them."""
    if not isinstance(param, click.Option):
        is_list = param.nargs != 1 and not isinstance(value, str)
        yield from map(_text, value if is_list else [value])
    elif param.is_flag:
        names = param.opts if value else param.secondary_opts
        yield from names[:1]
    elif param.multiple:
        for item in [value] if isinstance(value, str | Path) else value:
            yield from (max(param.opts, key=len), _text(item))
    else:
        # Joined, since a value such as -0.1,0.1 looks like an option.
        text = _text(value)
        option = max(param.opts, key=len)
        yield from [f"{option}={text}"] if text.startswith("-") else [option, text]


def _text(value: Any) -> str:
    """As it is typed: lists with commas, and what names a file by its absolute path."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    text = str(value)
    # A bare name may be that of a model or a prompt set.
    is_path_like = isinstance(value, Path) or "/" in text or "." in text
    return str(Path(text).expanduser().resolve()) if is_path_like and _exists(text) else text


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError):  # Too long for a name, or with characters that none has.
        return False
