"""Options and arguments that several commands share, each defined once.

Options of a job are the fields of its request (`request_options`). An option with the variable of
one of `axes.warehouse.settings.SETTINGS` is set by axes.toml too. Names of axes, models, studies,
... are completed by the shell from the registry's files and from the root's folders, or one column
of its Parquet files: a keypress must not wait for DuckDB.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, fields
from functools import wraps
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints
from urllib.parse import unquote

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from axes.analysis import stats
from axes.ingest.models.registry import DTYPES, ENGINES, QUANTIZATIONS, TRANSFORMERS
from axes.warehouse.names import with_literals
from axes.warehouse.render import show, show_record, show_rows
from axes.warehouse.settings import Option, options_of
from axes.warehouse.storage.roots import RemoteRoot, root_path

if TYPE_CHECKING:
    from axes.ingest.models.registry import ModelSpec
    from axes.warehouse.handle import Warehouse

Command = Callable[..., Any]
# The values of a command's options by name, as click gives them.
Options = dict[str, Any]

# Python with the libraries of an analysis takes 260 MB before it has read a row.
MIN_MEMORY = 512_000_000

# Numbers in a range such as 40-50.
_MAX_RANGE = 100_000

# Types of options: a file to write, a file that exists, and a count.
FILE = click.Path(path_type=Path)
EXISTING_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
COUNT = click.IntRange(min=1)
AT_LEAST_ZERO = click.FloatRange(min=0.0)
ABOVE_ZERO = click.FloatRange(min=0.0, min_open=True)
SHARE = click.FloatRange(0.0, 1.0)

FORMATS = ("table", "json", "jsonl", "csv", "tsv", "markdown", "parquet")
_SUFFIXES = {f".{name}": name for name in FORMATS} | {".md": "markdown", ".txt": "table"}
CALIBRATIONS = tuple(stats.CALIBRATIONS)
_PROMPT_SETS = Path(__file__).parents[1] / "ingest" / "prompt_sets.toml"


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator; `--help` lists them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class _Name(click.types.StringParamType):
    """A text that the shell completes from `list_names`; any other text is accepted too."""

    def __init__(self, list_names: Callable[[click.Context], Iterable[str]]) -> None:
        self._list_names = list_names

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names with this prefix; for a model, files and folders where none has it."""
        matches = dict.fromkeys(n for n in self._list_names(ctx) if n.startswith(incomplete))
        if not matches and param.name == "model":
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(name) for name in matches]


def stored_names(root: Path | None, table: str, column: str) -> list[str]:
    """The distinct values of a column; a partition's are read from the names of its folders."""
    from axes.warehouse.errors import AxesError
    from axes.warehouse.settings import root_folder

    try:
        folder = root_folder(root) / table
        paths = list(folder.glob(f"{column}=*"))
        files = [] if paths else list(folder.rglob("*.parquet"))
    except AxesError:  # The command reports it; an object store is too far for a keypress.
        return []
    partitions = [unquote(path.name.partition("=")[2]) for path in paths]
    if files:
        import pyarrow.parquet as pq

        tables = [pq.read_table(path, columns=[column], partitioning=None) for path in files]
        partitions = [name for table in tables for name in table[column].unique().to_pylist()]
    return sorted({*partitions} - {"__none__"})


def _stored(table: str, column: str) -> Callable[[click.Context], list[str]]:
    return lambda context: stored_names(context.params.get("root"), table, column)


def _models(context: click.Context) -> list[str]:
    from axes.ingest.models.registry import registry

    return [*registry(), *_stored("activations", "model")(context)]


def _groups(_context: click.Context) -> list[str]:
    from axes.ingest.models.registry import registry

    return sorted({spec.group for spec in registry().values() if spec.group})


def _prompt_sets(context: click.Context) -> list[str]:
    import tomllib

    # What ready_sets() gives, without its imports, for which Tab would have to wait.
    ready = tomllib.loads(_PROMPT_SETS.read_text())["sets"]
    return [*ready, *_stored("prompts", "prompt_set")(context)]


AXIS = _Name(_stored("axes", "name"))
GROUP = _Name(_groups)
LABELER = _Name(_stored("labels", "labeler"))
MODEL = _Name(_models)
POOLING = _Name(_stored(".index", "pooling"))
PROMPT_SET = _Name(_prompt_sets)
STUDY = _Name(_stored("evaluations", "study_id"))


class Numbers(click.ParamType):
    """A comma list of numbers of one type, such as 0,12,23: each once, in ascending order.

    Integers may be ranges that include both ends, such as 40-50.
    """

    name = "numbers"

    def __init__(self, kind: type[int] | type[float] = int) -> None:
        self._kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...] | None:
        if isinstance(value, tuple):
            return value
        numbers: set[float] = set()
        for part in str(value).split(","):
            try:
                ends = re.fullmatch(r"(\d+)-(\d+)", part) if self._kind is int else None
                first, last = map(int, ends.groups()) if ends else (0, -1)
                if last - first >= _MAX_RANGE:
                    self.fail(f"{part} is a range of more than {_MAX_RANGE:,} numbers", param, ctx)
                numbers |= {*range(first, last + 1)} if last >= first else {self._kind(part)}
            except ValueError:
                self.fail(f"{value} is not a comma list of numbers", param, ctx)
        return tuple(sorted(numbers))


_NAMES = {
    "axis": AXIS,
    "model": MODEL,
    "pooling": POOLING,
    "prompt_set": PROMPT_SET,
}


def request_options(
    request: type, *names: str, is_required: bool = True
) -> Callable[[Command], Command]:
    """Options built from fields of a request, those of these names or all.

    A field without a default is required, unless `is_required` is false.
    """
    kinds = get_type_hints(request)
    return together(
        *(
            _field_option(each, kinds[each.name], is_required)
            for each in fields(request)
            if each.name in (names or options_of(request))
        )
    )


def _field_option(each: Field[Any], kind: Any, is_required: bool) -> Callable[[Command], Command]:
    """The option of a field: repeatable for texts, a comma list for numbers."""
    option: Option = each.metadata["option"]
    if isinstance(kind, UnionType):
        kind = get_args(kind)[0]
    is_list = get_origin(kind) is not None
    plain = get_args(kind)[0] if is_list else kind
    checked: Any = plain
    if option.choices is not None:
        checked = click.Choice(option.choices)
    elif option.names is not None:
        checked = _NAMES[option.names]
    elif is_list and plain is not str:
        checked = Numbers(plain)
    elif option.minimum is not None:
        number_range: Any = click.IntRange if plain is int else click.FloatRange
        is_open = option.is_minimum_excluded
        checked = number_range(option.minimum, option.maximum, min_open=is_open)
    return click.option(
        option.flag or f"--{each.name.replace('_', '-')}",
        each.name,
        type=checked,
        # None and not False, with which click takes a value as optional.
        is_flag=plain is bool or None,
        multiple=is_list and plain is str,
        callback=_once if is_list else None,
        required=is_required and each.default is MISSING,
        help=option.help,
        **({} if each.default in (MISSING, None) else {"default": each.default}),
    )


def _once(_context: click.Context, _param: click.Parameter, values: Any) -> Any:
    """Each value of a list once."""
    return None if values is None else tuple(dict.fromkeys(values))


class _Bytes(click.ParamType):
    """A number of bytes with a unit: 512MB, 1.5GB (powers of 1,000) or 2GiB (of 1,024)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        matched = re.fullmatch(r"([0-9.]+)\s*([kmgt]?)(i?)b", str(value).strip().lower())
        try:
            number, prefix, binary = matched.groups() if matched else ("", "", "")
            size = float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix or " ")
        except ValueError:
            self.fail(f"{value!r} is not a size such as 512MB or 2GiB", param, ctx)
        if size < MIN_MEMORY:
            self.fail(f"{value} is too little: give 512MB or more", param)
        return int(size)


class RootPath(click.Path):
    """The path of a warehouse; `RootError` for a URL that none can lie on."""

    def __init__(self, *, file_okay: bool = False) -> None:
        super().__init__(path_type=Path, file_okay=file_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        root = root_path(value)
        return root if isinstance(root, RemoteRoot) else super().convert(root, param, ctx)


root_option = click.option(
    "--root",
    type=RootPath(),
    default=Path("lake"),
    envvar="AXES_ROOT",
    show_envvar=True,
    help="Folder of the warehouse, or s3://BUCKET/FOLDER.",
)


def with_warehouse(command: Command) -> Command:
    """`--root` of a command that gets its `warehouse` opened, under `--memory-limit` if any."""

    @wraps(command)
    def call(root: Path, memory_limit: int | None = None, **options: Any) -> Any:
        from axes.warehouse.handle import Warehouse

        return command(warehouse=Warehouse.open(root, memory_limit=memory_limit), **options)

    return root_option(call)


memory_limit_option = click.option(
    "--memory-limit",
    type=_Bytes(),
    envvar="AXES_MEMORY_LIMIT",
    show_envvar=True,
    help="Memory that the command may use, such as 2GB; larger matrices are kept in files below "
    "the root. Default: most of the machine's memory.",
)


format_option = click.option(
    "--format",
    "output_format",
    type=click.Choice(FORMATS),
    default="table",
    envvar="AXES_FORMAT",
    show_envvar=True,
    help="How rows are printed. Redirect parquet to a file or a pipe.",
)


def show_query(
    warehouse: Warehouse, sql: str, parameters: Any, output_format: str, **options: Any
) -> None:
    """Print the rows of a statement; a Python function returns it with them."""
    table = warehouse.query(sql, parameters)
    show(table, output_format, sql=with_literals(sql, parameters), **options)


def prints(command: Command) -> Command:
    """`--format` of a command that returns what it prints: a table, a list of rows, or a record."""

    @wraps(command)
    def call(output_format: str, **options: Any) -> None:
        result = command(**options)
        if isinstance(result, list):
            show_rows(result, output_format)
        elif hasattr(result, "num_rows"):
            show(result, output_format)
        else:
            show_record(result, output_format)

    return format_option(call)


device_option = click.option(
    "--device",
    envvar="AXES_DEVICE",
    show_envvar=True,
    help="cpu, cuda, cuda:1, mps or auto (spread over all).",
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    envvar="AXES_DTYPE",
    show_envvar=True,
    help="Default: float32 on a CPU, else the checkpoint's.",
)
source_option = click.option(
    "--source", help="Load the weights from this folder, .gguf file or hf:OWNER/NAME."
)
axis_argument = click.argument("axis", type=AXIS)
axis_option = click.option(
    "--axis", type=AXIS, required=True, help="Name of an axis, its id, or the start of the id."
)
model_argument = click.argument("model", type=MODEL)
loading_options = together(
    model_argument,
    source_option,
    click.option("--adapter", help="PEFT adapter to load on top: a folder or hf:OWNER/NAME."),
    click.option(
        "--quantization", type=click.Choice(QUANTIZATIONS), help="Load with bitsandbytes."
    ),
    click.option("--attention", help="eager, sdpa, ... Default: what transformers chooses."),
    click.option("--blocks", help="Path of the block list, such as model.layers."),
    device_option,
    dtype_option,
)


engine_option = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default=TRANSFORMERS,
    help="What runs the model. Rows of vllm are of a model version of their own.",
)


def models_option(help: str) -> Callable[[Command], Command]:
    """`--model`, repeatable, passed as `models`."""
    return click.option("--model", "models", type=MODEL, multiple=True, help=help)


def prompts_option(
    help: str, *, required: bool = False, name: str = "prompts"
) -> Callable[[Command], Command]:
    """`--prompts` with one prompt set, passed as `name`."""
    return click.option("--prompts", name, type=PROMPT_SET, required=required, help=help)


def prompt_sets_option(help: str, *, required: bool = False) -> Callable[[Command], Command]:
    """`--prompts`, repeatable, passed as `prompt_sets`."""
    return click.option(
        "--prompts", "prompt_sets", type=PROMPT_SET, multiple=True, required=required, help=help
    )


layers_option = click.option(
    "--layers", type=Numbers(), help="Comma list such as 0,12,23. Default: every block."
)


system_option = click.option(
    "--system",
    "system_file",
    type=EXISTING_FILE,
    help="File with a system prompt for the chat template.",
)


def limit_option(command: Command) -> Command:
    """`--limit` prompts of each set."""
    from axes.ingest.requests import LIMIT_HELP  # Dataclasses, which most commands have no use for.

    return click.option("--limit", type=COUNT, help=LIMIT_HELP)(command)


seed_option = click.option("--seed", type=int, default=0, help="Random seed.")
allow_missing_option = click.option(
    "--allow-missing", is_flag=True, help="Continue where rows are missing, and report how many."
)


def fit_fraction_option(*, may_be_all: bool = False) -> Callable[[Command], Command]:
    """`--fit-fraction`, passed as `fraction`."""
    return click.option(
        "--fit-fraction",
        "fraction",
        type=click.FloatRange(0.0, 1.0, min_open=True, max_open=not may_be_all),
        default=0.5,
        help="Share of the prompts to fit calibrations and thresholds on; the rest evaluates them.",
    )


calibration_option = click.option(
    "--calibration",
    type=click.Choice(CALIBRATIONS),
    default="platt",
    help="Calibration method (axes calibrate) whose threshold and probability are used.",
)
output_option = click.option("-o", "--output", type=FILE, help="Write to this file.")


def read_system(path: Path | None) -> str | None:
    """The system prompt of the file that `--system` names."""
    return None if path is None else path.read_text().strip()


def model_spec(model: str, options: Options, root: Path | None = None) -> ModelSpec:
    """The model that the loading options name; they are removed from `options`.

    A name that means nothing here means the folder or file that `root` has a model of that name
    from, where that still exists.
    """
    from axes.ingest.models.registry import resolve
    from axes.warehouse.errors import ModelError

    names = ("source", "adapter", "quantization", "attention", "blocks", "engine")
    stated = {name: options.pop(name) for name in names if name in options}
    try:
        return resolve(model, **stated)
    except ModelError:
        if stated.get("source") or (source := _stored_source(model, root)) is None:
            raise
        return resolve(model, **{**stated, "source": source})


def _stored_source(model: str, root: Path | None) -> str | None:
    """Where the latest version of a stored model came from, if that is a folder or file here."""
    from axes.warehouse.connection import connect_tables, rows
    from axes.warehouse.errors import AxesError
    from axes.warehouse.progress import announce

    try:
        sql = "select source from models where model = ? order by run_id desc"
        stored = [] if root is None else rows(connect_tables(root, "models"), sql, [model])
    except AxesError:
        return None
    for row in stored:
        path = Path(row["source"])
        if path.is_absolute() and path.exists():
            announce(f"{model} is loaded from {path}, as {root} says")
            return str(path)
    return None


def format_for(output: Path | None, output_format: str) -> str:
    """The format that was typed, else that of the output's suffix, else the configured one."""
    if output is None or is_typed("output_format"):
        return output_format
    suffix = output.suffix.lower()
    if suffix and suffix not in _SUFFIXES:
        raise click.UsageError(
            f"{output}: no format has the suffix {suffix}: give --format, or one of "
            f"{', '.join(_SUFFIXES)}"
        )
    return _SUFFIXES.get(suffix, output_format)


def is_typed(name: str) -> bool:
    """Whether a parameter came with the command line, not from the environment or axes.toml."""
    source = click.get_current_context().get_parameter_source(name)
    return source in (ParameterSource.COMMANDLINE, ParameterSource.PROMPT)
