"""Options that every command shares, as decorators.

An option with the variable of one of `axes.warehouse.settings.SETTINGS` is set by axes.toml too.

Options that the commands share: which model is meant, and how and where it is loaded.

Names that a shell completes: models, groups and prompt sets, of the registry and the warehouse.

Nothing is opened for it but the registry's files and the list of a root's folders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from axes.ingest.models.registry import DTYPES, QUANTIZATIONS

if TYPE_CHECKING:
    from axes.ingest.models.registry import ModelSpec

Command = Callable[..., Any]

# Python with the libraries of an analysis takes 260 MB before it has read a row.
LEAST_MEMORY = 512_000_000

FORMATS = ("table", "json", "csv", "markdown", "parquet")
_SUFFIXES = {".json": "json", ".csv": "csv", ".md": "markdown", ".parquet": "parquet"}


def root_option(command: Command) -> Command:
    """`--root`: the warehouse's folder, passed as a `Path`."""
    return click.option(
        "--root",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("lake"),
        envvar="AXES_ROOT",
        show_default=True,
        show_envvar=True,
        help="Folder of the warehouse.",
    )(command)


def memory_limit_option(command: Command) -> Command:
    """`--memory-limit`: what the process may take, passed in bytes or as None."""
    return click.option(
        "--memory-limit",
        type=_Bytes(),
        envvar="AXES_MEMORY_LIMIT",
        show_envvar=True,
        help="Memory that the command may take, such as 2GB: matrices that would exceed it are "
        "kept in files below the root. Default: most of the machine's.",
    )(command)


def format_option(command: Command) -> Command:
    """`--format`: how rows are printed."""
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(FORMATS),
        default="table",
        envvar="AXES_FORMAT",
        show_default=True,
        show_envvar=True,
        help="How rows are printed; parquet needs --output or a pipe.",
    )(command)


def format_for(output: Path | None, output_format: str) -> str:
    """The format that was typed, or else the one of the output's suffix, or what is configured."""
    if output is None or is_typed("output_format"):
        return output_format
    return _SUFFIXES.get(output.suffix.lower(), output_format)


def is_typed(name: str) -> bool:
    """Whether a parameter was given with the command, and not by environment or axes.toml."""
    source = click.get_current_context().get_parameter_source(name)
    return source in (ParameterSource.COMMANDLINE, ParameterSource.PROMPT)


class _Bytes(click.ParamType):
    """A number of bytes with a unit: 512MB, 1.5GB (powers of 1,000) or 2GiB (of 1,024)."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        matched = re.fullmatch(r"([0-9.]+)\s*([kmgt]?)(i?)b", str(value).strip().lower())
        try:
            number, prefix, binary = matched.groups() if matched else ("", "", "")
            size = float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix or " ")
        except ValueError:
            self.fail(f"{value!r} is not a size such as 512MB or 2GiB", param, context)
        if size < LEAST_MEMORY:
            self.fail(f"{value} is too little: give 512MB or more", param)
        return int(size)


def device_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--device`: where models run."""
    return click.option(
        "--device",
        envvar="AXES_DEVICE",
        show_envvar=True,
        help="cpu, cuda, cuda:1, mps or auto (spread over all).",
    )(command)


def dtype_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--dtype`: what weights and activations are computed in."""
    return click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        envvar="AXES_DTYPE",
        show_envvar=True,
        help="Default: float32 on a CPU.",
    )(command)


def loading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The model argument, and what of it is loaded how and where."""
    for option in (
        dtype_option,
        device_option,
        click.option("--blocks", help="Path of the block list, such as model.layers."),
        click.option("--attention", help="eager, sdpa, ... Default: what transformers takes."),
        click.option(
            "--quantization", type=click.Choice(QUANTIZATIONS), help="Load with bitsandbytes."
        ),
        click.option("--adapter", help="PEFT adapter on top: a folder or hf:OWNER/NAME."),
        click.option("--source", help="Take the weights from this folder, .gguf or hf:OWNER/NAME."),
        click.argument("model", type=MODEL),
    ):
        command = option(command)
    return command


def model_spec(model: str, options: dict[str, Any]) -> ModelSpec:
    """The model that the options name; they are taken out of `options`."""
    from axes.ingest.models.registry import resolve

    names = ("source", "adapter", "quantization", "attention", "blocks")
    return resolve(model, **{name: options.pop(name) for name in names})


_PROMPT_SETS = Path(__file__).parents[1] / "ingest" / "prompt_sets.toml"


class _Name(click.ParamType):
    """A text that is completed with known names; others are as good."""

    name = "text"

    def __init__(self, known: Callable[[click.Context], Iterable[str]]) -> None:
        self._known = known

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that start so; for a model, files and folders where none does."""
        found = dict.fromkeys(name for name in self._known(ctx) if name.startswith(incomplete))
        if not found and param.name == "model":
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(name) for name in found]


def _models(context: click.Context) -> list[str]:
    from axes.ingest.models.registry import registry

    return [*registry(), *_partitions(context, "activations", "model")]


def _groups(_context: click.Context) -> list[str]:
    from axes.ingest.models.registry import registry

    return sorted({spec.group for spec in registry().values() if spec.group})


def _prompt_sets(context: click.Context) -> list[str]:
    import tomllib

    # What ready_sets() gives, without its imports, for which Tab would have to wait.
    ready = tomllib.loads(_PROMPT_SETS.read_text())["sets"]
    return [*ready, *_partitions(context, "prompts", "prompt_set")]


def _partitions(context: click.Context, table: str, column: str) -> list[str]:
    """The values that a table of the root is partitioned by, from the names of its folders."""
    from axes.warehouse.errors import AxesError
    from axes.warehouse.settings import root_folder

    try:
        folders = (root_folder(context.params.get("root")) / table).glob(f"{column}=*")
        return sorted(unquote(folder.name.partition("=")[2]) for folder in folders)
    except AxesError:  # A file axes.toml that is wrong is the command's to report.
        return []


MODEL = _Name(_models)
GROUP = _Name(_groups)
PROMPT_SET = _Name(_prompt_sets)
