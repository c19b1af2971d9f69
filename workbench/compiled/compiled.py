"""What a hand-compiled model comes as: the model, the truth about it, and prompts that show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from workbench.model import HookedGptOss
from workbench.prompts import Pair

Positions = Callable[[Pair], tuple[int, ...]]


def last(pair: Pair) -> tuple[int, ...]:
    """The last position, where the answer is read."""
    return (len(ids(pair.clean)) - 1,)


def where_changed(pair: Pair) -> tuple[int, ...]:
    """The positions whose tokens differ between clean and corrupt."""
    both = zip(ids(pair.clean), ids(pair.corrupt), strict=True)
    return tuple(pos for pos, (clean, corrupt) in enumerate(both) if clean != corrupt)


def after_changed(pair: Pair) -> tuple[int, ...]:
    """The positions that follow those."""
    return tuple(pos + 1 for pos in where_changed(pair))


def ids(prompt: object) -> tuple[int, ...]:
    """The token ids of one side of a pair.

    Raises:
        ValueError: it is text or a chat.
    """
    if not isinstance(prompt, tuple):
        raise ValueError(f"{prompt!r:.60}: a compiled model's prompts are token ids")
    return prompt


@dataclass(frozen=True)
class Component:
    """A head or an expert, and the positions at which it does its part.

    Attributes:
        kind: "head" or "expert".
        layer: from 0.
        index: of the head or of the expert in its layer.
        does: its part, in words.
        positions: a rule, Pair → positions.
    """

    kind: Literal["head", "expert"]
    layer: int
    index: int
    does: str
    positions: Positions = last

    @property
    def name(self) -> str:
        """As nodes are spelled: "L1H2", "L0E3"."""
        return f"L{self.layer}{'H' if self.kind == 'head' else 'E'}{self.index}"

    def at(self, pair: Pair) -> tuple[str, ...]:
        """The nodes of one pair: ("L1H2@12",)."""
        return tuple(f"{self.name}@{pos}" for pos in self.positions(pair))


@dataclass(frozen=True, eq=False)
class Truth:
    """What is so, because it was written that way.

    Attributes:
        components: what the answers need; taking any one out destroys them (its own share, where ``does`` says so).
        idle: what looks busy and matters to no answer.
        directions: [d_model] each (or [n d_model]), in the residual stream, by name.
        numbers: exact figures, by name.
        tokens: token ids, by name.
    """

    components: tuple[Component, ...] = ()
    idle: tuple[Component, ...] = ()
    directions: Mapping[str, Float[Tensor, "*n d_model"]] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("directions", "numbers", "tokens"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def component(self, name: str) -> Component:
        """The one of this name, needed or idle.

        Raises:
            KeyError: there is none.
        """
        known = {component.name: component for component in (*self.components, *self.idle)}
        if name not in known:
            raise KeyError(f"the truth names no {name!r}; it names {', '.join(known)}")
        return known[name]

    def nodes(self, pair: Pair) -> tuple[str, ...]:
        """Every node that decides this pair, as "L1H2@12"."""
        return tuple(node for component in self.components for node in component.at(pair))


@dataclass(frozen=True, eq=False)
class Compiled:
    """A model whose weights were written by hand, with what is true of it.

    Attributes:
        model: float32, without a tokenizer (but for the backdoor, which has nano's).
        truth: the components, directions and numbers that were written.
        description: what it does and how, in a few sentences.
        draw: (n, seed, **options) → pairs of token ids; :meth:`pairs` calls it.
    """

    model: HookedGptOss
    truth: Truth
    description: str
    draw: Callable[..., list[Pair]] = field(repr=False)

    @property
    def name(self) -> str:
        return self.model.config.name

    def pairs(self, n: int = 16, seed: int = 0, **options: object) -> list[Pair]:
        """``n`` prompts with their corrupt twins, all of one length; ``options`` are the model's own, see its function.

        Raises:
            ValueError: for n < 1.
        """
        if n < 1:
            raise ValueError(f"n={n}: expected at least one pair")
        return self.draw(n, seed, **options)

    def __str__(self) -> str:
        named = [f"  {c.name}: {c.does}" for c in self.truth.components]
        named += [f"  {c.name} (idle): {c.does}" for c in self.truth.idle]
        return "\n".join([f"{self.name}: {self.description}", *named])
