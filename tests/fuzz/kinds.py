"""All kinds of input."""

from __future__ import annotations

from tests.fuzz import of_atlases, of_bench, of_checkpoints, of_data, of_lessons, of_records, of_texts

KINDS = [
    *of_checkpoints.KINDS,
    *of_texts.KINDS,
    *of_data.KINDS,
    *of_bench.KINDS,
    *of_atlases.KINDS,
    *of_records.KINDS,
    *of_lessons.KINDS,
]
