"""The report in a real browser: nothing is clipped, on a desk and on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chromium import DESK, PHONE, browser, needs_chromium, no_sideways_scroll

pytestmark = needs_chromium
__all__ = ["browser"]


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def page(browser, written: Path, request):
    """The report with its charts drawn; the test fails where a script does."""
    context = browser.new_context(viewport=request.param)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.goto(written.as_uri())
    opened.wait_for_function("document.documentElement.dataset.drawn")
    yield opened
    context.close()
    assert faults == []


def test_no_chart_is_wider_than_its_place(page) -> None:
    clipped = page.evaluate(
        """() => [...document.querySelectorAll("[data-chart]")]
            .filter((place) => place.scrollWidth > place.clientWidth)
            .map((place) => place.dataset.chart)"""
    )
    assert clipped == []
    assert no_sideways_scroll(page)


def test_the_results_fit_and_what_does_not_shows_an_edge(page) -> None:
    wide = page.evaluate(
        """() => [...document.querySelectorAll(".scroll")]
            .filter((place) => place.scrollWidth > place.clientWidth)
            .map((place) => [
                place.closest("section").id, getComputedStyle(place).backgroundImage,
            ])"""
    )
    # Only provenance, with its hashes, may need more than the width of a desk.
    assert {name for name, _ in wide} <= {"axes", "models", "runs"}
    assert all("linear-gradient" in image for _, image in wide)
    if page.viewport_size == PHONE:
        assert wide == []


def test_the_answer_is_on_the_first_screen(page) -> None:
    answer = page.locator(".answers li")
    assert "The models share an axis." in answer.first.inner_text()
    assert answer.first.bounding_box()["y"] < page.viewport_size["height"] / 2
