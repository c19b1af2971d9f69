"""The forms in which a model can hold its experts, so that one test is run on each of them.

- dense: plain matrices.
- packed-eager: MXFP4, multiplied by torch operations.
- packed-native: MXFP4, multiplied by the C library, in bfloat16 and float32 (float64 goes through torch all the same).

A packed model and the dense one that it was made from are the same numbers: see ``packable``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from workbench.model import HookedGptOss
from workbench.model.engines import native
from workbench.model.mxfp4 import pack, unpack

DENSE, EAGER, NATIVE = FORMS = ("dense", "packed-eager", "packed-native")
MATRICES = ("W_gate_up", "W_down")


def held_as(*forms: str) -> Any:
    """A fixture named ``form`` for a conftest or a test module: its tests run once for each of these forms."""

    @pytest.fixture(scope="module", params=forms)
    def form(request: pytest.FixtureRequest) -> Iterator[str]:
        """How the model holds its experts."""
        with through(request.param):
            yield request.param

    return form


def only(*forms: str) -> pytest.MarkDecorator:
    """A mark for tests that say something of these forms only."""
    return pytest.mark.parametrize("form", forms, indirect=True)


def each(dense: int, packed: int) -> list[Any]:
    """Parameters (form, number) of a fixture: so many numbers of the dense form, so many of each packed one."""
    many = {DENSE: dense, EAGER: packed, NATIVE: packed}
    return [pytest.param((form, n), id=f"{form}-{n}") for form in FORMS for n in range(many[form])]


@contextmanager
def through(form: str) -> Iterator[None]:
    """Until the block ends, packed experts go through the engine of this form, in every thread."""
    if form == NATIVE and not native.available():
        _without_the_native_engine()
    with pytest.MonkeyPatch.context() as patch:
        if form != DENSE:
            patch.setenv("WORKBENCH_ENGINE", form.removeprefix("packed-"))
        yield


def _without_the_native_engine() -> None:
    if any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        pytest.fail(f"there is a C compiler here, and no native engine: {native.why_not()}")
    pytest.skip("no C compiler here, and so no native engine")


@torch.no_grad()
def packable(model: HookedGptOss) -> HookedGptOss:
    """The dense model with its expert matrices at numbers that MXFP4 can hold, in place."""
    for block in model.blocks:
        for name in MATRICES:
            weight = getattr(block.mlp.experts, name)
            weight.copy_(unpack(*pack(weight.float()), torch.float32))
    return model


@torch.no_grad()
def held(model: HookedGptOss, form: str) -> HookedGptOss:
    """The packable model in this form: itself if dense, else a copy whose experts are packed."""
    if form == DENSE:
        return model
    state = model.state_dict()
    for name in [name for name in state if name.endswith(MATRICES)]:
        state[f"{name}_blocks"], state[f"{name}_scales"] = pack(state.pop(name).float())
    packed = HookedGptOss(model.config, model.tokenizer, dtype=model.cfg.dtype, experts="packed")
    packed.load_state_dict(state)
    return packed
