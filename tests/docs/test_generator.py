"""What makes the pages: docstrings, links between files, notebooks, and the checker of links."""

import base64
from pathlib import Path

import nbformat
import pytest

from docs.generator import check, notebooks, reference, sources
from docs.generator.docstrings import as_markdown
from workbench.interventions import KINDS
from workbench.model import NANO
from workbench.model.sites import BLOCK, OUTER, Sites

DOT = b"\x89PNG a dot"


def linked(name: str) -> str:
    return f"[`{name}`](x.md)"


def test_a_docstrings_sections_become_lists_and_its_roles_links():
    text = (
        "What it does with :func:`run`.\n\nArgs:\n    a, b: two\n        things.\n\nRaises:\n    ValueError: for ``c``."
    )
    made = as_markdown(text, linked)
    assert "What it does with [`run`](x.md)." in made
    assert "- `a`, `b`: two things." in made
    assert "- `ValueError`: for ``c``." in made


def test_what_markdown_would_read_as_its_own_stands_as_it_is():
    assert as_markdown("a*b_c [batch pos] and ``x*y``", linked) == r"a\*b\_c \[batch pos\] and ``x*y``"


def test_a_link_between_files_becomes_one_between_pages():
    text = "[devices](devices.md#how-to), ![bench](screenshots/bench-light.png), [code](../workbench/model/moe.py)"
    made = sources.relinked(text, "docs/hardware.md", "scale/hardware.md")
    assert made == (
        "[devices](devices.md#how-to), ![bench](../screenshots/bench-light.png), code (`workbench/model/moe.py`)"
    )


def test_a_link_inside_of_code_is_left_alone():
    text = "`[a](devices.md)`\n\n```\n[a](devices.md)\n```\n"
    assert sources.relinked(text, "docs/hardware.md", "scale/hardware.md") == text


def test_a_heading_that_the_readme_lost_is_an_error():
    with pytest.raises(ValueError, match="no heading 'No such'"):
        sources.section("README.md", "No such")


def a_notebook(tmp_path: Path) -> Path:
    made = nbformat.v4.new_notebook()
    picture = base64.b64encode(DOT).decode()
    shown = nbformat.v4.new_output("display_data", {"image/png": picture, "text/plain": "Figure"})
    said = nbformat.v4.new_output("stream", text="a < b\n\n```\n")
    cell = nbformat.v4.new_code_cell("print(1)", outputs=[said, shown])
    hidden = nbformat.v4.new_code_cell(
        "answer = 42", metadata={"jupyter": {"source_hidden": True}, "tags": ["solution"]}
    )
    made.cells = [nbformat.v4.new_markdown_cell("# Title"), cell, hidden]
    nbformat.write(made, tmp_path / "a.ipynb")
    return tmp_path / "a.ipynb"


def test_a_notebook_keeps_its_outputs_and_its_pictures_become_files(tmp_path: Path):
    page = notebooks.page(a_notebook(tmp_path), note="a note")
    assert page.markdown.startswith("# Title\n\na note\n\n```python\nprint(1)\n```")
    assert list(page.pictures.values()) == [DOT]
    text, picture = page.pieces.values()
    assert "a &lt; b" in text
    assert next(iter(page.pictures)) in picture


def test_a_solution_is_folded(tmp_path: Path):
    page = notebooks.page(a_notebook(tmp_path))
    assert "<summary>The solution</summary>\n\n```python\nanswer = 42" in page.markdown


def test_the_page_of_sites_has_every_site_of_the_model():
    page = reference.sites_page()
    assert all(f"`{name}`" in page for name in (*OUTER, *BLOCK))
    assert f"{len(Sites(NANO.n_layers))} sites" in page


def test_the_page_of_interventions_has_every_kind():
    page = reference.interventions_page()
    assert all(f"## {getattr(kind, '__name__', kind)} " in page for kind in KINDS)


def test_the_page_of_commands_has_every_command():
    page = reference.commands_page()
    assert all(f"## workbench {name}\n" in page for name in ("lab", "info", "synth", "verify", "lessons", "grade"))


@pytest.mark.parametrize("package", sorted(reference.PACKAGES))
def test_every_public_name_is_on_exactly_one_page(package: str):
    page = reference.api_page(package)
    for name in reference.names(package):
        assert (f"{{ #{reference.anchor(name)} }}" in page) == (reference.places()[name] == package)


SITE = {
    "index.html": '<a href="a.html#there">x</a><a href="https://example.org/">y</a><img alt="" src="p.png">',
    "a.html": '<h2 id="there">There</h2><a href="index.html">home</a>',
    "p.png": "",
}


def site(tmp_path: Path, **changed: str) -> Path:
    for name, text in (SITE | {name.replace("_", "."): text for name, text in changed.items()}).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_sound_site_has_no_problems(tmp_path: Path):
    assert list(check.problems(site(tmp_path))) == []


@pytest.mark.parametrize(
    ("html", "says"),
    [
        ('<a href="b.html">', "leads nowhere"),
        ('<a href="index.html#nowhere">', "an anchor that is not there"),
        ('<script src="https://cdn.example.org/x.js"></script>', "from elsewhere"),
        ('<link rel="stylesheet" href="//fonts.example.org/x.css">', "from elsewhere"),
        ('<img src="p.png">', "without a text"),
        ('<a href="javascript:alert(1)">', "is a script"),
        ('<a href="../../outside.html">', "leads out of the site"),
        ('<a href="https://nowhere">', "is no address"),
    ],
)
def test_what_is_wrong_with_a_page_is_found(tmp_path: Path, html: str, says: str):
    found = list(check.problems(site(tmp_path, a_html=f'<h2 id="there"></h2>{html}')))
    assert len(found) == 1
    assert found[0].startswith("a.html: ")
    assert says in found[0]
