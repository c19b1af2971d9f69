"""Vectors for ``Steer`` as plain data: how each is made, so that a file or a line of code can make it again.

| kind | the vector |
|---|---|
| numbers | these numbers |
| unembedding | a token's row of the unembedding |
| difference_of_means | mean activation over some texts less that over others |
| expert_output | what an expert, chosen or not, puts out for a text's last token, before its routing weight |
| head_write | what a head writes at a text's last token, without b_O |
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args
from weakref import WeakKeyDictionary

from workbench.experiments import difference_of_means
from workbench.experiments.directions.steering import At
from workbench.experiments.directions.vectors import (
    FIRST,
    as_direction,
    expert_output,
    head_write,
    unembedding_direction,
)
from workbench.model import HookedGptOss
from workbench.model.fingerprint import fingerprint
from workbench.model.sites import RESID, UnknownSite

LONGEST = 1_000_000  # numbers in one vector
LARGEST = 3.4e38  # of them: float32 has no larger ones
MOST_TEXTS, MOST_TOKENS = 1000, 1_000_000
REMEMBERED = 32  # vectors of a model that took a run to make


class Kind(NamedTuple):
    """One way to make a vector.

    Attributes:
        fields: their names and types.
        make: the vector, of a recipe and a model.
        code: the Python that makes it, given ``model``.
        runs: whether that takes a run of the model.
    """

    fields: Mapping[str, type | tuple[type, ...]]
    make: Callable[[Any, HookedGptOss], Any]
    code: Callable[[Any], str]
    runs: bool = False


# ---------------------------------------------------------------- how each is made


def _difference(recipe: Any, model: HookedGptOss) -> Any:
    sides, site, at = (recipe["positive"], recipe["negative"]), recipe["site"], recipe["at"]
    return as_direction(difference_of_means(model, *sides, site, at=at, shuffles=0, progress=False).vector)


def _code_of_difference(recipe: Any) -> str:
    texts = f"{list(recipe['positive'])!r}, {list(recipe['negative'])!r}"
    call = f"experiments.difference_of_means(model, {texts}, {recipe['site']!r}, at={recipe['at']!r}, shuffles=0)"
    return f"torch.from_numpy({call}.vector)"


def _code_of_expert(recipe: Any) -> str:
    layer, last = recipe["layer"], len(recipe["tokens"]) - 1
    first, site = f"wb.BiasExpert({layer}, {recipe['expert']}, {FIRST}, positions=({last},))", "mlp.hook_expert_out"
    return _code_of_site(recipe, f"blocks.{layer}.{site}", "[0, -1, 0]", f", [{first}]")


def _code_of_head(recipe: Any) -> str:
    layer, head = recipe["layer"], recipe["head"]
    z = _code_of_site(recipe, f"blocks.{layer}.attn.hook_z", f"[0, -1, {head}]")
    return f"({z} @ model.blocks[{layer}].attn.W_O[{head}]).detach()"


def _code_of_site(recipe: Any, site: str, at: str, edits: str = "") -> str:
    return f"wb.run(model, {[list(recipe['tokens'])]}{edits}, sites={site!r})[{site!r}]{at}"


TEXT = {"tokens": (list, tuple), "layer": int}
KINDS: dict[str, Kind] = {
    "numbers": Kind(
        {"values": (list, tuple)},
        lambda recipe, model: as_direction(recipe["values"]),
        lambda recipe: f"torch.tensor({[float(value) for value in recipe['values']]})",
    ),
    "unembedding": Kind(
        {"token": int},
        lambda recipe, model: unembedding_direction(model, recipe["token"]),
        lambda recipe: f"model.unembed.weight[{recipe['token']}].detach().clone()",
    ),
    "difference_of_means": Kind(
        {"positive": (list, tuple), "negative": (list, tuple), "site": str, "at": str},
        _difference,
        _code_of_difference,
        runs=True,
    ),
    "expert_output": Kind(
        {**TEXT, "expert": int},
        lambda recipe, model: expert_output(model, recipe["tokens"], recipe["layer"], recipe["expert"]),
        _code_of_expert,
        runs=True,
    ),
    "head_write": Kind(
        {**TEXT, "head": int},
        lambda recipe, model: head_write(model, recipe["tokens"], recipe["layer"], recipe["head"]),
        _code_of_head,
        runs=True,
    ),
}


# ---------------------------------------------------------------- what is refused


def check(recipe: Any, model: HookedGptOss) -> None:
    """Refuse what is no recipe.

    Raises:
        ValueError: saying what was given and what was expected.
    """
    if not isinstance(recipe, Mapping) or recipe.get("kind") not in KINDS:
        raise ValueError(f"a vector's recipe is an object with a kind, one of {', '.join(KINDS)}: got {recipe!r:.80}")
    expected = KINDS[recipe["kind"]].fields
    if set(recipe) != {"kind", *expected}:
        raise ValueError(f"a vector of kind {recipe['kind']!r} has {', '.join(expected)}: got {[*recipe]!r:.200}")
    for name, types in expected.items():
        if not isinstance(recipe[name], types) or isinstance(recipe[name], bool):
            raise ValueError(f"a vector's {name} is {recipe[name]!r:.80}: expected {types}")
    config = model.config
    sizes = {"token": config.d_vocab, "layer": config.n_layers, "expert": config.n_experts, "head": config.n_heads}
    for name in expected.keys() & sizes.keys():
        if not 0 <= recipe[name] < sizes[name]:
            raise ValueError(f"there is no {name} {recipe[name]}; there are 0 to {sizes[name] - 1}")
    if recipe["kind"] == "numbers":
        _check_numbers(recipe["values"])
    if "tokens" in expected:
        _check_tokens(recipe["tokens"], config.d_vocab)
    if recipe["kind"] == "difference_of_means":
        _check_difference(recipe, model)


def _check_numbers(values: Any) -> None:
    if not 0 < len(values) <= LONGEST:
        raise ValueError(f"a vector has 1 to {LONGEST} numbers: got {len(values)}")
    if not all(isinstance(value, int | float) and abs(value) <= LARGEST for value in values):
        raise ValueError("a vector's numbers are finite: got something else among them")


def _check_tokens(tokens: Any, d_vocab: int) -> None:
    if not 0 < len(tokens) <= MOST_TOKENS or not all(type(token) is int and 0 <= token < d_vocab for token in tokens):
        raise ValueError(f"a vector's tokens are 1 to {MOST_TOKENS} ids from 0 to {d_vocab - 1}: got {tokens!r:.80}")


def _check_difference(recipe: Any, model: HookedGptOss) -> None:
    for side in ("positive", "negative"):
        texts = recipe[side]
        if not 0 < len(texts) <= MOST_TEXTS or not all(isinstance(text, str) and text for text in texts):
            raise ValueError(f"a difference of means has 1 to {MOST_TEXTS} texts on each side: {side} is {texts!r:.80}")
    if recipe["at"] not in get_args(At):
        raise ValueError(f"a difference of means is taken at one of {get_args(At)}: got {recipe['at']!r:.80}")
    try:
        dims = model.sites[recipe["site"]].dims
    except UnknownSite as error:
        raise ValueError(str(error)) from None
    if dims != RESID:
        raise ValueError(
            f"site {recipe['site']!r} has dims {dims}: expected one of {RESID}, as the residual stream has"
        )


# ---------------------------------------------------------------- what is made

_made: WeakKeyDictionary[HookedGptOss, OrderedDict[tuple[str, str], Any]] = WeakKeyDictionary()
_lock = threading.Lock()


def make(recipe: Any, model: HookedGptOss) -> Any:
    """The vector, a tensor [d]. One that takes a run of the model is remembered as long as the weights are the same."""
    kind = KINDS[recipe["kind"]]
    if not kind.runs:
        return kind.make(recipe, model)
    key = fingerprint(model), json.dumps(recipe, sort_keys=True)
    with _lock:
        known = _made.setdefault(model, OrderedDict())
        if key in known:
            known.move_to_end(key)
            return known[key]
    made = kind.make(recipe, model)
    with _lock:
        known[key] = made
        while len(known) > REMEMBERED:
            known.popitem(last=False)
    return made


def code(recipe: Any) -> str:
    """The Python that makes it, given ``model``."""
    return KINDS[recipe["kind"]].code(recipe)
