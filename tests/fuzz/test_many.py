"""Made up and damaged files, of every kind that is read: accepted and sound, or refused in one clear error of ours."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.fuzz.many import fuzz
from tests.fuzz.run import numbers
from tests.tables import Table


def test_every_input_is_sound_or_refused_and_nothing_runs_is_written_or_fills_the_memory(
    number: int, seed: int, counted: Table
):
    report = fuzz(number, seed, timeout=60 + number / 20)
    for kind, count in report.counts.items():
        for verdict, times in count.items():
            counted.record(kind, verdict, times)
    for verdict in ("tried", "accepted", "refused", "failed"):
        counted.record(
            f"~ fuzz: all, seed {report.seed}", verdict, sum(count[verdict] for count in report.counts.values())
        )
    assert not report.failures, "\n".join(report.lines())
    assert report.tried >= number * 0.98
    for kind, count in report.counts.items():
        assert count["accepted"] or number < 2000, f"no input of the kind {kind!r} was accepted: it tests no reading"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_the_death_of_a_process_loses_no_count_and_is_told_of():
    def kill():
        us, end = psutil.Process(), time.monotonic() + 60
        while time.monotonic() < end:
            for child in us.children():
                words = child.cmdline()
                so_far = Path(words[words.index("--place") + 1]) / "so-far.json" if "--place" in words else None
                if so_far and so_far.exists() and '"tried": 1' in so_far.read_text():
                    return child.send_signal(signal.SIGKILL)
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    report = fuzz(60, seed=5, timeout=300)
    killer.join()
    (death,) = report.failures
    assert death["wrong"] == f"the process ended with {-signal.SIGKILL}" and "--only" in death["again"]
    # The input at which it died has no verdict: it is the failure.
    assert report.tried >= sum(numbers(60).values()) - 1
