"""Ctrl-C at any moment: no hook, no lock, no changed weight or mode is left, and the next run has the same bits."""

import copy
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import workbench as wb
from tests.robust.found import AsFound, free
from tests.robust.interrupting import Work, after, at_place, places
from tests.robust.works import EDITS, HEADS, LATER, SITE, divergence
from tests.tables import Table
from workbench.activations import rerun
from workbench.checkpoints import load
from workbench.experiments import patching_grid
from workbench.model.fingerprint import fingerprint
from workbench.model.interrupts import finish_first, gradient_mode_kept, without_gradients
from workbench.sweeps import sweep
from workbench.widgets import Bench

WORKS = sorted(
    "wb.run; run_with_cache; a block of hooks; a dictionary; generate; generate, drawn; record and resume; resume; "
    "rerun; gradients; patching_grid; ablation_sweep; attribution_patching; integrated_gradients; train_tuned_lens; "
    "sweep with a journal".split("; ")
)
# What puts hooks on and takes them off again, holds the lock, and switches gradients; TransformerLens' part of it too.
pytestmark = pytest.mark.usefixtures("as_in_a_notebook")  # without checks of types, whose code is much of what is run
DELICATE = ("interrupts.py", "hook_points.py", "HookedRootModule.py", "contextlib", "grad_mode.py", "transformer.py")


@pytest.mark.parametrize("name", WORKS)
def test_an_interrupt_at_a_random_moment_leaves_everything_as_it_was(
    name: str, work: dict[str, Work], found: AsFound, draw: random.Random, full: bool, counts: Table
):
    piece, tried, came = work[name], 320 if full else 13, 0
    began = time.perf_counter()
    piece()
    usual = time.perf_counter() - began
    for _ in range(tried):
        seconds = draw.random() * usual
        came += after(piece, seconds)
        found.check(f"{name}, interrupted after {seconds * 1e6:.0f} µs")
    record(counts, f"{name}, at random moments", tried, came)


@pytest.mark.parametrize("name", WORKS)
def test_an_interrupt_at_any_place_in_the_code_leaves_everything_as_it_was(
    name: str, work: dict[str, Work], found: AsFound, draw: random.Random, full: bool, counts: Table
):
    piece, tried, came = work[name], 60 if full else 1, 0
    there = places(piece)
    for number in draw.sample(range(1, there + 1), tried):
        interrupted, where = at_place(piece, number)
        came += interrupted
        found.check(f"{name}, interrupted at {where} (place {number} of {there})")
    record(counts, f"{name}, at random places", tried, came)


@pytest.mark.parametrize("file", DELICATE)
def test_an_interrupt_while_hooks_go_on_or_off_leaves_everything_as_it_was(
    file: str, work: dict[str, Work], found: AsFound, draw: random.Random, full: bool, counts: Table
):
    names = ["wb.run"] if file == "grad_mode.py" else ["a block of hooks", "wb.run"][: 2 if full else 1]
    pieces, tried, came = [work[name] for name in names], 0, 0
    for piece in pieces:
        there = places(piece, file)
        every = range(1, there + 1)
        for number in draw.sample(every, min(there, 300 if full else 6)):
            interrupted, where = at_place(piece, number, file)
            tried, came = tried + 1, came + interrupted
            found.check(f"interrupted at {where} (place {number} of {there})")
    assert tried, f"nothing of {file} was met"
    record(counts, f"in {file}", tried, came)


def test_work_that_is_interrupted_ends_soon(work: dict[str, Work]):
    began = time.perf_counter()
    endless = iter(lambda: work["wb.run"](), None)
    assert after(lambda: all(each is not None for each in endless), 0.05)
    assert time.perf_counter() - began < 10


def record(counts: Table, row: str, tried: int, came: int) -> None:
    for column, value in (("tried", tried), ("came", came), ("wrong", 0)):
        counts.record(row, column, value)


# ---------------------------------------------------------------- what is gone on with


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 5}, {"use_cache": False}], ids=str)
def test_a_generation_that_was_interrupted_goes_on_as_if_it_had_not_been(model, tokens, draw, full, options):
    whole = model.generate(tokens, 6, **options).finish().tokens
    begun = model.generate(tokens, 6, **options)
    began = time.perf_counter()
    next(begun)
    step = time.perf_counter() - began
    for _ in range(200 if full else 8):
        going = model.generate(tokens, 6, **options)
        for _ in range(40):
            if not after(going.finish, draw.random() * 3 * step):
                break
        assert torch.equal(going.finish().tokens, whole)


def test_a_cache_is_as_it_was_where_a_pass_was_interrupted(model, tokens, draw, full):
    cache = model.new_cache()
    model(tokens, past_kv_cache=cache)
    expected = model(tokens[:, :1], past_kv_cache=model.new_cache())
    assert expected.shape[1] == 1
    after_it = model(tokens[:, :1], past_kv_cache=_copy(model, tokens))
    there = places(lambda: model(tokens[:, :1], past_kv_cache=_copy(model, tokens)))
    for number in draw.sample(range(1, there), 300 if full else 6):
        cache = _copy(model, tokens)
        interrupted, where = at_place(lambda cache=cache: model(tokens[:, :1], past_kv_cache=cache), number)
        if interrupted:
            assert cache.n_tokens == tokens.shape[1], where
            assert torch.equal(model(tokens[:, :1], past_kv_cache=cache), after_it), where


def _copy(model, tokens):
    cache = model.new_cache()
    model(tokens, past_kv_cache=cache)
    return cache


def test_a_sweep_that_was_interrupted_ends_with_the_numbers_of_one_that_was_not(model, tokens, draw, full, tmp_path):
    def once(journal=None):
        return sweep(divergence, HEADS, model=model, progress=False, batch=1, journal=journal)

    began = time.perf_counter()
    whole = once().to_xarray()
    usual = time.perf_counter() - began
    for number in range(60 if full else 3):
        journal = tmp_path / str(number)
        for _ in range(3):
            after(lambda journal=journal: once(journal), draw.random() * usual)
        assert once(journal).to_xarray().identical(whole)


def test_a_sweep_that_was_cancelled_at_a_random_moment_goes_on_to_the_same_grid(model, tokens, found, draw, full):
    run = wb.run(model, tokens)

    def grid(**more):
        return patching_grid(model, tokens.flip(1), run, (3, 4), ("attn_out",), progress=False, **more)

    began = time.perf_counter()
    whole = grid()
    usual = time.perf_counter() - began
    for _ in range(100 if full else 5):
        cancel = threading.Event()
        timer = threading.Timer(draw.random() * usual, cancel.set)
        timer.start()
        part = grid(cancel=cancel)
        timer.join()
        found.check("cancelled")
        again = grid(resume=part)
        assert all(np.array_equal(again[name].values, whole[name].values) for name in whole)


# ---------------------------------------------------------------- other ways to end in the middle


class Odd(BaseException):
    """No Exception, and no interrupt either."""


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, KeyboardInterrupt, SystemExit, Odd])
def test_an_error_in_a_hook_at_a_random_site_leaves_everything_as_it_was(
    kind: type[BaseException], model, work: dict[str, Work], found: AsFound, draw: random.Random, full: bool
):
    points = list(model.hook_points())

    def fail(*_: object) -> None:
        raise kind("in a hook")

    hit = 0
    for name in WORKS:
        for _ in range(20 if full else 1):
            handle = draw.choice(points).register_forward_pre_hook(fail)
            try:
                work[name]()
            except BaseException as error:
                hit += 1
                while error.__cause__ is not None:
                    error = error.__cause__
                assert isinstance(error, kind)
            finally:
                handle.remove()
            found.check(f"{name}, {kind.__name__} in a hook")
    assert hit > len(WORKS) / 3


def test_a_generation_that_is_dropped_midway_leaves_everything_as_it_was(model, tokens, found):
    steps = iter(model.generate(tokens, 5, fwd_hooks=[(SITE, lambda x, hook: 2 * x)]))
    next(steps)
    found.check("between two steps")
    del steps
    found.check("dropped")


def test_a_generator_that_edits_and_is_dropped_midway_leaves_everything_as_it_was(model, tokens, found):
    def edited():
        with model.edited(EDITS[:2]):
            yield from model.generate(tokens, 5)

    steps = edited()
    next(steps)
    assert model.list_hooks() and not free(model._lock)
    steps.close()
    found.check("closed")
    steps = edited()
    next(steps)
    del steps
    found.check("dropped")


def test_an_interrupt_reaches_who_waits_for_another_threads_run(model, tokens, found):
    holds, done = threading.Event(), threading.Event()

    def other():
        with model.edited(EDITS[:1]):
            holds.set()
            done.wait(20)

    thread = threading.Thread(target=other)
    thread.start()
    assert holds.wait(20)
    began = time.perf_counter()
    assert after(lambda: wb.run(model, tokens, EDITS[:1]), 0.05)
    assert after(lambda: model.hooks([(SITE, lambda x, hook: x)]).__enter__(), 0.05)
    assert time.perf_counter() - began < 5
    done.set()
    thread.join(20)
    found.check("after waiting")


def test_another_threads_run_goes_on_while_this_one_is_interrupted(model, tokens, found, draw):
    expected, got = wb.run(model, tokens, EDITS[:2]).logits, []

    def other():
        got.extend(wb.run(model, tokens, EDITS[:2]).logits for _ in range(20))

    thread = threading.Thread(target=other)
    thread.start()
    while thread.is_alive():
        after(lambda: wb.run(model, tokens, EDITS[:1]), draw.random() * 0.01)
    thread.join()
    assert len(got) == 20 and all(torch.equal(logits, expected) for logits in got)
    found.check("two threads, one interrupted")


# ---------------------------------------------------------------- how it is done


def test_what_is_to_be_finished_first_is_and_the_interrupt_comes_after_it():
    seen = []

    def work() -> int:
        signal.raise_signal(signal.SIGINT)
        seen.append("finished")
        return 1

    with pytest.raises(KeyboardInterrupt):
        finish_first(work)
    assert seen == ["finished"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        finish_first(lambda: finish_first(work) and seen.append("the outer one too"))
    assert seen == ["finished"] * 2 + ["the outer one too"]


def test_a_handler_of_the_users_own_is_asked_and_is_there_again_afterwards(model, tokens):
    asked = []
    signal.signal(signal.SIGINT, lambda *given: asked.append(given[0]))
    with model.hooks([(LATER, lambda x, hook: signal.raise_signal(signal.SIGINT))]) as given:
        assert given is model
        model(tokens)
    assert asked == [signal.SIGINT]
    handler = signal.getsignal(signal.SIGINT)
    with model.hooks():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever changes it in the block has the last word
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    with model.hooks():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # nothing to wait for
    signal.signal(signal.SIGINT, handler)


def test_hooks_can_be_put_on_in_a_thread(model, tokens):
    got = []
    thread = threading.Thread(
        target=lambda: got.append(model.run_with_hooks(tokens, fwd_hooks=[(SITE, lambda x, hook: 0 * x)]))
    )
    thread.start()
    thread.join()
    assert len(got) == 1 and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_gradient_mode_is_kept_through_an_interrupt_in_torchs_own_code():
    @without_gradients
    def off() -> bool:
        return torch.is_grad_enabled()

    @gradient_mode_kept
    def inside() -> bool:
        with torch.no_grad():
            return torch.is_grad_enabled()

    assert not off() and not inside()
    for function in (off, inside):
        for before in (True, False):
            with torch.set_grad_enabled(before):
                for number in range(1, places(function) + 1):
                    at_place(function, number)
                    assert torch.is_grad_enabled() is before, number


def test_a_generator_is_no_function_without_gradients():
    def steps():
        yield 1

    with pytest.raises(TypeError, match="is a generator"):
        without_gradients(steps)


# ---------------------------------------------------------------- loading and saving


def test_a_load_that_was_interrupted_gives_no_model_and_the_next_one_is_whole(draw, full):
    expected = fingerprint(load("nano"))
    began = time.perf_counter()
    load("nano")
    usual = time.perf_counter() - began
    for _ in range(40 if full else 2):
        made = []
        interrupted = after(lambda made=made: made.append(load("nano")), draw.random() * usual)
        assert interrupted or made
        assert fingerprint(made[0] if made else load("nano")) == expected


def test_a_save_that_was_interrupted_leaves_a_whole_checkpoint_or_none(model, draw, full, tmp_path):
    began = time.perf_counter()
    wb.save_pretrained(model, tmp_path / "first")
    usual = time.perf_counter() - began
    for number in range(60 if full else 6):
        place = tmp_path / str(number)
        after(lambda place=place: wb.save_pretrained(model, place), draw.random() * usual)
        if place.exists():
            assert torch.equal(load(place).embed.weight, model.embed.weight)
    assert not list(tmp_path.glob(".*"))


def test_a_save_interrupted_at_any_place_leaves_nothing_half_written_beside_it(model, draw, full, tmp_path):
    place, older = tmp_path / "there", copy.deepcopy(model)
    with torch.no_grad():
        older.embed.weight += 1

    def save():
        wb.save_pretrained(model, place, overwrite=True)

    def before():
        wb.save_pretrained(older, place, overwrite=True)

    before()
    both, tried = [model.embed.weight, older.embed.weight], []
    for inside, most in (("checkpoints/save.py", 1000 if full else 60), (None, 1000 if full else 30)):
        n = places(save, inside)
        tried += [(number, inside) for number in draw.sample(range(1, n + 1), min(n, most))]
    for number, inside in tried:
        before()
        _, where = at_place(save, number, inside)
        assert not list(tmp_path.glob(".*")), where
        assert any(torch.equal(load(place).embed.weight, each) for each in both), where


def test_a_save_interrupted_when_its_folder_was_just_made_takes_it_away(model, tmp_path, monkeypatch):
    make = Path.mkdir

    def interrupted(path, *args, **kwargs):
        make(path, *args, **kwargs)
        if path.name.endswith(".partial"):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt):
        wb.save_pretrained(model, tmp_path / "there")
    assert not list(tmp_path.iterdir())


def test_a_rerun_after_an_interrupted_one_is_the_same(model, tokens, draw):
    base, sources = wb.run(model, tokens), {"clean": wb.run(model, tokens.flip(1))}
    expected = rerun(base, EDITS, sources=sources).logits
    for _ in range(5):
        after(lambda: rerun(base, EDITS, sources=sources), draw.random() * 0.02)
        assert torch.equal(rerun(base, EDITS, sources=sources).logits, expected)


# ---------------------------------------------------------------- a Bench


def test_a_bench_whose_act_was_interrupted_shows_the_run_of_its_interventions(draw, full):
    bench = Bench(load("nano"), "Mia lives in the park.")
    try:
        bench.session.wait(60)
        tokens, number = bench.base.tokens, iter(range(10**9))

        def act() -> None:
            bench.interventions = (wb.AblateExpert(1, next(number) % 8, "zero"),)

        there = places(act, "widgets")
        for place in draw.sample(range(1, there + 1), 150 if full else 8):
            _, where = at_place(act, place, "widgets")
            bench.session.wait(60)
            assert free(bench.session.worker._lock) and free(bench.session._lock), where
            expected = wb.run(bench.model, tokens, bench.interventions).logits
            torch.testing.assert_close(bench.run.logits, expected, atol=1e-4, rtol=1e-4, msg=where)
    finally:
        bench.close()
