"""What every script here takes, and how each one ends."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.common import machine
from tests.bench.common.results import Part


@dataclass(frozen=True)
class Options:
    """``quick``: small shapes, few rounds, nothing to download or to build. ``folder``: where made checkpoints are
    kept from one run to the next. ``longest``: rows of more tokens are left out."""

    quick: bool
    threads: int
    rounds: int
    folder: Path
    full_20b: Path
    longest: int
    malloc: str = "default"

    def say(self, text: str) -> None:
        """A line of progress, with the time of day."""
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all scripts share."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    kept = Path(os.environ.get("WORKBENCH_BENCH_DIR") or Path.home() / ".cache" / "workbench-bench")
    made.add_argument("--quick", action="store_true", help="a short form, on small shapes")
    made.add_argument("--threads", type=int, default=cores, help=f"of every subject; default {cores}, all cores")
    made.add_argument("--rounds", type=int, default=0, help="turns that each subject gets at each work; default 5 or 3")
    made.add_argument("--folder", type=Path, default=kept, help=f"where checkpoints are made and kept; default {kept}")
    made.add_argument("--full", type=Path, help="the full synthetic 20b; default $WORKBENCH_20B, else FOLDER/synth20b")
    made.add_argument("--longest", type=int, default=1024, help="leave out work on more tokens than these")
    made.add_argument("--malloc", choices=sorted(machine.MALLOC), default="default", help="alike for every subject")
    return made


def options_of(given: argparse.Namespace) -> Options:
    """Parsed arguments as a value."""
    full = given.full or Path(os.environ.get("WORKBENCH_20B") or given.folder / "synth20b")
    folder, full = given.folder.expanduser(), full.expanduser()
    return Options(given.quick, given.threads, given.rounds, folder, full, given.longest, given.malloc)


def main(run: Callable[[Options], list[Part]], description: str | None) -> None:
    """A script alone: the machine, the figures as they come, the demands, and a last line of JSON."""
    options = options_of(parser(description).parse_args())
    here = machine.describe(options.threads)
    print(machine.warning(here) + machine.sentence(here), flush=True)
    parts = run(options)
    for part in parts:
        show(part)
    print(json.dumps({"machine": here, "malloc": options.malloc, "parts": {p.name: p.as_json() for p in parts}}))


def show(part: Part) -> None:
    """A part's table, notes and demands."""
    print(f"\n{part.title}")
    for work, tokens in part.rows():
        print("  " + part.line(work, tokens))
    for text in (*part.notes, *(demand.line() for demand in part.demands)):
        print(f"  {text}")
    print(flush=True)
