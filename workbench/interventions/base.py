"""What every intervention is: frozen data that names things, holds no tensors, and goes to JSON and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from functools import cache
from math import isfinite
from typing import Any, ClassVar, get_type_hints

from beartype.door import is_bearable
from torch import Tensor

from workbench.interventions.context import Context
from workbench.model import Config

Hook = tuple[str, Callable]
Positions = tuple[int, ...] | None

KINDS: dict[str, type[Intervention]] = {}
_LONGEST = 2000  # characters of an error


class InterventionError(ValueError):
    """An intervention that cannot be: the message names it, what was given, and the nearest that there is."""

    def __init__(self, message: str) -> None:
        # It may quote a name, or positions, of a hundred thousand characters.
        super().__init__(message if len(message) <= _LONGEST else f"{message[:_LONGEST]} …")


@dataclass(frozen=True)
class Intervention:
    """The base of all specs. ``positions`` are columns of the batch, from 0; None means all.

    A spec that needs numbers from elsewhere names a source: a run, or a vector, that ``wb.run(…, sources={name: …})``
    gives.
    """

    reroutes: ClassVar[bool] = False  # through the router's logits, which a routing from another run would override
    by_row: ClassVar[bool] = True  # each row of the run reads its own row of a source

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.__name__.startswith("_"):
            KINDS[cls.__name__] = cls

    def check(self, config: Config, n_pos: int | None) -> None:
        """Refuse what the model or the run does not have, before anything runs.

        Args:
            n_pos: columns of the run; None where it is not known yet.

        Raises:
            InterventionError: naming the field, what was given and what there is.
            UnknownSite: for a site that does not exist.
        """

    def check_among(self, specs: Sequence[Any], config: Config, n_pos: int | None) -> None:
        """Refuse what is impossible together with the other specs of a run.

        Raises:
            InterventionError: naming them.
        """

    def check_sources(self, config: Config, sources: Mapping[str, Any], n_rows: int | None) -> None:
        """Refuse sources that are missing, did not keep what is read of them, or are of another shape.

        Raises:
            InterventionError: naming the source and what was expected of it.
            KeyError: for a run that did not keep a site; the message says how to keep it.
        """
        for name, site in self.reads(config):
            if name not in sources:
                given = f"the sources are {sorted(sources)}" if sources else "no sources were given"
                raise InterventionError(f"{self}: there is no source {name!r}; {given}. Pass sources={{{name!r}: …}}")
            if site is None:
                if not isinstance(sources[name], Tensor):
                    found = type(sources[name]).__name__
                    raise InterventionError(f"{self}: source {name!r} is {found}: expected a vector")
            else:
                self._check_run(sources[name], name, site, config, n_rows)

    def _check_run(self, source: Any, name: str, site: str, config: Config, n_rows: int | None) -> None:
        if not hasattr(source, "tokens"):
            raise InterventionError(f"{self}: source {name!r} is {type(source).__name__}: expected a Run")
        source[site]  # says what is missing, and how to keep it
        for size in ("n_layers", "d_model", "n_heads", "n_experts", "experts_per_token"):
            there, here = getattr(source.model.config, size), getattr(config, size)
            if there != here:
                raise InterventionError(
                    f"{self}: source {name!r} ran on a model with {size}={there}, and this one has {here}"
                )
        rows = source.tokens.shape[0]
        if self.by_row and n_rows is not None and rows not in (1, n_rows):
            raise InterventionError(
                f"{self}: source {name!r} has {rows} rows and this run {n_rows}: expected as many, or 1"
            )

    def as_hooks(
        self, model: Any, sources: Mapping[str, Any], among: Sequence[Any]
    ) -> list[tuple[str | Callable, Callable]]:
        """:meth:`hooks` after every check that needs no tokens: what ``model.edited`` asks of a spec."""
        self.check(model.config, None)
        self.check_among(among, model.config, None)
        self.check_sources(model.config, sources, None)
        return [*self.hooks(Context(model, sources))]

    def reads(self, config: Config) -> list[tuple[str, str | None]]:
        """What it takes from elsewhere: (source, site), or (source, None) for a vector."""
        return []

    def hooks(self, context: Context) -> list[Hook]:
        """The hooks that carry it out, in the order in which they must be put on."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """As it is written: fields that stand at their default are left out."""
        given = [f"{part.name}={getattr(self, part.name)!r}" for part in fields(self) if _differs(self, part)]
        return f"{type(self).__name__}({', '.join(given)})"

    def check_index(self, what: str, value: int, size: int) -> None:
        """Refuse a layer, head, expert or position that is not there."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise InterventionError(f"{self}: {what} is {value!r}: expected a whole number")
        if not 0 <= value < size:
            nearest = min(max(value, 0), size - 1)
            raise InterventionError(
                f"{self}: there is no {what} {value}; there are 0 to {size - 1}, the nearest is {nearest}"
            )

    def check_positions(self, positions: Positions, n_pos: int | None, what: str = "position") -> None:
        """Refuse positions that the run does not have; any from 0 on where its length is not known."""
        if positions is not None and not isinstance(positions, tuple | list):
            raise InterventionError(f"{self}: positions={positions!r}: expected a tuple of positions, or None for all")
        for position in positions or ():
            self.check_index(what, position, 2**31 if n_pos is None else n_pos)

    def check_finite(self, what: str, value: float, instead: str = "") -> None:
        """Refuse infinities and NaN, which would spread over every number of the run."""
        if not isfinite(value):
            raise InterventionError(f"{self}: {what} {value}: expected a number{instead}")

    def check_choice(self, what: str, value: Any, among: Iterable[Any]) -> None:
        """Refuse a word that is not among those that are known."""
        if value not in (known := tuple(among)):
            raise InterventionError(f"{self}: {what} {value!r}, expected one of {known}")


def _differs(spec: Intervention, part: Any) -> bool:
    return bool(getattr(spec, part.name) != part.default)


# ---------------------------------------------------------------- as text


def to_json(specs: Iterable[Intervention], indent: int | None = None) -> str:
    """Interventions as JSON: a list of objects, each with its kind and its fields.

    Raises:
        InterventionError: for something that is no intervention of ours.

    >>> print(interventions.to_json([wb.AblateHead(0, 5)]))
    [{"kind": "AblateHead", "layer": 0, "head": 5, "policy": "zero", "positions": null, "source": null, "seed": 0}]
    """
    return json.dumps([as_dict(spec) for spec in specs], indent=indent)


def as_dict(spec: Intervention) -> dict[str, Any]:
    """One intervention as plain data."""
    if KINDS.get(type(spec).__name__) is not type(spec):
        raise InterventionError(f"{spec!r} is no intervention; expected one of {sorted(KINDS)}")
    return {"kind": type(spec).__name__} | {part.name: getattr(spec, part.name) for part in fields(spec)}


def from_json(text: str | bytes) -> tuple[Intervention, ...]:
    """What :func:`to_json` wrote. Nothing in it is executed, and fields are checked for their types.

    Raises:
        InterventionError: for text that is not that, naming the entry, what it has and what was expected.

    >>> interventions.from_json('[{"kind": "AblateHead", "layer": 0, "head": 5}]')
    (AblateHead(layer=0, head=5),)
    """
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InterventionError(f"interventions are not JSON: {error}") from None
    if not isinstance(entries, list):
        raise InterventionError(f"interventions in JSON are a list: got {type(entries).__name__}")
    return tuple(from_dict(entry, f"entry {i}") for i, entry in enumerate(entries))


def from_dict(entry: Any, where: str = "the intervention") -> Intervention:
    """What :func:`as_dict` made.

    Raises:
        InterventionError: as :func:`from_json`.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("kind"), str):
        raise InterventionError(f"{where}: expected an object with a kind, one of {sorted(KINDS)}")
    kind = KINDS.get(entry["kind"])
    if kind is None:
        raise InterventionError(f"{where}: there is no intervention {entry['kind']!r:.80}{_near(entry['kind'], KINDS)}")
    known = {part.name: part for part in fields(kind)}
    try:
        given = {name: _tuples(value) for name, value in entry.items() if name != "kind"}
    except RecursionError:
        raise InterventionError(f"{where}: {kind.__name__} has lists within lists without end") from None
    for name in given:
        if name not in known:
            raise InterventionError(f"{where}: {kind.__name__} has no {name!r:.80}{_near(str(name), known)}")
    missing = [name for name, part in known.items() if part.default is MISSING and name not in given]
    if missing:
        raise InterventionError(f"{where}: {kind.__name__} needs {', '.join(map(repr, missing))} too")
    hints = _hints(kind)
    for name, value in given.items():
        # JSON has 1 for 1.0, and Python's True is a 1.
        right = _fits(value, hints[name]) and (not isinstance(value, bool) or hints[name] is bool)
        if not right and type(value) is int and is_bearable(0.0, hints[name]):
            right, given[name] = True, _as_float(value)
        if not right:
            expected = _type_name(hints[name])
            raise InterventionError(f"{where}: {kind.__name__}.{name} is {_shown(value)}: expected {expected}")
    return kind(**given)


@cache
def _hints(kind: type[Intervention]) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    # beartype looks at one item of a tuple, at random: each is shown to it alone.
    items = value if isinstance(value, tuple) else ()
    return is_bearable(value, hint) and all(is_bearable((item,), hint) for item in items)


def _shown(value: Any) -> str:
    try:
        return repr(value)[:200]
    except RecursionError:
        return "lists within lists without end"


def _as_float(value: int) -> float:
    return float(value) if abs(value) < 2**1000 else float("inf")  # which the spec's own check refuses


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _type_name(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint).replace("typing.", "")


def _near(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.4)
    return f"; closest is {near[0]!r}" if near else f"; expected one of {names}"


def code(specs: Iterable[Intervention]) -> str:
    """The Python that makes these interventions again, after ``import workbench as wb``."""
    lines = [f"    wb.{spec!r}," for spec in specs]
    return "\n".join(["[", *lines, "]"]) if lines else "[]"
