"""Set broken files aside, and say which command writes their rows again. Nothing is deleted.

What is taken out of a table goes to ROOT/.quarantine/<time>/, under its own path. A lost file is
struck off the ledger; how many rows of which job are then missing goes into the repair's own row of
`runs`, so that the rule which counts rows against jobs knows of them.

Which command brings lost rows back: the job that wrote them, as its row in `runs` tells it.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import AxesError, RootError
from axes.warehouse.layout import require_root
from axes.warehouse.ledger import LEDGER, record, removing, settle, table_lock, writing
from axes.warehouse.maintenance.check import (
    EMPTY_FILE,
    Finding,
    data_files,
    empty_file,
    inspect_file,
    inspect_files,
)
from axes.warehouse.maintenance.compaction import maintenance_lock
from axes.warehouse.runs import record_run
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import sync_folder

QUARANTINE = ".quarantine"

# A study is not fitted again while its figures are there: they go with what they rest on.
_FITTED = ("axes", "alignments", "projections", "token_projections")


@dataclass(frozen=True)
class Repair:
    """What was done about one finding, and the commands that bring its rows back."""

    check: str
    path: str
    what: str
    done: str
    restore: tuple[str, ...]


def repair(root: Path, *, adopt: bool = False) -> list[Repair]:
    """Set aside every file that `inspect_files` complains of; empty where it has no complaint.

    `adopt` takes unlisted files into the ledger instead where they are sound and no copies: for
    files of before there was a ledger, or copied in from another warehouse.
    """
    require_root(root)
    if not adopt and not (root / LEDGER).exists():
        raise RootError(
            f"{root} is older than its ledger, so that every file would be set aside: "
            "take them in with `axes warehouse repair --adopt`"
        )
    with maintenance_lock(root):
        for table in TABLES:
            with table_lock(root, table):
                settle(root, table)
        findings = inspect_files(root)
        if not findings:
            return []
        findings += _resting_on(root, findings)
        aside = root / QUARANTINE / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
        lost: Counter[str] = Counter()
        with record_run(root, "warehouse repair", {}) as run:
            done = []
            for finding in findings:
                done.append(_mend(root, finding, aside, adopt))
                if done[-1] != "adopted":
                    lost.update(finding.runs)
            run.parameters = {"quarantine": str(aside), "rows_left_out": dict(sorted(lost.items()))}
        commands = restore_commands(root, lost)
    return [
        Repair(
            item.check,
            item.path,
            item.what,
            deed,
            tuple(dict.fromkeys(commands[name] for name in item.runs)),
        )
        for item, deed in zip(findings, done, strict=True)
    ]


def in_order(done: Sequence[Repair]) -> list[str]:
    """Each command that brings rows back, once: prompts, then what models say, then what is fitted.

    Imports are first, since ingest reads prompts; what is not a command is last.
    """
    commands = {command for item in done for command in item.restore}
    order = ("axes prompts", "axes ingest", "axes label", "axes fit", "axes study")

    def place(command: str) -> tuple[int, str]:
        places = [index for index, start in enumerate(order) if command.startswith(start)]
        return (places or [len(order)])[0], command

    return sorted(commands, key=place)


def _mend(root: Path, finding: Finding, aside: Path, adopt: bool) -> str:
    table = TABLES[finding.table]
    path = root / finding.path
    with table_lock(root, table.name):
        if path == empty_file(root, table):
            _quarantine(root, path, aside)
            write_empty_file(root, table)
            return "written again"
        if finding.check == "file_lost":
            with removing(root, table.name, [path]):
                return "struck off the ledger"
        if finding.check == "file_unlisted" and adopt and _is_sound(root, table, finding):
            adopt_file(root, table.name, path)
            return "adopted"
        with removing(root, table.name, [path]):
            _quarantine(root, path, aside)
        return f"moved to {aside / finding.path}"


def write_empty_file(root: Path, table: Table) -> None:
    """Give a table its file without rows."""
    path = empty_file(root, table)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{EMPTY_FILE}.tmp")
    pq.write_table(table.file_schema.empty_table(), temporary)
    temporary.replace(path)


def adopt_file(root: Path, table: str, path: Path) -> None:
    """Enter a file that is in its place into the ledger; the caller holds the table's lock."""
    runs: Counter[str] = Counter()
    with pq.ParquetFile(path) as file:
        rows = file.metadata.num_rows
        for counted in file.read(columns=["run_id"]).column("run_id").value_counts().to_pylist():
            runs[counted["values"]] += counted["counts"]
    with writing(root, table, {path: record(path, rows, runs)}):
        pass


def _is_sound(root: Path, table: Table, finding: Finding) -> bool:
    is_copy = finding.what.startswith("is a copy")
    return not is_copy and inspect_file(root, table, root / finding.path) is None


def _quarantine(root: Path, path: Path, aside: Path) -> None:
    target = aside / path.relative_to(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() or path.is_symlink():
        path.rename(target)
        sync_folder(path.parent)


def _resting_on(root: Path, findings: list[Finding]) -> list[Finding]:
    """The evaluations of the jobs whose axes, alignments or projections are lost."""
    lost = {run for item in findings if item.table in _FITTED for run in item.runs}
    named = {item.path for item in findings}
    resting = []
    for path in data_files(root, TABLES["evaluations"]):
        name = path.relative_to(root).as_posix()
        if name in named or not lost:
            continue
        with pq.ParquetFile(path) as file:
            runs = Counter(file.read(columns=["run_id"]).column("run_id").to_pylist())
        if runs.keys() & lost:
            what = "rests on rows that are lost"
            resting.append(Finding("evaluation_unfounded", name, what, "evaluations", dict(runs)))
    return resting


_UNKNOWN = "the job that wrote it is not known: ingest or import again"


def restore_commands(root: Path, run_ids: Iterable[str]) -> dict[str, str]:
    """run_id -> the command line that writes the rows of that job again, or why there is none."""
    asked = sorted(set(run_ids))
    if not asked:
        return {}
    try:
        connection = connect(root)
        found = rows(connection, "select run_id, command, parameters from runs")
        models = {row["model_id"]: row for row in rows(connection, "from models")}
    except AxesError as error:
        return dict.fromkeys(asked, f"runs cannot be read ({error}): ingest or import again")
    known = {row["run_id"]: (row["command"], json.loads(row["parameters"])) for row in found}
    studies = {
        parameters["study_id"]: parameters
        for command, parameters in known.values()
        if command == "study"
    }
    commands = {}
    for run_id in asked:
        command, parameters = known.get(run_id, ("", {}))
        if command == "project tokens":
            command, parameters = "study", studies.get(parameters.get("study_id"), {})
        write = _WRITERS.get(command)
        if write is None or not parameters:
            commands[run_id] = _UNKNOWN
        else:
            words = ["axes", *command.split(), *write(parameters)]
            if command.startswith("ingest"):
                words += _of_model({**models.get(parameters.get("model_id"), {}), **parameters})
            words += ["--root", str(root)]
            commands[run_id] = shlex.join(words)
    return commands


def _activations(parameters: dict[str, Any]) -> list[str]:
    sets: dict[str, int | None] = parameters["prompt_sets"]
    limits = set(sets.values())
    words = [parameters["model"]]
    for name in sets:
        words += ["--prompts", name]
    words += _layers(parameters) + _rendering(parameters) + _options(parameters, "shard")
    for key in ("sites", "poolings", "pooling"):
        for value in _listed(parameters.get(key)):
            words += [f"--{key.removesuffix('s')}", value]
    if parameters.get("token_layers"):
        words += ["--keep-tokens", ",".join(map(str, parameters["token_layers"]))]
    if limits != {None}:
        # One --limit holds for all sets: the largest brings all rows back, and perhaps more.
        words += [] if None in limits else ["--limit", str(max(sets.values(), key=_count))]
    return words


def _traces(parameters: dict[str, Any]) -> list[str]:
    words = [parameters["model"], *_layers(parameters), *_rendering(parameters)]
    words += ["--prompts", parameters["prompt_set"]] if "prompt_set" in parameters else []
    for plural in ("axes", "stop_strings", "end_tokens"):
        for value in _listed(parameters.get(plural)):
            words += [_SINGULAR[plural], value]
    words += ["--prompt-tokens"] if parameters.get("prompt_tokens") else []
    names = ("limit", "batch_size", "max_new_tokens", "temperature", "top_p", "seed", "samples")
    return words + _options(parameters, "completions", "top_tokens", *names)


_SINGULAR = {"axes": "--axis", "stop_strings": "--stop", "end_tokens": "--end-token"}


def _label(parameters: dict[str, Any]) -> list[str]:
    kind = parameters["kind"]
    words = [kind]
    if kind == "import":
        words += [parameters["labeler"], parameters["file"]]
    elif kind == "classifier":
        words += [parameters["classifier"]]
        words += ["--reads-prompt"] if parameters.get("reads_prompt") else []
    elif kind in ("inherit", "judge"):
        words += ["--labeler", parameters["labeler"]]
    if kind == "judge":
        words += ["--judge-template", "FILE-WITH-parameters.template"]
    words += _options(parameters, "phrases", "positive", "judge_url", "judge_model")
    words += ["--prompts", parameters["prompt_set"]] if parameters.get("prompt_set") else []
    return words + _options(parameters, "model", "limit")


def _import(parameters: dict[str, Any]) -> list[str]:
    words = [parameters["prompt_set"], *_listed(parameters.get("source") or None)]
    words += _options(parameters, "positive_file", "negative_file")
    words += ["--unpaired"] if parameters.get("is_paired") is False else []
    names = ("labeler", "limit", "per_label", "license", "split", "positive")
    words += _options(parameters, *names)
    for ours, theirs in (parameters.get("columns") or {}).items():
        words += [f"--{ours}-column", theirs]
    flags = ("keep_whitespace", "skip_unusable")
    return words + [f"--{name.replace('_', '-')}" for name in flags if parameters.get(name)]


def _given_activations(parameters: dict[str, Any]) -> list[str]:
    """What the file's own card says is stated all the same."""
    said = dict(parameters["model"])
    words = [parameters["file"], *_options(parameters, "index")]
    words += ["--model", said.pop("name")] if "name" in said else []
    words += _options(said, *_OF_GIVEN_MODEL)
    if said.keys() - set(_OF_GIVEN_MODEL):
        words += ["--model-card", "FILE-WITH-parameters.model"]
    words += ["--prompts", parameters["prompt_set"]] if parameters.get("prompt_set") else []
    words += _options(parameters, "layers_are", "site", "pooling", "template", "positive")
    return words + (["--skip-normed"] if parameters.get("skip_normed") else [])


_OF_GIVEN_MODEL = ("layer_count", "d_model", "revision", "computed_with")


def _study(parameters: dict[str, Any]) -> list[str]:
    """The group is in the names of the axes: a study of one is run as one again."""
    words = []
    group, reference = parameters["label"], parameters["reference"]
    if group != reference.partition("@")[0]:
        words += ["--group", group]
    else:
        for model in parameters["models"]:
            words += ["--model", model]
    names = ("reference", "prompts", "align", "evaluate", "align_rows", "layer_policy")
    words += _options(parameters, *names, "layer_fraction", *_METHODS, *_SPACE, "seed")
    words += ["--no-scale"] if parameters.get("is_scaled") is False else []
    return words + (["--allow-missing"] if parameters.get("allow_missing") else [])


_METHODS = (
    "direction",
    "alignment",
    "ridge_lambda",
    "lambda_policy",
    "rank",
    "hidden_width",
    "alignment_shuffles",
    "universal",
)
_SPACE = ("site", "pooling", "template")


def _fit(parameters: dict[str, Any]) -> list[str]:
    return [parameters["model"], *_options(parameters, "prompts", "evaluate", "direction", *_SPACE)]


def _evaluate(parameters: dict[str, Any]) -> list[str]:
    words = [parameters["model"]]
    for name in parameters["prompt_sets"]:
        words += ["--prompts", name]
    names = ("by", "layer_fraction", "correction", "site", "pooling", "template", "least_overlap")
    words += _options(parameters, *names, "seed")
    return words + (["--allow-missing"] if parameters.get("allow_missing") else [])


def _of_axis(parameters: dict[str, Any]) -> list[str]:
    """`axes calibrate` and `axes transfer`."""
    words = [parameters["axis_id"], "--prompts", parameters["prompt_set"]]
    for plural, option in (("model_ids", "--model"), ("methods", "--calibration")):
        for value in _listed(parameters.get(plural)):
            words += [option, value]
    words += _options(parameters, "target", "fraction", "least_overlap", "seed")
    return words + (["--allow-missing"] if parameters.get("allow_missing") else [])


def _drift(parameters: dict[str, Any]) -> list[str]:
    words = ["--axis", parameters["axis_id"]]
    words += ["--model", f"{parameters['model']}@{parameters['model_id']}"]
    words += ["--prompts", parameters["prompt_set"]] if parameters.get("prompt_set") else []
    names = ("labeler", "template", "max_new_tokens", "least_steps", "bound", "event", "seed")
    return words + _options(parameters, *names)


def _import_axis(parameters: dict[str, Any]) -> list[str]:
    names = ("model", "layer", "site", "pooling", "template", "convention", "name", "fitted_on")
    words = [parameters["file"], *_options(parameters, *names)]
    words += ["--from", parameters["format"]] if parameters.get("format") else []
    return words + (["--other-model"] if parameters.get("is_other_model") else [])


_WRITERS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "ingest activations": _activations,
    "ingest traces": _traces,
    "label": _label,
    "prompts import": _import,
    "activations import": _given_activations,
    "study": _study,
    "fit": _fit,
    "evaluate": _evaluate,
    "calibrate": _of_axis,
    "transfer": _of_axis,
    "drift": _drift,
    "import": _import_axis,
}


def _rendering(parameters: dict[str, Any]) -> list[str]:
    """The template; a system prompt was read from a file, and its text is in the parameters."""
    policy, *_ = str(parameters.get("template", "raw")).split("+")
    system = ["--system", "FILE-WITH-parameters.system"] if parameters.get("system") else []
    return ["--template", policy, *system]


def _of_model(model: dict[str, Any]) -> list[str]:
    """What else makes up the key of the model, so that the rows come back under the same.

    Of the job's parameters, and for jobs of before they said so of the model's row.
    """
    words = _options(model, "dtype", "quantization", "attention", "adapter", "blocks")
    is_local = Path(model.get("source") or "hub").is_absolute()
    return words + (["--source", model["source"]] if is_local else [])


def _layers(parameters: dict[str, Any]) -> list[str]:
    layers = parameters.get("layers")
    return ["--layers", ",".join(map(str, layers))] if layers else []


# Options that are called otherwise than their parameter of a run.
_RENAMED = {
    "bound": "--min-auroc",
    "fraction": "--fit-fraction",
    "least_overlap": "--min-overlap",
    "least_steps": "--min-steps",
}


def _options(parameters: dict[str, Any], *names: str) -> list[str]:
    """`--name value` for each that was given; a list repeats the option."""
    words = []
    for name in names:
        for value in _listed(parameters.get(name)):
            words += [_RENAMED.get(name, f"--{name.replace('_', '-')}"), value]
    return words


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _count(limit: int | None) -> int:
    return limit or 0
