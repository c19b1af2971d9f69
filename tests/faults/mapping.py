"""Atlases that are killed: python mapping.py FOLDER N KILLS SEED. It prints a line of JSON for each life.

The model is loaded once; each life is a fork, so that many kills take little time. A life is killed a random number of
passes and milliseconds after it began, however fast the machine is. FOLDER/killed is the atlas that they go on with,
FOLDER/both one that two lives build at once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

import workbench as wb
from workbench.atlases import rows
from workbench.atlases.documents import Document, document
from workbench.atlases.folder import Folder
from workbench.training.microworld import DOCUMENTS

SETTINGS = {"part_tokens": 400, "batch_tokens": 256, "max_length": 96, "progress": False}
SITES = ["blocks.1.hook_resid_post"]
PASSES = 8  # at most, before a kill: about three parts
WRITES = 0.03  # seconds after the last of them in which the kill lies: in a pass, a write, or between


def corpus(n: int) -> list[Document]:
    """Documents of every domain in turn."""
    drawn, names = random.Random(7), list(DOCUMENTS)
    return [document(DOCUMENTS[names[i % len(names)]](drawn), f"d{i}") for i in range(n)]


def lines_of(path: Path) -> list[int]:
    """The tokens of each pass so far."""
    return [int(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def fork(work: Callable[[], object]) -> int:
    """A child that does it and ends: 0, or 3 after an error, which it prints."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:
        sys.stderr.write(traceback.format_exc())
        sys.stderr.flush()
        os._exit(3)


def status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _lives(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def said(**found: object) -> None:
    print(json.dumps(found), flush=True)


def main(folder: str, n: str, kills: str, seed: str) -> None:
    torch.set_num_threads(1)
    place, passes = Path(folder), Path(folder) / "passes"
    model, documents, moments = wb.load("nano"), corpus(int(n)), random.Random(int(seed))
    model.text.encode("once")
    run = rows._run

    def noted(model, settings, made, windows) -> None:
        file = os.open(passes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{sum(length for _, length in windows)}\n".encode())
        os.close(file)
        run(model, settings, made, windows)

    rows._run = noted
    for _ in range(int(kills)):
        begun = len(lines_of(passes))
        child = fork(lambda: wb.atlas(model, documents, place / "killed", sites=SITES, **SETTINGS))
        after = moments.randint(1, PASSES)
        while len(lines_of(passes)) < begun + after and _lives(child):
            time.sleep(0.001)
        time.sleep(moments.uniform(0, WRITES))
        os.kill(child, signal.SIGKILL)
        ended = status(child)
        parts = Folder(place / "killed").parts(whole=True) if (place / "killed" / "atlas.json").exists() else {}
        said(status=ended, parts={i: part.n_tokens for i, part in parts.items()}, passes=len(lines_of(passes)))
    said(status=status(fork(lambda: wb.atlas(model, documents, place / "killed", sites=SITES, **SETTINGS))))
    both = [fork(lambda: wb.atlas(model, documents[:120], place / "both", sites=SITES, **SETTINGS)) for _ in range(2)]
    said(both=[status(child) for child in both])


if __name__ == "__main__":
    main(*sys.argv[1:])
