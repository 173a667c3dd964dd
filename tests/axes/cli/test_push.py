"""Axes and activations to a hub on this machine and back, through the client library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

import axes
from axes.warehouse.axes import find_axis
from tests.axes.test_commands import universal
from tests.commands import ok, printed, refused
from tests.ingest.hub_server import TOKEN, Hub, ServedRepository, serve
from tests.rows import opened

NAME = "me/axis"
NATIVE = "native/alpha/1/labelled"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub that the client of this process talks to, with a token that may write."""
    (tmp_path / "uploads").mkdir()
    with serve({}) as hub:
        hub.uploads = tmp_path / "uploads"
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def files_of(hub: Hub, name: str = NAME) -> dict[str, Path]:
    return hub.repositories[name].files()


def test_an_axis_that_is_pushed_comes_back_by_import(hub, lake, tmp_path):
    axis = universal(lake)
    (pushed,) = printed("push", axis, NAME, "--root", lake)
    assert (pushed["repository"], pushed["is_new"]) == (NAME, True)
    assert pushed["url"] == f"{hub.endpoint}/{NAME}"
    assert hub.created[0]["visibility"] == "private"
    files = files_of(hub)
    assert files.keys() == {".gitattributes", "README.md", "card.json", "direction.safetensors"}
    readme = files["README.md"].read_text()
    assert readme.startswith("---\n") and "## Limits" in readme and "auroc" in readme
    (imported,) = axes.import_axes(f"hf:{NAME}", root=lake).rows
    assert imported["name"] == "imported/gamma/2/axis"
    found, original = (find_axis(opened(lake), each) for each in (imported["axis_id"], axis))
    np.testing.assert_array_equal(found.vector, original.vector)
    assert found.row_set_hash == original.row_set_hash
    # Again, by the function: what a push made is overwritten.
    again = axes.push(axis, NAME, root=lake).rows[0]
    assert not again["is_new"] and len(hub.created) == 1
    fetched = axes.import_axes(f"hf:{NAME}@{again['commit']}", root=lake).rows
    assert fetched[0]["axis_id"] == imported["axis_id"] and not fetched[0]["is_new"]


def test_every_layer_in_one_public_repository(hub, lake):
    ok("push", NATIVE, NAME, "--all-layers", "--public", "--root", lake)
    assert hub.created[0]["visibility"] == "public"
    assert [row["layer"] for row in axes.import_axes(f"hf:{NAME}", root=lake).rows] == [0, 1, 2]


def test_activations_with_a_card_of_the_data_set(hub, lake):
    words = ("--prompts", "labelled", "--layers", "0,2", "--root", lake)
    (pushed,) = printed("activations", "push", "alpha", "me/rows", *words)
    assert "me/rows" in pushed["url"]
    assert (hub.created[0]["type"], hub.created[0]["visibility"]) == ("dataset", "private")
    files = files_of(hub, "me/rows")
    table = pq.read_table(files["activations.parquet"])
    assert table.num_rows == 160 and table["layer"].unique().to_pylist() == [0, 2]
    readme = files["README.md"].read_text()
    assert "80 of labelled: 40 positive, 40 negative" in readme and "resid_post" in readme
    assert readme.startswith("---\nlicense: other")
    assert not any(text in readme for text in table["text"].to_pylist())


def test_what_no_push_made_stays_as_it_is(hub, lake):
    folder = hub.uploads / NAME
    folder.mkdir(parents=True)
    for name in ("README.md", "model.safetensors"):
        (folder / name).write_text("of somebody")
    hub.repositories[NAME] = ServedRepository(folder, "1" * 40)
    message = refused("push", NATIVE, NAME, "--root", lake)
    assert "me/axis exists and has other content (no card.json): choose a new name" in message
    assert files_of(hub)["README.md"].read_text() == "of somebody" and not hub.created


def test_each_refusal_is_one_line(hub, lake, monkeypatch):
    push = ("push", NATIVE, NAME, "--root", lake)
    hub.forbidden = "other"
    message = refused("push", NATIVE, "other/axis", "--root", lake)
    assert "the hub refuses other/axis (You don't have the rights" in message
    assert "no axis nothing" in refused("push", "nothing", NAME, "--root", lake)
    assert "OWNER/NAME is expected" in refused("push", NATIVE, "a/b/c", "--root", lake)
    hub.outages = 3
    assert "the hub answers 503 for me/axis: try again later" in refused(*push)
    hub.outages = 0
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "Invalid credentials" in refused(*push)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(lake / "none"))
    assert "a push to me/axis needs a token that may write: set HF_TOKEN" in refused(*push)
    assert "check the name, or set HF_TOKEN" in refused("import", f"hf:{NAME}", "--root", lake)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    message = refused(*push)
    assert "cannot reach the hub for me/axis" in message and "cache" not in message
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "me/axis cannot be pushed to: HF_HUB_OFFLINE is set" in refused(*push)
    assert not hub.created
