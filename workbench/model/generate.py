"""Generation step by step, with a KV cache and with whatever hooks are on."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.model.interrupts import without_gradients

if TYPE_CHECKING:
    from workbench.model.config import Config
    from workbench.model.transformer import HookedGptOss


@dataclass(frozen=True)
class Step:
    """One generated token of each row.

    Attributes:
        tokens: [batch] the new tokens; the padding token in rows that had ended before.
        text: the new piece of text of the first row ("" without a tokenizer). Bytes of a character that is not
            yet whole are held back until it is.
        logprobs: [batch] log-probability (nats) that the model itself, at temperature 1, gave the token; of the padding
            token it says nothing: leave out rows that had ended.
        logits: [batch d_vocab] from which it was drawn.
        position: column of the new tokens in the row.
        finished: [batch] rows that have produced an end token, this one included.
    """

    tokens: Int[Tensor, " batch"]
    text: str
    logprobs: Float[Tensor, " batch"]
    logits: Float[Tensor, "batch d_vocab"]
    position: int
    finished: Bool[Tensor, " batch"]

    @property
    def token(self) -> int:
        """The first row's token."""
        return int(self.tokens[0])


class Generation:
    """An iterator of :class:`Step`; what was generated so far is in ``tokens`` and ``text``.

    Args:
        temperature: 0 takes the likeliest token; 1 samples from the model's own distribution.
        top_k: sample among the k likeliest only.
        top_p: sample among the likeliest that together reach this probability (nucleus sampling, arXiv 1904.09751).
        seed: of the draw; the same seed on the same machine gives the same text. None draws a fresh one, kept
            in ``seed``.
        stop_at_eos: end a row at one of the config's end tokens; a set or list of ids ends it at those.
        attention_mask: [batch pos], true for real tokens.
        fwd_hooks: hooks that are on during each step, and off between steps. With the cache, a step's sites
            hold the new token only; ``model.positions`` tells a hook where it is.
        use_cache: False runs the whole text again for each token: slower, and sites hold every position.

    Raises:
        ValueError: for options out of range, before anything runs.
    """

    def __init__(
        self,
        model: HookedGptOss,
        input: Any,
        max_new_tokens: int = 64,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop_at_eos: bool | Sequence[int] = True,
        attention_mask: Tensor | None = None,
        fwd_hooks: Sequence[tuple[str | Callable[[str], bool], Callable]] = (),
        use_cache: bool = True,
    ) -> None:
        _check_options(max_new_tokens, temperature, top_k, top_p, seed)
        self.stop_ids = _stop_ids(stop_at_eos, model.config)
        for name, _ in fwd_hooks:
            model.sites.select(name)
        self.model, self.max_new_tokens = model, max_new_tokens
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.fwd_hooks, self.use_cache = list(fwd_hooks), use_cache
        self.tokens, self.mask = _padded_left(*model.as_batch(input, attention_mask))
        self.prompt_length = self.tokens.shape[1]
        self._generator = torch.Generator() if seed is None else torch.Generator().manual_seed(int(seed))
        self.seed = seed if seed is not None else self._generator.seed()
        self._cache = model.new_cache() if use_cache else None
        self._finished = torch.zeros(self.tokens.shape[0], dtype=torch.bool, device=self.tokens.device)
        self._shown = ""

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        made = self.tokens.shape[1] - self.prompt_length
        if made >= self.max_new_tokens or bool(self._finished.all()):
            raise StopIteration
        before = self._state()
        try:
            return self._step()
        except BaseException:
            self._go_back(before)
            raise

    def _step(self) -> Step:
        logits = self._next_logits()
        tokens = self._draw(logits)
        if bool(self._finished.any()):
            tokens = torch.where(self._finished, self.model._pad_id, tokens)
        logprobs = logits.float().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
        self._append(tokens)
        return Step(tokens, self._new_text(), logprobs, logits, self.tokens.shape[1] - 1, self._finished.clone())

    def _state(self) -> tuple[Any, ...]:
        cache = None if self._cache is None else self._cache.snapshot()
        return self.tokens, self.mask, self._finished, self._shown, self._generator.get_state(), cache

    def _go_back(self, state: tuple[Any, ...]) -> None:
        """As before a step that an error or an interrupt ended half-way: asked again, it gives the same token."""
        self.tokens, self.mask, self._finished, self._shown, drawn, cache = state
        self._generator.set_state(drawn)
        if self._cache is not None:
            self._cache.restore(cache)

    def finish(self) -> Generation:
        """Generate to the end, and return this."""
        for _ in self:
            pass
        return self

    @property
    def new_tokens(self) -> Int[Tensor, "batch new"]:
        """What was generated so far, without the prompt."""
        return self.tokens[:, self.prompt_length :]

    @property
    def text(self) -> str:
        """What was generated so far in the first row, up to its end token."""
        tokens = self.new_tokens[0].tolist()
        # Rows that go on after this one has ended leave padding in it, which is no text of its own.
        end = next((i + 1 for i, token in enumerate(tokens) if token in self.stop_ids), len(tokens))
        return self.model.text.decode(tokens[:end])

    @without_gradients
    def _next_logits(self) -> Float[Tensor, "batch d_vocab"]:
        mask = None if self.mask is None else self.mask
        if self._cache is not None:
            seen = self._cache.n_tokens
            tokens, mask = self.tokens[:, seen:], None if mask is None else mask[:, seen:]
        else:
            tokens = self.tokens
        with self.model.hooks(fwd_hooks=self.fwd_hooks):
            return self.model(tokens, attention_mask=mask, past_kv_cache=self._cache, logits_at="last")[:, -1]

    def _draw(self, logits: Float[Tensor, "batch d_vocab"]) -> Int[Tensor, " batch"]:
        if self.temperature == 0:
            return logits.argmax(-1)
        logits = logits.float().cpu()
        scaled = logits / self.temperature
        overflows = not bool(scaled[logits.isfinite()].isfinite().all())
        if overflows:  # so cold that only the likeliest are left
            scaled = torch.zeros_like(logits).masked_fill(logits < logits.amax(-1, keepdim=True), float("-inf"))
        kept = _nucleus(_strongest(scaled, self.top_k), self.top_p)
        return torch.multinomial(kept.softmax(-1), 1, generator=self._generator)[:, 0].to(self.tokens.device)

    def _append(self, tokens: Int[Tensor, " batch"]) -> None:
        self.tokens = torch.cat((self.tokens, tokens[:, None]), 1)
        if self.mask is not None:
            self.mask = torch.cat((self.mask, torch.ones_like(self.mask[:, :1])), 1)
        for stop in self.stop_ids:
            self._finished = self._finished | (tokens == stop)

    def _new_text(self) -> str:
        if self.model.tokenizer is None:
            return ""
        whole = self.text
        # A trailing U+FFFD is a character whose last bytes have not come yet.
        ready = whole.rstrip("�") if not bool(self._finished[0]) else whole
        if not ready.startswith(self._shown):
            return ""
        new, self._shown = ready[len(self._shown) :], ready
        return new


def _check_options(max_new_tokens: Any, temperature: Any, top_k: Any, top_p: Any, seed: Any) -> None:
    if not _is_whole(max_new_tokens) or max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens!r}: expected a whole number, 0 or more")
    # Written so that NaN, of which every comparison is false, is refused too.
    if not _is_number(temperature) or not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature!r}: expected 0 (likeliest token) or a positive number")
    if top_k is not None and (not _is_whole(top_k) or top_k < 1):
        raise ValueError(f"top_k={top_k!r}: expected a whole number, 1 or more, or None for all tokens")
    if top_p is not None and (not _is_number(top_p) or not 0 < top_p <= 1):
        raise ValueError(f"top_p={top_p!r}: expected a probability above 0 and at most 1, or None")
    if seed is not None and (not _is_whole(seed) or not -(2**63) <= seed < 2**64):
        raise ValueError(f"seed={seed!r}: expected a whole number of 64 bits, or None for a fresh one")


def _is_whole(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and operator.index(value) is not None
    except TypeError:
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _stop_ids(stop_at_eos: Any, config: Config) -> tuple[int, ...]:
    if isinstance(stop_at_eos, bool):
        return config.eos_token_ids if stop_at_eos else ()
    stops = tuple(stop_at_eos) if isinstance(stop_at_eos, Iterable) else (stop_at_eos,)
    if not isinstance(stop_at_eos, Iterable) or not all(_is_whole(t) and 0 <= t < config.d_vocab for t in stops):
        raise ValueError(
            f"stop_at_eos={stop_at_eos!r}: expected True, False or a list of token ids from 0 to {config.d_vocab - 1}"
        )
    return tuple(map(int, stops))


def _padded_left(tokens: Int[Tensor, "batch pos"], mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Rows with their padding moved to the left, where generation needs it."""
    if mask is None:
        return tokens, None
    if not bool(mask.any(1).all()):
        raise ValueError("attention_mask has a row without a real token: nothing to continue")
    order = mask.long().argsort(dim=1, stable=True)
    return tokens.gather(1, order), mask.gather(1, order)


def _strongest(logits: Float[Tensor, "batch d_vocab"], top_k: int | None) -> Float[Tensor, "batch d_vocab"]:
    if top_k is None or top_k >= logits.shape[-1]:
        return logits
    kept = logits.topk(top_k, dim=-1)
    return torch.full_like(logits, float("-inf")).scatter(-1, kept.indices, kept.values)


def _nucleus(logits: Float[Tensor, "batch d_vocab"], top_p: float | None) -> Float[Tensor, "batch d_vocab"]:
    if top_p is None or top_p >= 1:
        return logits
    ordered, indices = logits.sort(-1, descending=True)
    probabilities = ordered.softmax(-1)
    # A token stays if those before it have not yet reached top_p: the first always does.
    beyond = probabilities.cumsum(-1) - probabilities >= top_p
    return torch.full_like(logits, float("-inf")).scatter(-1, indices, ordered.masked_fill(beyond, float("-inf")))
