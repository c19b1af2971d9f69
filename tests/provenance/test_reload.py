"""A run made again from its record. The truth is the run itself."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
import torch

import workbench as wb
from tests.provenance.conftest import LAKE, PARK
from workbench import provenance
from workbench.activations import record_of, written
from workbench.checkpoints import once
from workbench.interventions.edits import edits
from workbench.provenance import RecordsError


def same(one: wb.Run, other: wb.Run) -> bool:
    """Whether two runs have the same input, edits and sites, and the same bits everywhere."""
    kept, also = one.cache.cache_dict, other.cache.cache_dict
    return (
        torch.equal(one.logits, other.logits)
        and torch.equal(one.tokens, other.tokens)
        and (one.interventions, one.routing, one.name) == (other.interventions, other.routing, other.name)
        and kept.keys() == also.keys()
        and all(torch.equal(kept[site], also[site]) for site in kept)
    )


def test_a_run_is_reproduced_bit_for_bit_with_its_sources(patched):
    again = wb.records()[patched.provenance["record"]].reload()
    assert same(again, patched) and again.provenance["reproduced"] == 1
    assert again.provenance["record"] == patched.provenance["record"]
    assert torch.equal(again.kl, patched.kl) and torch.equal(again.flipped_routes, patched.flipped_routes)


def test_making_a_run_again_leaves_no_second_record(patched, rows):
    wb.records()[0].reload()
    assert len(rows()) == 2


def test_a_model_is_loaded_by_its_recipe_where_none_is_given(patched, monkeypatch):
    monkeypatch.setattr(once, "_LOADED", {})
    again = wb.records()[0].reload()
    assert again.model is not patched.model and same(again, patched)


@pytest.mark.parametrize("routing", ["frozen_set", "frozen_set_and_weights"])
def test_a_run_with_anothers_routing_is_reproduced(nano, clean, routing):
    done = wb.run(nano, LAKE, [wb.AblateHead(1, 2)], routing=routing, routing_from=clean)
    again = wb.records()[0].reload(nano)
    assert same(again, done) and again.provenance["reproduced"] == 1


@pytest.mark.parametrize("columns", ["changed", "all"])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_rerun_is_reproduced_with_the_columns_that_it_computed(nano, clean, columns, recorded):
    recording = record_of(clean) if recorded else None
    edit = wb.AblateHead(2, 1, positions=(4,))
    done = wb.rerun(clean, [edit], columns=columns, recording=recording, sites="blocks.3.hook_resid_post")
    again = wb.records()[0].reload(nano)
    assert same(again, done) and again.provenance["reproduced"] == 1


def test_a_rerun_of_a_rerun_is_reproduced(nano, clean):
    middle = wb.rerun(clean, [wb.AblateHead(1, 1)])
    done = wb.rerun(middle, [wb.AblateHead(2, 1)], unedited=clean)
    assert same(wb.records()[0].reload(nano), done)


def test_rows_masks_and_chosen_sites_are_reproduced(nano):
    tokens = torch.randint(3, 900, (3, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 8, dtype=torch.bool)
    mask[1, :3] = False
    done = wb.run(nano, tokens, attention_mask=mask, sites=lambda name: name.endswith("hook_resid_post"))
    again = wb.records()[0].reload(nano)
    assert same(again, done) and torch.equal(again.attention_mask, mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_vector_comes_back_as_it_was_given(nano, dtype):
    vector = torch.randn(nano.config.d_model, generator=torch.Generator().manual_seed(0)).to(dtype)
    done = wb.run(nano, PARK, [wb.Steer("blocks.1.hook_resid_mid", "way")], sources={"way": vector})
    record = wb.records()[0]
    assert record.vector("way").dtype == dtype and torch.equal(record.vector("way"), vector)
    assert same(record.reload(nano), done)


def test_the_code_of_a_record_makes_the_run_again(nano, patched):
    names: dict = {}
    exec(compile(wb.records()[0].code(), "record", "exec"), names)
    assert same(names["run"], patched)


def test_the_code_of_a_rerun_makes_it_again(nano, clean):
    done = wb.rerun(clean, [wb.AblateHead(2, 1)], columns="all", recording=record_of(clean), name='it\'s "quoted"\n')
    names: dict = {}
    exec(compile(wb.records()[0].code(), "record", "exec"), names)
    assert same(names["run"], done)


def test_another_model_is_refused_by_its_fingerprint(nano, clean):
    other = wb.load("nano", dtype="bfloat16")
    with pytest.raises(RecordsError, match=r"fingerprint .*; this one has .*numbers are others"):
        wb.records()[0].reload(other)


def test_a_model_made_by_hand_must_be_given(nano, clean, path):
    provenance.flush(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE records SET recipe=NULL")
        connection.commit()
    with pytest.raises(RecordsError, match=r"wb.load cannot load again; give it: record.reload\(model\)"):
        wb.records()[0].reload()
    assert same(wb.records()[0].reload(nano), clean)


def test_a_forgotten_source_is_named(nano, clean, patched):
    wb.records().forget(clean.provenance["record"])
    with pytest.raises(RecordsError, match=rf"'clean', which record .* was record {clean.provenance['record']}"):
        wb.records()[0].reload(nano)


def test_a_source_may_be_given_in_the_place_of_one_that_is_gone(nano, clean, patched):
    wb.records().forget(clean.provenance["record"])
    assert same(wb.records()[0].reload(nano, sources={"clean": clean}), patched)


def test_what_was_too_large_to_be_kept_is_said_and_may_be_given(nano, monkeypatch):
    from workbench.provenance import entry

    monkeypatch.setattr(entry, "LARGEST_VECTOR", 100)
    vector = torch.ones(nano.config.d_model)
    done = wb.run(nano, PARK, [wb.Steer("blocks.1.hook_resid_mid", "way")], sources={"way": vector})
    record = wb.records()[0]
    with pytest.raises(RecordsError, match=r"'way' of record .* was not kept: 512 bytes; up to 100 are kept"):
        record.reload(nano)
    assert same(record.reload(nano, sources={"way": vector}), done)


def test_too_many_tokens_are_said_to_be_missing(nano, monkeypatch):
    from workbench.provenance import entry

    monkeypatch.setattr(entry, "LARGEST_PART", 10)
    wb.run(nano, PARK)
    with pytest.raises(RecordsError, match=r"not all of it was kept.*tokens: .* bytes; up to 10 are kept"):
        wb.records()[0].reload(nano)


def test_other_numbers_are_said_to_be_other_with_what_changed_since(nano, clean, path, rows):
    provenance.flush(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE records SET result='0000'")
        connection.execute('UPDATE environments SET facts=replace(facts, \'"torch":"\', \'"torch":"1.\')')
        connection.commit()
    with pytest.warns(UserWarning, match=r"was not reproduced bit for bit: torch was 1\.\d.*, is \d"):
        again = wb.records()[0].reload(nano)
    assert again.provenance["reproduced"] == 0
    # Other numbers are a run of its own.
    assert len(rows()) == 2 and again.provenance["record"] == rows()[1]["id"] != clean.provenance["record"]


def test_a_stored_result_says_whether_its_run_was_reproduced(nano, clean, tmp_path):
    import xarray as xr

    again = wb.records()[0].reload(nano)
    again.array("blocks.1.hook_resid_mid").to_netcdf(tmp_path / "stored.nc")
    with xr.open_dataarray(tmp_path / "stored.nc") as stored:
        assert stored.attrs["reproduced"] == 1 and stored.attrs["record"] == clean.provenance["record"]


def test_a_spec_of_the_users_own_is_recorded_and_said_not_to_come_back(nano):
    class Mine:
        def __repr__(self):
            return "Mine()"

    edits.register(Mine, lambda spec: [("blocks.0.hook_resid_mid", lambda x, hook: x * 2)])
    wb.run(nano, PARK, [Mine()])
    record = wb.records()[0]
    assert record.specs == [{"kind": "Mine", "repr": "Mine()"}]
    with pytest.raises(RecordsError, match="Mine is no intervention with a form in JSON"):
        record.reload(nano)


def test_a_run_that_cannot_be_recorded_goes_on_with_a_warning(nano, monkeypatch):
    def broken(*_):
        raise RuntimeError("no luck")

    monkeypatch.setattr(written, "_summary", broken)
    with pytest.warns(UserWarning, match=r"left no record \(RuntimeError: no luck\)"):
        done = wb.run(nano, PARK)
    assert done.logits.shape[-1] == nano.config.d_vocab
