"""Lesson 4: attention. What its exercises must do, and what students get wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor

from workbench.activations import run
from workbench.interventions import AblateHead
from workbench.lessons.exercise import Case, Exercise, Mistake, close, equal
from workbench.lessons.models import nano
from workbench.lessons.outline import Outline
from workbench.model import HookedGptOss


def _tensor(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


# ---------------------------------------------------------------------------------------------------- grouped queries


def _queries_and_keys(rng: np.random.Generator) -> Iterator[Case]:
    shapes = ((6, 8, 2, 4), (5, 6, 3, 8), (1, 4, 1, 6))
    for n, heads, kv_heads, d_head in shapes:
        q, k = rng.normal(size=(n, heads, d_head)), rng.normal(size=(n, kv_heads, d_head))
        yield Case((_tensor(q), _tensor(k)), about=f"{heads} query heads on {kv_heads} key-value heads, {n} tokens")


def _scores_by_loops(q: Tensor, k: Tensor) -> np.ndarray:
    n, heads, d_head = q.shape
    group = heads // k.shape[1]
    scores = np.zeros((heads, n, n))
    for head in range(heads):
        for query in range(n):
            for key in range(n):
                dot = sum(float(a) * float(b) for a, b in zip(q[query, head], k[key, head // group], strict=True))
                scores[head, query, key] = dot / d_head**0.5
    return scores


def _dots(q: Tensor, k: Tensor, interleaved: bool = False) -> Tensor:
    """Without the scale; key heads each repeated in place, or the whole row of them repeated."""
    group = q.shape[1] // k.shape[1]
    k = k.repeat(1, group, 1) if interleaved else k.repeat_interleave(group, 1)
    return torch.einsum("qhd,khd->hqk", q, k)


GROUPED_SCORES = Exercise(
    name="grouped_scores",
    task="Attention scores of query heads that share key-value heads",
    cases=_queries_and_keys,
    truth=_scores_by_loops,
    mistakes=(
        Mistake(
            "no scale",
            _dots,
            "The dot products are right. Divide them by √d_head: the size of the **last** axis of q.",
        ),
        Mistake(
            "divided by d_head",
            lambda q, k: _dots(q, k) / q.shape[-1],
            "You divide by d_head itself. The scale is its square root: a dot product of d_head random terms is about "
            "√d_head large, not d_head.",
        ),
        Mistake(
            "key-value heads dealt out in turn",
            lambda q, k: _dots(q, k, interleaved=True) / q.shape[-1] ** 0.5,
            "You deal the key-value heads out in turn (0 1 0 1 …). Neighbours form a group: with 8 heads on 2, heads "
            "0–3 read key-value head 0 and heads 4–7 read 1. In einops: `(kv_head group)`, the group running faster.",
        ),
        Mistake(
            "keys by queries",
            lambda q, k: _dots(q, k).transpose(-1, -2) / q.shape[-1] ** 0.5,
            "Rows and columns are exchanged: the result is [head, query_pos, key_pos], a row for each token that "
            "looks.",
        ),
    ),
    hints=(
        "Give the query heads two axes: which key-value head they read, and which of its group they are.",
        '`q = rearrange(q, "query_pos (kv_head group) d_head -> query_pos kv_head group d_head", kv_head=k.shape[1])`',
        "Then one einsum over d_head, [kv_head group query_pos key_pos]; join (kv_head group) to head again, "
        "and divide by √d_head.",
    ),
)


# ------------------------------------------------------------------------------------------------------------ the sink


def _scores_and_sink(rng: np.random.Generator) -> Iterator[Case]:
    for heads, n, size in ((3, 6, 1.0), (1, 1, 1.0), (2, 5, 300.0)):
        scores = size * rng.normal(size=(heads, n, n))
        scores[:, ~np.tri(n, dtype=bool)] = -np.inf
        about = "large scores" if size > 1 else "a single token" if n == 1 else f"{n} tokens"
        sink = size * np.abs(rng.normal(size=heads)) + 0.3
        yield Case((_tensor(scores), _tensor(sink)), about=about)


def _pattern(scores: Tensor, sink: Tensor) -> np.ndarray:
    x, s = scores.double().numpy(), sink.double().numpy()[:, None]
    total = np.logaddexp(np.asarray(logsumexp(x, axis=-1)), s)
    return np.exp(x - total[..., None])


def _with_column(scores: Tensor, column: Tensor) -> Tensor:
    column = column[:, None, None].expand(*scores.shape[:2], 1)
    return torch.cat([scores, column], -1)


def _naive(scores: Tensor, sink: Tensor) -> Tensor:
    e = scores.exp()
    return e / (e.sum(-1, keepdim=True) + sink.exp()[:, None, None])


SOFTMAX_WITH_SINK = Exercise(
    name="softmax_with_sink",
    task="The attention pattern of scores with a learned sink",
    cases=_scores_and_sink,
    truth=_pattern,
    mistakes=(
        Mistake(
            "forgot the sink",
            lambda scores, sink: scores.softmax(-1),
            "Your rows sum to 1. The sink takes its share: it stands in the softmax as one more column, and is dropped "
            "afterwards.",
        ),
        Mistake(
            "kept the sink's column",
            lambda scores, sink: _with_column(scores, sink).softmax(-1),
            "Nearly: your result has one key too many. The sink's column takes part in the softmax, and is dropped "
            "after it.",
        ),
        Mistake(
            "softmax over the queries",
            lambda scores, sink: _with_column(scores, sink).softmax(-2)[..., :-1],
            "The softmax runs over the wrong axis: each **query** shares its attention among the keys, so the last "
            "axis.",
        ),
        Mistake(
            "a sink of 0 for all",
            lambda scores, sink: _with_column(scores, torch.zeros_like(sink)).softmax(-1)[..., :-1],
            "You put a column of zeros. The column's score is **learned**, one for each head: `sink[head]`.",
        ),
        Mistake(
            "the sink as a number, not as a score",
            lambda scores, sink: (
                (scores - scores.amax(-1, keepdim=True)).exp()
                / ((scores - scores.amax(-1, keepdim=True)).exp().sum(-1, keepdim=True) + sink[:, None, None])
            ),
            "You add the sink to the denominator as it stands. It is a logit, like a score: it counts as exp(sink).",
        ),
        Mistake(
            "overflow",
            _naive,
            "Right in theory, but exp overflows on large scores. Subtract each row's maximum first (the sink's logit "
            "too), or let `softmax` do it.",
        ),
    ),
    hints=(
        "Give every row one more column before the softmax, and take it away after.",
        "The column is `sink[:, None, None]`, expanded to [head, query_pos, 1]; join with `torch.cat(…, dim=-1)`.",
        "`torch.cat([scores, sink[:, None, None].expand(*scores.shape[:2], 1)], -1).softmax(-1)[..., :-1]`",
    ),
)


# ---------------------------------------------------------------------------------------------- masks, and their reach


def _lengths(rng: np.random.Generator) -> Iterator[Case]:
    n = int(rng.integers(6, 10))
    for length, window, about in (
        (n, None, "full attention"),
        (n, 3, "a window of 3"),
        (5, 1, "a window of 1: itself only"),
        (1, 4, "a single token"),
        (4, n + 3, "a window longer than the text"),
    ):
        yield Case((length, window), about=about)


def _visible(n: int, window: int | None) -> np.ndarray:
    seen = np.zeros((n, n), dtype=bool)
    for query in range(n):
        first = 0 if window is None else max(0, query - window + 1)
        for key in range(first, query + 1):
            seen[query, key] = True
    return seen


def _back(n: int) -> Tensor:
    """How many tokens each key lies before each query."""
    return torch.arange(n)[:, None] - torch.arange(n)


VISIBLE = Exercise(
    name="visible",
    task="Which keys a query sees: causal, and within a window that counts the token itself",
    cases=_lengths,
    truth=_visible,
    mistakes=(
        Mistake(
            "one key too many",
            lambda n, window: (_back(n) >= 0) & (_back(n) <= (n if window is None else window)),
            "Off by one at the far edge: a window of 3 is the token itself and **two** before it. `back < window`.",
        ),
        Mistake(
            "not itself",
            lambda n, window: (_back(n) > 0) & (_back(n) < (n if window is None else window)),
            "A token sees itself, too: the diagonal is True. (The first token has nobody else.)",
        ),
        Mistake(
            "sees the future",
            lambda n, window: _back(n) < (n if window is None else window),
            "Your queries see keys that come after them. Causal: key_pos ≤ query_pos.",
        ),
        Mistake(
            "rows are keys",
            lambda n, window: torch.from_numpy(_visible(n, window).T.copy()),
            "Rows and columns are exchanged: a row is a **query**, so row 0 sees only column 0.",
        ),
        Mistake(
            "no window",
            lambda n, window: _back(n) >= 0,
            "Causal, yes; but the window is missing. Where `window` is a number, keys further back than it are hidden.",
        ),
    ),
    hints=(
        "For each pair, how far back does the key lie? `back = torch.arange(n)[:, None] - torch.arange(n)`.",
        "Causal means back ≥ 0. A window of w keys, with the token itself, means back < w.",
        "`(back >= 0) & (back < (n if window is None else window))`",
    ),
    compare=equal(),
)


def _masks(rng: np.random.Generator) -> Iterator[Case]:
    yield Case((torch.from_numpy(np.stack([_visible(12, 4)] * 2)),), about="two layers with a window of 4")
    yield Case(
        (torch.from_numpy(np.stack([_visible(9, 3), _visible(9, None)])),), about="a window, then full attention"
    )
    drawn = rng.random((3, 7, 7)) < 0.18
    yield Case((torch.from_numpy(drawn | np.eye(7, dtype=bool)),), about="three layers of arbitrary masks")


def _reached(masks: Tensor) -> np.ndarray:
    """Follows each token's information upwards: who has it after each layer."""
    n = masks.shape[-1]
    reached = np.zeros((n, n), dtype=bool)
    for source in range(n):
        has = {source}
        for mask in masks.numpy():
            has = {query for query in range(n) if any(mask[query, key] for key in has)} | has
        reached[sorted(has), source] = True
    return reached


def _product(masks: Tensor) -> Tensor:
    total = torch.eye(masks[0].shape[-1])
    for mask in masks:
        total = mask.float() @ total
    return total


REACHABLE = Exercise(
    name="reachable",
    task="Who can hear of whom after a stack of layers: the boolean product of their masks",
    cases=_masks,
    truth=_reached,
    mistakes=(
        Mistake(
            "any layer",
            lambda masks: masks.any(0),
            "That is who sees whom in **one** of the layers. Information goes on: what a token heard in layer 0 is in "
            "its stream when layer 1 looks at it. Multiply the masks.",
        ),
        Mistake(
            "every layer",
            lambda masks: masks.all(0),
            "That is who sees whom in **all** layers. A longer way goes over tokens in between: multiply the masks.",
        ),
        Mistake(
            "paths counted",
            _product,
            "You count the paths. Asked is only whether there is one: `> 0`.",
        ),
        Mistake(
            "layers in reverse",
            lambda masks: _product(masks.flip(0)) > 0,
            "The order of the layers is the wrong way round: layer 0 acts first, so it stands at the **right** of the "
            "product, next to the key.",
        ),
        Mistake(
            "transposed",
            lambda masks: _product(masks).T > 0,
            "Rows and columns are exchanged: the result is [query_pos, key_pos], a row for the token that hears.",
        ),
    ),
    hints=(
        "Two layers: query q hears of key k if some token m lies between: mask1[q, m] and mask0[m, k]. That is a "
        "product.",
        "Start from mask 0 as numbers and multiply each next layer from the left: `total = mask.float() @ total`.",
        "The product counts paths; `> 0` says whether there is one.",
    ),
    points=2,
    compare=equal(),
)


# ------------------------------------------------------------------------------------------------------ scores of heads


def _patterns(rng: np.random.Generator, length: int, batch: int = 2, heads: int = 3) -> Tensor:
    """Causal patterns over a text of ``length`` tokens twice, whose rows sum to less than 1."""
    n = 2 * length
    scores = rng.normal(size=(batch, heads, n, n))
    scores[..., ~np.tri(n, dtype=bool)] = -np.inf
    weights = np.exp(scores)
    return _tensor(weights / (weights.sum(-1, keepdims=True) + 0.5))


def _one_pattern(rng: np.random.Generator) -> Iterator[Case]:
    for length in (4, 7):
        yield Case((_patterns(rng, length),), about=f"{2 * length} tokens")


def _pattern_and_length(rng: np.random.Generator) -> Iterator[Case]:
    for length in (4, 7):
        yield Case((_patterns(rng, length), length), about=f"{length} tokens, twice")


def _mean_by_loops(pattern: Tensor, offset: int, first: int) -> np.ndarray:
    """Of A[t, t − offset] over batch and queries from the first on."""
    a = pattern.double().numpy()
    at = [[a[row, :, t, t - offset] for t in range(first, a.shape[-1])] for row in range(a.shape[0])]
    return np.asarray(at).mean((0, 1))


def _diagonal(pattern: Tensor, offset: int) -> Tensor:
    return pattern.diagonal(-offset, dim1=-2, dim2=-1)


PREVIOUS_TOKEN_SCORE = Exercise(
    name="previous_token_score",
    task="Mean attention of each head from a token to the one before it",
    cases=_one_pattern,
    truth=lambda pattern: _mean_by_loops(pattern, 1, 1),
    mistakes=(
        Mistake(
            "the next token",
            lambda pattern: _diagonal(pattern, -1).mean((0, 2)),
            "You read the diagonal **above** the main one: attention to the token that comes next, which a causal head "
            "cannot see. Below the main diagonal the offset is −1.",
        ),
        Mistake(
            "itself",
            lambda pattern: _diagonal(pattern, 0).mean((0, 2)),
            "That is the main diagonal: attention of each token to **itself**. One further down.",
        ),
        Mistake(
            "the first token counted",
            lambda pattern: _diagonal(pattern, 1).sum(2).mean(0) / pattern.shape[-1],
            "You divide by the number of all tokens. The first has no token before it: it is not in the mean.",
        ),
        Mistake(
            "batch not averaged",
            lambda pattern: _diagonal(pattern, 1).mean(2),
            "One number for each **head** is asked: average over the batch, too.",
        ),
    ),
    hints=(
        "A[t, t − 1] for all t from 1 on is one diagonal of the pattern.",
        "`pattern.diagonal(offset, dim1=-2, dim2=-1)` is [batch, head, pos]; offset −1 lies just below the main one.",
        "Average over batch and pos: `.mean((0, 2))`.",
    ),
)

DUPLICATE_TOKEN_SCORE = Exercise(
    name="duplicate_token_score",
    task="Mean attention, in the second telling, to the same token in the first",
    cases=_pattern_and_length,
    truth=lambda pattern, length: _mean_by_loops(pattern, length, length),
    mistakes=(
        Mistake(
            "one too near",
            lambda pattern, length: _diagonal(pattern, length - 1)[..., 1:].mean((0, 2)),
            "You look at the token **after** the earlier copy: that is what an induction head does. The copy itself "
            "lies `length` back.",
        ),
        Mistake(
            "one too near, one query too many",
            lambda pattern, length: _diagonal(pattern, length - 1).mean((0, 2)),
            "Your diagonal lies `length − 1` back. The same token was said `length` tokens ago.",
        ),
        Mistake(
            "all queries in the mean",
            lambda pattern, length: _diagonal(pattern, length).sum(2).mean(0) / pattern.shape[-1],
            "You divide by all tokens. Only the second telling has an earlier copy: `length` queries.",
        ),
        Mistake(
            "the future",
            lambda pattern, length: _diagonal(pattern, -length).mean((0, 2)),
            "That diagonal lies above the main one, in the future. The sign of the offset is the other one.",
        ),
    ),
    hints=(
        "The token at t was said at t − length.",
        "The same diagonal as before, further down: its offset is −length.",
        "`pattern.diagonal(-length, dim1=-2, dim2=-1).mean((0, 2))`",
    ),
)

INDUCTION_SCORE = Exercise(
    name="induction_score",
    task="Mean attention, in the second telling, to the token after the earlier copy",
    cases=_pattern_and_length,
    truth=lambda pattern, length: _mean_by_loops(pattern, length - 1, length),
    mistakes=(
        Mistake(
            "one query too many",
            lambda pattern, length: _diagonal(pattern, length - 1).mean((0, 2)),
            "The right diagonal, but its first entry belongs to the **last token of the first telling**, which has no "
            "earlier copy. Leave it out.",
        ),
        Mistake(
            "the copy itself",
            lambda pattern, length: _diagonal(pattern, length).mean((0, 2)),
            "You look at the earlier copy itself. An induction head looks at what came **after** it: one nearer.",
        ),
        Mistake(
            "one too far",
            lambda pattern, length: _diagonal(pattern, length + 1).mean((0, 2)),
            "You look at the token **before** the earlier copy. What came after it is length − 1 back.",
        ),
        Mistake(
            "all queries in the mean",
            lambda pattern, length: _diagonal(pattern, length - 1)[..., 1:].sum(2).mean(0) / pattern.shape[-1],
            "You divide by all tokens of the text. Only those of the second telling can look at an earlier copy.",
        ),
    ),
    hints=(
        "At t the earlier copy lies at t − length. What followed it lies one nearer.",
        "The diagonal of offset −(length − 1) begins at the query t = length − 1. Has that query an earlier copy?",
        "`pattern.diagonal(1 - length, dim1=-2, dim2=-1)[..., 1:].mean((0, 2))`",
    ),
    points=2,
)


# ------------------------------------------------------------------------------------------------- what heads write, do


def _pattern_values_output(rng: np.random.Generator) -> Iterator[Case]:
    for heads, kv_heads, n in ((4, 2, 5), (6, 3, 3), (4, 1, 1)):
        pattern = _patterns(rng, (n + 1) // 2, 1, heads)[0, :, :n, :n].contiguous()
        v, out = rng.normal(size=(n, kv_heads, 4)), rng.normal(size=(heads, 4, 7))
        about = f"{heads} heads on {kv_heads} key-value heads, {n} tokens"
        yield Case((pattern, _tensor(v), _tensor(out)), about=about)


def _written_by_loops(pattern: Tensor, v: Tensor, W_O: Tensor) -> np.ndarray:
    a, values, out = (x.double().numpy() for x in (pattern, v, W_O))
    group = len(a) // values.shape[1]
    made = np.zeros(a.shape)
    for head, query, key in np.ndindex(*a.shape):
        made[head, query, key] = np.linalg.norm(a[head, query, key] * values[key, head // group] @ out[head])
    return made


def _lengths_of_writes(v: Tensor, W_O: Tensor, interleaved: bool = False) -> Tensor:
    group = W_O.shape[0] // v.shape[1]
    v = v.repeat(1, group, 1) if interleaved else v.repeat_interleave(group, 1)
    return torch.einsum("khd,hdm->hkm", v, W_O).norm(dim=-1)


def _norms_of_values(pattern: Tensor, v: Tensor, W_O: Tensor) -> Tensor:
    norms = v.repeat_interleave(W_O.shape[0] // v.shape[1], 1).norm(dim=-1)
    return pattern * norms.T[:, None]


def _norm_of_sum(pattern: Tensor, v: Tensor, W_O: Tensor) -> Tensor:
    z = torch.einsum("hqk,khd->hqd", pattern, v.repeat_interleave(W_O.shape[0] // v.shape[1], 1))
    return torch.einsum("hqd,hdm->hqm", z, W_O).norm(dim=-1)


WRITE_NORMS = Exercise(
    name="write_norms",
    task="How long a vector each key adds to each query's stream through each head",
    cases=_pattern_values_output,
    truth=_written_by_loops,
    mistakes=(
        Mistake(
            "values before W_O",
            _norms_of_values,
            "You measure the values, [d_head]. What arrives in the stream is v · W_O, [d_model]: multiply first, then "
            "take the norm.",
        ),
        Mistake(
            "summed before the norm",
            _norm_of_sum,
            "You sum over the keys before the norm, so the key axis is gone. Asked is what **each** key adds: "
            "[head, query_pos, key_pos].",
        ),
        Mistake(
            "key-value heads dealt out in turn",
            lambda pattern, v, W_O: pattern * _lengths_of_writes(v, W_O, interleaved=True)[:, None],
            "The wrong value head: neighbours share one (heads 0–3 read 0, …), they do not take turns.",
        ),
        Mistake(
            "without the pattern",
            lambda pattern, v, W_O: _lengths_of_writes(v, W_O)[:, None].expand_as(pattern),
            "The pattern is missing: a value counts as much as the query attends to it.",
        ),
        Mistake(
            "squared",
            lambda pattern, v, W_O: pattern * _lengths_of_writes(v, W_O)[:, None].square(),
            "You sum squares without the root: a norm is √Σx².",
        ),
    ),
    hints=(
        "The pattern is a number ≥ 0, so it can stand outside the norm: A · ‖v W_O‖.",
        'Split W_O\'s heads: `rearrange(W_O, "(kv_head group) d_head d_model -> kv_head group d_head d_model", …)`; '
        "einsum with v over d_head; norm over d_model.",
        "That gives [key_pos, head]; transpose, and put a query axis of size 1 in: `pattern * norms.T[:, None, :]`.",
    ),
    points=2,
)


def _told_twice(rng: np.random.Generator) -> Iterator[Case]:
    model, length = nano(), int(rng.integers(18, 24))
    once = torch.from_numpy(rng.integers(20, model.config.d_vocab, size=(2, length)))
    tokens = torch.cat([once, once], 1)
    for heads in ([(0, 6)], [(0, 4), (0, 7)], []):
        about = f"heads {heads}" if heads else "no heads ablated"
        yield Case((model, tokens, length, heads), about=about)


@torch.no_grad()
def _logits_without(model: HookedGptOss, tokens: Tensor, heads: Sequence[tuple[int, int]]) -> Tensor:
    def silent(head: int):
        def edit(z: Tensor, hook: object) -> Tensor:
            z = z.clone()
            z[:, :, head] = 0
            return z

        return edit

    return model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{at}.attn.hook_z", silent(head)) for at, head in heads])


def _loss_by_loops(model: HookedGptOss, tokens: Tensor, length: int, heads: Sequence[tuple[int, int]]) -> float:
    logits = _logits_without(model, tokens, heads).double().numpy()
    each = [
        logsumexp(logits[row, at - 1]) - logits[row, at - 1, int(tokens[row, at])]
        for row in range(len(tokens))
        for at in range(length + 1, 2 * length)
    ]
    return float(np.mean(each))


def _loss(model: HookedGptOss, tokens: Tensor, heads: Sequence[tuple[int, int]], first: int, shift: int = 1) -> float:
    """Mean loss of the targets from position ``first`` on, each read ``shift`` tokens before."""
    logits = run(model, tokens, [AblateHead(*at) for at in heads]).logits
    n = tokens.shape[1]
    said = logits[:, first - shift : n - shift].log_softmax(-1)
    return -float(said.gather(-1, tokens[:, first:, None]).mean())


LOSS_WITHOUT = Exercise(
    name="loss_without",
    task="The loss in the second telling, with some heads silent",
    cases=_told_twice,
    truth=_loss_by_loops,
    mistakes=(
        Mistake(
            "heads not ablated",
            lambda model, tokens, length, heads: _loss(model, tokens, [], length + 1),
            "The loss is right, but of the **unedited** model: hand the ablations to `wb.run` as its third argument.",
        ),
        Mistake(
            "only the first head",
            lambda model, tokens, length, heads: _loss(model, tokens, heads[:1], length + 1),
            "Only the first of the heads is silent. All of them, in one run: a list of `wb.AblateHead(layer, head)`.",
        ),
        Mistake(
            "the whole text",
            lambda model, tokens, length, heads: _loss(model, tokens, heads, 1),
            "You average over the whole text. In the first telling nobody can know the next token: only targets from "
            "position length + 1 on.",
        ),
        Mistake(
            "not shifted",
            lambda model, tokens, length, heads: _loss(model, tokens, heads, length + 1, shift=0),
            "Logits at position t predict the token at t + **1**: you compare them with the token at t.",
        ),
        Mistake(
            "the first token of the second telling",
            lambda model, tokens, length, heads: _loss(model, tokens, heads, length),
            "One target too many: that the telling begins anew, at position `length`, cannot be known. Begin with the "
            "target at length + 1.",
        ),
    ),
    hints=(
        "`done = wb.run(model, tokens, [wb.AblateHead(layer, head), …])`, then `done.logits` [batch, pos, d_vocab].",
        "Logits at t predict token t + 1. Targets length + 1 … end are predicted by positions length … end − 1.",
        "`said = done.logits[:, length:-1].log_softmax(-1)`; gather `tokens[:, length + 1:]`; minus the mean.",
    ),
    points=2,
    compare=close(rtol=1e-3, atol=1e-4),
)


LESSON = Outline(
    name="04_attention",
    title="Attention: grouped queries, sinks, the window's edge",
    minutes=(60, 90),
    able_to=(
        "compute the attention pattern of gpt-oss from queries and keys: grouped heads, sink, window",
        "say what a head does with attention that it does not need, and what happens without its sink",
        "tell how far a token can reach through a stack of sliding and full layers",
        "find previous-token, duplicate-token and induction heads by a score, beside what chance gives",
        "show that a pattern is not an explanation: measure what a head writes, and ablate it",
    ),
    exercises=(
        GROUPED_SCORES,
        SOFTMAX_WITH_SINK,
        VISIBLE,
        REACHABLE,
        PREVIOUS_TOKEN_SCORE,
        DUPLICATE_TOKEN_SCORE,
        INDUCTION_SCORE,
        WRITE_NORMS,
        LOSS_WITHOUT,
    ),
    predictions=("whose keys", "tipping point", "a dead head", "the edge", "the stack's reach", "which head matters"),
    builds_on=("01_build_gpt_oss", "03_residual_stream"),
)
