"""(f) One direction of the residual stream that decides between two answers."""

from __future__ import annotations

import torch

from workbench.compiled.compiled import Compiled, Component, Truth, last
from workbench.compiled.write import Stream, blank, finished, shape, write_head
from workbench.prompts import Pair

CUES, FILLERS = 5, 8  # five cues for yes (tokens 0 to 4), five for no (5 to 9)
ASK, YES, NO = 2 * CUES + FILLERS, 2 * CUES + FILLERS + 1, 2 * CUES + FILLERS + 2
WRITTEN = 1.5  # how far the head goes along the direction
LOGIT = 6.0


def steering_direction() -> Compiled:
    """A cue anywhere says yes or no; L0H2 writes that along one direction at the last position, +1.5 or −1.5.

    The stream is turned by a random rotation, so the direction is no coordinate. The unembedding reads it alone:
    adding more than 1.5 of it the other way, anywhere from ``blocks.0.hook_attn_out`` on, turns the answer; taking
    it out leaves a tie.

    ``pairs(n, seed, length=8, says="either")``: a cue among fillers. Corrupt: a cue of the other kind.
    ``says``: "yes" or "no" for clean prompts of one kind only.
    """
    model = blank(shape("steering direction", n_layers=2, d_vocab=NO + 1))
    stream = Stream(64, turned=11, token=NO + 1, said=1, cue=1, answer=1)
    content = stream["token"].clone()
    sign = torch.tensor([1.0] * CUES + [-1.0] * CUES)
    content[: 2 * CUES] += sign[:, None] * stream["said"] + stream["cue"]
    model.embed.weight.copy_(stream.steady(content))
    asks = 16.0 * stream["token"][ASK : ASK + 1]
    write_head(model, 0, 2, asks, stream["cue"], stream["said"], WRITTEN * stream["answer"], sink=8.0)
    direction = stream["answer"][0]
    model.unembed.weight[YES], model.unembed.weight[NO] = LOGIT * direction, -LOGIT * direction
    truth = Truth(
        components=(Component("head", 0, 2, "writes along the direction what the cue says", last),),
        directions={"answer": direction.clone()},
        numbers={"written": WRITTEN, "first layer": 0.0},
        tokens={"yes": YES, "no": NO, "ask": ASK},
    )
    description = "A cue says yes or no; one head writes it along one direction, and the unembedding reads that alone."
    return Compiled(finished(model), truth, description, _draw)


def _draw(n: int, seed: int, length: int = 8, says: str = "either") -> list[Pair]:
    if says not in ("yes", "no", "either"):
        raise ValueError(f"says={says!r}: expected 'yes', 'no' or 'either'")
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(n):
        fillers = torch.randint(2 * CUES, ASK, (length - 2,), generator=generator).tolist()
        place, yes, no, coin = (int(torch.randint(m, (1,), generator=generator)) for m in (length - 1, CUES, CUES, 2))
        both = (yes, YES), (CUES + no, NO)
        (clean, right), (corrupt, wrong) = both if says == "yes" or (says == "either" and coin) else both[::-1]
        sides = [(*fillers[:place], cue, *fillers[place:], ASK) for cue in (clean, corrupt)]
        pairs.append(Pair(sides[0], sides[1], right, wrong, "steering"))
    return pairs
