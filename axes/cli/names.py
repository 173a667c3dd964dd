"""Names that a shell completes: models, groups and prompt sets, of the registry and the warehouse.

Nothing is opened for it but the registry's files and the list of a root's folders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import unquote

import click
from click.shell_completion import CompletionItem

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
