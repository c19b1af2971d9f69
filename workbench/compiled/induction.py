"""(a) Induction: a previous-token head and, through it, an induction head (arXiv 2209.11895)."""

from __future__ import annotations

import torch

from workbench.compiled.compiled import Compiled, Component, Truth, after_changed, last
from workbench.compiled.write import Stream, blank, finished, shape, write_expert, write_head, write_offset_head
from workbench.prompts import Pair

N_TOKENS = 18
MARGIN = 16.0  # of the previous-token head's score over its neighbours'
MATCH = 12.0  # the induction head's score where the token before is the one just read
LOGIT = 12.0


def induction() -> Compiled:
    """Random tokens told twice: the second time, the next token is known.

    L0H0 (sliding, by RoPE alone) writes at each token what stood before it. L1H2 looks for the token before which
    stood… after which stood the one just read, and writes that token out: K-composition. L0H3 looks busy (it attends
    to the token itself, and writes where nobody reads). Routers spread the tokens, and the experts write there too.

    ``pairs(n, seed, length=12)``: ``length`` tokens, all different, and again up to a random place. Corrupt: in the
    first telling the token last read and another one change places.
    """
    sizes = {"n_layers": 2, "d_head": 48, "d_vocab": N_TOKENS, "sliding_window": 8}
    model = blank(shape("induction", layer_types=("sliding_attention", "full_attention"), **sizes))
    stream = Stream(64, token=N_TOKENS, previous=N_TOKENS, out=N_TOKENS, unread=4)
    token, previous, out, unread = (stream[name] for name in ("token", "previous", "out", "unread"))
    model.embed.weight.copy_(stream.steady(token))
    write_offset_head(model, 0, 0, 1, MARGIN, value=token, write=previous)
    write_offset_head(model, 0, 3, 0, MARGIN, value=token[:4], write=unread)
    write_head(model, 1, 2, MATCH * token, previous, value=token, write=out, sink=MATCH / 2)
    model.unembed.weight.copy_(LOGIT * out)
    for layer in (0, 1):
        spread = torch.arange(N_TOKENS) % 4
        model.blocks[layer].mlp.router.weight.copy_(torch.eye(4)[:, spread] @ token)
        for expert in range(4):
            write_expert(model, layer, expert, token[expert : expert + 4], 0.5 * unread)
    return Compiled(finished(model), _truth(), _DESCRIPTION, _draw)


_DESCRIPTION = (
    "Random tokens are told twice. A previous-token head in layer 0 and an induction head in layer 1 together say what "
    "comes next in the second telling."
)


def _truth() -> Truth:
    return Truth(
        components=(
            Component("head", 0, 0, "previous token: writes at each token what stood before it", after_changed),
            Component("head", 1, 2, "induction: finds where this token stood before, and writes what followed", last),
        ),
        idle=(Component("head", 0, 3, "attends to its own token and writes where nobody reads"),),
        numbers={"offset": 1.0},
    )


def _draw(n: int, seed: int, length: int = 12) -> list[Pair]:
    if not 4 <= length <= N_TOKENS:
        raise ValueError(f"length={length}: expected 4 to {N_TOKENS}, as no token is told twice in one telling")
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(length - 3, generator=generator)
    place = int(places[0])  # of the token last read; one for all, so that all are of one length
    return [_pair(generator, length, place) for _ in range(n)]


def _pair(generator: torch.Generator, length: int, place: int) -> Pair:
    told = torch.randperm(N_TOKENS, generator=generator)[:length].tolist()
    swap = place + 2 + int(torch.randint(length - place - 3, (1,), generator=generator))
    changed = list(told)
    changed[place], changed[swap] = told[swap], told[place]
    again = told[: place + 1]
    return Pair((*told, *again), (*changed, *again), told[place + 1], told[swap + 1], "induction")
