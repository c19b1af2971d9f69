"""For every expert of every layer the contexts of a corpus in which it fires hardest, and which domains it serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from workbench.experiments.experts.routes import Routes, collect
from workbench.experiments.rows import check_whole, quantity
from workbench.experiments.texts import about, rows_of, token_texts
from workbench.experiments.watch import Cancel, asked_to_stop
from workbench.model import HookedGptOss

PER_CONTEXT = ("layer", "expert", "context")


def expert_contexts(
    model: HookedGptOss,
    texts: Sequence[Any],
    domains: Sequence[str] | None = None,
    *,
    n: int = 12,
    per_text: int = 1,
    around: int = 8,
    cancel: Cancel = None,
    on_result: Callable[[int, xr.Dataset], None] | None = None,
    every: int = 1,
    resume: xr.Dataset | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Run a corpus text by text and keep, of each expert, where its routing weight was largest.

    A large weight says that the router prefers the expert there, not that what it writes matters.

    Args:
        texts: texts, Chats or rows of ids.
        domains: one name a text; None for one domain, "all".
        n: contexts of each expert.
        per_text: at most so many of one text; its hardest, the earlier first where weights are equal.
        around: tokens kept on either side.
        cancel: an Event, or a function that gives true: no further text is begun, and what is done is returned.
        on_result: called with the number of texts that are done and what is known so far, as this returns it.
        every: … after so many texts each, and after the last.
        resume: what the same call returned when it was cancelled: it goes on from there.
        progress: show a bar.

    Returns:
        weight, text, position (layer, expert, context), hardest first, NaN and −1 where there are fewer; token_id
        (layer, expert, context, offset), −1 beyond the ends; load (layer, expert), the share of all tokens that go
        to the expert; domain_load (domain, layer, expert), the share of the domain's; domain_tokens (domain), how many
        those are. The attributes n_done and n_texts say how far it came.

    Raises:
        ValueError: for texts, domains, numbers or a ``resume`` that do not fit.
    """
    rows = rows_of(model, texts)
    if domains is not None and (isinstance(domains, str) or len(domains) != len(rows)):
        raise ValueError(f"{len(domains)} domains for {len(rows)} texts: expected one name a text")
    check_whole(1, n=n, per_text=per_text, every=every)
    check_whole(0, around=around)
    named = ["all"] * len(rows) if domains is None else [str(domain) for domain in domains]
    tally = _Tally(model, sorted(set(named)), len(rows), n, per_text, around)
    if resume is not None:
        tally.go_on_from(resume)
    with tqdm(total=len(rows), initial=tally.done, desc="texts", unit="text", disable=not progress) as bar:
        while tally.done < len(rows) and not asked_to_stop(cancel):
            tally.add(collect(model, [rows[tally.done]], progress=False), named[tally.done])
            bar.update()
            if on_result is not None and (tally.done % every == 0 or tally.done == len(rows)):
                on_result(tally.done, tally.dataset())
    return tally.dataset()


class _Tally:
    """What is known after some texts. Its size does not grow with the corpus."""

    def __init__(
        self, model: HookedGptOss, domains: list[str], n_texts: int, n: int, per_text: int, around: int
    ) -> None:
        config = model.config
        each = (config.n_layers, config.n_experts)
        self.model, self.domains, self.n_texts, self.done = model, domains, n_texts, 0
        self.n, self.per_text, self.around = n, per_text, around
        self.weight = np.full((*each, n), -np.inf, np.float32)
        self.text, self.position = (np.full((*each, n), -1, np.int32) for _ in range(2))
        self.token_id = np.full((*each, n, 2 * around + 1), -1, np.int32)
        self.served = np.zeros((len(domains), *each), np.int64)
        self.tokens = np.zeros(len(domains), np.int64)

    def add(self, routes: Routes, domain: str) -> None:
        """One more text."""
        at = self.domains.index(domain)
        self.served[at] += routes.chosen.sum(1)
        self.tokens[at] += len(routes.token_id)
        given = np.full((*self.weight.shape[:2], len(routes.token_id)), -np.inf, np.float32)
        np.put_along_axis(given.transpose(0, 2, 1), routes.experts, routes.weights.astype(np.float32), axis=-1)
        best = np.argsort(-given, axis=-1, kind="stable")[..., : self.per_text]
        weight = np.take_along_axis(given, best, -1)
        self._merge(weight, best.astype(np.int32), routes.token_id)
        self.done += 1

    def _merge(
        self,
        weight: Float[np.ndarray, "layer expert found"],
        position: Int[np.ndarray, "layer expert found"],
        ids: Int[np.ndarray, " token"],
    ) -> None:
        padded = np.pad(ids.astype(np.int32), self.around, constant_values=-1)
        window = padded[position[..., None] + np.arange(2 * self.around + 1)]
        text = np.full_like(position, self.done)
        both = np.concatenate([self.weight, weight], -1)
        # Stable: of equal weights the earlier text stays first.
        order = np.argsort(-both, axis=-1, kind="stable")[..., : self.n]
        self.weight = np.take_along_axis(both, order, -1)
        for name, fresh in (("text", text), ("position", position)):
            setattr(self, name, np.take_along_axis(np.concatenate([getattr(self, name), fresh], -1), order, -1))
        self.token_id = np.take_along_axis(np.concatenate([self.token_id, window], -2), order[..., None], -2)

    def dataset(self) -> xr.Dataset:
        """What is known, labelled."""
        there = np.isfinite(self.weight)
        total = max(int(self.tokens.sum()), 1)
        share = np.divide(self.served, self.tokens[:, None, None], out=np.full(self.served.shape, np.nan),
                          where=self.tokens[:, None, None] > 0)  # fmt: skip
        variables = {
            "weight": (PER_CONTEXT, np.where(there, self.weight, np.nan), quantity("routing weight")),
            "text": (PER_CONTEXT, np.where(there, self.text, -1), quantity("number of the text")),
            "position": (PER_CONTEXT, np.where(there, self.position, -1), quantity("position in the text")),
            "token_id": ((*PER_CONTEXT, "offset"), np.where(there[..., None], self.token_id, -1), quantity("token")),
            "load": (
                ("layer", "expert"),
                self.served.sum(0) / total,
                quantity("share of tokens that go to the expert"),
            ),
            "domain_load": (("domain", "layer", "expert"), share, quantity("share of the domain's tokens")),
            "domain_tokens": ("domain", self.tokens.copy(), quantity("tokens", "tokens")),
        }
        coords = {name: np.arange(size) for name, size in zip(PER_CONTEXT, self.weight.shape, strict=True)}
        coords |= {"offset": np.arange(-self.around, self.around + 1), "domain": np.array(self.domains, dtype=str)}
        config = self.model.config
        attrs = about(self.model, "expert_contexts", n_texts=self.n_texts, n_done=self.done, per_text=self.per_text)
        return xr.Dataset(variables, coords, attrs | {"even_load": config.experts_per_token / config.n_experts})

    def go_on_from(self, made: xr.Dataset) -> None:
        """Begin with what another call left."""
        same = {"n_texts": self.n_texts, "per_text": self.per_text, "fingerprint": about(self.model, "")["fingerprint"]}
        sizes = {"context": self.n, "offset": 2 * self.around + 1}
        fits = all(made.attrs.get(name) == value for name, value in same.items())
        if not fits or made.domain.values.tolist() != self.domains or any(made.sizes[k] != v for k, v in sizes.items()):
            raise ValueError(
                "resume= is of another corpus, another model or other numbers: pass what this call returned"
            )
        self.done = int(made.attrs["n_done"])
        self.weight = np.where(np.isnan(made.weight.values), -np.inf, made.weight.values).astype(np.float32)
        self.text, self.position, self.token_id = (made[k].values.copy() for k in ("text", "position", "token_id"))
        self.tokens = made.domain_tokens.values.copy()
        self.served = np.rint(np.nan_to_num(made.domain_load.values) * self.tokens[:, None, None]).astype(np.int64)


def context_tokens(model: HookedGptOss, contexts: xr.Dataset, layer: int, expert: int) -> list[tuple[list[str], int]]:
    """The snippets of one expert as printable strings, and which of each is the token where it fired."""
    found = []
    offsets = contexts.offset.values
    for ids in contexts.token_id.sel(layer=layer, expert=expert).values:
        kept = ids >= 0
        if kept.any():
            found.append((token_texts(model, ids[kept]).tolist(), int(kept[offsets < 0].sum())))
    return found
