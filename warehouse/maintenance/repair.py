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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import AxesError, RootError
from axes.warehouse.layout import data_files, empty_file, require_root, write_empty_file
from axes.warehouse.ledger import LEDGER, maintenance_lock, removing, settle, table_lock, writing
from axes.warehouse.maintenance.check import Finding, inspect_file, inspect_files
from axes.warehouse.runs import record_run
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import read_record, sync_folder

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


def adopt_file(root: Path, table: str, path: Path) -> None:
    """Enter a file that is in its place into the ledger; the caller holds the table's lock."""
    with writing(root, table, {path: read_record(path)}):
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


# The command line of a job by its parameters in `runs`, as words:
#   model              the parameter's value; a list gives one word each
#   --seed             the option with the parameter `seed`, again for each value of a list
#   --stop=stops       the option with the parameter `stops`
#   --layers,          the option with the values of a list joined by commas
#   --unpaired!=pairs  a flag: `?` where the parameter is true, `!` where it is false
_SPACE = "--site --pooling --template"
_COMMANDS = {
    "ingest activations": "model --prompts=prompt_sets --layers, --template --system --shard "
    "--site=sites --pooling=poolings --pooling --keep-tokens,=token_layers --limit",
    "ingest traces": "model --layers, --template --system --prompts=prompt_set --axes "
    "--stop=stop_strings --end-token=end_tokens --prompt-tokens? --completions --top-tokens "
    "--limit --batch-size --max-new-tokens --temperature --top-p --seed --samples",
    "label": "--phrases --positive --judge-url --judge-model --prompts=prompt_set --model --limit",
    "prompts import": "prompt_set source --positive-file --negative-file --unpaired!=is_paired "
    "--labeler --limit --per-label --license --split --positive",
    "activations import": "file --index --model=name --layer-count --d-model --revision "
    "--computed-with --model-card --prompts=prompt_set --layers-are "
    f"{_SPACE} --positive --skip-normed?",
    "study": "--group --model --reference --prompts --align --evaluate --align-rows "
    "--layer-policy --layer-fraction --direction --alignment --ridge-lambda --lambda-policy "
    f"--rank --hidden-width --alignment-shuffles --universal {_SPACE} --seed "
    "--no-scale!=is_scaled --allow-missing?",
    "fit": f"model --prompts --evaluate --direction {_SPACE}",
    "evaluate": "model --prompts=prompt_sets --by --layer-fraction --correction "
    f"{_SPACE} --least-overlap --seed --allow-missing?",
    "calibrate": "axis_id --prompts=prompt_set --model=model_ids --method=methods --target "
    "--fraction --least-overlap --seed --allow-missing?",
    "drift": "--axis=axis_id --model --prompts=prompt_set --labeler --template "
    "--max-new-tokens --least-steps --bound --event --seed",
    "import": f"file --model --layer {_SPACE} --convention --name --fitted-on --from=format "
    "--other-model?=is_other_model",
}
_COMMANDS["transfer"] = _COMMANDS["calibrate"]
_LABELERS = {
    "import": "kind labeler file",
    "classifier": "kind classifier --reads-prompt?",
    "inherit": "kind --labeler",
    "judge": "kind --labeler --template",
}
# What else is in the key of a model, so that the rows come back under the same one.
_MODEL_OPTIONS = "--dtype --quantization --attention --adapter --blocks --source"
_MODEL_CARD = {"name", "layer_count", "d_model", "revision", "computed_with"}
_UNKNOWN = "the job that wrote it is not known: ingest or import again"

# The parameters of a job, as the JSON in its row of `runs` holds them.
Parameters = Mapping[str, Any]


def restore_commands(root: Path, run_ids: Iterable[str]) -> dict[str, str]:
    """run_id -> the command line that writes the rows of that job again, or why there is none."""
    lost = sorted(set(run_ids))
    if not lost:
        return {}
    try:
        connection = connect(root)
        jobs = rows(connection, "select run_id, command, parameters from runs")
        models = {row["model_id"]: row for row in rows(connection, "from models")}
    except AxesError as error:
        return dict.fromkeys(lost, f"runs cannot be read ({error}): ingest or import again")
    stored = {row["run_id"]: (row["command"], json.loads(row["parameters"])) for row in jobs}
    studies = {
        parameters["study_id"]: parameters
        for command, parameters in stored.values()
        if command == "study"
    }
    commands = {}
    for run_id in lost:
        command, parameters = stored.get(run_id, ("", {}))
        if command == "project tokens":
            command, parameters = "study", studies.get(parameters.get("study_id"), {})
        if command not in _COMMANDS or not parameters:
            commands[run_id] = _UNKNOWN
            continue
        model = models.get(parameters.get("model_id"), {})
        words = ["axes", *command.split(), *_job_words(command, parameters, model)]
        commands[run_id] = shlex.join([*words, "--root", str(root)])
    return commands


def _job_words(command: str, parameters: Parameters, model: Parameters) -> list[str]:
    """The words behind the command's name; `model` is the row of the model that the job ran."""
    words: list[str] = []
    flags: list[str] = []
    if command.startswith("ingest"):
        parameters = {**parameters, **_rendering(parameters)}
        # A job of before parameters named the numerics: they are in the model's row.
        numerics = {**model, **parameters}
        if not Path(numerics.get("source") or "hub").is_absolute():
            numerics["source"] = None
        flags = _words(_MODEL_OPTIONS, numerics)
    if command == "ingest activations":
        limits = list(parameters["prompt_sets"].values())
        # One --limit holds for all sets: the largest brings all rows back, and perhaps more.
        parameters = {**parameters, "limit": None if None in limits else max(limits)}
    elif command == "label":
        template = "FILE-WITH-parameters.template"
        words = _words(
            _LABELERS.get(parameters["kind"], "kind"), {**parameters, "template": template}
        )
    elif command == "prompts import":
        for role, column in (parameters.get("columns") or {}).items():
            flags += [f"--{role}-column", column]
        flags += _words("--keep-whitespace? --skip-unusable?", parameters)
    elif command == "activations import":
        # What the file's card says of the model is stated all the same.
        card = parameters["model"]
        has_more = card.keys() - _MODEL_CARD
        parameters = {
            **parameters,
            **{name: card.get(name) for name in _MODEL_CARD},
            "model_card": "FILE-WITH-parameters.model" if has_more else None,
        }
    elif command == "study":
        # The group is in the names of the axes: a study of one model has none.
        group, reference = parameters["label"], parameters["reference"]
        is_group = group != reference.partition("@")[0]
        names = {"group": group} if is_group else {"model": parameters["models"]}
        parameters = {**parameters, **names}
    elif command == "drift":
        parameters = {**parameters, "model": f"{parameters['model']}@{parameters['model_id']}"}
    return words + _words(_COMMANDS[command], parameters) + flags


def _rendering(parameters: Parameters) -> Parameters:
    """The template's name; a system prompt came from a file, and its text is in the parameters."""
    return {
        "template": str(parameters.get("template", "raw")).partition("+")[0],
        "system": "FILE-WITH-parameters.system" if parameters.get("system") else None,
    }


def _words(syntax: str, parameters: Parameters) -> list[str]:
    """The words of a command line in the syntax of `_COMMANDS`."""
    words: list[str] = []
    for item in syntax.split():
        option, _, name = item.partition("=")
        word, kind = option.rstrip("?!,"), option[-1]
        value = parameters.get(name or word.removeprefix("--").replace("-", "_"))
        values = [] if value is None or value == "" else value
        values = [str(one) for one in (values if isinstance(values, list | dict) else [values])]
        if kind in "?!":
            words += [word] if (value is False if kind == "!" else value) else []
        elif kind == ",":
            words += [word, ",".join(values)] if values else []
        else:
            for text in values:
                words += [word, text] if word.startswith("--") else [text]
    return words
