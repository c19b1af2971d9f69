"""Every link, anchor and resource of the built site leads somewhere, and none of what a page loads is elsewhere.

``python -m docs.generator.check build/site`` prints what is wrong and ends with status 1. Links to other sites are only
looked at: nothing is fetched.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself.
LOADS = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src",
    "object": "data", "link": "href",
}  # fmt: skip
NOT_LOADED = {"canonical", "next", "prev", "alternate", "edit"}
HERE = {f"{Path.cwd()}/", f"{Path.home()}/"}  # what no page may name
LARGEST_PAGE = 3_000_000  # bytes of HTML
LARGEST_SITE = 40_000_000


@dataclass
class Page(HTMLParser):
    """The anchors of a page, where it leads, and what it loads."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    nameless: int = 0  # pictures without a text

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "img" and "alt" not in given:
            self.nameless += 1
        if tag in LOADS and (target := given.get(LOADS[tag])) and not NOT_LOADED & set(given.get("rel", "").split()):
            self.loads.append(target)


def problems(site: Path) -> Iterator[str]:
    """What is wrong with a built site, a line each."""
    pages = {path: _read(path) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site}: there is no page; build the site first"
    for path, page in pages.items():
        name = path.relative_to(site)
        for link in page.links:
            if wrong := _wrong(link, path, site, pages):
                yield f"{name}: {link!r} {wrong}"
        for link in page.loads:
            if urlsplit(link).scheme not in ("", "data") or link.startswith("//"):
                yield f"{name}: loads {link!r} from elsewhere"
            elif wrong := _wrong(link, path, site, pages):
                yield f"{name}: loads {link!r}, which {wrong}"
        if any(place in path.read_text(encoding="utf-8") for place in HERE):
            yield f"{name}: names a folder of the machine that built it"
        if page.nameless:
            yield f"{name}: {page.nameless} pictures without a text"
        if (size := path.stat().st_size) > LARGEST_PAGE:
            yield f"{name}: {size:,} bytes; at most {LARGEST_PAGE:,}"
    if (whole := sum(path.stat().st_size for path in site.rglob("*") if path.is_file())) > LARGEST_SITE:
        yield f"the site has {whole:,} bytes; at most {LARGEST_SITE:,}"


def _read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _wrong(link: str, path: Path, site: Path, pages: dict[Path, Page]) -> str | None:
    parts = urlsplit(link)
    if parts.scheme in ("http", "https"):
        return None if "." in parts.netloc and " " not in link else "is no address"
    if parts.scheme in ("mailto", "data", "javascript"):
        return None if parts.scheme != "javascript" else "is a script"
    if parts.scheme:
        return "is no address that we know"
    target = path
    if parts.path:
        start = site if parts.path.startswith("/") else path.parent
        target = (start / unquote(parts.path).lstrip("/")).resolve()
        target = target / "index.html" if target.is_dir() else target
        if not target.is_relative_to(site.resolve()):
            return "leads out of the site"
        if not target.is_file():
            return "leads nowhere"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors and anchor != "__top":
        return "has an anchor that is not there"
    return None


def main(arguments: list[str]) -> int:
    site = Path(arguments[0]).resolve()
    found = list(problems(site))
    print(*found, sep="\n")
    files = [path for path in site.rglob("*") if path.is_file()]
    pages = sum(path.suffix == ".html" for path in files)
    print(f"{pages} pages, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
