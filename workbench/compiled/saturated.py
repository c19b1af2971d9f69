"""(g) A circuit in saturation: patching has a large effect where the gradient says there is none."""

from __future__ import annotations

import torch

from workbench.compiled.compiled import Compiled, Component, Truth, last
from workbench.compiled.write import Stream, blank, finished, shape, write_expert, write_head
from workbench.prompts import Pair

CUES, FILLERS = 5, 8  # tokens 0 to 4 switch off, 5 to 9 switch on
ASK, YES, NO = 2 * CUES + FILLERS, 2 * CUES + FILLERS + 1, 2 * CUES + FILLERS + 2
LEVEL = 0.5  # what the head writes for on; −LEVEL for off
GATE = 28.0  # so the gate is ±14: at +14 swiglu clamps it to 7, at −14 σ is 0. Flat on both sides
ANSWER = 1.0
DECOYS = {0: 0.02, 2: 0.03, 3: 0.05}  # by head: what it writes of the answer directly
LOGIT = 8.0


def saturated() -> Compiled:
    """A cue is off or on; L0H1 moves that to the last position, where one neuron of L0E0 makes the answer of it.

    The neuron's gate is +14 or −14: clamped by swiglu at 7, or cut off by its σ. So the gradient of the answer with
    respect to what L0H1 writes is (but for the last RMSNorm) 0 at both ends, though exchanging it turns the answer.
    Integrated gradients find it half-way. The other three heads write 2, 3 and 5 % of the answer directly: a gradient
    ranks all of them before L0H1.

    ``pairs(n, seed, length=8)``: a cue among fillers; clean is off ("yes"), corrupt is on ("no").
    """
    model = blank(shape("saturated", d_vocab=NO + 1))
    stream = Stream(64, token=NO + 1, on=1, cue=1, level=1, answer=1)
    content = stream["token"].clone()
    content[: 2 * CUES] += torch.tensor([-1.0] * CUES + [1.0] * CUES)[:, None] * stream["on"] + stream["cue"]
    model.embed.weight.copy_(stream.steady(content))
    asks = 16.0 * stream["token"][ASK : ASK + 1]
    write_head(model, 0, 1, asks, stream["cue"], stream["on"], LEVEL * stream["level"], sink=8.0)
    for head, share in DECOYS.items():
        write_head(model, 0, head, asks, stream["cue"], stream["on"], -share * stream["answer"], sink=8.0)
    write_expert(model, 0, 0, stream["level"], -2 * ANSWER * stream["answer"], gate=GATE)
    mlp = model.blocks[0].mlp
    mlp.experts.b_down[0] = ANSWER * stream["answer"][0]
    mlp.router.bias[0] = 4.0
    direction = stream["answer"][0]
    model.unembed.weight[YES], model.unembed.weight[NO] = LOGIT * direction, -LOGIT * direction
    whole = ANSWER + sum(DECOYS.values())
    truth = Truth(
        components=(
            Component("head", 0, 1, "moves the cue's level; the gradient here is 0", last),
            Component("expert", 0, 0, "one neuron, flat on both sides, makes the answer of it", last),
        ),
        idle=tuple(
            Component("head", 0, head, f"writes {share:.0%} of the answer directly: a gradient ranks it first", last)
            for head, share in DECOYS.items()
        ),
        directions={"level": stream["level"][0].clone(), "answer": direction.clone()},
        numbers={"gate": GATE * LEVEL, **{f"L0H{head} share": share / whole for head, share in DECOYS.items()}},
        tokens={"yes": YES, "no": NO, "ask": ASK},
    )
    description = "A neuron that is clamped on one side and cut off on the other: flat at both ends of a large effect."
    return Compiled(finished(model), truth, description, _draw)


def _draw(n: int, seed: int, length: int = 8) -> list[Pair]:
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(n):
        fillers = torch.randint(2 * CUES, ASK, (length - 2,), generator=generator).tolist()
        place, off, on = (int(torch.randint(m, (1,), generator=generator)) for m in (length - 1, CUES, CUES))
        sides = [(*fillers[:place], cue, *fillers[place:], ASK) for cue in (off, CUES + on)]
        pairs.append(Pair(sides[0], sides[1], YES, NO, "saturated"))
    return pairs
