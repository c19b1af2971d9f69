"""Records listed, chosen, compared, pinned and forgotten."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr

import workbench as wb
from tests.provenance.conftest import PARK
from workbench import provenance
from workbench.provenance import Entry, RecordsError, facts, submit

HOSTILE = '<script>alert(1)</script>\x1b[31m\u202e$x$ "&'


def left(**values) -> str:
    """A record without a run; its id."""
    entry = Entry(**{"kind": "run", "started": time.time(), "session": facts.session(), **values})
    submit(entry)
    return entry.id


def ids(records) -> list[str]:
    return [record.id for record in records]


def test_records_are_listed_newest_first():
    made = [left(name=str(i)) for i in range(5)]
    records = wb.records()
    assert len(records) == 5 and ids(records) == made[::-1]
    assert records[0].id == made[4] and records[-1].id == made[0] and records[4].id == made[0]
    assert ids(records[1:3]) == [made[3], made[2]] and ids(records[::-1]) == made
    assert records[made[2]].name == "2" and records[made[2][:6]].name == "2"


def test_a_place_or_an_id_that_is_not_there_is_said():
    left()
    with pytest.raises(IndexError, match="there is no record 1; there are 1"):
        wb.records()[1]
    with pytest.raises(KeyError, match="no record whose id begins with 'ffffffffffff'"):
        wb.records()["ffffffffffff"]
    with pytest.raises(KeyError, match="is no id of a record"):
        wb.records()["' OR 1=1"]


def test_more_than_a_page_of_records_is_read_whole_and_once():
    made = [left() for _ in range(1203)]
    assert ids(wb.records()) == made[::-1]


def test_filters_choose_by_what_runs_are(nano, clean, patched):
    records = wb.records()
    assert ids(records.filter(name="clean")) == [clean.provenance["record"]]
    assert ids(records.filter(spec="Patch")) == ids(records.filter(spec=wb.Steer)) == [patched.provenance["record"]]
    assert len(records.filter(model="nano")) == 2 and len(records.filter(model="nan")) == 0
    fingerprint = clean.provenance["fingerprint"]
    assert len(records.filter(fingerprint=fingerprint)) == len(records.filter(fingerprint=fingerprint[:5])) == 2
    assert ids(records.filter(text="BEN")) == [patched.provenance["record"]]
    assert len(records.filter(kind="run").filter(model="nano").filter(text="mia", name="clean")) == 1
    assert len(records.filter(kind="sweep")) == 0 and not records.filter(kind="sweep")
    assert len(records.filter(session=records[0].session)) == 2


def test_filters_choose_by_time():
    old = left(started=datetime(2026, 1, 2, 3, tzinfo=UTC).timestamp())
    new = left()
    records = wb.records()
    assert ids(records.filter(until="2026-02-01")) == ids(records.filter(until=timedelta(hours=1))) == [old]
    assert ids(records.filter(since=timedelta(hours=1))) == [new]
    assert ids(records.filter(since=datetime(2026, 1, 2, 3, tzinfo=UTC), until="2026-01-02T03:00:01+00:00")) == [old]
    assert ids(records.filter(since=datetime(2026, 1, 2, 3, 0, 1, tzinfo=UTC).isoformat())) == [new]
    with pytest.raises(ValueError, match="since='yesterday': expected a time like"):
        records.filter(since="yesterday")


def test_a_spec_in_a_name_is_no_spec():
    left(name='{"kind":"AblateExpert"}', specs=[{"kind": "Patch", "source": '"kind":"AblateExpert"'}])
    assert len(wb.records().filter(spec="AblateExpert")) == 0 and len(wb.records().filter(spec="Patch")) == 1


def test_hostile_text_neither_runs_in_a_page_nor_moves_a_terminal():
    left(name=HOSTILE, model=HOSTILE, decode=lambda: HOSTILE, specs=[{"kind": HOSTILE}])
    records = wb.records()
    shown = [repr(records), repr(records[0]), records._repr_html_(), repr(records.compare(0, 0))]
    assert not any("\x1b" in text or "\u202e" in text for text in shown)
    page = records._repr_html_()
    assert "<script" not in page and "&lt;script&gt;" in page and "$x$" not in page
    other = left(name="plain")
    beside = records.compare(records[other], records[1])
    assert "<script" not in beside._repr_html_() and "\x1b" not in repr(beside)
    assert records[1].name == HOSTILE and len(records.filter(name=HOSTILE)) == 1


def test_half_a_surrogate_pair_is_no_trouble():
    left(name="a", decode=lambda: "half \ud83d")
    assert wb.records()[0].text == "half \\ud83d"


def test_the_data_frame_has_a_row_for_each_record(clean, patched):
    table = wb.records().to_dataframe()
    assert list(table.index) == [patched.provenance["record"], clean.provenance["record"]]
    assert table.loc[clean.provenance["record"], "name"] == "clean"
    assert table.mean_kl.iloc[0] == pytest.approx(float(patched.kl.mean()), rel=1e-6)
    assert table["torch version"].iloc[0].startswith(torch.__version__.split("+")[0])


def test_an_empty_data_frame_has_its_columns():
    assert list(wb.records().to_dataframe().columns)[:3] == ["kind", "name", "model"]


def test_a_comparison_shows_what_differs_and_nothing_else(nano, clean, patched):
    records = wb.records()
    table = records.compare(clean.provenance["record"], patched.provenance["record"]).table
    assert list(table.loc["name"]) == ["clean", "patched"]
    differ = [int(one != other) for one, other in zip(clean.tokens[0], patched.tokens[0], strict=True)]
    assert table.loc["tokens that differ"].iloc[1] == f"{sum(differ)} of {len(differ)} that both have"
    assert {"intervention 0", "intervention 1", "sources: way"} <= set(table.index)
    assert not {"model", "fingerprint", "seed", "versions: torch"} & set(table.index)
    assert repr(records.compare(0, 0)).endswith("do not differ")


def test_the_divergence_of_two_runs_is_what_scipy_gives(nano, clean, patched):
    found = wb.records().compare(1, 0, rerun=True).kl
    assert found is not None
    p, q = (np.exp(log_softmax(run.logits.double().numpy(), axis=-1)) for run in (clean, patched))
    np.testing.assert_allclose(found, rel_entr(p, q).sum(-1), rtol=1e-8, atol=1e-12)


def test_runs_of_other_lengths_are_compared_without_a_divergence(nano, clean):
    wb.run(nano, PARK * 2)
    found = wb.records().compare(0, 1, rerun=True)
    assert found.kl is None and "cannot be compared" in found.table.loc["KL(a ‖ b), mean"].iloc[1]


def test_what_is_forgotten_is_gone_from_the_files_bytes(nano, path, clean):
    secret = "Xylophone quartz"
    done = wb.run(nano, secret, [wb.Steer("blocks.1.hook_resid_mid", "v")], sources={"v": torch.full((128,), 0.3)})
    assert wb.records()[0].text == secret
    assert wb.records().forget(done.provenance["record"]) == 1
    assert ids(wb.records()) == [clean.provenance["record"]]
    kept = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert secret.encode() not in kept and torch.full((8,), 0.3).numpy().tobytes() not in kept
    assert PARK.encode() in kept


def test_all_of_a_choice_is_forgotten():
    for i in range(1100):
        left(name=str(i % 2))
    assert wb.records().forget(wb.records().filter(name="0")) == 550
    assert {record.name for record in wb.records()} == {"1"}


def test_a_pinned_record_stays_with_the_runs_that_it_needs(nano, clean, patched):
    wb.records().pin(patched.provenance["record"])
    assert all(record.pinned for record in wb.records()) and len(wb.records().filter(pinned=True)) == 2
    with pytest.raises(RecordsError, match=r"are pinned; records.pin\(.*pinned=False\)"):
        wb.records().forget(wb.records())
    wb.records().pin(clean.provenance["record"], pinned=False)
    assert [record.pinned for record in wb.records()] == [True, False]


def test_another_file_is_only_read(path, clean, monkeypatch, tmp_path):
    provenance.flush(path)
    monkeypatch.setenv("WORKBENCH_RECORDS", str(tmp_path / "mine.sqlite"))
    other = wb.records(path)
    assert ids(other) == [clean.provenance["record"]] and len(wb.records()) == 0
    for change in (other.pin, other.forget):
        with pytest.raises(RecordsError, match="is only read"):
            change(clean.provenance["record"])
    assert other[0].reload().provenance["reproduced"] == 1
    with pytest.raises(RecordsError, match="no such file"):
        len(wb.records(tmp_path / "nowhere.sqlite"))


def test_thirty_thousand_records_are_asked_in_two_seconds(path):
    entry = Entry("run", time.time(), name="a", specs=[{"kind": "AblateExpert", "layer": 1}], model="nano")
    left()
    provenance.flush(path)
    _many(path, entry, 30_000)
    began = time.perf_counter()
    assert len(wb.records().filter(spec="AblateExpert", model="nano")) == 30_000
    assert "30001 in" in repr(wb.records()) and wb.records()[-1].kind == "run"
    assert time.perf_counter() - began < 2


def _many(path, entry, n):
    import sqlite3
    from contextlib import closing

    values = entry.settle()
    values.pop("facts")
    marks = ", ".join("?" * len(values))
    lines = ([f"{i:012x}" if name == "id" else value for name, value in values.items()] for i in range(n))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(f"INSERT INTO records ({', '.join(values)}) VALUES ({marks})", lines)
