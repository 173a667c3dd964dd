from __future__ import annotations

import json
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from axes.doctor import FAIL, NOTE, PASS, Finding, examine
from axes.warehouse.storage.layout import init_root
from axes.warehouse.storage.ledger import locked
from tests.commands import axes, ok

TOKEN = "hf_secretsecretsecretsecretsecretsec"


def findings(root: Path, check: str) -> list[Finding]:
    found = [finding for finding in examine(root) if finding.check == check]
    assert found, check
    return found


def test_a_sound_installation_has_no_failure_and_every_other_line_says_what_to_do(root):
    found = list(examine(root))
    assert [finding for finding in found if finding.result == FAIL] == []
    assert all(finding.to_do for finding in found if finding.result == NOTE)
    assert {"python", "torch", "duckdb", "default device", "threads", "cache", "root"} <= {
        finding.check for finding in found
    }


def test_the_command_exits_with_one_where_something_fails(root):
    words = ["doctor", "--format", "json", "--root", root]
    ok(*words)
    (root / "warehouse.json").write_text('{"schema_version": 999}')
    broken = axes(*words)
    assert broken.exit_code == 1
    (failed,) = (row for row in json.loads(broken.stdout) if row["result"] == FAIL)
    assert failed["check"] == "root" and "schema version 999" in failed["detail"]


def test_a_package_that_is_missing_or_old_fails_with_the_command_that_mends_it(root, monkeypatch):
    needed = ['duckdb>=2.0; extra == "speed"', "nothing-of-that-name>=1", "click>=99"]
    needed += ['no-such-thing; extra == "x"', 'not-for-us; python_version < "3"']
    monkeypatch.setattr("axes.doctor.requires", lambda _: needed)
    found = {finding.check: finding for finding in examine(root)}
    missing, old, extra = (
        found[name] for name in ("nothing-of-that-name", "click", "no-such-thing")
    )
    assert (missing.result, missing.to_do) == (FAIL, "pip install 'nothing-of-that-name>=1'")
    assert old.result == FAIL and "needed is >=99" in old.detail
    assert extra.result == NOTE and "safety-axes[x]" in str(extra.to_do)
    assert found["duckdb"].result == PASS and "not-for-us" not in found


def test_no_secret_is_printed(root, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("AXES_JUDGE_KEY", TOKEN)
    result = axes("doctor", "--root", root)
    assert "set (not shown)" in result.stdout and TOKEN not in result.output


def test_a_variable_that_nothing_reads_is_named(root, monkeypatch):
    monkeypatch.setenv("AXES_ROOTS", "x")
    (found,) = findings(root, "environment")
    assert found.detail == "nothing reads AXES_ROOTS (did you mean AXES_ROOT?)"


def test_a_job_that_runs_is_seen_and_one_that_ended_is_not(root):
    with locked(root, "some-model"):
        (held,) = findings(root, "root locks")
    assert held.result == NOTE and "some-model" in held.detail
    assert findings(root, "root locks")[0].result == PASS


def test_little_disk_is_a_note(root, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("axes.doctor.shutil.disk_usage", lambda _: usage(10, 9, 1))
    assert findings(root, "root")[0].result == findings(root, "cache")[0].result == NOTE


def test_a_root_that_is_not_there_is_no_failure(tmp_path):
    (found,) = findings(tmp_path / "nowhere", "root")
    assert found.result == NOTE and "axes warehouse init" in str(found.to_do)


def test_too_many_threads_are_noted(root, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 10_000)
    assert "OMP_NUM_THREADS" in str(findings(root, "threads")[0].to_do)


@pytest.mark.parametrize("is_offline", [True, False])
def test_whether_the_hub_is_asked_is_said(root, monkeypatch, is_offline):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", is_offline)
    assert findings(root, "hub")[0].result == (NOTE if is_offline else PASS)


def test_a_cache_that_cannot_be_written_is_noted(root, tmp_path, monkeypatch):
    monkeypatch.setenv("AXES_CACHE", str(tmp_path))
    monkeypatch.setattr("axes.doctor.os.access", lambda path, _: Path(path) != tmp_path)
    init_root(root)
    assert "read only" in findings(root, "cache")[0].detail


def test_without_torch_the_rest_is_still_examined(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert findings(root, "device")[0].result == FAIL
    assert findings(root, "root")[0].result == PASS
