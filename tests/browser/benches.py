"""Models, prompts and Benches to look at and to measure."""

from __future__ import annotations

import atexit
import random
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.browser.harness import Page

PROMPT = {
    "clean": "When Ben and Anna went to the forest, Anna gave a hat to",
    "corrupt": "When Ben and Anna went to the forest, Ben gave a hat to",
}
ANSWER = (" Ben", " Anna")
# 24 layers, 64 heads on 8, 32 experts: as many of each as the 20b has, each as small as can be.
SHAPE_20B = {
    "name": "as many parts as gpt-oss-20b",
    "n_layers": 24,
    "n_heads": 64,
    "n_key_value_heads": 8,
    "n_experts": 32,
    "experts_per_token": 4,
    "d_model": 64,
    "d_head": 8,
    "d_mlp": 8,
    "sliding_window": 128,
}


@cache
def load_nano() -> Any:
    """The model that comes with the workbench."""
    import workbench as wb

    return wb.load("nano")


@cache
def like_20b(seed: int = 0) -> Any:
    """A model with random weights, nano's tokens, and the 20b's numbers of layers, heads and experts."""
    from workbench.model import NANO, HookedGptOss, random_weights

    return random_weights(HookedGptOss(NANO.with_(**SHAPE_20B), load_nano().tokenizer), seed)


def tokens_of_length(n: int, seed: int = 0) -> tuple[int, ...]:
    """The first n tokens of stories in nano's language."""
    from workbench.training.microworld import DOCUMENTS

    rng, ids = random.Random(seed), []
    while len(ids) < n:
        ids += load_nano().tokenizer.encode(DOCUMENTS["story"](rng).text + "\n")
    return tuple(ids[:n])


@cache
def microworld_atlas(per_domain: int = 16) -> Any:
    """nano's routes on its own language: about 9,000 tokens in 14 domains, some of them chats."""
    from workbench.training.microworld import DOCUMENTS

    texts = {
        f"{name} {i}": make(random.Random(f"{name} {i}")) for i in range(per_domain) for name, make in DOCUMENTS.items()
    }
    corpus = [{"text": each.text, "domain": each.domain, "id": id} for id, each in texts.items()]
    return atlas_of(load_nano(), corpus, "microworld-atlas")


def atlas_of(model: Any, corpus: Any, name: str = "atlas", **how: Any) -> Any:
    """An atlas in a folder that is gone when the process ends."""
    import workbench as wb

    folder = tempfile.TemporaryDirectory(prefix="workbench-tests-")
    atexit.register(folder.cleanup)
    return wb.atlas(model, corpus, Path(folder.name) / name, progress=False, **how)


def make_bench(model: Any, what: Any = PROMPT, open: list[str] | None = None, **options: Any) -> Any:
    """A Bench, on the pair unless something else is given."""
    from workbench.widgets import Bench

    if what is PROMPT:
        options.setdefault("answer", ANSWER)
    return Bench(model, what, open=open, **options)


def settle(page: Page, bench: Any, timeout: float = 60) -> None:
    """Wait until nothing is asked, computed, sent or painted any more; how busy the machine is makes no difference.

    Raises:
        AssertionError: that does not happen within `timeout` seconds; says what is still open.
    """
    end = time.perf_counter() + timeout
    while time.perf_counter() < end:
        # An answer may begin a job, and a job's end an ask: all must be still at once.
        if not busy(page, bench) and page.is_even() and not busy(page, bench):
            return
        page.pump(0.02)
    jobs = [job.label for job in bench.session.under_way()]
    raise AssertionError(f"not still after {timeout} s: jobs {jobs}, asks {unanswered(page)}, last {page.messages[-1]}")


def busy(page: Page, bench: Any) -> bool:
    """Whether Python still has something to do that the page will hear of."""
    session = bench.session
    if session.running or session.under_way() or unanswered(page):
        return True
    session.worker.submit(lambda job: None, "is it still?").result()  # what follows a job's end comes before it
    return any(isinstance(thread, threading.Timer) for thread in threading.enumerate())  # streams that wait their turn


def unanswered(page: Page) -> list[Any]:
    """The ids of asks and acts to which Python has not said anything yet; "hello" where the last was not answered."""
    crossed = [message.content for message in list(page.messages) if message.method == "custom"]
    greeted = [content["do"] if "do" in content else content.get("did") for content in crossed]
    greeted = [what for what in greeted if what in ("hello", "state")]
    if greeted[-1:] == ["hello"]:
        return ["hello"]
    answered = {content.get("id") for content in crossed if content.get("did") in ("data", "done", "failed")}
    return [
        content["id"] for content in crossed if content.get("do") in ("ask", "act") and content["id"] not in answered
    ]
