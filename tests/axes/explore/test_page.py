"""The page in a real browser: what a researcher does, with mouse and keyboard.

Skipped where no Chromium is found; `make test-browser` installs one, and then skips nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import DESK, PHONE, browser, needs_chromium, no_sideways_scroll
from tests.explored import DISPUTED, FORBIDDEN, MARKUP, MODELS, prompt_text

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

pytestmark = needs_chromium
__all__ = ["browser"]


@pytest.fixture
def page(browser, address: str) -> Iterator:
    """A page that fails the test where a script fails, or where it asks another machine."""
    context = browser.new_context(viewport=DESK)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda line: faults.append(line.text) if is_fault(line) else None)
    opened.on(
        "request",
        lambda one: None if one.url.startswith((address, "blob:")) else faults.append(one.url),
    )
    yield opened
    markup = opened.locator("main i, main b, img, #vg-tooltip-element i").count()
    context.close()
    assert markup == 0
    assert faults == []


def is_fault(line) -> bool:
    """A browser writes each refused statement to its console too."""
    return line.type == "error" and "status of 400" not in line.text


def test_sql_is_completed_asked_and_drawn(page, address: str) -> None:
    page.goto(f"{address}#/sql")
    area = page.get_by_label("SQL statement")
    area.fill("")
    area.press_sequentially("select model, layer, projection from v_projec")
    choices = page.get_by_role("listbox", name="Completions")
    expect(choices.get_by_role("option").nth(1)).to_have_text(re.compile("v_projections"))
    area.press("ArrowDown")
    area.press("Tab")
    expect(area).to_have_value("select model, layer, projection from v_projections")
    expect(choices).to_be_hidden()
    area.press_sequentially(" where projec")
    choices.get_by_role("option").first.click()
    expect(area).to_have_value(re.compile("where projection$"))
    area.press_sequentially(" > 0")
    area.press("Control+Enter")
    rows = page.get_by_role("region", name="Rows")
    expect(rows.get_by_role("row").nth(1)).to_contain_text(re.compile("alpha|beta"))
    expect(page.get_by_role("status")).to_contain_text(re.compile(r"\d+ rows, .* ms"))
    page.get_by_role("button", name="Chart").click()
    # The first chart waits for its library, which takes seconds to be put together.
    expect(page.locator(".chart canvas")).to_be_visible(timeout=60_000)
    expect(rows).to_be_hidden()
    page.get_by_label("Mark").select_option("bar")
    page.get_by_label("Colour").select_option(label="model")
    expect(page.locator(".chart canvas")).to_be_visible()
    assert page.locator(".chart .error").count() == 0


def test_an_error_is_shown_an_answer_saved_and_markup_is_text(page, address: str) -> None:
    page.goto(f"{address}#/sql")
    # The first statement of the page has been answered: a loaded machine takes seconds for it.
    expect(page.get_by_role("cell").first).to_be_visible(timeout=30_000)
    area = page.get_by_label("SQL statement")
    area.fill("select nothing from v_projections")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text('"nothing" not found')
    area.fill("select range as a from range(600)")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as CSV").click()
    assert saved.value.suggested_filename == "answer.csv"
    assert len(Path(saved.value.path()).read_text().splitlines()) == 601
    area.fill("select '<img src=x onerror=alert(1)>' as \"<b>name</b>\"")
    area.press("Control+Enter")
    # Not to_have_text at once: it fails on the many cells of the first result and does not wait.
    expect(page.get_by_role("cell")).to_have_count(1, timeout=30_000)
    expect(page.get_by_role("cell")).to_have_text("<img src=x onerror=alert(1)>")
    assert page.locator("main img, main b").count() == 0


def run(page, sql: str) -> None:
    """Run a statement and wait for its answer, before which the status says `running`."""
    area = page.get_by_label("SQL statement")
    area.fill(sql)
    area.press("Control+Enter")
    expect(page.get_by_role("status")).to_contain_text(" ms", timeout=30_000)


def drawn(page):
    """The chart's canvas; the first chart waits for its library, which takes seconds."""
    canvas = page.locator(".chart canvas")
    expect(canvas).to_be_visible(timeout=60_000)
    return canvas


def chosen(page) -> dict[str, str]:
    """What the controls of the chart say."""
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("#answer label")]
            .map((label) => [
                label.firstChild.textContent,
                label.querySelector("select").selectedOptions[0].textContent,
            ]))"""
    )


def test_a_chart_has_all_rows_or_says_how_many(page, address: str) -> None:
    page.goto(f"{address}#/sql")
    expect(page.get_by_role("cell").first).to_be_visible(timeout=30_000)
    run(page, "select range as a from range(6300)")
    expect(page.get_by_role("status")).to_contain_text("6300 rows, the first 500 shown")
    page.get_by_role("button", name="Chart").click()
    drawn(page)
    expect(page.get_by_text("The chart has all 6300 rows.")).to_be_visible()
    # The view stays for the next statement, and says so where it cannot.
    run(page, "select range as a from range(30000)")
    expect(page.get_by_text("The chart has the first 20000 of 30000 rows.")).to_be_visible()
    run(page, "select 1 as a where false")
    expect(page.get_by_role("status")).to_contain_text("0 rows, nothing to draw")


def test_single_points_and_every_kind_are_drawn(page, address: str) -> None:
    page.goto(f"{address}#/sql")
    expect(page.get_by_role("cell").first).to_be_visible(timeout=30_000)
    run(
        page,
        "from (values ('a', 's', 'native', 1, 0.5), ('a', 's', 'native', 2, 0.6), "
        "('b', 't', 'universal', 1, 0.7)) as v(model, prompt_set, kind, layer, auroc)",
    )
    page.get_by_role("button", name="Chart").click()
    drawn(page)
    shown = {"x": "layer", "y": "auroc", "Colour": "model", "Shape": "prompt_set"}
    assert chosen(page) == {**shown, "Panels": "kind", "Mark": "line"}
    # The point of `b`, in its colour.
    assert coloured_pixels(page, "#e69f00") > 10


def coloured_pixels(page, colour: str) -> int:
    return page.locator(".chart canvas").evaluate(
        """(canvas, colour) => {
            const wanted = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
            const pen = canvas.getContext("2d");
            const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
            // Below the legend, whose symbols have the colour too.
            const first = 4 * canvas.width * Math.floor(canvas.height / 4);
            let count = 0;
            for (let at = first; at < data.length; at += 4) {
                count += wanted.every((value, index) => Math.abs(data[at + index] - value) < 12);
            }
            return count;
        }""",
        colour,
    )


def test_a_matrix_is_a_heat_map(page, address: str) -> None:
    page.goto(f"{address}#/sql")
    expect(page.get_by_role("cell").first).to_be_visible(timeout=30_000)
    run(page, "from (values ('a', 'b', 0.5), ('b', 'a', 0.5)) as v(model, other_model, cosine)")
    page.get_by_role("button", name="Chart").click()
    drawn(page)
    shown = {"x": "other_model", "y": "model", "Colour": "cosine", "Mark": "rect"}
    assert chosen(page) == {**shown, "Shape": "none", "Panels": "none"}


def test_a_name_stands_apart_and_the_popup_closes(page, address: str) -> None:
    page.goto(f"{address}#/sql")
    expect(page.get_by_role("cell").first).to_be_visible(timeout=30_000)
    area = page.get_by_label("SQL statement")
    page.get_by_text("tables and views").click()
    name = page.locator(".names").get_by_role("button", name="v_study", exact=True)
    area.fill("select 1 from")
    name.click()
    expect(area).to_have_value("select 1 from v_study")
    area.fill("")
    name.click()
    expect(area).to_have_value("from v_study")
    area.fill("")
    area.press_sequentially("select model from v_proj")
    choices = page.get_by_role("listbox", name="Completions")
    expect(choices).to_be_visible()
    area.press("Control+Enter")
    expect(choices).to_be_hidden()


def test_a_link_opens_a_query_and_statements_are_kept(page, address: str) -> None:
    page.goto(f"{address}#/sql")
    expect(page.get_by_role("cell").first).to_be_visible(timeout=30_000)
    run(page, "select range as a, range % 3 as b from range(7)")
    expect(page.get_by_role("status")).to_contain_text("7 rows")
    page.get_by_role("button", name="Chart").click()
    drawn(page)
    page.get_by_label("Mark").select_option("bar")
    link = page.url
    run(page, "select 5 as five")
    expect(page.get_by_role("status")).to_contain_text("1 row,")
    page.goto("about:blank")
    page.goto(link)
    expect(page.get_by_role("status")).to_contain_text("7 rows")
    drawn(page)
    assert chosen(page)["Mark"] == "bar"
    page.get_by_label("History").select_option(label="select 5 as five")
    expect(page.get_by_role("status")).to_contain_text("1 row,")


def test_a_bad_link_is_no_choice(page, address: str) -> None:
    page.goto(f"{address}#/sql?sql=select+1+as+a&view=Chart&chart=9,<b>,0,0,0,nothing")
    drawn(page)
    assert chosen(page)["x"] == "a" and page.locator("main b").count() == 0


def test_the_page_begins_with_what_is_stored_and_leads_by_key_to_an_axis(page, address) -> None:
    page.goto(address)
    stored = page.get_by_role("table", name="Stored")
    expect(stored.get_by_role("row", name="prompts 65")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("This warehouse has no study yet")).to_be_visible()
    page.get_by_role("link", name="Axes", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="universal/demo")).to_be_visible()
    names = page.get_by_label("Axis").locator("option").all_text_contents()
    assert names[0] == "universal/demo" and len(names) == 5
    highest = page.get_by_role("table", name="Highest prompts")
    assert FORBIDDEN not in page.content()
    highest.get_by_role("button").first.focus()
    page.keyboard.press("Enter")
    expect(highest).to_contain_text(FORBIDDEN)
    expect(page.get_by_role("img", name=re.compile("Prompts by projection"))).to_be_visible()
    page.get_by_label("Projections").select_option(label="beta on marked")
    expect(page.get_by_role("heading", name="Projections: beta on marked")).to_be_visible()
    cosines = page.get_by_role("table", name="Cosines with other axes")
    cosines.get_by_role("link", name="native/alpha").click()
    expect(page.get_by_role("heading", name="native/alpha", exact=True)).to_be_visible()


def test_prompts_are_sorted_by_disagreement_and_uncovered_by_a_click(page, address: str) -> None:
    page.goto(f"{address}#/prompts")
    table = page.get_by_role("table", name="Prompts")
    first = table.locator("tbody tr").first
    expect(first).to_contain_text(prompt_text(int(DISPUTED[1:])))
    expect(first).to_contain_text("100 %")
    page.get_by_role("button", name="Disagreement").click()
    expect(first).not_to_contain_text("100 %")
    page.get_by_role("button", name="Prompt", exact=True).click()
    expect(first.get_by_role("button")).to_be_visible()
    assert FORBIDDEN not in page.content()
    first.get_by_role("button", name="Show hidden text").click()
    expect(first).to_contain_text(prompt_text(0))
    assert page.content().count(FORBIDDEN) == 1
    first.get_by_role("button", name="Hide this text again").click()
    assert FORBIDDEN not in page.content()
    page.get_by_label("Label").select_option("safe")
    expect(page.get_by_role("status")).to_contain_text("30 prompts")
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("page 2 of 2")).to_be_visible()
    page.get_by_label("Search").fill("number 7")
    expect(first).to_contain_text(prompt_text(7))
    expect(page.get_by_role("status")).to_contain_text("1 prompt,")
    page.reload()
    expect(first).to_contain_text(prompt_text(7))


def test_tokens_are_stepped_through_by_key_and_uncovered_by_key(page, address: str) -> None:
    page.goto(f"{address}#/steps?model={MODELS[0]}")
    tokens = page.get_by_role("group", name="Tokens").get_by_role("button")
    expect(tokens).to_have_count(8)
    assert FORBIDDEN not in page.content()
    page.get_by_role("button", name="Show the hidden text").focus()
    page.keyboard.press("Enter")
    expect(tokens.first).to_have_text(f" {FORBIDDEN}0", use_inner_text=True)
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(tokens.nth(2)).to_be_focused()
    expect(page.locator(".readout")).to_contain_text("step2")
    page.keyboard.press("End")
    expect(tokens.nth(7)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".readout")).to_contain_text("step6")
    expect(page.locator(".curve .mean").last).to_be_visible()
    colours = {
        tokens.nth(index).evaluate("x => getComputedStyle(x).backgroundColor") for index in range(8)
    }
    assert len(colours) > 2, "tokens are coloured by their projection"
    page.get_by_label("Axis").select_option(label="native/alpha")
    expect(tokens.first).to_have_text(f" {FORBIDDEN}0", use_inner_text=True)
    page.get_by_role("list", name="Completions").get_by_role("link").nth(1).click()
    expect(tokens.first).to_have_text(" calm0", use_inner_text=True)


def point_of(page, channels: str) -> tuple[float, float]:
    """Where the chart, left of its legend, has more of the first of `channels` than the second."""
    at = drawn(page).evaluate(
        """(canvas, [most, least]) => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            for (let y = 0; y < height; y++) for (let x = 0; x < width * 0.85; x++) {
                const at = 4 * (y * width + x);
                if (data[at + most] - data[at + least] > 90) return [x + 3, y + 3];
            }
        }""",
        [{"r": 0, "b": 2}[channel] for channel in channels],
    )
    box = drawn(page).bounding_box()
    return box["x"] + at[0], box["y"] + at[1]


def test_a_box_over_a_scatter_selects_prompts_and_gives_their_sql(page, address: str) -> None:
    page.goto(f"{address}#/scatter")
    box = drawn(page).bounding_box()
    tip = page.locator("#vg-tooltip-element")
    page.mouse.move(*point_of(page, "br"))
    expect(tip).to_contain_text("(hidden)")
    page.mouse.move(*point_of(page, "rb"))
    expect(tip).to_contain_text(MARKUP)
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.45 * box["width"], box["y"] + 0.7 * box["height"], steps=4)
    page.mouse.up()
    status = page.get_by_role("status")
    expect(status).to_contain_text(re.compile(r"\d+ prompts of 60 in the box"))
    count = int(status.inner_text().split()[0])
    assert 0 < count < 60 and FORBIDDEN not in page.content()
    rows = page.get_by_role("table", name="Selected prompts").locator("tbody tr")
    assert rows.count() == min(25, count)
    page.wait_for_url(re.compile("box="))
    link = page.url
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy SQL").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.get_by_label("SQL of the selected prompts").inner_text()
    page.get_by_role("link", name="Open as SQL").click()
    expect(status).to_contain_text(f"{count} rows,", timeout=30_000)
    page.goto("about:blank")
    page.goto(link)
    expect(status).to_have_text(f"{count} prompts of 60 in the box")
    # The same without a pointer.
    page.get_by_role("button", name="Clear box").press("Enter")
    expect(status).to_contain_text("all 60 prompts")
    page.get_by_label("x from").fill("0")
    page.keyboard.press("Enter")
    expect(status).not_to_contain_text("all 60")
    expect(page.get_by_label("SQL of the selected prompts")).to_contain_text("x.projection >= 0")
    page.get_by_label("Vertical axis").focus()
    page.get_by_label("Vertical axis").select_option(label="beta · native/beta")
    expect(page.get_by_label("Vertical axis")).to_be_focused()


def test_layers_by_models_are_a_heat_map_with_links(page, address: str) -> None:
    page.goto(f"{address}#/layers?value=cosine")
    drawn(page)
    table = page.get_by_role("table", name="Cosine with the layer before by layer")
    expect(table.get_by_role("row", name="2 0.800 0.800")).to_be_visible()
    page.get_by_label("Value").select_option(label="AUROC")
    expect(page.get_by_role("table", name="AUROC by layer").get_by_role("link")).to_have_count(2)
    assert "value=auroc" in page.url
    drawn(page).click(position={"x": 200, "y": 30})
    expect(page.get_by_role("heading", name="native/alpha", exact=True)).to_be_visible()


def test_two_versions_of_a_model_are_compared(page, address: str) -> None:
    page.goto(f"{address}#/differences")
    expect(page.get_by_role("heading", name="beta<b> minus alpha, on marked")).to_be_visible()
    drawn(page)
    moves = page.get_by_role("table", name="Moves along axes")
    expect(moves).to_contain_text("-2 to -1")
    moves.get_by_role("link", name="universal/demo").click()
    expect(page.get_by_role("heading", name="universal/demo")).to_be_visible()


NATIVE_BETA = re.compile("axis_id%20%3D%20'native-beta'")


def test_completions_of_two_models_are_stepped_through_side_by_side(page, address: str) -> None:
    page.goto(f"{address}#/steps?model={MODELS[0]}&label=safe")
    first, second = (
        page.get_by_label("Completion", exact=True),
        page.get_by_label("Completion compared with"),
    )
    first.get_by_label("Compare with").select_option("beta")
    expect(second.get_by_role("heading")).to_contain_text("beta · safe")
    first.get_by_role("group", name="Tokens").get_by_role("button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    here = second.locator(".token[aria-current]")
    expect(here).to_have_text(" calm2", use_inner_text=True)
    page.wait_for_url(re.compile("step=2"))
    page.reload()
    expect(here).to_have_text(" calm2", use_inner_text=True)
    expect(first.locator(".token[aria-current]")).to_have_text(" calm2", use_inner_text=True)
    # An axis that the other model lacks has one of its kind there.
    first.get_by_label("Axis").select_option(label="native/alpha")
    expect(second.get_by_role("link", name="As SQL")).to_have_attribute("href", NATIVE_BETA)
    # Another prompt is compared with the same model, and hidden on both sides.
    page.get_by_label("Label").select_option("unsafe")
    expect(second.get_by_role("heading")).to_contain_text("beta · unsafe")
    assert FORBIDDEN not in page.content()


def test_shortcuts_are_listed_and_can_be_turned_off(page, address: str) -> None:
    page.goto(address)
    page.keyboard.press("4")
    expect(page).to_have_title("Prompts · axes explore")
    page.get_by_label("Search").press_sequentially("15?")
    expect(page).to_have_title("Prompts · axes explore")
    page.get_by_role("heading", name="axes explore").click()
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(keys).to_contain_text("Run the statement")
    keys.get_by_label("Shortcuts of single keys").uncheck()
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    page.keyboard.press("3")
    expect(page).to_have_title("Prompts · axes explore")
    page.get_by_role("button", name="Keys").click()
    keys.get_by_label("Shortcuts of single keys").check()
    keys.get_by_role("button", name="Close").click()
    page.locator("h1").click()
    page.keyboard.press("/")
    expect(page.get_by_label("Prompt set")).to_be_focused()


PLACES = ["", "sql", "axis", "prompts", "scatter", "layers", "steps", "differences"]


@pytest.mark.parametrize("place", PLACES)
def test_a_page_fits_a_phone_and_every_control_has_a_name(page, address: str, place: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto(f"{address}#/{place}")
    expect(page.locator("main > *").first).to_be_visible(timeout=30_000)
    page.wait_for_load_state("networkidle")
    assert no_sideways_scroll(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, textarea, a")]
            .filter((one) => !(one.ariaLabel || one.textContent.trim() || one.labels?.length))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    # A finger's size; tokens and links within a line are text.
    small = page.evaluate(
        """() => [...document.querySelectorAll("button:not(.token, .link), select, input, nav a")]
            .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 44)
            .map((one) => one.outerHTML)"""
    )
    assert small == []
