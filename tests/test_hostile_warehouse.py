"""A warehouse of a stranger: whatever its texts say, commands read it and nothing else happens."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import axes
from axes.analysis.report.section import latest_study
from axes.explore.server import application
from axes.warehouse.connection import connect
from axes.warehouse.errors import AxesError
from tests.commands import axes as run
from tests.hostile import ATTACK, hostile, put_hostile

SECRET = "a line that no command may show"
# Rows of a warehouse in a terminal: \n and \t, and no other control character.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
NOUNS = ["axes", "studies", "models", "prompt-sets", "poolings", "labelers", "calibrations"]
UNIVERSAL, MODEL, SET = "universal", hostile("alpha"), hostile("labelled")
COMMANDS = [
    *(("list", noun) for noun in NOUNS),
    ("list", "axes", "--format", "markdown"),
    ("list", "axes", "--format", "json"),
    ("sql", "from v_auroc; from v_study_warnings; from runs"),
    ("sql", "select error(text) from prompts"),
    ("sql", "--safe", "from prompts"),
    ("sql", "--safe", "select error(text) from prompts"),
    ("study", "claims"),
    ("study", "diff", "{study}", "{study}"),
    ("report", "-o", "{out}/report.html", "--figures", "{out}/figures"),
    ("report", "-o", "{out}/report.md"),
    ("export", UNIVERSAL, "--to", "npz", "-o", "{out}/axis.npz"),
    ("export", UNIVERSAL, "--to", "hub", "-o", "{out}/hub"),
    ("export", "universal/", "--to", "json", "-o", "{out}/axis.json"),
    ("activations", "export", MODEL, "--prompts", SET, "--to", "npz", "-o", "{out}/rows.npz"),
    ("activations", "export", MODEL, "--prompts", SET, "--to", "parquet", "-o", "{out}/rows"),
    ("diagnose",),
    ("score", UNIVERSAL),
    ("calibrate", UNIVERSAL, "--prompts", SET),
    ("evaluate", MODEL, "--prompts", SET),
    ("fit", MODEL, "--prompts", SET),
    ("fit", "nothing", "--prompts", SET),
    ("drift", "--axis", UNIVERSAL),
    ("explain", UNIVERSAL),
    ("diff", MODEL, MODEL, "--to", hostile("raw"), "--prompts", SET),
    ("plan", MODEL, "--prompts", SET),
    ("study", "--power", "--model", MODEL, "--reference", MODEL, "--prompts", SET, "--align", SET),
    ("compare", "--prompts", SET, "--labeler", hostile("dataset")),
    ("route", "--prompts", SET, "--labeler", hostile("dataset")),
    ("doctor",),
    ("warehouse", "stats"),
    ("warehouse", "open", "{out}/one.duckdb"),
    ("warehouse", "subset", "{out}/subset"),
    ("warehouse", "compact"),
    ("warehouse", "repair"),
    ("warehouse", "vacuum", "--min-age", "0"),
    ("warehouse", "check"),
]
# By their own words (`select error`, a name that is none), or for want of rows in this study.
REFUSED = {("sql", "select error(text) from prompts"), ("sql", "--safe"), ("export", "universal/")}
REFUSED |= {("fit", "nothing"), ("evaluate", MODEL), ("compare", "--prompts")}
REFUSED |= {("route", "--prompts"), ("warehouse", "check"), ("diff", MODEL), ("plan", MODEL)}


@pytest.fixture(scope="module", params=["texts", "texts and ids"])
def lake(reported, tmp_path_factory: pytest.TempPathFactory, request) -> tuple[Path, str]:
    """The hostile root, deep enough in a folder of canaries for its `..`; and the study's id."""
    base = tmp_path_factory.mktemp("canary")
    for folder in (base, base / "a", base / "a" / "b"):
        folder.mkdir(exist_ok=True)
        (folder / "secret.txt").write_text(SECRET)
    study_id = latest_study(connect(reported))
    with_ids = request.param != "texts"
    put_hostile(reported, base / "a" / "b" / "lake", with_ids=with_ids)
    return base / "a" / "b" / "lake", hostile(study_id) if with_ids else study_id


def outside(root: Path) -> dict[Path, bytes]:
    """Every file below the canary folder and not in the root."""
    files = (path for path in root.parents[2].rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if not path.is_relative_to(root)}


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words)[:40])
def test_a_command_prints_plain_text_and_touches_nothing_outside(lake, tmp_path, words):
    root, study = lake
    before = outside(root)
    places = {"{study}": study, "{out}": str(tmp_path)}
    filled = [re.sub(r"{study}|{out}", lambda found: places[found[0]], word) for word in words]
    result = run(*filled, "--root", root)
    trace = "".join(traceback.format_exception(result.exception)[-6:])
    assert result.exception is None or isinstance(result.exception, SystemExit), trace
    # Where ids are sound, a hostile text is a text like any other.
    assert result.exit_code == 0 or study.startswith(ATTACK) or words[:2] in REFUSED, result.output
    assert SECRET not in result.output
    assert not CONTROL.search(result.output), CONTROL.search(result.output)
    assert outside(root) == before


def test_the_page_and_the_functions_read_it_too(lake) -> None:
    root, _ = lake
    before = outside(root)
    with TestClient(application(root, token="t", port=8), base_url="http://127.0.0.1:8/t/") as page:
        for place in ("catalog", "choices", "completions", "completion?generation=x", "start"):
            assert page.get(place).status_code in (200, 400)
        for row in page.get("choices").json()["axes"]:
            found = page.get("axis", params={"axis": row["axis_id"]})
            assert found.status_code == 200 and SECRET not in found.text
        shown = page.get("prompts", params={"prompt_set": SET}).json()
        assert shown["total"] and SECRET not in str(shown)
        drawn = page.get("scatter", params={"prompt_set": SET}).json()
        assert drawn["points"] and SECRET not in str(drawn)
        cells = page.get("layers").json()
        assert cells["cells"] and SECRET not in str(cells)
        assert page.get("differences").status_code == 200
    for function in (
        lambda: axes.read_study(root=root),
        lambda: axes.load_axis("universal", root=root),
        lambda: axes.scan("prompts", root).collect(),
        lambda: axes.connect(root).sql("from v_study").fetchall(),
    ):
        try:
            function()
        except AxesError as error:
            assert len(str(error).splitlines()) >= 1
    assert outside(root) == before
