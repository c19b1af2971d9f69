"""What comes next after any text, token by token, with interventions on: the steps of a tree of continuations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients


class NextToken:
    """The next-token distribution after a text, with interventions on in the whole pass.

    A text that goes on from the last one asked for, with the same interventions and sources, is read on from there with
    its keys and values; any other is read from the start.

    Args:
        model: it is left as it was after each call.
    """

    def __init__(self, model: HookedGptOss) -> None:
        self.model = model
        self._read: tuple[int, ...] = ()
        self._edits: tuple[Any, ...] | None = None
        self._cache: Any = None
        self._last: np.ndarray | None = None
        self._held: dict[str, Any] = {}  # the sources, so that nothing else gets their ids

    @without_gradients
    def after(
        self, tokens: Sequence[int], specs: Sequence[Any] = (), sources: Mapping[str, Any] | None = None
    ) -> Float[np.ndarray, " d_vocab"]:
        """Log-probabilities (nats) of the token after a text.

        Args:
            tokens: the text, not empty.
            specs: interventions, as ``wb.run`` takes them; positions are columns of the text.
            sources: what they name.

        Raises:
            ValueError: for an empty text, or a spec that the model or the sources do not have.
        """
        tokens, specs = tuple(int(token) for token in tokens), tuple(specs)
        if not tokens:
            raise ValueError("there is no text to continue; give at least one token")
        edits = (specs, _told_apart(sources))
        goes_on = edits == self._edits and tokens[: len(self._read)] == self._read
        if goes_on and tokens == self._read and self._last is not None:
            return self._last
        if not goes_on or tokens == self._read:
            self._read, self._cache, self._edits = (), self.model.new_cache(), edits
        try:
            new = self.model.as_batch(list(tokens[len(self._read) :]))[0]
            with self.model.edited(specs, sources):
                logits = self.model(new, past_kv_cache=self._cache, logits_at="last")
        except BaseException:
            self._edits = None  # a cache that holds half a text is of no use
            raise
        last = logits[0, -1].float().log_softmax(-1).cpu().numpy()
        self._read, self._last, self._held = tokens, last, dict(sources or {})
        return last


def _told_apart(sources: Mapping[str, Any] | None) -> dict[str, tuple[int, int]]:
    """Which objects the sources are, and how often a vector has been written into."""
    return {name: (id(source), getattr(source, "_version", 0)) for name, source in (sources or {}).items()}


def drawn(logprobs: Float[np.ndarray, " d_vocab"], temperature: float, generator: np.random.Generator) -> int:
    """A token: the likeliest at temperature 0, else drawn from the distribution at that temperature.

    Raises:
        ValueError: for a temperature below 0.
    """
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature}: expected 0 (the likeliest token) or a positive number")
    if temperature == 0:
        return int(logprobs.argmax())
    # The largest of log p / T + Gumbel noise is a draw from softmax(log p / T).
    return int((logprobs / temperature + generator.gumbel(size=logprobs.shape)).argmax())
