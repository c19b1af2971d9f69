"""A Dask worker that is killed at any moment, and another, and the next; a scheduler that is: the atlas is the same."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
import pytest
import torch

import workbench as wb
from tests.atlases.conftest import contents
from tests.faults.killer import KILLS, WITHIN, Killer
from tests.faults.killing import FULL
from tests.faults.mapping import SETTINGS, SITES, corpus
from tests.scale.clusters import QUIET
from tests.scale.test_schedulers import Place
from tests.small import as_in_a_notebook  # noqa: F401
from workbench.atlases.documents import Document

N = 60  # documents, at least
pytestmark = pytest.mark.usefixtures("as_in_a_notebook")


class Stream:
    """Documents for as long as something is killed, which begins when the first part is written."""

    def __init__(self, folder: Path, killing: threading.Thread) -> None:
        self.folder, self.killing, self.begun = folder, killing, False
        self.given: list[Document] = []

    def __iter__(self) -> Iterator[Document]:
        endless = iter(corpus(20_000))
        while not (self.begun and not self.killing.is_alive() and len(self.given) >= N):
            if not self.begun and any((self.folder / "parts").glob("*.json")):
                self.begun = True
                self.killing.start()
            self.given.append(next(endless))
            time.sleep(0.01)  # the work lasts, and stays little
            yield self.given[-1]


def is_as_built_here(folder: Path, stream: Stream) -> None:
    """Byte for byte. Its workers have a thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = folder.with_name("here")
        wb.atlas(wb.load("nano"), stream.given, here, sites=SITES, **SETTINGS)
    finally:
        torch.set_num_threads(before)
    assert wb.atlas.open(folder).complete and contents(folder) == contents(here)


@contextmanager
def workers(request: pytest.FixtureRequest, seed: int) -> Iterator[tuple[Executor, threading.Thread]]:
    """Killed one after the other; their nannies begin them again."""
    client = request.getfixturevalue("client")
    killer = Killer(client.cluster, seed)
    yield client.get_executor(), killer
    assert len(killer.killed) == KILLS  # all of them in the middle of the build


@contextmanager
def scheduler(request: pytest.FixtureRequest, seed: int) -> Iterator[tuple[Executor, threading.Thread]]:
    """Killed, and started again at its address."""
    with dask.config.set(QUIET), ExitStack() as stack:
        place = Place(stack)
        first, worker, client = place.scheduler(), place.worker(), place.client()
        client.wait_for_workers(1, timeout=180)

        def again() -> None:
            time.sleep(random.Random(seed).uniform(0, WITHIN))
            first.kill()
            assert worker.wait(120) is not None  # Dask's workers end with their scheduler
            place.scheduler()
            place.worker()

        yield client.get_executor(), threading.Thread(target=again)


KILLED = [workers, *([scheduler] if FULL else [])]


@pytest.mark.parametrize("killed", KILLED, ids=lambda killed: killed.__name__)
def test_what_is_killed_at_random_moments_costs_an_atlas_no_token_and_doubles_none(request, tmp_path, seed, killed):
    with killed(request, seed) as (executor, killing):
        stream = Stream(tmp_path / "a", killing)
        wb.atlas("nano", stream, tmp_path / "a", executor=executor, sites=SITES, **SETTINGS)
    is_as_built_here(tmp_path / "a", stream)
