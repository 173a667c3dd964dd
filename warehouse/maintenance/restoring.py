"""Which command brings lost rows back: the job that wrote them, as its row in `runs` tells it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import AxesError

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


_SINGULAR = {"axes": "--axes", "stop_strings": "--stop", "end_tokens": "--end-token"}


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
        words += ["--template", "FILE-WITH-parameters.template"]
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
    for plural, option in (("model_ids", "--model"), ("methods", "--method")):
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


def _options(parameters: dict[str, Any], *names: str) -> list[str]:
    """`--name value` for each that was given; a list repeats the option."""
    words = []
    for name in names:
        for value in _listed(parameters.get(name)):
            words += [f"--{name.replace('_', '-')}", value]
    return words


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _count(limit: int | None) -> int:
    return limit or 0
