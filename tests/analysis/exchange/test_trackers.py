"""Studies and jobs in the files of trackers, read back: MLflow's by its client."""

from __future__ import annotations

import json
import shutil
import struct
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

import axes
from tests.commands import printed, refused
from tests.rows import put

_BLOCK = 32768


@pytest.fixture(scope="module")
def lake(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study, and a job whose command line, parameters and message have a prompt."""
    root = shutil.copytree(pair, tmp_path_factory.mktemp("trackers") / "lake")
    secret = "the secret prompt"
    put(
        root,
        "runs",
        {
            "run_id": "20260101T000000-abcdef",
            "command": "ingest traces",
            "parameters": json.dumps({"model": "alpha", "system": secret}),
            "command_line": f"axes ingest traces alpha --assistant-prefill '{secret}'",
            "message": secret,
            "skipped": [{"prompt_id": "x", "reason": secret}],
            "library_versions": json.dumps({"torch": "2.0"}),
            "status": "failed",
            "tokens": 12,
            "started_at": datetime(2026, 1, 1, tzinfo=UTC),
        },
    )
    return root


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def expected(root: Path) -> dict[str, dict[str, float]]:
    """Model -> metric -> value, of the table of studies."""
    rows = axes.connect(root).sql("from v_study").pl().to_dicts()
    return {
        row["model"]: {
            "labelled/native/auroc": row["native"],
            "labelled/native/auroc_lower": row["native_lower"],
            "labelled/universal_cross_validated/auroc": row["universal_cross_validated"],
            "aligned/cosine_universal": row["cosine_universal"],
        }
        for row in rows
    }


def logged(file: Path) -> list:
    """The records of a .wandb file: a log of LevelDB, after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, records, parts = file.read_bytes(), [], b""
    place = 7
    while place < len(data):
        if _BLOCK - place % _BLOCK < 7:
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # A record of its own, or the last part of one.
            records.append(Record.FromString(parts))
            parts = b""
    return records


def test_studies_and_jobs_in_mlflow_and_not_twice(lake, folder):
    from mlflow.tracking import MlflowClient

    sent = axes.log("mlflow", project="mine", root=lake)
    assert sent.pl()["is_new"].all() and {row["kind"] for row in sent.rows} == {
        *("study", "model", "job"),
    }
    again = printed("log", "--to", "mlflow", "--project", "mine", "--root", lake)
    assert [{**row, "is_new": False} for row in sent.rows] == again
    client = MlflowClient(f"file:{folder}/mlruns")
    experiment = client.get_experiment_by_name("mine").experiment_id
    runs = {run.data.tags["axes.key"]: run for run in client.search_runs([experiment])}
    assert len(runs) == len(sent)
    models = {
        run.data.params["model"]: run
        for run in runs.values()
        if run.data.tags["axes.kind"] == "model"
    }
    for model, values in expected(lake).items():
        data = models[model].data
        assert {name: data.metrics[name] for name in values} == pytest.approx(values)
        assert data.params["align"] == "benign" and "torch" in data.params["versions"]
        (point,) = client.get_metric_history(models[model].info.run_id, "labelled/native/auroc")
        assert point.step == int(
            axes.connect(lake).sql("select max(layer) from axes").fetchall()[0][0]
        )
    (study,) = (run for run in runs.values() if run.data.tags["axes.kind"] == "study")
    assert study.data.params["claims/shared_axis/labelled"]
    assert "labelled/bag_of_words/auroc" in study.data.metrics
    job = runs["20260101T000000-abcdef"]
    assert job.info.status == "FAILED" and job.data.metrics["tokens"] == 12
    text = "".join(file.read_text() for file in folder.rglob("*") if file.is_file())
    assert "secret" not in text and "marked" not in text


def test_mlflow_writes_to_the_folder_that_is_current(lake, tmp_path, monkeypatch):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert all(row["is_new"] for row in axes.log("mlflow", root=lake).rows)
    shutil.rmtree(tmp_path / "first")
    assert not any(row["is_new"] for row in axes.log("mlflow", root=lake).rows)


def test_a_study_in_the_files_of_wandb_and_not_twice(lake, folder, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "")
    study = axes.read_study(root=lake).id
    sent = axes.log("wandb", study=study[:6], root=lake)
    assert [row["kind"] for row in sent.rows] == ["study", "model", "model"]
    files = list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 3
    again = axes.log("wandb", study=study, root=lake)
    assert not again.pl()["is_new"].any()
    assert sorted(folder.glob("wandb/offline-run-*/*.wandb")) == sorted(files)
    read: dict[str, dict] = defaultdict(dict)
    for file in files:
        records = logged(file)
        (run,) = (record.run for record in records if record.HasField("run"))
        assert (run.project, run.run_group) == ("safety-axes", study)
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert "secret" not in str(records) and not any("secret" in str(v) for v in config.values())
        for record in records:
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                read[config.get("model", "")][name] = json.loads(item.value_json)
        assert config["align"] == "benign" and config["versions"]["torch"]
    for model, values in expected(lake).items():
        assert {name: read[model][name] for name in values} == pytest.approx(values)
    assert "claims/shared_axis/labelled" in read[""]


def test_nothing_leaves_this_machine_unless_asked_and_refusals_are_one_line(lake, monkeypatch):
    words = ("log", "--root", lake, "--to")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "give --online to send there" in refused(*words, "mlflow")
    assert "no study nothing in the warehouse" in refused(*words, "wandb", "--study", "nothing")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///no/folder/at/all.db")
    assert "mlflow refuses: " in refused(*words, "mlflow")
    for name in ("wandb", "mlflow.entities"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    for to in ("wandb", "mlflow"):
        assert f"{to} is not installed: pip install 'safety-axes[{to}]'" in refused(*words, to)
