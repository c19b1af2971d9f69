"""What a run did not keep is worked out again, as it was; and what there is room for is known beforehand."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from tests.forms import DENSE, NATIVE, only
from tests.small import SMALL, rows, small_model
from workbench.activations import Run, affordable_sites, record_of, rerun, run, site_of
from workbench.checkpoints import estimate
from workbench.interventions import AblateExpert, AblatePosition, FreezeRouting, Patch, edits
from workbench.model import GPT_OSS_20B, HookedGptOss, Recording, UnknownSite
from workbench.model.memory import NotEnoughMemory, check
from workbench.model.sites import STANDARD_SITES

PATTERN = "blocks.1.attn.hook_pattern"


@pytest.fixture(scope="module")
def whole(model: HookedGptOss, tokens: Tensor) -> Run:
    with torch.no_grad():
        return run(model, tokens, sites="all", name="whole")


@pytest.fixture(scope="module")
def base(model: HookedGptOss, tokens: Tensor) -> Run:
    with torch.no_grad():
        return run(model, tokens, name="base")


@contextmanager
def counted(model: HookedGptOss) -> Iterator[list[str]]:
    """The parts of layers that are computed in the block."""
    seen, handles = [], []
    for i, block in enumerate(model.blocks):
        for part in ("attn", "mlp"):
            name = f"{part}{i}"
            handles.append(getattr(block, part).register_forward_pre_hook(lambda *_, name=name: seen.append(name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def test_every_site_is_what_a_run_that_keeps_all_has(model: HookedGptOss, base: Run, whole: Run) -> None:
    for site in model.sites:
        assert torch.equal(site_of(base, site), whole[site]), site
    kept = len(base.cache)
    assert site_of(base, PATTERN) is base[PATTERN] and len(base.cache) == kept


@only(DENSE, NATIVE)
def test_every_site_of_an_edited_run_is_as_its_edits_left_it(
    model: HookedGptOss, tokens: Tensor, base: Run, whole: Run
):
    sources = {"base": base}
    specs = [AblateExpert(0, 2), Patch("blocks.1.hook_resid_mid", "base", (4,)), FreezeRouting("base", layers=(2,))]
    expected = run(model, tokens, specs, "all", sources=sources)
    anew, again = run(model, tokens, specs, sources=sources), rerun(base, specs, sources=sources, columns="all")
    for i, site in enumerate(model.sites):
        assert torch.equal(site_of((anew, again)[i % 2], site, sources=sources), expected[site]), site
    assert not torch.equal(expected["blocks.1.attn.hook_q"], whole["blocks.1.attn.hook_q"])


@pytest.mark.parametrize("specs", [[], [AblateExpert(1, 2)], [AblateExpert(2, 0), AblatePosition((3,))]], ids=repr)
def test_a_run_without_streams_takes_a_recording_or_begins_anew(
    model: HookedGptOss, tokens: Tensor, specs: list
) -> None:
    bare = run(model, tokens, specs, "blocks.0.hook_attn_out")
    expected = run(model, tokens, specs, "all")
    for recording in (None, model.record(tokens), model.record(tokens, layers=[1]), record_of(bare)):
        for site in (
            "hook_embed",
            "blocks.0.attn.hook_q",
            PATTERN,
            "blocks.2.mlp.hook_expert_act",
            "ln_final.hook_scale",
        ):
            assert torch.equal(site_of(bare, site, recording), expected[site]), site


def test_padded_rows_keep_their_padding(model: HookedGptOss, tokens: Tensor) -> None:
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, :3] = False
    base, expected = (run(model, tokens, sites=sites, attention_mask=mask) for sites in (None, "all"))
    bare = run(model, tokens, sites="hook_embed", attention_mask=mask)
    for run_ in (base, bare):
        for site in ("blocks.2.attn.hook_attn_scores", "blocks.1.attn.hook_rot_k"):
            assert torch.equal(site_of(run_, site), expected[site])


@pytest.mark.parametrize(
    ("site", "sites", "parts"),
    [
        ("blocks.1.attn.hook_q", None, ["attn1"]),
        ("blocks.2.attn.hook_attn_scores", None, ["attn2"]),
        ("blocks.1.mlp.hook_expert_act", None, ["attn1", "mlp1"]),
        ("ln_final.hook_normalized", None, []),
        ("blocks.1.attn.hook_q", "hook_embed", ["attn0", "mlp0", "attn1"]),
        ("hook_embed", "blocks.0.attn.hook_z", []),
    ],
)
def test_nothing_is_computed_beyond_the_site(
    model: HookedGptOss, tokens: Tensor, site: str, sites: str | None, parts: list[str]
) -> None:
    base = run(model, tokens, sites=sites)
    with counted(model) as seen:
        site_of(base, site)
    assert seen == parts


def test_a_site_that_cannot_be_had_is_refused_before_anything_runs(
    model: HookedGptOss, tokens: Tensor, base: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = "blocks.1.attn.hook_attn_scores"
    frozen = run(model, tokens, routing="frozen_set", routing_from=base)
    patched = run(model, tokens, [Patch("hook_embed", "base")], sources={"base": base})
    with counted(model) as seen:
        with pytest.raises(UnknownSite, match=r"closest is 'blocks\.1\.attn\.hook_pattern'"):
            site_of(base, "blocks.1.attn.hook_patern")
        with pytest.raises(ValueError, match=r"took its routing from another run \(routing='frozen_set'\)"):
            site_of(frozen, site)
        with pytest.raises(ValueError, match=r"there is no source 'base'.* Pass sources="):
            site_of(patched, site)
        with pytest.raises(ValueError, match=r"of those of Run\('base'.*record_of\(run\) makes one"):
            site_of(base, site, Recording(model.config, tokens + 1, None, {}, {}, {}))
        monkeypatch.setattr(check, "TINY", 0)
        monkeypatch.setattr(check, "free_memory", lambda device: check.Free(1000, "a test"))
        monkeypatch.setattr(check, "heap_room", lambda: 0)
        with pytest.raises(NotEnoughMemory, match=r"1\.0 kB are free"):
            site_of(base, site)
    assert not seen
    assert torch.equal(
        site_of(base, site, check_memory=False), run(model, tokens, sites=site, check_memory=False)[site]
    )


class Breaks:
    """An edit of layer 1 whose hook raises from some moment on."""

    now = False


@edits.register
def _(spec: Breaks) -> list:
    def add(x: Tensor, hook: object) -> Tensor:
        if spec.now:
            raise RuntimeError("the hook failed")
        return x + 1

    return [("blocks.1.hook_resid_pre", add)]


def test_a_hook_that_raises_leaves_the_model_as_it_was(model: HookedGptOss, tokens: Tensor) -> None:
    spec = Breaks()
    for sites in (None, "hook_embed"):
        edited, spec.now = run(model, tokens, [spec], sites), True
        for work in (
            lambda edited=edited: site_of(edited, "blocks.1.attn.hook_q"),
            lambda edited=edited: record_of(edited),
        ):
            with pytest.raises(RuntimeError, match="the hook failed"):
                work()
            assert not model.list_hooks() and model.first_column is None
        spec.now = False


# ---------------------------------------------------------------- recordings


def test_the_recording_of_a_finished_run_is_the_models_own(model: HookedGptOss, tokens: Tensor, base: Run) -> None:
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, :2] = False
    padded = run(model, tokens, attention_mask=mask)
    edited = run(model, tokens, [AblateExpert(1, 2)])
    with model.edited(edited.interventions):
        under_edits = model.record(tokens)
    bare = run(model, tokens, sites="hook_embed")
    for done, expected in (
        (base, model.record(tokens)),
        (padded, model.record(tokens, mask)),
        (edited, under_edits),
        (bare, model.record(tokens)),
    ):
        made = record_of(done)
        for part in ("streams", "keys", "values"):
            mine, theirs = getattr(made, part), getattr(expected, part)
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[layer], theirs[layer]) for layer in theirs), part
        assert torch.equal(model.resume(made, 1, 4), model.resume(expected, 1, 4))


def test_the_recording_of_an_unedited_run_computes_no_expert_and_copies_no_stream(
    model: HookedGptOss, base: Run
) -> None:
    with counted(model) as seen:
        made = record_of(base)
    assert not seen and made.streams[2] is base["blocks.1.hook_resid_post"]


# ---------------------------------------------------------------- what there is room for


@only(DENSE)
def test_nothing_is_worked_out_on_changed_weights(seed: int) -> None:
    model = small_model(SMALL, DENSE, seed)
    base = run(model, rows(model.config, seed))
    model.blocks[1].attn.sinks += 1
    for work in (lambda: site_of(base, "blocks.1.attn.hook_q"), lambda: record_of(base)):
        with pytest.raises(ValueError, match=r"the weights of small have changed since Run\("):
            work()


@only(DENSE)
def test_what_fits_is_kept_whole(model: HookedGptOss, tokens: Tensor, base: Run) -> None:
    held = sum(base[site].nbytes for site in base.cache)
    assert affordable_sites(model, 9, held, batch=2) == list(base.cache.cache_dict)
    assert affordable_sites(model, 9) == list(base.cache.cache_dict)
    less = affordable_sites(model, 9, held - 1, batch=2)
    assert [site for site in base.cache if site not in less] == model.sites.match("hook_pattern")
    assert list(run(model, tokens, sites=less).cache) == less


@only(DENSE)
def test_of_a_long_text_patterns_are_left_out_first_and_streams_and_routes_never() -> None:
    model = HookedGptOss(GPT_OSS_20B, device="meta", experts="packed")
    standard, always = set(STANDARD_SITES), {"hook_embed", "hook_resid_post", "hook_expert_indices"}
    kinds = {}
    for budget in (10**11, 10**10, 10**9, 10**6):
        kept = affordable_sites(model, 2000, budget)
        kinds[budget] = {site.rsplit(".", 1)[-1] for site in kept}
        assert kept == [
            site for site in model.sites if site.rsplit(".", 1)[-1] in kinds[budget]
        ]  # every layer, or none
        assert always <= kinds[budget]
        assert estimate(GPT_OSS_20B, 1, 2000, kept).kept <= budget or budget == 10**6
    assert kinds[10**11] == standard
    assert kinds[10**10] == standard - {"hook_pattern"}
    assert kinds[10**9] < standard - {"hook_pattern", "hook_z"}
    for shorter, longer in ((64, 512), (512, 4096)):
        assert set(affordable_sites(model, longer, 10**9)) <= set(affordable_sites(model, shorter, 10**9))
