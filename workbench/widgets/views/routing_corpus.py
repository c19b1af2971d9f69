"""The corpus behind "where does this expert fire hardest?": its texts, and the job that runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import xarray as xr

from workbench.experiments.experts.expert_contexts import context_tokens, expert_contexts
from workbench.figures.text import visible
from workbench.training.microworld import DOCUMENTS
from workbench.widgets.session import Session
from workbench.widgets.worker import Job

PER_DOMAIN = 12  # documents of the microworld
AROUND = 8
LONGEST_OPTION = 20_000  # characters: options travel with every state
MICROWORLD = f"""from random import Random
from workbench.training.microworld import DOCUMENTS
documents = [make(Random(f"{{name}} {{i}}")) for name, make in DOCUMENTS.items() for i in range({PER_DOMAIN})]
texts, domains = [each.text for each in documents], [each.domain for each in documents]"""

Texts = tuple[list[Any], list[str]]


def microworld() -> Texts:
    """Documents of nano's microworld, the same at each call, and their domains."""
    made = [make(Random(f"{name} {i}")) for name, make in DOCUMENTS.items() for i in range(PER_DOMAIN)]
    return [each.text for each in made], [each.domain for each in made]


def flattened(given: Any) -> Texts:
    """A list of texts, or texts by domain, as texts and their domains.

    Raises:
        ValueError: for anything else, or nothing.
    """
    if isinstance(given, Mapping):
        pairs = [(text, str(domain)) for domain, texts in given.items() for text in _several(texts)]
    else:
        pairs = [(text, "all") for text in _several(given)]
    if not pairs:
        raise ValueError("the corpus has no text: give a list of texts, or {domain: [texts]}")
    return [text for text, _ in pairs], [domain for _, domain in pairs]


def _several(given: Any) -> Sequence[Any]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ValueError(f"texts={given!r:.80}: expected a list of texts, or {{domain: [texts]}}")
    return given


def check_option(given: Any) -> None:
    """Refuse an option ``texts`` that is not plain text, or long.

    Raises:
        ValueError: saying what to do instead.
    """
    texts, _ = flattened(given)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("the option texts takes strings alone; for Chats or token ids call .use_texts(…) of the view")
    if (size := sum(map(len, texts))) > LONGEST_OPTION:
        raise ValueError(
            f"the option texts takes {LONGEST_OPTION} characters, got {size}: call .use_texts(…) of the view"
        )


class Corpus:
    """The texts, and what is known of them so far."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.given: Texts | None = None  # from Python; else the option's, else the microworld's
        self.found: xr.Dataset | None = None
        self._of: Texts | None = None  # the texts that `found` is of

    def texts(self, option: Any) -> Texts:
        """What would be run.

        Raises:
            ValueError: where a model without a tokenizer has no texts of its own.
        """
        if option is not None:
            return flattened(option)
        if self.given is not None:
            return self.given
        if self.session.tokenizer is None:
            raise ValueError("this model has no tokenizer: give rows of token ids with bench['routing'].use_texts([…])")
        return microworld()

    def known(self, option: Any) -> xr.Dataset | None:
        """What is known of these texts; None before the first."""
        if self.found is None or self._of is None:
            return None
        try:
            return self.found if self._of == self.texts(option) else None
        except ValueError:
            return None

    def start(self, option: Any) -> Job:
        """Run the texts, or those that are left, in the background."""
        texts = self.texts(option)
        return self.session.submit(
            lambda job: self._work(job, texts),
            f"routes of {len(texts[0])} texts",
            view="routing",
            total=len(texts[0]),
            replaces="routing corpus",
            resumable=lambda: self.start(option),
        )

    def _work(self, job: Job, texts: Texts) -> xr.Dataset:
        done = self.found if self._of == texts else None
        if done is not None and done.attrs["n_done"] == done.attrs["n_texts"]:
            done = None

        def heard(n: int, found: xr.Dataset) -> None:
            self.found, self._of = found, texts
            job.report(n, len(texts[0]))
            self._tell(found)

        every = max(1, len(texts[0]) // 100)
        rows, domains = texts
        made = expert_contexts(
            self.session.model, rows, domains, around=AROUND, cancel=job.breathe, on_result=heard, every=every,
            resume=done, progress=False,
        )  # fmt: skip
        self.found, self._of = made, texts
        job.report(int(made.attrs["n_done"]), len(rows))
        self._tell(made)
        self.session.flush("routing", "corpus")
        return made

    def _tell(self, found: xr.Dataset) -> None:
        about = {"done": int(found.attrs["n_done"]), "total": int(found.attrs["n_texts"])}
        self.session.stream("routing", "corpus", about, {})


def contexts_of(
    session: Session, found: xr.Dataset, layer: int, expert: int, domains: Sequence[str], most: int = 12
) -> list[dict[str, Any]]:
    """The hardest contexts of one expert, as the panel lists them."""
    here = found.sel(layer=layer, expert=expert)
    snippets = context_tokens(session.model, found, layer, expert)[:most]
    return [
        {
            "weight": float(here.weight.values[i]),
            "text": int(here.text.values[i]),
            "domain": visible(domains[int(here.text.values[i])], 60),
            "position": int(here.position.values[i]),
            "tokens": [visible(token, 40) for token in tokens],
            "at": at,
        }
        for i, (tokens, at) in enumerate(snippets)
    ]
