"""The routes of a corpus as one flat table: a line for each real token of every text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from workbench.activations import Run
from workbench.experiments.rows import is_whole, provenance, real_columns, token_coords
from workbench.experiments.texts import about, activations, rows_of
from workbench.model import Config, HookedGptOss

Source = Run | Sequence[Run] | HookedGptOss
KINDS = ("router_logits", "expert_indices", "expert_weights")


@dataclass(frozen=True)
class Routes:
    """Where each token of a corpus went.

    Attributes:
        experts: the expert in each slot, strongest first.
        weights: its routing weight.
        entropy: of the softmax over all the router's logits, in nats.
        token_id, text, speaker: of each token, its id, the number of its text, and its role and channel ("" unknown).
        domains: one name a text; None where none were given.
        attrs: provenance.
    """

    config: Config
    experts: Int[np.ndarray, "layer token slot"]
    weights: Float[np.ndarray, "layer token slot"]
    entropy: Float[np.ndarray, "layer token"]
    token_id: Int[np.ndarray, " token"]
    text: Int[np.ndarray, " token"]
    speaker: np.ndarray
    domains: tuple[str, ...] | None
    attrs: dict[str, Any]

    @property
    def chosen(self) -> Bool[np.ndarray, "layer token expert"]:
        """Whether a token goes to an expert."""
        made = np.zeros((*self.experts.shape[:2], self.config.n_experts), dtype=bool)
        np.put_along_axis(made, self.experts, True, axis=-1)
        return made

    def domain_of_token(self) -> np.ndarray:
        """The domain of each token's text.

        Raises:
            ValueError: if no domains were given.
        """
        if self.domains is None:
            raise ValueError("this needs domains=, one name a text")
        return np.array(self.domains, dtype=str)[self.text]


def collect(
    source: Source,
    texts: Sequence[Any] | None = None,
    domains: Sequence[str] | None = None,
    experiment: str = "routing_statistics",
    progress: bool = True,
) -> Routes:
    """The routes of runs, or of texts that a model is run on, one by one, with nothing else kept.

    Args:
        source: a run, several (of one model), or a model.
        texts: with a model: texts, Chats or rows of ids.
        domains: one name for each text, that is for each row of all the runs in order.

    Raises:
        ValueError: for no texts, texts given with runs, runs of different models, or the wrong number of domains.
        KeyError: if a run did not keep its routing.
    """
    if isinstance(source, HookedGptOss):
        if texts is None:
            raise ValueError("a model was given without texts; pass some, or runs instead of the model")
        model, attrs = source, about(source, experiment)
        parts = list(_of_texts(source, texts, progress))
    else:
        if texts is not None:
            raise ValueError("texts were given with runs, which have their own; leave them out, or pass the model")
        runs = [source] if isinstance(source, Run) else list(source) if isinstance(source, Iterable) else []
        if not runs or not all(isinstance(run, Run) for run in runs):
            raise ValueError(f"{source!r:.80}: expected a run, several, or a model with texts")
        if any(run.model is not runs[0].model for run in runs):
            raise ValueError(f"{len(runs)} runs of several models were given: expected all of one model")
        model, attrs = runs[0].model, provenance(runs[0], experiment)
        parts = [part for run in runs for part in _of_run(run)]
    if domains is not None and (isinstance(domains, str) or len(domains) != len(parts)):
        raise ValueError(f"{len(domains)} domains for {len(parts)} texts: expected one name a text")
    joined = [np.concatenate([part[i] for part in parts], axis=axis) for i, axis in enumerate((1, 1, 1, 0, 0))]
    text = np.repeat(np.arange(len(parts)), [len(part[3]) for part in parts])
    attrs |= {"n_texts": len(parts), "n_tokens": len(text)}
    experts, weights, entropy, token_id, speaker = joined
    named = None if domains is None else tuple(map(str, domains))
    return Routes(model.config, experts, weights, entropy, token_id, text, speaker, named, attrs)


def check_shuffles(shuffles: int) -> None:
    """Refuse fewer than none."""
    if not is_whole(shuffles) or shuffles < 0:
        raise ValueError(f"shuffles={shuffles!r}: expected 0 (no null) or more")


def _sites(config: Config) -> list[str]:
    return [f"blocks.{layer}.mlp.hook_{kind}" for layer in range(config.n_layers) for kind in KINDS]


def _of_texts(model: HookedGptOss, texts: Sequence[Any], progress: bool) -> Iterator[tuple[np.ndarray, ...]]:
    rows = rows_of(model, texts)
    found = activations(model, rows, _sites(model.config), progress)
    for row, values in zip(rows, found, strict=True):
        yield _part(model, values, row.tolist())


def _of_run(run: Run) -> Iterator[tuple[np.ndarray, ...]]:
    for row in range(len(run.tokens)):
        columns = real_columns(run, row)
        values = {site: run[site][row, columns] for site in _sites(run.model.config)}
        yield _part(run.model, values, run.tokens[row, columns].tolist())


def _part(model: HookedGptOss, values: dict[str, torch.Tensor], ids: list[int]) -> tuple[np.ndarray, ...]:
    """Experts, weights, entropies, ids and speakers of one text."""
    logits, experts, weights = (
        torch.stack(
            [values[f"blocks.{layer}.mlp.hook_{kind}"].detach().cpu() for layer in range(model.config.n_layers)]
        )
        for kind in KINDS
    )
    entropy = torch.special.entr(logits.double().softmax(-1)).sum(-1)  # an expert that is masked out adds nothing
    coords = token_coords(ids, model.tokenizer)
    pairs = zip(coords["role"][1], coords["channel"][1], strict=True)
    speaker = np.array(["/".join(word for word in pair if word) for pair in pairs], dtype=str)
    return experts.numpy(), weights.double().numpy(), entropy.numpy(), np.array(ids, dtype=np.int64), speaker
