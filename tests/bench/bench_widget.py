"""The Bench as a person waits for it: nano, in a Chromium without a window, against limits.

python -m tests.bench.bench_widget [--quick]

Times begin with the browser's event (a click, a key) and end with the paint of the frame that shows what follows from
it. First paint, and one row of Cancel, are in JupyterLab; the rest is in the tests' own page, where the same Python and
the same script are joined without Jupyter's servers.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from tests.bench.common.options import Options, main
from tests.bench.common.results import Demand, Part
from tests.bench.common.widget_pages import (
    CLICKED,
    LAB_CELLS,
    PAINTED,
    cancel_in_lab,
    follows,
    tall_model,
    to_a_sweep,
)
from tests.browser import chromium
from tests.browser.benches import PROMPT, load_nano, make_bench, settle, tokens_of_length
from tests.browser.harness import Page
from tests.browser.lab import Lab
from workbench.interventions import AblateExpert, AblateHead

LOOK = 1.0  # seconds of one look at a stream or a scroll
KERNELS = 3
Measure = Callable[[Any, Part, int, Options], None]


def run(options: Options) -> list[Part]:
    """One part; a demand without a value where there is no browser."""
    part = Part("widget", "the Bench on nano, in Chromium", ["ours"])
    n = options.rounds or (5 if options.quick else 15)
    options.say(part.title)
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        if chromium.find() is None:
            part.notes.append(chromium.MISSING)
            return [part]
        with chromium.Chromium() as started:
            for measure in (first_paint, selecting, toggling, streaming, scrolling, cancelling):
                before = len(part.demands)
                measure(started, part, n, options)
                for demand in part.demands[before:]:
                    options.say("  " + demand.line())
    finally:
        torch.set_num_threads(threads)
    return [part]


def _time(part: Part, text: str, seconds: list[float], limit: float, why: str = "") -> None:
    """A median in milliseconds, with its limit beside it."""
    part.cell(text, 0, "ours").rounds = [[each] for each in seconds]
    said = f"{len(seconds)} times, {1000 * min(seconds):.0f} to {1000 * max(seconds):.0f} ms{', ' + why if why else ''}"
    part.demands.append(
        Demand(text, 1000 * statistics.median(seconds), 1000 * limit, at_least=False, unit=" ms", why=said)
    )


def _rate(part: Part, text: str, found: list[float], limit: float) -> None:
    """A median in frames a second."""
    part.about[text] = {"frames a second": found}
    said = f"{len(found)} looks, {min(found):.0f} to {max(found):.0f}"
    part.demands.append(Demand(text, statistics.median(found), limit, unit=" frames/s", why=said))


@contextmanager
def _opened(started: Any, what: Any, **options: Any) -> Iterator[tuple[Any, Page]]:
    """A Bench in a page, settled."""
    size = {name: options.pop(name) for name in ("width", "height") if name in options}
    bench = make_bench(options.pop("model", load_nano()), what, **options)
    try:
        with Page(started.browser, bench, **size) as page:
            settle(page, bench)
            yield bench, page
    finally:
        bench.close()


# ---------------------------------------------------------------- in JupyterLab


def first_paint(started: Any, part: Part, n: int, options: Options) -> None:
    """From the start of the cell to the paint of the Bench with its tokens; and a cancel, from click to end."""
    first: list[float] = []
    again: list[float] = []
    cancels: list[float] = []
    with Lab(started) as lab:
        for _ in range(1 if options.quick else KERNELS):
            with lab.open(LAB_CELLS) as notebook:
                notebook.js("jupyterapp.shell.currentWidget.content.activeCellIndex = 0")
                notebook.js("jupyterapp.commands.execute('notebook:run-cell')")
                first.append(notebook.js(PAINTED))
                for _ in range(-(-n // KERNELS)):
                    notebook.run("bench.wait(); bench.close()")
                    notebook.page.wait_for_timeout(300)
                    again.append(notebook.js(PAINTED))
                to_a_sweep(notebook)
                cancels += [cancel_in_lab(notebook) for _ in range(-(-n // KERNELS))]
                forward = notebook.value("forward()")
    _time(part, "the first Bench of a kernel: cell run → first paint", first, 1.5)
    _time(part, "another Bench: cell run → first paint", again, 1.5)
    _time(part, "Cancel in JupyterLab: click → the work has ended", cancels, forward + 0.1, "a forward pass + 100 ms")


# ---------------------------------------------------------------- in a page


def selecting(started: Any, part: Part, n: int, options: Options) -> None:
    """A token, chosen by a key: the strip, the effect and three views side by side follow."""
    views = ["logit_lens", "attention", "routing"]
    how: dict[str, Any] = {"open": views, "layout": "side", "interventions": [AblateExpert(1, 4)]}
    with _opened(started, PROMPT, width=1400, height=1600, **how) as (bench, page):
        bench.session.options("effect", live=False)
        bench.select(layer=2, position=0)
        settle(page, bench)
        page.css(".wb-top-strip .wb-strip-window").focus()
        found, last = [], len(bench.base.tokens[0]) - 1
        for i in range(n):
            position = 1 + i % last
            if position == 1 and i:
                bench.select(position=0)
            settle(page, bench)
            found.append(page.latency(lambda: page.press("ArrowRight"), follows(position)) / 1000)
    _time(part, "a token is selected → all visible views follow", found, 0.1)


def toggling(started: Any, part: Part, n: int, options: Options) -> None:
    """An expert's chip is clicked: another distribution, and no stale one."""
    with _opened(started, PROMPT, interventions=[AblateHead(1, 0)]) as (bench, page):
        chosen = bench.base["blocks.1.mlp.hook_expert_indices"]
        bench.interventions = (AblateExpert(1, int(chosen.flatten().mode().values)), AblateHead(1, 0))
        bench.session.options("effect", live=False)
        bench.select(position=len(bench.base.tokens[0]) - 1)
        seen = "document.querySelector('.wb-effect-sum').innerText"
        found = []
        for _ in range(n):
            settle(page, bench)
            met = f"({seen}) !== {page.page.evaluate(seen)!r} && !document.querySelector('.wb-effect .wb-stale')"
            found.append(page.latency(page.css(".wb-chip-toggle").first.click, met) / 1000)
    _time(part, "an expert is toggled → the new distribution", found, 0.3)


def streaming(started: Any, part: Part, n: int, options: Options) -> None:
    """A patching grid of 24 × 1000 fills while it is looked at."""
    from workbench.widgets.views import patching_sweep

    tokens = tokens_of_length(1000)
    pair = {"clean": tokens, "corrupt": ((tokens[0] + 1) % 500, *tokens[1:])}
    with _opened(started, pair, model=tall_model(), open=["patching"], answer=(500, 501)) as (bench, page):
        view = bench["patching"]
        swept, values = view.sweep(view.study()), np.random.default_rng(1).normal(size=(24, 1000))
        swept.estimate, over = values / 2, threading.Event()

        def fill() -> None:
            for i in np.random.default_rng(2).permutation(values.size):
                swept.exact.flat[i] = values.flat[i]
                if i % 16 == 0:
                    patching_sweep.push(swept, bench.session)
                    time.sleep(0.01)
                if over.is_set():
                    return

        page.wait_js("document.querySelector('.wb-patching .wb-primary')")
        thread = threading.Thread(target=fill, daemon=True)
        thread.start()
        looks = []
        for _ in range(1 + n):  # the first is not counted
            with page.frames("document.querySelector('.wb-patching .wb-primary').textContent") as seen:
                page.pump(LOOK)
            looks.append(seen)
        looks = looks[1:]
        over.set()
        thread.join()
    _rate(part, "a heat map of 24 × 1000 streams", [look.changes / look.seconds for look in looks], 15)
    longest = [look.longest_task / 1000 for look in looks]
    _time(part, "… the longest task of a look", longest, 0.1)


def scrolling(started: Any, part: Part, n: int, options: Options) -> None:
    """The wheel over a strip of 2,000 tokens: frames in which it stands elsewhere than in the one before."""
    with _opened(started, tokens_of_length(2000), open=["tokens"]) as (_, page):
        strip, found = page.css(".wb-view .wb-strip-window"), []
        strip.scroll_into_view_if_needed()
        box, browser = strip.bounding_box(), page.context.new_cdp_session(page.page)
        gesture = {"x": box["x"] + 200, "y": box["y"] + box["height"] / 2, "speed": 1500, "gestureSourceType": "mouse"}
        for i in range(1 + n):  # the first is not counted
            with page.frames("document.querySelector('.wb-view .wb-strip-window').scrollTop") as seen:
                way = {"yDistance": 1500 * LOOK * (-1) ** (i + 1)}
                browser.send("Input.synthesizeScrollGesture", gesture | way)
            found.append(seen.changes / seen.seconds)
    _rate(part, "a strip of 2,000 tokens is scrolled", found[1:], 30)


def cancelling(started: Any, part: Part, n: int, options: Options) -> None:
    """A sweep of some seconds is cancelled: until the work has ended, and until the screen says so."""
    tokens = tokens_of_length(200)
    pair = {"clean": tokens, "corrupt": ((tokens[0] + 1) % 500, *tokens[1:])}
    with _opened(started, pair, open=["patching"], answer=(500, 501)) as (bench, page):
        ended, shown, view = [], [], bench["patching"]
        page.page.evaluate(CLICKED)
        for i in range(n):
            if i % 5 == 0:  # another grid, so that there is always enough to do
                bench.session.options(
                    "patching",
                    part=("resid_pre", "attn_out", "mlp_out")[i // 5 % 3],
                    metric=("logit_difference", "probability", "kl")[i // 15 % 3],
                )
                settle(page, bench)
            sweep = view.sweep(view.study())
            left = sweep.left
            job = view.start(sweep)
            page.wait(lambda sweep=sweep, left=left: sweep.left < left)
            stop = page.css(".wb-patching .wb-job").get_by_role("button", name="Cancel")
            said = "document.querySelector('.wb-patching .wb-job').innerText.includes('cancelled')"
            shown.append(page.latency(stop.click, said) / 1000)
            job.wait(10)
            ended.append(job.ended - time.monotonic() + time.time() - page.page.evaluate("window.clicked"))
            settle(page, bench)
        begun = time.perf_counter()
        for _ in range(5):
            bench.model(bench.base.tokens)
        forward = (time.perf_counter() - begun) / 5
    _time(part, "Cancel: click → the work has ended", ended, forward + 0.1, "a forward pass + 100 ms")
    _time(part, "Cancel: pointer down → the screen says so", shown, forward + 0.1, "a forward pass + 100 ms")


if __name__ == "__main__":
    main(run, __doc__)
