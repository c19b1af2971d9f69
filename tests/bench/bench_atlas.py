"""The atlas of nano: tokens a second written, answers over ten million routes, memory over the length of a corpus.

python -m tests.bench.bench_atlas            about three minutes on 2 cores
python -m tests.bench.bench_atlas --quick    a fifth of it
"""

from __future__ import annotations

import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import xarray as xr

import workbench as wb
from tests.bench.common.options import Options, main
from tests.bench.common.results import Demand, Part
from workbench.atlases.documents import Document, document
from workbench.atlases.folder import Folder
from workbench.atlases.folder import Part as Written
from workbench.atlases.rows import Rows, rows_of
from workbench.atlases.settings import PART_TOKENS, settings_for
from workbench.atlases.tables import tables_of
from workbench.checkpoints import load_once, recipe_of
from workbench.training.microworld import DOCUMENTS

PART = 32_768  # tokens: so that two processes end together
QUERIES_DEMAND = 1.0
MEMORY_DEMAND = 16 * 2**20


def run(options: Options) -> list[Part]:
    """The three parts."""
    threads = torch.get_num_threads()
    try:
        return [_writing(options), _asking(options), _memory(options)]
    finally:
        torch.set_num_threads(threads)


# ---------------------------------------------------------------- writing
def _corpus(n_documents: int, seed: int = 0) -> Iterator[Document]:
    """Microworld documents, each domain in turn, drawn as they are asked for."""
    drawn, names = random.Random(seed), itertools.cycle(DOCUMENTS)
    return (document(DOCUMENTS[next(names)](drawn), str(i)) for i in range(n_documents))


def _writing(options: Options) -> Part:
    part = Part("atlas_written", "an atlas of nano on the microworld, written to disk", ["ours"])
    options.say(part.title)
    model, n_documents = wb.load("nano"), 2_000 if options.quick else 9_000
    documents = list(_corpus(n_documents))
    settings = settings_for(model, part_tokens=PART)
    n_tokens = sum(len(model.text.encode(str(each.content))) for each in documents)
    rounds = options.rounds or (1 if options.quick else 3)
    one, many = "one process, one thread", f"one process, {options.threads} threads"
    shared = f"{options.threads} processes of one thread, with an executor"
    works: dict[str, tuple[int, Callable[[Any], Any]]] = {
        "only the passes, nothing written, one thread": (1, lambda _: rows_of(model, settings, documents)),
        one: (1, lambda folder: _built(model, n_documents, folder)),
    }
    if not options.quick:  # beside other work, two threads that wait for each other at every product take minutes
        works[many] = (options.threads, lambda folder: _built(model, n_documents, folder))
    with _pool(options.threads) as pool:
        works[shared] = (1, lambda folder: _built(model, n_documents, folder, executor=pool))
        for _ in range(rounds):
            for name, (threads, work) in works.items():
                torch.set_num_threads(threads)
                with tempfile.TemporaryDirectory() as folder:
                    start, before = time.perf_counter(), _processor(pool)
                    work(Path(folder) / "atlas")
                    part.cell(name, n_tokens, "ours").rounds.append([time.perf_counter() - start])
                    part.cell(name, n_tokens, "ours").processor.append(_processor(pool) - before)
    speeds = {name: n_tokens / (part.cell(name, n_tokens, "ours").median or np.nan) for name in works}
    for name, speed in speeds.items():
        worked = n_tokens / statistics.median(part.cell(name, n_tokens, "ours").processor)
        part.notes.append(f"{name}: {speed:,.0f} tokens/s, {worked:,.0f} a second of processor time")
        options.say(f"  {part.notes[-1]}")
    part.notes.append(f"{n_tokens:,} tokens of {n_documents:,} documents, drawn while they are read")
    part.roofline = {"tokens_a_second": speeds}
    best = max(speed for name, speed in speeds.items() if name in (one, many, shared))
    part.demands.append(Demand("tokens a second on 2 cores, written", best, 20_000, unit=" tokens/s"))
    return part


def _built(model: Any, n_documents: int, folder: Path, **more: Any) -> None:
    atlas = wb.atlas(model, _corpus(n_documents), folder, part_tokens=PART, progress=False, **more)
    assert atlas.complete and atlas.n_documents == n_documents
    atlas.close()


def _pool(n: int) -> ProcessPoolExecutor:
    """Processes that have loaded the model: that is done once, whatever the corpus."""
    pool = ProcessPoolExecutor(n, mp_context=get_context("spawn"), initializer=_ready)
    list(pool.map(_ready, range(2 * n)))
    return pool


def _ready(*_: Any) -> None:
    torch.set_num_threads(1)
    load_once(recipe_of("nano"))
    time.sleep(0.2)  # so that the others of the pool get one too


def _processor(pool: ProcessPoolExecutor) -> float:
    """Seconds of processor time, of this process and the pool's."""
    pids = [os.getpid(), *(pool._processes or {})]
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


# ---------------------------------------------------------------- asking
def _asking(options: Options) -> Part:
    part = Part("atlas_asked", "questions to an atlas of random routes", ["ours"])
    with tempfile.TemporaryDirectory() as folder:
        n_rows = _random_atlas(Path(folder), 125_000 if options.quick else 625_000)
        options.say(f"{part.title}: {n_rows:,} rows, {_size(Path(folder)) / 2**20:.0f} MB")
        atlas = wb.atlas.open(folder)
        xr.Dataset({"made": 0})  # a process' first: xarray then imports dask, where it is installed
        works = {
            "top 20 of an expert": lambda: atlas.top(3, 5),
            "top 20, one a document": lambda: atlas.top(3, 5, per_document=1),
            "20 contexts of an expert": lambda: atlas.contexts(3, 5),
            "load": atlas.load,
            "specialisation by domain": atlas.specialisation,
            "specialisation by channel": lambda: atlas.specialisation("channel"),
            "coactivation of a layer": lambda: atlas.coactivation(3),
            "SQL: count and mean weight of every expert": lambda: atlas.sql(
                "select layer, expert, count(*), avg(weight) from routing group by layer, expert"
            ),
        }
        first: dict[str, float] = {}
        for name, work in works.items():
            cell = part.cell(name, 0, "ours")
            for turn in range(1 + (options.rounds or 5)):
                start = time.perf_counter()
                work()
                seconds = time.perf_counter() - start
                if turn:
                    cell.rounds.append([seconds])
                else:
                    first[name] = seconds
            part.notes.append(f"{name}: first {first[name]:.3f} s, then {cell.median:.3f} s")
            options.say(f"  {part.notes[-1]}")
            part.demands.append(Demand(name, max(first[name], cell.median or 0), QUERIES_DEMAND, False, " s"))
        atlas.close()
    part.roofline = {"rows": n_rows, "first_seconds": first}
    return part


def _random_atlas(folder: Path, n_tokens: int) -> int:
    """Four layers of 32 experts, top 4, each domain with experts of its own liking; written by the writer itself."""
    n_layers, n_experts, n_slots, names = 4, 32, 4, ("news", "code", "mathematics", "chat", "law")
    about = {"model": "random", "n_layers": n_layers, "n_experts": n_experts, "n_slots": n_slots, "interventions": []}
    place, drawn = Folder(folder), np.random.default_rng(0)
    place.prepare({"model": "random", "tokenizer": None, "max_length": 1024, "version": 0, "sites": []}, about)
    liking = drawn.normal(size=(n_layers, len(names), n_experts)).astype(np.float32)
    first = 0
    for number in range(-(-n_tokens // PART_TOKENS)):
        n = min(PART_TOKENS, n_tokens - number * PART_TOKENS)
        ends = np.unique(np.append(np.cumsum(drawn.integers(20, 400, n // 20)).clip(max=n), n))
        lengths = np.diff(ends, prepend=0)
        domain = drawn.integers(0, len(names), len(lengths))
        logits = drawn.normal(size=(n_layers, n, n_experts)).astype(np.float32)
        logits += liking[:, np.repeat(domain, lengths)]
        experts = np.argsort(-logits, axis=-1)[..., :n_slots]
        weights = np.exp(np.take_along_axis(logits, experts, -1))
        weights /= weights.sum(-1, keepdims=True)
        said = [np.repeat(drawn.integers(-1, high, len(lengths)), lengths).astype(np.int8) for high in (5, 3)]
        tokens = drawn.zipf(1.3, n).clip(max=200_000).astype(np.int32)
        rows = Rows(lengths, tokens, said[0], said[1], experts.astype(np.uint8), weights, {})
        documents = [Document("", str(first + i), names[d], "en") for i, d in enumerate(domain)]
        place.add(Written(number, first, len(documents), n, 0, ""), tables_of(rows, documents, first))
        first += len(documents)
    return n_tokens * n_layers * n_slots


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


# ---------------------------------------------------------------- memory
PEAK = """
import sys, tempfile, torch
from tests.bench.bench_atlas import _corpus, wb
from tests.bench.common.memory import peaks
torch.set_num_threads(1)
def build(n):
    with tempfile.TemporaryDirectory() as folder:
        wb.atlas("nano", _corpus(n), folder + "/a", part_tokens=8192, progress=False).close()
build(500)  # what is made once
with peaks() as found:
    build(int(sys.argv[1]))
print(found["private"])
"""


def _memory(options: Options) -> Part:
    part = Part("atlas_memory", "peak memory of a build, by the length of its corpus", ["ours"])
    options.say(part.title)
    short = 1_500 if options.quick else 3_000
    peaks = {n: _peak(n) for n in (short, 4 * short)}
    for n, peak in peaks.items():
        cell = part.cell(f"{n:,} documents", 0, "ours")
        cell.private = peak
        part.notes.append(f"{n:,} documents: {peak / 2**20:,.1f} MB")
        options.say(f"  {part.notes[-1]}")
    grown = peaks[4 * short] - peaks[short]
    text = "growth of the peak from a corpus to one four times as long"
    part.demands.append(Demand(text, grown / 2**20, MEMORY_DEMAND / 2**20, False, " MB"))
    return part


def _peak(n_documents: int) -> int:
    """Bytes, of a process of its own."""
    command = [sys.executable, "-c", PEAK, str(n_documents)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[2])
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    main(run, __doc__)
