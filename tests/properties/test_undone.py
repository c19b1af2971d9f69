"""Every edit is gone afterwards, however the run ended; copies and threads have nothing in common but the weights."""

import copy
import gc
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from tests.forms import DENSE, NATIVE, held_as, only
from workbench.activations import run
from workbench.interventions import AblateExpert, edits
from workbench.model import HookedGptOss, Sites
from workbench.provenance import flush

form = held_as(DENSE, NATIVE)  # what is undone does not depend on the engine; threads in each are in tests/engines
SITE = "blocks.1.hook_resid_mid"
EDIT = (SITE, lambda value, hook: 2 * value)


class Stop(Exception):
    """Raised inside a hook."""


def stop(value: Tensor, hook: object) -> None:
    raise Stop


def assert_clean(model: HookedGptOss, tokens: Tensor, plain: Tensor) -> None:
    assert not model.list_hooks() and model.context_level == 0 and model.positions is None
    assert not any(point._forward_hooks or point._backward_hooks for point in model.hook_points())
    with torch.no_grad(), ThreadPoolExecutor(1) as other:  # another thread does not wait for ever either
        assert torch.equal(other.submit(model, tokens).result(timeout=30), plain)


@pytest.fixture
def spec_that_stops() -> type:
    class Stopping:
        """An intervention whose hook raises."""

    edits.register(Stopping)(lambda spec: [EDIT, ("blocks.2.attn.hook_z", stop)])
    return Stopping


@only(DENSE)
@pytest.mark.parametrize("site", list(Sites(3)))
def test_an_error_in_a_hook_of_any_site_leaves_the_model_as_it_was(
    model: HookedGptOss, tokens: Tensor, plain: Tensor, site: str
) -> None:
    with pytest.raises(Stop):
        model.run_with_hooks(tokens[:1], fwd_hooks=[EDIT, (site, stop)])
    assert not model.list_hooks() and model.positions is None  # the fixture compares the logits


@only(NATIVE)
def test_an_error_between_packed_products_leaves_the_model_as_it_was(
    model: HookedGptOss, tokens: Tensor, plain: Tensor
) -> None:
    for site in (site for site in model.sites if site.startswith("blocks.1.mlp.hook_expert")):
        for mode in (torch.no_grad, torch.enable_grad):
            with mode(), pytest.raises(Stop):
                model.run_with_hooks(tokens, fwd_hooks=[EDIT, (site, stop)])
            assert_clean(model, tokens, plain)


WAYS: dict[str, Callable[[HookedGptOss, Tensor], object]] = {
    "run_with_hooks": lambda model, tokens: model.run_with_hooks(tokens, fwd_hooks=[EDIT, (SITE, stop)]),
    "backward": lambda model, tokens: model.run_with_cache(tokens, incl_bwd=True, return_type="logits"),
    "generate": lambda model, tokens: model.generate(tokens[:1], fwd_hooks=[EDIT, (SITE, stop)]).finish(),
    "generate without a cache": lambda model, tokens: model.generate(
        tokens[:1], fwd_hooks=[EDIT, (SITE, stop)], use_cache=False
    ).finish(),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_fails_leaves_the_model_as_it_was(
    model: HookedGptOss, tokens: Tensor, plain: Tensor, way: str
) -> None:
    with torch.enable_grad(), pytest.raises((Stop, RuntimeError)):
        WAYS[way](model, tokens)
    assert_clean(model, tokens, plain)


def test_run_with_cache_inside_a_failing_block_leaves_the_model_as_it_was(
    model: HookedGptOss, tokens: Tensor, plain: Tensor
) -> None:
    with pytest.raises(Stop), model.hooks(fwd_hooks=[EDIT, ("blocks.2.attn.hook_z", stop)]):
        model.run_with_cache(tokens)
    assert_clean(model, tokens, plain)


def test_an_error_of_the_callers_own_inside_the_block_takes_the_hooks_off(
    model: HookedGptOss, tokens: Tensor, plain: Tensor
) -> None:
    with pytest.raises(ZeroDivisionError), model.hooks(fwd_hooks=[EDIT], bwd_hooks=[EDIT]):
        _ = 1 / 0
    assert_clean(model, tokens, plain)


def test_a_failing_run_leaves_the_model_as_it_was(
    model: HookedGptOss, tokens: Tensor, plain: Tensor, spec_that_stops: type
) -> None:
    with pytest.raises(Stop):
        run(model, tokens, interventions=[AblateExpert(0, 1), spec_that_stops()])
    assert_clean(model, tokens, plain)


def test_finished_runs_leave_the_model_as_it_was(model: HookedGptOss, tokens: Tensor, plain: Tensor) -> None:
    assert not torch.equal(run(model, tokens, [AblateExpert(0, 1), AblateExpert(2, 3, "zero")]).logits, plain)
    assert_clean(model, tokens, plain)
    model.run_with_cache(tokens)
    assert_clean(model, tokens, plain)


def test_hooks_put_on_by_hand_outlive_a_run(model: HookedGptOss, tokens: Tensor, plain: Tensor) -> None:
    model.add_hook(*EDIT)
    edited = model(tokens)
    run(model, tokens, [AblateExpert(0, 1)])
    assert torch.equal(model(tokens), edited) and not torch.equal(edited, plain)
    model.reset_hooks()


def test_a_generation_is_hooked_during_its_steps_only_also_when_abandoned(
    model: HookedGptOss, tokens: Tensor, plain: Tensor
) -> None:
    seen: list[list[int]] = []

    def note(value: Tensor, hook: object) -> Tensor:
        seen.append(model.positions[0].tolist())
        return 2 * value

    steps = model.generate(tokens[:1], max_new_tokens=5, fwd_hooks=[(SITE, note)])
    next(steps)
    next(steps)
    assert_clean(model, tokens, plain)
    del steps
    gc.collect()
    assert_clean(model, tokens, plain)
    assert seen == [list(range(9)), [9]]


def test_a_generation_goes_on_after_an_error_as_if_it_had_not_been(model: HookedGptOss, tokens: Tensor) -> None:
    expected = model.generate(tokens, max_new_tokens=6).finish().tokens
    trouble: list[str] = []

    def interrupt(value: Tensor, hook: object) -> None:
        if trouble:
            trouble.clear()
            raise KeyboardInterrupt

    steps = model.generate(tokens, max_new_tokens=6, fwd_hooks=[("blocks.1.attn.hook_z", interrupt)])
    for step in steps:
        if step.position == 11:
            trouble.append("now")
            break
    with pytest.raises(KeyboardInterrupt):
        next(steps)
    assert torch.equal(steps.finish().tokens, expected)


def test_a_cache_is_what_it_was_after_a_pass_that_failed(model: HookedGptOss, tokens: Tensor) -> None:
    cache = model.new_cache()
    model(tokens[:, :6], past_kv_cache=cache)
    before = cache.snapshot()
    for site in ("blocks.0.attn.hook_q", "blocks.1.attn.hook_z", "ln_final.hook_scale"):
        with pytest.raises(Stop):
            model.run_with_hooks(tokens[:, 6:], past_kv_cache=cache, fwd_hooks=[(site, stop)])
        assert cache.n_tokens == 6
        assert all(now.keys is then.keys for now, then in zip(cache.layers, before.layers, strict=True))
    torch.testing.assert_close(model(tokens[:, 6:], past_kv_cache=cache), model(tokens)[:, 6:])


# copies


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_its_own_weights_hooks_and_lock(
    model: HookedGptOss, tokens: Tensor, plain: Tensor, copied: Callable[[HookedGptOss], HookedGptOss]
) -> None:
    twin = copied(model)
    assert torch.equal(twin(tokens), plain)
    assert twin._lock is not model._lock
    assert all(twin.hook_dict[name] is twin.get_submodule(name) for name in model.sites)
    edited = twin.run_with_hooks(tokens, fwd_hooks=[EDIT])
    assert torch.equal(edited, model.run_with_hooks(tokens, fwd_hooks=[EDIT]))
    twin.add_hook(*EDIT)
    twin.blocks[0].attn.sinks.data.add_(1.0)
    assert torch.equal(model(tokens), plain) and not model.list_hooks()


# threads


def test_threads_never_see_each_others_edits(model: HookedGptOss, tokens: Tensor, plain: Tensor) -> None:
    rounds, start = 12, threading.Barrier(5)

    def scaled(factor: float) -> Callable[[], Tensor]:
        return lambda: model.run_with_hooks(tokens, fwd_hooks=[(SITE, lambda value, hook: factor * value)])

    def resetting() -> Tensor:
        model.reset_hooks()  # must wait for a run of another thread, whose hooks it would take off
        return model(tokens)

    jobs: list[Callable[[], Tensor]] = [
        lambda: model(tokens),
        scaled(2.0),
        scaled(-1.0),
        lambda: run(model, tokens, [AblateExpert(0, 1)], sites="hook_embed").logits,
        lambda: model.generate(tokens, max_new_tokens=2, fwd_hooks=[EDIT]).finish().tokens,
    ]
    expected = [job() for job in jobs]

    def repeated(number: int) -> list[float]:
        with torch.no_grad():
            start.wait()
            return [float((jobs[number]() - expected[number]).abs().max()) for _ in range(rounds)]

    with ThreadPoolExecutor(5) as pool:
        off = list(pool.map(repeated, range(5)))
    assert max(max(each) for each in off) < 1e-9
    start = threading.Barrier(2)
    jobs, expected = [scaled(2.0), resetting], [expected[1], expected[0]]
    with ThreadPoolExecutor(2) as pool:
        off = list(pool.map(repeated, range(2)))
    assert max(max(each) for each in off) < 1e-9


# memory


def live_tensors() -> int:
    flush()  # a record that is not written yet holds its tokens
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())  # isinstance wakes lazy proxies


def test_edited_runs_by_the_hundred_leave_no_hook_and_no_tensor(model: HookedGptOss, tokens: Tensor, form: str) -> None:
    short, many = tokens[:1, :3], 300 if form == DENSE else 100

    def once(n: int) -> None:
        model.run_with_hooks(short, fwd_hooks=[EDIT])
        if n % 10 == 0:
            run(model, short, [AblateExpert(0, 1, "zero")], name=str(n))
            model.generate(short, max_new_tokens=2, fwd_hooks=[EDIT]).finish()
            with pytest.raises(Stop):
                model.run_with_hooks(short, fwd_hooks=[EDIT, (SITE, stop)])

    for n in range(20):
        once(n)
    before = live_tensors()
    for n in range(many):
        once(n)
    assert live_tensors() <= before
    assert not model.list_hooks()
