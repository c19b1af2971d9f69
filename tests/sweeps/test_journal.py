"""What is in a journal was finished, once, and whole; what was finished is in it, whatever stopped the process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.sweeps.journal import Journal, JournalError, decoded, encoded

LABELLED = xr.DataArray(
    np.arange(6, dtype=np.float32).reshape(2, 3),
    {"layer": [0, 1], "token": ("pos", ["a", "\n", "é"])},
    ("layer", "pos"),
)


def cells_of(journal):
    return dict(journal.read())


def test_what_one_process_kept_another_reads_as_it_was(tmp_path):
    with Journal(tmp_path, "study") as journal:
        journal.append([("a", {"value": 0.1}), ("b", {"value": 2, "flag": True, "nan": float("nan")})])
        journal.append([("c", {"grid": LABELLED})])
    found = cells_of(Journal(tmp_path, "study"))
    assert found["a"] == {"value": 0.1}
    assert found["b"]["value"] == 2 and found["b"]["flag"] is True and np.isnan(found["b"]["nan"])
    xr.testing.assert_identical(found["c"]["grid"], LABELLED)
    assert found["c"]["grid"].dtype == np.float32


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.text(), st.dictionaries(st.text(min_size=1), st.floats() | st.integers() | st.booleans())))
)
def test_any_names_and_numbers_come_back_exactly(cells):
    found = list(decoded(encoded(cells)))
    assert [name for name, _ in found] == [name for name, _ in cells]
    for (_, value), (_, back) in zip(cells, found, strict=True):
        assert {name: repr(each) for name, each in value.items()} == {name: repr(each) for name, each in back.items()}


@pytest.mark.parametrize("cut", (1, 5, 12, 20, 28, 35, 40, 60))
def test_a_torn_end_is_dropped_and_said_and_what_is_before_it_stays(tmp_path, cut):
    with Journal(tmp_path, "study") as journal:
        for i in range(5):
            journal.append([(str(i), {"value": float(i)})])
    (path,) = journal.place.glob("*.cells")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with pytest.warns(UserWarning, match="not written whole"):
        found = cells_of(Journal(tmp_path, "study"))
    assert found == {str(i): {"value": float(i)} for i in range(len(found))} and 0 < len(found) < 5


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_byte_never_becomes_a_wrong_number(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("journal")
    with Journal(tmp_path, "study") as journal:
        for i in range(4):
            journal.append([(str(i), {"value": float(i), "grid": LABELLED * i})])
    (path,) = journal.place.glob("*.cells")
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(raw))
    with pytest.warns(UserWarning, match="not written whole"):
        found = cells_of(Journal(tmp_path, "study"))
    for name, value in found.items():
        assert value["value"] == float(name)
        xr.testing.assert_equal(value["grid"], LABELLED * int(name))
    assert len(found) < 4


WRITER = """
import sys
from workbench.sweeps.journal import Journal
journal = Journal(sys.argv[1], "study")
i = 0
while True:
    journal.append([(f"{sys.argv[2]}-{i}-{j}", {"value": i + j / 10}) for j in range(10)])
    print(i, flush=True)
    i += 1
"""


def test_two_processes_killed_while_they_write_lose_and_mix_nothing(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], stdout=subprocess.PIPE, text=True)
        for name in ("left", "right")
    ]
    for writer in writers:
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < 30:
            pass
    time.sleep(0.05)
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
    said = {}
    for name, writer in zip(("left", "right"), writers, strict=True):
        rest = writer.communicate()[0].split()
        said[name] = int(rest[-1]) if rest else 30
    found = cells_of(Journal(tmp_path, "study"))
    for name, last in said.items():
        for i in range(last + 1):  # whatever was said to be kept is there
            assert [found[f"{name}-{i}-{j}"]["value"] for j in range(10)] == [i + j / 10 for j in range(10)]
    assert all(value["value"] == int(key.split("-")[1]) + int(key.split("-")[2]) / 10 for key, value in found.items())


def test_studies_do_not_see_each_other(tmp_path):
    with Journal(tmp_path, "one", {"model": "a"}) as one, Journal(tmp_path, "two", {"model": "b"}) as two:
        one.append([("cell", {"value": 1.0})])
        assert cells_of(two) == {}
        assert two.others()["one"]["model"] == "a"


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="give journal= a folder"):
        Journal(tmp_path / "file", "study")


def test_a_full_disk_costs_the_batch_and_nothing_before_it(tmp_path):
    """/dev/full's error in the place of a disk's: part of a batch is written, then no more."""
    journal = Journal(tmp_path, "study")
    journal.append([("first", {"value": 1.0})])
    real = journal._file

    class Full:
        name = real.name

        def write(self, data):
            real.write(bytes(data)[:20])
            raise OSError(28, "No space left on device")

        def __getattr__(self, name):
            return getattr(real, name)

    journal._file = Full()
    with pytest.raises(JournalError, match=r"No space left.*goes on from there"):
        journal.append([("second", {"value": 2.0})])
    journal._file = real
    journal.append([("third", {"value": 3.0})])
    journal.close()
    assert cells_of(Journal(tmp_path, "study")) == {"first": {"value": 1.0}, "third": {"value": 3.0}}


def test_the_journal_says_what_it_is_of(tmp_path):
    Journal(tmp_path, "study", {"measure": "lens", "model": "nano"})
    assert json.loads((tmp_path / "study" / "study.json").read_text())["measure"] == "lens"
