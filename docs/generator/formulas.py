"""Formulas are turned into MathML, which browsers draw by themselves, when the site is built."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

FOUND = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', flags=re.DOTALL)


def drawn(page: str) -> str:
    """Each formula of a page, as pymdownx.arithmatex marks it, as MathML."""
    return FOUND.sub(_formula, page)


def _formula(found: re.Match[str]) -> str:
    tag, opening, source = found.groups()
    mode = "block" if opening == "[" else "inline"
    made = convert(html.unescape(source), display=mode)
    return f'<{tag} class="wb-formula wb-{mode}">{made}</{tag}>'
