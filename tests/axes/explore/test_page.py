"""The page in a real browser: what a researcher does, with mouse and keyboard.

Skipped where no Chromium is found; `make test-browser` installs one, and then skips nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.explored import DISPUTED, FORBIDDEN, MODELS, prompt_text

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
Page, expect = playwright.Page, playwright.expect

CHROMIUM = os.environ.get("AXES_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"
)
PHONE = {"width": 420, "height": 860}


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser, address: str) -> Iterator:
    """A page that fails the test where a script fails, or where it asks another machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda line: faults.append(line.text) if is_fault(line) else None)
    opened.on(
        "request",
        lambda one: None if one.url.startswith((address, "blob:")) else faults.append(one.url),
    )
    yield opened
    context.close()
    assert faults == []


def is_fault(line) -> bool:
    """A browser writes each refused statement to its console too."""
    return line.type == "error" and "status of 400" not in line.text


def no_sideways_scroll(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_sql_is_completed_asked_and_drawn(page, address: str) -> None:
    page.goto(address)
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
    page.goto(address)
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


@pytest.mark.parametrize("place", ["#/sql", "#/prompts", "#/steps"])
def test_a_page_fits_a_phone_and_every_control_has_a_name(page, address: str, place: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto(f"{address}{place}")
    expect(page.get_by_role("button").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert no_sideways_scroll(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, textarea, a")]
            .filter((one) => !(one.ariaLabel || one.textContent.trim() || one.labels?.length))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []
