"""(b) The router as a look-up of the token's class, and one function an expert: read directly, or by attention."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch

from workbench.compiled.compiled import Compiled, Component, Truth, ids, last
from workbench.compiled.write import Stream, blank, finished, shape, swish, write_expert, write_head
from workbench.model import HookedGptOss
from workbench.prompts import Pair

Change = Literal["class", "index", "both"]

CLASSES, INDICES = 4, 6
VALUES = CLASSES * INDICES  # token class·6 + index
FILLERS = 5
ASK = VALUES + FILLERS
FOR_CLASS = 0.5  # what an expert writes for every answer of its class, whatever it reads: b_down
FOR_INDEX = 1.5  # what it writes for the one answer that its input asks for
LOGIT = 8.0
D_MODEL, SCORE, GATE = 64, 16.0, 4.0


def answer(token: int) -> int:
    """The token that follows a value: of the same class c, its index moved on by c + 1."""
    kind, index = divmod(token, INDICES)
    return kind * INDICES + (index + kind + 1) % INDICES


def token_class_router() -> Compiled:
    """The token's class picks the expert, and expert c maps the token's index by a permutation of its own.

    ``pairs(n, seed, change="both", length=6)``: the answer follows the last token. Corrupt: the last token is one of
    another class, of another index, or both.
    """
    model, stream = _with_experts("token-class router")
    parts = tuple(_expert(c) for c in range(CLASSES))
    truth = Truth(components=parts, directions={"class": stream["kind"], "index": stream["index"]}, tokens={"ask": ASK})
    return Compiled(finished(model), truth, _DESCRIPTION, _draw_direct)


def routed_by_attention() -> Compiled:
    """The same experts, read where a head has brought the value to: routing and content split exactly.

    L0H1 moves class and index of the one value token to the last position. There the class acts by the route alone
    (which expert) and the index by the content alone (what it reads). ``truth.numbers`` has the exact split of the
    total effect, by ``change``, for two metrics: "both: routing share" and so on for the logit difference of right
    and wrong; "both, right logit: routing share" and so on for the right answer's logit.

    ``pairs(n, seed, change="both", length=8)``: fillers, one value among them, and a token that asks for it.
    """
    model, stream = _with_experts("routed by attention")
    moved = torch.cat((stream["kind"], stream["index"]))
    here = torch.cat((stream["kind at ask"], stream["index at ask"]))
    any_value = stream["kind"].sum(0, keepdim=True)
    write_head(model, 0, 1, SCORE * stream["ask"], any_value, value=moved, write=here, sink=SCORE / 2)
    head = Component("head", 0, 1, "brings the value's class and index to the last position", last)
    experts = tuple(_expert(c) for c in range(CLASSES))
    directions = {"class": stream["kind at ask"], "index": stream["index at ask"]}
    truth = Truth((head, *experts), directions=directions, numbers=_split(), tokens={"ask": ASK})
    return Compiled(finished(model), truth, _DESCRIPTION + " A head brings the token there.", _draw_fetched)


_DESCRIPTION = "A token's class picks the expert; each expert maps the token's index by a permutation of its own."


def _expert(c: int) -> Component:
    values = range(c * INDICES, (c + 1) * INDICES)

    def positions(pair: Pair) -> tuple[int, ...]:
        """The last, where either side asks for a value of this class."""
        sides = (ids(pair.clean), ids(pair.corrupt))
        asked = {next(token for token in reversed(side) if token < VALUES) for side in sides}
        return last(pair) if asked & set(values) else ()

    return Component("expert", 0, c, f"answers values of class {c}, and only those", positions)


def _with_experts(name: str) -> tuple[HookedGptOss, Stream]:
    model = blank(shape(name, d_vocab=ASK + 1, n_experts=CLASSES))
    sizes = {"kind": CLASSES, "index": INDICES, "kind at ask": CLASSES, "index at ask": INDICES}
    stream = Stream(D_MODEL, **sizes, out=VALUES, filler=FILLERS, ask=1)
    content = torch.zeros(ASK + 1, D_MODEL)
    token = torch.arange(VALUES)
    content[:VALUES] = stream["kind"][token // INDICES] + stream["index"][token % INDICES]
    content[VALUES:ASK], content[ASK] = stream["filler"], stream["ask"][0]
    model.embed.weight.copy_(stream.steady(content))
    mlp = model.blocks[0].mlp
    mlp.router.weight.copy_(4.0 * (stream["kind"] + stream["kind at ask"]))
    for c in range(CLASSES):
        out = stream["out"][[answer(c * INDICES + index) for index in range(INDICES)]]
        write_expert(model, 0, c, stream["index"] + stream["index at ask"], FOR_INDEX * out, gate=GATE)
        mlp.experts.b_down[c] = FOR_CLASS * out.sum(0)
    model.unembed.weight[:VALUES] = LOGIT * stream["out"]
    return model, stream


def _split() -> dict[str, float]:
    """The shares of routing, content and their interaction.

    With m(class, index) the metric: routing is m(clean class, corrupt index) − m(corrupt), content
    m(corrupt class, clean index) − m(corrupt), and interaction what the total has beyond both.
    """
    # What the head brings is a sink's share short of 1, and the norm a little over √d_model; the neurons see both.
    moved = 1 / (1 + math.exp(-SCORE / 2))
    read = moved / math.sqrt(1 + 2 * moved**2 / D_MODEL)
    a, b = FOR_CLASS, FOR_INDEX * swish(GATE * read) / swish(GATE)
    difference = {"both": (2 * a + b, b, 2 * (a + b)), "class": (1.0, 0.0, 1.0), "index": (0.0, 1.0, 1.0)}
    right_logit = {"both": (a, 0.0, a + b), "class": (1.0, 0.0, 1.0), "index": (0.0, 1.0, 1.0)}
    shares = {}
    for metric, table in (("", difference), (", right logit", right_logit)):
        for change, (routing, content, total) in table.items():
            rest = total - routing - content
            for name, part in (("routing", routing), ("content", content), ("interaction", rest)):
                shares[f"{change}{metric}: {name} share"] = part / total
    return shares


def _two_values(generator: torch.Generator, change: str) -> tuple[int, int]:
    if change not in get_args(Change):
        raise ValueError(f"change={change!r}: expected one of {get_args(Change)}")
    kinds = torch.randperm(CLASSES, generator=generator)[:2].tolist()
    indices = torch.randperm(INDICES, generator=generator)[:2].tolist()
    other = (kinds[change != "index"], indices[change != "class"])
    return kinds[0] * INDICES + indices[0], other[0] * INDICES + other[1]


def _draw_direct(n: int, seed: int, change: str = "both", length: int = 6) -> list[Pair]:
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(n):
        before = torch.randint(VALUES, (length - 1,), generator=generator).tolist()
        clean, corrupt = _two_values(generator, change)
        pairs.append(Pair((*before, clean), (*before, corrupt), answer(clean), answer(corrupt), "token class"))
    return pairs


def _draw_fetched(n: int, seed: int, change: str = "both", length: int = 8) -> list[Pair]:
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(n):
        fillers = torch.randint(VALUES, ASK, (length - 2,), generator=generator).tolist()
        place = int(torch.randint(length - 1, (1,), generator=generator))
        clean, corrupt = _two_values(generator, change)
        sides = [(*fillers[:place], value, *fillers[place:], ASK) for value in (clean, corrupt)]
        pairs.append(Pair(sides[0], sides[1], answer(clean), answer(corrupt), "token class"))
    return pairs
