"""The documentation as a site: built strictly, whole, and with nothing in it from the network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from docs.mathematics import on_page_content

CHECKOUT = Path(__file__).parent.parent

# What a browser fetches by itself, unlike a link that a reader may follow.
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
FETCHED_LINKS = {"stylesheet", "icon", "preconnect", "preload", "prefetch", "modulepreload"}


class _Assets(HTMLParser):
    """Addresses of a page that a browser fetches, and the page's words outside of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        address = given.get(FETCHED.get(tag, ""))
        if tag == "link" and FETCHED_LINKS & set((given.get("rel") or "").split()):
            address = given.get("href")
        if address:
            self.addresses.append(address)


def assets(page: str) -> list[str]:
    parser = _Assets()
    parser.feed(page)
    return parser.addresses


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built strictly: a broken link or anchor fails."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def pages(site: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in site.rglob("*.html")}


def test_every_page_is_there_and_no_source(site: Path) -> None:
    for path in (CHECKOUT / "docs").rglob("*.md"):
        assert (site / path.relative_to(CHECKOUT / "docs")).with_suffix(".html").exists()
    for name in ("cli", "modules", "tables"):  # generated with the site
        assert (site / f"{name}.html").stat().st_size > 10_000
    assert not [*site.rglob("*.py"), *site.rglob("*.sql"), *site.rglob("__pycache__")]


def test_a_browser_fetches_nothing_but_files_of_the_site(site: Path) -> None:
    for path, page in pages(site).items():
        found = assets(page)
        assert found
        for address in found:
            if address.startswith("data:"):
                continue
            assert not re.match(r"(https?:)?//", address), f"{path.name} fetches {address}"
            if path.name != "404.html":  # its addresses are absolute: it may stand for any page
                target = path.parent / unquote(re.split("[?#]", address)[0])
                assert target.exists(), f"{path.name}: {address}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", sheet.read_text()), sheet.name


def test_lists_are_lists(site: Path) -> None:
    """A list needs an empty line before it, which code hosts do without."""
    for path, page in pages(site).items():
        for paragraph in re.findall(r"<p>(.*?)</p>", page, re.DOTALL):
            assert not re.search(r"^(- |\d+\. )", paragraph, re.MULTILINE), (path.name, paragraph)


def test_assets_from_elsewhere_would_be_found() -> None:
    page = (
        '<script src="https://a/x.js"></script><link rel="stylesheet" href="//b/y.css">'
        '<link rel="canonical" href="https://c"><img src="d.svg"><a href="https://e">e</a>'
    )
    assert assets(page) == ["https://a/x.js", "//b/y.css", "d.svg"]


def test_search_knows_the_pages_without_a_server(site: Path) -> None:
    script = (site / "search" / "search_index.js").read_text()
    index = json.loads(script.removeprefix("var __index = "))
    places = {entry["location"].split("#")[0] for entry in index["docs"]}
    assert {"concepts.html", "howto/model.html", "tables.html"} <= places
    assert "iframe-worker.js" in (site / "index.html").read_text()


def test_formulas_are_mathml_when_the_site_is_built(site: Path) -> None:
    page = (site / "methods.html").read_text()
    assert page.count("<math") > 20
    assert 'class="arithmatex"' not in page and "$$" not in page


def test_a_formula_becomes_mathml_in_and_outside_of_lines() -> None:
    inline = on_page_content('<p>a <span class="arithmatex">\\(x &lt; 5\\)</span> b</p>')
    assert (
        inline.startswith("<p>a <math")
        and "&#x0003C;" in inline
        and inline.endswith("</math> b</p>")
    )
    block = on_page_content('<div class="arithmatex">\\[\nx^2\n\\]</div>')
    assert 'display="block"' in block and "<msup>" in block


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (CHECKOUT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    assert len(links) > 20
    for link in links:
        assert (CHECKOUT / link).exists(), link
