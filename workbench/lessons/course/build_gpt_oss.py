"""Lesson 1: build gpt-oss. What its exercises must do, and what students get wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.lessons.exercise import Case, Exercise, Mistake, close, equal
from workbench.lessons.models import nano
from workbench.lessons.outline import Outline
from workbench.model import Config, HookedGptOss, Rope, random_weights

ALPHA, LIMIT = 1.702, 7.0


def _normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.tensor(scale * rng.normal(size=shape), dtype=torch.float32)


# ------------------------------------------------------------ 1. rms_norm


def _norm_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, width, scale, about in ((5, 8, 1.0, "ordinary rows"), (3, 6, 2e-3, "tiny rows, where eps counts")):
        x = _normal(rng, tokens, width, scale=scale) + 0.4 * scale
        yield Case((x, 1 + 0.3 * _normal(rng, width), 1e-5), about=about)


RMS_NORM = Exercise(
    name="rms_norm",
    task="Divide each token's vector by its root mean square, and multiply by the gain",
    cases=_norm_cases,
    truth=lambda x, gain, eps: F.rms_norm(x, (x.shape[-1],), gain, eps),
    mistakes=(
        Mistake(
            "subtracted the mean (LayerNorm)",
            lambda x, gain, eps: F.layer_norm(x, (x.shape[-1],), gain, None, eps),
            "That is LayerNorm: RMSNorm subtracts no mean, it only divides by the root of the mean square.",
        ),
        Mistake(
            "forgot the gain",
            lambda x, gain, eps: F.rms_norm(x, (x.shape[-1],), None, eps),
            "Right so far, but the gain is missing: multiply the normalised vector by it, dimension by dimension.",
        ),
        Mistake(
            "sum for mean",
            lambda x, gain, eps: x / (x.pow(2).sum(-1, keepdim=True) + eps).sqrt() * gain,
            "You divide by the vector's length. The root *mean* square divides the sum of squares by d_model first.",
        ),
        Mistake(
            "eps left out",
            lambda x, gain, eps: x / x.pow(2).mean(-1, keepdim=True).sqrt() * gain,
            "Right for ordinary rows, not for tiny ones: eps is missing under the root.",
        ),
        Mistake(
            "eps outside the root",
            lambda x, gain, eps: x / (x.pow(2).mean(-1, keepdim=True).sqrt() + eps) * gain,
            "eps stands under the root, with the mean square, not beside the root.",
        ),
        Mistake(
            "mean over tokens",
            lambda x, gain, eps: x / (x.pow(2).mean(0, keepdim=True) + eps).sqrt() * gain,
            "You average over the tokens. Each token is normalised alone: the mean runs over d_model, the last axis.",
        ),
    ),
    hints=(
        "Square, mean over the last axis, add eps, root: divide by that, then multiply by gain.",
        "`x.pow(2).mean(-1, keepdim=True)` keeps the axis, so that the division broadcasts over d_model.",
        "`return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * gain`",
    ),
)


# ------------------------------------------------------------ 2. yarn_frequencies


def _yarn_cases(rng: np.random.Generator) -> Iterator[Case]:
    for d_head, theta, factor, rope in (
        (64, 150_000.0, 32.0, Rope()),
        (32, 10_000.0, 16.0, Rope(theta=10_000.0, factor=16.0, original_context=256)),
    ):
        low, high = rope.corners(d_head)
        yield Case((d_head, theta, factor, low, high), about=f"d_head {d_head}, factor {factor:g}")
    low = float(rng.uniform(1, 4))
    yield Case((24, 5_000.0, 8.0, low, low + float(rng.uniform(2, 5))), about="corners drawn at random")


def _yarn_truth(d_head: int, theta: float, factor: float, low: float, high: float) -> Tensor:
    """Pair by pair, in Python's own numbers."""
    made = []
    for pair in range(d_head // 2):
        plain = math.exp(-2 * pair / d_head * math.log(theta))
        slowed = min(max((pair - low) / (high - low), 0.0), 1.0)
        made.append((1 - slowed) * plain + slowed * plain / factor)
    return torch.tensor(made)


def _plain_rope(d_head: int, theta: float) -> Tensor:
    return theta ** (-2 * torch.arange(d_head // 2) / d_head)


def _ramp(d_head: int, low: float, high: float) -> Tensor:
    return (torch.arange(d_head // 2) - low) / (high - low)


def _mixed(plain: Tensor, ramp: Tensor, factor: float) -> Tensor:
    return plain * (1 - ramp) + plain / factor * ramp


YARN_FREQUENCIES = Exercise(
    name="yarn_frequencies",
    task="RoPE's frequencies, the slow ones divided by YaRN's factor, with a ramp between",
    cases=_yarn_cases,
    truth=_yarn_truth,
    # The slowest pairs turn by 1e-6 of a radian: a difference there is one of proportion.
    compare=close(rtol=1e-3, atol=1e-10),
    mistakes=(
        Mistake(
            "plain RoPE",
            lambda d_head, theta, factor, low, high: _plain_rope(d_head, theta),
            "These are RoPE's own frequencies. YaRN divides the slow pairs by `factor`: mix both with the ramp.",
        ),
        Mistake(
            "ramp turned round",
            lambda d_head, theta, factor, low, high: _mixed(
                _plain_rope(d_head, theta), 1 - _ramp(d_head, low, high).clamp(0, 1), factor
            ),
            "Your ramp runs the wrong way: the fast pairs (below `low`) keep their frequency, the slow ones (above "
            "`high`) are divided.",
        ),
        Mistake(
            "everything divided",
            lambda d_head, theta, factor, low, high: _plain_rope(d_head, theta) / factor,
            "You divide every pair. That is position interpolation, YaRN's predecessor: it blurs the fast pairs, which "
            "tell neighbours apart. Keep those below `low`.",
        ),
        Mistake(
            "ramp not clamped",
            lambda d_head, theta, factor, low, high: _mixed(
                _plain_rope(d_head, theta), _ramp(d_head, low, high), factor
            ),
            "Between the corners you are right. Outside, the ramp must stop at 0 and at 1: clamp it.",
        ),
        Mistake(
            "mixed the wavelengths",
            lambda d_head, theta, factor, low, high: (
                1 / _mixed(1 / _plain_rope(d_head, theta), _ramp(d_head, low, high).clamp(0, 1), 1 / factor)
            ),
            "You mix wavelengths (1 / frequency). Mix the frequencies themselves.",
        ),
        Mistake(
            "exponent i / d_head",
            lambda d_head, theta, factor, low, high: _mixed(
                theta ** (-torch.arange(d_head // 2) / d_head), _ramp(d_head, low, high).clamp(0, 1), factor
            ),
            "Look at the exponent: pair i has frequency theta^(−2i / d_head). Without the 2 the pairs span only half "
            "of the range.",
        ),
    ),
    hints=(
        "First RoPE's own frequencies, theta^(−2i / d_head) for i = 0 … d_head/2 − 1; then the ramp; then the mixture.",
        "The ramp is (i − low) / (high − low), clamped to 0 … 1: the share of the divided frequency.",
        "`frequency = theta ** (-2 * pair / d_head)`; `return frequency * (1 - ramp) + frequency / factor * ramp`",
    ),
    points=2,
)


# ------------------------------------------------------------ 3. rotate


def _rotate_cases(rng: np.random.Generator) -> Iterator[Case]:
    for pos, heads, d_head, scale in ((4, 2, 8, 1.0), (6, 3, 6, 1.35)):
        angles = torch.tensor(rng.uniform(0.2, 6, size=(pos, d_head // 2)), dtype=torch.float32)
        yield Case((_normal(rng, pos, heads, d_head), angles, scale), about=f"scale {scale:g}")


def _rotate_truth(x: Tensor, angles: Tensor, scale: float) -> Tensor:
    """As complex numbers: first + i·second, times scale · e^(i·angle)."""
    half = x.shape[-1] // 2
    numbers = x[..., :half].numpy() + 1j * x[..., half:].numpy()
    turned = numbers * scale * np.exp(1j * angles.numpy().astype(float))[:, None, :]
    return torch.tensor(np.concatenate((turned.real, turned.imag), -1), dtype=torch.float32)


def _turned(x: Tensor, angles: Tensor, cos_scale: float, sin_scale: float) -> Tensor:
    half = x.shape[-1] // 2
    cos, sin = cos_scale * angles.cos()[:, None], sin_scale * angles.sin()[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def _interleaved(x: Tensor, angles: Tensor, scale: float) -> Tensor:
    a, b = x[..., 0::2], x[..., 1::2]
    cos, sin = scale * angles.cos()[:, None], scale * angles.sin()[:, None]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)


ROTATE = Exercise(
    name="rotate",
    task="Turn dimension i with dimension i + d_head/2 by the pair's angle, times scale",
    cases=_rotate_cases,
    truth=_rotate_truth,
    mistakes=(
        Mistake(
            "interleaved pairs",
            _interleaved,
            "You turn neighbours (0 with 1, 2 with 3), as GPT-J does. gpt-oss turns dimension i with i + d_head/2: "
            "cut the vector in two halves.",
        ),
        Mistake(
            "turned the other way",
            lambda x, angles, scale: _turned(x, angles, scale, -scale),
            "You turn clockwise. The minus belongs to first·cos − second·sin; the second half gets a plus.",
        ),
        Mistake(
            "forgot scale",
            lambda x, angles, scale: _turned(x, angles, 1.0, 1.0),
            "Right at scale 1. YaRN's scale multiplies the cosine and the sine, both.",
        ),
        Mistake(
            "scale on the cosine only",
            lambda x, angles, scale: _turned(x, angles, scale, 1.0),
            "The scale reaches your cosine, not your sine: what is turned must stay a turn, only longer.",
        ),
        Mistake(
            "both signs plus",
            lambda x, angles, scale: torch.cat(
                (
                    _turned(x, -angles, scale, scale)[..., : x.shape[-1] // 2],
                    _turned(x, angles, scale, scale)[..., x.shape[-1] // 2 :],
                ),
                -1,
            ),
            "One sign of the four is wrong: the first half is first·cos *minus* second·sin. With two plusses the pair "
            "changes its length.",
        ),
    ),
    hints=(
        "Cut x in two halves along the last axis; angles need an axis for the heads before they broadcast.",
        "`first, second = x.chunk(2, -1)`; `cos = scale * angles.cos()[:, None]`: now [pos 1 half].",
        "`torch.cat((first * cos - second * sin, second * cos + first * sin), -1)`",
    ),
)


# ------------------------------------------------------------ 4. visible_keys


def _visible_cases(rng: np.random.Generator) -> Iterator[Case]:
    del rng
    for n, window in ((7, None), (9, 4), (3, 5), (6, 1)):
        yield Case((n, window), about=f"{n} tokens, window {window}")


def _visible(n: int, window: int | None, extra: int = 0, future: bool = False, past: int = 0) -> Tensor:
    rows = []
    for q in range(n):
        near = [window is None or q - k < window + extra for k in range(n)]
        rows.append([near[k] and (future or k <= q - past) for k in range(n)])
    return torch.tensor(rows)


VISIBLE_KEYS = Exercise(
    name="visible_keys",
    task="Which keys each query sees: no later one, and at most `window` with itself",
    cases=_visible_cases,
    truth=lambda n, window: _visible(n, window),
    compare=equal(),
    mistakes=(
        Mistake(
            "one key too many",
            lambda n, window: _visible(n, window, extra=1),
            "One key too many: a window of 4 is the token itself and the 3 before it, so k > q − window, not ≥.",
        ),
        Mistake(
            "one key too few",
            lambda n, window: _visible(n, window, extra=-1),
            "One key too few: a window of 4 is the token itself and the 3 before it. k = q − window + 1 is seen.",
        ),
        Mistake(
            "sees the future",
            lambda n, window: _visible(n, window, future=True),
            "Later tokens are visible in your mask. A query sees keys with k ≤ q only.",
        ),
        Mistake(
            "query and key exchanged",
            lambda n, window: _visible(n, window).T,
            "The axes are exchanged: rows are queries, columns are keys, so the lower triangle is true.",
        ),
        Mistake(
            "window ignored",
            lambda n, window: _visible(n, None),
            "Causal, but the window is ignored: with `window` given, keys at or before q − window are out of sight.",
        ),
        Mistake(
            "not itself",
            lambda n, window: _visible(n, window, past=1),
            "A token sees itself too: k ≤ q, not k < q.",
        ),
        Mistake(
            "true for what is hidden",
            lambda n, window: ~_visible(n, window),
            "Turned round: True stands for a key that is visible.",
        ),
    ),
    hints=(
        "Two vectors of positions, one upright, one lying: compare them and they broadcast to [query key].",
        "`q, k = torch.arange(n)[:, None], torch.arange(n)`, then `k <= q`.",
        "`seen = k <= q`; with a window `seen & (k > q - window)`.",
    ),
)


# ------------------------------------------------------------ 5. attend


def _attend_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n, heads, kv_heads, d_head, window in ((5, 4, 2, 8, None), (7, 6, 2, 4, 3), (1, 2, 1, 4, None)):
        q, k, v = (_normal(rng, n, h, d_head) for h in (heads, kv_heads, kv_heads))
        about = f"{n} token{'s' * (n > 1)}, {heads} heads on {kv_heads} key-value heads"
        yield Case((q, k, v, _normal(rng, heads), _visible(n, window)), about=about)


def _attend_truth(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, visible: Tensor) -> Tensor:
    """Head by head and query by query, in numpy."""
    q, k, v, sinks, visible = (x.numpy() for x in (q, k, v, sinks, visible))  # pyright: ignore[reportAssignmentType]
    n, heads, d_head = q.shape
    z = np.zeros((n, heads, d_head))
    for head in range(heads):
        kv = head // (heads // k.shape[1])
        for query in range(n):
            seen = [key for key in range(n) if visible[query, key]]
            shares = np.array([math.exp(float(q[query, head] @ k[key, kv]) / math.sqrt(d_head)) for key in seen])
            shares /= shares.sum() + math.exp(float(sinks[head]))
            z[query, head] = sum(share * v[key, kv] for share, key in zip(shares, seen, strict=True))
    return torch.tensor(z, dtype=torch.float32)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor,
    visible: Tensor,
    *,
    scale: float | None = None,
    hidden: float = -torch.inf,
    modulo: bool = False,
    sink: str = "column",
    axis: int = -1,
) -> Tensor:
    """Attention with one thing done otherwise."""
    group = q.shape[1] // k.shape[1]
    k, v = ((x.repeat(1, group, 1) if modulo else x.repeat_interleave(group, 1)) for x in (k, v))
    factor = float(q.shape[-1] ** -0.5) if scale is None else scale
    scores = (torch.einsum("qhd,khd->hqk", q, k) * factor).masked_fill(~visible, hidden)
    column = sinks[:, None, None].expand(-1, len(q), 1)
    if sink == "none":
        pattern = scores.softmax(axis)
    elif sink == "scaled":
        pattern = torch.cat((scores, column * factor), -1).softmax(-1)[..., :-1]
    else:
        pattern = torch.cat((scores, column), -1).softmax(axis)[..., :-1]
    return torch.einsum("hqk,khd->qhd", pattern, v)


ATTEND = Exercise(
    name="attend",
    task="Grouped-query attention with a learned sink per head",
    cases=_attend_cases,
    truth=_attend_truth,
    mistakes=(
        Mistake(
            "forgot the sink",
            lambda *given: _attend(*given, sink="none"),
            "Your rows sum to 1 over the keys: the sink has no share (added to every score, it cancels). Put it beside "
            "them as one more column before the softmax, and drop the column after.",
        ),
        Mistake(
            "sink scaled too",
            lambda *given: _attend(*given, sink="scaled"),
            "You scale the sink with the scores. It is a logit already: divide by √d_head first, then append it.",
        ),
        Mistake(
            "forgot 1/√d_head",
            lambda *given: _attend(*given, scale=1.0),
            "The scores are not scaled: divide q·k by √d_head.",
        ),
        Mistake(
            "divided by d_head",
            lambda q, *rest: _attend(q, *rest, scale=1 / q.shape[-1]),
            "You divide the scores by d_head; it is its root.",
        ),
        Mistake(
            "heads grouped by remainder",
            lambda *given: _attend(*given, modulo=True),
            "The wrong heads share keys. Query heads that stand side by side share one key-value head: h reads "
            "h // group, so repeat each key-value head in place (`repeat_interleave`, or einops "
            "`key kv d -> key (kv group) d`), not the whole row of them.",
        ),
        Mistake(
            "hidden keys at score 0",
            lambda *given: _attend(*given, hidden=0.0),
            "Hidden keys still get attention: e⁰ is 1. Their score must be −∞ before the softmax.",
        ),
        Mistake(
            "softmax over queries",
            lambda *given: _attend(*given, axis=-2),
            "Your softmax runs over the queries. Each query shares out its own attention: the last axis.",
        ),
    ),
    hints=(
        "Five steps: repeat keys and values for their group of heads; scores; mask; softmax with the sink as an extra "
        "column; values.",
        "`einsum(q, k, 'query head d, key head d -> head query key') / d_head ** 0.5`, then "
        "`masked_fill(~visible, -torch.inf)`.",
        "`sink = repeat(sinks, 'head -> head query 1', query=len(q))`; "
        "`torch.cat((scores, sink), -1).softmax(-1)[..., :-1]`",
    ),
    points=3,
)


# ------------------------------------------------------------ 6. route


def _route_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, experts, k in ((5, 8, 2), (4, 6, 4), (3, 5, 1)):
        # A permutation of spaced numbers: no two are close, so the order is beyond doubt.
        rows = np.stack([rng.permutation(experts) for _ in range(tokens)]) * 0.4 + rng.uniform(-0.1, 0.1)
        yield Case((torch.tensor(rows, dtype=torch.float32), k), about=f"{experts} experts, {k} chosen")


def _route_truth(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    chosen = np.argsort(-logits.numpy(), axis=-1)[:, :k]
    powers = np.exp(np.take_along_axis(logits.numpy(), chosen, -1))
    return torch.tensor(chosen), torch.tensor(powers / powers.sum(-1, keepdims=True))


def _softmax_first(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    weights, experts = logits.softmax(-1).topk(k, -1)
    return experts, weights


def _exchanged(given: object, expected: object, case: Case) -> bool:
    del case
    if not isinstance(given, tuple) or len(given) != 2:
        return False
    compare = close()
    return compare((given[1], given[0]), expected) is None


def _weakest_first(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    experts, weights = _route_truth(logits, k)
    return experts.flip(-1), weights.flip(-1)


ROUTE = Exercise(
    name="route",
    task="The k strongest experts of each token, and the softmax over their logits alone",
    cases=_route_cases,
    truth=_route_truth,
    mistakes=(
        Mistake(
            "softmax before top-k",
            _softmax_first,
            "Your weights do not sum to 1: you take the softmax over all experts and then choose. gpt-oss chooses "
            "first, and takes the softmax over the k chosen logits.",
        ),
        Mistake(
            "experts and weights exchanged",
            None,
            "Right numbers, exchanged: return (experts, weights). `topk` gives the values first.",
            seen=_exchanged,
        ),
        Mistake(
            "no softmax",
            lambda logits, k: (logits.topk(k, -1).indices, logits.topk(k, -1).values),
            "The experts are right, but the weights are still logits: take the softmax over the chosen ones.",
        ),
        Mistake(
            "weakest first",
            _weakest_first,
            "The right experts, weakest first. Slot 0 is the strongest: `topk` gives them in that order.",
        ),
        Mistake(
            "the weakest chosen",
            lambda logits, k: (
                logits.topk(k, -1, largest=False).indices,
                logits.topk(k, -1, largest=False).values.softmax(-1),
            ),
            "You choose the experts with the *lowest* logits.",
        ),
        Mistake(
            "sigmoid weights",
            lambda logits, k: (logits.topk(k, -1).indices, logits.topk(k, -1).values.sigmoid()),
            "A sigmoid weighs each expert alone. Here the chosen ones share out one unit: a softmax over the slots.",
        ),
    ),
    hints=(
        "Two lines: choose, then weigh what was chosen.",
        "`logits.topk(k, dim=-1)` returns (values, indices): the values are the chosen logits.",
        "`values, experts = logits.topk(k, dim=-1)`; `return experts, values.softmax(-1)`",
    ),
)


# ------------------------------------------------------------ 7. swiglu


def _swiglu_cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape, scale, about in (((4, 10), 1.0, "small numbers"), ((3, 2, 12), 9.0, "numbers beyond the limit")):
        yield Case((_normal(rng, *shape, scale=scale),), about=about)


def _swiglu_truth(gate_up: Tensor) -> Tensor:
    """Number by number, as the model card says it."""
    flat = gate_up.reshape(-1, gate_up.shape[-1]).tolist()
    rows = []
    for row in flat:
        made = []
        for i in range(0, len(row), 2):
            gate, up = min(row[i], LIMIT), max(-LIMIT, min(row[i + 1], LIMIT))
            made.append((up + 1) * gate / (1 + math.exp(-ALPHA * gate)))
        rows.append(made)
    return torch.tensor(rows).reshape(*gate_up.shape[:-1], -1)


def _swiglu(gate: Tensor, up: Tensor, alpha: float = ALPHA, one: float = 1.0) -> Tensor:
    return (up + one) * gate * torch.sigmoid(alpha * gate)


def _clamped(gate_up: Tensor) -> tuple[Tensor, Tensor]:
    return gate_up[..., 0::2].clamp(max=LIMIT), gate_up[..., 1::2].clamp(-LIMIT, LIMIT)


def _from_halves(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, -1)
    return _swiglu(gate.clamp(max=LIMIT), up.clamp(-LIMIT, LIMIT))


SWIGLU = Exercise(
    name="swiglu",
    task="The experts' activation: interleaved gate and up, clamped, (up + 1) · gate · σ(1.702 · gate)",
    cases=_swiglu_cases,
    truth=_swiglu_truth,
    mistakes=(
        Mistake(
            "halves for interleaved",
            _from_halves,
            "You cut in halves. gpt-oss interleaves: gate, up, gate, up, …; so gate is `[..., 0::2]`.",
        ),
        Mistake(
            "forgot the one",
            lambda x: _swiglu(*_clamped(x), one=0.0),
            "The +1 is missing: it is (up + 1) · gate · σ(…), so that an up of 0 lets the gate through.",
        ),
        Mistake(
            "no clamp",
            lambda x: _swiglu(x[..., 0::2], x[..., 1::2]),
            "Right for small numbers. Large ones are clamped first: gate at most 7, up between −7 and 7.",
        ),
        Mistake(
            "gate clamped below too",
            lambda x: _swiglu(x[..., 0::2].clamp(-LIMIT, LIMIT), x[..., 1::2].clamp(-LIMIT, LIMIT)),
            "The gate is clamped above only: very negative gates may stay, the sigmoid closes them anyway.",
        ),
        Mistake(
            "up not clamped",
            lambda x: _swiglu(x[..., 0::2].clamp(max=LIMIT), x[..., 1::2]),
            "The gate's clamp is there, up's is not: −7 … 7, on both sides.",
        ),
        Mistake(
            "plain SiLU",
            lambda x: _swiglu(*_clamped(x), alpha=1.0),
            "The sigmoid has a slope here: σ(1.702 · gate), which comes close to GELU. Yours is plain SiLU.",
        ),
        Mistake(
            "gate and up exchanged",
            lambda x: _swiglu(x[..., 1::2].clamp(max=LIMIT), x[..., 0::2].clamp(-LIMIT, LIMIT)),
            "Gate and up are exchanged: the first of each two is the gate.",
        ),
    ),
    hints=(
        "Three steps: take gate and up apart (every second number), clamp both, combine.",
        "`gate = gate_up[..., 0::2].clamp(max=7)`; up is clamped on both sides.",
        "`return (up + 1) * gate * torch.sigmoid(1.702 * gate)`",
    ),
    points=2,
)


# ------------------------------------------------------------ 8. mix_experts


def _mix_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, experts, slots, width, inner in ((4, 5, 2, 6, 4), (3, 6, 3, 5, 7)):
        chosen = torch.tensor(np.stack([rng.permutation(experts)[:slots] for _ in range(tokens)]))
        weights = _normal(rng, tokens, slots).softmax(-1)
        parameters = (
            _normal(rng, experts, 2 * inner, width),
            _normal(rng, experts, 2 * inner),
            _normal(rng, experts, width, inner),
            _normal(rng, experts, width),
        )
        yield Case((2 * _normal(rng, tokens, width), chosen, weights, *parameters), about=f"{slots} experts a token")


def _mixed_experts(
    x: Tensor, chosen: Tensor, weights: Tensor, *parameters: Tensor, wrong: str = ""
) -> Tensor:  # token by token, expert by expert
    W_gate_up, b_gate_up, W_down, b_down = (p.double() for p in parameters)
    rows = []
    for token, vector in enumerate(x.double()):
        total = torch.zeros_like(vector)
        for slot, expert in enumerate(chosen[token].tolist()):
            gate_up = W_gate_up[expert] @ vector + (0 if wrong == "no b_gate_up" else b_gate_up[expert])
            act = _swiglu_truth(gate_up[None])[0].double()
            share = 1.0 if wrong == "unweighted" else float(weights[token, slot])
            written = W_down[expert] @ act
            if wrong == "bias unweighted":
                total += share * written + b_down[expert]
            elif wrong == "no b_down":
                total += share * written
            else:
                total += share * (written + b_down[expert])
        rows.append(total / (len(chosen[token]) if wrong == "mean" else 1))
    return torch.stack(rows).float()


def _slots_as_experts(x: Tensor, chosen: Tensor, *rest: Tensor) -> Tensor:
    return _mixed_experts(x, torch.arange(chosen.shape[1]).expand_as(chosen), *rest)


def _mixed_with(wrong: str):
    def gives(*given: Tensor) -> Tensor:
        return _mixed_experts(*given, wrong=wrong)

    return gives


MIX_EXPERTS = Exercise(
    name="mix_experts",
    task="What the chosen experts write, weighed by the router and summed",
    cases=_mix_cases,
    truth=_mixed_experts,
    compare=close(rtol=1e-3, atol=1e-3),
    mistakes=(
        Mistake(
            "forgot the routing weights",
            _mixed_with("unweighted"),
            "You sum the experts as they are. Each is multiplied by its routing weight first.",
        ),
        Mistake(
            "the weight leaves the bias out",
            _mixed_with("bias unweighted"),
            "Almost: the routing weight multiplies after the down bias, so b_down is weighed too.",
        ),
        Mistake(
            "forgot b_down",
            _mixed_with("no b_down"),
            "The bias of the down projection is missing: b_down of each chosen expert.",
        ),
        Mistake(
            "forgot b_gate_up",
            _mixed_with("no b_gate_up"),
            "The bias of the first projection is missing: b_gate_up, before swiglu.",
        ),
        Mistake(
            "mean over slots",
            _mixed_with("mean"),
            "You divide by the number of slots. The weights sum to 1 already: sum, no mean.",
        ),
        Mistake(
            "slot number for expert",
            _slots_as_experts,
            "You take experts 0, 1, … for every token. `chosen[pos, slot]` says which expert stands in a slot: "
            "`W_gate_up[chosen]`.",
        ),
    ),
    hints=(
        "Indexing does the routing: `W_gate_up[chosen]` has the axes [pos slot out d_model].",
        "einsum(W_gate_up[chosen], x, 'pos slot out d, pos d -> pos slot out') + b_gate_up[chosen]; then swiglu; then "
        "the same with W_down.",
        "At the end: `einsum(weights, written, 'pos slot, pos slot d -> pos d')`, where written has b_down in it.",
    ),
    points=2,
)


# ------------------------------------------------------------ 9. gpt_oss

SMALL = Config(
    name="small",
    n_layers=3,
    d_model=24,
    n_heads=4,
    n_key_value_heads=2,
    d_head=16,
    d_mlp=16,
    n_experts=6,
    experts_per_token=2,
    d_vocab=40,
    n_ctx=4096,
    sliding_window=4,
    rope=Rope(theta=10_000.0, factor=16.0, original_context=256),
    dtype="float32",
    bos_token_id=None,
    pad_token_id=0,
    eos_token_ids=(),
)

Weights = Mapping[str, Tensor]


def _model_cases(rng: np.random.Generator) -> Iterator[Case]:
    for config in (SMALL, SMALL.with_(n_layers=2, n_heads=6, n_key_value_heads=3, experts_per_token=3)):
        weights = dict(random_weights(HookedGptOss(config), int(rng.integers(1000))).state_dict())
        tokens = torch.tensor(rng.integers(0, config.d_vocab, size=12))
        yield Case((tokens, weights, config), about=f"a random model of {config.n_layers} layers")
    model = nano()
    tokens = torch.tensor(rng.integers(20, model.config.d_vocab, size=24))
    yield Case((tokens, dict(model.state_dict()), model.config), about="nano's own weights")


def _loaded(weights: Weights, config: Config) -> HookedGptOss:
    model = HookedGptOss(config)
    model.load_state_dict(dict(weights))
    return model


@torch.no_grad()
def _model_truth(tokens: Tensor, weights: Weights, config: Config) -> Tensor:
    """The workbench's model, which its tests compare with transformers and with OpenAI's code."""
    return _loaded(weights, config)(tokens)[0]


@torch.no_grad()
def _no_final_norm(tokens: Tensor, weights: Weights, config: Config) -> Tensor:
    last = f"blocks.{config.n_layers - 1}.hook_resid_post"
    _, cache = _loaded(weights, config).run_with_cache(tokens, names_filter=last)
    return cache[last][0] @ weights["unembed.weight"].T


@torch.no_grad()
def _no_residual(tokens: Tensor, weights: Weights, config: Config) -> Tensor:
    seen = {}

    def remember(x: Tensor, hook: object) -> None:
        seen["x"] = x

    def only_what_was_added(x: Tensor, hook: object) -> Tensor:
        return seen["x"]

    hooks: list[tuple[str | Callable, Callable]] = [
        (f"blocks.{layer}.{site}", hook)
        for layer in range(config.n_layers)
        for site, hook in (
            ("hook_attn_out", remember),
            ("hook_resid_mid", only_what_was_added),
            ("hook_mlp_out", remember),
            ("hook_resid_post", only_what_was_added),
        )
    ]
    return _loaded(weights, config).run_with_hooks(tokens, fwd_hooks=hooks)[0]


@torch.no_grad()
def _side_by_side(tokens: Tensor, weights: Weights, config: Config) -> Tensor:
    """Attention and experts both read the stream before attention."""
    seen = {}

    def remember(x: Tensor, hook: object) -> None:
        seen["x"] = x

    def from_before(x: Tensor, hook: object) -> Tensor:
        return F.rms_norm(seen["x"], (config.d_model,), None, config.rms_eps)

    hooks: list[tuple[str | Callable, Callable]] = [
        (f"blocks.{layer}.{site}", hook)
        for layer in range(config.n_layers)
        for site, hook in (("hook_resid_pre", remember), ("ln2.hook_normalized", from_before))
    ]
    return _loaded(weights, config).run_with_hooks(tokens, fwd_hooks=hooks)[0]


def _other_windows(tokens: Tensor, weights: Weights, config: Config) -> Tensor:
    kinds = ("full_attention", "sliding_attention")
    return _model_truth(
        tokens, weights, config.with_(layer_types=tuple(kinds[layer % 2] for layer in range(config.n_layers)))
    )


def _no_window(tokens: Tensor, weights: Weights, config: Config) -> Tensor:
    return _model_truth(tokens, weights, config.with_(layer_types=("full_attention",) * config.n_layers))


def _one_gain(tokens: Tensor, weights: Weights, config: Config) -> Tensor:
    same = {name: weights[name.replace("ln2", "ln1")] for name in weights}
    return _model_truth(tokens, same, config)


def _tied(tokens: Tensor, weights: Weights, config: Config) -> Tensor:
    return _model_truth(tokens, {**weights, "unembed.weight": weights["embed.weight"]}, config)


GPT_OSS = Exercise(
    name="gpt_oss",
    task="The whole model: embedding, layers on a residual stream, final norm, unembedding",
    cases=_model_cases,
    truth=_model_truth,
    compare=close(rtol=1e-3, atol=2e-3),
    mistakes=(
        Mistake(
            "forgot the final norm",
            _no_final_norm,
            "The layers are right. Before the unembedding the stream is normalised once more, with `ln_final.w`.",
        ),
        Mistake(
            "no residual stream",
            _no_residual,
            "Each part replaces the stream in your code. It must *add* to it: x + attention(…), then x + mixture(…).",
        ),
        Mistake(
            "experts read the stream before attention",
            _side_by_side,
            "Your experts read the stream as it was before attention. In gpt-oss they come after it: norm the sum with "
            "ln2, then route.",
        ),
        Mistake(
            "windows in the wrong layers",
            _other_windows,
            "The windows stand in the wrong layers: layers 0, 2, … slide. `config.window(layer)` says it.",
        ),
        Mistake(
            "no windows at all",
            _no_window,
            "Every layer of yours sees everything: pass `config.window(layer)` to attention.",
        ),
        Mistake(
            "one gain for both norms",
            _one_gain,
            "Both norms use `ln1.w`. The one before the experts has its own gain, `ln2.w`.",
        ),
        Mistake(
            "unembedding tied to the embedding",
            _tied,
            "You read out with the embedding's weights. gpt-oss does not tie them: `unembed.weight`.",
        ),
        Mistake(
            "probabilities for logits",
            lambda *given: _model_truth(*given).softmax(-1),
            "These are probabilities. Return the logits, before any softmax.",
        ),
    ),
    hints=(
        "x starts as the embedding's rows; in each layer two things are added to it; at the end norm and unembed.",
        "`w = of_layer(weights, layer)`; `x = x + attention(rms_norm(x, w['ln1.w'], config.rms_eps), w, config, "
        "config.window(layer))`, then the same with mixture and ln2.",
        "`return rms_norm(x, weights['ln_final.w'], config.rms_eps) @ weights['unembed.weight'].T`",
    ),
    points=3,
)


LESSON = Outline(
    name="01_build_gpt_oss",
    title="Build gpt-oss: every part, until the logits match",
    minutes=(60, 90),
    able_to=(
        "write gpt-oss' forward pass in plain torch and einops, part by part",
        "say what each part is for: norm, rotary positions with YaRN, window, sink, router, clamped SwiGLU",
        "check an implementation against a reference, and choose inputs that can find a mistake",
        "tell which mistakes a low loss or fluent text would hide",
    ),
    exercises=(
        RMS_NORM,
        YARN_FREQUENCIES,
        ROTATE,
        VISIBLE_KEYS,
        ATTEND,
        ROUTE,
        SWIGLU,
        MIX_EXPERTS,
        GPT_OSS,
    ),
    predictions=("who is slowed", "sink head", "softmax first", "how far back", "which hurts", "blind test"),
)
