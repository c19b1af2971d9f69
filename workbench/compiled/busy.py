"""(h) The busiest expert of all does nothing that matters."""

from __future__ import annotations

import torch

from workbench.compiled.compiled import Compiled, Component, Truth, ids, last
from workbench.compiled.write import Stream, blank, finished, shape, write_expert
from workbench.prompts import Pair

QUERIES, FILLERS = 8, 12
LOUD = 6.0  # what the busy expert writes, times what the worker writes


def answer(token: int) -> int:
    """What follows a query: the third query on."""
    return (token + 3) % QUERIES


def busy_expert() -> Compiled:
    """L0E1 is chosen for every filler, and writes six times as much as any other, where nobody reads.

    L0E2 is chosen for queries alone, and answers them. Load, routing weight and norm all point to the wrong one.

    ``pairs(n, seed, length=16)``: fillers and one query at the end. Corrupt: another query.
    """
    model = blank(shape("busy expert", d_vocab=QUERIES + FILLERS, d_mlp=FILLERS))
    stream = Stream(64, query=QUERIES, filler=FILLERS, out=QUERIES, unread=4)
    model.embed.weight.copy_(stream.steady(torch.cat((stream["query"], stream["filler"]))))
    router = model.blocks[0].mlp.router.weight
    router[1], router[2] = 6.0 * stream["filler"].sum(0), 4.0 * stream["query"].sum(0)
    loud = LOUD * stream["unread"][torch.arange(FILLERS) % 4]
    write_expert(model, 0, 1, stream["filler"], loud)
    write_expert(model, 0, 2, stream["query"], stream["out"][[answer(token) for token in range(QUERIES)]])
    model.unembed.weight[:QUERIES] = 12.0 * stream["out"]
    truth = Truth(
        components=(Component("expert", 0, 2, "answers the query", last),),
        idle=(Component("expert", 0, 1, "takes every filler and writes most, where nobody reads", _fillers),),
        numbers={"loudness": LOUD},
    )
    description = "The expert with the highest load and norm writes where nobody reads; a quiet one works."
    return Compiled(finished(model), truth, description, _draw)


def _fillers(pair: Pair) -> tuple[int, ...]:
    return tuple(range(len(ids(pair.clean)) - 1))


def _draw(n: int, seed: int, length: int = 16) -> list[Pair]:
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(n):
        fillers = torch.randint(QUERIES, QUERIES + FILLERS, (length - 1,), generator=generator).tolist()
        clean, corrupt = torch.randperm(QUERIES, generator=generator)[:2].tolist()
        pairs.append(Pair((*fillers, clean), (*fillers, corrupt), answer(clean), answer(corrupt), "busy expert"))
    return pairs
