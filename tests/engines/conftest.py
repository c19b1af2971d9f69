"""Threads for the engines."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def several_threads() -> Iterator[None]:
    """Products are shared among torch's threads here, also where each process that runs tests has one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(2, before))
    yield
    torch.set_num_threads(before)
