"""Dask clusters of this machine for tests: two workers of one thread each, or a scheduler and workers as commands."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

ROOT = Path(__file__).resolve().parents[2]
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "logging.distributed": "critical",
    "distributed.comm.timeouts.connect": "60s",  # on a busy machine a worker takes its time to start
}


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of two worker processes with a nanny each, which starts a worker again that was killed."""
    with dask.config.set(QUIET | {"temporary-directory": str(tmp_path_factory.mktemp("dask"))}), LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster, Client(cluster) as client, two_always(cluster):  # fmt: skip
        yield client


@contextmanager
def two_always(cluster: LocalCluster) -> Iterator[None]:
    """What SLURM and Kubernetes do: begin another worker for one that is gone. A nanny that cannot restart its worker
    in time, as on a busy machine, leaves with it."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(2):
            if len(cluster.workers) < 2:
                cluster.scale(2)

    watching = threading.Thread(target=look, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


@pytest.fixture(autouse=True)
def both_workers(client: Client) -> None:
    """Each test begins with two workers, whatever the one before did to them."""
    client.wait_for_workers(2, timeout=180)


@contextmanager
def command(kind: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``dask scheduler …`` or ``dask worker …`` as its own process, which is gone afterwards."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
        "DASK_LOGGING__DISTRIBUTED": "critical",
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]


def pids(client: Client) -> dict[str, int]:
    """Of the workers, by address."""
    found: dict[str, Any] = client.run(os.getpid)
    return found
