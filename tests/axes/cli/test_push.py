"""Axes and activations to a hub on this machine and back, through the client library."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hf_xet
import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi, constants

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


def test_activations_that_are_pushed_come_back_by_import(hub, tiny, tmp_path):
    push = ("push", "small", "me/rows", "--prompts", "marked", "--layers", "1,3")
    ok("activations", *push, "--root", tiny / "lake")
    words = ("--root", tmp_path / "lake")
    (imported,) = printed("activations", "import", "hf:me/rows", *words)
    assert (imported["model"], imported["rows"], imported["prompt_set"]) == ("small", 80, "marked")
    question = """
        select text, label, layer, vector from v_activations
        where model = 'small' and prompt_set = 'marked' and layer in (1, 3)
        order by text, layer
    """
    read, original = (opened(root).query(question) for root in (tmp_path / "lake", tiny / "lake"))
    assert len(read) == 80 and read.equals(original)
    # Again, at the commit.
    there = f"hf:me/rows@{hub.repositories['me/rows'].commit}"
    (again,) = printed("activations", "import", there, *words)
    assert (again["rows"], again["known_rows"]) == (0, 80)
    ok("push", "native/small/1/marked", NAME, "--root", tiny / "lake")
    message = refused("activations", "import", f"hf:{NAME}", *words)
    assert f"{NAME} holds no activations.parquet" in message
    assert "me/rows holds no card.json" in refused("import", "hf:me/rows", *words)
    assert "nothing.npz does not exist" in refused("activations", "import", "nothing.npz", *words)


def test_large_files_go_up_in_chunks_as_the_real_hub_takes_them(hub, lake, tmp_path, monkeypatch):
    """By hf_xet, into the store on a disk that it has for tests."""
    store = f"local://{tmp_path / 'cas'}"
    hub.xet_endpoint = store
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    upload = HfApi.upload_folder

    def kept(api: HfApi, **options: Any) -> Any:
        shutil.copytree(options["folder_path"], tmp_path / "axis")
        return upload(api, **options)

    monkeypatch.setattr(HfApi, "upload_folder", kept)
    ok("push", NATIVE, NAME, "--root", lake)
    exported = tmp_path / "axis" / "direction.safetensors"
    assert hub.in_chunks == {exported.name: hashlib.sha256(exported.read_bytes()).hexdigest()}
    (chunked,) = hf_xet.hash_files([str(exported)])
    info = hf_xet.XetFileInfo(chunked.hash, chunked.file_size)
    with hf_xet.XetSession().new_file_download_group(endpoint=store) as group:
        group.start_download_file(info, str(tmp_path / "read"))
    assert (tmp_path / "read").read_bytes() == exported.read_bytes()


def test_a_folder_of_axes_is_a_registry_also_in_a_repository(hub, lake, tmp_path):
    folder = hub.uploads / "registry"
    beta = "native/beta/1/labelled"
    for name, axis in (("first", NATIVE), ("second", beta)):
        ok("export", axis, "--to", "hub", "-o", folder / name, "--root", lake)
    page = "select name, space_model, layer from axes where kind = 'native' order by name"
    ok("sql", page, "-o", folder / "README.md", "--root", lake)
    assert f"| {NATIVE}" in (folder / "README.md").read_text()
    rows = axes.import_axes(folder, root=lake).rows
    assert [row["name"] for row in rows] == ["imported/alpha/1/first", "imported/beta/1/second"]
    hub.repositories["me/registry"] = ServedRepository(folder, "2" * 40)
    fetched = axes.import_axes("hf:me/registry", root=lake).rows
    assert [row["axis_id"] for row in fetched] == [row["axis_id"] for row in rows]
    assert not any(row["is_new"] for row in fetched)
    # A warehouse without one of the models takes the others.
    part = tmp_path / "part"
    ok("warehouse", "subset", part, "--model", "alpha", "--root", lake)
    found = axes.import_axes(folder, root=part)
    assert [row["model"] for row in found.rows] == ["alpha"]
    assert any("left out" in note and "second" in note for note in found.notes)
    ok("warehouse", "init", "--root", tmp_path / "empty")
    message = refused("import", folder, "--root", tmp_path / "empty")
    assert "nothing of" in message and message.count("left out") == 2


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
