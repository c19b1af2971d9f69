"""What is recorded one by one, what as a whole, and what not at all."""

from __future__ import annotations

import json
import threading

import pytest
import torch

import workbench as wb
from tests.provenance.conftest import LAKE, PARK
from workbench import experiments, prompts, provenance
from workbench.provenance import Entry, held, quiet, recording
from workbench.widgets import Bench


def test_runs_in_a_quiet_block_leave_no_records(nano, path):
    with quiet():
        done = wb.run(nano, PARK)
        wb.rerun(done, [wb.AblateHead(1, 1)])
    assert len(wb.records()) == 0 and "record" not in done.provenance
    wb.run(nano, PARK)
    assert len(wb.records()) == 1


def test_a_quiet_block_is_over_also_after_an_error(nano):
    with pytest.raises(ValueError, match="no luck"), quiet():
        raise ValueError("no luck")
    wb.run(nano, PARK)
    assert len(wb.records()) == 1


def test_a_quiet_block_is_of_its_thread_alone(nano):
    with quiet():
        thread = threading.Thread(target=lambda: wb.run(nano, PARK, name="other thread"))
        thread.start()
        thread.join()
    assert [record.name for record in wb.records()] == ["other thread"]


def test_held_records_are_written_only_if_they_are_kept(nano):
    with quiet():
        with held() as dropped:
            wb.run(nano, PARK, name="dropped")
        with held() as kept:
            done = wb.run(nano, PARK, name="kept")
        assert "record" not in done.provenance
        kept.keep()
    assert len(dropped.entries) == 1 and [record.name for record in wb.records()] == ["kept"]
    assert done.provenance["record"] == wb.records()[0].id


def test_held_runs_that_need_each_other_keep_their_sources(nano):
    with held() as kept:
        clean = wb.run(nano, PARK, name="clean")
        done = wb.run(nano, LAKE, [wb.Patch("blocks.1.hook_resid_mid", "clean")], sources={"clean": clean})
    kept.keep()
    assert len(wb.records()) == 2
    assert torch.equal(wb.records()[done.provenance["record"]].reload(nano).logits, done.logits)


def test_a_sweep_leaves_one_record_of_the_whole(nano, rows):
    with recording("sweep", about={"grid": {"layer": [0, 1, 2]}}, model="nano", seed=7) as record:
        for layer in range(3):
            wb.run(nano, PARK, [wb.AblateHead(layer, 0)])
        record.note(done=3)
        record.note(failed=0)
    (row,) = rows()
    assert (row["kind"], row["model"], row["id"], row["seed"]) == ("sweep", "nano", record.id, "7")
    assert json.loads(row["summary"]) == {"status": "finished", "done": 3, "failed": 0}
    assert json.loads(row["about"]) == {"grid": {"layer": [0, 1, 2]}} and row["seconds"] > 0
    with pytest.raises(provenance.RecordsError, match="is of a sweep, which is no single run"):
        wb.records()[0].reload()
    assert json.loads(rows("SELECT facts FROM environments")[0]["facts"])["versions"]["workbench"] == wb.__version__


@pytest.mark.parametrize(("error", "status"), [(ValueError, "failed"), (KeyboardInterrupt, "stopped")])
def test_a_sweep_that_ends_early_says_how(error, status):
    with pytest.raises(error), recording("sweep") as record:
        record.note(done=2)
        raise error
    assert wb.records()[0].summary == {"status": status, "done": 2}


def test_a_sweep_that_is_under_way_is_listed_as_that(path):
    with recording("atlas", name="wikipedia"):
        provenance.flush(path)
        assert wb.records()[0].summary == {"status": "running"} and wb.records()[0].seconds is None
        assert "running" in repr(wb.records())
    assert len(wb.records()) == 1 and wb.records()[0].summary["status"] == "finished"


def test_a_sweep_within_an_atlas_leaves_none_itself(nano):
    with recording("atlas"), recording("sweep") as inner:
        inner.note(done=1)
        wb.run(nano, PARK)
    assert [record.kind for record in wb.records()] == ["atlas"]


def test_what_json_does_not_know_is_written_as_text(path):
    with recording("sweep", about={"journal": path, "seed": torch.tensor(3), "metric": len}):
        pass
    about = wb.records()[0].about
    assert about["journal"] == str(path) and about["seed"] == 3 and "len" in about["metric"]


def test_a_record_that_cannot_be_settled_costs_only_itself(path):
    def fails() -> str:
        raise RuntimeError("no words")

    with pytest.warns(UserWarning, match="no words"):
        provenance.submit(Entry("run", 0.0, name="bad", decode=fails))
        provenance.flush(path)
    provenance.submit(Entry("run", 0.0, name="good"))
    assert [record.name for record in wb.records()] == ["good"]


# ---------------------------------------------------------------- the Bench


def test_a_bench_records_what_becomes_its_state_and_no_previews(nano):
    pair = prompts.pairs(nano, "indirect object", n=1, seed=0)[0]
    bench = Bench(nano, pair)
    try:
        bench.session.wait(60)
        assert {record.name for record in wb.records()} == {"clean", "corrupt"} and len(wb.records()) == 2
        bench.add(wb.AblateExpert(1, 3, "zero"))
        edited = bench.run
        assert wb.records()[0].name == "edited" and len(wb.records()) == 3
        base = bench.base
        for layer in range(3):
            edit = wb.AblateHead(layer, 0)
            bench.session.on_worker(lambda edit=edit: wb.rerun(base, [edit]), "a preview")
        bench.session.keeping(base, {"blocks.0.mlp.hook_expert_out"})
        assert len(wb.records()) == 3
        assert torch.equal(wb.records()[edited.provenance["record"]].reload(nano).logits, edited.logits)
    finally:
        bench.close()


def test_a_patch_of_a_bench_is_made_again_with_sites_that_its_source_did_not_keep(nano):
    pair = prompts.pairs(nano, "indirect object", n=1, seed=0)[0]
    bench = Bench(nano, pair)
    try:
        bench.session.wait(60)
        source = "clean" if bench.session.state.subject == "corrupt" else "corrupt"
        bench.add(wb.PatchExpert(2, 1, source))
        edited = bench.run
        assert len(wb.records()) == 3
        again = wb.records()[edited.provenance["record"]].reload(nano)
        assert torch.equal(again.logits, edited.logits) and again.provenance["reproduced"] == 1
    finally:
        bench.close()


def test_the_results_of_experiments_name_the_record_of_their_run(nano, clean):
    assert experiments.routing(clean).attrs["record"] == clean.provenance["record"]
