"""A resumed run is the whole run with the same edits, at every site that it computes, for less work."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tests.forms import DENSE, EAGER, NATIVE, held, packable, through
from tests.golden.routes import margins
from tests.golden.shapes import random_model, random_shape, random_tokens
from workbench.model import NANO, HookedGptOss, Recording, UnknownSite, random_weights
from workbench.model.sites import position_axis

TOLERANCE = 1e-5
Hook = tuple[str, Callable]
# Sites of every kind that a row can be edited at: before and after attention, keys, patterns, routes, experts.
EDITED = (
    "hook_resid_pre",
    "ln1.hook_normalized",
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_v_in",
    "attn.hook_rot_k",
    "attn.hook_pattern",
    "attn.hook_sink",
    "attn.hook_z",
    "hook_attn_out",
    "hook_resid_mid",
    "mlp.hook_router_logits",
    "mlp.hook_expert_weights",
    "mlp.hook_expert_act",
    "mlp.hook_expert_out",
    "hook_mlp_out",
    "hook_resid_post",
)


class Text:
    """A random model and a batch of random tokens with a mask.

    float64 where runs of other shapes are compared that nobody has searched for near-tied routes.
    """

    def __init__(
        self,
        seed: int,
        batch: int = 1,
        length: int = 12,
        padding: str = "none",
        form: str = DENSE,
        dtype: torch.dtype = torch.float32,
        **shape,
    ) -> None:
        config = random_shape(seed, **({"n_layers": 3, "sliding_window": 4} | shape))
        model = random_model(config, seed).to(dtype)
        self.model = model if form == DENSE else held(packable(model), form)
        self.tokens = random_tokens(config, seed, batch, length)
        self.mask = mask_of(padding, batch, length, seed)

    def record(self, **kwargs) -> Recording:
        return self.model.record(self.tokens, attention_mask=self.mask, **kwargs)

    def whole(self, rows: Sequence[int], hooks: Sequence[Hook] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits and every site of the whole run of these rows."""
        mask = None if self.mask is None else self.mask[list(rows)]
        return kept(self.model, lambda keep: self._run(rows, mask, [*hooks, *keep]))

    def _run(self, rows: Sequence[int], mask: Tensor | None, hooks: list[Hook]) -> Tensor:
        return self.model.run_with_hooks(self.tokens[list(rows)], attention_mask=mask, fwd_hooks=hooks)


def mask_of(padding: str, batch: int, length: int, seed: int) -> Tensor | None:
    """A mask with up to half of each row taken out on the left, on the right, or anywhere."""
    if padding == "none":
        return None
    generator = torch.Generator().manual_seed(seed)
    out = torch.randint(0, length // 2 + 1, (batch, 1), generator=generator)
    columns = torch.arange(length)
    if padding == "left":
        return columns >= out
    if padding == "right":
        return columns < length - out
    holes = torch.rand(batch, length, generator=generator) < 0.7
    holes[:, -1] = True
    return holes


def kept(
    model: HookedGptOss, run: Callable[[list[Hook]], Tensor], names: Callable[[str], bool] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """What a run returns and all sites, or those of the names."""
    cache, keep, _ = model.get_caching_hooks(names)
    return run(keep), cache


def reached(model: HookedGptOss, layer: int) -> Callable[[str], bool]:
    """The sites that a run from a layer on computes."""
    layers = tuple(f"blocks.{i}." for i in range(layer, model.config.n_layers))
    return lambda name: name.startswith((*layers, "ln_final"))


def edit(model: HookedGptOss, site: str, row: int, column: int, by: float = 1.5) -> Hook:
    """Scale one row of a site at one column and after, wherever in its row the pass stands."""

    def scaled(x: Tensor, hook: object) -> Tensor:
        x = x.clone()
        at = column - model.first_column
        axis = x.ndim + position_axis(site) - 1  # of one row
        x[row].narrow(axis, at, x[row].shape[axis] - at).mul_(by)
        return x

    return site, scaled


def assert_rest_equal(
    model: HookedGptOss, rest: dict[str, Tensor], whole: dict[str, Tensor], column: int, bitwise: bool = False
) -> None:
    """Every site that was computed holds the rest of the whole run's."""
    for name, value in rest.items():
        axis = whole[name].ndim + position_axis(name)
        expected = whole[name].narrow(axis, column, whole[name].shape[axis] - column)
        assert value.shape == expected.shape, name
        if bitwise or model.sites[name].is_integer:
            assert torch.equal(value, expected), name
        else:
            assert_close(value, expected, name)


def assert_close(value: Tensor, expected: Tensor, name: str = "") -> None:
    """Equal to 1e-5, of the largest number of the tensor where that is beyond 1; −inf where it is −inf."""
    assert torch.equal(value.isneginf(), expected.isneginf()), name
    seen = expected.isfinite()
    scale = expected[seen].abs().max().clamp(min=1) if bool(seen.any()) else 1
    assert bool(((value - expected)[seen].abs() <= TOLERANCE * scale).all()), f"{name}, scale {scale}"


def least_margin(model: HookedGptOss, sites: dict[str, Tensor]) -> float:
    routers = [value for name, value in sites.items() if name.endswith("hook_router_logits")]
    return min(float(margins(router, model.config.experts_per_token).min()) for router in routers)


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@given(
    seed=st.integers(0, 2**20),
    batch=st.integers(1, 3),
    length=st.integers(2, 14),
    window=st.integers(1, 9),
    n_layers=st.integers(2, 4),
    padding=st.sampled_from(["none", "left", "right", "anywhere"]),
    data=st.data(),
)
@settings(max_examples=25)
def test_at_every_site_it_is_the_whole_run_with_the_same_edits(
    seed: int, batch: int, length: int, window: int, n_layers: int, padding: str, data: st.DataObject
):
    text = Text(seed, batch, length, padding, n_layers=n_layers, sliding_window=window)
    layer, column = data.draw(st.integers(0, n_layers - 1)), data.draw(st.integers(0, length - 1))
    rows = data.draw(st.lists(st.integers(0, batch - 1), min_size=1, max_size=4))
    places = st.tuples(st.integers(layer, n_layers - 1), st.sampled_from(EDITED), st.integers(column, length - 1))
    drawn = [(*data.draw(places), data.draw(st.sampled_from([0.2, 0.8, 1.5]))) for _ in rows]
    hooks = [edit(text.model, f"blocks.{i}.{site}", row, at, by) for row, (i, site, at, by) in enumerate(drawn)]
    logits, whole = text.whole(rows, hooks)
    # Where float32 cannot tell two experts apart, a row may rightly take the other one.
    assume(least_margin(text.model, whole) > 1e-4)
    recording, there = text.record(), reached(text.model, layer)
    resumed, rest = kept(
        text.model, lambda keep: text.model.resume(recording, layer, column, rows, [*hooks, *keep]), there
    )
    assert set(rest) == set(filter(there, text.model.sites))
    assert_rest_equal(text.model, rest, whole, column)
    assert_close(resumed, logits[:, column:])


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize(("layer", "rows"), [(0, None), (1, None), (2, None), (0, [2, 0, 0, 1]), (0, [1, 1])])
def test_where_every_layer_meets_the_rows_that_it_meets_in_the_whole_run_it_has_its_bits(
    seed: int, padding: str, layer: int, rows: list[int] | None
):
    # Above layer 0 that takes the recorded rows: in another batch, the experts below met their tokens in other groups.
    text = Text(seed, 3, 12, padding)
    model, recording = text.model, text.record()
    whose = [0, 1, 2] if rows is None else rows
    hooks = [edit(model, f"blocks.{layer}.{EDITED[3 * i]}", i, 3 * i) for i in range(len(whose))]
    logits, whole = text.whole(whose, hooks)
    resumed, rest = kept(
        model, lambda keep: model.resume(recording, layer, 0, rows, [*hooks, *keep]), reached(model, layer)
    )
    assert torch.equal(resumed, logits)
    assert_rest_equal(model, rest, whole, 0, bitwise=True)


def test_copies_of_one_row_have_the_bits_of_a_batch_of_copies(seed: int):
    text = Text(seed)
    hooks = [edit(text.model, "blocks.0.attn.hook_v", row, row) for row in range(4)]
    logits, _ = text.whole([0] * 4, hooks)
    assert torch.equal(text.model.resume(text.record(), 0, 0, 4, hooks), logits)


def test_the_same_resume_again_has_the_same_bits(seed: int):
    text = Text(seed)
    recording, hooks = text.record(), [edit(text.model, "blocks.1.attn.hook_v", 2, 7)]
    first, again = (text.model.resume(recording, 1, 5, 4, hooks) for _ in range(2))
    assert torch.equal(first, again)


def test_a_recording_is_the_run_bit_for_bit(seed: int):
    for padding in ("none", "left", "right", "anywhere"):
        text = Text(seed, 2, padding=padding)
        logits, whole = text.whole([0, 1])
        recording = text.record()
        n_layers = text.model.config.n_layers
        assert torch.equal(text.model.resume(recording, n_layers), logits)
        for layer in range(n_layers):
            assert torch.equal(recording.streams[layer], whole[f"blocks.{layer}.hook_resid_pre"])
            assert torch.equal(recording.keys[layer], whole[f"blocks.{layer}.attn.hook_rot_k"])
            assert torch.equal(recording.values[layer], whole[f"blocks.{layer}.attn.hook_v"])


def test_edits_that_were_on_when_it_was_recorded_stay_below_and_before(seed: int):
    text = Text(seed, dtype=torch.float64)
    model = text.model
    below = [edit(model, "blocks.0.attn.hook_z", 0, 2), edit(model, "hook_embed", 0, 4)]
    above = [edit(model, "blocks.2.attn.hook_v", 0, 5)]
    with model.hooks(fwd_hooks=below):
        recording = model.record(text.tokens)
    logits, _ = text.whole([0], [*below, *above])
    assert_close(model.resume(recording, 1, 5, None, above), logits[:, 5:])


@pytest.mark.parametrize("form", [EAGER, NATIVE])
def test_packed_experts_resume_as_dense_ones_do(seed: int, form: str):
    rows = [0, 1, 1]
    with through(form):
        for attempt in range(100):  # until no route is near-tied
            text = Text(seed + attempt, 2, form=form, d_model=64, d_mlp=32)
            hooks = [edit(text.model, f"blocks.1.{site}", row, 4 + row) for row, site in enumerate(EDITED[-6:-3])]
            logits, whole = text.whole(rows, hooks)
            if least_margin(text.model, whole) > 1e-3:
                break
        recording = text.record()
        resumed, rest = kept(
            text.model, lambda keep: text.model.resume(recording, 1, 4, rows, [*hooks, *keep]), reached(text.model, 1)
        )
        alike = text.model.resume(recording, 1, 0, None, hooks[:2])
        assert torch.equal(alike, text.whole([0, 1], hooks[:2])[0])
    assert_rest_equal(text.model, rest, whole, 4)
    assert_close(resumed, logits[:, 4:])


@pytest.mark.parametrize("padding", ["none", "left"])
def test_a_hook_can_tell_where_it_is(seed: int, padding: str):
    text = Text(seed, 2, padding=padding)
    model, seen = text.model, []

    def look(x: Tensor, hook: object) -> None:
        seen.append((model.first_column, model.positions.clone()))

    model.run_with_hooks(text.tokens, attention_mask=text.mask, fwd_hooks=[("blocks.1.hook_resid_pre", look)])
    model.resume(text.record(), 1, 7, [1, 0, 1], [("blocks.1.hook_resid_pre", look)])
    (at_start, positions), (first, rest) = seen
    assert (at_start, first) == (0, 7)
    assert torch.equal(rest.expand(3, -1), positions.expand(2, -1)[[1, 0, 1], 7:])
    assert model.positions is None and model.first_column is None


def test_patterns_keep_every_key_position_on_sliding_layers_too(seed: int):
    text = Text(seed, length=14, sliding_window=3)
    cache, keep, _ = text.model.get_caching_hooks(["blocks.2.attn.hook_pattern", "blocks.2.attn.hook_attn_scores"])
    text.model.resume(text.record(), 2, 11, fwd_hooks=keep)
    scores, pattern = cache["blocks.2.attn.hook_attn_scores"], cache["blocks.2.attn.hook_pattern"]
    assert pattern.shape[-2:] == scores.shape[-2:] == (3, 14)
    visible = scores[0, 0].isfinite()
    assert [row.nonzero()[:, 0].tolist() for row in visible] == [[9, 10, 11], [10, 11, 12], [11, 12, 13]]
    assert torch.equal(pattern[0, 0] > 0, visible)


def test_gradients_reach_an_edit_as_they_do_in_the_whole_run(seed: int):
    text = Text(seed, dtype=torch.float64)
    model, column = text.model, 6
    recording = text.record()

    def slope(run: Callable[[list[Hook]], Tensor]) -> Tensor:
        change = torch.zeros(2, model.config.d_model, dtype=torch.float64, requires_grad=True)

        def add(x: Tensor, hook: object) -> Tensor:
            return torch.cat(
                (x[:, : column - model.first_column], x[:, column - model.first_column :] + change[:, None]), 1
            )

        with torch.enable_grad():
            logits = run([("blocks.1.hook_resid_mid", add)])
            (logits[0, -1, 3] - 2 * logits[1, -2, 5]).backward()
        model.zero_grad(set_to_none=True)
        assert change.grad is not None
        return change.grad

    whole = slope(lambda hooks: model.run_with_hooks(text.tokens.repeat(2, 1), fwd_hooks=hooks))
    resumed = slope(lambda hooks: model.resume(recording, 1, column, 2, hooks))
    assert whole.abs().max() > 1e-3
    assert_close(resumed, whole)


def test_backward_hooks_that_are_on_see_the_gradient(seed: int):
    text = Text(seed)
    seen = {}
    recording = text.record()
    with torch.enable_grad(), text.model.hooks(bwd_hooks=[("blocks.2.attn.hook_z", lambda g, hook: seen.update(z=g))]):
        text.model.resume(recording, 2, 9)[0, -1, 0].backward()
    text.model.zero_grad(set_to_none=True)
    assert seen["z"].shape[:2] == (1, 3) and seen["z"].abs().max() > 0


class Stop(Exception):
    """Raised inside a hook."""


def spoil(x: Tensor, hook: object) -> None:
    """Writes into what it is shown."""
    x.copy_(torch.zeros_like(x))


def stop(x: Tensor, hook: object) -> None:
    raise Stop


@pytest.mark.parametrize("rows", [None, [0, 0, 0], [1, 0]])
@pytest.mark.parametrize("column", [0, 5])
def test_no_hook_can_reach_into_the_recording_and_none_outlives_the_run(seed: int, rows: list[int] | None, column: int):
    text = Text(seed, 2)
    model, recording = text.model, text.record()
    before = [t.clone() for t in tensors(recording)]
    plain = model(text.tokens)
    sites = [name for name in model.sites if reached(model, 0)(name) and not model.sites[name].is_integer]
    with pytest.raises(Stop):
        spoilers = [(name, spoil) for name in sites]
        model.resume(recording, 0, column, rows, [*spoilers, ("blocks.2.hook_resid_post", stop)])
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(recording), strict=True))
    assert not model.list_hooks() and model.context_level == 0
    assert model.positions is None and model.first_column is None
    assert torch.equal(model(text.tokens), plain)


def test_what_it_returns_is_not_a_view_of_the_recording(seed: int):
    text = Text(seed)
    recording = text.record()
    before = [t.clone() for t in tensors(recording)]
    text.model.resume(recording, 1, stop_at_layer=2).zero_()
    text.model.resume(recording, 3).zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(recording), strict=True))


def test_a_run_recorded_while_a_hook_keeps_what_it_sees_shares_nothing_with_it(seed: int):
    text = Text(seed)
    cache, keep, _ = text.model.get_caching_hooks(None)
    with text.model.hooks(fwd_hooks=keep):
        recording = text.record()
    shared = {t.untyped_storage().data_ptr() for t in cache.values()}
    assert not shared & {t.untyped_storage().data_ptr() for t in tensors(recording)}


def tensors(recording: Recording) -> list[Tensor]:
    mask = [] if recording.attention_mask is None else [recording.attention_mask]
    by_layer = (recording.streams, recording.keys, recording.values)
    return [recording.tokens, *mask, *(tensor for held in by_layer for tensor in held.values())]


def test_other_threads_wait_while_it_runs(seed: int):
    text = Text(seed)
    model, recording, answers = text.model, text.record(), []

    def ask(x: Tensor, hook: object) -> None:
        thread = threading.Thread(target=lambda: answers.append(model._lock.acquire(timeout=0.01)))
        thread.start()
        thread.join()

    model.resume(recording, 1, 3, fwd_hooks=[("blocks.2.hook_resid_pre", ask)])
    assert answers == [False]


def test_a_recording_holds_what_it_says_and_no_more(seed: int):
    text = Text(seed, 2, 12, "left", n_layers=4)
    c, n = text.model.config, 2 * 12
    whole, part = text.record(), text.record(layers=[2])
    kv = 2 * n * c.n_key_value_heads * c.d_head * 4
    tokens_and_mask = n * 8 + n
    assert whole.n_bytes == tokens_and_mask + 5 * n * c.d_model * 4 + 4 * kv
    assert part.n_bytes == tokens_and_mask + 2 * n * c.d_model * 4 + 2 * kv
    for recording in (whole, part):
        assert recording.n_bytes == sum(t.untyped_storage().nbytes() for t in tensors(recording))
        assert f"{recording.n_bytes:,} bytes" in repr(recording)
    assert torch.equal(text.model.resume(part, 2, 3), text.model.resume(whole, 2, 3))


def test_many_rows_hold_keys_and_values_of_one_layer_at_a_time(seed: int):
    def peak(n_layers: int) -> int:
        text = Text(seed, 1, 160, n_layers=n_layers, sliding_window=24, d_vocab=60)
        recording = text.record()
        return most_held(lambda: text.model.resume(recording, 0, 156, 48, stop_at_layer=n_layers))

    config = random_shape(seed)
    prefixes = 2 * 48 * 160 * config.n_key_value_heads * config.d_head * 4
    assert peak(8) <= peak(2) + prefixes / 2


def most_held(run: Callable[[], object]) -> int:
    """The most bytes held at once, beyond what was held before."""
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    held = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def test_layers_can_be_run_one_by_one_with_a_stream_of_ones_own(seed: int):
    text = Text(seed)
    model, recording, column = text.model, text.record(), 4
    change = torch.randn(3, 8, model.config.d_model)
    stream = recording.streams[0][:, column:] + change
    add = ("blocks.0.hook_resid_pre", lambda x, hook: x + change)
    expected = model.resume(recording, 0, column, 3, [add])
    for layer in range(3):
        stream = model.resume(recording, layer, column, stream=stream, stop_at_layer=layer + 1)
    assert torch.equal(model.resume(recording, 3, column, stream=stream), expected)


@pytest.mark.parametrize("listening", [False, True])
@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_only_the_logits_asked_for_are_made(seed: int, padding: str, listening: bool):
    text = Text(seed, 3, 12, padding, dtype=torch.float64, n_layers=2)
    model, recording, rows = text.model, text.record(), [0, 2, 2, 1]
    last = torch.full((3,), 11) if text.mask is None else 11 - text.mask.flip(1).int().argmax(1)
    hooks = [edit(model, "blocks.0.attn.hook_v", i, 5 + i) for i in range(4)]
    hooks += [("blocks.1.hook_resid_post", lambda x, hook: None)] if listening else []
    whole = model.resume(recording, 0, 5, rows, hooks)
    columns = {"last": last[rows] - 5, 7: torch.tensor([2] * 4), 11: torch.tensor([6] * 4)}
    for logits_at, index in columns.items():
        made = model.resume(recording, 0, 5, rows, hooks, logits_at=logits_at)
        assert_close(made, whole[torch.arange(4), index][:, None])
    several = model.resume(recording, 0, 5, rows, hooks, logits_at=[11, 6])
    assert_close(several, whole[:, [6, 1]])
    logprobs = model.resume(recording, 0, 5, rows, hooks, return_type="logprobs")
    assert_close(logprobs, whole.log_softmax(-1))


def test_the_last_layer_computes_no_position_that_nobody_reads(seed: int):
    text = Text(seed, n_layers=2)
    recording, seen = text.record(), []
    for block in text.model.blocks:
        block.ln2.register_forward_hook(lambda module, given, made: seen.append(made.shape[1]))
    text.model.resume(recording, 0, 2, logits_at="last")
    text.model.resume(recording, 0, 2, logits_at=[9, 7])
    text.model.resume(recording, 0, 2, logits_at="last", fwd_hooks=[("blocks.1.ln1.hook_scale", lambda x, hook: None)])
    assert seen == [10, 1, 10, 5, 10, 10]


@pytest.mark.parametrize(
    ("site", "kwargs", "told"),
    [
        ("blocks.1.mlp.hook_router_logits", {}, "computes only layers 2 to 2 and the final norm, so it would never"),
        ("hook_embed", {}, "hook on hook_embed, and this run computes only layers 2 to 2"),
        ("blocks.2.hook_resid_pre", {"from_layer": 3}, "computes only the final norm"),
        ("ln_final.hook_scale", {"stop_at_layer": 3}, "a hook on ln_final.hook_scale"),
        ("blocks.2.hook_resid_pre", {"from_layer": 0, "stop_at_layer": 1}, "computes only layers 0 to 0, so"),
        (lambda name: name.endswith("hook_z"), {}, r"a hook on blocks\.0\.attn\.hook_z"),
    ],
)
def test_a_hook_that_would_never_fire_is_refused(seed: int, site, kwargs: dict, told: str):
    text = Text(seed)
    with pytest.raises(ValueError, match=told):
        text.model.resume(text.record(), **({"from_layer": 2} | kwargs), fwd_hooks=[(site, stop)])
    assert not text.model.list_hooks()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"from_layer": 4}, r"from_layer=4: this recording can be resumed from layers \[0, 1, 2, 3\]"),
        ({"from_layer": -1}, "from_layer=-1"),
        ({"from_position": 12}, "from_position=12: the recording has positions 0 to 11"),
        ({"rows": 3}, r"rows=3, and the recording has 2 rows: .*\[0, 0, 1\]"),
        ({"rows": [0, 2]}, r"rows=\[0, 2\]: expected at least one, of the recorded rows 0 to 1"),
        ({"rows": []}, r"rows=\[\]: expected at least one"),
        ({"from_layer": 1, "stop_at_layer": 1}, "stop_at_layer=1 with from_layer=1: expected a later layer, at most 3"),
        ({"stop_at_layer": 4}, "stop_at_layer=4"),
        ({"from_position": 5, "logits_at": 4}, r"logits_at=\[4\]: expected columns 5 \(from_position\) to 11"),
        ({"logits_at": []}, r"logits_at=\[\]"),
        ({"stream": torch.zeros(2, 3, 32)}, "stream has shape .* expected .2, 12, "),
    ],
)
def test_what_was_not_recorded_is_refused(seed: int, given: dict, told: str):
    text = Text(seed, 2)
    with pytest.raises(ValueError, match=told):
        text.model.resume(text.record(), **given)


def test_last_is_refused_where_a_rows_last_token_stands_before_the_start(seed: int):
    text = Text(seed, 2, 6)
    text.mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    with pytest.raises(ValueError, match=r"last real tokens stand at columns \[2, 5\], and from_position=4"):
        text.model.resume(text.record(), 0, 4, logits_at="last")


def test_a_recording_of_fewer_layers_or_another_model_is_refused(seed: int):
    text, other = Text(seed), Text(seed, n_layers=2)
    with pytest.raises(ValueError, match=r"layers \[2, 3\], of which 3 is the final norm"):
        text.model.resume(text.record(layers=[2]), 1)
    with pytest.raises(ValueError, match=r"layers=\[-1, 7\]: this model has layers 0 to 2"):
        text.record(layers=[7, -1])
    with pytest.raises(ValueError, match="a model of another shape"):
        other.model.resume(text.record())
    with pytest.raises(ValueError, match=r"float32, and the model is in torch\.float64 now"):
        recording = text.record()
        text.model.double().resume(recording)
    with pytest.raises(UnknownSite, match=r"closest is 'blocks\.0\.hook_resid_pre'"):
        other.model.resume(other.record(), fwd_hooks=[("blocks.0.hook_resid_pr", stop)])


def test_another_model_of_the_same_shape_does_not_go_on_from_a_recording():
    one, other = (random_weights(HookedGptOss(NANO), seed) for seed in (1, 2))
    tokens = torch.tensor([[1, 2, 3]])
    recording = one.record(tokens)
    with pytest.raises(ValueError, match="of another model than this one"):
        other.resume(recording, 1)
    carried = pickle.loads(pickle.dumps(recording))
    assert torch.equal(one.resume(carried, 1), one.resume(recording, 1))
