"""Headers of SQL files become comments; what a view passes through keeps its meaning."""

from __future__ import annotations

from axes.warehouse.tables.comments import column_comments, read_header

MARTS = {
    "v_a": "-- One row per prompt.\n--\n-- mine: of a\ncreate view v_a as from stg_prompts",
    "v_b": "-- One row per prompt.\ncreate view v_b as from v_a",
    "v_c": "-- One row per b.\n--\n-- text: both\n"
    "create view v_c as from v_b join stg_generations -- not stg_labels",
}
COLUMNS = {"v_a": ["prompt_id", "mine"], "v_b": ["mine"], "v_c": ["mine", "text", "label", "new"]}


def test_a_header_is_a_text_and_columns_that_may_take_several_lines() -> None:
    header = read_header(
        "-- One row\n-- per a: b.\n--\n-- x: one\n--   two\n-- y: 3\nselect 1 -- z: 4"
    )
    assert header.text == "One row\nper a: b."
    assert header.columns == {"x": "one two", "y": "3"}


def test_a_header_without_columns_is_all_text() -> None:
    assert read_header("-- One row.\nselect 1").columns == {}


def test_a_column_keeps_its_meaning_through_the_views_that_pass_it_on() -> None:
    known = column_comments(MARTS, COLUMNS)
    assert known["v_a"]["prompt_id"] == known["prompts"]["prompt_id"]
    assert known["v_b"] == {"mine": "of a"}


def test_an_own_entry_wins_and_what_nobody_explains_has_no_comment() -> None:
    assert column_comments(MARTS, COLUMNS)["v_c"] == {"mine": "of a", "text": "both"}
