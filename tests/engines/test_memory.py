"""Packed experts are never held unpacked: one matrix at a time while it is used, and none afterwards."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from tests.engines.numbers import Packed
from tests.forms import EAGER, NATIVE, through
from workbench.model import engines


class Held(TorchDispatchMode):
    """The most bytes that tensors made inside the block, and not there before it, held at any one time."""

    def __init__(self, *there: Tensor) -> None:
        super().__init__()
        self.there = {tensor.untyped_storage()._cdata for tensor in there}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    @property
    def now(self) -> int:
        self.alive = {key: each for key, each in self.alive.items() if not each[0].expired()}
        return sum(n_bytes for _, n_bytes in self.alive.values())

    def __torch_dispatch__(self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else [made]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.there:
                    self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.most = max(self.most, self.now)
        return made


@pytest.fixture
def large(seed: int) -> Iterator[Packed]:
    """8 experts of 4 MB in float32, 2 MB in bfloat16, and next to no rows."""
    engines.release_scratch()
    yield Packed.random([2, 1, 0, 1, 2, 1, 1, 2], 1024, 1024, torch.float32, seed)
    engines.release_scratch()


@pytest.mark.parametrize("form", [EAGER, NATIVE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_and_backward_never_hold_more_than_one_unpacked_matrix(
    large: Packed, form: str, dtype: torch.dtype
) -> None:
    matrix = 1024 * 1024 * dtype.itemsize
    rows, large.bias = large.rows.to(dtype).requires_grad_(), large.bias.to(dtype).requires_grad_()
    with through(form), Held(large.blocks, large.scales, rows, large.bias) as held:
        made = large.linear(rows)
        after_forward = held.now
        (made * made).sum().backward()
    activations = 20 * rows.nbytes
    unpacking = 2**21 + 2**18  # the indices, int32, of up to a million bytes at a time: here all, for two numbers each
    assert matrix <= held.most <= matrix + unpacking + activations
    assert after_forward <= activations + (matrix if form == EAGER else 0)
    del made
    engines.release_scratch()
    assert held.now <= activations  # nothing unpacked is left


def test_what_is_kept_for_backward_is_the_bytes_that_are_there_anyway(large: Packed) -> None:
    rows = large.rows.requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        made = large.linear(rows)
    assert not kept
    ref = weakref.ref(made.grad_fn)
    assert made.grad_fn.blocks is large.blocks and made.grad_fn.scales is large.scales
    del made
    assert ref() is None
