"""Take the pictures of docs/explore.md: python -m docs.explore_pictures --root lake.

Asks the page of `axes explore` in Chromium (`$AXES_CHROMIUM`, default /usr/bin/chromium). Nothing
hidden is uncovered, so no picture shows a text of the positive class.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parent / "pictures"
WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 375, "height": 860}


def _sql(page: Any, address: str) -> None:
    page.goto(f"{address}#/sql")
    page.get_by_label("Examples").select_option(
        label="Does the projection drift during generation?"
    )
    page.get_by_role("button", name="Chart").click()
    page.locator(".chart canvas").wait_for()
    page.wait_for_timeout(500)


def _completing(page: Any, address: str) -> None:
    page.goto(f"{address}#/sql")
    page.get_by_role("region", name="Rows").wait_for()
    area = page.get_by_label("SQL statement")
    area.fill("")
    area.press_sequentially("select model, kind, auroc\nfrom v_a")
    page.get_by_role("option").first.wait_for()


def _prompts(page: Any, address: str) -> None:
    page.goto(f"{address}#/prompts")
    page.get_by_role("table", name="Prompts").wait_for()


def _scatter(page: Any, address: str) -> None:
    page.goto(f"{address}#/scatter?box=5,,4,")
    page.locator(".chart canvas").wait_for()
    page.wait_for_timeout(500)


def _layers(page: Any, address: str) -> None:
    page.goto(f"{address}#/layers")
    page.locator(".chart canvas").wait_for()
    page.wait_for_timeout(500)


def _steps(page: Any, address: str) -> None:
    page.goto(f"{address}#/steps?label=safe")
    page.locator(".curve").wait_for()
    page.get_by_label("Compare with").select_option(index=1)
    page.locator(".curve").nth(1).wait_for()
    page.locator(".token[tabindex='0']").first.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")


PICTURES: dict[str, tuple[Callable[[Any, str], None], dict[str, int], str]] = {
    "explore-sql": (_sql, WIDE, "light"),
    "explore-completing": (_completing, PHONE, "light"),
    "explore-prompts": (_prompts, WIDE, "light"),
    "explore-scatter": (_scatter, WIDE, "light"),
    "explore-layers": (_layers, WIDE, "dark"),
    "explore-steps": (_steps, WIDE, "light"),
    "explore-steps-dark": (_steps, WIDE, "dark"),
    "explore-prompts-phone": (_prompts, PHONE, "dark"),
}


@click.command()
@click.option("--root", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--folder", type=click.Path(path_type=Path), default=FOLDER)
def main(root: Path, folder: Path) -> None:
    """Take every picture of the warehouse at ROOT."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", "from axes.cli.main import main; main()", "explore"]
    with subprocess.Popen(
        [*command, "--no-browser", "--root", str(root)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with sync_playwright() as started:
            path = os.environ.get("AXES_CHROMIUM", "/usr/bin/chromium")
            browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
            for name, (arrange, size, scheme) in PICTURES.items():
                page = browser.new_page(viewport=size, color_scheme=scheme)
                arrange(page, address)
                page.screenshot(path=folder / f"{name}.png")
                page.close()
            browser.close()
        process.terminate()


if __name__ == "__main__":
    main()
