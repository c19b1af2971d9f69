"""The pages of the site: their code runs, and they leave no experiment, no figure and no document out."""

import ast
import re
from pathlib import Path

import pytest

from docs.generator import examples, sources
from workbench import experiments, figures

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "pages").rglob("*.md"))
CODE = {path: examples.blocks(path.read_text(encoding="utf-8")) for path in PAGES}
WITH_CODE = [path for path in PAGES if any(block.runs for block in CODE[path])]
HOW_TO = "\n".join(block.code for path in PAGES for block in CODE[path] if block.runs)
NAVIGATION = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8")


def name(path: Path) -> str:
    return path.relative_to(ROOT / "docs" / "pages").as_posix()


@pytest.mark.parametrize("path", WITH_CODE, ids=name)
def test_the_code_of_a_page_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shown = list(examples.run(path.read_text(encoding="utf-8"), name(path)))
    assert len(shown) == len(CODE[path])


@pytest.mark.parametrize("called", sorted(experiments.__all__))
def test_every_public_experiment_is_used_in_a_page(called: str):
    assert re.search(rf"\bexperiments\.{called}\b|\b{called}\b", HOW_TO)


@pytest.mark.parametrize("called", sorted(figures.__all__))
def test_every_figure_is_drawn_in_a_page(called: str):
    assert f"figures.{called}(" in HOW_TO


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_code_fits_the_column_that_it_stands_in(path: Path):
    text = path.read_text(encoding="utf-8")
    widest = 56 if "wb-beside" in text else 92
    assert [line for block in CODE[path] for line in block.code.split("\n") if len(line) > max(widest, 88)] == []


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_the_code_of_the_other_documents_is_python(path: Path):
    for block in examples.blocks(path.read_text(encoding="utf-8")):
        ast.parse(block.code)


def test_every_page_and_every_document_has_a_place_in_the_navigation():
    listed = set(re.findall(r"[\w/-]+\.md", NAVIGATION))
    made = {"reference/sites.md", "reference/interventions.md", "reference/commands.md"}
    api = {page for page in listed if page.startswith("reference/api/")}
    assert {name(path) for path in PAGES} | set(sources.present().values()) | made == listed - api


def test_every_package_has_its_page_of_public_names():
    from docs.generator.reference import PACKAGES

    assert {f"reference/api/{package}.md" for package in [*PACKAGES, "index"]} == {
        page for page in re.findall(r"[\w/-]+\.md", NAVIGATION) if page.startswith("reference/api/")
    }
    inner = {"cli", "results", "training"}  # commands have a page of their own; the others are for the workbench itself
    folders = {path.parent.name for path in (ROOT / "workbench").glob("*/__init__.py")}
    assert set(PACKAGES) == folders - inner


def test_what_a_page_includes_is_there():
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        assert "<!-- include" not in sources.included(text, name(path))


def test_a_block_that_fails_is_named_by_its_page_and_line():
    page = "# A page\n\n```python\nx = 1\n```\n\nThen\n\n```python\nx.no_such\n```\n"
    with pytest.raises(examples.ExampleError, match=r"page\.md, line 10: AttributeError"):
        list(examples.run(page, "page.md"))


def test_a_block_that_says_so_is_not_run():
    page = '```python title="not run here: it needs a GPU"\nraise RuntimeError\n```\n'
    assert list(examples.run(page, "page.md")) == [("", None)]
