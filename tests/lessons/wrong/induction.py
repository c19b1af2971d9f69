"""What students hand in for lesson 5, and the hint that each deserves."""

import torch
from einops import einsum

import workbench as wb


# ------------------------------------------------------------------------------------------------------ induction_rule
def first_seen(tokens):
    said = []
    for at, token in enumerate(tokens):
        before = tokens[:at]
        said.append(tokens[before.index(token) + 1] if token in before else -1)
    return said


def itself_again(tokens):
    return [token if token in tokens[:at] else -1 for at, token in enumerate(tokens)]


def counts_itself(tokens):
    said = []
    for at in range(len(tokens)):
        for back in range(at, -1, -1):
            if tokens[back] == tokens[at]:
                said.append(tokens[back + 1] if back + 1 < len(tokens) else -1)
                break
    return said


def zero_for_none(tokens):
    said = [0] * len(tokens)
    for at in range(len(tokens)):
        for back in range(at):
            if tokens[back] == tokens[at]:
                said[at] = tokens[back + 1]
    return said


# ------------------------------------------------------------------------------------------------------- score_without
def _patterns(model, tokens, layer, heads):
    done = wb.run(model, tokens, [wb.AblateHead(at, head) for at, head in heads])
    return done[f"blocks.{layer}.attn.hook_pattern"]


def unedited(model, tokens, length, layer, heads):
    pattern = _patterns(model, tokens, layer, [])
    return torch.stack([pattern[:, :, t, t - length + 1] for t in range(length, 2 * length)]).mean((0, 1))


def whole_diagonal(model, tokens, length, layer, heads):
    return torch.diagonal(_patterns(model, tokens, layer, heads), 1 - length, 2, 3).mean((0, 2))


def duplicates(model, tokens, length, layer, heads):
    return torch.diagonal(_patterns(model, tokens, layer, heads), -length, 2, 3).mean((0, 2))


def every_row(model, tokens, length, layer, heads):
    return torch.diagonal(_patterns(model, tokens, layer, heads), 1 - length, 2, 3)[:, :, 1:].mean(2)


# -------------------------------------------------------------------------------------------------------- patched_keys
def _rms(x):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5)


def both_writes(stream, z_clean, z_corrupt, W_O, gain, W_K, b_K):
    x = stream + einsum(z_clean, W_O, "p h d, h d m -> p m")
    return einsum(_rms(x) * gain, W_K, "p m, k m d -> p k d") + b_K


def clean_out(stream, z_clean, z_corrupt, W_O, gain, W_K, b_K):
    x = stream + einsum(z_corrupt - z_clean, W_O, "p h d, h d m -> p m")
    return einsum(_rms(x) * gain, W_K, "p m, k m d -> p k d") + b_K


def straight_from_the_stream(stream, z_clean, z_corrupt, W_O, gain, W_K, b_K):
    x = stream + einsum(z_clean - z_corrupt, W_O, "p h d, h d m -> p m")
    return einsum(x * gain, W_K, "p m, k m d -> p k d") + b_K


def frozen_norm(stream, z_clean, z_corrupt, W_O, gain, W_K, b_K):
    change = einsum(z_clean - z_corrupt, W_O, "p h d, h d m -> p m")
    size = torch.sqrt((stream * stream).mean(-1, keepdim=True) + 1e-5)
    return einsum((stream + change) / size * gain, W_K, "p m, k m d -> p k d") + b_K


def without_bias(stream, z_clean, z_corrupt, W_O, gain, W_K, b_K):
    x = stream + einsum(z_clean - z_corrupt, W_O, "p h d, h d m -> p m")
    return einsum(_rms(x) * gain, W_K, "p m, k m d -> p k d")


# --------------------------------------------------------------------------------------------------------- path_effect
def _difference(model, tokens, answers, hooks=()):
    logits = model.run_with_hooks(tokens[None], fwd_hooks=list(hooks)).detach()
    return float(logits[0, -1, answers[0]] - logits[0, -1, answers[1]])


def _keys(model, clean, corrupt, heads):
    a, b = wb.run(model, clean[None], sites="all"), wb.run(model, corrupt[None], sites="all")
    z = "blocks.0.attn.hook_z"
    x = b["blocks.1.hook_resid_pre"][0]
    for head in heads:
        x = x + (a[z][0, :, head] - b[z][0, :, head]) @ model.blocks[0].attn.W_O[head]
    return model.blocks[1].attn.k(model.blocks[1].ln1(x[None])).detach().view(*a["blocks.1.attn.hook_k"].shape)


def whole_head(model, clean, corrupt, answers, heads):
    z_clean = wb.run(model, clean[None], sites="all")["blocks.0.attn.hook_z"]

    def put(z, hook):
        z = z.clone()
        for head in heads:
            z[:, :, head] = z_clean[:, :, head]
        return z

    patched = _difference(model, corrupt, answers, [("blocks.0.attn.hook_z", put)])
    low, high = _difference(model, corrupt, answers), _difference(model, clean, answers)
    return (patched - low) / (high - low)


def clean_keys(model, clean, corrupt, answers, heads):
    keys = wb.run(model, clean[None], sites="all")["blocks.1.attn.hook_k"]
    patched = _difference(model, corrupt, answers, [("blocks.1.attn.hook_k", lambda k, hook: keys)])
    low, high = _difference(model, corrupt, answers), _difference(model, clean, answers)
    return (patched - low) / (high - low)


def in_logits(model, clean, corrupt, answers, heads):
    keys = _keys(model, clean, corrupt, heads)
    patched = _difference(model, corrupt, answers, [("blocks.1.attn.hook_k", lambda k, hook: keys)])
    return patched - _difference(model, corrupt, answers)


def share_of_clean(model, clean, corrupt, answers, heads):
    keys = _keys(model, clean, corrupt, heads)
    patched = _difference(model, corrupt, answers, [("blocks.1.attn.hook_k", lambda k, hook: keys)])
    return patched / _difference(model, clean, answers)


# -------------------------------------------------------------------------------------------------------- compositions
def _score(a, b):
    return torch.linalg.norm(a @ b) / (torch.linalg.norm(a) * torch.linalg.norm(b))


def exchanged(ov, qk, later_ov):
    return _score(ov, qk.T), _score(ov, qk), _score(ov, later_ov)


def later_first(ov, qk, later_ov):
    return _score(qk, ov), _score(qk.T, ov), _score(later_ov, ov)


def raw_norms(ov, qk, later_ov):
    return torch.norm(ov @ qk), torch.norm(ov @ qk.T), torch.norm(ov @ later_ov)


def largest_singular_value(ov, qk, later_ov):
    def score(a, b):
        return torch.linalg.norm(a @ b, ord=2) / (torch.linalg.norm(a, ord=2) * torch.linalg.norm(b, ord=2))

    return score(ov, qk), score(ov, qk.T), score(ov, later_ov)


# --------------------------------------------------------------------------------------------------------- null_scores
def turned_input(ov, reader, rotations):
    return torch.stack([_score(turn @ ov, reader) for turn in rotations])


def only_the_rotation(ov, reader, rotations):
    return torch.stack([_score(turn, reader) for turn in rotations])


def no_norms(ov, reader, rotations):
    return torch.linalg.matrix_norm(ov @ rotations @ reader)


def averaged(ov, reader, rotations):
    return torch.stack([_score(ov @ turn, reader) for turn in rotations]).mean()


# ------------------------------------------------------------------------------------------------------- copying_score
def of_ov_alone(embed, ov, unembed):
    values = torch.linalg.eigvals(ov)
    return values.real.sum() / values.abs().sum()


def always_positive(embed, ov, unembed):
    values = torch.linalg.eigvals(embed @ ov @ unembed.T)
    return values.real.abs().sum() / values.abs().sum()


def by_singular_values(embed, ov, unembed):
    full = embed @ ov @ unembed.T
    return torch.trace(full) / torch.linalg.svdvals(full).sum()


def just_the_trace(embed, ov, unembed):
    return torch.trace(embed @ ov @ unembed.T)


# ------------------------------------------------------------------------------------------------------ matching_share
def best_query(query_stream, key_stream, W_Q, W_K):
    scores = einsum(query_stream @ W_Q, key_stream @ W_K, "q d, k d -> q k")
    return (scores.argmax(0) == torch.arange(scores.shape[1])).float().mean()


def one_matrix(query_stream, key_stream, W_Q, W_K):
    scores = (query_stream @ W_Q) @ (key_stream @ W_Q).T
    return (scores.argmax(1) == torch.arange(len(scores))).float().mean()


def raw_streams(query_stream, key_stream, W_Q, W_K):
    scores = query_stream @ key_stream.T
    return (scores.argmax(1) == torch.arange(len(scores))).float().mean()


def average_score(query_stream, key_stream, W_Q, W_K):
    return ((query_stream @ W_Q) * (key_stream @ W_K)).sum(-1).mean()


WRONG = {
    "induction_rule": [
        (first_seen, "the **first** earlier copy"),
        (itself_again, "the copy itself"),
        (counts_itself, "as its own earlier copy"),
        (zero_for_none, "give −1"),
    ],
    "score_without": [
        (unedited, "**unedited** model"),
        (whole_diagonal, "one query too early"),
        (duplicates, "the earlier copy **itself**"),
        (every_row, "average over the batch"),
    ],
    "patched_keys": [
        (both_writes, "still in the stream"),
        (clean_out, "The sign"),
        (straight_from_the_stream, "The norm is missing"),
        (frozen_norm, "the **old** stream"),
        (without_bias, "have a bias"),
    ],
    "path_effect": [
        (whole_head, "**every** later reader"),
        (clean_keys, "**all** writers"),
        (in_logits, "the effect in logits"),
        (share_of_clean, "two ends"),
    ],
    "compositions": [
        (exchanged, "Q and K are exchanged"),
        (later_first, "comes first"),
        (raw_norms, "Divide by both norms"),
        (largest_singular_value, "spectral norm"),
    ],
    "null_scores": [
        (turned_input, "**between** the two"),
        (only_the_rotation, "The writer is missing"),
        (no_norms, "Divide by the norms"),
        (averaged, "**each** rotation"),
    ],
    "copying_score": [
        (of_ov_alone, "ov alone"),
        (always_positive, "Negative eigenvalues are the point"),
        (by_singular_values, "singular values"),
        (just_the_trace, "That is the trace"),
    ],
    "matching_share": [
        (best_query, "over the keys"),
        (one_matrix, "the same matrix"),
        (raw_streams, "the streams themselves"),
        (average_score, "how often it is the **best**"),
    ],
}
