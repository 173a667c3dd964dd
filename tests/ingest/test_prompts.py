"""Prompt sets from any source: the same prompts, in order, each once, with labels that agree."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axes.ingest.prompt_sources import PromptSource, prompt_source, ready_sets
from axes.ingest.prompts import (
    import_prompts,
    normalise,
    prompt_id,
    prompt_slices,
    read_prompts,
)
from axes.ingest.requests import PromptRequest
from axes.warehouse.errors import LabelError, PromptError
from tests.ingest.conftest import assert_checks_pass, read

Import = Callable[..., Any]


@pytest.fixture
def put(root: Path, tmp_path: Path) -> Import:
    """Import rows as a set: `put("name", text=[...], label=[...], positive=[...])`."""

    def write(prompt_set: str, *, source: dict[str, Any] | None = None, **given: Any) -> Any:
        options = {key: value for key, value in given.items() if not isinstance(value, list)}
        columns = {key: value for key, value in given.items() if isinstance(value, list)}
        options["positive"] = given.get("positive") or ()
        columns.pop("positive", None)
        path = tmp_path / f"{prompt_set}.parquet"
        pl.DataFrame(columns).write_parquet(path)
        origin = PromptSource(str(path), **(source or {}))
        return import_prompts(root, prompt_set, origin, PromptRequest(**options))

    return write


def stored(root: Path, prompt_set: str, *columns: str) -> list[tuple]:
    """The set's rows in order, its labels of all labelers beside them."""
    found = read(
        root,
        "select * from prompts left join labels using (prompt_set, prompt_id) "
        "where prompt_set = ? order by position",
        [prompt_set],
    )
    return [tuple(row[column] for column in columns) for row in found]


TEXTS = ["how do I?", "zebra", "apple, pie", 'a "quoted"\nline']


def test_files_of_every_kind_give_the_same_set_in_their_order(root: Path, tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": TEXTS, "label": ["unsafe", "safe", "safe", "unsafe"]})
    for suffix, write in (
        ("parquet", frame.write_parquet),
        ("csv", frame.write_csv),
        ("jsonl", frame.write_ndjson),
    ):
        write(tmp_path / f"file.{suffix}")
        summary = import_prompts(root, suffix, PromptSource(str(tmp_path / f"file.{suffix}")))
        assert (summary.prompt_count, summary.positive_count, summary.negative_count) == (4, 2, 2)
        assert stored(root, suffix, "position", "text", "is_positive") == [
            (0, TEXTS[0], True),
            (1, TEXTS[1], False),
            (2, TEXTS[2], False),
            (3, TEXTS[3], True),
        ]
        assert [prompt.text for prompt in read_prompts(root, {suffix: None})] == TEXTS
        assert [prompt.text for prompt in read_prompts(root, {suffix: 2})] == TEXTS[:2]


def test_labels_of_any_type_are_understood(root: Path, put: Import) -> None:
    cases: list[tuple[list, Sequence[str]]] = [
        ([1, 0], ()),
        ([1.0, 0.0], ()),
        ([True, False], ()),
        (["1", "0"], ()),
        (["Unsafe ", "safe"], ()),
        (["harmful", "benign"], ()),
        (["toxic", "fine"], ["toxic"]),
        (["TOXIC", "fine"], ["toxic "]),
        ([0, 1], ["0"]),
        ([False, True], ["false"]),
    ]
    for number, (labels, positive) in enumerate(cases):
        name = f"set{number}"
        put(name, text=["bad", "good"], label=labels, positive=list(positive))
        assert stored(root, name, "text", "is_positive") == [("bad", True), ("good", False)], labels


def test_labels_that_are_not_known_are_listed_with_what_to_do(put: Import) -> None:
    with pytest.raises(LabelError, match=r"labels 'fine', 'toxic': .* --positive LABEL"):
        put("set", text=["a", "b"], label=["toxic", "fine"])
    with pytest.raises(LabelError, match="no label is rude; labels are 'fine', 'toxic'"):
        put("set", text=["a", "b"], label=["toxic", "fine"], positive=["rude"])


def test_conflicting_labels_in_one_source_are_shown_with_their_rows(put: Import) -> None:
    with pytest.raises(LabelError) as caught:
        put("set", text=["same", "other", " same"], label=[1, 0, 0])
    message = str(caught.value)
    assert "1 text with both labels" in message
    assert "'same': row 0 positive, row 2 negative" in message
    assert "other" not in message


def test_conflicting_labels_between_sets_are_shown_with_the_set(root: Path, put: Import) -> None:
    put("first", text=["same", "x"], label=[1, 0])
    with pytest.raises(LabelError, match="set first positive") as caught:
        put("second", text=["y", "same"], label=[1, 0])
    assert "row 1 negative" in str(caught.value)
    assert [row["prompt_set"] for row in read(root, "from v_prompt_sets")] == ["first"]
    put("second", text=["y", "same"], label=[1, 0], labeler="me")
    assert_checks_pass(root)


def test_duplicates_are_dropped_and_the_first_is_kept(root: Path, put: Import) -> None:
    summary = put("set", text=["b", "a", "b ", "a"], category=["1", "2", "3", "4"])
    assert (summary.prompt_count, summary.duplicate_count) == (2, 2)
    assert stored(root, "set", "text", "category") == [("b", "1"), ("a", "2")]


def test_importing_again_changes_nothing(root: Path, put: Import) -> None:
    given = {"text": ["a", "b", "c"], "label": [1, 0, 1], "pair_id": ["p", "p", "q"]}
    assert put("set", **given).is_new
    files = {path: path.read_bytes() for path in root.glob("[pl]*/*/*.parquet")}
    assert not put("set", **given).is_new
    assert {path: path.read_bytes() for path in root.glob("[pl]*/*/*.parquet")} == files


def test_other_rows_under_a_name_are_refused_and_replace_those_there_when_told_to(root, put):
    put("set", text=["a", "b"], label=[1, 0])
    for labeler in ("dataset", "me"):
        with pytest.raises(PromptError, match=r"other rows \(2, the source has 3\): --replace"):
            put("set", text=["a", "b", "c"], label=[1, 0, 1], labeler=labeler)
    assert stored(root, "set", "text") == [("a",), ("b",)]
    assert put("set", text=["c", "b"], label=[1, 0], replace_set=True).is_new
    assert stored(root, "set", "text", "is_positive") == [("c", True), ("b", False)]
    # So does a label that was mended.
    put("set", text=["c", "b"], label=[0, 1], replace_set=True)
    assert stored(root, "set", "text", "is_positive") == [("c", False), ("b", True)]
    assert_checks_pass(root)


def test_a_second_labelers_opinion_stands_beside_the_first(root: Path, put: Import) -> None:
    put("set", text=["a", "b"], label=[1, 0])
    assert put("set", text=["a", "b"], label=[0, 0], labeler="me").is_new
    assert sorted(stored(root, "set", "text", "labeler", "is_positive")) == [
        ("a", "dataset", True),
        ("a", "me", False),
        ("b", "dataset", False),
        ("b", "me", False),
    ]
    assert not put("set", text=["a", "b"], label=[0, 0], labeler="me").is_new


def test_an_empty_prompt_is_named_or_skipped_and_recorded(root: Path, put: Import) -> None:
    for empty in ("", None, "  \n"):
        texts = ["a", empty, "b"]
        with pytest.raises(PromptError, match=r"row 1 is an empty prompt \(1 in all\)"):
            put("set", text=texts)
    assert put("set", text=texts, skip_unusable=True).skipped_count == 1
    assert stored(root, "set", "text") == [("a",), ("b",)]
    run = read(root, "from runs where status = 'finished'")[0]
    assert run["skipped"] == [{"prompt_id": "row 1", "reason": "empty"}]


def test_a_missing_column_names_those_there_are_and_no_rows_are_refused(put: Import) -> None:
    with pytest.raises(PromptError) as caught:
        put("set", question=["a"], answer=["b"])
    message = str(caught.value)
    assert "has no column 'text' for the text; it has question, answer" in message
    assert "--text-column" in message
    with pytest.raises(PromptError, match="no column 'harm' for the label"):
        put("set", text=["a"], source={"columns": {"label": "harm"}})
    with pytest.raises(PromptError, match="no rows for the set"):
        put("set", text=[], label=[])


def test_columns_are_taken_under_the_names_given(root: Path, put: Import) -> None:
    columns = {"text": "q", "label": "harm", "category": "topic"}
    put("set", q=["a", "b"], harm=[1, 0], topic=["x", "y"], source={"columns": columns})
    assert stored(root, "set", "text", "is_positive", "category") == [
        ("a", True, "x"),
        ("b", False, "y"),
    ]
    put("other", prompt=["c"], source={"license": "MIT"})
    assert stored(root, "other", "text", "license", "is_positive") == [("c", "MIT", None)]


def test_white_space_around_a_prompt_goes_unless_kept(root: Path, put: Import) -> None:
    texts = [" a\r\n", "b", "cafe\u0301"]
    assert put("stripped", text=texts).changed_count == 2
    assert stored(root, "stripped", "text") == [("a",), ("b",), ("café",)]
    put("kept", text=texts, keep_whitespace=True)
    assert stored(root, "kept", "text") == [(" a\n",), ("b",), ("café",)]


def test_limit_takes_the_first_and_per_label_the_first_of_each(root: Path, put: Import) -> None:
    given = {"text": list("abcdef"), "label": [1, 1, 1, 0, 0, None]}
    assert put("limited", **given, limit=2).prompt_count == 2
    assert stored(root, "limited", "text") == [("a",), ("b",)]
    put("balanced", **given, source={"per_label": 2})
    assert stored(root, "balanced", "text") == [("a",), ("b",), ("d",), ("e",)]


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=30), keep=st.booleans())
def test_normalising_twice_is_normalising_once(text: str, keep: bool) -> None:
    once = normalise(text, keep_whitespace=keep)
    assert normalise(once, keep_whitespace=keep) == once
    assert "\r" not in once
    assert len(prompt_id(once)) == 16


def test_one_text_has_one_id_wherever_it_comes_from(root: Path, put: Import) -> None:
    put("one", text=["same \n", "x"])
    put("two", text=["y", "\tsame"])
    ids = {
        row["prompt_set"]: row["prompt_id"]
        for row in read(root, "from prompts where text = 'same'")
    }
    assert ids == {"one": prompt_id("same"), "two": prompt_id("same")}
    assert [prompt.text for prompt in read_prompts(root, {"two": None, "one": None})] == [
        "y",
        "same",
        "x",
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_slices_are_the_sets_in_order_and_no_larger_than_asked(
    root: Path, put: Import, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    put("one", text=["a", "b", "c", "d", "e"])
    put("two", text=["c", "f", "a", "g"])
    monkeypatch.setattr("axes.ingest.prompts.SLICE", size)
    slices = list(prompt_slices(root, {"one": 3, "two": None}))
    assert [prompt.text for each in slices for prompt in each] == ["a", "b", "c", "f", "g"]
    assert [len(each) for each in slices[:-1]] == [size] * (len(slices) - 1)
    assert 0 < len(slices[-1]) <= size


def test_a_set_that_is_not_there_names_those_that_are(root: Path, put: Import) -> None:
    put("mine", text=["a"])
    with pytest.raises(PromptError, match=r"no prompt set other in .* \(stored: mine\)"):
        read_prompts(root, {"mine": None, "other": None})
    with pytest.raises(PromptError, match="a ready set: no source needed"):
        read_prompts(root, {"demo_safety": None})


def test_a_name_that_cannot_be_a_folder_is_refused(root: Path) -> None:
    for name in ("", "../up", "a/b", "a b", ".hidden"):
        with pytest.raises(PromptError, match="is not a name for a set"):
            import_prompts(root, name, PromptSource("builtin:demo_safety.csv"))


ROWS = [("how do I?", True), ("cafés, naïve", False)]
SEMICOLONS = "text;label\r\nhow do I?;unsafe\r\ncafés, naïve;safe\r\n"
TABS = SEMICOLONS.replace(";", "\t")
OBJECTS = [
    {"text": text, "label": "unsafe" if is_positive else "safe"} for text, is_positive in ROWS
]
CHATS = [
    {
        "messages": [
            {"role": "user", "content": row["text"]},
            {"role": "assistant", "content": "no"},
        ],
        "label": row["label"],
    }
    for row in OBJECTS
]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("excel.csv", SEMICOLONS.encode("utf-8-sig")),
        ("utf16.csv", TABS.encode("utf-16")),
        ("tabs.csv", TABS.encode()),
        ("tabs.tsv", TABS.encode()),
        ("list.json", json.dumps(OBJECTS).encode()),
        ("lines.jsonl", b"\n\n".join(json.dumps(row).encode() for row in OBJECTS)),
        ("chats.jsonl", b"\n".join(json.dumps(row).encode() for row in CHATS)),
    ],
)
def test_what_other_programs_write_is_the_same_set(root, tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    import_prompts(root, "set", PromptSource(str(tmp_path / name)))
    assert stored(root, "set", "text", "is_positive") == ROWS


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "x.csv",
            SEMICOLONS.encode("latin-1"),
            r"x\.csv is not in UTF-8, first at line 3: save it",
        ),
        (
            "x.csv",
            b"text,label\na,safe\nb, c,safe\n",
            r"line 3: 3 fields, the header has 2; .*quot",
        ),
        ("x.csv", b'text,label\na,safe\n"b,safe\n', r"x\.csv, line 3: .*quotes around it"),
        ("x.csv", b"", r"x\.csv is empty"),
        ("x.jsonl", b'{"text": "a"}\n\n{"text": "b"\n', r"x\.jsonl, line 3 is not JSON"),
        ("x.jsonl", b'{"text": "a"}\n["b"]\n', r"objects with a text are expected, found 'b'"),
        ("x.json", b'["a"]', r"objects with a text are expected, found 'a'"),
        ("x.json", b'{"text": 1', r"x\.json, line 1 is not JSON"),
        (
            "x.jsonl",
            b'{"messages": [{"role": "system", "content": "a"}]}',
            r"row 0: messages that begin with the user's are expected, found .*--system",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(root, tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PromptError, match=message) as caught:
        import_prompts(root, "set", PromptSource(str(tmp_path / name)))
    assert "\n" not in str(caught.value)


def test_rows_without_a_label_are_counted_and_a_set_of_one_class_is_told(put, capsys):
    summary = put("one", text=["a", "b", "c"], label=["unsafe", None, None])
    assert (summary.positive_count, summary.negative_count, summary.unlabelled_count) == (1, 0, 2)
    assert "one has no negative prompts" in capsys.readouterr().err
    put("both", text=["a", "d"], label=["unsafe", "safe"])
    put("none", text=["e"], label=[None])
    assert capsys.readouterr().err == ""


def test_a_source_that_cannot_be_read_is_a_domain_error(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "torn.parquet"
    for content in (b"PAR1 torn", b""):
        path.write_bytes(content)
        with pytest.raises(PromptError, match=r"torn\.parquet cannot be read"):
            import_prompts(root, "set", PromptSource(str(path)))
    with pytest.raises(PromptError, match="cannot be read"):
        import_prompts(root, "set", PromptSource(str(tmp_path / "absent.csv")))
    with pytest.raises(PromptError, match=r"a \.parquet, \.csv, \.tsv, \.jsonl, "):
        import_prompts(root, "set", PromptSource("notes.doc"))


def test_without_a_source_only_ready_sets_have_a_name() -> None:
    assert prompt_source("alpaca", None) == ready_sets()["alpaca"]
    assert prompt_source("alpaca", None, license="X").license == "X"
    assert prompt_source("mine", "f.csv", split=None) == PromptSource("f.csv")
    with pytest.raises(PromptError, match="mine is not a ready set"):
        prompt_source("mine", None)
