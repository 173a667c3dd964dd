"""Results as text, files and HTML."""

from __future__ import annotations

import io
import json
import math
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import click
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axes.cli.options import FORMATS
from axes.warehouse.connection import connect, query
from axes.warehouse.render import MOST_ROWS, html_record, html_table, render, show

ROWS = [
    {"name": "a|b,\n\"c\" 'd'", "count": 3, "score": 0.1 + 0.2, "is_set": True, "list": [1, 2]},
    {"name": "é漢😀", "count": -1, "score": 1e-9, "is_set": False, "list": []},
    {"name": None, "count": None, "score": None, "is_set": None, "list": None},
]
TABLE = pa.Table.from_pylist(
    ROWS,
    schema=pa.schema(
        {
            "name": pa.string(),
            "count": pa.int64(),
            "score": pa.float64(),
            "is_set": pa.bool_(),
            "list": pa.list_(pa.int32()),
        }
    ),
)
EMPTY = TABLE.slice(0, 0)
NAMES = TABLE.column_names


def lines(table: pa.Table, output_format: str) -> list[str]:
    return render(table, output_format).decode().splitlines()


def one(value: object, output_format: str = "table") -> str:
    """How a single value is shown in a table."""
    return lines(pa.table({"x": [value]}), output_format)[2]


@pytest.mark.parametrize("table", [TABLE, EMPTY], ids=["rows", "no rows"])
def test_parquet_gives_back_the_table_itself_and_json_the_rows(table: pa.Table) -> None:
    assert pq.read_table(io.BytesIO(render(table, "parquet"))).equals(table)
    assert json.loads(render(table, "json")) == table.to_pylist()


def test_json_keeps_letters_and_has_null_where_a_number_is_not_finite() -> None:
    assert "é漢😀" in render(TABLE, "json").decode()
    table = pa.table({"x": [1.5, math.nan], "v": [[math.inf, 2.0], []]})
    rows = json.loads(render(table, "json"), parse_constant=lambda name: pytest.fail(name))
    assert rows == [{"x": 1.5, "v": [None, 2.0]}, {"x": None, "v": []}]


def test_csv_gives_back_numbers_texts_and_nulls_and_lists_as_json() -> None:
    back = pl.read_csv(render(TABLE, "csv"))
    assert back.columns == NAMES
    for name in ("name", "count", "score", "is_set"):
        assert back[name].to_list() == [row[name] for row in ROWS]
    assert back["list"].to_list() == ["[1, 2]", "[]", None]
    assert lines(EMPTY, "csv") == [",".join(NAMES)]


texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(texts, numbers, st.integers(-(2**63), 2**63 - 1)), min_size=1))
def test_any_text_and_number_round_trips_through_json_and_csv(cells):
    schema = pa.schema({"text": pa.string(), "number": pa.float64(), "whole": pa.int64()})
    written = [dict(zip(schema.names, row, strict=True)) for row in cells]
    table = pa.Table.from_pylist(written, schema=schema)
    assert json.loads(render(table, "json")) == written
    kinds = {"text": pl.String, "number": pl.Float64, "whole": pl.Int64}
    # A spreadsheet would run a formula: it gets a quote, everything else is as it was.
    for row in written:
        if row["text"][0] in "=+-@\t\r" and not re.fullmatch(r"[-+]?[\d.]+", row["text"]):
            row["text"] = f"'{row['text']}"
    assert pl.read_csv(render(table, "csv"), schema=kinds).to_dicts() == written


@pytest.mark.parametrize(
    ("text", "shown"),
    [("=1+1", "'=1+1"), ("@a", "'@a"), ("-a", "'-a"), ("-0.5", "-0.5"), ("a=1", "a=1")],
)
def test_a_formula_is_text_in_csv(text: str, shown: str) -> None:
    assert lines(pa.table({"a": [text]}), "csv") == ["a", shown]


@pytest.mark.parametrize("output_format", ["table", "markdown", "json"])
def test_control_characters_are_spelled_out(output_format: str) -> None:
    texts = ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\x7f", "\u202e"]
    shown = render(pa.table({"a\x1b": texts}), output_format).decode()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    assert all(word in shown for word in ("[2J", "]0;title", "31m"))
    if output_format == "json":
        assert [row["a\x1b"] for row in json.loads(shown)] == texts
    else:
        assert r"\x1b[2J" in shown and r"\u202e" in shown


def test_markdown_has_no_html_link_or_image_of_a_cell() -> None:
    texts = ["<img src=x>", "![a](http://b)", "&lt;", "a|b"]
    shown = render(pa.table({"a": texts}), "markdown").decode().splitlines()[2:]
    assert shown == [
        "| &lt;img src=x> |",
        r"| ![a]\(http://b) |",
        "| &amp;lt; |",
        r"| a\|b |",
    ]


@pytest.mark.parametrize("output_format", FORMATS)
def test_what_duckdb_returns_can_be_shown_in_every_format(root: Path, output_format: str) -> None:
    statement = """
        select sum(x) as total, 1.5 as fraction, count(*) as n, date '2025-01-02' as day,
            timestamptz '2025-01-02 03:04:05+00' as at, { 'a': [1, null] } as nested,
            map { 'k': 1 } as pairs, 'demo'::enum ('demo', 'x') as kind, null as nothing,
            interval 14 months as age, [interval 1 day] as ages, 'ab'::blob as bytes,
            { 'a': interval 1 hour } as inner_age,
            '6f9619ff-8b86-d011-b42d-00c04fc964ff'::uuid as id, 1 as n, true as is_set
        from range(4) as numbers (x)
    """
    result = query(connect(root), statement)
    data = render(result, output_format)
    assert data.endswith(b"PAR1" if output_format == "parquet" else b"\n")
    if output_format == "json":
        (row,) = json.loads(data)
        assert (row["total"], row["fraction"], row["n"], row["n_1"]) == (6, 1.5, 4, 1)
        assert row["nested"] == {"a": [1, None]}
        assert row["day"] == "2025-01-02"
        assert datetime.fromisoformat(row["at"]) == datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    if output_format == "csv":
        row = pl.read_csv(data).row(0, named=True)
        assert (row["total"], row["fraction"], row["n_1"], row["kind"]) == (6, 1.5, 1, "demo")
        assert json.loads(row["nested"]) == {"a": [1, None]}
        assert (row["age"], row["ages"]) == ("1 year 2 months", '["1 day"]')
        assert json.loads(row["inner_age"]) == {"a": "01:00:00"}


def test_a_table_has_a_header_a_rule_the_rows_and_their_number() -> None:
    assert lines(pa.table({"model": ["gpt2", "a"], "n": [1, 234]}), "table") == [
        "model  n",
        "─────  ───",
        "gpt2   1",
        "a      234",
        "(2 rows)",
    ]
    assert lines(pa.table({"n": [1]}), "table")[-1] == "(1 row)"
    assert lines(EMPTY, "table")[-1] == "(0 rows)"


def test_every_row_of_a_table_is_one_line_whatever_it_holds() -> None:
    assert len(lines(TABLE, "table")) == 2 + len(ROWS) + 1
    assert len(lines(TABLE, "markdown")) == 2 + len(ROWS)
    assert one("a\n\tb  c") == "a b c"


def test_markdown_has_as_many_cells_in_every_row() -> None:
    header, rule, *body = lines(TABLE, "markdown")
    assert header == "| name | count | score | is_set | list |"
    assert rule == "| --- | --- | --- | --- | --- |"
    for line in body:
        assert line.replace("\\|", "").count("|") == len(NAMES) + 1
    assert body[0].startswith("| a\\|b,")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (0.0, "0.0000"),
        (0.73456, "0.7346"),
        (-0.5, "-0.5000"),
        (0.00012345, "0.0001234"),
        (12345.678, "1.235e+04"),
        (float("nan"), "nan"),
        (12345678, "12345678"),
        (True, "True"),
        ([0.5] * 4, "[0.5, 0.5, 0.5, 0.5]"),
        ([0.5, 1.0, -2.0, 0.0, 7.0], "[0.5000, 1.0000, -2.0000, ... 5]"),
        (["a"] * 5, "['a', 'a', 'a', 'a', 'a']"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
    ],
)
def test_a_cell_is_short_enough_to_read(value: object, shown: str) -> None:
    assert one(value) == shown


WIDE = pa.table(
    {"name": ["x" * 70, "b"], "empty": pa.nulls(2, pa.string()), "score": [{"a": [1 / 3]}, None]}
)


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (
            100,
            [
                "name" + " " * 58 + "score",
                "─" * 60 + "  " + "─" * 15,
                f"{'x' * 59}…  {{'a': [0.3333]}}",
            ],
        ),
        (70, [f" name = {'x' * 70}", "score = {'a': [0.3333]}", "", " name = b", "(2 rows)"]),
        (None, [f"name{' ' * 68}empty  score"]),
    ],
)
def test_a_table_fits_the_terminal_or_is_a_block_for_each_row(monkeypatch, capsys, width, shown):
    """Off a terminal no cell is cut."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: width is not None)
    monkeypatch.setenv("COLUMNS", str(width))
    show(WIDE, "table")
    assert capsys.readouterr().out.splitlines()[: len(shown)] == shown


def test_programs_get_every_digit_and_the_whole_text() -> None:
    table = pa.table({"score": [1 / 3], "text": ["x" * 500], "list": [[0.5] * 500]})
    for output_format in ("json", "jsonl", "csv", "tsv"):
        text = render(table, output_format).decode()
        assert str(1 / 3) in text
        assert "x" * 500 in text
        assert text.count("0.5") == 500


@pytest.mark.parametrize("output_format", FORMATS)
def test_show_writes_the_same_bytes_to_a_file_or_to_stdout(tmp_path, capfdbinary, output_format):
    show(TABLE, output_format, tmp_path / "out")
    assert capfdbinary.readouterr().out == b""
    show(TABLE, output_format)
    assert capfdbinary.readouterr().out == (tmp_path / "out").read_bytes()
    assert (tmp_path / "out").read_bytes() == render(TABLE, output_format)


def test_parquet_is_not_thrown_at_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(click.UsageError, match="redirect it to a file or a pipe"):
        show(TABLE, "parquet")
    assert capsys.readouterr().out == ""
    show(TABLE, "parquet", tmp_path / "out")
    assert pq.read_table(tmp_path / "out").equals(TABLE)


class _Reader(HTMLParser):
    """Elements in order and the text of each cell."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells and self.tags[-1] in ("td", "th"):
            self.cells[-1] += data


def read(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    return reader


# What HTML itself does not keep apart: other line ends, and NUL.
cell_texts = st.text(
    st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), min_size=1
)


@given(cell_texts, cell_texts)
def test_every_text_comes_out_as_it_went_in_and_makes_no_element(name, value):
    record = read(html_record({name: value}, "c"))
    assert record.cells == [name, value]
    assert record.tags == ["table", "caption", "tbody", "tr", "th", "td"]


def test_an_interval_is_read_with_its_estimate():
    row = {
        "model": "m",
        "native": 0.7,
        "native_lower": 0.61,
        "native_upper": 0.8,
        "estimate": 0.5,
        "lower": None,
        "upper": None,
        "lone_lower": 1,
    }
    assert read(html_table([row], "c")).cells == [
        *("model", "native", "estimate", "lone_lower"),
        *("m", "0.700 (0.610 to 0.800)", "0.500", "1"),
    ]


def test_a_long_table_says_how_much_is_left_out():
    text = html_table([{"n": number} for number in range(MOST_ROWS + 7)], "c", ["a < b"])
    assert text.count("<tr>") == MOST_ROWS + 1
    assert "<p>7 more rows</p>" in text and "<p>a &lt; b</p>" in text


def test_no_rows_are_an_empty_table():
    assert read(html_table([], "c")).tags == ["table", "caption", "thead", "tr", "tbody"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "out.csv"
    path.write_text("old")

    def fills_the_disk(self: Path, data: bytes) -> None:
        self.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fills_the_disk)
    with pytest.raises(OSError, match="No space left"):
        show(pa.table({"a": [1, 2]}), "csv", path)
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"out.csv": "old"}
