from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from axes.warehouse.render import MOST_ROWS, html_record, html_table


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
texts = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), min_size=1)


@given(texts, texts)
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
