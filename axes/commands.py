"""Python functions of the commands that evaluate, compare, monitor, steer and label.

Each takes the command's arguments and options by their names (`--fit-fraction` is `fit_fraction`;
docs/commands lists them), runs the command in this process and returns its rows. Where an option
is repeatable, one text is one item. `root` is the warehouse's folder, which must exist. Errors
that the caller can fix are `axes.AxesError`, with the message of the command; an unknown name of
an option is a `TypeError`. Progress and what a model generates go to stderr.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from axes.calls import Folder, Names, result_of
from axes.cli.main import cli
from axes.command_line import find_command, parameters
from axes.warehouse.errors import AxesError
from axes.warehouse.names import did_you_mean

if TYPE_CHECKING:
    from axes.results import Result


def list_names(noun: str, text: str | None = None, *, root: Folder | None = None) -> Result:
    """The names that other functions take: a row for each of `noun`, with `text` in it if given.

    `noun` is axes, studies, models, prompt-sets, poolings, labelers, calibrations or scorings.

    axes.list_names("axes", "universal").pl()["name"]
    """
    return result_of("list", locals())


def plan(
    model: Names,
    *,
    prompts: Names = (),
    prompt_count: int | None = None,
    tokens: float | None = None,
    layers: Sequence[int] | None = None,
    teraflops: float | None = None,
    efficiency: float = 1.0,
    root: Folder | None = None,
    **options: Any,
) -> Result:
    """The price of an ingest before it runs: rows, bytes, files, requests, seconds, money.

    A row for each of `model`. Give `prompts` (names of sets) or `prompt_count`; `options` are the
    others of `axes plan`: `rate`, `storage_rate`, `copies`, `vectors`, `file_mib`, `store_dtype`.
    Raises `ModelError`, `PromptError` or `LayerError`.

    axes.plan("qwen2.5-7b", prompt_count=10**6, tokens=20, teraflops=989, efficiency=0.4, rate=3)
    """
    return result_of("plan", locals())


def evaluate(
    model: str,
    prompts: Names,
    *,
    by: str = "source",
    layer_fraction: float = 0.8,
    correction: str = "holm",
    max_rank: int | None = None,
    site: str = "resid_post",
    pooling: str = "last5_mean",
    template: str = "raw",
    show: str = "summary",
    min_overlap: float = 0.5,
    seed: int = 0,
    allow_missing: bool = False,
    root: Folder | None = None,
) -> Result:
    """Evaluate a model's directions on prompts, layers and sources they were not fitted on.

    `show` is summary (a row for each scorer and metric), layers, sources or ranks (of `max_rank`);
    `notes` has the verdict in words. `plot()` draws AUROC by layer. Raises `LabelError`,
    `CoverageError` or `LayerError`.

    axes.evaluate("smollm2-135m", "demo_safety", show="layers").plot()
    """
    return result_of("evaluate", locals())


def diff_models(
    first: str,
    second: str,
    prompts: str,
    *,
    to: str | None = None,
    layer_fraction: float = 0.8,
    site: str = "resid_post",
    pooling: str = "last5_mean",
    template: str = "raw",
    show: str = "layers",
    limit: int = 20,
    allow_missing: bool = False,
    root: Folder | None = None,
) -> Result:
    """Compare the activations of two versions of a model on the same prompts, `second` - `first`.

    `show` is layers (norms), axes (what moved along each) or prompts (those that moved most, at
    most `limit`); `to` is the template of `second`. Raises `ModelError` or `CoverageError`.

    axes.diff_models("qwen2.5-0.5b", "qwen2.5-0.5b-instruct", "demo_safety", show="axes")
    """
    return result_of("diff", locals())


def angles(axis_a: str, axis_b: str, *, root: Folder | None = None) -> Result:
    """Principal angles in degrees between two subspaces or axes, the smallest first, with a null.

    Raises `AxisError` unless both lie in one model version's space at one layer and site.

    axes.angles("subspace/mine/23/a/rank-3", "subspace/mine/23/b/rank-3").pl()["angle"]
    """
    return result_of("angles", locals())


def calibrate(
    axis: str,
    prompts: str,
    *,
    model: Names = (),
    calibration: Names = ("platt",),
    target: str = "balanced_accuracy",
    fit_fraction: float = 0.5,
    seed: int = 0,
    allow_missing: bool = False,
    root: Folder | None = None,
) -> Result:
    """Map each model's projections on an axis to one scale, with a threshold: a row for each model.

    `model` defaults to every model with projections on the axis. Raises `AxisError`,
    `CalibrationError` or `LabelError`.

    axes.calibrate("31011258", "demo_safety", calibration=["platt", "z_score"])
    """
    return result_of("calibrate", locals())


def transfer(
    axis: str,
    prompts: str,
    *,
    model: Names = (),
    target: str = "balanced_accuracy",
    fit_fraction: float = 0.5,
    show: str = "verdicts",
    min_overlap: float = 0.5,
    seed: int = 0,
    allow_missing: bool = False,
    root: Folder | None = None,
) -> Result:
    """Does a threshold chosen on one model hold on another, before and after calibration?

    `show` is verdicts (a row for each method), matrix (for each pair of models) or curve (for each
    number of labelled prompts). `plot()` draws the matrix. Raises `AxisError` or `LabelError`.

    axes.transfer("31011258", "demo_safety", show="curve")
    """
    return result_of("transfer", locals())


def drift(
    axis: str,
    *,
    model: Names = (),
    prompts: str | None = None,
    labeler: str | None = None,
    template: str | None = None,
    max_new_tokens: int | None = None,
    min_steps: int | None = None,
    min_auroc: float = 0.75,
    event: str | None = None,
    calibration: str = "platt",
    seed: int = 0,
    memory_limit: int | None = None,
    root: Folder | None = None,
) -> Result:
    """Does the projection change while models generate? A row for each metric and control.

    `notes` has the verdict on each model; `plot()` draws the curves with their bands.
    `memory_limit` is in bytes. Raises `AxisError`, `CoverageError` or `LabelError`.

    axes.drift("31011258", model="smollm2-135m", labeler="refusal_substring", event="refusal")
    """
    return result_of("drift", locals())


def diagnose(
    study: str | None = None,
    *,
    model: str | None = None,
    checks: bool = False,
    memory_limit: int | None = None,
    root: Folder | None = None,
) -> Result:
    """Why the universal axis of a study ranks prompts as it does: a row for each model and set.

    `study` is the start of an id (default: the last study); with `checks` every check is a row.
    """
    return result_of("diagnose", locals())


def claims(study: str | None = None, *, root: Folder | None = None) -> Result:
    """The verdict of a study on each claim of the source study, with estimate, interval and null.

    `study` is the start of an id or a study file; default: the last study.
    """
    return result_of("study claims", locals())


def diff(first: str, second: str, *, root: Folder | None = None) -> Result:
    """Every headline metric of two studies, second minus first, paired where prompts are the same.

    `first` and `second` are starts of ids, or files with one study each.
    """
    return result_of("study diff", locals())


def sensitivity(
    study: str | None = None, *, memory_limit: int | None = None, root: Folder | None = None
) -> Result:
    """How much a study's metrics change with one setting at a time; `plot()` draws the ranges.

    `study` is the start of an id or a study file; default: the last study.
    """
    return result_of("study sensitivity", locals())


def compare(
    prompts: str,
    labeler: str,
    *,
    model: Names = (),
    only: str | None = None,
    negated: bool = False,
    refusals: str = "refusal_substring",
    axis: str | None = None,
    statistic: str = "mean",
    limit: int | None = None,
    template: Names = (),
    max_new_tokens: int | None = None,
    calibration_prompts: str | None = None,
    fit_fraction: float = 0.5,
    calibration: str = "platt",
    seed: int = 0,
    allow_missing: bool = False,
    root: Folder | None = None,
) -> Result:
    """Rank models by the probability of the outcome in their completions: a row for each model.

    The outcome is the positive class of `labeler` (`negated`: the negative one). Raises
    `AxisError`, `CoverageError` or `LabelError`.

    axes.compare("demo_safety", "judge", limit=120)
    """
    return result_of("compare", locals())


def route(
    prompts: str,
    labeler: str,
    *,
    cost: str = "parameter_count",
    max_cost: float | None = None,
    quality: str | None = None,
    min_quality: float | None = None,
    tolerance: float = 0.0,
    root: Folder | None = None,
    **options: Any,
) -> Result:
    """Compare policies that choose a model for each prompt, on stored completions: a row for each.

    `cost` and `quality` are `tokens`, a numeric column of the table models, or FILE:COLUMN;
    `options` are those of `axes.compare`. Raises as it does.

    axes.route("mine", "refusal_substring", negated=True, cost="tokens", tolerance=0.05)
    """
    return result_of("route", locals())


def explain(
    axis: str,
    *,
    sae: Folder | None = None,
    model: str | None = None,
    source: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    count: int = 10,
    root: Folder | None = None,
) -> Result:
    """Features, tokens and prompts that say what an axis may stand for, by `part`.

    `sae` is the folder of a sparse autoencoder, `model` a model to load for the logit lens. `text`
    is `[hidden]` for prompts of the positive class. Raises `AxisError` or `ModelError`.
    """
    return result_of("explain", locals())


def import_axes(
    file: Folder,
    *,
    model: str | None = None,
    features: Sequence[int] | None = None,
    layer: int | None = None,
    name: str | None = None,
    root: Folder | None = None,
    **options: Any,
) -> Result:
    """Register the directions of a file or folder as axes of kind imported: a row for each.

    `sae:FOLDER` is a sparse autoencoder, of which `features` chooses decoder rows. `options` are
    the others of `axes import`: `site`, `pooling`, `template`, `fitted_on`, ... `notes` says what
    was assumed. Raises `AxisError`, `LayerError` or `ModelError`.
    """
    return result_of("import", locals())


def push(
    axis: Names,
    repository: str,
    *,
    all_layers: bool = False,
    public: bool = False,
    root: Folder | None = None,
) -> Result:
    """Upload axes of one model with their card to OWNER/NAME of the hub: a row with its address.

    Raises `AxisError`, and `ModelError` without a token, a network, or for what no push made.
    """
    return result_of("push", locals())


def log(
    to: str,
    *,
    project: str = "safety-axes",
    study: str | None = None,
    online: bool = False,
    root: Folder | None = None,
) -> Result:
    """Send studies and jobs to a tracker, `wandb` or `mlflow`: a row for each run, new or not.

    Files on this machine unless `online`. Names, settings, versions and numbers are sent, and no
    text of prompts. Raises `AxesError` without the package, and where the tracker refuses.
    """
    return result_of("log", locals())


def monitor(
    model: str,
    prompt: str,
    axis: str,
    *,
    layer: int | None = None,
    template: str = "raw",
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    calibration: str = "platt",
    stop_above: float | None = None,
    root: Folder | None = None,
    **options: Any,
) -> Result:
    """Complete a prompt and project each token on an axis: a row for each generated token.

    `stop_above` is a calibrated probability. `options` say how to load the model: `source`,
    `adapter`, `quantization`, `attention`, `blocks`, `device`, `dtype`. Nothing is stored. To
    monitor your own call of `generate`, use `axes.load_monitor`. Raises `AxisError`,
    `CalibrationError` or `ModelError`.

    axes.monitor("smollm2-135m", "Name a river.", "31011258").pl()["projection"]
    """
    return result_of("monitor", locals())


def intervene(
    model: str,
    axis: Names,
    prompts: str,
    benign: str,
    *,
    strengths: Sequence[float] | None = None,
    layers: Sequence[int] | None = None,
    mode: str = "add",
    positions: str = "all",
    limit: int | None = None,
    max_new_tokens: int = 0,
    random: int = 20,
    shuffled: int = 5,
    orthogonal: int = 5,
    covariance: int = 0,
    seed: int = 0,
    root: Folder | None = None,
    **options: Any,
) -> Result:
    """Steer a model along axes and compare the effect with control directions.

    A row for each axis, metric and class of prompts. `strengths` are in units of the layer's
    median norm (`mode="ablate"`: the share to remove); `random`, `shuffled`, `orthogonal` and
    `covariance` are numbers of controls; `system` is a file. `options` are the other options of
    `axes intervene`: `min_projection`, `condition`, `template`, `benign_limit`, `openers`, ...
    Raises `AxisError`, `ModelError` or `PromptError`.

    axes.intervene("smollm2-135m", "31011258", "demo_safety", "demo_alignment", limit=48)
    """
    return result_of("intervene", locals())


def label(by: str, *arguments: str, root: Folder | None = None, **options: Any) -> Result:
    """Label completions `by` refusals, inherit, import, classifier or judge; the row counts them.

    `arguments` and `options` are those of `axes label BY`: LABELER and FILE of import, CLASSIFIER;
    `model`, `prompts` and `limit` choose the completions. A labeler skips those that it has
    labelled. The key of a judge is read from $AXES_JUDGE_KEY and never stored. Raises `LabelError`.

    axes.label("refusals", model="smollm2-135m")
    axes.label("import", "anna", "labelled.csv", positive="refusal")
    """
    commands = find_command(cli, "label")
    assert isinstance(commands, click.Group)
    if by not in commands.commands:
        near = did_you_mean(by, commands.commands)
        raise AxesError(f"no labels by {by}{near}: choose {', '.join(commands.commands)}")
    params = parameters(commands.commands[by])
    names = [name for name, param in params.items() if param.param_type_name == "argument"]
    if len(arguments) != len(names):
        raise TypeError(f"axes label {by} takes {' and '.join(names) or 'no argument'}")
    given = dict(zip(names, arguments, strict=True))
    return result_of(f"label {by}", {**options, **given, "root": root})
