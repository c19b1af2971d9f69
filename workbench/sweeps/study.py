"""What a sweep is of: a measure, the model it asks, and the journal that keeps what it found."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from workbench.sweeps.content import content, key
from workbench.sweeps.grid import Cell
from workbench.sweeps.journal import Journal, Place
from workbench.sweeps.results import Results, Value
from workbench.sweeps.version import code_version

if TYPE_CHECKING:
    from workbench.checkpoints import Recipe


@dataclass(frozen=True)
class OfModel:
    """A measure of a model and cells, as one of cells. What travels to a worker is this: the model as its recipe."""

    measure: Callable[[Any, list[Cell]], Any]
    recipe: Recipe

    @property
    def fingerprint(self) -> str | None:
        """The model's."""
        return self.recipe.fingerprint

    def __call__(self, cells: list[Cell]) -> Any:
        """The measure's values, of the model that this process has loaded, or loads now."""
        from workbench.checkpoints import load_once  # torch: a sweep without a model does without it

        return self.measure(load_once(self.recipe), cells)


@dataclass(frozen=True, eq=False)
class OfThisModel:
    """The same of a model that only this process has: made by hand, or spread over devices. It does not travel."""

    measure: Callable[[Any, list[Cell]], Any]
    model: Any
    fingerprint: str

    def __call__(self, cells: list[Cell]) -> Any:
        """The measure's values."""
        return self.measure(self.model, cells)

    def __reduce__(self) -> Any:
        raise TypeError("the model was not loaded by wb.load onto one device, so that no other process can load it")


def of_model(measure: Callable[..., Any], model: Any) -> OfModel | OfThisModel:
    """A measure with its model: by its recipe, where it has one.

    Raises:
        CheckpointError: as ``wb.load``.
    """
    from workbench.checkpoints import recipe_of  # torch: a sweep without a model does without it
    from workbench.model import HookedGptOss
    from workbench.model.fingerprint import fingerprint

    if isinstance(model, HookedGptOss) and model.recipe is None:
        return OfThisModel(measure, model, fingerprint(model))
    return OfModel(measure, recipe_of(model))


class Kept:
    """The finished cells of one study in a journal.

    Args:
        folder: the journal's; other studies may be in it.
        measure: of cells, or OfModel. Its source, what it closes over and reads, the model's fingerprint and the
            workbench's own code tell the study apart: after a change of any of them a study begins anew beside the old
            one, which stays as it is.

    Raises:
        NoContent: the measure closes over something that cannot be told apart by its content.
        JournalError: the folder cannot be read or written.
    """

    def __init__(self, folder: str | Path, measure: Callable[[list[Cell]], Any]) -> None:
        inner, fingerprint = parts_of(measure)
        version = code_version()
        study = key(content(inner), fingerprint, version)
        about = {"measure": name_of_measure(inner), "fingerprint": fingerprint, "workbench": version}
        self.journal = Journal(folder, study, about)
        self._about = about

    def restore(self, results: Results) -> int:
        """Put what is kept into the results; how many cells that were. Says so where only other studies are kept."""
        kept = {name: _held(value, place) for name, value, place in self.journal.places()}
        if not kept:
            self._say_others()
            return 0
        n = 0
        for cell in results.unfinished():
            found = kept.get(name_of(cell))
            if found is not None:
                results.restore(cell, *found)
                n += 1
        return n

    def _say_others(self) -> None:
        same = [about for about in self.journal.others().values() if about.get("measure") == self._about["measure"]]
        if same:
            warnings.warn(
                f"{self.journal.folder} keeps {len(same)} other stud{'y' if len(same) == 1 else 'ies'} of "
                f"{self._about['measure']!r}, of another model or of code that was changed since: this one begins anew",
                stacklevel=4,
            )

    def keep(self, results: Results, cells: Sequence[Cell]) -> None:
        """Append a batch that was just recorded; its arrays are on disk from then on, and not in memory."""
        values = [results.value(cell) for cell in cells]
        places = self.journal.append(list(zip(map(name_of, cells), values, strict=True)))
        for cell, value, place in zip(cells, values, places, strict=True):
            results.restore(cell, *_held(value, place))

    def close(self) -> None:
        """Put everything on the disk."""
        self.journal.close()


def parts_of(measure: Any) -> tuple[Any, str | None]:
    """(The measure itself, the fingerprint of its model if it has one)."""
    whole = isinstance(measure, OfModel | OfThisModel)
    return (measure.measure, measure.fingerprint) if whole else (measure, None)


def name_of_measure(measure: Any) -> str:
    """What people call it; of one that calls an experiment, with the experiment's name."""
    name = getattr(measure, "__qualname__", type(measure).__name__)
    inner = getattr(getattr(measure, "experiment", None), "__name__", "")
    return f"{name}({inner})" if inner else name


def _held(value: Value, place: Place) -> tuple[Value, Place | None]:
    """Numbers as they are; of arrays only where they can be read."""
    return ({}, place) if any(isinstance(part, xr.DataArray) for part in value.values()) else (value, None)


def name_of(cell: Cell) -> str:
    """A cell's name in a journal: the content of its values, wherever they stand in a grid."""
    return key(cell.as_dict())
