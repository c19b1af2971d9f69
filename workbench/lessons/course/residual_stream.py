"""Lesson 3: the residual stream. What its exercises must do, and what students get wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from einops import einsum, rearrange
from torch import Tensor

from workbench.lessons.exercise import Case, Exercise, Mistake, close
from workbench.lessons.outline import Outline

EPS = 1e-5


def _normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.tensor(scale * rng.normal(size=shape), dtype=torch.float32)


# ---------------------------------------------------------------------------------------------------- stream_parts


def _streams(rng: np.random.Generator) -> Iterator[Case]:
    """What a cache holds: the streams, and what was added to them."""
    for n_layers, batch, n_pos in ((1, 1, 4), (3, 2, 5), (2, 1, 1)):
        stream = _normal(rng, batch, n_pos, 6)
        cache = {"hook_embed": stream}
        for layer in range(n_layers):
            block = f"blocks.{layer}.hook_"
            attn, mlp = (_normal(rng, batch, n_pos, 6, scale=1.0 + 2 * layer) for _ in range(2))
            cache |= {f"{block}resid_pre": stream, f"{block}attn_out": attn, f"{block}mlp_out": mlp}
            cache |= {f"{block}resid_mid": stream + attn, f"{block}resid_post": stream + attn + mlp}
            stream = stream + attn + mlp
        about = f"a model of {n_layers} layer{'s' * (n_layers > 1)}, {n_pos} token{'s' * (n_pos > 1)}"
        yield Case((cache, n_layers), about=about)


def _steps(cache: dict[str, Tensor], n_layers: int) -> Tensor:
    """By differences of the stream, without the sites that a student reads."""
    stops = [torch.zeros_like(cache["blocks.0.hook_resid_pre"]), cache["blocks.0.hook_resid_pre"]]
    for layer in range(n_layers):
        stops += [cache[f"blocks.{layer}.hook_resid_mid"], cache[f"blocks.{layer}.hook_resid_post"]]
    return torch.stack(stops).diff(dim=0)


def _read(cache: dict[str, Tensor], names: list[str]) -> Tensor:
    return torch.stack([cache[name] for name in names])


def _named(n_layers: int, *ends: str) -> list[str]:
    return [f"blocks.{layer}.hook_{end}" for layer in range(n_layers) for end in ends]


STREAM_PARTS = Exercise(
    name="stream_parts",
    task="The parts of the residual stream, in the order in which they are added",
    cases=_streams,
    truth=_steps,
    compare=close(rtol=1e-4, atol=1e-4),
    mistakes=(
        Mistake(
            "streams for parts",
            lambda cache, n: _read(cache, ["hook_embed", *_named(n, "resid_mid", "resid_post")]),
            "You stacked the stream itself (`resid_mid`, `resid_post`), which already holds everything before it. "
            "Wanted is what each sublayer *added*: `hook_attn_out` and `hook_mlp_out`.",
        ),
        Mistake(
            "no embedding",
            lambda cache, n: _read(cache, _named(n, "attn_out", "mlp_out")),
            "The embedding is missing. The sum starts with `hook_embed`, so there are 1 + 2 · n_layers parts.",
        ),
        Mistake(
            "experts before attention",
            lambda cache, n: _read(cache, ["hook_embed", *_named(n, "mlp_out", "attn_out")]),
            "In each layer attention writes first and the experts second: `attn_out`, then `mlp_out`.",
        ),
        Mistake(
            "all attention first",
            lambda cache, n: _read(cache, ["hook_embed", *_named(n, "attn_out"), *_named(n, "mlp_out")]),
            "Go layer by layer: attention of layer 0, experts of layer 0, attention of layer 1, … "
            "You put the attention of all layers before all the experts.",
        ),
    ),
    hints=(
        "Make a list that starts with `cache['hook_embed']`, and add two tensors for each layer.",
        "The sites are `blocks.{layer}.hook_attn_out` and `blocks.{layer}.hook_mlp_out`; join the list on a new "
        "first axis.",
        "`return torch.stack([cache['hook_embed']] + [cache[f'blocks.{i}.hook_{part}'] for i in range(n_layers) "
        "for part in ('attn_out', 'mlp_out')])`",
    ),
)

# --------------------------------------------------------------------------------------------------------- by_head


def _heads(rng: np.random.Generator) -> Iterator[Case]:
    # Square on one case, so that a forgotten transposition shows as wrong numbers and not as an error.
    for n_pos, head, d_head, d_model in ((4, 3, 4, 12), (1, 2, 6, 12), (5, 4, 3, 12)):
        yield Case((_normal(rng, n_pos, head, d_head), _normal(rng, d_model, head * d_head)), about=f"{head} heads")


def _head_by_head(z: Tensor, weight: Tensor) -> Tensor:
    """Through the whole layer, with every other head silenced."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    written = []
    with torch.no_grad():
        layer.weight.copy_(weight)
        for head in range(z.shape[1]):
            alone = torch.zeros_like(z)
            alone[:, head] = z[:, head]
            written.append(layer(alone.flatten(1)))
    return torch.stack(written, dim=1)


def _split(weight: Tensor, heads: int, pattern: str = "d_model (head d_head) -> head d_head d_model") -> Tensor:
    return rearrange(weight, pattern, head=heads)


def _mix(z: Tensor, w: Tensor, pattern: str) -> Tensor:
    return einsum(z, w, pattern)


EACH = "pos head d_head, head d_head d_model -> pos head d_model"
BY_HEAD = Exercise(
    name="by_head",
    task="What each head of an attention layer writes into the stream",
    cases=_heads,
    truth=_head_by_head,
    mistakes=(
        Mistake(
            "summed over heads",
            lambda z, w: _mix(z, _split(w, z.shape[1]), "pos head d_head, head d_head d_model -> pos d_model"),
            "You summed over the heads: that is all of attention again. Keep `head` on the right of the arrow.",
        ),
        Mistake(
            "columns interleaved",
            lambda z, w: _mix(z, _split(w, z.shape[1], "d_model (d_head head) -> head d_head d_model"), EACH),
            "The columns of the weight are cut the wrong way. Head 0 owns the *first* d_head columns, head 1 the "
            "next: "
            "the pattern is `(head d_head)`, with head outside.",
        ),
        Mistake(
            "not transposed",
            lambda z, w: _mix(z, _split(w, z.shape[1], "(head d_head) d_model -> head d_head d_model"), EACH),
            "You split the rows of the weight. `torch.nn.Linear` keeps its weight as [out, in]: rows are d_model, "
            "columns the heads.",
        ),
        Mistake(
            "every head through all weights",
            lambda z, w: _mix(z, _split(w, z.shape[1]), "pos head d_head, other d_head d_model -> pos head d_model"),
            "Each head passes through its own slice of the weight alone. In your einsum the weight's head axis has "
            "another "
            "letter than that of z, so it is summed over.",
        ),
    ),
    hints=(
        "Cut the weight into one [d_head, d_model] matrix a head, then multiply head by head.",
        "`rearrange(weight, 'd_model (head d_head) -> head d_head d_model', head=z.shape[1])`, then an `einsum` "
        "that keeps `head`.",
        f"`return einsum(z, W, '{EACH}')`",
    ),
)

# ------------------------------------------------------------------------------------------------------- by_expert


def _routes(rng: np.random.Generator) -> Iterator[Case]:
    for n_pos, slots, n_experts in ((5, 2, 6), (1, 2, 4), (6, 3, 8)):
        indices = torch.tensor(np.stack([rng.permutation(n_experts)[:slots] for _ in range(n_pos)]))
        weights = torch.tensor(rng.dirichlet(np.ones(slots), size=n_pos), dtype=torch.float32)
        arguments = (indices, weights, _normal(rng, n_pos, slots, 5), n_experts)
        yield Case(arguments, about=f"{n_pos} token{'s' * (n_pos > 1)}, {slots} of {n_experts} experts each")


def _expert_by_expert(indices: Tensor, weights: Tensor, outputs: Tensor, n_experts: int) -> np.ndarray:
    """By loops."""
    written = np.zeros((len(indices), n_experts, outputs.shape[-1]))
    for pos in range(indices.shape[0]):
        for slot in range(indices.shape[1]):
            written[pos, int(indices[pos, slot])] += float(weights[pos, slot]) * outputs[pos, slot].numpy()
    return written


def _scattered(indices: Tensor, written: Tensor, n_experts: int) -> Tensor:
    made = written.new_zeros(len(indices), n_experts, written.shape[-1])
    return made.scatter_add(1, indices[..., None].expand_as(written), written)


def _in_slots(indices: Tensor, weights: Tensor, outputs: Tensor, n_experts: int) -> Tensor:
    made = outputs.new_zeros(len(indices), n_experts, outputs.shape[-1])
    made[:, : indices.shape[1]] = weights[..., None] * outputs
    return made


BY_EXPERT = Exercise(
    name="by_expert",
    task="What each expert of a layer writes, by its id, 0 where it was not routed",
    cases=_routes,
    truth=_expert_by_expert,
    mistakes=(
        Mistake(
            "forgot the weights",
            lambda indices, weights, outputs, n: _scattered(indices, outputs, n),
            "The routing weights are missing: an expert writes weight × output.",
        ),
        Mistake(
            "slots for ids",
            _in_slots,
            "You kept the slots: your axis 1 is the rank of the route (strongest first), not the expert's id. "
            "`indices` says which expert sits in each slot.",
        ),
        Mistake(
            "still by slot",
            lambda indices, weights, outputs, n: weights[..., None] * outputs,
            "Right for each slot, but axis 1 still counts slots. It must have one place for every expert, 0 where "
            "it was not routed.",
        ),
        Mistake(
            "summed over slots",
            lambda indices, weights, outputs, n: (weights[..., None] * outputs).sum(1),
            "That is what the experts write together (`hook_mlp_out`). Keep them apart, one place for every expert.",
        ),
    ),
    hints=(
        "First weight each slot's output, then put it at its expert's place in a tensor of zeros [pos, expert, "
        "d_model].",
        "`torch.zeros(...).scatter_add(1, index, written)`: the index needs the shape of `written`. A loop over the "
        "slots does it too.",
        "`written = weights[..., None] * outputs`, then `zeros.scatter_add(1, indices[..., "
        "None].expand_as(written), written)`",
    ),
)

# ------------------------------------------------------------------------------------------------------ logit_lens


def _lens_cases(rng: np.random.Generator) -> Iterator[Case]:
    for stages, n_pos, d_model, d_vocab in ((3, 4, 6, 9), (1, 1, 5, 7), (5, 2, 8, 8)):
        # Small streams too: there eps counts, and whoever forgets it is found.
        size = torch.logspace(-2, 2, stages)[:, None, None]
        stream = size * (_normal(rng, stages, n_pos, d_model) + 0.5)
        gain, unembed = 1 + 0.5 * _normal(rng, d_model), _normal(rng, d_vocab, d_model)
        yield Case((stream, gain, unembed, EPS), about=f"{stages} stage{'s' * (stages > 1)} of the stream")


def _torch_lens(stream: Tensor, gain: Tensor, unembed: Tensor, eps: float) -> Tensor:
    """torch's own RMSNorm and Linear."""
    return torch.nn.functional.linear(torch.nn.functional.rms_norm(stream, gain.shape, gain, eps), unembed)


def _lens(stream: Tensor, gain: Tensor | None, unembed: Tensor, scale: Tensor | float, eps_in: float = 0.0) -> Tensor:
    x = stream / scale
    return (x if gain is None else x * gain) @ unembed.T


def _rms(x: Tensor, eps: float, dim: int = -1) -> Tensor:
    return (x.pow(2).mean(dim, keepdim=True) + eps).sqrt()


LOGIT_LENS = Exercise(
    name="logit_lens",
    task="The logit lens: any stream through the final norm and the unembedding",
    cases=_lens_cases,
    truth=_torch_lens,
    compare=close(rtol=1e-3, atol=1e-4),
    mistakes=(
        Mistake(
            "no norm",
            lambda x, gain, unembed, eps: _lens(x, gain, unembed, 1.0),
            "The final norm's division is missing: early streams are tiny, late ones huge. Divide by the root mean "
            "square first.",
        ),
        Mistake(
            "forgot the gain",
            lambda x, gain, unembed, eps: _lens(x, None, unembed, _rms(x, eps)),
            "The gain γ is missing: after the division each coordinate is multiplied by `gain`.",
        ),
        Mistake(
            "norm for rms",
            lambda x, gain, unembed, eps: _lens(x, gain, unembed, (x.pow(2).sum(-1, keepdim=True) + eps).sqrt()),
            "You divided by the length ‖x‖ (a *sum* of squares). RMSNorm divides by the root of the *mean*: a "
            "factor of √d_model.",
        ),
        Mistake(
            "LayerNorm",
            lambda x, gain, unembed, eps: _torch_lens(x - x.mean(-1, keepdim=True), gain, unembed, eps),
            "You subtracted the mean: that is LayerNorm. RMSNorm only divides.",
        ),
        Mistake(
            "eps outside the root",
            lambda x, gain, unembed, eps: _lens(x, gain, unembed, _rms(x, 0.0) + eps),
            "ε stands inside the root, beside the mean of the squares: sqrt(mean(x²) + ε). It counts where the "
            "stream is small.",
        ),
    ),
    hints=(
        "Two steps: RMSNorm over the last axis, then a product with the unembedding.",
        "rms = sqrt(mean(x²) + eps) over d_model with `keepdim=True`; then x / rms · gain.",
        "`x = stream / (stream.pow(2).mean(-1, keepdim=True) + eps).sqrt()`, then `(x * gain) @ W_U.T`",
    ),
)

# --------------------------------------------------------------------------------------------------------- rank_of


def _rank_cases(rng: np.random.Generator) -> Iterator[Case]:
    for lead, d_vocab in (((4, 3), 20), ((), 7), ((6,), 30)):
        logits = _normal(rng, *lead, d_vocab)
        token = int(rng.integers(1, d_vocab))
        if lead:
            logits[0, ..., token] += 20.0  # the likeliest once
        yield Case((logits, token), about="one row of logits" if not lead else f"logits of shape {tuple(logits.shape)}")


def _rank_by_sorting(logits: Tensor, token: int) -> np.ndarray:
    order = np.argsort(-logits.numpy(), axis=-1, kind="stable")
    return np.asarray((order == token).argmax(-1) + 1)


RANK_OF = Exercise(
    name="rank_of",
    task="The rank of a token among the logits, 1 the likeliest",
    cases=_rank_cases,
    truth=_rank_by_sorting,
    compare=close(rtol=0.0, atol=0.0),
    mistakes=(
        Mistake(
            "counts from 0",
            lambda logits, token: (logits > logits[..., token, None]).sum(-1),
            "Off by one: the likeliest token has rank 1, and you call it 0.",
        ),
        Mistake(
            "ranked from the bottom",
            lambda logits, token: (logits < logits[..., token, None]).sum(-1) + 1,
            "You counted the tokens *below* this one. Rank 1 is the largest logit: count those above.",
        ),
        Mistake(
            "argsort for ranks",
            lambda logits, token: logits.argsort(-1, descending=True)[..., token] + 1,
            "`argsort` gives which token stands at a rank, not the rank of a token: entry `token` of it is the "
            "token at that "
            "place. Look where in the order your token stands, or count the logits above its own.",
        ),
    ),
    hints=(
        "How many tokens have a larger logit than this one? The rank is that number and one more.",
        "`logits[..., token]` drops the last axis; `logits[..., token, None]` keeps one to compare with.",
        "`return (logits > logits[..., token, None]).sum(-1) + 1`",
    ),
)

# ------------------------------------------------------------------------------------------------------- attribute


def _part_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n_parts, d_model, d_vocab in ((5, 8, 12), (2, 6, 9), (9, 10, 15)):
        parts = _normal(rng, n_parts, d_model) * torch.linspace(0.3, 4.0, n_parts)[:, None] + 0.2
        gain, unembed = 1 + 0.5 * _normal(rng, d_model), _normal(rng, d_vocab, d_model)
        right, wrong = (int(token) for token in rng.permutation(d_vocab)[:2])
        yield Case((parts, gain, unembed, right, wrong, EPS), about=f"{n_parts} parts")


def _by_gradient(parts: Tensor, gain: Tensor, unembed: Tensor, right: int, wrong: int, eps: float) -> Tensor:
    """Part · gradient of the logit difference with the scale held: exact, since what is left is linear."""
    with torch.enable_grad():
        stream = parts.double().sum(0).requires_grad_()
        scale = stream.detach().pow(2).mean().add(eps).sqrt()
        logits = torch.nn.functional.linear(stream / scale * gain.double(), unembed.double())
        (gradient,) = torch.autograd.grad(logits[right] - logits[wrong], stream)
    return (parts.double() @ gradient).float()


def _shares(parts: Tensor, gain: Any, scale: Any, towards: Tensor) -> Tensor:
    return (parts / scale * gain) @ towards


ATTRIBUTE = Exercise(
    name="attribute",
    task="Direct logit attribution: each part's share of a logit difference, the scale frozen",
    cases=_part_cases,
    truth=_by_gradient,
    points=2,
    mistakes=(
        Mistake(
            "own norm for each part",
            lambda p, g, u, r, w, eps: _shares(p, g, _rms(p, eps), u[r] - u[w]),
            "You divided each part by *its own* rms. There is one division in the model, by the rms of the whole "
            "stream: "
            "all parts share that scale, or they do not sum to the logit difference.",
        ),
        Mistake(
            "forgot the scale",
            lambda p, g, u, r, w, eps: _shares(p, g, 1.0, u[r] - u[w]),
            "The division by the stream's rms is missing: all your shares are too large by that one factor.",
        ),
        Mistake(
            "forgot the gain",
            lambda p, g, u, r, w, eps: _shares(p, 1.0, _rms(p.sum(0), eps), u[r] - u[w]),
            "The gain γ is missing: the direction that counts is γ ⊙ (W_U[right] − W_U[wrong]).",
        ),
        Mistake(
            "the wrong way round",
            lambda p, g, u, r, w, eps: _shares(p, g, _rms(p.sum(0), eps), u[w] - u[r]),
            "Every sign is turned: it is the right token's row of W_U minus the wrong one's.",
        ),
        Mistake(
            "right token alone",
            lambda p, g, u, r, w, eps: _shares(p, g, _rms(p.sum(0), eps), u[r]),
            "You attributed the right token's logit alone. Take the wrong token's row away from it, or all that "
            "raises both counts too.",
        ),
        Mistake(
            "mean of the parts",
            lambda p, g, u, r, w, eps: _shares(p, g, _rms(p.mean(0), eps), u[r] - u[w]),
            "Your scale is that of the *mean* of the parts. The stream is their sum: parts.sum(0).",
        ),
    ),
    hints=(
        "The whole stream is the sum of the parts. Take its rms once, and use it for every part.",
        "direction = gain · (W_U[right] − W_U[wrong]) / rms(parts.sum(0)); then a dot product with each part.",
        "`stream = parts.sum(0)`; `scale = (stream.pow(2).mean() + eps).sqrt()`; "
        "`return parts @ (gain * (W_U[right] - W_U[wrong])) / scale`",
    ),
)

# --------------------------------------------------------------------------------------------------------- without


def _without_cases(rng: np.random.Generator) -> Iterator[Case]:
    for case in _part_cases(rng):
        parts = case.args[0]
        at = int(rng.integers(len(parts)))
        yield Case((*case.args, at), about=f"part {at} of {len(parts)}")


def _really_without(p: Tensor, g: Tensor, u: Tensor, right: int, wrong: int, eps: float, removed: int) -> Tensor:
    rest = torch.cat([p[:removed], p[removed + 1 :]]).sum(0)
    logits = _torch_lens(rest[None], g, u, eps)[0]
    return logits[right] - logits[wrong]


def _whole(p: Tensor, g: Tensor, u: Tensor, right: int, wrong: int, eps: float) -> Tensor:
    logits = _torch_lens(p.sum(0)[None], g, u, eps)[0]
    return logits[right] - logits[wrong]


WITHOUT = Exercise(
    name="without",
    task="The logit difference when one part is taken out of the sum, the norm live",
    cases=_without_cases,
    truth=_really_without,
    mistakes=(
        Mistake(
            "scale still frozen",
            lambda p, g, u, r, w, eps, i: _whole(p, g, u, r, w, eps) - _by_gradient(p, g, u, r, w, eps)[i],
            "You kept the old scale (or subtracted the share). The norm acts on the stream that is left: take the "
            "rms of the "
            "sum *without* the part.",
        ),
        Mistake(
            "the fall for what is left",
            lambda p, g, u, r, w, eps, i: _whole(p, g, u, r, w, eps) - _really_without(p, g, u, r, w, eps, i),
            "That is by how much it falls. Return the logit difference that is left.",
        ),
        Mistake(
            "the part alone",
            lambda p, g, u, r, w, eps, i: _whole(p[i : i + 1], g, u, r, w, eps),
            "You kept the part and removed the rest. Sum all the *other* parts.",
        ),
        Mistake(
            "nothing removed",
            lambda p, g, u, r, w, eps, i: _whole(p, g, u, r, w, eps),
            "That is the logit difference of the whole stream: the part is still in your sum.",
        ),
    ),
    hints=(
        "Sum the parts, take this one away, and read what is left as the model would: norm, gain, unembedding.",
        "`rest = parts.sum(0) - parts[removed]`; your `logit_lens` reads it.",
        "`logits = logit_lens(parts.sum(0) - parts[removed], gain, W_U, eps)`; return `logits[right] - logits[wrong]`",
    ),
)

# ---------------------------------------------------------------------------------------------------- chance_share


def _chance_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n_parts, draws in ((4, 6), (2, 1), (7, 20)):
        parts = _normal(rng, n_parts, 8) * torch.linspace(0.3, 4.0, n_parts)[:, None]
        pairs = torch.tensor(np.stack([rng.permutation(12)[:2] for _ in range(draws)]))
        arguments = (parts, 1 + 0.5 * _normal(rng, 8), _normal(rng, 12, 8), pairs, EPS)
        yield Case(arguments, about=f"{draws} random pair{'s' * (draws > 1)} of tokens")


def _many_shares(p: Tensor, g: Tensor, u: Tensor, pairs: Tensor, eps: float) -> Tensor:
    """[pair part], one pair at a time."""
    return torch.stack([_by_gradient(p, g, u, int(right), int(wrong), eps) for right, wrong in pairs])


CHANCE_SHARE = Exercise(
    name="chance_share",
    task="How large each part's share is for answers that mean nothing: root mean square over random pairs of tokens",
    cases=_chance_cases,
    truth=lambda *given: np.sqrt((_many_shares(*given).double().numpy() ** 2).mean(0)),
    mistakes=(
        Mistake(
            "signed mean",
            lambda *given: _many_shares(*given).mean(0),
            "You took the plain mean of the shares: positive and negative ones cancel, whatever their size. Square "
            "them first.",
        ),
        Mistake(
            "mean of absolutes",
            lambda *given: _many_shares(*given).abs().mean(0),
            "That is the mean of |share|. Asked is the root mean square: square, mean, root.",
        ),
        Mistake(
            "no root",
            lambda *given: _many_shares(*given).pow(2).mean(0),
            "The root is missing: your numbers are squared logits.",
        ),
        Mistake(
            "over the parts",
            lambda *given: _many_shares(*given).pow(2).mean(1).sqrt(),
            "You took the mean over the parts. Take it over the pairs, so that one number is left for each *part*.",
        ),
    ),
    hints=(
        "Call `attribute` once for each pair, stack the answers to [pair, part], and take the root mean square over "
        "the pairs.",
        "`shares = torch.stack([attribute(parts, gain, W_U, a, b, eps) for a, b in pairs.tolist()])`",
        "`return shares.pow(2).mean(0).sqrt()`",
    ),
)

# -------------------------------------------------------------------------------------------------- fit_translator


def _translator_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n, d, ridge in ((40, 4, 1.0), (30, 6, 10.0), (3, 5, 0.5)):
        early = _normal(rng, n, d) + _normal(rng, d)
        final = early @ _normal(rng, d, d) + 2 * _normal(rng, d) + 0.1 * _normal(rng, n, d)
        about = f"{n} tokens, d_model {d}" + (" (fewer tokens than coordinates)" if n < d else "")
        yield Case((early, final, ridge), about=about)


def _sklearn_ridge(early: Tensor, final: Tensor, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import Ridge

    fitted = Ridge(alpha=ridge, solver="cholesky").fit(early.double().numpy(), final.double().numpy())
    return fitted.coef_.T, fitted.intercept_


def _solved(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    x, y = x.double(), y.double()
    return torch.linalg.solve(x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)


def _translator(early: Tensor, final: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    matrix = _solved(early - early.mean(0), final - final.mean(0), ridge)
    return matrix, final.double().mean(0) - early.double().mean(0) @ matrix


def _least_squares(early: Tensor, final: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """With the Moore-Penrose inverse: what no ridge gives, also with fewer tokens than coordinates."""
    x, y = early.double(), final.double()
    matrix = torch.linalg.pinv(x - x.mean(0)) @ (y - y.mean(0))
    return matrix, y.mean(0) - x.mean(0) @ matrix


def _transposed(early: Tensor, final: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    matrix, bias = _translator(early, final, ridge)
    return matrix.T, bias


FIT_TRANSLATOR = Exercise(
    name="fit_translator",
    task="A tuned lens in closed form: the ridge regression from an early stream to the final one",
    cases=_translator_cases,
    truth=_sklearn_ridge,
    points=2,
    compare=close(rtol=1e-3, atol=1e-3),
    mistakes=(
        Mistake(
            "not centred",
            lambda x, y, ridge: (_solved(x, y, ridge), torch.zeros(x.shape[1])),
            "There is no bias in your fit. Centre both sides first (subtract their means), and get the bias from "
            "the means at the end.",
        ),
        Mistake(
            "matrix not centred, bias from the means",
            lambda x, y, ridge: (m := _solved(x, y, ridge), y.double().mean(0) - x.double().mean(0) @ m),
            "The bias comes from the means, but the matrix was fitted to streams that still had theirs. Centre "
            "*before* you solve.",
        ),
        Mistake(
            "bias is the mean",
            lambda x, y, ridge: (_translator(x, y, ridge)[0], y.mean(0)),
            "Your bias is the mean of `final` alone. What the matrix makes of the mean of `early` must be taken off "
            "it.",
        ),
        Mistake(
            "no ridge",
            _least_squares,
            "The ridge is missing: add ridge · I to XᵀX. With fewer tokens than coordinates nothing else holds the "
            "matrix down.",
        ),
        Mistake(
            "ridge times n",
            lambda x, y, ridge: _translator(x, y, ridge * len(x)),
            "Your ridge is n times too strong: you took *means* over the tokens for XᵀX and XᵀY (or multiplied by "
            "n). Take sums.",
        ),
        Mistake(
            "transposed",
            _transposed,
            "The matrix is transposed: it is used as `early @ matrix + bias`, so its rows belong to `early`.",
        ),
    ),
    hints=(
        "Ridge regression has a closed form: (XᵀX + ridge · I)⁻¹ XᵀY, with X and Y centred.",
        "X = early − mean, Y = final − mean; `torch.linalg.solve(X.T @ X + ridge * torch.eye(d), X.T @ Y)`; bias = "
        "mean(final) − mean(early) @ matrix.",
        "`x, y = early.mean(0), final.mean(0)`; `X, Y = early - x, final - y`; `matrix = torch.linalg.solve(X.T @ X "
        "+ ridge * "
        "torch.eye(X.shape[1]), X.T @ Y)`; `return matrix, y - x @ matrix`",
    ),
)

LESSON = Outline(
    name="03_residual_stream",
    title="Reading the residual stream: the logit lens, and who wrote the answer",
    minutes=(70, 90),
    able_to=(
        "split the stream of a mixture of experts into what the embedding, each head and each expert wrote, and "
        "verify the sum",
        "write the logit lens, and say what it shows and what it cannot show",
        "attribute a logit difference to parts whose shares sum exactly, and say what was held fixed for that",
        "tell a share from the effect of taking the part out, and explain the difference by the norm",
        "put a control beside a reading: the wrong answer, answers that mean nothing, many prompts",
        "train a tuned lens in closed form, and see when it has only learned its texts by heart",
    ),
    builds_on=("01_build_gpt_oss", "02_tokens_and_harmony"),
    exercises=(
        STREAM_PARTS,
        BY_HEAD,
        BY_EXPERT,
        LOGIT_LENS,
        RANK_OF,
        ATTRIBUTE,
        WITHOUT,
        CHANCE_SHARE,
        FIT_TRANSLATOR,
    ),
    predictions=("growth", "coin", "writers", "removed", "blind", "one text"),
)
