"""(c) A head that only feeds its sink, beside one that does the work."""

from __future__ import annotations

import torch

from workbench.compiled.compiled import Compiled, Component, Truth, last
from workbench.compiled.write import Stream, blank, finished, shape, write_offset_head
from workbench.prompts import Pair

N_TOKENS = 20
MARGIN = 16.0
OVER = 20.0  # how far the idle head's sink stands above its best key


def sink_head() -> Compiled:
    """The answer is the token before the last. L0H0 fetches it; L0H2's attention goes to its sink.

    L0H2 would write the last token itself, and more strongly: without its sink, that is the answer.

    ``pairs(n, seed, length=8)``: random tokens. Corrupt: the one before the last is another.
    """
    model = blank(shape("sink head", d_vocab=N_TOKENS))
    stream = Stream(64, token=N_TOKENS, out=N_TOKENS)
    model.embed.weight.copy_(stream.steady(stream["token"]))
    write_offset_head(model, 0, 0, 1, MARGIN, value=stream["token"], write=stream["out"])
    score = write_offset_head(model, 0, 2, 0, MARGIN, value=stream["token"], write=2.0 * stream["out"])
    model.blocks[0].attn.sinks[2] = score + OVER
    model.unembed.weight.copy_(10.0 * stream["out"])
    truth = Truth(
        components=(Component("head", 0, 0, "fetches the token before", last),),
        idle=(Component("head", 0, 2, "feeds its sink; without the sink it would write the last token", last),),
        # The own token stands OVER below the sink, all others lower still.
        numbers={"least sink mass": 1 - 2 * float(torch.tensor(-OVER).exp())},
    )
    description = "One head fetches the token before the last; another gives all its attention to its sink."
    return Compiled(finished(model), truth, description, _draw)


def _draw(n: int, seed: int, length: int = 8) -> list[Pair]:
    if not 2 <= length < N_TOKENS:
        raise ValueError(f"length={length}: expected 2 to {N_TOKENS - 1}, as all tokens differ")
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(n):
        drawn = torch.randperm(N_TOKENS, generator=generator)[: length + 1].tolist()
        *before, clean, corrupt, final = drawn
        pairs.append(Pair((*before, clean, final), (*before, corrupt, final), clean, corrupt, "token before"))
    return pairs
