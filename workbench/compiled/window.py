"""(d) A fact beyond the sliding window, which only a full layer's head can fetch."""

from __future__ import annotations

import torch

from workbench.compiled.compiled import Compiled, Component, Truth, last
from workbench.compiled.write import Stream, blank, finished, shape, write_head
from workbench.prompts import Pair

VALUES, FILLERS, WINDOW = 10, 8, 8
ASK = VALUES + FILLERS


def retrieval_beyond_window() -> Compiled:
    """A value, fillers, and a token that asks for the value: its head in the sliding layer cannot see that far.

    L0H1 (sliding, 8 keys) and L1H1 (full) have the same weights. From 8 tokens on, only L1H1 reaches the value; nearer
    both do, and either will do.

    ``pairs(n, seed, distance=20)``: ``distance`` tokens from the value to the question. Corrupt: another value.
    """
    layers = ("sliding_attention", "full_attention")
    model = blank(
        shape("retrieval beyond the window", n_layers=2, layer_types=layers, sliding_window=WINDOW, d_vocab=ASK + 1)
    )
    stream = Stream(64, value=VALUES, filler=FILLERS, ask=1, out=VALUES)
    model.embed.weight.copy_(stream.steady(torch.cat((stream["value"], stream["filler"], stream["ask"]))))
    any_value = stream["value"].sum(0, keepdim=True)
    for layer in (0, 1):
        write_head(model, layer, 1, 16.0 * stream["ask"], any_value, stream["value"], stream["out"], sink=8.0)
    model.unembed.weight[:VALUES] = 12.0 * stream["out"]
    truth = Truth(
        components=(Component("head", 1, 1, "fetches the value from any distance", last),),
        idle=(Component("head", 0, 1, "the same weights in the sliding layer: sees the value only in its window"),),
        numbers={"window": float(WINDOW)},
        tokens={"ask": ASK},
    )
    description = "A value is asked for from afar; of two heads with the same weights, only the full layer's sees it."
    return Compiled(finished(model), truth, description, _draw)


def _draw(n: int, seed: int, distance: int = 20) -> list[Pair]:
    if distance < 1:
        raise ValueError(f"distance={distance}: the value stands at least 1 token before the question")
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(n):
        fillers = torch.randint(VALUES, ASK, (3 + distance - 1,), generator=generator).tolist()
        clean, corrupt = torch.randperm(VALUES, generator=generator)[:2].tolist()
        sides = [(*fillers[:3], value, *fillers[3:], ASK) for value in (clean, corrupt)]
        pairs.append(Pair(sides[0], sides[1], clean, corrupt, "retrieval"))
    return pairs
