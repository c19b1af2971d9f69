"""The same seed on the same machine gives the same bits: twice in one process, and in another with other hashes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_same_work_again_gives_the_same_bits_here_and_in_a_process_with_other_hashes(
    root: Path, tmp_path_factory: pytest.TempPathFactory
):
    def begun(hashes: str, *more: str) -> subprocess.Popen[str]:
        folder = str(tmp_path_factory.mktemp("digests"))
        return subprocess.Popen(
            [sys.executable, "-m", "tests.robust.digests", folder, "1", *more],
            cwd=root,
            env=os.environ | {"PYTHONHASHSEED": hashes, "OMP_NUM_THREADS": "1", "WORKBENCH_RECORDS": "off"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    found = []
    for process in (begun("1", "twice"), begun("77")):
        out, problems = process.communicate(timeout=300)
        assert process.returncode == 0, problems[-3000:]
        found += [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    first, again, elsewhere = found
    assert len(first) >= 20
    assert first == again
    assert first == elsewhere
