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

import pyarrow as pa

from axes.warehouse.errors import AxesError
from axes.warehouse.handle import Warehouse
from axes.warehouse.progress import track
from axes.warehouse.writer import content_key

# Of a study, the row of the first job that evaluated it, with its definition and verdicts.
_RUNS = """
with jobs as (
    select
        run_id, command, parameters ->> '$.model' as model, status, started_at,
        coalesce(finished_at, started_at) as finished_at,
        [rows, tokens, epoch(finished_at) - epoch(started_at)] as counts,
        json_object(
            'command', command, 'run_id', run_id, 'device', device, 'seed', seed,
            'code_version', code_version, 'versions', library_versions::json
        ) as settings
    from runs
    where status != 'running'
),

decided as (
    select study_id, json_group_object(concat_ws('/', 'claims', claim, prompt_set), verdict) as said
    from v_claims
    group by study_id
)

select
    jobs.* replace (json_merge_patch(settings, evaluations.parameters, said) as settings), study_id
from evaluations
inner join jobs using (run_id)
left join decided using (study_id)
where starts_with(study_id, $study)
qualify row_number() over (partition by study_id order by started_at, run_id) = 1
union all by name
select *
from jobs
where $study = ''
order by study_id is null, started_at, run_id, study_id
"""
# What was fitted or evaluated on other prompts than those named is left out.
_METRICS = """
with estimates as (
    select
        study_id, coalesce(model, '') as model, coalesce(layer, 0) as step,
        concat_ws('/', prompt_set, scorer, metric) as name, estimate, lower, upper
    from evaluations
    where
        component is null and judged_on is null
        and coalesce(fitted_on, prompt_set, '') = coalesce(prompt_set, '')
        and regexp_full_match(metric, 'auroc(_difference)?|tpr_at_fpr_0.01|r2_held_out|cosine_.*')
    union all
    select study_id, '', 0, concat_ws('/', 'claims', claim, prompt_set), estimate, lower, upper
    from v_claims
)

select study_id, model, step, name || replace('_' || part, '_estimate', '') as name, value
from (unpivot estimates on estimate, lower, upper into name part value value)
where starts_with(study_id, $study)
order by all
"""


@dataclass(frozen=True)
class TrackerRun:
    """One run to send; a metric has its step, which is the layer, its name and its value."""

    kind: str
    name: str
    key: str
    group: str
    status: str
    times: tuple[datetime, datetime]
    settings: dict[str, object]
    metrics: list[tuple[int, str, float]]


def send(
    warehouse: Warehouse, to: str, *, project: str, study: str | None, is_online: bool
) -> pa.Table:
    """Send a study (the start of its id), or all studies and jobs, to `wandb` or `mlflow`.

    A row for each run; those that are not new stay as they were. Raises `AxesError` without the
    package, for an unknown study, for a tracker on the network unless `is_online`, and where the
    tracker refuses.
    """
    runs = list(_runs(warehouse, study or ""))
    if study and not runs:
        raise AxesError(f"no study {study} in the warehouse: see `axes list studies`")
    try:
        put = (_wandb if to == "wandb" else _mlflow)(project, is_online)
        with track(f"log to {to}", len(runs), "runs") as advance:
            are_new = []
            for run in runs:
                are_new.append(put(run))
                advance(1)
    except ModuleNotFoundError as error:
        raise AxesError(f"{to} is not installed: pip install 'safety-axes[{to}]'") from error
    except Exception as error:
        # Each has a tree of exceptions, whose base is known only where the package is.
        if type(error).__module__.partition(".")[0] != to:
            raise
        raise AxesError(f"{to} refuses: {' '.join(str(error).split())}") from error
    counts = [len(run.metrics) for run in runs]
    shown = {name: [getattr(run, name) for run in runs] for name in ("kind", "name", "key")}
    return pa.table({**shown, "metric_count": counts, "is_new": are_new})


def _runs(warehouse: Warehouse, study: str) -> Iterator[TrackerRun]:
    """Each study and its models, then the jobs."""
    metrics: Any = defaultdict(lambda: defaultdict(list))
    for row in warehouse.query(_METRICS, {"study": study}).to_pylist():
        named = (row["step"], row["name"], row["value"])
        metrics[row["study_id"]][row["model"]].append(named)
    for row in warehouse.query(_RUNS, {"study": study}).to_pylist():
        stated = (row["status"], (row["started_at"], row["finished_at"]))
        settings = json.loads(row["settings"])
        study_id, command = row["study_id"], row["command"]
        if study_id is None:
            counts = zip(("rows", "tokens", "seconds"), row["counts"], strict=True)
            found = [(0, name, value) for name, value in counts if value is not None]
            own = {**settings, "model": row["model"], "status": row["status"]}
            name = f"{command} {row['model'] or ''}".strip()
            yield TrackerRun("job", name, row["run_id"], "jobs", *stated, own, found)
        for model, found in sorted(metrics[study_id].items()):
            key = content_key(study_id, model) if model else study_id
            kind, own = ("model", {**settings, "model": model}) if model else ("study", settings)
            name = f"{command} {study_id[:8]} {model}".strip()
            yield TrackerRun(kind, name, key, study_id, *stated, own, found)


def _wandb(project: str, is_online: bool) -> Callable[[TrackerRun], bool]:
    """Write runs to ./wandb (or below $WANDB_DIR), which `wandb sync` uploads, or upload them."""
    import wandb

    # The machine, its git repository and the running script are not of the results.
    settings = wandb.Settings(
        silent=True,
        console="off",
        reinit="create_new",
        disable_git=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
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
        for step, name, value in sent.metrics if is_new else ():
            run.log({name: value}, step=step)
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

    # A whole path: MLflow keeps what it opened by its name, whatever folder that was in.
    here = Path.cwd()
    runs = (here / "mlruns").as_uri()
    default = f"sqlite:///{here}/mlflow.db" if find_spec("sqlalchemy") else runs
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
        started, finished = (int(at.timestamp() * 1000) for at in sent.times)
        tags = {"axes.key": sent.key, "axes.kind": sent.kind, "axes.group": sent.group}
        run = stored[0] if stored else client.create_run(experiment, started, tags, sent.name)
        params = [Param(named(key), str(value)) for key, value in sent.settings.items()]
        client.log_batch(run.info.run_id, params=params)
        metrics = [Metric(named(name), x, finished, step) for step, name, x in sent.metrics]
        for start in range(0, len(metrics), 500):
            client.log_batch(run.info.run_id, metrics=metrics[start : start + 500])
        status = {"failed": "FAILED", "interrupted": "KILLED"}.get(sent.status, "FINISHED")
        client.set_terminated(run.info.run_id, status, finished)
        return True

    return put
