"""What a run leaves behind. The truth is the file as SQLite reads it, and hashlib."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import statistics
import subprocess
import sys
import time
import zlib
from importlib.metadata import version

import numpy as np
import psutil
import pytest
import torch

import workbench as wb
from tests.provenance.conftest import LAKE, PARK
from workbench.activations import written
from workbench.model.fingerprint import fingerprint


def test_a_run_leaves_one_row_that_says_how_it_was_made(nano, rows, clean):
    (row,) = rows()
    assert clean.provenance["record"] == row["id"]
    assert (row["kind"], row["name"], row["model"], row["routing"]) == ("run", "clean", "nano", "live")
    assert row["fingerprint"] == fingerprint(nano)
    assert json.loads(row["recipe"]) == {"path": "nano", "dtype": None, "device": None, "experts": "auto"}
    assert abs(row["started"] - time.time()) < 60 and 0 < row["seconds"] < 60
    assert json.loads(row["specs"]) == [] and json.loads(row["sites"]) is None
    assert row["text"] == PARK and int(row["seed"]) == torch.initial_seed()


def test_tokens_mask_and_logits_have_the_digests_that_hashlib_gives(nano, rows):
    tokens = torch.randint(3, 900, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 5:] = False
    done = wb.run(nano, tokens, attention_mask=mask)
    (row,) = rows()
    raw = tokens.numpy().astype("<i4").tobytes()
    assert zlib.decompress(row["tokens"]) == raw and json.loads(row["shape"]) == [2, 7]
    assert row["tokens_digest"] == hashlib.sha256(raw).hexdigest()
    assert row["mask_digest"] == hashlib.sha256(np.packbits(mask.numpy()).tobytes()).hexdigest()
    assert row["result"] == hashlib.sha256(done.logits.numpy().tobytes()).hexdigest()


def test_tokens_that_are_changed_after_the_run_are_recorded_as_they_were(nano, rows):
    tokens = torch.arange(3, 10)[None]
    done = wb.run(nano, tokens)
    tokens[:] = 0
    done.logits[:] = 0
    assert wb.records()[0].tokens.tolist() == [[*range(3, 10)]]
    assert rows()[0]["result"] == hashlib.sha256(nano(torch.arange(3, 10)[None]).detach().numpy().tobytes()).hexdigest()


def test_the_summary_is_of_real_tokens_only(nano, rows):
    tokens = torch.randint(3, 900, (2, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 5:] = False
    done = wb.run(nano, tokens, [wb.AblateExpert(1, 2)], attention_mask=mask)
    summary = json.loads(rows()[0]["summary"])
    assert done.kl is not None and done.flipped_routes is not None
    assert summary["mean_kl"] == pytest.approx(float(done.kl[mask].mean()), rel=1e-6)
    assert summary["flipped"] == pytest.approx(float(done.flipped_routes[:, mask].float().mean()), rel=1e-6)
    assert summary["next_tokens"] == [int(done.logits[0, 6].argmax()), int(done.logits[1, 4].argmax())]


def test_versions_and_machine_are_those_of_this_process(rows, clean):
    facts = json.loads(rows("SELECT facts FROM environments")[0]["facts"])
    for package in ("torch", "transformers", "transformer-lens"):
        assert facts["versions"][package] == version(package)
    assert facts["versions"]["workbench"] == wb.__version__
    assert facts["versions"]["python"] == sys.version.split()[0]
    assert facts["machine"]["threads"] == torch.get_num_threads()
    assert facts["machine"]["cores"] == os.cpu_count()
    assert facts["machine"]["memory"] == psutil.virtual_memory().total
    assert facts["machine"]["device"] == "cpu" and facts["machine"]["engine"] in ("native", "eager")


def test_sources_are_named_by_their_records_and_vectors_kept_by_their_bytes(nano, rows, clean, patched):
    first, second = rows()
    sources = json.loads(second["sources"])
    assert sources["clean"] == {"record": first["id"]}
    (vector,) = rows("SELECT * FROM vectors")
    assert vector["data"] == torch.linspace(-1, 1, nano.config.d_model).numpy().tobytes()
    assert sources["way"]["vector"] == vector["digest"] and sources["way"]["shape"] == [nano.config.d_model]


def test_one_vector_of_many_runs_is_kept_once(nano, rows):
    vector = torch.ones(nano.config.d_model)
    for scale in (1.0, 2.0, 3.0):
        wb.run(nano, PARK, [wb.Steer("blocks.1.hook_resid_mid", "way", scale)], sources={"way": vector})
    assert len(rows()) == 3 and len(rows("SELECT * FROM vectors")) == 1 and len(rows("SELECT * FROM uses")) == 3


def test_a_rerun_leaves_a_record_that_names_its_base(nano, rows, clean):
    wb.rerun(clean, [wb.AblateHead(2, 1)], name="again")
    first, second = rows()
    about = json.loads(second["about"])["rerun"]
    assert about == {"base": first["id"], "unedited": None, "columns": "changed", "recording": False}


def test_a_source_that_was_made_without_a_record_gets_one_then(nano, rows, path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RECORDS", "off")
    clean = wb.run(nano, PARK, name="clean")
    assert "record" not in clean.provenance
    monkeypatch.setenv("WORKBENCH_RECORDS", str(path))
    wb.run(nano, LAKE, [wb.Patch("blocks.1.hook_resid_mid", "clean")], sources={"clean": clean})
    source, run = rows()
    assert source["id"] == clean.provenance["record"] == json.loads(run["sources"])["clean"]["record"]


def test_off_leaves_no_file_and_says_so(nano, path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RECORDS", "off")
    done = wb.run(nano, PARK)
    assert "record" not in done.provenance and not path.parent.exists()
    assert len(wb.records()) == 0 and "WORKBENCH_RECORDS=off" in repr(wb.records())


def test_only_its_owner_reads_the_file(path, rows, clean):
    rows()
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_the_default_place_is_in_the_users_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("WORKBENCH_RECORDS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert wb.records().path == tmp_path / "gpt-oss-workbench" / "records.sqlite"


def test_of_large_logits_evenly_spaced_positions_are_digested_the_last_among_them(monkeypatch):
    logits = torch.randn(1, 10, 8)
    monkeypatch.setattr(written, "LARGEST_RESULT", 4 * 8 * 4)
    result = written.result_of(logits)
    expected = hashlib.sha256(logits[0, [0, 3, 6, 9]].numpy().tobytes()).hexdigest()
    assert result.digest == f"{expected}:4"


def test_importing_the_package_opens_no_database(root):
    code = "import sys, workbench; assert not {'sqlite3', 'torch'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(root)}, check=True, timeout=60)


def test_a_record_costs_a_run_less_than_a_millisecond(nano, rows):
    """Of this thread's own time; nano's run takes fifteen."""
    done = wb.run(nano, PARK * 4, [wb.AblateExpert(1, 2)])
    costs = []
    for _ in range(100):
        clock, began = written.Clock(), time.thread_time()
        written.leave_record(done, clock)
        costs.append(time.thread_time() - began)
    assert statistics.median(costs) < 1e-3, f"{statistics.median(costs) * 1e3:.3f} ms"
    assert len(rows()) == 101


def test_a_record_takes_about_a_kilobyte(nano, rows, path):
    done = wb.run(nano, PARK * 4, [wb.AblateExpert(1, 2)])
    for _ in range(300):
        written.leave_record(done, written.Clock())
    rows("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size / 301 < 1500
