"""A thousand edited runs in a row, hundreds of texts and acts on a Bench: nothing is held that was not held before."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.tables import Table

# What may come with the allocator and with small caches. A Bench stops at another state than it began with: other runs
# are in its memory; and its history keeps the interventions of each state, some kilobytes.
MOST = {"MB": 8.0, "Python MB": 0.5}
MOST_OF_A_BENCH = {"MB": 12.0, "Python MB": 3.0, "tensors": 60, "runs": 2, "threads": 1, "files": 1}


def test_many_in_a_row_leave_memory_objects_threads_and_files_as_they_were(
    full: bool, root: Path, tmp_path: Path, tables: dict[str, Table]
):
    asked = ["runs=10000", "texts=1000", "bench=1000"] if full else ["runs=1000", "texts=40", "bench=40"]
    command = [sys.executable, "-m", "tests.robust.leaks", str(tmp_path), *asked]
    done = subprocess.run(command, cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for kind, made in json.loads(done.stdout.splitlines()[-1]).items():
        grown = {name: made["after"][name] - made["before"][name] for name in made["after"]}
        table = Table("Robustness: grown after many in a row", ["times", *grown], perfect=0.0, form=".1f")
        table = tables.setdefault(table.title, table)
        for column, value in {"times": made["n"], **grown}.items():
            table.record(kind, column, float(value))
        most = MOST_OF_A_BENCH if kind == "bench" else MOST
        assert not {name: value for name, value in grown.items() if value > most.get(name, 0)}, made
        assert made["after"]["hooks"] == 0
        # Of three acts one is undone and one taken back: a Bench remembers specs of each, and no run but the last two.
        assert made.get("history", 0) <= 3 * made["n"] + 200 and made["after"]["runs"] <= 4
