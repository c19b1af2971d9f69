"""A model by its recipe, loaded once in a process however often it is asked for."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from workbench.checkpoints.load import load
from workbench.checkpoints.recipe import Recipe
from workbench.model.fingerprint import fingerprint
from workbench.model.transformer import HookedGptOss

_LOADED: dict[Recipe, HookedGptOss] = {}
_LOADING = threading.Lock()


def recipe_of(model: Recipe | HookedGptOss | str | Path) -> Recipe:
    """The recipe of a model, with its fingerprint, so that no worker can load something else under its name.

    Args:
        model: a recipe, a name or folder as ``wb.load`` takes it, or a model that ``wb.load`` made: a worker in this
            process then uses that very model.

    Raises:
        ValueError: for a model that was made by hand or is spread over devices: it cannot be loaded again.
        CheckpointError: as ``wb.load``.
    """
    if isinstance(model, HookedGptOss):
        return _of_loaded(model)
    if not isinstance(model, Recipe):
        folder = Path(model).expanduser()
        model = Recipe(str(folder.resolve()) if folder.exists() else str(model))
    if model.fingerprint is not None:
        return model
    made = load_once(model)
    found = replace(model, fingerprint=fingerprint(made))
    with _LOADING:
        _LOADED.setdefault(found, made)
    return found


def load_once(recipe: Recipe) -> HookedGptOss:
    """The model of a recipe. Packed weights are mapped from the files, so that processes of one machine share them.

    Raises:
        CheckpointError: as ``wb.load``.
        ValueError: what is there is not the model that the recipe was made from.
    """
    with _LOADING:
        if recipe not in _LOADED:
            made = load(recipe.path, **recipe.arguments())
            found = fingerprint(made)
            if recipe.fingerprint not in (None, found):
                raise ValueError(
                    f"{recipe.path} holds another model here: its fingerprint is {found}, expected "
                    f"{recipe.fingerprint}; give every machine the same checkpoint"
                )
            _LOADED[recipe] = made
        return _LOADED[recipe]


def _of_loaded(model: HookedGptOss) -> Recipe:
    if model.recipe is None:
        raise ValueError(
            "this model was not loaded by wb.load onto one device, so that another process cannot load it again: save "
            "it with wb.save_pretrained(model, path) and give the path, or sweep in this process (no executor)"
        )
    # Weights that were changed since give another fingerprint than the file, and the worker that loads it says so.
    recipe = replace(model.recipe, fingerprint=fingerprint(model))
    with _LOADING:
        _LOADED.setdefault(recipe, model)
    return recipe
