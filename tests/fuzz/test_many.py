"""Made up and damaged files, of every kind that is read: accepted and sound, or refused in one clear error of ours."""

from __future__ import annotations

from tests.fuzz.many import fuzz
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
