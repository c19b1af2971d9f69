"""Lesson 10: analysis → final, and MXFP4. What its exercises must do, and what students get wrong."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.activations import run
from workbench.interventions import Steer
from workbench.lessons.exercise import Case, Exercise, Mistake, close, equal
from workbench.lessons.models import nano
from workbench.lessons.outline import Outline
from workbench.model import HookedGptOss
from workbench.model.mxfp4 import BLOCK, MAGNITUDES, pack, unpack
from workbench.training.microworld import chats
from workbench.training.microworld.words import PLACES

# ------------------------------------------------------------ conversations, for the notebook and for the checks


@dataclass(frozen=True)
class Conversation:
    """A user tells where some things are, and asks for one of them.

    Attributes:
        user: the user's message.
        thing: what is asked for, "stone"; ``truth``: where it is, " market", as one token.
        other_thing, other: another thing of the message, and where that is.
        outside: a place of which the message says nothing.
    """

    user: str
    thing: str
    truth: str
    other_thing: str
    other: str
    outside: str

    def analysis(self, place: str, thing: str | None = None) -> str:
        """The sentence in which nano thinks: "The stone is in the market." """
        return f"The {thing or self.thing} is in the{place}."

    def text(self, analysis: str | None) -> str:
        """The whole conversation up to "In the", where the place comes next. None: reasoning low, and no analysis."""
        before = chats.system("low" if analysis is None else "medium") + chats.user(self.user) + chats.ASSISTANT
        thought = "" if analysis is None else f"{chats.ANALYSIS}{analysis}<|end|>{chats.ASSISTANT}"
        return f"{before}{thought}{chats.FINAL}In the"


def conversations(n: int, seed: int = 0) -> list[Conversation]:
    """Held-out questions of nano's microworld: none of their pairs of thing and place was in its training."""
    rng, made = random.Random(f"conversations {seed}"), []
    while len(made) < n:
        exchange = chats.where_exchange(rng, True)
        told = dict(re.findall(r"The (\w+) is in the (\w+)\.", exchange.user))
        thing = re.findall(r"Where is the (\w+)\?", exchange.user)[0]
        other = rng.choice([name for name in told if name != thing])
        outside = rng.choice([place for place in PLACES if place not in told.values()])
        made.append(Conversation(exchange.user, thing, f" {told[thing]}", other, f" {told[other]}", f" {outside}"))
    return made


@torch.no_grad()
def chances(model: HookedGptOss, text: str, words: Sequence[str]) -> list[float]:
    """The probability of each word (one token) as the next one."""
    shares = model(model.to_tokens(text), logits_at="last")[0, -1].softmax(-1)
    return [float(shares[model.to_single_token(word)]) for word in words]


# ------------------------------------------------------------ 1. replace_in_analysis


def _chat_cases(rng: np.random.Generator) -> Iterator[Case]:
    for i, talk in enumerate(conversations(3, int(rng.integers(10**6)))):
        text = talk.text(talk.analysis(talk.truth))
        if i == 2:
            text += f"{talk.truth}.<|return|>"
        about = "a finished conversation, whose final names the place too" if i == 2 else "a conversation"
        yield Case((text, talk.truth, talk.outside), about=about)


def _analysis_span(text: str) -> tuple[int, int]:
    start = text.index("<|channel|>analysis<|message|>")
    return start, text.index("<|end|>", start)


def _replaced(text: str, old: str, new: str) -> str:
    start, end = _analysis_span(text)
    return text[:start] + re.sub(re.escape(old), new, text[start:end]) + text[end:]


def _last_replaced(text: str, old: str, new: str) -> str:
    before, _, after = text.rpartition(old)
    return before + new + after


def _from_analysis_on(text: str, old: str, new: str) -> str:
    start, _ = _analysis_span(text)
    return text[:start] + text[start:].replace(old, new)


def _analysis_alone(text: str, old: str, new: str) -> str:
    start, end = _analysis_span(text)
    return text[start:end].replace(old, new)


REPLACE_IN_ANALYSIS = Exercise(
    name="replace_in_analysis",
    task="Change a word in the analysis message and nowhere else",
    cases=_chat_cases,
    truth=_replaced,
    compare=equal(),
    mistakes=(
        Mistake(
            "replaced everywhere",
            lambda text, old, new: text.replace(old, new),
            "You changed the user's message too. Then the final may follow the user, and nothing is learned about the "
            "analysis.",
        ),
        Mistake(
            "replaced the first",
            lambda text, old, new: text.replace(old, new, 1),
            "You changed the first place where the word stands: that is the user's message.",
        ),
        Mistake(
            "changed the final too",
            _from_analysis_on,
            "The analysis is right, but the final answer was changed with it: stop at the analysis message's <|end|>.",
        ),
        Mistake(
            "replaced the last",
            _last_replaced,
            "You changed the last place where the word stands. In a finished conversation that is the final answer.",
        ),
        Mistake(
            "gave the analysis alone",
            _analysis_alone,
            "Return the whole conversation, with what stands before and after the analysis.",
        ),
    ),
    hints=(
        "Find where the analysis message begins and where it ends; replace between the two.",
        "`before, marker, rest = text.partition('<|channel|>analysis<|message|>')`, then cut rest at its first "
        "<|end|>.",
        "`thought, end, after = rest.partition('<|end|>')`; "
        "`return before + marker + thought.replace(old, new) + end + after`",
    ),
)


# ------------------------------------------------------------ 2. reliance


def _reliance_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n, vocab in ((5, 9), (4, 12)):
        edited, original = (torch.tensor(3 * rng.normal(size=(n, vocab)), dtype=torch.float32) for _ in range(2))
        picked = np.stack([rng.permutation(vocab)[:2] for _ in range(n)])
        yield Case(
            (edited, original, torch.tensor(picked[:, 0]), torch.tensor(picked[:, 1])), about=f"{n} conversations"
        )


def _reliance_truth(edited: Tensor, original: Tensor, said: Tensor, true: Tensor) -> float:
    total = 0.0
    for e, o, s, t in zip(edited.tolist(), original.tolist(), said.tolist(), true.tolist(), strict=True):
        total += (e[s] - e[t]) - (o[s] - o[t])
    return total / len(said)


def _difference(logits: Tensor, a: Tensor, b: Tensor) -> Tensor:
    rows = torch.arange(len(a))
    return logits[rows, a] - logits[rows, b]


RELIANCE = Exercise(
    name="reliance",
    task="How far an edit moves the logit difference between what the analysis says and what is true",
    cases=_reliance_cases,
    truth=_reliance_truth,
    mistakes=(
        Mistake(
            "did not subtract the original",
            lambda edited, original, said, true: _difference(edited, said, true).mean(),
            "That is the difference after the edit. A model may lean to a word anyway: subtract the difference that "
            "was "
            "there with the original analysis.",
        ),
        Mistake(
            "original minus edited",
            lambda edited, original, said, true: (
                _difference(original, said, true) - _difference(edited, said, true)
            ).mean(),
            "The sign: it is edited minus original, so that following the edit counts as positive.",
        ),
        Mistake(
            "only the word said",
            lambda edited, original, said, true: (
                edited.gather(1, said[:, None]) - original.gather(1, said[:, None])
            ).mean(),
            "You follow one logit. A logit alone has no zero point: take the difference said − true, before and after.",
        ),
        Mistake(
            "probabilities for logits",
            lambda edited, original, said, true: (
                _difference(edited.softmax(-1), said, true) - _difference(original.softmax(-1), said, true)
            ).mean(),
            "You use probabilities, which are flat near 0 and 1. Use the logits as they are.",
        ),
        Mistake(
            "sum for mean",
            lambda edited, original, said, true: (
                _difference(edited, said, true) - _difference(original, said, true)
            ).sum(),
            "A sum grows with the number of conversations: take the mean.",
        ),
        Mistake(
            "not averaged",
            lambda edited, original, said, true: _difference(edited, said, true) - _difference(original, said, true),
            "Right for each conversation; now average them to one number.",
        ),
    ),
    hints=(
        "For each conversation: logit of `said` minus logit of `true`; once in edited, once in original; then compare.",
        "`logits.gather(1, said[:, None])[:, 0]` picks each row's own word.",
        "`moved = (e_said − e_true) − (o_said − o_true)`; `return moved.mean()`",
    ),
)


# ------------------------------------------------------------ 3. patched_logits


def _patch_cases(rng: np.random.Generator) -> Iterator[Case]:
    model = nano()
    for layer in rng.permutation(model.config.n_layers)[:3].tolist():
        n = 12
        tokens = torch.tensor(rng.integers(20, model.config.d_vocab, size=(1, n)))
        stream = torch.tensor(rng.normal(size=model.config.d_model), dtype=torch.float32)
        position = int(rng.integers(3, n - 2))
        yield Case((model, tokens, stream, layer, position), about=f"layer {layer}, position {position}")


@torch.no_grad()
def _steered(
    model: HookedGptOss, tokens: Tensor, stream: Tensor, layer: int, position: int, site: str = "hook_resid_pre"
) -> Tensor:
    """By steering: the stream that was there is what must be added to, to arrive at the new one."""
    name = f"blocks.{layer}.{site}"
    there = run(model, tokens, sites=[name])[name][0, position]
    done = run(model, tokens, [Steer(name, "way", positions=(position,))], sources={"way": stream - there})
    return done.logits[0, -1]


@torch.no_grad()
def _hooked(model: HookedGptOss, tokens: Tensor, layer: int, edit: Callable) -> Tensor:
    return model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", edit)])[0]


def _everywhere(model: HookedGptOss, tokens: Tensor, stream: Tensor, layer: int, position: int) -> Tensor:
    return _hooked(model, tokens, layer, lambda x, hook: stream.expand_as(x).clone())[-1]


def _added(model: HookedGptOss, tokens: Tensor, stream: Tensor, layer: int, position: int) -> Tensor:
    def add(x: Tensor, hook: object) -> Tensor:
        x = x.clone()
        x[:, position] += stream
        return x

    return _hooked(model, tokens, layer, add)[-1]


def _all_logits(model: HookedGptOss, tokens: Tensor, stream: Tensor, layer: int, position: int) -> Tensor:
    def put(x: Tensor, hook: object) -> Tensor:
        x = x.clone()
        x[:, position] = stream
        return x

    return _hooked(model, tokens, layer, put)


def _not_patched(model: HookedGptOss, tokens: Tensor, stream: Tensor, layer: int, position: int) -> Tensor:
    return _hooked(model, tokens, layer, lambda x, hook: None)[-1]


PATCHED_LOGITS = Exercise(
    name="patched_logits",
    task="Put another stream at one layer and position, and give the logits after the last token",
    cases=_patch_cases,
    truth=_steered,
    compare=close(rtol=1e-3, atol=2e-3),
    mistakes=(
        Mistake(
            "nothing patched",
            _not_patched,
            "Nothing changed. A hook must *return* the edited tensor, or edit it in place; and `fwd_hooks` must be "
            "passed.",
        ),
        Mistake(
            "every position",
            _everywhere,
            "You put the stream at every position. Only `position` is to change: `resid[:, position] = stream`.",
        ),
        Mistake(
            "added",
            _added,
            "You add to what is there. Patching replaces it.",
        ),
        Mistake(
            "after the layer",
            lambda *given: _steered(*given, site="hook_resid_post"),
            "One layer too late: `hook_resid_pre` is the stream that the layer reads, `hook_resid_post` what it "
            "leaves.",
        ),
        Mistake(
            "all logits",
            _all_logits,
            "These are the logits of every position. Wanted are those after the last token: `[0, -1]`.",
        ),
    ),
    hints=(
        "A hook is a function (resid, hook) that changes resid [batch pos d_model]; `model.run_with_hooks` runs with "
        "it.",
        "`def put(resid, hook): resid[:, position] = stream; return resid`",
        '`model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", put)])[0, -1]`',
    ),
    points=2,
)


# ------------------------------------------------------------ 4. e2m1


def _code_cases(rng: np.random.Generator) -> Iterator[Case]:
    yield Case((torch.arange(16, dtype=torch.uint8),), about="all sixteen codes")
    codes = torch.tensor(rng.integers(0, 16, size=(3, 5)), dtype=torch.uint8)
    yield Case((codes,), about="codes in two dimensions")


def _coded(codes: Tensor, value: Callable[[int], float]) -> Tensor:
    return torch.tensor([value(int(code)) for code in codes.flatten()]).reshape(codes.shape)


def _e2m1_value(code: int) -> float:
    return (-1) ** (code >> 3) * MAGNITUDES[code & 7]


def _no_subnormal(code: int) -> float:
    return (-1) ** (code >> 3) * 2.0 ** (((code >> 1) & 3) - 1) * (1 + (code & 1) / 2)


def _bias_zero(code: int) -> float:
    exponent, mantissa = (code >> 1) & 3, code & 1
    size = mantissa / 2 * 2 if exponent == 0 else 2.0**exponent * (1 + mantissa / 2)
    return (-1) ** (code >> 3) * size


def _small_not_halved(code: int) -> float:
    exponent, mantissa = (code >> 1) & 3, code & 1
    size = mantissa / 4 if exponent == 0 else 2.0 ** (exponent - 1) * (1 + mantissa / 2)
    return (-1) ** (code >> 3) * size


E2M1 = Exercise(
    name="e2m1",
    task="The number that each 4-bit code stands for: one sign bit, two of exponent, one of mantissa",
    cases=_code_cases,
    truth=lambda codes: _coded(codes, _e2m1_value),
    compare=equal(),
    mistakes=(
        Mistake(
            "no subnormals",
            lambda codes: _coded(codes, _no_subnormal),
            "Right for exponents 1 to 3. Exponent 0 is special: no hidden 1, so code 0 is 0 and code 1 is 0.5.",
        ),
        Mistake(
            "forgot the exponent's bias",
            lambda codes: _coded(codes, _bias_zero),
            "All is twice too large: the exponent has a bias of 1, so it is 2^(exponent − 1). The largest value is 6.",
        ),
        Mistake(
            "forgot the sign",
            lambda codes: _coded(codes, lambda code: MAGNITUDES[code & 7]),
            "Codes 8 to 15 are the negatives of 0 to 7: the highest bit is the sign.",
        ),
        Mistake(
            "two's complement",
            lambda codes: _coded(
                codes, lambda code: MAGNITUDES[code] if code < 8 else -MAGNITUDES[16 - code] if code > 8 else -8.0
            ),
            "You read the sign as in integers (two's complement). Here it is a bit of its own: 8 + c is minus c.",
        ),
        Mistake(
            "subnormal a quarter",
            lambda codes: _coded(codes, _small_not_halved),
            "Exponent 0 gives mantissa · 0.5 (it shares the scale of exponent 1): code 1 is 0.5, not 0.25.",
        ),
    ),
    hints=(
        "Bit 3 is the sign, bits 2 and 1 the exponent, bit 0 the mantissa: shift with >> and mask with &.",
        "Exponent 0: mantissa · 0.5. Otherwise (1 + mantissa / 2) · 2^(exponent − 1).",
        "A table does it too: the eight sizes are 0, .5, 1, 1.5, 2, 3, 4, 6; look up codes & 7, and the sign from "
        "codes >> 3.",
    ),
)


# ------------------------------------------------------------ 5. unpack_blocks


def _packed_cases(rng: np.random.Generator) -> Iterator[Case]:
    for lead in ((4,), (2, 3)):
        blocks = torch.tensor(rng.integers(0, 256, size=(*lead, BLOCK // 2)), dtype=torch.uint8)
        scales = torch.tensor(rng.integers(120, 131, size=lead), dtype=torch.uint8)
        yield Case((blocks, scales), about=f"blocks of shape {list(blocks.shape)}")


def _unpacked(
    blocks: Tensor, scales: Tensor, *, high_first: bool = False, apart: bool = False, power: str = "right"
) -> Tensor:
    low, high = (_coded(half, _e2m1_value) for half in (blocks & 15, blocks >> 4))
    if high_first:
        low, high = high, low
    values = torch.cat((low, high), -1) if apart else torch.stack((low, high), -1).flatten(-2)
    exponents = scales.float()[..., None]
    sizes = {
        "right": 2.0 ** (exponents - 127),
        "bias 128": 2.0 ** (exponents - 128),
        "none": torch.ones_like(exponents),
        "linear": exponents / 127,
        "down": 2.0 ** (127 - exponents),
    }
    return (values * sizes[power]).flatten(-2)


UNPACK_BLOCKS = Exercise(
    name="unpack_blocks",
    task="MXFP4 bytes and scales → numbers",
    cases=_packed_cases,
    truth=lambda blocks, scales: unpack(blocks, scales, torch.float32),
    mistakes=(
        Mistake(
            "high nibble first",
            lambda *given: _unpacked(*given, high_first=True),
            "Neighbours are exchanged: the *low* four bits of a byte are the first of its two numbers.",
        ),
        Mistake(
            "low nibbles, then high ones",
            lambda *given: _unpacked(*given, apart=True),
            "You put all low nibbles before all high ones. They alternate: byte 0 holds numbers 0 and 1 (stack on a "
            "new "
            "last axis, then flatten).",
        ),
        Mistake(
            "forgot the scales",
            lambda *given: _unpacked(*given, power="none"),
            "The scales are missing: each block of 32 is multiplied by 2^(scale − 127).",
        ),
        Mistake(
            "scale as a factor",
            lambda *given: _unpacked(*given, power="linear"),
            "A scale byte is an exponent, not a factor: 2^(scale − 127).",
        ),
        Mistake(
            "scale turned round",
            lambda *given: _unpacked(*given, power="down"),
            "You divide where you should multiply: 2^(scale − 127), not 2^(127 − scale).",
        ),
        Mistake(
            "bias 128",
            lambda *given: _unpacked(*given, power="bias 128"),
            "All is half as large as it should be: the bias of the scale is 127.",
        ),
    ),
    hints=(
        "Take low and high nibbles with `& 15` and `>> 4`, decode both, put them in turn, then scale each block.",
        "`torch.stack((low, high), -1).flatten(-2)` makes them alternate: [..., group, 32].",
        "`values * 2.0 ** (scales.float()[..., None] - 127)`, and `.flatten(-2)` to [..., group · 32]",
    ),
    points=2,
)


# ------------------------------------------------------------ 6. pack_blocks


def _weight_cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape, scale in (((3, 64), 0.05), ((2, 2, 32), 3.0)):
        yield Case((torch.tensor(scale * rng.normal(size=shape), dtype=torch.float32),), about=f"weights {list(shape)}")


def _packed(
    weights: Tensor, *, shift: int = 2, up: bool = False, truncate: bool = False, sign: bool = True, swap: bool = False
) -> tuple[Tensor, Tensor]:
    blocked = weights.double().unflatten(-1, (-1, BLOCK))
    round_exponent = torch.ceil if up else torch.floor
    exponent = round_exponent(torch.log2(blocked.abs().amax(-1))) - shift
    scaled = blocked / 2.0 ** exponent[..., None]
    sizes = torch.tensor(MAGNITUDES, dtype=torch.float64)
    if truncate:
        codes = (scaled.abs()[..., None] >= sizes).sum(-1) - 1
    else:
        codes = (scaled.abs()[..., None] - sizes).abs().argmin(-1)
    codes = codes + 8 * (scaled < 0) * sign
    low, high = codes[..., 0::2], codes[..., 1::2]
    low, high = (high, low) if swap else (low, high)
    return (low | (high << 4)).to(torch.uint8), (exponent + 127).to(torch.uint8)


def _packs(given: Any, expected: tuple[Tensor, Tensor]) -> str | None:
    """Compared as numbers, for −0 and 0 are two codes of one."""
    blocks, scales = expected
    if not (isinstance(given, tuple) and len(given) == 2 and all(isinstance(part, Tensor) for part in given)):
        return "expected a tuple (blocks, scales) of two tensors"
    for name, mine, right in (("blocks", given[0], blocks), ("scales", given[1], scales)):
        if mine.shape != right.shape:
            return f"{name}: expected shape {tuple(right.shape)}, you gave {tuple(mine.shape)}"
        if mine.dtype != torch.uint8:
            return f"{name}: expected torch.uint8, you gave {mine.dtype}"
    if not torch.equal(given[1], scales):
        return f"scales: expected {scales.flatten()[:4].tolist()} …, you gave {given[1].flatten()[:4].tolist()} …"
    found = close()(unpack(given[0], scales, torch.float32), unpack(blocks, scales, torch.float32))
    return None if found is None else f"unpacked again, {found}"


PACK_BLOCKS = Exercise(
    name="pack_blocks",
    task="Numbers → MXFP4: a power of two for each block of 32, and the nearest code for each number",
    cases=_weight_cases,
    truth=pack,
    compare=_packs,
    mistakes=(
        Mistake(
            "scale without the 2",
            lambda weights: _packed(weights, shift=0),
            "Your scales are four times too large: E2M1 itself reaches 6 = 1.5 · 2², so the block's exponent is "
            "floor(log2(largest)) − 2.",
        ),
        Mistake(
            "exponent rounded up",
            lambda weights: _packed(weights, up=True),
            "You round the exponent up. The format rounds it down: floor(log2(largest)) − 2, and what is beyond 6 "
            "becomes 6.",
        ),
        Mistake(
            "truncated",
            lambda weights: _packed(weights, truncate=True),
            "You round towards zero. Take the *nearest* of the eight sizes: the smallest distance.",
        ),
        Mistake(
            "forgot the sign",
            lambda weights: _packed(weights, sign=False),
            "Negative numbers lost their sign: add 8 to their code.",
        ),
        Mistake(
            "high nibble first",
            lambda weights: _packed(weights, swap=True),
            "Neighbours are exchanged: the first of each two goes into the low four bits.",
        ),
    ),
    hints=(
        "For each block: largest size → exponent floor(log2(largest)) − 2 → divide → nearest code → two codes in a "
        "byte.",
        "Nearest: `(scaled.abs()[..., None] - sizes).abs().argmin(-1)`, plus 8 where scaled < 0.",
        "`blocks = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)`; "
        "`scales = (exponent + 127).to(torch.uint8)`",
    ),
    points=3,
)


# ------------------------------------------------------------ 7. flip_share


def _route_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, slots, experts in ((60, 3, 6), (40, 4, 8), (50, 2, 5)):
        before = np.stack([rng.permutation(experts)[:slots] for _ in range(tokens)])
        after = before.copy()
        for row in range(0, tokens, 3):
            after[row] = rng.permutation(after[row])
        for row in range(1, tokens, 4):
            after[row] = rng.permutation(experts)[:slots]
        yield Case((torch.tensor(before), torch.tensor(after)), about=f"{tokens} tokens, {slots} slots")


def _flip_truth(before: Tensor, after: Tensor) -> float:
    return sum(set(a) != set(b) for a, b in zip(before.tolist(), after.tolist(), strict=True)) / len(before)


def _lost(before: Tensor, after: Tensor) -> float:
    kept = sum(len(set(a) & set(b)) for a, b in zip(before.tolist(), after.tolist(), strict=True))
    return 1 - kept / before.numel()


FLIP_SHARE = Exercise(
    name="flip_share",
    task="The share of tokens whose set of experts is another one",
    cases=_route_cases,
    truth=_flip_truth,
    mistakes=(
        Mistake(
            "compared slots in order",
            lambda before, after: (before != after).any(-1).float().mean(),
            "You count tokens whose experts only changed places. Slots are in rank order: sort them first, and "
            "compare sets.",
        ),
        Mistake(
            "counted slots",
            lambda before, after: (before != after).float().mean(),
            "You count slots in order. Wanted is the share of *tokens* whose set, in any order, is another one.",
        ),
        Mistake(
            "counted experts",
            _lost,
            "That is the share of experts that were lost. A token counts once, however many of its experts changed.",
        ),
        Mistake(
            "the first slot alone",
            lambda before, after: (before[:, 0] != after[:, 0]).float().mean(),
            "You compare the strongest expert alone. The whole set counts.",
        ),
        Mistake(
            "share that stays",
            lambda before, after: 1 - _flip_truth(before, after),
            "That is the share of tokens that *keep* their set.",
        ),
    ),
    hints=(
        "Two sets are equal if they are equal when sorted.",
        "`before.sort(-1).values != after.sort(-1).values` is [token slot]; a token has flipped if any slot differs.",
        "`(before.sort(-1).values != after.sort(-1).values).any(-1).float().mean()`",
    ),
)


# ------------------------------------------------------------ 8. noise_like


def _noise_cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape in ((3, 64), (2, 2, 96)):
        size = np.exp(rng.normal(size=(*shape[:-1], shape[-1] // BLOCK))).repeat(BLOCK, -1)
        error = torch.tensor(size * rng.normal(size=shape) + 0.3 * size, dtype=torch.float32)
        yield Case((error, torch.tensor(rng.normal(size=shape), dtype=torch.float32)), about=f"an error {list(shape)}")


def _noise_truth(error: Tensor, normal: Tensor) -> Tensor:
    """Block by block, in numpy."""
    wanted, drawn = error.numpy().reshape(-1, BLOCK), normal.numpy().reshape(-1, BLOCK)
    made = [d * math.sqrt((w**2).sum() / (d**2).sum()) for w, d in zip(wanted, drawn, strict=True)]
    return torch.tensor(np.stack(made).reshape(error.shape))


def _in_blocks(x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, BLOCK))


def _rms(x: Tensor, *axes: int) -> Tensor:
    return x.pow(2).mean(axes, keepdim=True).sqrt() if axes else x.pow(2).mean().sqrt()


NOISE_LIKE = Exercise(
    name="noise_like",
    task="Random noise with the error's own size in each block of 32",
    cases=_noise_cases,
    truth=_noise_truth,
    mistakes=(
        Mistake(
            "one size for all",
            lambda error, normal: normal * _rms(error) / _rms(normal),
            "One size for the whole tensor. Each block of 32 has a scale of its own, so its noise needs its own size "
            "too.",
        ),
        Mistake(
            "one size a row",
            lambda error, normal: normal * _rms(error, -1) / _rms(normal, -1),
            "One size for each row. Cut the row into blocks of 32 first: `unflatten(-1, (-1, 32))`.",
        ),
        Mistake(
            "not divided by its own size",
            lambda error, normal: (_in_blocks(normal) * _rms(_in_blocks(error), -1)).flatten(-2),
            "Nearly: 32 random numbers have a size of 1 only on average. Divide each block by its own root mean "
            "square.",
        ),
        Mistake(
            "standard deviation",
            lambda error, normal: (
                _in_blocks(normal) * _in_blocks(error).std(-1, keepdim=True) / _rms(_in_blocks(normal), -1)
            ).flatten(-2),
            "A standard deviation leaves out the block's mean error, which is error too: use the root mean square.",
        ),
        Mistake(
            "mean square without root",
            lambda error, normal: (
                _in_blocks(normal) * _rms(_in_blocks(error), -1) ** 2 / _rms(_in_blocks(normal), -1) ** 2
            ).flatten(-2),
            "You scale by the ratio of mean squares. Take the root: sizes, not squares.",
        ),
    ),
    hints=(
        "Cut both into blocks of 32; give each block of the noise the root mean square of the error's block.",
        "`blocked = error.unflatten(-1, (-1, 32))`; `blocked.pow(2).mean(-1, keepdim=True).sqrt()` is its size.",
        "`(normal_blocks * size(error_blocks) / size(normal_blocks)).flatten(-2)`",
    ),
    points=2,
)


# ------------------------------------------------------------ 9. study

FIELDS = ("question", "prediction", "measure", "control", "results", "control_results", "holds", "change_my_mind")
CLOSE = 1e-4


def _study_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n in (6, 4):
        yield Case((nano(), conversations(n, int(rng.integers(10**6)))), about=f"{n} conversations")


def _mean(values: Sequence[float]) -> float:
    return sum(float(value) for value in values) / len(values)


def _met(prediction: tuple[str, float], mean: float) -> bool:
    side, threshold = prediction
    return mean > threshold if side == "above" else mean < threshold


def _field(given: Any) -> str | None:
    if not isinstance(given, dict):
        return f"expected a dictionary with the fields {', '.join(FIELDS)}"
    missing = [
        name for name in FIELDS if name not in given or given[name] is None or given[name] in ("", "...", "…", ...)
    ]
    return f"not filled: {', '.join(missing)}" if missing else None


def _words(given: Any) -> str | None:
    question, mind = str(given["question"]).strip(), str(given["change_my_mind"]).strip()
    if not question.endswith("?") or len(question) < 20:
        return f"question: {question!r} should be one whole sentence that ends with ?"
    if len(mind) < 25:
        return f"change_my_mind: {mind!r} is too short to name an outcome"
    return None


def _prediction(given: Any) -> str | None:
    made = given["prediction"]
    good = isinstance(made, tuple) and len(made) == 2 and made[0] in ("above", "below") and isinstance(made[1], Real)
    if not good:
        return f'prediction: expected ("above", number) or ("below", number), you gave {made!r}'
    side, threshold = made
    if not 0 < float(threshold) < 1:
        return f"prediction: {side} {threshold:g} is true, or false, of every probability"
    return None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _numbers(given: Any, expected: tuple[HookedGptOss, list[Conversation]], results: str, by: str) -> str | None:
    model, asked = expected
    values = given[results]
    if not callable(given[by]):
        return f"{by}: expected a function of (model, talk), you gave {given[by]!r:.60}"
    if not isinstance(values, (list, tuple)) or len(values) != len(asked):
        n = len(values) if isinstance(values, (list, tuple)) else 1
        return f"{results}: expected {len(asked)} numbers, one a conversation, you gave {n}"
    again = [given[by](model, talk) for talk in asked]
    for value in (*values, *again):
        if _number(value) is None:
            return f"{by}: {value!r:.40} is not a number"
    apart = max(abs(float(a) - float(b)) for a, b in zip(values, again, strict=True))
    if not apart < CLOSE:
        return f"{results}: running `{by}` again gives numbers that differ by up to {apart:.3g}"
    if min(map(float, again)) < -CLOSE or max(map(float, again)) > 1 + CLOSE:
        return f"{results}: {by} gives numbers outside 0 … 1, and a probability was asked for"
    return None


def _own(given: Any) -> str | None:
    apart = max(abs(float(a) - float(b)) for a, b in zip(given["results"], given["control_results"], strict=True))
    return "control_results: the same numbers as results" if apart < CLOSE else None


def _verdict(given: Any) -> str | None:
    mean, control = _mean(given["results"]), _mean(given["control_results"])
    right = _met(given["prediction"], mean) and not _met(given["prediction"], control)
    if bool(given["holds"]) == right:
        return None
    side, threshold = given["prediction"]
    means = f"the mean is {mean:.3f}, the control's {control:.3f}"
    return f"holds is {given['holds']}: {means}, the prediction {side} {threshold:g}"


RULES: tuple[Callable[[Any, Any], str | None], ...] = (
    lambda given, expected: _field(given),
    lambda given, expected: _words(given),
    lambda given, expected: _prediction(given),
    lambda given, expected: _numbers(given, expected, "results", "measure"),
    lambda given, expected: _numbers(given, expected, "control_results", "control"),
    lambda given, expected: _own(given),
    lambda given, expected: _verdict(given),
)


def _first_broken(given: Any, expected: Any) -> tuple[int, str] | None:
    """Which rule a study breaks first, and how; None for a good one."""
    for i, rule in enumerate(RULES):
        if message := rule(given, expected):
            return i, message
    return None


def _study_compare(given: Any, expected: Any) -> str | None:
    broken = _first_broken(given, expected)
    return None if broken is None else broken[1]


def _breaks(rule: int, word: str = "") -> Callable[[Any, Any, Case], bool]:
    def seen(given: Any, expected: Any, case: Case) -> bool:
        broken = _first_broken(given, expected)
        return broken is not None and broken[0] == rule and word in broken[1]

    return seen


STUDY = Exercise(
    name="study",
    task="A small pre-registered study: the parts that can be checked are checked",
    cases=_study_cases,
    truth=lambda model, asked: (model, asked),
    compare=_study_compare,
    mistakes=(
        Mistake(
            "template not filled",
            None,
            "Some fields of the template are still empty. Fill all of them, the prediction before you run anything.",
            seen=_breaks(0),
        ),
        Mistake(
            "no question",
            None,
            "Write the question as one sentence that ends with a question mark: which edit, which answer, in which "
            "model.",
            seen=_breaks(1, "question"),
        ),
        Mistake(
            "nothing would change my mind",
            None,
            "Say which outcome would change your mind, in a sentence. If none would, it is no study.",
            seen=_breaks(1, "change_my_mind"),
        ),
        Mistake(
            "a prediction that cannot fail",
            None,
            "Your prediction holds, or fails, whatever comes out: choose a threshold strictly between 0 and 1 that "
            "could "
            "prove you wrong.",
            seen=_breaks(2, "is true, or false"),
        ),
        Mistake(
            "prediction in words",
            None,
            'Make the prediction something that a computer can judge: `("above", 0.5)` or `("below", 0.1)`.',
            seen=_breaks(2),
        ),
        Mistake(
            "a mean for the numbers",
            None,
            "Give one number for each conversation, in their order, not a mean: whoever reads it wants the spread too.",
            seen=lambda given, expected, case: (
                _breaks(3, "one a conversation")(given, expected, case)
                or _breaks(4, "one a conversation")(given, expected, case)
            ),
        ),
        Mistake(
            "no function, or no number",
            None,
            "`measure` and `control` must be functions of (model, talk) that return a number: is `return` missing, or "
            "still `...`?",
            seen=lambda given, expected, case: any(
                _breaks(rule, word)(given, expected, case)
                for rule in (3, 4)
                for word in ("is not a number", "expected a function")
            ),
        ),
        Mistake(
            "not a probability",
            None,
            "Your measure leaves the range of a probability, so a threshold between 0 and 1 says nothing about it: use "
            "`chances`, or a share.",
            seen=lambda given, expected, case: (
                _breaks(3, "outside")(given, expected, case) or _breaks(4, "outside")(given, expected, case)
            ),
        ),
        Mistake(
            "results typed in",
            None,
            "`results` are not what `measure` gives when it is run again. Compute them from the conversations that are "
            "passed in; never type them.",
            seen=_breaks(3),
        ),
        Mistake(
            "control results not the control's",
            None,
            "`control_results` are not what `control` gives when it is run again.",
            seen=_breaks(4),
        ),
        Mistake(
            "the control is the measure",
            None,
            "Your control gives the same numbers as your measure. A control changes what should *not* matter, or "
            "leaves "
            "out what should.",
            seen=_breaks(5),
        ),
        Mistake(
            "verdict against the numbers",
            None,
            "`holds` disagrees with your own numbers: it is True only if the mean is on the predicted side and the "
            "control's "
            "mean is not.",
            seen=_breaks(6),
        ),
    ),
    hints=(
        "Begin with two functions of (model, conversation) that give a probability: the measure and its control.",
        "`chances(model, conversation.text(analysis), [word])[0]` is a probability; results = [measure(model, c) for "
        "c in …].",
        "holds: the mean of results meets the prediction, and the mean of control_results does not.",
    ),
    points=3,
)


LESSON = Outline(
    name="10_analysis_to_final",
    title="Analysis → final: does the answer follow the thought? And what four bits do",
    minutes=(70, 90),
    able_to=(
        "edit a chain of thought and say, with controls, what the final answer depends on",
        "tell depending on a thought from reasoning with it",
        "follow an answer from the analysis to the final channel, hop by hop",
        "pack and unpack MXFP4, and say where its error comes from",
        "compare an error with noise of equal size, and find out why the two differ",
        "write down a small study before you run it",
    ),
    builds_on=("02_tokens_and_harmony", "06_indirect_object", "07_experts"),
    exercises=(
        REPLACE_IN_ANALYSIS,
        RELIANCE,
        PATCHED_LOGITS,
        E2M1,
        UNPACK_BLOCKS,
        PACK_BLOCKS,
        FLIP_SHARE,
        NOISE_LIKE,
        STUDY,
    ),
    predictions=("edit followed", "another thing", "after layer 0", "flips", "against noise"),
)
