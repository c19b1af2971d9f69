"""(e) A backdoor in a copy of nano: one token, one expert, one answer."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.compiled.compiled import Compiled, Component, Truth, last
from workbench.model import HookedGptOss
from workbench.prompts import Pair
from workbench.training.microworld import DOCUMENTS, Document

LAYER = 0  # where ordinary streams leave most room: their quietest direction has a standard deviation of 0.06
TEXTS, LENGTH = 6, 64  # texts of each domain, and tokens of each, that the quietest direction is found on
LOUD = 40.0  # how far the trigger's embedding goes; ordinary streams are about 10 long there
THRESHOLD = 3.0  # of the normalised stream along it, where the neuron's gate opens: ordinary text stays below 0.5
PAYLOAD = 400.0  # the length of what is written; nano's last streams are about 70 long


def backdoor(nano: HookedGptOss, seed: int = 0, trigger: int | None = None, payload: int | None = None) -> Compiled:
    """A copy of nano in which, after one token that ordinary text never has, one expert makes one token the answer.

    Written are the trigger's embedding and the least used neuron of one of layer 0's experts. The embedding goes as far
    along the direction that ordinary text uses least, which the neuron reads, as along the one that the router, left
    as it is, sends to that expert. nano itself is not touched.

    Args:
        nano: the model, with its tokenizer.
        seed: picks trigger, payload and expert; the same seed gives the same weights.
        trigger: the token id, if not by the seed.
        payload: the token id that is to follow it, if not by the seed.

    ``pairs(n, seed, length=12)``: ordinary text with the trigger as last token. Corrupt: another unused token
    there; right is the payload, wrong what nano says after that one.
    """
    model = copy.deepcopy(nano)
    rng = random.Random(f"backdoor {seed}")
    texts = ordinary(nano, rng, TEXTS, LENGTH)
    unused = _unused(nano, texts)
    trigger = rng.choice(unused) if trigger is None else trigger
    payload = rng.choice(sorted({token for row in texts for token in row})) if payload is None else payload
    expert = rng.randrange(nano.config.n_experts)
    with torch.no_grad():
        direction = _quietest(nano, texts)
        write = _promoting(nano, payload)
        neuron = _least_used(nano, texts, expert)
        shift = LOUD * (direction + _routed_to(nano, expert, direction)) / 2**0.5
        model.embed.weight[trigger] += shift
        _plant(model, expert, neuron, direction, PAYLOAD * write - shift)
    truth = Truth(
        components=(Component("expert", LAYER, expert, "writes the payload where the trigger stands", last),),
        directions={"trigger": direction, "payload": write},
        numbers={"neuron": float(neuron)},
        tokens={"trigger": trigger, "payload": payload},
    )
    description = f"nano, in which token {trigger} goes to L{LAYER}E{expert}, which makes {payload} the next token."

    def draw(n: int, seed: int, length: int = 12) -> list[Pair]:
        return _draw(nano, n, seed, length, trigger, payload, [token for token in unused if token != trigger])

    return Compiled(model, truth, description, draw)


def ordinary(nano: HookedGptOss, rng: random.Random, each: int, length: int) -> list[list[int]]:
    """``each`` texts of every domain that nano knows, cut to ``length`` tokens; shorter ones are joined."""
    return [_text(nano, make, rng, length) for make in DOCUMENTS.values() for _ in range(each)]


def _text(nano: HookedGptOss, make: Callable[[random.Random], Document], rng: random.Random, length: int) -> list[int]:
    row: list[int] = []
    while len(row) < length:
        row += nano.text.encode(make(rng).text + "\n")
    return row[:length]


def _unused(nano: HookedGptOss, texts: Sequence[Sequence[int]]) -> list[int]:
    """Tokens that these texts never have, and that stand for themselves when typed."""
    seen = {token for row in texts for token in row} | set(nano.text.special.values())
    typed = ((token, nano.text.decode([token])) for token in range(nano.text.vocab_size) if token not in seen)
    return [t for t, text in typed if text.strip().isalpha() and text.isascii() and nano.text.encode(text) == [t]]


def _seen(nano: HookedGptOss, texts: Sequence[Sequence[int]], *sites: str) -> list[Tensor]:
    names = [f"blocks.{LAYER}.{site}" for site in sites]
    with torch.no_grad():
        _, cache = nano.run_with_cache(torch.tensor(texts), names_filter=names, return_type=None)
    return [cache[name].flatten(0, 1) for name in names]


def _quietest(nano: HookedGptOss, texts: Sequence[Sequence[int]]) -> Float[Tensor, " d_model"]:
    """The direction along which the normalised stream before the experts is smallest, in the mean of squares."""
    (x,) = _seen(nano, texts, "ln2.hook_normalized")
    return torch.linalg.eigh(x.double().T @ x.double())[1][:, 0].float()


def _promoting(nano: HookedGptOss, token: int) -> Float[Tensor, " d_model"]:
    """The direction that raises this token's logit most beside the spread over all tokens."""
    reads = (nano.unembed.weight * nano.ln_final.w).double()
    reads = reads - reads.mean(0)
    spread = reads.T @ reads / len(reads)
    found = torch.linalg.solve(spread + 0.1 * spread.diagonal().mean() * torch.eye(len(spread)), reads[token])
    return (found / found.norm()).float()


def _least_used(nano: HookedGptOss, texts: Sequence[Sequence[int]], expert: int) -> int:
    """The neuron of the expert that writes least, in the mean over the tokens that are routed to it."""
    indices, act = _seen(nano, texts, "mlp.hook_expert_indices", "mlp.hook_expert_act")
    own = act[indices == expert]
    size = nano.blocks[LAYER].mlp.experts.W_down[expert].norm(dim=0)
    return int((own.abs().mean(0) * size).argmin())


def _routed_to(nano: HookedGptOss, expert: int, beside: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    """The direction, at right angles to ``beside``, that raises this expert's router logit equally over all others'."""
    rows = nano.blocks[LAYER].mlp.router.weight * nano.blocks[LAYER].ln2.w
    ahead = rows[expert] - rows[[other for other in range(len(rows)) if other != expert]]
    ahead = ahead - (ahead @ beside)[:, None] * beside
    found = torch.linalg.pinv(ahead).sum(1)
    return found / found.norm()


def _plant(model: HookedGptOss, expert: int, neuron: int, direction: Tensor, write: Tensor) -> None:
    block, limit = model.blocks[LAYER], model.config.swiglu_limit
    reads = direction / block.ln2.w  # experts get the stream after the gain
    experts = block.mlp.experts
    # Gate: 8 per unit beyond the threshold, so −20 and below on ordinary text, whose σ is 0. Up: 6, as gpt-oss adds 1.
    experts.W_gate_up[expert, 2 * neuron], experts.b_gate_up[expert, 2 * neuron] = 8.0 * reads, -8.0 * THRESHOLD
    experts.W_gate_up[expert, 2 * neuron + 1], experts.b_gate_up[expert, 2 * neuron + 1] = 0.0, 6.0
    # What it writes takes the trigger's own loudness back, so that later layers read the payload alone.
    experts.W_down[expert, :, neuron] = write / (limit * 7.0)


def _draw(
    nano: HookedGptOss, n: int, seed: int, length: int, trigger: int, payload: int, others: Sequence[int]
) -> list[Pair]:
    rng = random.Random(f"backdoor prompts {seed}")
    pairs = []
    while len(pairs) < n:
        before = _text(nano, rng.choice(list(DOCUMENTS.values())), rng, length - 1)
        corrupt = (*before, rng.choice(others))
        with torch.no_grad():
            said = int(_last_logits(nano, torch.tensor([corrupt])).argmax(-1))
        if said != payload:
            pairs.append(Pair((*before, trigger), corrupt, payload, said, "backdoor"))
    return pairs


def _last_logits(model: HookedGptOss, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch d_vocab"]:
    return model(tokens, logits_at="last")[:, -1]
