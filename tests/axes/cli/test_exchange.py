"""`axes export` and `axes import` as they are typed."""

from __future__ import annotations

import json
import shlex
import shutil

import numpy as np

from axes.warehouse.connection import connect, rows
from axes.warehouse.maintenance.repair import restore_commands
from tests.commands import ok, printed, refused

NATIVE = "native/alpha/2/labelled"


def test_export_prints_the_path_and_how_to_read_it(lake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = ok("export", NATIVE, "--to", "repeng", "--root", lake)
    assert result.stdout == "native-alpha-2-labelled.gguf\n"
    assert result.stderr == (
        "read it with: repeng.ControlVector.import_gguf(native-alpha-2-labelled.gguf)\n"
    )
    result = ok("export", NATIVE, "--to", "gguf", "--all-layers", "--root", lake)
    assert result.stdout == "native-alpha-2-labelled-all.gguf\n"
    assert result.stderr.startswith("left out: axis native/alpha/0/labelled at layer 0")


def test_import_prints_axes_and_says_what_it_assumed(lake, tmp_path):
    path = tmp_path / "mine.svec"
    ok("export", NATIVE, "--to", "svec", "-o", path, "--root", lake)
    content = json.loads(path.read_text())
    del content["card"]
    path.write_text(json.dumps(content))
    result = ok("import", path, "--model", "alpha", "--root", lake, "--format", "json")
    (row,) = json.loads(result.stdout)
    assert row["name"] == "imported/alpha/2/mine" and row["is_new"] and row["layer"] == 2
    assert "format svec" in result.stderr and "taken for: site resid_post" in result.stderr
    assert "not known (--fitted-on)" in result.stderr
    assert printed("score", "imported/alpha/2/mine", "--root", lake)[0]["new_count"] > 0


def test_a_refused_file_is_one_line_and_registers_nothing(lake, tmp_path):
    path = tmp_path / "axis.json"
    path.write_text('{"vector": [1, 2, 3]}')
    before = rows(connect(lake), "select count(*) as n from axes")
    message = refused("import", path, "--model", "alpha", "--layer", "1", "--root", lake)
    assert "3 numbers, and the blocks of alpha put out 16" in message
    assert rows(connect(lake), "select count(*) as n from axes") == before


def test_a_lost_import_has_a_command_that_brings_it_back(lake, tmp_path):
    path = tmp_path / "axis.npy"
    np.save(path, np.ones(16, dtype=np.float32))
    ok("import", path, "--model", "alpha", "--layer", "0", "--name", "x", "--root", lake)
    statement = "select run_id, axis_id from axes where kind = 'imported'"
    (row,) = rows(connect(lake), statement)
    command = restore_commands(lake, [row["run_id"]])[row["run_id"]]
    assert "--layer 0" in command
    for file in (lake / "axes").glob("*.parquet"):
        if file.stem != "schema":
            shutil.move(file, tmp_path / file.name)
    ok(*shlex.split(command)[1:])
    (again,) = rows(connect(lake), statement)
    assert again["axis_id"] == row["axis_id"]
