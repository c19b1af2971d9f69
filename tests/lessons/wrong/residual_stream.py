"""What students hand in for lesson 3, and the hint that each deserves."""

import torch
from einops import rearrange

# ---------------------------------------------------------------------------------------------------- stream_parts


def the_streams(cache, n_layers):
    found = [cache["hook_embed"]]
    for layer in range(n_layers):
        found.append(cache[f"blocks.{layer}.hook_resid_mid"])
        found.append(cache[f"blocks.{layer}.hook_resid_post"])
    return torch.stack(found)


def no_embedding(cache, n_layers):
    found = []
    for layer in range(n_layers):
        found += [cache[f"blocks.{layer}.hook_attn_out"], cache[f"blocks.{layer}.hook_mlp_out"]]
    return torch.stack(found)


def experts_first(cache, n_layers):
    found = [cache["hook_embed"]]
    for layer in range(n_layers):
        found += [cache[f"blocks.{layer}.hook_mlp_out"], cache[f"blocks.{layer}.hook_attn_out"]]
    return torch.stack(found)


def one_kind_after_the_other(cache, n_layers):
    attention = [cache[f"blocks.{layer}.hook_attn_out"] for layer in range(n_layers)]
    experts = [cache[f"blocks.{layer}.hook_mlp_out"] for layer in range(n_layers)]
    return torch.stack([cache["hook_embed"], *attention, *experts])


# --------------------------------------------------------------------------------------------------------- by_head


def all_of_attention(z, weight):
    return z.reshape(len(z), -1) @ weight.T


def heads_inside(z, weight):
    d_model = weight.shape[0]
    W_O = weight.reshape(d_model, z.shape[2], z.shape[1])  # the two axes the wrong way round
    return torch.einsum("phd,mdh->phm", z, W_O)


def rows_for_columns(z, weight):
    W_O = weight.reshape(z.shape[1], z.shape[2], -1)
    return torch.einsum("phd,hdm->phm", z, W_O)


def all_weights_for_each(z, weight):
    W_O = rearrange(weight, "m (h d) -> h d m", h=z.shape[1])
    return z @ W_O.sum(0)


# ------------------------------------------------------------------------------------------------------- by_expert


def unweighted(indices, weights, outputs, n_experts):
    made = torch.zeros(len(indices), n_experts, outputs.shape[-1])
    for pos in range(len(indices)):
        for slot in range(indices.shape[1]):
            made[pos, indices[pos, slot]] = outputs[pos, slot]
    return made


def slot_is_id(indices, weights, outputs, n_experts):
    made = torch.zeros(len(indices), n_experts, outputs.shape[-1])
    for slot in range(indices.shape[1]):
        made[:, slot] = weights[:, slot, None] * outputs[:, slot]
    return made


def slots_only(indices, weights, outputs, n_experts):
    return torch.einsum("ps,psd->psd", weights, outputs)


def the_layers_output(indices, weights, outputs, n_experts):
    return torch.einsum("ps,psd->pd", weights, outputs)


# ------------------------------------------------------------------------------------------------------ logit_lens


def straight_to_logits(stream, gain, W_U, eps):
    return torch.einsum("...d,vd->...v", stream * gain, W_U)


def without_gain(stream, gain, W_U, eps):
    return stream / torch.sqrt((stream**2).mean(-1, keepdim=True) + eps) @ W_U.T


def unit_length(stream, gain, W_U, eps):
    length = torch.sqrt((stream**2).sum(dim=-1, keepdim=True) + eps)
    return (gain * stream / length) @ W_U.T


def layer_norm(stream, gain, W_U, eps):
    return torch.nn.functional.layer_norm(stream, gain.shape, gain, eps=eps) @ W_U.T


def eps_afterwards(stream, gain, W_U, eps):
    rms = torch.sqrt((stream**2).mean(-1, keepdim=True)) + eps
    return (gain * stream / rms) @ W_U.T


# --------------------------------------------------------------------------------------------------------- rank_of


def best_is_zero(logits, token):
    return (logits > logits[..., token].unsqueeze(-1)).sum(dim=-1)


def from_the_bottom(logits, token):
    return (logits < logits[..., token].unsqueeze(-1)).sum(dim=-1) + 1


def argsort_at_token(logits, token):
    return torch.argsort(logits, dim=-1, descending=True)[..., token] + 1


# ------------------------------------------------------------------------------------------------------- attribute


def rms(x, eps):
    return torch.sqrt((x**2).mean(-1, keepdim=True) + eps)


def each_its_own_norm(parts, gain, W_U, right, wrong, eps):
    return (parts / rms(parts, eps) * gain) @ (W_U[right] - W_U[wrong])


def no_scale(parts, gain, W_U, right, wrong, eps):
    return (parts * gain) @ (W_U[right] - W_U[wrong])


def no_gain(parts, gain, W_U, right, wrong, eps):
    return parts @ (W_U[right] - W_U[wrong]) / rms(parts.sum(0), eps)


def turned_round(parts, gain, W_U, right, wrong, eps):
    return parts @ (gain * (W_U[wrong] - W_U[right])) / rms(parts.sum(0), eps)


def right_only(parts, gain, W_U, right, wrong, eps):
    return parts @ (gain * W_U[right]) / rms(parts.sum(0), eps)


def scale_of_the_mean(parts, gain, W_U, right, wrong, eps):
    return parts @ (gain * (W_U[right] - W_U[wrong])) / rms(parts.mean(0), eps)


# --------------------------------------------------------------------------------------------------------- without


def read(stream, gain, W_U, right, wrong, eps):
    logits = stream / rms(stream, eps) * gain @ W_U.T
    return logits[right] - logits[wrong]


def frozen(parts, gain, W_U, right, wrong, eps, removed):
    scale = rms(parts.sum(0), eps)
    rest = parts.sum(0) - parts[removed]
    return (rest / scale * gain) @ (W_U[right] - W_U[wrong])


def the_loss(parts, gain, W_U, right, wrong, eps, removed):
    whole = read(parts.sum(0), gain, W_U, right, wrong, eps)
    return whole - read(parts.sum(0) - parts[removed], gain, W_U, right, wrong, eps)


def kept_alone(parts, gain, W_U, right, wrong, eps, removed):
    return read(parts[removed], gain, W_U, right, wrong, eps)


def still_there(parts, gain, W_U, right, wrong, eps, removed):
    return read(parts.sum(0), gain, W_U, right, wrong, eps)


# ---------------------------------------------------------------------------------------------------- chance_share


def all_draws(parts, gain, W_U, pairs, eps):
    towards = gain * (W_U[pairs[:, 0]] - W_U[pairs[:, 1]])  # [draw, d_model]
    return parts @ towards.T / rms(parts.sum(0), eps)  # [part, draw]


def plain_mean(parts, gain, W_U, pairs, eps):
    return all_draws(parts, gain, W_U, pairs, eps).mean(1)


def absolute_mean(parts, gain, W_U, pairs, eps):
    return all_draws(parts, gain, W_U, pairs, eps).abs().mean(1)


def mean_square(parts, gain, W_U, pairs, eps):
    return (all_draws(parts, gain, W_U, pairs, eps) ** 2).mean(1)


def over_parts(parts, gain, W_U, pairs, eps):
    return (all_draws(parts, gain, W_U, pairs, eps) ** 2).mean(0).sqrt()


# -------------------------------------------------------------------------------------------------- fit_translator


def solve(X, Y, ridge):
    return torch.linalg.solve(X.T @ X + ridge * torch.eye(X.shape[1]), X.T @ Y)


def through_the_origin(early, final, ridge):
    return solve(early, final, ridge), torch.zeros(final.shape[1])


def centred_too_late(early, final, ridge):
    matrix = solve(early, final, ridge)
    return matrix, final.mean(0) - early.mean(0) @ matrix


def mean_as_bias(early, final, ridge):
    return solve(early - early.mean(0), final - final.mean(0), ridge), final.mean(0)


def ordinary_least_squares(early, final, ridge):
    matrix = torch.linalg.lstsq(early - early.mean(0), final - final.mean(0), driver="gelsd").solution
    return matrix, final.mean(0) - early.mean(0) @ matrix


def means_for_sums(early, final, ridge):
    X, Y, n = early - early.mean(0), final - final.mean(0), len(early)
    matrix = torch.linalg.solve(X.T @ X / n + ridge * torch.eye(X.shape[1]), X.T @ Y / n)
    return matrix, final.mean(0) - early.mean(0) @ matrix


def matrix_turned(early, final, ridge):
    matrix = solve(early - early.mean(0), final - final.mean(0), ridge)
    return matrix.T, final.mean(0) - early.mean(0) @ matrix


WRONG = {
    "stream_parts": [
        (the_streams, "what each sublayer *added*"),
        (no_embedding, "embedding is missing"),
        (experts_first, "attention writes first"),
        (one_kind_after_the_other, "layer by layer"),
    ],
    "by_head": [
        (all_of_attention, "summed over the heads"),
        (heads_inside, "with head outside"),
        (rows_for_columns, "[out, in]"),
        (all_weights_for_each, "its own slice"),
    ],
    "by_expert": [
        (unweighted, "routing weights are missing"),
        (slot_is_id, "rank of the route"),
        (slots_only, "still counts slots"),
        (the_layers_output, "keep them apart"),
    ],
    "logit_lens": [
        (straight_to_logits, "division is missing"),
        (without_gain, "gain γ is missing"),
        (unit_length, "root of the *mean*"),
        (layer_norm, "LayerNorm"),
        (eps_afterwards, "inside the root"),
    ],
    "rank_of": [
        (best_is_zero, "off by one"),
        (from_the_bottom, "count those above"),
        (argsort_at_token, "argsort"),
    ],
    "attribute": [
        (each_its_own_norm, "its own"),
        (no_scale, "division by the stream's rms"),
        (no_gain, "gain γ is missing"),
        (turned_round, "every sign is turned"),
        (right_only, "right token's logit alone"),
        (scale_of_the_mean, "scale is that of the *mean*"),
    ],
    "without": [
        (frozen, "kept the old scale"),
        (the_loss, "by how much it falls"),
        (kept_alone, "all the *other* parts"),
        (still_there, "still in your sum"),
    ],
    "chance_share": [
        (plain_mean, "cancel"),
        (absolute_mean, "mean of |share|"),
        (mean_square, "root is missing"),
        (over_parts, "over the pairs"),
    ],
    "fit_translator": [
        (through_the_origin, "no bias"),
        (centred_too_late, "before* you solve"),
        (mean_as_bias, "taken off it"),
        (ordinary_least_squares, "ridge is missing"),
        (means_for_sums, "take sums"),
        (matrix_turned, "transposed"),
    ],
}
