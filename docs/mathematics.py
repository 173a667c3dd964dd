"""Formulas of the site as MathML, made when it is built: a browser shows them without a script.

A hook of mkdocs (mkdocs.yml). `pymdownx.arithmatex` finds `$...$` and `$$...$$`, as code hosts do.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """The page's HTML with every formula as MathML."""
    content = _INLINE.sub(lambda match: _mathml(match[1], "inline"), content)
    return _BLOCK.sub(lambda match: f"<p>{_mathml(match[1], 'block')}</p>", content)


def _mathml(latex: str, display: str) -> str:
    return convert(html.unescape(latex).strip(), display=display)
