"""What an atlas is of: everything that decides a number in it, so that a build that goes on is of the same."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.atlases.errors import AtlasError

if TYPE_CHECKING:
    from workbench.model import HookedGptOss

# Raised when a change of the workbench changes what is written: an atlas of an earlier version is not gone on with.
VERSION = 1
PART_TOKENS = 65_536
PART_BYTES = 2**28  # of activations, which are whole in memory before they are written
MAX_LENGTH = 1024
STORES = ("float32", "float16")


@dataclass(frozen=True, eq=False, kw_only=True)
class Options:
    """What ``wb.atlas`` takes of how documents become rows; it says what each of these is."""

    sites: str | Sequence[str] = ()
    interventions: Sequence[Any] = ()
    sources: Mapping[str, Any] | None = None
    store: str = "float32"
    batch_tokens: int = 4096
    max_length: int | None = None
    part_tokens: int | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Settings:
    """Options checked, and filled in for a model. They travel to workers."""

    sites: tuple[str, ...]
    interventions: tuple[Any, ...]
    sources: Mapping[str, Any]
    store: str
    batch_tokens: int
    max_length: int
    part_tokens: int

    def identity(self, model: HookedGptOss) -> dict[str, Any]:
        """What may not change between a build and the one that goes on with it, as JSON. The size of a batch may: it
        moves numbers by rounding alone."""
        from workbench.interventions import as_dict
        from workbench.model.fingerprint import fingerprint

        return {
            "version": VERSION,
            "model": fingerprint(model),
            "tokenizer": None if model.tokenizer is None else model.tokenizer.fingerprint,
            "interventions": [as_dict(spec) for spec in self.interventions],
            "sources": {name: _digest(vector) for name, vector in sorted(self.sources.items())},
            "sites": list(self.sites),
            "store": self.store,
            "max_length": self.max_length,
            "part_tokens": self.part_tokens,
        }


def settings_for(model: HookedGptOss, **options: Any) -> Settings:
    """Checked settings of an atlas of this model, with these :class:`Options`.

    Raises:
        AtlasError: for a number that is too small or too large, or a site that has no vector at each token.
        UnknownSite: for a site that does not exist.
        InterventionError: for a spec that the model or the sources do not have.
    """
    return checked(model, Options(**options))


def checked(model: HookedGptOss, asked: Options) -> Settings:
    """As :func:`settings_for`."""
    config, store, batch_tokens, part_tokens = model.config, asked.store, asked.batch_tokens, asked.part_tokens
    longest = min(config.n_ctx, MAX_LENGTH) if asked.max_length is None else asked.max_length
    if not 1 <= longest <= config.n_ctx:
        raise AtlasError(f"max_length={longest}: expected 1 to {config.n_ctx}, the longest context of {config.name}")
    if store not in STORES:
        raise AtlasError(f"store={store!r}: expected one of {STORES}")
    names = _sites(model, asked.sites)
    if part_tokens is None:
        wide = sum(width(model, name) for name in names) * (4 if store == "float32" else 2)
        part_tokens = max(min(PART_TOKENS, PART_BYTES // max(wide, 1)), longest)
    if min(batch_tokens, part_tokens) < 1:
        raise AtlasError(f"batch_tokens={batch_tokens}, part_tokens={part_tokens}: expected at least 1")
    sources = dict(asked.sources or {})
    _check_interventions(model, asked.interventions, sources)
    return Settings(
        sites=names, interventions=tuple(asked.interventions), sources=sources, store=store,
        batch_tokens=batch_tokens, max_length=longest, part_tokens=part_tokens,
    )  # fmt: skip


def _check_interventions(model: HookedGptOss, interventions: Sequence[Any], sources: Mapping[str, Any]) -> None:
    from torch import Tensor

    from workbench.interventions import Intervention, check_all

    if isinstance(interventions, Intervention):
        raise AtlasError(f"interventions={interventions}: expected a list, [{interventions}]")
    for name, source in sources.items():
        if not isinstance(source, Tensor):
            raise AtlasError(
                f"source {name!r} is a {type(source).__name__}: an atlas takes vectors only, for a run is of its own "
                "tokens and not of the corpus'"
            )
    check_all(interventions, model.config, None, sources)


def _sites(model: HookedGptOss, sites: str | Sequence[str]) -> tuple[str, ...]:
    names = model.sites.select([sites] if isinstance(sites, str) else list(sites)) if sites else []
    for name in names:
        site = model.sites[name]
        if site.dims[:2] != ("batch", "pos") or site.is_integer:
            raise AtlasError(
                f"sites: {name} has axes {' '.join(site.dims)}: an atlas keeps a vector for each token, so expected "
                "floating-point sites with batch and pos"
            )
    return tuple(names)


def width(model: HookedGptOss, name: str) -> int:
    """How many numbers a site has at each token, its axes flattened."""
    from workbench.model.memory.sizes import Axes

    sizes = Axes(model.config, batch=1, length=1).sizes()
    return math.prod(sizes[axis] for axis in model.sites[name].dims[2:])


def _digest(vector: Any) -> str:
    return hashlib.sha256(vector.detach().cpu().double().numpy().tobytes()).hexdigest()[:16]
