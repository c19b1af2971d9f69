"""A rerun is the whole run with the same edits, and computes only what they can change."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import workbench as wb
from tests.forms import DENSE, NATIVE, only
from tests.small import SMALL, rows, small_model
from workbench.activations import Run, record_of, rerun, run
from workbench.interventions import (
    KINDS,
    AblateAttention,
    AblateExpert,
    AblateHead,
    AblateLayer,
    AblateMLP,
    AblatePosition,
    AblateSite,
    BiasExpert,
    EditSink,
    ForceExpert,
    FreezePatterns,
    FreezeRouting,
    KnockOut,
    Patch,
    PatchExpert,
    ReweightExpert,
    Steer,
    SwapExperts,
    all_edits,
    edits,
)
from workbench.interventions.context import Context
from workbench.model import HookedGptOss, UnknownSite
from workbench.model.memory import NotEnoughMemory

LATE = (5, 7)
# Every kind, with positions where it can have them and without.
SPECS = [
    AblateSite("blocks.1.attn.hook_k", positions=LATE),
    AblateSite("blocks.1.mlp.hook_expert_act", "mean", source="other", component=1),
    AblateSite("blocks.2.attn.hook_attn_scores", positions=LATE, component=2),
    AblateSite("ln_final.hook_normalized", "resample", LATE, "other"),
    AblateSite("ln_final.hook_scale", "mean", source="other"),
    AblateSite("hook_embed", "mean", LATE, "other"),
    AblateHead(1, 2),
    AblateHead(2, 0, "resample", LATE, "other", 4),
    AblateAttention(0, positions=LATE),
    AblateMLP(2, "mean", source="other"),
    AblateLayer(1, positions=LATE),
    AblatePosition(LATE),
    EditSink(1, None),
    EditSink(2, 1, "scale", 0.5, LATE),
    KnockOut(1, ((7, 6), (5, None))),
    KnockOut(0, ((None, 4),), 1, "drop"),
    AblateExpert(1, 2),
    AblateExpert(1, 3, "reroute", LATE),
    AblateExpert(0, 1, "zero", LATE),
    AblateExpert(2, 0, "renormalise"),
    AblateExpert(1, 0, "mean", LATE, "other"),
    AblateExpert(2, 0, "resample", None, "other"),
    ForceExpert(1, 4, LATE),
    SwapExperts(1, 0, 2, "recompute", LATE),
    SwapExperts(2, 1, 3),
    BiasExpert(0, 3, 1.5, LATE),
    ReweightExpert(1, 1, 2.0, True, LATE),
    Patch("blocks.1.hook_resid_mid", "other", LATE, (1, 2)),
    Patch("blocks.1.attn.hook_pattern", "other", LATE, component=0),
    Patch("blocks.2.mlp.hook_expert_indices", "other", LATE),
    Patch("hook_embed", "other"),
    PatchExpert(1, 0, "other", LATE),
    Steer("blocks.2.hook_resid_pre", "vector", 2.0, LATE),
    Steer("ln_final.hook_normalized", "vector"),
    FreezeRouting("other", layers=(1, 2)),
    FreezeRouting("other", "set_and_weights"),
    FreezePatterns("other", heads=(0, 3)),
    FreezePatterns("other", (2,)),
]
ONE_OF_EACH = [*{type(spec): spec for spec in SPECS}.values()]
REMEMBERED: dict[str, Tensor] = {}


class CarryOver:
    """An edit of a type of its own: what it saw in layer 0 it adds in layer 2, at every position from 0 on."""

    def __repr__(self) -> str:
        return "CarryOver()"  # in the names of tests, which are the same in each process


@edits.register
def _(spec: CarryOver) -> list:
    def remember(x: Tensor, hook: object) -> None:
        REMEMBERED["x"] = x

    return [
        ("blocks.0.hook_mlp_out", remember),
        ("blocks.2.hook_resid_pre", lambda x, hook: x + REMEMBERED["x"]),
    ]


@pytest.fixture(scope="module")
def base(model: HookedGptOss, tokens: Tensor) -> Run:
    with torch.no_grad():
        return run(model, tokens, sites="all", name="base")


@pytest.fixture(scope="module")
def sources(model: HookedGptOss, tokens: Tensor, seed: int) -> dict[str, Any]:
    with torch.no_grad():
        other = run(model, rows(model.config, seed + 1), sites="all")
    return {"other": other, "vector": torch.ones(model.config.d_model)}


@pytest.fixture(scope="module")
def nano() -> HookedGptOss:
    return wb.load("nano")


def fitting(spec: Any, other: Run) -> Any:
    """The spec, with an expert that the source was routed to where it takes what that wrote."""
    if isinstance(spec, AblateExpert) and spec.source:
        return replace(spec, expert=int(other[f"blocks.{spec.layer}.mlp.hook_expert_indices"][0, 0, 0]))
    return spec


def assert_same(done: Run, whole: Run, bitwise: bool = False) -> None:
    """All that a run holds: the numbers to 1e-5 of the largest, or to the bit; routes always."""
    assert done.interventions == whole.interventions and done.routing == whole.routing
    assert done.model is whole.model and torch.equal(done.tokens, whole.tokens)
    assert done.provenance.keys() == whole.provenance.keys()
    assert done.provenance["fingerprint"] == whole.provenance["fingerprint"]
    assert list(done.cache.cache_dict) == [site for site in whole.model.sites if site in whole.cache.cache_dict]
    assert_close(done.logits, whole.logits, "logits", bitwise)
    for site in whole.cache:
        assert_close(done[site], whole[site], site, bitwise or whole.model.sites[site].is_integer)
    assert (done.kl is None) == (whole.kl is None) == (done.flipped_routes is None)
    if whole.kl is not None:
        assert torch.equal(done.flipped_routes, whole.flipped_routes)
        torch.testing.assert_close(done.kl, whole.kl, rtol=1e-4, atol=2e-6)  # taken in float32


def assert_close(value: Tensor, expected: Tensor, what: str, bitwise: bool) -> None:
    assert value.dtype == expected.dtype and value.shape == expected.shape, what
    if bitwise:
        assert torch.equal(value, expected), what
        return
    assert torch.equal(value.isneginf(), expected.isneginf()), what
    seen = expected.isfinite()
    if bool(seen.any()):
        assert (value - expected)[seen].abs().max() <= 1e-5 * expected[seen].abs().max().clamp(min=1), what


@contextmanager
def counted(model: HookedGptOss) -> Iterator[list[tuple[int, int]]]:
    """(layer, columns) of each layer that is computed in the block."""
    seen: list[tuple[int, int]] = []
    handles = [
        block.mlp.register_forward_hook(lambda module, given, made, i=i: seen.append((i, made.shape[1])))
        for i, block in enumerate(model.blocks)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


# ---------------------------------------------------------------- equal to the whole run


def test_the_list_of_edits_below_has_every_kind() -> None:
    assert {type(spec).__name__ for spec in SPECS} == {kind for kind in KINDS if kind in wb.__all__}
    assert len(ONE_OF_EACH) == 18


@only(DENSE)
@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_every_edit_gives_the_whole_run(
    model: HookedGptOss, tokens: Tensor, base: Run, sources: dict, spec: Any
) -> None:
    spec = fitting(spec, sources["other"])
    whole = run(model, tokens, [spec], "all", sources=sources)
    done = rerun(base, [spec], sources=sources, columns="all")
    assert_same(done, whole, bitwise=True)
    # In float64 no route is tied as nearly as sums of another order differ.
    assert_same(rerun(base, [spec], sources=sources), whole)
    hooked = model.run_with_hooks(tokens, fwd_hooks=all_edits([spec], Context(model, sources)))
    assert torch.equal(done.logits, hooked)


@only(NATIVE)
@pytest.mark.parametrize("spec", ONE_OF_EACH, ids=lambda spec: type(spec).__name__)
def test_every_kind_of_edit_gives_the_whole_run_of_a_packed_model(
    model: HookedGptOss, tokens: Tensor, base: Run, sources: dict, spec: Any
) -> None:
    spec = fitting(spec, sources["other"])
    whole = run(model, tokens, [spec], "all", sources=sources)
    assert_same(rerun(base, [spec], sources=sources, columns="all"), whole, bitwise=True)


@only(DENSE)
@pytest.mark.parametrize("recorded", [False, True])
def test_every_kind_of_edit_gives_the_whole_run_on_nano(nano: HookedGptOss, recorded: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    tokens, others = (torch.randint(0, 1000, (2, 24), generator=generator) for _ in range(2))
    sources = {"other": run(nano, others, sites="all"), "vector": torch.ones(nano.config.d_model)}
    base = run(nano, tokens)
    recording = record_of(base) if recorded else None
    for each in ONE_OF_EACH[recorded::2]:
        spec = fitting(each, sources["other"])
        whole = run(nano, tokens, [spec], sources=sources)
        assert_same(rerun(base, [spec], sources=sources, recording=recording), whole)


def any_spec(n: int) -> st.SearchStrategy:
    """A call that makes a spec, at a layer and positions of its own."""
    # Not the spec itself: type checks of a new one draw random numbers, which a strategy must not.
    layer, head, expert = st.integers(0, 2), st.integers(0, 3), st.integers(0, 5)
    positions = st.none() | st.lists(st.integers(0, n - 1), max_size=3, unique=True).map(tuple)
    within = st.sampled_from(["hook_resid_pre", "attn.hook_v", "attn.hook_rot_k", "attn.hook_z", "hook_mlp_out"])
    site = st.one_of(
        st.builds("blocks.{}.{}".format, layer, within), st.sampled_from(["hook_embed", "ln_final.hook_normalized"])
    )
    position, source, pattern = st.none() | st.integers(0, n - 1), st.just("other"), "blocks.1.attn.hook_pattern"
    edges = st.lists(st.tuples(position, position), max_size=2).map(tuple)
    policy = st.sampled_from(["reroute", "zero", "renormalise"])
    layers = st.lists(layer, max_size=2, unique=True).map(tuple)
    kinds = [
        (AblateSite, site, st.just("mean"), positions, source),
        (AblateHead, layer, head, st.just("zero"), positions),
        (AblateLayer, layer, st.just("zero"), positions),
        (AblateExpert, layer, expert, policy, positions),
        (ForceExpert, layer, expert, positions),
        (BiasExpert, layer, expert, st.just(1.0), positions),
        (ReweightExpert, layer, expert, st.just(0.5), st.booleans(), positions),
        (KnockOut, layer, edges, st.none() | head, st.sampled_from(["redistribute", "drop"])),
        (EditSink, layer, st.none() | head, st.just("remove"), st.none(), positions),
        (Patch, site | st.just(pattern), source, positions),
        (PatchExpert, layer, expert, source, positions),
        (FreezeRouting, source, st.just("set"), layers),
        (FreezePatterns, source, layers),
        (CarryOver,),
    ]
    return st.one_of(st.builds(partial, st.just(kind), *fields) for kind, *fields in kinds)


@only(DENSE)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(any_spec(9), max_size=2),
    more=st.lists(any_spec(9), max_size=3),
    padding=st.sampled_from(["none", "left", "right"]),
    recorded=st.booleans(),
    seed=st.integers(0, 3),
)
def test_any_mix_of_edits_on_any_base_gives_the_whole_run(
    form: str, before: list, more: list, padding: str, recorded: bool, seed: int
) -> None:
    model, tokens, other = few_models(form, seed)
    mask = None
    if padding != "none":
        mask = torch.ones_like(tokens, dtype=torch.bool)
        mask[1, slice(0, 3) if padding == "left" else slice(6, None)] = False
    sources, before, more = {"other": other}, [make() for make in before], [make() for make in more]
    try:
        whole = run(model, tokens, [*before, *more], sources=sources, attention_mask=mask)
    except ValueError as refused:
        with pytest.raises(type(refused), match=re.escape(str(refused))):
            rerun(run(model, tokens, attention_mask=mask), [*before, *more], sources=sources)
        return
    try:
        base = run(model, tokens, before, sources=sources, attention_mask=mask)
    except ValueError:  # what only the later ones make possible
        base, more = run(model, tokens, attention_mask=mask), [*before, *more]
    recording = record_of(base, sources=sources) if recorded else None
    assert_same(rerun(base, more, sources=sources, recording=recording), whole)


MODELS: dict[tuple[str, int], tuple[HookedGptOss, Tensor, Run]] = {}


def few_models(form: str, seed: int) -> tuple[HookedGptOss, Tensor, Run]:
    """A model, two rows of tokens, and a run of two others."""
    if (form, seed) not in MODELS:
        model = small_model(SMALL, form, seed)
        MODELS[form, seed] = model, rows(model.config, seed), run(model, rows(model.config, seed + 9), sites="all")
    return MODELS[form, seed]


# ---------------------------------------------------------------- for less work


@pytest.mark.parametrize(
    ("specs", "first", "column"),
    [
        ([AblateExpert(2, 1)], 2, 0),
        ([AblateExpert(1, 1, positions=(6, 4))], 1, 4),
        ([AblateHead(2, 1, positions=(7,)), EditSink(1, 0, positions=(5,))], 1, 5),
        ([AblateHead(2, 1, positions=(7,)), BiasExpert(2, 0, 1.0)], 2, 0),
        ([KnockOut(0, ((None, 6), (8, 7)))], 0, 6),
        ([KnockOut(1, ((8, None),))], 1, 8),
        ([KnockOut(1, ((None, None),))], 1, 0),
        ([AblateSite("ln_final.hook_scale")], 3, 0),
        ([AblatePosition((6,))], 0, 0),
        ([AblateHead(0, 1, positions=()), AblateHead(2, 1, positions=(3,))], 2, 3),
        ([AblateHead(0, 1, positions=()), KnockOut(0, ())], 3, 0),
        ([FreezeRouting("other", layers=())], 3, 0),
        ([], 3, 0),
        ([CarryOver()], 0, 0),
    ],
    ids=repr,
)
def test_only_the_layers_and_columns_that_an_edit_can_change_are_computed(
    model: HookedGptOss, base: Run, sources: dict, specs: list, first: int, column: int
) -> None:
    for recording in (None, record_of(base)):
        with counted(model) as seen:
            done = rerun(base, specs, sources=sources, recording=recording)
        assert seen == [(layer, 9 - column) for layer in range(first, 3)]
    below = [site for site, meta in model.sites.items() if meta.layer is not None and meta.layer < first]
    assert below or first == 0
    assert all(done[site] is base[site] for site in below)  # views, not copies


def test_an_edit_of_nothing_leaves_the_bases_own_tensors(base: Run) -> None:
    nothing, none = rerun(base, [AblateHead(0, 1, positions=())], name="nothing"), rerun(base, [])
    assert nothing.logits is base.logits and none.logits is base.logits
    assert not nothing.flipped_routes.any() and not nothing.kl.any() and nothing.name == "nothing"
    assert none.flipped_routes is None and none.kl is None and none.name is None


def test_edits_on_an_edited_base_begin_at_their_own_layer(
    model: HookedGptOss, tokens: Tensor, base: Run, sources: dict
) -> None:
    first, second = AblateExpert(0, 2, "zero"), Patch("blocks.2.attn.hook_v", "other", (4,))
    once = rerun(base, [first])
    whole = run(model, tokens, [first, second], "all", sources=sources)
    for recording, unedited in ((None, base), (record_of(base), base), (record_of(once), base), (None, None)):
        with counted(model) as seen:
            twice = rerun(once, [second], sources=sources, recording=recording, unedited=unedited)
        assert seen == ([(2, 9)] if unedited is base else [(2, 9), (0, 9), (1, 9), (2, 9)])
        assert_same(twice, whole, bitwise=True)


def test_specs_of_several_layers_are_cut_only_where_that_changes_nothing(
    model: HookedGptOss, tokens: Tensor, base: Run, sources: dict
) -> None:
    for spec, first in ((CarryOver(), 0), (FreezeRouting("other"), 2), (FreezePatterns("other"), 2)):
        once, more = run(model, tokens, [spec], "all", sources=sources), AblateHead(2, 1, positions=(7,))
        with counted(model) as seen:
            twice = rerun(once, [more], sources=sources, unedited=base)
        assert seen == [(layer, 9) for layer in range(first, 3)]
        assert_same(twice, run(model, tokens, [spec, more], "all", sources=sources), bitwise=True)


def test_a_base_that_kept_too_little_runs_whole_or_from_a_recording(model: HookedGptOss, tokens: Tensor) -> None:
    spec, site = AblateExpert(2, 1, positions=(4,)), "blocks.1.attn.hook_z"
    base, whole, recording = (
        run(model, tokens, sites=site),
        run(model, tokens, [spec], site),
        model.record(tokens, layers=[0, 1]),
    )
    assert_same(rerun(base, [spec]), whole, bitwise=True)
    with counted(model) as seen:
        done = rerun(base, [spec], recording=recording)
    assert seen == [(1, 5), (2, 5), *((layer, 9) for layer in range(3))]  # the second to compare routes with
    assert_close(done.logits, whole.logits, "logits", bitwise=False)


def test_a_base_that_kept_some_streams_runs_from_those(model: HookedGptOss, tokens: Tensor) -> None:
    ends = ["blocks.0.hook_resid_post", "blocks.2.hook_resid_post"]
    for sites, specs, first in (
        (ends, [AblateExpert(1, 1, positions=(4,))], 1),
        (ends, [AblateExpert(2, 1, positions=(4,))], 1),
        (ends[:1], [AblateExpert(2, 1, positions=(4,))], 0),
        (ends[1:], [AblateSite("ln_final.hook_normalized", positions=(4,))], 3),
    ):
        base, whole = run(model, tokens, sites=sites), run(model, tokens, specs, sites)
        with counted(model) as seen:
            assert_same(rerun(base, specs), whole, bitwise=first < 3)
        assert seen[: 3 - first] == [(layer, 9) for layer in range(first, 3)]


def test_other_sites_may_be_kept_than_the_base_kept(model: HookedGptOss, tokens: Tensor) -> None:
    base, spec = run(model, tokens), AblateExpert(2, 1, positions=(4,))
    for sites, first in (
        ("blocks.0.attn.hook_z", 2),
        ("blocks.1.attn.hook_q", 1),
        (["hook_embed", "ln_final.hook_normalized"], 2),
        ("all", 0),
    ):
        with counted(model) as seen:
            done = rerun(base, [spec], sites=sites)
        assert seen[0][0] == first
        assert_same(done, run(model, tokens, [spec], sites), bitwise=seen[0][1] == 9)
    alone = rerun(base, [], sites="blocks.1.attn.hook_q")
    assert_same(alone, run(model, tokens, sites="blocks.1.attn.hook_q"), bitwise=True)


@only(DENSE)
def test_in_half_precision_an_edit_that_does_nothing_has_no_divergence(seed: int) -> None:
    model = small_model(SMALL, DENSE, seed, dtype=torch.bfloat16)
    tokens = rows(model.config, seed, 200)
    base = run(model, tokens)
    for column, first in ((40, 0), (150, 150)):
        chosen = base["blocks.0.mlp.hook_expert_indices"][:, column].unique().tolist()
        unused = next(expert for expert in range(6) if expert not in chosen)
        with counted(model) as seen:
            done = rerun(base, [AblateExpert(0, unused, positions=(column,))])
        assert seen[0] == (0, 200 - first) and len(seen) == (6 if first else 3)
        assert not done.flipped_routes.any() and not done.kl.any()
        again = run(model, tokens, [AblateExpert(0, unused, positions=(column,))])
        assert torch.equal(done.logits, again.logits) or first


# ---------------------------------------------------------------- checks, errors, threads


@only(DENSE)
def test_what_cannot_be_run_again_is_refused_before_anything_runs(
    model: HookedGptOss, tokens: Tensor, base: Run, sources: dict, as_in_a_notebook: None
) -> None:
    frozen = run(model, tokens, routing="frozen_set", routing_from=base)
    spec, padded = AblateExpert(1, 2), torch.ones_like(tokens, dtype=torch.bool)
    padded[0, 0] = False
    elsewhere = sources["other"]
    for start, specs, kwargs, kind, message in [
        (base, spec, {}, ValueError, r"expected a list, \[AblateExpert"),
        (base, [AblateExpert(3, 2)], {}, ValueError, "there is no layer 3"),
        (base, [Patch("hook_embed", "gone")], {}, ValueError, "there is no source 'gone'"),
        (base, ["AblateExpert"], {}, TypeError, "is no intervention"),
        (base, [spec], {"columns": "few"}, ValueError, r"columns='few': expected one of \('changed', 'all'\)"),
        (base, [spec], {"sites": "blocks.0.hook_resid"}, UnknownSite, "closest is"),
        (base, [spec], {"recording": record_of(elsewhere)}, ValueError, r"not of those of Run\('base'"),
        (base, [spec], {"recording": model.record(tokens, padded)}, ValueError, "or not with its padding"),
        (base, [spec], {"unedited": elsewhere}, ValueError, "expected a run of the base's tokens without interv"),
        (frozen, [spec], {}, ValueError, r"routing='frozen_set'.*with the intervention FreezeRouting"),
    ]:
        with counted(model) as seen, pytest.raises(kind, match=message):
            rerun(start, specs, **kwargs)
        assert not seen


def test_a_run_that_cannot_fit_is_refused(model: HookedGptOss, base: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.model.memory import check

    monkeypatch.setattr(check, "TINY", 0)
    monkeypatch.setattr(check, "free_memory", lambda device: check.Free(1000, "a test"))
    monkeypatch.setattr(check, "heap_room", lambda: 0)
    with counted(model) as seen, pytest.raises(NotEnoughMemory, match=r"1\.0 kB are free"):
        rerun(base, [AblateExpert(2, 1)])
    assert not seen
    assert rerun(base, [AblateExpert(2, 1)], check_memory=False).kl is not None


@only(DENSE)
def test_a_model_whose_weights_changed_since_is_refused(seed: int) -> None:
    model = small_model(SMALL, DENSE, seed)
    base = run(model, rows(model.config, seed))
    model.blocks[1].attn.sinks += 1
    with pytest.raises(ValueError, match=r"the weights of small have changed since Run\(.* run it anew with wb\.run"):
        rerun(base, [AblateExpert(2, 1)])


def test_hooks_that_the_user_left_on_take_part(model: HookedGptOss, tokens: Tensor) -> None:
    spec = AblateHead(2, 1, positions=(7,))
    model.add_hook("blocks.2.hook_mlp_out", lambda x, hook: x * torch.arange(9)[:, None].to(x))
    try:
        base = run(model, tokens)
        assert_same(rerun(base, [spec], recording=record_of(base)), run(model, tokens, [spec]), bitwise=True)
    finally:
        model.reset_hooks()


class Fails:
    """An edit whose hook raises."""


@edits.register
def _(spec: Fails) -> list:
    def fail(x: Tensor, hook: object) -> None:
        raise RuntimeError("the hook failed")

    return [("blocks.1.hook_resid_mid", lambda x, hook: x + 1), ("blocks.2.attn.hook_z", fail)]


def test_a_hook_that_raises_leaves_the_model_as_it_was(model: HookedGptOss, base: Run) -> None:
    for specs in ([Fails()], [AblatePosition((1,)), Fails()]):
        with pytest.raises(RuntimeError, match="the hook failed"):
            rerun(base, specs)
        assert not model.list_hooks() and model.first_column is None  # and see the fixture left_as_found


def test_threads_never_see_each_others_edits(model: HookedGptOss, tokens: Tensor, base: Run, plain: Tensor) -> None:
    specs = [[AblateExpert(layer, expert)] for layer, expert in ((0, 1), (1, 4), (2, 2))]
    alone = [rerun(base, each).logits for each in specs]
    same: list[bool] = []

    def work(each: Sequence[Any], expected: Tensor) -> None:
        with torch.no_grad():
            for _ in range(2):
                same.append(torch.equal(rerun(base, each).logits, expected))
                same.append(torch.equal(model(tokens), plain))

    threads = [threading.Thread(target=work, args=each) for each in zip(specs, alone, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 12
