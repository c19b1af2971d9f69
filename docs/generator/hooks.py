"""What mkdocs calls while it builds the site (https://www.mkdocs.org/user-guide/configuration/#hooks)."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # docs.generator, and workbench where it is not installed
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["WORKBENCH_RECORDS"] = "off"
os.environ["WORKBENCH_PROGRESS"] = "off"

from mkdocs.structure.files import File  # noqa: E402

from docs.generator import examples, formulas, notebooks, reference, sources  # noqa: E402

_PIECES: dict[str, str] = {}  # placeholder → HTML that Markdown must not touch
_PLACE = re.compile(r'<div class="wb-piece" data-place="([^"]+)"></div>')


def on_files(files: Any, config: Any) -> Any:
    """The pages that are not in docs/pages."""

    def add(page: str, content: str | bytes) -> None:
        files.append(File.generated(config, page, content=content))

    for source, page in sources.present().items():
        if source.endswith(".ipynb"):
            _notebook(source, page, add)
        else:
            text = (ROOT / source).read_text(encoding="utf-8")
            add(page, sources.relinked(text, source, page))
    for picture in sorted((ROOT / sources.PICTURES).glob("*.png")):
        files.append(File.generated(config, f"screenshots/{picture.name}", abs_src_path=str(picture)))
    add("reference/sites.md", reference.sites_page())
    add("reference/interventions.md", reference.interventions_page())
    add("reference/commands.md", reference.commands_page())
    add("reference/api/index.md", reference.index_page())
    for package in reference.PACKAGES:
        add(f"reference/api/{package}.md", reference.api_page(package))
    files.append(File.generated(config, "assets/plotly.min.js", abs_src_path=str(_plotly())))
    return files


def _plotly() -> Path:
    import plotly

    return Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def _notebook(source: str, page: str, add: Any) -> None:
    note = f'!!! abstract ""\n\n    This page is the notebook `{source}` as it was run. `workbench lab` opens it.'
    made = notebooks.page(ROOT / source, note)
    _PIECES.update(made.pieces)
    add(page, sources.relinked(made.markdown, source, page))
    for name, picture in made.pictures.items():
        add(f"{Path(page).parent.as_posix()}/pictures/{name}", picture)


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """What a page includes from elsewhere; and its code is run."""
    path = page.file.src_uri
    if (Path(config.docs_dir) / path).is_file():
        markdown = examples.shown(sources.included(markdown, path), path, _PIECES)
    return markdown


def on_page_content(content: str, *, page: Any, config: Any, files: Any) -> str:
    """Formulas as MathML, and what Markdown must not touch put in its place."""
    return _PLACE.sub(lambda found: _PIECES[found[1]], formulas.drawn(content))
