"""What an atlas says of a token is what ``wb.run`` says; a build that was stopped goes on, and repeats nothing."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from tests.atlases.conftest import MAX_LENGTH, contents, corpus, routes_of, same_routes
from tests.small import (
    SMALL,
    as_in_a_notebook,  # noqa: F401
    small_model,
)
from workbench.atlases import AtlasError, CorpusError
from workbench.atlases.folder import Folder
from workbench.atlases.rows import batches
from workbench.atlases.settings import Options
from workbench.text import HarmonyError

QUIET = {"max_length": MAX_LENGTH, "part_tokens": 350, "batch_tokens": 256, "progress": False}
LONG = "select token, layer, slot, expert, weight, role, channel, document, position, domain, language from routing"


# ---------------------------------------------------------------- what is written
def test_every_route_of_every_token_is_that_of_a_run_of_its_window_alone(atlas, truth):
    same_routes(atlas.sql(LONG), truth)
    assert atlas.complete and atlas.n_tokens == len(truth) / 8 and atlas.n_documents == 38
    assert len(atlas.parts) > 3 and atlas.layers == (0, 1, 2, 3) and (atlas.n_experts, atlas.n_slots) == (8, 2)
    assert (truth["position"] >= MAX_LENGTH).any()
    found = atlas.sql("select position, context from routing where document = 0 and layer = 0 and slot = 0")
    assert (found["context"] == found["position"] % MAX_LENGTH).all()


def test_documents_and_vocabulary_are_kept_with_it(atlas, documents, ids, nano):
    found = atlas.sql("select * from documents order by document")
    assert found["id"].tolist() == [each.id for each in documents]
    assert found["n_tokens"].tolist() == [len(row) for row in ids]
    assert found["domain"].tolist() == [each.domain for each in documents]
    words = atlas.sql("select text from vocabulary order by token")["text"].tolist()
    assert words == nano.tokenizer.str_tokens(range(nano.tokenizer.n_ids))
    assert atlas.tokenizer.fingerprint == nano.tokenizer.fingerprint
    assert atlas.about["identity"]["model"] == wb.run(nano, "x").provenance["fingerprint"]


def test_interventions_and_activations_are_those_of_a_run(nano, documents, ids, tmp_path):
    specs = [wb.AblateExpert(1, 3), wb.Steer("blocks.2.hook_resid_pre", "up", scale=2.0)]
    sources = {"up": torch.linspace(-1, 1, 128)}
    sites = ["blocks.1.hook_resid_post", "blocks.3.hook_mlp_out", "blocks.0.attn.hook_z"]
    few, rows = documents[:8], ids[:8]
    atlas = wb.atlas(
        nano, few, tmp_path / "a", interventions=specs, sources=sources, sites=sites, **QUIET | {"part_tokens": 150}
    )
    found = atlas.sql(LONG)
    with nano.edited(specs, sources):
        truth = routes_of(nano, rows, few)
    same_routes(found, truth)
    assert not ((found["layer"] == 1) & (found["expert"] == 3)).any()
    for site in sites:
        kept = atlas.activations(site)
        assert kept.shape == (sum(map(len, rows)), 256 if site.endswith("hook_z") else 128)
        for number, row in enumerate(rows):
            expected = [
                wb.run(nano, row[at : at + MAX_LENGTH], specs, sites=[site], sources=sources)[site][0].flatten(1)
                for at in range(0, len(row), MAX_LENGTH)
            ]
            mine = kept.isel(row=kept.document.values == number)
            np.testing.assert_allclose(mine.values, torch.cat(expected).numpy(), atol=2e-5, rtol=1e-5)
            assert mine.position.values.tolist() == list(range(len(row))) and mine.token.values.tolist() == row
    one = atlas.activations(sites[0], documents=[2])
    assert set(one.document.values) == {2} and len(one) == len(rows[2])
    with pytest.raises(AtlasError, match=r"does not keep 'blocks.0.hook_resid_pre'"):
        atlas.activations("blocks.0.hook_resid_pre")


def test_half_precision_keeps_activations_in_half_the_room_and_refuses_what_does_not_fit(nano, documents, tmp_path):
    site = "blocks.1.hook_resid_post"
    wide = wb.atlas(nano, documents[:4], tmp_path / "a", sites=site, **QUIET)
    half = wb.atlas(nano, documents[:4], tmp_path / "b", sites=[site], store="float16", **QUIET)
    expected = wide.activations(site).values.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(half.activations(site).values, expected)
    big = [wb.Steer(site, "v", scale=1e6)]
    with pytest.raises(AtlasError, match="beyond float16"):
        wb.atlas(nano, documents[:4], tmp_path / "c", sites=site, store="float16", interventions=big,
                 sources={"v": torch.ones(128)}, **QUIET)  # fmt: skip


def test_the_last_experts_are_not_run_where_nobody_reads_what_they_write(nano, documents, tmp_path):
    ran = []
    with nano.hooks(fwd_hooks=[(f"blocks.{layer}.mlp.hook_expert_out", lambda x, hook: ran.append(hook.name))
                               for layer in range(4)]):  # fmt: skip
        wb.atlas(nano, documents[:2], tmp_path / "a", **QUIET)
    assert set(ran) == {f"blocks.{layer}.mlp.hook_expert_out" for layer in range(3)}
    assert not nano.list_hooks() and nano.positions is None


def test_a_model_without_a_tokenizer_is_mapped_over_ids(tmp_path):
    model = small_model(SMALL, "dense", 0)
    rows = [torch.randint(0, SMALL.d_vocab, (n,)).tolist() for n in (1, 9, 30)]
    atlas = wb.atlas(model, rows, tmp_path / "a", progress=False)
    for number, row in enumerate(rows):
        run = wb.run(model, row)
        found = atlas.sql(f"select * from routing where document = {number} order by layer, position, slot")
        expected = torch.stack([run[f"blocks.{layer}.mlp.hook_expert_indices"][0] for layer in range(3)])
        assert found["expert"].tolist() == expected.flatten().tolist()
    assert atlas.tokenizer is None and atlas.top(0, 1)["text"].tolist() == [str(i) for i in atlas.top(0, 1)["token"]]
    with pytest.raises(CorpusError, match="document '0' holds token id 40: expected 0 to 39"):
        wb.atlas(model, [[40]], tmp_path / "b", progress=False)


def test_empty_documents_are_documents_and_an_empty_corpus_is_refused(nano, tmp_path):
    atlas = wb.atlas(nano, ["", "one", ""], tmp_path / "a", progress=False)
    assert atlas.sql("select n_tokens from documents")["n_tokens"].tolist() == [0, 1, 0]
    assert wb.atlas(nano, [""], tmp_path / "b", progress=False).n_tokens == 0
    with pytest.raises(CorpusError, match="the corpus has no documents"):
        wb.atlas(nano, [], tmp_path / "c", progress=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 17), st.integers(1, 64))
def test_windows_hold_every_token_once_and_batches_stay_within_their_budget(lengths, max_length, budget):
    seen = np.zeros(sum(lengths), int)
    starts = np.repeat(np.cumsum([0, *lengths])[:-1], lengths)
    for batch in batches(np.array(lengths, dtype=np.int64), max_length, budget):
        widest = max(length for _, length in batch)
        assert widest <= max_length and (len(batch) * widest <= budget or len(batch) == 1)
        for first, length in batch:
            seen[first : first + length] += 1
            assert len(set(starts[first : first + length])) == 1  # of one document
    assert (seen == 1).all()


# ---------------------------------------------------------------- going on
def passes_of(model, monkeypatch) -> list[int]:
    """Filled with the tokens of each pass from now on."""
    from workbench.atlases import rows

    made, run = [], rows._run
    monkeypatch.setattr(rows, "_run", lambda *given: (made.append(sum(n for _, n in given[-1])), run(*given)))
    return made


def test_a_build_that_was_cancelled_goes_on_and_ends_byte_for_byte_as_one_in_one_go(
    nano, documents, folder, tmp_path, monkeypatch
):
    place, passes = tmp_path / "a", passes_of(nano, monkeypatch)
    for _ in range(2):
        begun = len(passes)
        left = wb.atlas(nano, documents, place, cancel=lambda begun=begun: len(passes) == begun + 3, **QUIET)
        assert len(passes) == begun + 3 and not left.complete and "unfinished" in repr(left)
    kept = wb.atlas.open(place)
    passes.clear()
    whole = wb.atlas(nano, iter(documents), place, **QUIET)
    assert whole.complete and sum(passes) == whole.n_tokens - kept.n_tokens > 0
    assert contents(place) == contents(folder)
    passes.clear()
    assert wb.atlas(nano, documents, place, **QUIET).complete and not passes
    event = threading.Event()
    event.set()
    with pytest.raises(AtlasError, match=r"no part of the atlas .* is finished yet"):
        wb.atlas(nano, documents, tmp_path / "b", cancel=event, **QUIET)


def test_a_folder_of_something_else_is_refused_and_left_alone(nano, documents, folder, tmp_path):
    before = contents(folder)
    other = wb.load("nano")
    with torch.no_grad():
        other.blocks[0].mlp.router.bias += 1
    for model, changed, said in (
        (nano, {"max_length": 32}, "another max_length .max_length: 64 there, 32 now"),
        (nano, {"interventions": [wb.AblateHead(0, 1)]}, "another interventions"),
        (nano, {"sites": "blocks.0.hook_resid_pre"}, "another sites"),
        (other, {}, "another model .its weights have another fingerprint"),
    ):
        with pytest.raises(AtlasError, match=said):
            wb.atlas(model, documents, folder, **QUIET | changed)
    for texts, said in (
        ([*documents[:3], "another", *documents[4:]], r"atlas of another corpus: documents 0 to"),
        ([*documents, "one more"], "atlas of another corpus"),
        (documents[:20], "another corpus|longer corpus"),
    ):
        with pytest.raises(CorpusError, match=said):
            wb.atlas(nano, texts, folder, **QUIET)
    assert contents(folder) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(AtlasError, match="is not empty and holds no atlas"):
        wb.atlas(nano, documents, tmp_path, **QUIET)


@pytest.mark.parametrize("harm", ("cut", "flipped", "gone", "record"))
def test_a_part_that_is_not_whole_is_left_out_with_a_warning_and_written_anew(
    nano, documents, folder, tmp_path, harm, monkeypatch
):
    place = tmp_path / "a"
    wb.atlas(nano, documents, place, **QUIET)
    path = place / ("parts/000001.json" if harm == "record" else "routing/000001.parquet")
    raw = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(raw[:-7] if harm != "flipped" else raw[:99] + bytes([raw[99] ^ 1]) + raw[100:])
    if harm != "flipped":  # a flipped byte is found when the atlas is built on, and by Parquet when it is read
        with pytest.warns(UserWarning, match="part 000001 .* is not whole .*left out"):
            opened = wb.atlas.open(place)
        assert not opened.complete and 1 not in {part.number for part in opened.parts}
    passes = passes_of(nano, monkeypatch)
    with pytest.warns(UserWarning, match="part 000001 .* is not whole"):
        whole = wb.atlas(nano, documents, place, **QUIET)
    assert sum(passes) == whole.parts[1].n_tokens and contents(place) == contents(folder)


def test_two_builds_in_one_folder_do_not_meet(nano, documents, tmp_path):
    with Folder(tmp_path).lock(), pytest.raises(AtlasError, match="another build is at work"):
        wb.atlas(nano, documents, tmp_path, **QUIET)
    assert wb.atlas(nano, documents[:2], tmp_path, **QUIET).complete


def test_a_disk_that_is_full_is_said_and_costs_no_finished_part(nano, documents, folder, tmp_path, monkeypatch):
    import os

    replace, left = os.replace, [12]

    def full(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(AtlasError, match=r"cannot be written: No space left.*make room"):
        wb.atlas(nano, documents, tmp_path / "a", **QUIET)
    monkeypatch.undo()
    assert wb.atlas.open(tmp_path / "a").n_tokens > 0 and not list(tmp_path.rglob("*.aside"))
    wb.atlas(nano, documents, tmp_path / "a", **QUIET)
    assert contents(tmp_path / "a") == contents(folder)


def test_a_folder_that_cannot_be_made_is_said(nano, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "atlas"):
        with pytest.raises(AtlasError, match="no atlas can be kept in"):
            wb.atlas(nano, ["one"], place, progress=False)
    for place, said in ((tmp_path / "none", "there is no atlas in"), (tmp_path, "there is no atlas")):
        with pytest.raises(AtlasError, match=said):
            wb.atlas.open(place)
    (tmp_path / "atlas.json").write_text("{}")
    with pytest.raises(AtlasError, match="does not describe an atlas"):
        wb.atlas.open(tmp_path)


@pytest.mark.usefixtures("as_in_a_notebook")
def test_what_does_not_fit_is_refused_before_anything_runs(nano, tmp_path):
    for wrong, said in (
        ({"max_length": 5000}, "max_length=5000: expected 1 to 4096"),
        ({"batch_tokens": 0}, "expected at least 1"),
        ({"store": "int8"}, "store='int8': expected one of"),
        ({"bad": "ignore"}, "bad='ignore': expected"),
        ({"sites": "blocks.0.attn.hook_pattern"}, "an atlas keeps a vector for each token"),
        ({"sites": ["blocks.0.mlp.hook_expert_indices"]}, "floating-point sites"),
        ({"interventions": wb.AblateHead(0, 0)}, "expected a list"),
        ({"sources": {"v": [1.0]}}, "an atlas takes vectors only"),
    ):
        with pytest.raises(AtlasError, match=said):
            wb.atlas(nano, ["one"], tmp_path / "a", progress=False, **wrong)
    with pytest.raises(wb.UnknownSite, match="closest is"):
        wb.atlas(nano, ["one"], tmp_path / "a", sites="blocks.0.hook_resid_prex", progress=False)
    with pytest.raises(wb.InterventionError, match="no head 9"):
        wb.atlas(nano, ["one"], tmp_path / "a", interventions=[wb.AblateHead(0, 9)], progress=False)
    assert not (tmp_path / "a").exists()


def test_every_option_is_an_argument_with_its_default_and_a_line_of_its_own():
    arguments, said = inspect.signature(wb.atlas).parameters, inspect.getdoc(type(wb.atlas).__call__)
    for option in dataclasses.fields(Options):
        assert arguments[option.name].default == option.default
    said = said.partition("Args:")[2].partition("Returns:")[0]
    explained = re.findall(r"^    ([a-z][a-z_, ]*): ", said, re.MULTILINE)
    assert [name for names in explained for name in names.split(", ")] == list(arguments)


def test_entries_that_are_no_documents_are_counted_when_they_are_skipped(nano, tmp_path):
    (tmp_path / "c.jsonl").write_text('{"text": "one"}\n{}\n{"text": "two"}\nno\n')
    with pytest.raises(CorpusError, match=r"c.jsonl, line 2: it has the fields nothing"):
        wb.atlas(nano, tmp_path / "c.jsonl", tmp_path / "a", progress=False)
    with pytest.warns(UserWarning, match="2 entries of the corpus are no documents"):
        atlas = wb.atlas(nano, tmp_path / "c.jsonl", tmp_path / "b", bad="skip", progress=False)
    assert atlas.about["n_skipped"] == 2 and atlas.n_documents == 2
    surrogate = [json.loads('"\\ud800"')]
    with pytest.raises(CorpusError, match=r"document '0' cannot be made tokens: .*surrogate"):
        wb.atlas(nano, surrogate, tmp_path / "d", progress=False)
    assert issubclass(HarmonyError, ValueError)


# ---------------------------------------------------------------- on an executor
def test_workers_write_the_very_bytes_that_one_process_does(documents, folder, tmp_path):
    with ThreadPoolExecutor(2) as executor:
        atlas = wb.atlas("nano", documents, tmp_path / "a", executor=executor, **QUIET)
    assert atlas.complete and contents(tmp_path / "a") == contents(folder)


def test_worker_processes_load_the_model_by_its_recipe_and_give_the_same(nano, documents, folder, tmp_path):
    start = torch.set_num_threads
    threads = (torch.get_num_threads(),)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=start, initargs=threads) as executor:
        atlas = wb.atlas(nano, documents, tmp_path / "a", executor=executor, **QUIET)
    assert atlas.complete and contents(tmp_path / "a") == contents(folder)


def test_an_error_of_a_document_comes_back_from_a_worker_as_it_was_and_what_is_done_is_kept(tmp_path):
    texts = [*corpus(12), [10**6]]
    with ThreadPoolExecutor(1) as executor, pytest.raises(CorpusError, match="document '14' holds token id 1000000"):
        wb.atlas("nano", texts, tmp_path / "a", executor=executor, **QUIET | {"part_tokens": 100})
    assert wb.atlas.open(tmp_path / "a").n_tokens > 0
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(AtlasError, match="the executor takes no more work"):
        wb.atlas("nano", ["one"], tmp_path / "b", executor=executor, progress=False)


# ---------------------------------------------------------------- memory
@pytest.mark.usefixtures("as_in_a_notebook")  # checking types at each call takes most of the time
def test_memory_does_not_grow_with_the_corpus(nano, tmp_path):
    import tracemalloc

    def peak(n: int) -> int:
        texts = (each.content for i in range(n) for each in corpus(24, i)[:24])
        tracemalloc.start()
        wb.atlas(nano, texts, tmp_path / str(n), part_tokens=1000, progress=False, batch_tokens=1024).close()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)  # what is made once
    assert peak(8) - peak(2) < 50_000  # bytes: the records of six more parts


def test_a_build_leaves_one_record_of_itself(nano, documents, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RECORDS", str(tmp_path / "records.sqlite"))
    made = wb.atlas(nano, documents[:6], tmp_path / "atlas", progress=False)
    (record,) = wb.records()
    assert record.kind == "atlas" and record.fingerprint == made.about["identity"]["model"]
    assert record.about["folder"] == str((tmp_path / "atlas").resolve())
    assert record.summary["tokens"] == made.n_tokens and record.summary["status"] == "finished"
