"""Two threads (two cells of a notebook, a Bench) on one model: each gets the bits that it gets alone."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

import workbench as wb
from tests.robust.works import SITE
from workbench.activations import rerun
from workbench.experiments import attribution_patching
from workbench.widgets import Bench

pytestmark = pytest.mark.usefixtures("as_in_a_notebook")  # without checks of types, which take longer than these models
PATIENCE = 120  # seconds after which two threads are taken to wait for each other
EDITS = [[wb.AblateHead(layer, head)] for layer in (0, 1) for head in range(4)]


def side_by_side(*works: Callable[[], None]) -> None:
    """Each in a thread of its own; what one raises is raised here."""
    problems: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "they wait for each other"
    if problems:
        raise problems[0]


def again_and_again(one: Callable[[Any], torch.Tensor], given: Sequence[Any], times: int) -> Callable[[], None]:
    """Work that fails where it once gives other bits than now, when nobody else is there."""
    expected = [one(each) for each in given]

    def work() -> None:
        for i in range(times):
            assert torch.equal(one(given[i % len(given)]), expected[i % len(given)])

    return work


@pytest.fixture
def times(full: bool) -> int:
    return 2000 if full else 30


def test_edits_of_one_thread_are_never_in_the_runs_of_another(model, tokens, found, times):
    edited = again_and_again(lambda specs: wb.run(model, tokens, specs).logits, EDITS, times)
    plain = again_and_again(lambda _: model(tokens).detach(), [None], 3 * times)
    kept = again_and_again(lambda site: model.run_with_cache(tokens)[1][site], [SITE], times)
    side_by_side(edited, plain, kept)
    found.check("three threads")


def test_reruns_resumes_and_gradients_of_two_threads_do_not_mix(model, tokens, found, times):
    base, recording = wb.run(model, tokens), model.record(tokens)

    def attributed(metric: tuple[int, int]) -> torch.Tensor:
        made = attribution_patching(model, tokens.flip(1), base, metric, ("attn_out",))
        return torch.from_numpy(made.effect.values)

    side_by_side(
        again_and_again(lambda specs: rerun(base, specs).logits, EDITS, times),
        again_and_again(lambda layer: model.resume(recording, layer, 3), [0, 1, 2], times),
        again_and_again(attributed, [(3, 4), (5, 6)], times // 3),
    )
    found.check("three threads")


def test_the_steps_of_a_generation_go_between_another_threads_runs(model, tokens, found, times):
    def text(seed: int) -> torch.Tensor:
        hooks = [(SITE, lambda x, hook: x * (1 + seed / 8))]
        return model.generate(tokens, 6, temperature=1.0, seed=seed, fwd_hooks=hooks).finish().tokens

    side_by_side(
        again_and_again(text, range(5), times // 3),
        again_and_again(lambda specs: wb.run(model, tokens, specs).logits, EDITS, times),
    )
    found.check("a generation and runs")


def test_two_generations_asked_in_turns_are_as_each_alone(model, tokens):
    alone = [model.generate(tokens, 8, temperature=1.0, seed=seed).finish().tokens for seed in (1, 2)]
    both = [model.generate(tokens, 8, temperature=1.0, seed=seed) for seed in (1, 2)]
    for _ in range(8):
        for each in both:
            next(each)
            wb.run(model, tokens, EDITS[0])
    assert all(torch.equal(each.tokens, expected) for each, expected in zip(both, alone, strict=True))


def test_a_run_inside_a_block_of_hooks_has_them_and_other_threads_wait_for_the_block(model, tokens, found):
    plain, order = model(tokens).detach(), []
    inside = threading.Event()

    def other() -> None:
        assert inside.wait(20)
        assert torch.equal(wb.run(model, tokens).logits, plain)
        order.append("the other thread's run")

    def block() -> None:
        with model.edited(EDITS[0]):
            inside.set()
            edited = wb.run(model, tokens, EDITS[5]).logits
            order.append("the run in the block")
            # What is on is on for everything of this thread, the runs' own edits come on top.
            assert torch.equal(edited, again)

    again = wb.run(model, tokens, [*EDITS[0], *EDITS[5]]).logits
    side_by_side(block, other)
    assert order == ["the run in the block", "the other thread's run"]
    found.check("a block and another thread")


def test_a_bench_and_a_cell_on_one_model_never_see_each_others_edits(full):
    model, text = wb.load("nano"), "Mia lives in the park."
    bench = Bench(model, text)
    try:
        bench.session.wait(60)
        tokens, specs = bench.base.tokens, [wb.AblateExpert(1, expert, "zero") for expert in range(4)]
        shown = {}
        for spec in specs:  # alone
            bench.interventions = (spec,)
            bench.session.wait(60)
            shown[spec] = bench.run.logits
        cell = again_and_again(lambda spec: wb.run(model, tokens, [spec]).logits, specs, 200 if full else 20)
        plain = again_and_again(lambda _: model(tokens).detach(), [None], 200 if full else 20)

        def acts() -> None:
            for i in range(200 if full else 20):
                spec = specs[i % len(specs)]
                bench.interventions = (spec,)
                bench.session.wait(60)
                assert torch.equal(bench.run.logits, shown[spec])

        side_by_side(acts, cell, plain)
    finally:
        bench.close()
    assert not model.list_hooks()
