"""What an experiment measures: numbers made of the logits at one position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.experiments.rows import check_index
from workbench.model import HookedGptOss

Token = int | str
Measure = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _OfTokens:
    """A metric that names tokens, which only a model can look up."""

    tokens: tuple[Token | tuple[Token, ...], ...]

    def bound(self, model: HookedGptOss) -> Measure:
        raise NotImplementedError

    def of_rows(self, rows: Sequence[int], n: int) -> _OfTokens:
        """The same for some of n rows: where tokens are named row by row, only those rows'.

        Raises:
            ValueError: for as many tokens as there are no rows.
        """
        wrong = [len(names) for names in self.tokens if isinstance(names, tuple) and len(names) not in (1, n)]
        if wrong:
            raise ValueError(f"the metric names {wrong[0]} tokens, one a row, and there are {n} prompts")

        def cut(names: Token | tuple[Token, ...]) -> Token | tuple[Token, ...]:
            return tuple(names[row] for row in rows) if isinstance(names, tuple) and len(names) == n else names

        return replace(self, tokens=tuple(map(cut, self.tokens)))

    def ids(self, model: HookedGptOss) -> list[Int[Tensor, " rows"]]:
        """Of each name, the id, or the ids row by row. One name fits any number of rows."""
        each = [names if isinstance(names, tuple) else (names,) for names in self.tokens]
        return [torch.tensor([token_id(model, name) for name in names]) for names in each]


@dataclass(frozen=True)
class LogitDifference(_OfTokens):
    """logit(right) − logit(wrong), [batch]; with several of each, row i takes the i-th."""

    def bound(self, model: HookedGptOss) -> Measure:
        right, wrong = self.ids(model)
        return lambda logits: _of_row(logits, right) - _of_row(logits, wrong)

    def __str__(self) -> str:
        right, wrong = map(_named, self.tokens)
        return f"logit of {right} − logit of {wrong}"


@dataclass(frozen=True)
class Probability(_OfTokens):
    """The probability of a token, [batch], in 0 to 1."""

    def bound(self, model: HookedGptOss) -> Measure:
        (token,) = self.ids(model)
        return lambda logits: _of_row(_logprobs(logits), token).exp()

    def __str__(self) -> str:
        return f"probability of {_named(self.tokens[0])}"


Metric = Measure | LogitDifference | Probability | tuple[Token | Sequence[Token], Token | Sequence[Token]]


def logit_difference(right: Token | Sequence[Token], wrong: Token | Sequence[Token]) -> LogitDifference:
    """logit(right) − logit(wrong), of two tokens (text or ids), or of one pair a row.

    >>> metric = experiments.logit_difference(" Ben", " Anna")
    >>> swept = experiments.ablation_sweep(model, [pair.clean], metric, [wb.AblateHead(3, 1)], progress=False)
    >>> swept.attrs["metric"]
    "logit of ' Ben' − logit of ' Anna'"
    """
    return LogitDifference((_frozen(right), _frozen(wrong)))


def probability(token: Token | Sequence[Token]) -> Probability:
    """The probability of a token (text or id), or of one token a row."""
    return Probability((_frozen(token),))


def kl_from(logits: Float[Tensor, "#batch d_vocab"]) -> Measure:
    """KL(p ‖ this) in nats, [batch], where p is the distribution of these logits: how far a run has moved from it."""
    expected = _logprobs(logits.detach())

    def kl_divergence(given: Float[Tensor, "batch d_vocab"]) -> Float[Tensor, " batch"]:
        here = expected.to(given.device)
        return (here.exp() * (here - _logprobs(given))).sum(-1)

    return kl_divergence


def as_metric(model: HookedGptOss, metric: Any) -> tuple[Measure, str]:
    """A metric as a checked function, logits [batch d_vocab] → [batch], and its name in words.

    Args:
        metric: a function; one of this module's; or two tokens (text or ids), the right one and a wrong one: the
            difference of their logits.

    Raises:
        ValueError: for something else, a token that is not one, and, when it is called, for a function that does not
            give one number a row.
    """
    metric = named(metric)
    if isinstance(metric, _OfTokens):
        return _checked(metric.bound(model)), str(metric)
    if callable(metric):
        measure: Measure = metric  # type: ignore[assignment]
        return _checked(measure), getattr(metric, "__name__", type(metric).__name__)
    raise ValueError(
        f"metric={metric!r}: expected two tokens (right, wrong), logit_difference(…), probability(…), kl_from(…), or a "
        "function of logits [batch d_vocab] that gives [batch]"
    )


def named(metric: Any) -> Any:
    """Two tokens as the difference of their logits; anything else as it is."""
    return logit_difference(*metric) if isinstance(metric, tuple) and len(metric) == 2 else metric


def of_rows(metric: Any, rows: Sequence[int], n: int) -> Any:
    """The metric of some of n rows: where it names tokens row by row, of those rows' tokens; any other as it is.

    Raises:
        ValueError: for a metric that names as many tokens as there are no rows.
    """
    return metric.of_rows(rows, n) if isinstance(metric, _OfTokens) else metric


def token_id(model: HookedGptOss, token: Token) -> int:
    """The id of a token, from itself or its text.

    Raises:
        ValueError: for text that is not one token, or an id that the model does not have.
    """
    if isinstance(token, str):
        found = model.to_single_token(token)
    else:
        try:
            found = index(token)  # an int of any library, a tensor of one number too
        except TypeError:
            raise ValueError(f"token={token!r:.60}: expected the text of a single token, or its id") from None
    check_index("token", found, model.config.d_vocab)
    return found


def _checked(measure: Measure) -> Measure:
    def checked(logits: Float[Tensor, "batch d_vocab"]) -> Float[Tensor, " batch"]:
        made = measure(logits)
        if not isinstance(made, Tensor) or tuple(made.shape) != (len(logits),):
            shape = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise ValueError(
                f"the metric gave {shape} for logits {tuple(logits.shape)} [batch d_vocab] of one position each: "
                f"expected one number a row, ({len(logits)},)"
            )
        return made if made.is_floating_point() else made.float()  # of truth values the share can be taken

    return checked


def _of_row(values: Float[Tensor, "batch d_vocab"], ids: Int[Tensor, " rows"]) -> Float[Tensor, " batch"]:
    if len(ids) not in (1, len(values)):
        raise ValueError(f"the metric names {len(ids)} tokens, one a row, and there are {len(values)} rows of logits")
    return values.gather(-1, ids.to(values.device).expand(len(values))[:, None])[:, 0]


def _logprobs(logits: Float[Tensor, "batch d_vocab"]) -> Float[Tensor, "batch d_vocab"]:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def _frozen(tokens: Token | Sequence[Token]) -> Token | tuple[Token, ...]:
    if isinstance(tokens, str):
        return tokens
    try:
        return index(tokens)  # type: ignore[arg-type]  # an int of any library, a tensor of one number too
    except TypeError:
        pass
    try:
        return tuple(token if isinstance(token, str) else index(token) for token in tokens)  # type: ignore[union-attr]
    except TypeError:
        raise ValueError(f"{tokens!r:.80}: expected a token (text or id), or a list with one for each row") from None


def _named(tokens: Token | tuple[Token, ...]) -> str:
    return f"each row's token of {list(tokens)!r}" if isinstance(tokens, tuple) else repr(tokens)
