"""A store of its own for each test, and the same file read without our code."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from workbench import provenance

PARK, LAKE = "Mia went to the park.", "Ben went to the park."


@pytest.fixture(scope="session")
def nano() -> wb.HookedGptOss:
    return wb.load("nano")


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the runs of this test leave their records."""
    path = tmp_path / "data" / "records.sqlite"
    monkeypatch.setenv("WORKBENCH_RECORDS", str(path))
    yield path
    provenance.flush(path)


@pytest.fixture
def rows(path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Rows of the file, oldest first, as SQLite itself reads them."""

    def read(query: str = "SELECT * FROM records ORDER BY seq") -> list[dict[str, Any]]:
        provenance.flush(path)
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]

    return read


@pytest.fixture
def clean(nano: wb.HookedGptOss, path: Path) -> wb.Run:
    return wb.run(nano, PARK, name="clean")


@pytest.fixture
def patched(nano: wb.HookedGptOss, clean: wb.Run) -> wb.Run:
    """A run that takes something from another one and from a vector."""
    specs = [wb.Patch("blocks.1.hook_resid_mid", "clean", positions=(1,)), wb.Steer("blocks.2.hook_resid_mid", "way")]
    vector = torch.linspace(-1, 1, nano.config.d_model)
    return wb.run(nano, LAKE, specs, sources={"clean": clean, "way": vector}, name="patched")
