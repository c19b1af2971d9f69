"""An atlas that a Dask cluster builds is the one that is built here; a cancel is seen whatever the cluster does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager, suppress

import dask
import pytest
import torch
from distributed import Client, LocalCluster

import workbench as wb
from tests.atlases.conftest import contents
from tests.faults.mapping import SETTINGS, SITES, corpus
from tests.scale.clusters import QUIET
from tests.scale.measures import ROWS, numbers
from tests.scale.test_executors import Answering, KilledWorker, cancelled
from tests.scale.test_schedulers import Place
from tests.small import as_in_a_notebook  # noqa: F401
from workbench.atlases import AtlasError
from workbench.atlases import workers as parts_in_workers
from workbench.atlases.plan import Planned
from workbench.sweeps import cluster as clusters
from workbench.sweeps import sweep
from workbench.sweeps.flight import LOST

DOCUMENTS = corpus(90)
SOON = 5.0  # seconds in which a cancel is seen, on a busy machine
# Checking types at each call takes most of the time, and is done in the tests of atlases.
pytestmark = pytest.mark.usefixtures("as_in_a_notebook")


@pytest.fixture
def both_workers():
    """Only where a test asks for the shared cluster."""


@contextmanager
def single() -> Iterator[None]:
    """With one thread, as the workers have: sums are then the same to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    with single():
        yield


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Built in this process."""
    folder = tmp_path_factory.mktemp("here") / "a"
    with single():
        wb.atlas(wb.load("nano"), DOCUMENTS, folder, sites=SITES, **SETTINGS)
    return contents(folder)


def built(folder, executor, documents=DOCUMENTS, **options):
    return wb.atlas("nano", documents, folder, executor=executor, sites=SITES, **SETTINGS | options)


def at_part(folder, n, action) -> Iterator:
    """The documents, with an action when so many parts are written."""
    left = [action]
    for document in DOCUMENTS:
        if left and len(list((folder / "parts").glob("*.json"))) >= n:
            left.pop()()
        yield document


def test_two_workers_write_the_very_bytes_that_one_process_does(client, here, tmp_path):
    client.wait_for_workers(2, timeout=180)
    assert built(tmp_path / "a", client.get_executor()).complete
    assert contents(tmp_path / "a") == here


def test_workers_whose_code_is_another_write_no_rows(client, tmp_path, monkeypatch):
    client.wait_for_workers(2, timeout=180)
    monkeypatch.setattr(parts_in_workers, "version", lambda: "another version")
    with pytest.raises(RuntimeError, match="another version where the atlas began: have the same version on every"):
        built(tmp_path / "a", client.get_executor())
    assert not list((tmp_path / "a" / "parts").glob("*.json"))


def test_all_workers_restarted_in_the_middle_cost_an_atlas_nothing(client, here, tmp_path):
    client.wait_for_workers(2, timeout=180)

    def restart():
        with suppress(TimeoutError):  # on a busy machine one may come late
            client.restart(timeout=20, wait_for_workers=False)

    built(tmp_path / "a", client.get_executor(), at_part(tmp_path / "a", 2, restart))
    assert contents(tmp_path / "a") == here


def test_an_atlas_that_is_cancelled_leaves_nothing_on_the_cluster_and_goes_on(client, here, tmp_path):
    client.wait_for_workers(2, timeout=180)
    stop, executor = threading.Event(), client.get_executor()
    part = built(tmp_path / "a", executor, at_part(tmp_path / "a", 2, stop.set), cancel=stop)
    assert not part.complete and len(part.parts) >= 2
    deadline = time.monotonic() + 10
    while any(client.processing().values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(client.processing().values())
    assert built(tmp_path / "a", executor).complete and contents(tmp_path / "a") == here


# ---------------------------------------------------------------- nobody there
@pytest.fixture
def empty():
    """A cluster without workers, in this process."""
    with dask.config.set(QUIET), LocalCluster(
        n_workers=0, processes=False, dashboard_address=None, silence_logs=50
    ) as cluster, Client(cluster, set_as_default=False) as client:  # fmt: skip
        yield client


def swept(executor, tmp_path, **options):
    assert sweep(numbers, ROWS, batch=4, executor=executor, progress=False, **options).cancelled


def mapped(executor, tmp_path, **options):
    with pytest.raises(AtlasError, match=r"no part of the atlas .* is finished yet"):
        built(tmp_path / "never", executor, **options)


@contextmanager
def cancelled_after(seconds: float) -> Iterator[threading.Event]:
    """An event that is set so many seconds from now, and seen soon after."""
    stop, begun = threading.Event(), time.monotonic()
    setting = threading.Timer(seconds, stop.set)
    setting.start()
    yield stop
    setting.cancel()
    assert seconds <= time.monotonic() - begun < seconds + SOON


@pytest.mark.parametrize("work", [swept, mapped], ids=["sweep", "atlas"])
def test_a_cancel_is_seen_while_a_cluster_has_no_workers_which_is_said_after_a_while(
    empty, tmp_path, monkeypatch, work
):
    monkeypatch.setattr(clusters, "NOBODY", 0.3)
    kind = {swept: "sweep", mapped: "atlas"}[work]
    with pytest.warns(UserWarning, match=f"has no workers: the {kind} waits for one"), cancelled_after(1) as stop:
        work(empty.get_executor(), tmp_path, cancel=stop)


def test_a_cancel_is_seen_where_no_worker_has_what_the_tasks_need(client):
    client.wait_for_workers(2, timeout=180)
    with cancelled_after(1) as stop:
        swept(client.get_executor(resources={"GPU": 1}), None, cancel=stop)


def test_a_cancel_is_seen_while_the_client_looks_for_its_scheduler(tmp_path):
    with dask.config.set(QUIET), ExitStack() as stack:
        place = Place(stack)
        scheduler, client = place.scheduler(), place.client()
        threading.Timer(0.3, scheduler.kill).start()
        with cancelled_after(2) as stop:  # tasks are under way when it goes
            swept(client.get_executor(), tmp_path, cancel=stop)
        assert client.status == "connecting"
        with cancelled_after(0.5) as stop:  # it is gone from the beginning
            mapped(client.get_executor(), tmp_path, cancel=stop)
        assert client.status == "connecting"


def test_an_atlas_waits_for_a_cluster_that_has_no_workers_yet(empty, here, one_thread, tmp_path):
    coming = threading.Timer(0.5, empty.cluster.scale, [1])
    coming.start()
    assert built(tmp_path / "a", empty.get_executor()).complete and contents(tmp_path / "a") == here


# ---------------------------------------------------------------- one answer each
class OfPart(Answering):
    """Runs what it is given at once, but for one part, of which it gives something else each time."""

    def __init__(self, number, instead):
        super().__init__(lambda asked: instead if self.part == number else None)
        self.part = -1

    def submit(self, function, /, *arguments, **how):
        (self.part,) = (each.number for each in arguments if isinstance(each, Planned))
        return super().submit(function, *arguments, **how)


@pytest.mark.parametrize("loss", [cancelled, OSError("no way"), KilledWorker("it")], ids=["cancelled", "way", "killed"])
def test_a_part_that_is_lost_on_its_way_is_sent_again(here, one_thread, tmp_path, loss):
    executor = Answering(lambda asked: loss if asked in (1, 3) else None)
    made = built(tmp_path / "a", executor)
    assert contents(tmp_path / "a") == here and executor.asked == len(made.parts) + 2


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (OSError("no way"), f"part 2 was lost with its worker {LOST + 1} times: no way; what is finished is kept"),
        (cancelled, f"part 2 was lost {LOST + 1} times: Cancelled.*what is finished is kept"),
        (BrokenExecutor("died"), "part 2 was lost 1 times: Broken.*Make a new executor"),
    ],
    ids=["way", "cancelled", "broken"],
)
def test_a_part_that_is_lost_every_time_ends_the_build_in_words_and_what_is_finished_stays(
    here, one_thread, tmp_path, loss, said
):
    with pytest.raises(AtlasError, match=said):
        built(tmp_path / "a", OfPart(2, loss))
    assert {part.number for part in wb.atlas.open(tmp_path / "a").parts} >= {0, 1}
    assert built(tmp_path / "a", None).complete and contents(tmp_path / "a") == here
