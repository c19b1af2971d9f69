"""What can happen to the file. The run always goes on; nothing that was written is lost or overwritten."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from contextlib import closing
from pathlib import Path

import pytest

import workbench as wb
from tests.provenance.conftest import PARK
from workbench import provenance
from workbench.provenance import Entry, RecordsError, store, submit, writer
from workbench.provenance.schema import VERSION

# Leaves records until it is killed, and says how many it has left; no torch, so that it starts quickly.
LEAVER = """
import sys, time
from workbench.provenance import Entry, flush, submit
name, n = sys.argv[1], int(sys.argv[2])
for i in range(n):
    submit(Entry("run", time.time(), name=name, about={"i": i}, decode=lambda: "some words " * 20))
    if i % 20 == 19:
        flush()
        print(i + 1, flush=True)
"""


def start(root: Path, code: str, *arguments: str, **environment: str) -> subprocess.Popen:
    """A process that leaves records in this test's file."""
    return subprocess.Popen(
        [sys.executable, "-W", "always", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left(n: int = 1) -> None:
    for i in range(n):
        submit(Entry("run", time.time(), name=str(i)))


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]


def read(path: Path) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT name, about FROM records ORDER BY seq").fetchall()


# ---------------------------------------------------------------- killed


def test_a_process_killed_while_it_writes_leaves_a_whole_file_with_all_that_it_had_flushed(root, path, seed):
    draw = random.Random(seed)
    flushed = []
    for turn in range(6):
        process = start(root, LEAVER, str(turn), "1000000")
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(draw.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[0].split()
        flushed.append(max(map(int, said), default=20))
    assert integrity(path) == "ok"
    for turn, n in enumerate(flushed):
        found = [about for name, about in read(path) if name == str(turn)]
        assert len(found) >= n and found == [f'{{"i":{i}}}' for i in range(len(found))]
    left()
    assert len(wb.records()) == len(read(path))


def test_several_processes_and_threads_leave_all_their_records_in_one_file(root, path):
    processes = [start(root, LEAVER, str(i), "200") for i in range(3)]
    threads = [threading.Thread(target=left, args=(200,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.communicate(timeout=60)[1] for process in processes] == [""] * 3
    provenance.flush(path)
    assert len(read(path)) == 1200 and integrity(path) == "ok"
    assert len({record.id for record in wb.records()}) == 1200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_leaves_records_of_its_own(root, path):
    code = """
import os, time
from workbench.provenance import Entry, facts, flush, submit
def leave(name): submit(Entry("run", time.time(), name=name, session=facts.session())); flush()
leave("before")
if not os.fork():
    leave("child")
    os._exit(0)
os.wait()
leave("parent")
"""
    assert start(root, code).communicate(timeout=60)[1].count("Error") == 0
    records = wb.records()
    assert {record.name for record in records} == {"before", "child", "parent"} and integrity(path) == "ok"
    by_name = {record.name: record.session for record in records}
    assert by_name["before"] == by_name["parent"] != by_name["child"]


def test_what_was_not_written_yet_is_written_when_the_process_ends(root, path):
    code = "import time\nfrom workbench.provenance import Entry, submit\nsubmit(Entry('run', time.time(), name='last'))"
    assert start(root, code).communicate(timeout=60)[1] == ""
    assert read(path)[0][0] == "last"


# ---------------------------------------------------------------- cannot be written


def test_a_place_that_cannot_be_written_gives_one_warning_and_the_runs_go_on(nano, tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("in the way")
    monkeypatch.setenv("WORKBENCH_RECORDS", str(tmp_path / "a file" / "records.sqlite"))
    with pytest.warns(UserWarning, match="runs leave no records: .*WORKBENCH_RECORDS names another file, or is 'off'"):
        first = wb.run(nano, PARK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = wb.run(nano, PARK)
    assert not {"record"} & {*first.provenance, *second.provenance}
    assert first.logits.equal(second.logits) and (tmp_path / "a file").read_text() == "in the way"


def test_a_full_disk_gives_one_warning_and_leaves_a_whole_file(root, path):
    """The limit of a file's size stands for the disk's."""
    code = """
import resource
from workbench.provenance import flush
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
"""
    process = start(root, code + LEAVER, "a", "3000")
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and said.split()[-1] == "3000"
    assert errors.count("UserWarning") == 1 and "runs leave no records" in errors
    provenance.flush(path)
    assert integrity(path) == "ok" and 0 < len(read(path)) < 3000


def test_a_file_of_a_later_version_is_left_as_it_is(nano, path):
    left()
    provenance.flush(path)
    writer.store_of(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    writer._WRITERS.clear()
    before = path.read_bytes()
    with pytest.warns(UserWarning, match=rf"in format {VERSION + 1}, of a later version of this package"):
        wb.run(nano, PARK)
    with pytest.raises(RecordsError, match=rf"this one knows format {VERSION}. Nothing in it was changed"):
        len(wb.records())
    assert path.read_bytes() == before


def test_another_programs_database_is_left_as_it_is(nano, path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (address)")
        connection.commit()
    before = path.read_bytes()
    with pytest.warns(UserWarning, match="is another program's database"):
        wb.run(nano, PARK)
    with pytest.raises(RecordsError, match="another program's database"):
        list(wb.records())
    assert path.read_bytes() == before


# ---------------------------------------------------------------- damaged


def test_a_file_that_is_no_database_is_kept_aside_and_a_new_one_begun(nano, path):
    path.parent.mkdir()
    path.write_bytes(b"no database at all " * 100)
    with pytest.raises(RecordsError, match="is no file of records, or is damaged"):
        len(wb.records())
    with pytest.warns(UserWarning, match=r"are damaged \(.*\): that file is now records.damaged-"):
        wb.run(nano, PARK)
    assert len(wb.records()) == 1
    (aside,) = path.parent.glob("records.damaged-*.sqlite")
    assert aside.read_bytes() == b"no database at all " * 100


def test_a_file_that_is_damaged_while_it_is_in_use_is_kept_aside_too(path):
    left(300)
    provenance.flush(path)
    held = writer.store_of(path)
    held.open().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    held.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    with pytest.warns(UserWarning, match="that file is now records.damaged-"):
        left()
        provenance.flush(path)
    assert len(list(path.parent.glob("records.damaged-*.sqlite"))) == 1
    assert [name for name, _ in read(path)] == ["0"]


def test_a_file_that_was_removed_is_begun_anew(path):
    left()
    provenance.flush(path)
    for file in path.parent.iterdir():
        file.unlink()
    left(2)
    assert len(wb.records()) == 2


def test_a_damaged_row_is_refused_and_says_so(path):
    left()
    provenance.flush(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE records SET summary='{'")
        connection.commit()
    with pytest.raises(RecordsError, match="is damaged: JSONDecodeError"):
        wb.records()[0]


def test_tokens_that_unpack_to_more_than_they_are_fill_no_memory(nano, clean, path):
    import zlib

    provenance.flush(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE records SET tokens=?", (zlib.compress(bytes(2**24)),))
        connection.commit()
    with pytest.raises(RecordsError, match="is damaged: 25 bytes where 24 belong"):
        _ = wb.records()[0].tokens


# ---------------------------------------------------------------- within a size


def test_beyond_the_most_the_oldest_go_but_not_those_that_are_pinned(path):
    left(100)
    first, last = wb.records()[-1].id, wb.records()[0].id
    wb.records().pin(first)
    gone = writer.store_of(path).shrink(most=50)
    names = [record.id for record in wb.records()]
    assert gone == 55 and len(names) == 45 and names[0] == last and names[-1] == first


def test_beyond_the_largest_size_the_oldest_go_and_the_file_shrinks(path):
    for i in range(400):
        submit(Entry("run", time.time(), name=str(i), about={"text": os.urandom(2000).hex()}))
    provenance.flush(path)
    keeper = writer.store_of(path)
    keeper.open().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    before = path.stat().st_size
    assert keeper.shrink(largest=before // 2) > 0
    keeper.open().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert path.stat().st_size <= before // 2
    names = [int(record.name or -1) for record in wb.records()]
    assert names == list(range(399, 399 - len(names), -1)) and len(names) > 100


def test_vectors_go_with_the_last_record_that_has_them(nano, rows, path):
    import torch

    for value in (1.0, 2.0, 2.0):
        vector = torch.full((nano.config.d_model,), value)
        wb.run(nano, PARK, [wb.Steer("blocks.1.hook_resid_mid", "v")], sources={"v": vector})
    ids = [record.id for record in wb.records()]
    wb.records().forget(ids[1:])
    (vector,) = rows("SELECT data FROM vectors")
    assert vector["data"] == torch.full((nano.config.d_model,), 2.0).numpy().tobytes()


def test_the_size_is_looked_at_while_runs_are_made(path, monkeypatch):
    monkeypatch.setattr(store, "LOOK_EVERY", 10)
    monkeypatch.setattr(store, "MOST", 30)
    for _ in range(10):
        left(10)
        provenance.flush(path)
    assert len(wb.records()) <= 30


def test_records_that_come_faster_than_the_disk_are_left_out_with_one_warning(path, monkeypatch):
    monkeypatch.setattr(writer, "WAITING", 5)
    monkeypatch.setattr(writer, "GATHER", 0)
    slow = writer.Writer(path)
    stop = threading.Event()
    monkeypatch.setattr(slow.store, "write", lambda batch: stop.wait(10))
    with pytest.warns(UserWarning, match="faster than .* takes them; some were left out") as warned:
        began = time.monotonic()
        for _ in range(500):
            slow.put(Entry("run", time.time()))
        took = time.monotonic() - began
    stop.set()
    assert len(warned) == 1 and took < 1
    slow.flush()
