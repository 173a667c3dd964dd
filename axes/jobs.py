"""Python functions that import prompts and run models; they create a warehouse if there is none.

Keywords have the names of the options of `axes prompts import`, `axes ingest activations` and
`axes ingest traces`; those that are not listed are taken as `options`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axes.calls import Folder, Names, Rows, call
from axes.warehouse.errors import PromptError

if TYPE_CHECKING:
    from axes.ingest.jobs import IngestSummary
    from axes.ingest.prompts import ImportSummary


def import_prompts(
    prompt_set: str,
    source: Folder | Rows | None = None,
    *,
    positive: Names = (),
    text_column: str | None = None,
    label_column: str | None = None,
    license: str | None = None,
    split: str | None = None,
    per_label: int | None = None,
    limit: int | None = None,
    root: Folder | None = None,
    **options: Any,
) -> ImportSummary:
    """Import a prompt set from a file, `hf:OWNER/NAME` or rows; idempotent.

    `source` may be a list of texts or of dicts, or a DataFrame (polars or pandas) with columns text
    and label, or those that are named. A built-in set (`demo_safety`, ...) needs no source.
    `positive` names the labels of the positive class; `options` are `positive_file`,
    `negative_file`, `unpaired`, `category_column`, `labeler`, `replace`, `keep_whitespace` and
    `skip_unusable`. Raises `PromptError` or `LabelError`.

    axes.import_prompts("mine", frame, positive="toxic")
    """
    arguments = dict(locals())
    if source is None or isinstance(source, str | Path):
        return _record("prompts import", arguments)
    with tempfile.TemporaryDirectory() as folder:
        arguments["source"] = _rows_file(source, Path(folder))
        return _record("prompts import", arguments, {"source": "FILE-WITH-rows"})


def _rows_file(rows: Any, folder: Path) -> Path:
    import polars as pl

    is_texts = isinstance(rows, Sequence) and all(isinstance(row, str) for row in rows)
    pl.DataFrame({"text": rows} if is_texts else rows).write_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def ingest_activations(
    model: str,
    prompts: Names | Mapping[str, Rows],
    *,
    layers: Sequence[int] | None = None,
    site: Names = ("resid_post",),
    pooling: Names = ("last5_mean",),
    axis: Names = (),
    template: str = "raw",
    system: str | None = None,
    limit: int | None = None,
    source: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    root: Folder | None = None,
    **options: Any,
) -> IngestSummary:
    """Run a model on prompt sets and store pooled activations, or projections on `axis` alone.

    `model` is a registry name, a hub id, a folder or a .gguf file; `layers` are zero-based blocks
    (default: every block); `limit` uses the first prompts of each set. Stored rows are not
    recomputed. Rows under a name, `{"mine": frame}`, are imported as `axes.import_prompts` does.
    `system` is the text of a system prompt. `options` are `keep_tokens` (layers), `shard` (such as
    "3/8"), `token_budget` (max tokens in one batch, padding included), `share_prefix`,
    `skip_unusable`, how to run the model (`engine`, `adapter`, `quantization`, `attention`,
    `blocks`) and where (`on`: "ray", `address`, `workers`, `gpus_per_worker`). Built-in prompt sets
    are imported.
    Raises `ModelError`, `PromptError`, `AxisError`, `LayerError` or `NonFiniteError`.

    axes.ingest_activations("smollm2-135m", {"mine": ["one text", "another"]})
    """
    return _run_model("ingest activations", locals())


def ingest_traces(
    model: str,
    prompts: str | Mapping[str, Rows] | None = None,
    *,
    completions: Folder | None = None,
    layers: Sequence[int] | None = None,
    axis: Names = (),
    template: str = "raw",
    system: str | None = None,
    limit: int | None = None,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    samples: int = 1,
    seed: int = 0,
    source: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    root: Folder | None = None,
    **options: Any,
) -> IngestSummary:
    """Complete the prompts of a set with a model and store a row for each token and layer.

    With a file of `completions` instead of `prompts`, their texts are read and nothing is
    generated. Stores vectors at `layers` (default: one layer at 0.8 of the depth), or projections
    on `axis` (names or ids) instead. `temperature` 0 is greedy. `options` are `layer_fraction`,
    `prompt_tokens`, `top_tokens`, `top_p`, `stop`, `end_token`, `batch_size`, `token_budget`, and
    those that load and place the model. Stored completions are not generated again. Raises as
    `ingest_activations` does, and `AxisError` for an axis of another model.

    axes.ingest_traces("smollm2-135m", "demo_safety", limit=48, axis="31011258")
    """
    return _run_model("ingest traces", locals())


def _run_model(name: str, arguments: Mapping[str, Any]) -> Any:
    """Run the command after importing rows under a name, with the system prompt in a file."""
    prompts, system = arguments["prompts"], arguments["system"]
    if isinstance(prompts, Mapping):
        for prompt_set, rows in prompts.items():
            import_prompts(prompt_set, rows, root=arguments["root"])
        arguments = {**arguments, "prompts": list(prompts)}
        if name == "ingest traces":
            (arguments["prompts"],) = prompts
    elif not isinstance(prompts, str | list | tuple | None):
        raise PromptError("give names of prompt sets, or rows under a name: {NAME: rows}")
    if system is None:
        return _record(name, arguments)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "system.txt"
        file.write_text(system)
        return _record(name, {**arguments, "system": file}, {"system": system})


def _record(
    name: str, arguments: Mapping[str, Any], written: Mapping[str, str] | None = None
) -> Any:
    _, printed = call(name, arguments, written=written)
    return printed.record
