"""What students hand in for lesson 4, and the hint that each deserves."""

import torch
from einops import einsum, rearrange, repeat

import workbench as wb


# ------------------------------------------------------------------------------------------------------ grouped_scores
def unscaled(q, k):
    q = rearrange(q, "t (g r) d -> t g r d", g=k.shape[1])
    return rearrange(einsum(q, k, "i g r d, j g d -> g r i j"), "g r i j -> (g r) i j")


def scaled_by_the_size(q, k):
    k = repeat(k, "t g d -> t (g r) d", r=q.shape[1] // k.shape[1])
    return einsum(q, k, "i h d, j h d -> h i j") / q.shape[-1]


def taking_turns(q, k):
    # (r g): the key-value head runs faster
    q = rearrange(q, "t (r g) d -> t r g d", g=k.shape[1])
    scores = einsum(q, k, "i r g d, j g d -> r g i j")
    return rearrange(scores, "r g i j -> (r g) i j") / q.shape[-1] ** 0.5


def keys_first(q, k):
    k = repeat(k, "t g d -> t (g r) d", r=q.shape[1] // k.shape[1])
    return einsum(q, k, "i h d, j h d -> h j i") / q.shape[-1] ** 0.5


# --------------------------------------------------------------------------------------------------- softmax_with_sink
def plain_softmax(scores, sink):
    return torch.softmax(scores, dim=-1)


def column_still_there(scores, sink):
    heads, n, _ = scores.shape
    both = torch.cat((scores, sink.view(heads, 1, 1).repeat(1, n, 1)), dim=2)
    return torch.softmax(both, dim=2)


def down_the_columns(scores, sink):
    heads, n, _ = scores.shape
    both = torch.cat((scores, sink.view(heads, 1, 1).repeat(1, n, 1)), dim=2)
    return torch.softmax(both, dim=1)[:, :, :n]


def off_by_one_softmax(scores, sink):
    # the "softmax plus one" of the blogs
    top = scores.max(-1, keepdim=True).values.clamp(min=0)
    e = torch.exp(scores - top)
    return e / (e.sum(-1, keepdim=True) + torch.exp(-top))


def by_hand(scores, sink):
    e = torch.exp(scores)
    return e / (torch.sum(e, dim=-1, keepdim=True) + torch.exp(sink).view(-1, 1, 1))


# -------------------------------------------------------------------------------------------------------------- visible
def window_and_itself(n, window):
    seen = torch.zeros(n, n, dtype=torch.bool)
    for q in range(n):
        seen[q, 0 if window is None else max(0, q - window) : q + 1] = True
    return seen


def strictly_before(n, window):
    seen = torch.ones(n, n).tril(-1).bool()
    return seen if window is None else seen & ~torch.ones(n, n).tril(-window).bool()


def only_the_window(n, window):
    q, k = torch.arange(n)[:, None], torch.arange(n)[None]
    return torch.ones(n, n, dtype=torch.bool) if window is None else k > q - window


def upper_triangle(n, window):
    seen = torch.ones(n, n).triu().bool()
    return seen if window is None else seen & torch.ones(n, n).tril(window - 1).bool()


def only_causal(n, window):
    return torch.ones(n, n).tril().bool()


# ------------------------------------------------------------------------------------------------------------ reachable
def union(masks):
    total = masks[0]
    for mask in masks[1:]:
        total = total | mask
    return total


def intersection(masks):
    total = masks[0]
    for mask in masks[1:]:
        total = total & mask
    return total


def from_the_right(masks):
    total = masks[0].float()
    for mask in masks[1:]:
        total = total @ mask.float()
    return total > 0


def how_many_ways(masks):
    total = masks[0].float()
    for mask in masks[1:]:
        total = mask.float() @ total
    return total


# --------------------------------------------------------------------------------------------------------- head scores
def above_the_diagonal(pattern):
    return torch.diagonal(pattern, offset=1, dim1=2, dim2=3).mean(dim=(0, 2))


def main_diagonal(pattern):
    return torch.einsum("bhqq->h", pattern) / (pattern.shape[0] * pattern.shape[2])


def over_all_tokens(pattern):
    batch, heads, n, _ = pattern.shape
    total = torch.zeros(heads)
    for t in range(1, n):
        total += pattern[:, :, t, t - 1].sum(0)
    return total / (batch * n)


def each_row(pattern):
    return torch.diagonal(pattern, offset=-1, dim1=2, dim2=3).mean(dim=2)


def after_the_copy(pattern, length):
    return torch.stack([pattern[:, :, t, t - length + 1] for t in range(length, 2 * length)]).mean((0, 1))


def all_in_the_mean(pattern, length):
    return torch.diagonal(pattern, -length, 2, 3).sum((0, 2)) / (pattern.shape[0] * pattern.shape[2])


def positive_offset(pattern, length):
    return torch.diagonal(pattern, length, 2, 3).mean((0, 2))


def whole_diagonal(pattern, length):
    return torch.diagonal(pattern, 1 - length, 2, 3).mean((0, 2))


def at_the_copy(pattern, length):
    return torch.stack([pattern[:, :, t, t - length] for t in range(length, 2 * length)]).mean((0, 1))


def before_the_copy(pattern, length):
    return torch.stack([pattern[:, :, t, t - length - 1] for t in range(length + 1, 2 * length)]).mean((0, 1))


# --------------------------------------------------------------------------------------------------------- write_norms
def value_norms(pattern, v, W_O):
    v = repeat(v, "k g d -> k (g r) d", r=pattern.shape[0] // v.shape[1])
    return pattern * rearrange(v.norm(dim=-1), "k h -> h 1 k")


def length_of_the_sum(pattern, v, W_O):
    v = repeat(v, "k g d -> k (g r) d", r=pattern.shape[0] // v.shape[1])
    return einsum(pattern, v, W_O, "h q k, k h d, h d m -> h q m").norm(dim=-1)


def turns_again(pattern, v, W_O):
    v = repeat(v, "k g d -> k (r g) d", r=pattern.shape[0] // v.shape[1])
    return pattern * rearrange(einsum(v, W_O, "k h d, h d m -> h k m").norm(dim=-1), "h k -> h 1 k")


def no_attention(pattern, v, W_O):
    v = repeat(v, "k g d -> k (g r) d", r=pattern.shape[0] // v.shape[1])
    norms = einsum(v, W_O, "k h d, h d m -> h k m").norm(dim=-1)
    return repeat(norms, "h k -> h q k", q=pattern.shape[1])


# -------------------------------------------------------------------------------------------------------- loss_without
def _cross_entropy(logits, targets):
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def forgot_to_pass_them(model, tokens, length, heads):
    edits = [wb.AblateHead(layer, head) for layer, head in heads]  # noqa: F841
    done = wb.run(model, tokens)
    return _cross_entropy(done.logits[:, length:-1], tokens[:, length + 1 :])


def everything(model, tokens, length, heads):
    done = wb.run(model, tokens, [wb.AblateHead(layer, head) for layer, head in heads])
    return _cross_entropy(done.logits[:, :-1], tokens[:, 1:])


def same_position(model, tokens, length, heads):
    done = wb.run(model, tokens, [wb.AblateHead(layer, head) for layer, head in heads])
    return _cross_entropy(done.logits[:, length + 1 :], tokens[:, length + 1 :])


def from_length_on(model, tokens, length, heads):
    done = wb.run(model, tokens, [wb.AblateHead(layer, head) for layer, head in heads])
    return _cross_entropy(done.logits[:, length - 1 : -1], tokens[:, length:])


WRONG = {
    "grouped_scores": [
        (unscaled, "Divide them by √d_head"),
        (scaled_by_the_size, "divide by d_head itself"),
        (taking_turns, "Neighbours form a group"),
        (keys_first, "Rows and columns are exchanged"),
    ],
    "softmax_with_sink": [
        (plain_softmax, "Your rows sum to 1"),
        (column_still_there, "one key too many"),
        (down_the_columns, "the last axis"),
        (off_by_one_softmax, "a column of zeros"),
        (by_hand, "overflows"),
    ],
    "visible": [
        (window_and_itself, "Off by one at the far edge"),
        (strictly_before, "A token sees itself"),
        (only_the_window, "come after them"),
        (upper_triangle, "a row is a **query**"),
        (only_causal, "the window is missing"),
    ],
    "reachable": [
        (union, "in **one** of the layers"),
        (intersection, "in **all** layers"),
        (from_the_right, "the wrong way round"),
        (how_many_ways, "count the paths"),
    ],
    "previous_token_score": [
        (above_the_diagonal, "**above** the main one"),
        (main_diagonal, "to **itself**"),
        (over_all_tokens, "not in the mean"),
        (each_row, "average over the batch"),
    ],
    "duplicate_token_score": [
        (after_the_copy, "that is what an induction head does"),
        (all_in_the_mean, "`length` queries"),
        (positive_offset, "in the future"),
    ],
    "induction_score": [
        (whole_diagonal, "**last token of the first telling**"),
        (at_the_copy, "one nearer"),
        (before_the_copy, "**before** the earlier copy"),
    ],
    "write_norms": [
        (value_norms, "v · W_O"),
        (length_of_the_sum, "the key axis is gone"),
        (turns_again, "do not take turns"),
        (no_attention, "The pattern is missing"),
    ],
    "loss_without": [
        (forgot_to_pass_them, "**unedited** model"),
        (everything, "the whole text"),
        (same_position, "t + **1**"),
        (from_length_on, "One target too many"),
    ],
}
