"""Pictures of every view of the Bench, for the docs and for whoever works on a view.

    python -m tests.browser.screenshots                          every picture, into docs/screenshots (make screenshots)
    python -m tests.browser.screenshots --only attention         one view's: light, dark, narrow
    python -m tests.browser.screenshots --only routing --theme dark --width 600 --png /tmp/x.png          one picture
    … --do "bench.select(layer=2, head=3)" --do "page.click('button', 'Run')"    after what Python, with bench and page
    … --tokens 2000   … --text "Mia went"   … --big   other texts; as many layers, heads and experts as the 20b has
    … --alone         the view alone (wb.view.attention(run)), without the Bench round it
    … --host vscode   as in another host
    … --bundle DIR    with bench.js and bench.css from there, in place of the committed ones

Beside the pictures it prints what went wrong in the page and what axe-core says. The names of pictures: view-light.png,
view-dark.png, view-narrow.png; the Bench as a whole: bench-…, side-….
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tests.browser import benches
from tests.browser.chromium import Chromium
from tests.browser.harness import Page

OUT = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
VIEWS = (
    "tokens", "logit_lens", "attention", "routing", "patching", "ablation", "steering", "generation", "graph",
    "atlas", "history", "effect",
)  # fmt: skip
WHOLE = ("bench", "side")
WIDE, NARROW, SIDE = 1000, 600, 1400
LARGEST = 60_000  # bytes
AFTER = 1.0  # seconds: what follows an edit, as its text, is asked for only when no other edit came for a moment
COLOURS = (256, 128, 64, 32)

Prepare = Callable[[Any, Page], Any]


@dataclass(frozen=True)
class Shot:
    """One picture: of which view, in what theme, how wide, into which file."""

    view: str
    theme: str
    width: int
    path: Path


def shots(names: Sequence[str], themes: Sequence[str], widths: Sequence[int] | None, out: Path) -> list[Shot]:
    """Light, dark and narrow of each; or every theme at every width that is asked for."""
    made = []
    for name in names:
        wide = SIDE if name == "side" else WIDE
        if widths is None:
            made += [Shot(name, theme, wide, out / f"{name}-{theme}.png") for theme in themes]
            if name != "side" and "light" in themes:
                made.append(Shot(name, "light", NARROW, out / f"{name}-narrow.png"))
        else:
            made += [Shot(name, t, w, out / f"{name}-{t}-{w}.png") for t in themes for w in widths]
    return made


def small(png: bytes, largest: int = LARGEST) -> bytes:
    """A PNG with as few colours as its size asks for."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for n in COLOURS:
        kept = io.BytesIO()
        # This method keeps rare colours (a thin line), which a median cut would drop.
        picture.quantize(n, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            kept, "PNG", optimize=True
        )
        if kept.tell() <= largest:
            break
    return kept.getvalue()


# ---------------------------------------------------------------- what is on screen


def bench_of(name: str, given: argparse.Namespace) -> Any:
    """The Bench, or the lone view, that a picture shows."""
    model = benches.like_20b() if given.big else benches.load_nano()
    what: Any = given.text or (benches.tokens_of_length(given.tokens) if given.tokens else benches.PROMPT)
    if given.alone:
        return _alone(name, model, what)
    views: Any = {"bench": None, "side": ["logit_lens", "attention", "routing"]}.get(name, [name])
    return benches.make_bench(model, what, open=views, layout="side" if name == "side" else "tabs")


def _alone(name: str, model: Any, what: Any) -> Any:
    import workbench as wb

    texts = list(what.values()) if isinstance(what, dict) else [what]
    return getattr(wb.view, name)(wb.run(model, texts[0] if isinstance(texts[0], str) else list(texts[0])))


def choose(bench: Any, name: str) -> None:
    """Something is chosen in every picture, so that the views show what follows from it."""
    last, layer = len(bench.session.base.tokens[0]) - 1, bench.session.config.n_layers - 2
    part = {"expert": 3} if name == "routing" else {"head": 2}
    bench.session.select(layer=layer, position=last, **part)


def _edit(bench: Any, page: Page) -> None:
    from workbench.interventions import AblateExpert, AblateHead

    bench.add(AblateHead(1, 2))
    benches.settle(page, bench)
    bench.add(AblateExpert(2, 3))


def _press_first(selector: str) -> Prepare:
    """The view's main button, and the wait for what it starts."""

    def press(bench: Any, page: Page) -> None:
        page.css(selector).first.click()
        page.pump(0.3)

    return press


def _ban(bench: Any, page: Page) -> None:
    from workbench.interventions import AblateExpert

    routes = bench.base["blocks.1.mlp.hook_expert_indices"]
    expert = int(routes[0, -1, 0])
    bench.select(layer=1, expert=expert)
    bench.add(AblateExpert(1, expert))


def _attend(bench: Any, page: Page) -> None:
    bench.select(layer=1, head=3, position=13, key=8)


def _grow(bench: Any, page: Page) -> None:
    view = bench["generation"]
    view.go_on(0, 14).result(60)
    first = view.tree.path(view.at)
    _ban(bench, page)
    bench.session.wait(60)
    view.go_on(first[0].id, 10).result(60)


def _compare(bench: Any, page: Page) -> None:
    _edit(bench, page)
    bench.session.wait(60)
    ids = [entry.id for entry in bench.session.history.entries]
    bench.session.options("history", compared=[ids[0], ids[-1]])


def _ablate(bench: Any, page: Page) -> None:
    view = bench.session.views["ablation"]
    for action in ("run", "knock_out"):
        bench.session.options("ablation", sort="effect.difference", down=True, group=[[0, 1], [0, 3], [2, 6]])
        view.act({"kind": action})
        benches.settle(page, bench, 120)


def _steer(bench: Any, page: Page) -> None:
    sides = {"positive": "Anna is glad\nAnna sings", "negative": "Ben is sad\nTom is sad"}
    bench.session.options("steering", direction="difference", layer=2, scale=2.2, length=16, **sides)


def _survey(bench: Any, page: Page) -> None:
    bench.atlas = benches.microworld_atlas()
    bench.select(layer=2, expert=3)
    bench.session.options("atlas", n=8)
    view = bench["atlas"]
    view.measure().wait(60)
    first = view.contexts[0]
    bench.session.options("atlas", context=[first.document, first.position])


# What a view needs before it shows what it is for.
PREPARE: dict[str, Prepare] = {
    "bench": _ban,
    "side": _ban,
    "ablation": _ablate,
    "steering": _steer,
    "history": _compare,
    "effect": _edit,
    "tokens": _edit,
    "routing": _ban,
    "attention": _attend,
    "patching": _press_first(".wb-patching .wb-primary"),
    "graph": lambda bench, page: page.css(".wb-graph-left").first.wait_for(),  # it traces by itself
    "generation": _grow,
    "atlas": _survey,
}


# ---------------------------------------------------------------- taking them


def take(
    chromium: Chromium, bench: Any, shot: Shot, given: argparse.Namespace, prepare: Sequence[Prepare]
) -> list[str]:
    """One picture; gives what is wrong with the page."""
    with _quietly(Page(chromium.browser, bench, theme=shot.theme, width=shot.width, host=given.host)) as page:  # pyright: ignore[reportArgumentType]
        benches.settle(page, bench, given.timeout)
        for step in prepare:
            step(bench, page)
            benches.settle(page, bench, given.timeout)
        page.pump(AFTER)
        benches.settle(page, bench, given.timeout)
        shot.path.parent.mkdir(parents=True, exist_ok=True)
        png = page.css(".wb-root").first.screenshot(animations="disabled", caret="hide")
        shot.path.write_bytes(small(png, given.largest))
        findings = [f"axe: {finding}" for finding in page.axe(".wb-root")]
        return page.problems + findings


class _quietly:
    """A page whose problems are printed, not raised: a picture of what is wrong is worth having."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def __enter__(self) -> Page:
        return self.page

    def __exit__(self, *problem: object) -> None:
        self.page.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if a page had an error."""
    given = _parsed(arguments)
    names = given.only or [*WHOLE, *VIEWS]
    wrong = 0
    with Chromium() as chromium:
        for name in names:
            bench = bench_of(name, given)
            if given.bundle:
                bench._esm, bench._css = ((given.bundle / f"bench.{end}").read_text("utf-8") for end in ("js", "css"))
            bench.session.wait(given.timeout)
            choose(bench, name)
            # A second picture of the same Bench finds it prepared.
            prepare = [*([PREPARE[name]] if name in PREPARE and not given.alone else []), *map(_snippet, given.do)]
            for shot in shots([name], given.theme, given.width, given.out):
                path = given.png or shot.path
                start = time.perf_counter()
                problems = take(chromium, bench, Shot(shot.view, shot.theme, shot.width, path), given, prepare)
                prepare = []
                print(f"{path} {path.stat().st_size:,} bytes, {time.perf_counter() - start:.1f} s", flush=True)
                for problem in problems:
                    print(f"    {problem}", flush=True)
                wrong += any(not problem.startswith("axe:") for problem in problems)
            bench.close()
    return 1 if wrong else 0


def _snippet(source: str) -> Prepare:
    return lambda bench, page: exec(compile(source, "--do", "exec"), {"bench": bench, "page": page})


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", "--views", nargs="+", choices=[*WHOLE, *VIEWS], metavar="VIEW")
    parser.add_argument("--theme", "--themes", nargs="+", choices=["light", "dark"], default=["light", "dark"])
    parser.add_argument("--width", nargs="+", type=int)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--png", type=Path, help="the one picture's file")
    parser.add_argument("--do", action="append", default=[], metavar="PYTHON")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--text")
    parser.add_argument("--big", action="store_true")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--host", choices=["lab", "colab", "vscode", "plain"], default="lab")
    parser.add_argument("--timeout", type=float, default=60)
    parser.add_argument("--largest", type=int, default=LARGEST, help="bytes that a picture may have")
    given = parser.parse_args(arguments)
    if given.png:
        given.theme, given.width = given.theme[:1], (given.width or [WIDE])[:1]
    return given


if __name__ == "__main__":
    sys.exit(main())
