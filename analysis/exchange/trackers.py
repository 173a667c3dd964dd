"""Results as runs of an experiment tracker, Weights & Biases or MLflow, offline unless asked.

A run of the tracker is a model of a study (or of `axes evaluate`) with its metrics, a study with
its baselines and claims, or a job of the warehouse. Layers are steps. Sent are names, settings,
versions and numbers: no prompt, no completion, and no command line, which may have a system prompt.
A run's key follows from ids of stored results, so that nothing is sent twice.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from axes.warehouse.errors import AxesError
from axes.warehouse.handle import Warehouse
from axes.warehouse.progress import track
from axes.warehouse.writer import content_key

# Of each study and job; of a study, the row of the first job that evaluated it.
_RUNS = """
with jobs as (
    select
        runs.* exclude (parameters, command_line, message, skipped),
        epoch(finished_at) - epoch(started_at) as seconds
    from runs
    where status != 'running'
)

select jobs.*, study_id, evaluations.parameters, null as model
from jobs
inner join evaluations using (run_id)
where starts_with(study_id, $study)
qualify row_number() over (partition by study_id order by jobs.started_at, run_id) = 1
union all by name
select jobs.*, runs.parameters ->> '$.model' as model
from jobs
inner join runs using (run_id)
where $study = ''
order by study_id is null, started_at, run_id, study_id
"""
# What was fitted or evaluated on other prompts than those named is left out.
_METRICS = """
select
    study_id, coalesce(model, '') as model, coalesce(layer, 0) as step,
    concat_ws('/', prompt_set, scorer, metric) as name, estimate, lower, upper, null as verdict
from evaluations
where
    starts_with(study_id, $study) and component is null and judged_on is null
    and coalesce(fitted_on, prompt_set, '') = coalesce(prompt_set, '')
    and regexp_full_match(metric, 'auroc|auroc_difference|tpr_at_fpr_0.01|r2_held_out|cosine_.*')
union all
select
    study_id, '', 0, concat_ws('/', 'claims', claim, prompt_set), estimate, lower, upper, verdict
from v_claims
where starts_with(study_id, $study)
order by all
"""
_COUNTS = ("rows", "tokens", "tokens_per_second", "seconds")


@dataclass(frozen=True)
class TrackerRun:
    """One run to send; `metrics` are by step (the layer), then by name."""

    kind: str
    name: str
    key: str
    group: str
    status: str
    started_at: datetime
    finished_at: datetime
    settings: dict[str, str | float]
    metrics: dict[int, dict[str, float]]


@dataclass(frozen=True)
class SentRun:
    """A run in the tracker; where it is not new it stays as it was."""

    kind: str
    name: str
    key: str
    metric_count: int
    is_new: bool


def send(
    warehouse: Warehouse,
    to: str,
    *,
    project: str,
    study: str | None = None,
    is_online: bool = False,
) -> list[SentRun]:
    """Send a study (the start of its id), or all studies and jobs, to `wandb` or `mlflow`.

    Raises `AxesError` without the package, for an unknown study, for a tracker on the network
    unless `is_online`, and where the tracker refuses.
    """
    runs = list(_runs(warehouse, study or ""))
    if study and not runs:
        raise AxesError(f"no study {study} in the warehouse: see `axes list studies`")
    sent = []
    try:
        put = (_wandb if to == "wandb" else _mlflow)(project, is_online)
        with track(f"log to {to}", len(runs), "runs") as advance:
            for run in runs:
                count = sum(map(len, run.metrics.values()))
                sent.append(SentRun(run.kind, run.name, run.key, count, put(run)))
                advance(1)
    except ModuleNotFoundError as error:
        raise AxesError(f"{to} is not installed: pip install 'safety-axes[{to}]'") from error
    except Exception as error:
        # Each has a tree of exceptions, whose base is known only where the package is.
        if type(error).__module__.partition(".")[0] != to:
            raise
        raise AxesError(f"{to} refuses: {' '.join(str(error).split())}") from error
    return sent


def _runs(warehouse: Warehouse, study: str) -> Iterator[TrackerRun]:
    """Each study and its models, then the jobs."""
    metrics: Any = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    verdicts: Any = defaultdict(dict)
    for row in warehouse.query(_METRICS, {"study": study}).to_pylist():
        named = metrics[row["study_id"]][row["model"]][row["step"]]
        for suffix, column in (("", "estimate"), ("_lower", "lower"), ("_upper", "upper")):
            if row[column] is not None:
                named[row["name"] + suffix] = row[column]
        if row["verdict"] is not None:
            verdicts[row["study_id"]][row["name"]] = row["verdict"]
    for row in warehouse.query(_RUNS, {"study": study}).to_pylist():
        study_id, started = row["study_id"], row["started_at"]
        times = (started, row["finished_at"] or started)
        counts = {name: count for name in _COUNTS if (count := row.pop(name)) is not None}
        settings, status = _settings(row), row["status"]
        if study_id is None:
            name = f"{row['command']} {row['model'] or ''}".strip()
            yield TrackerRun(
                "job", name, row["run_id"], "jobs", status, *times, settings, {0: counts}
            )
        for model in sorted(metrics[study_id]):
            kind, own = ("model", {"model": model}) if model else ("study", verdicts[study_id])
            key = content_key(study_id, model) if model else study_id
            name = f"{row['command']} {study_id[:8]} {model}".strip()
            found = metrics[study_id][model]
            yield TrackerRun(kind, name, key, study_id, status, *times, settings | own, found)


def _settings(row: dict[str, Any]) -> dict[str, str | float]:
    """What a row says; of a study also its definition, each key of it and each version by name."""
    stated = {name: value for name, value in row.items() if name != "library_versions"}
    stated |= json.loads(stated.pop("parameters") or "{}")
    for name, version in json.loads(row["library_versions"] or "{}").items():
        stated[f"version/{name}"] = version
    return {
        name: value if isinstance(value, int | float) else str(value)
        for name, value in stated.items()
        if value is not None
    }


def _wandb(project: str, is_online: bool) -> Callable[[TrackerRun], bool]:
    """Write runs to ./wandb (or below $WANDB_DIR), which `wandb sync` uploads, or upload them."""
    import wandb

    # The machine, its git repository and the running script are not of the results.
    private = ("x_disable_meta", "x_disable_machine_info", "x_disable_stats", "disable_git")
    settings = wandb.Settings(
        silent=True, console="off", reinit="create_new", **dict.fromkeys(private, True)
    )
    folder = Path(os.environ.get("WANDB_DIR", ""), "wandb")

    def put(sent: TrackerRun) -> bool:
        if not is_online and any(folder.glob(f"offline-run-*-{sent.key}")):
            return False
        run = wandb.init(
            project=project,
            id=sent.key,
            name=sent.name,
            group=sent.group,
            job_type=sent.kind,
            config=sent.settings,
            mode="online" if is_online else "offline",
            resume="allow" if is_online else None,
            settings=settings,
        )
        is_new = not run.resumed
        for step, named in sorted(sent.metrics.items()) if is_new else ():
            run.log(named, step=step)
        run.finish(exit_code=int(sent.status != "finished"))
        return is_new

    return put


def _mlflow(project: str, is_online: bool) -> Callable[[TrackerRun], bool]:
    """Write runs to $MLFLOW_TRACKING_URI, else MLflow's database or, without SQL, to ./mlruns."""
    # Read when it is imported: no usage statistics, and a folder in the place of a database.
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE"):
        os.environ.setdefault(name, "true")
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    default = "sqlite:///mlflow.db" if find_spec("sqlalchemy") else "file:mlruns"
    uri = os.environ.get("MLFLOW_TRACKING_URI", default)
    if not is_online and not re.match("file:|sqlite:|[^:]+$", uri):
        raise AxesError(f"MLFLOW_TRACKING_URI is {uri}: give --online to send there")
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(project)
    experiment = found.experiment_id if found else client.create_experiment(project)

    def named(name: str) -> str:
        return re.sub(r"[^\w./ -]", "_", name)

    def put(sent: TrackerRun) -> bool:
        stored = client.search_runs([experiment], f"tags.`axes.key` = '{sent.key}'")
        # A run that was cut off is written to its end.
        if stored and stored[0].info.status != "RUNNING":
            return False
        started, finished = (
            int(at.timestamp() * 1000) for at in (sent.started_at, sent.finished_at)
        )
        tags = {"axes.key": sent.key, "axes.kind": sent.kind, "axes.group": sent.group}
        run = stored[0] if stored else client.create_run(experiment, started, tags, sent.name)
        params = [Param(named(key), str(value)) for key, value in sent.settings.items()]
        client.log_batch(run.info.run_id, params=params)
        for step, metrics in sent.metrics.items():
            rows = [Metric(named(key), value, finished, step) for key, value in metrics.items()]
            client.log_batch(run.info.run_id, metrics=rows)
        status = {"failed": "FAILED", "interrupted": "KILLED"}.get(sent.status, "FINISHED")
        client.set_terminated(run.info.run_id, status, finished)
        return True

    return put
