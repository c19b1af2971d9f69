"""transformer_lens.patching, unchanged, on our model: its tables hold what patching by hand gives."""

import itertools
from collections.abc import Callable

import pytest
import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens import ActivationCache, patching

from tests.forms import DENSE, NATIVE, held_as, only
from workbench.model import HookedGptOss

form = held_as(DENSE, NATIVE)  # thousands of runs: the eager engine is met in every other test of this folder
N_POS = 7
# The function's table is indexed by these axes; the site is indexed by them too, after the batch.
BY_HAND: dict[str, tuple[str, tuple[str, ...], tuple[int, ...]]] = {
    "resid_pre": ("hook_resid_pre", ("pos",), (N_POS,)),
    "resid_mid": ("hook_resid_mid", ("pos",), (N_POS,)),
    "attn_out": ("hook_attn_out", ("pos",), (N_POS,)),
    "mlp_out": ("hook_mlp_out", ("pos",), (N_POS,)),
    "attn_head_out_by_pos": ("attn.hook_z", ("pos", "head"), (N_POS, 4)),
    "attn_head_q_by_pos": ("attn.hook_q", ("pos", "head"), (N_POS, 4)),
    "attn_head_k_by_pos": ("attn.hook_k", ("pos", "head"), (N_POS, 2)),
    "attn_head_v_by_pos": ("attn.hook_v", ("pos", "head"), (N_POS, 2)),
    "attn_head_pattern_by_pos": ("attn.hook_pattern", ("head", "query_pos"), (4, N_POS)),
    "attn_head_pattern_dest_src_pos": ("attn.hook_pattern", ("head", "query_pos", "key_pos"), (4, N_POS, N_POS)),
    "attn_head_out_all_pos": ("attn.hook_z", ("head",), (4,)),
    "attn_head_q_all_pos": ("attn.hook_q", ("head",), (4,)),
    "attn_head_k_all_pos": ("attn.hook_k", ("head",), (2,)),
    "attn_head_v_all_pos": ("attn.hook_v", ("head",), (2,)),
    "attn_head_pattern_all_pos": ("attn.hook_pattern", ("head",), (4,)),
}
# Where each named axis stands in the site's tensor.
AXIS = {
    "attn.hook_pattern": {"head": 1, "query_pos": 2, "key_pos": 3},
    "attn": {"pos": 1, "head": 2},
    "hook": {"pos": 1},
}


@pytest.fixture(scope="module")
def clean(tokens: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    return tokens[:, :N_POS]


@pytest.fixture(scope="module")
def corrupted(clean: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    changed = clean.clone()
    changed[:, 1:5] = (changed[:, 1:5] + 17) % 61
    return changed


@pytest.fixture(scope="module")
def cache(model: HookedGptOss, clean: Int[Tensor, "batch pos"]) -> ActivationCache:
    return model.run_with_cache(clean)[1]


def difference(logits: Tensor) -> Tensor:
    """The metric: a logit difference at the last position, the mean of the rows."""
    return (logits[:, -1, 7] - logits[:, -1, 30]).mean()


def patched_by_hand(
    model: HookedGptOss, corrupted: Tensor, cache: ActivationCache, name: str, axes: tuple[str, ...], cell: tuple
) -> Tensor:
    """The metric with one cell of the clean run's site in the place of the corrupted one's."""
    layer, *where = cell
    site = f"blocks.{layer}.{name}"
    table = AXIS.get(name) or AXIS["attn" if name.startswith("attn") else "hook"]
    index: list[int | slice] = [slice(None)] * cache[site].ndim
    for axis, at in zip(axes, where, strict=True):
        index[table[axis]] = at

    def put(value: Tensor, hook: object) -> Tensor:
        new = value.clone()
        new[tuple(index)] = cache[site][tuple(index)]
        return new

    return difference(model.run_with_hooks(corrupted, fwd_hooks=[(site, put)]))


def some_cells(shape: tuple[int, ...], seed: int, n: int = 4) -> list[tuple[int, ...]]:
    cells = list(itertools.product(*map(range, shape)))
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(seed))
    return [cells[i] for i in order[:n].tolist()]


@only(DENSE)
@pytest.mark.parametrize("which", BY_HAND)
def test_every_patching_function_gives_what_patching_by_hand_gives(
    model: HookedGptOss, corrupted: Tensor, cache: ActivationCache, seed: int, which: str
) -> None:
    check_table(model, corrupted, cache, seed, which)


@only(NATIVE)
@pytest.mark.parametrize("which", ["resid_mid", "mlp_out", "attn_head_out_by_pos", "attn_head_pattern_all_pos"])
def test_with_packed_experts_a_function_of_each_kind_gives_what_patching_by_hand_gives(
    model: HookedGptOss, corrupted: Tensor, cache: ActivationCache, seed: int, which: str
) -> None:
    check_table(model, corrupted, cache, seed, which)


def check_table(model: HookedGptOss, corrupted: Tensor, cache: ActivationCache, seed: int, which: str) -> None:
    """Some cells of a function's table against patching by hand."""
    name, axes, shape = BY_HAND[which]
    function: Callable = getattr(patching, f"get_act_patch_{which}")
    with torch.no_grad():
        if which == "attn_head_pattern_dest_src_pos":  # 588 cells: the last layer's last two queries are enough
            frame = patching.make_df_from_ranges((3, *shape), ("layer", "head_index", "dest_pos", "src_pos"))
            frame = frame[(frame.layer == 2) & (frame.dest_pos >= 5)].reset_index(drop=True)
            flat = function.func(
                model, corrupted, cache, difference, index_df=frame, **function.keywords | {"index_axis_names": None}
            )
            cells = {tuple(row): value for row, value in zip(frame.values.tolist(), flat, strict=True)}
        else:
            table = function(model, corrupted, cache, difference)
            assert table.shape == (3, *shape)
            cells = {cell: table[cell] for cell in itertools.product(range(3), *map(range, shape))}
        chosen = [list(cells)[i] for (i,) in some_cells((len(cells),), seed)]
        for cell in chosen:
            by_hand = patched_by_hand(model, corrupted, cache, name, axes, cell)
            torch.testing.assert_close(cells[cell], by_hand, rtol=0, atol=1e-6)
    assert len({round(float(value), 5) for value in cells.values()}) > 1  # some patch does something


def test_patching_works_with_gradients_on_as_it_does_without(
    model: HookedGptOss, corrupted: Tensor, cache: ActivationCache
) -> None:
    # Notebooks forget no_grad; the patching functions write in place, which autograd would refuse on what it needs.
    for function in (patching.get_act_patch_attn_head_pattern_all_pos, patching.get_act_patch_attn_head_v_all_pos):
        with_gradients = function(model, corrupted, cache, difference)
        with torch.no_grad():
            assert torch.equal(function(model, corrupted, cache, difference), with_gradients)


def test_patching_the_stream_moves_nothing_at_equal_tokens_and_everything_at_the_last_position_in_the_end(
    model: HookedGptOss, clean: Tensor, corrupted: Tensor, cache: ActivationCache
) -> None:
    with torch.no_grad():
        table = patching.get_act_patch_resid_pre(model, corrupted, cache, difference)
        # The tokens at 0, 5 and 6 are the same in both, so their embeddings are.
        unpatched = difference(model(corrupted))
        torch.testing.assert_close(table[0, [0, 5, 6]], unpatched.expand(3), rtol=0, atol=1e-6)
        mid = patching.get_act_patch_resid_mid(model, corrupted, cache, difference)
        torch.testing.assert_close(mid[2, -1], difference(model(clean)), rtol=0, atol=1e-6)
        # After the last attention nothing moves between positions.
        torch.testing.assert_close(mid[2, :-1], unpatched.expand(N_POS - 1), rtol=0, atol=1e-6)


@only(DENSE)
def test_the_tables_of_every_kind_are_the_single_ones_stacked(
    model: HookedGptOss, corrupted: Tensor, cache: ActivationCache
) -> None:
    with torch.no_grad():
        blocks = patching.get_act_patch_block_every(model, corrupted, cache, difference)
        assert blocks.shape == (3, 3, N_POS)
        assert torch.equal(blocks[1], patching.get_act_patch_attn_out(model, corrupted, cache, difference))
        heads = patching.get_act_patch_attn_head_all_pos_every(model, corrupted, cache, difference)
        assert heads.shape == (5, 3, 4)
        keys = patching.get_act_patch_attn_head_k_all_pos(model, corrupted, cache, difference)
        assert torch.equal(heads[2, :, :2], keys)
        assert not heads[2:4, :, 2:].any()  # two key-value heads; TransformerLens fills up with zeros


@only(DENSE)
def test_the_table_of_every_head_at_every_position_has_its_own_axes(
    model: HookedGptOss, corrupted: Tensor, cache: ActivationCache
) -> None:
    with torch.no_grad():
        table = patching.get_act_patch_attn_head_by_pos_every(model, corrupted[:, :3], sliced(cache, 3), difference)
        assert table.shape == (5, 3, 3, 4)  # kind, layer, pos, head
        pattern = patching.get_act_patch_attn_head_pattern_by_pos(model, corrupted[:, :3], sliced(cache, 3), difference)
    assert torch.equal(table[4], pattern.transpose(1, 2))


def sliced(cache: ActivationCache, n: int) -> ActivationCache:
    """The cache of the first n tokens: what comes later changed nothing in them."""
    model = cache.model
    cut = {}
    for site, value in cache.items():
        dims = model.sites[site].dims
        for axis, dim in enumerate(dims):
            value = value.narrow(axis, 0, n) if dim in ("pos", "query_pos", "key_pos") else value
        cut[site] = value
    return ActivationCache(cut, model)


def test_several_metrics_a_row_each_and_a_baseline_come_from_the_same_runs(
    model: HookedGptOss, corrupted: Tensor, cache: ActivationCache
) -> None:
    rows = {"seven": lambda logits: logits[:, -1, 7], "thirty": lambda logits: logits[:, -1, 30]}
    with torch.no_grad():
        result = patching.get_act_patch_attn_out(model, corrupted, cache, rows, reduce="none", baseline=True)
        plain = model(corrupted)[:, -1]
        table = patching.get_act_patch_attn_out(model, corrupted, cache, difference)
    assert torch.equal(result["seven"].baseline, plain[:, 7])
    torch.testing.assert_close(result["seven"].mean() - result["thirty"].mean(), table)


def test_patching_refuses_a_model_in_training_mode(
    model: HookedGptOss, corrupted: Tensor, cache: ActivationCache
) -> None:
    model.train()
    try:
        with pytest.raises(ValueError, match="evaluation mode"):
            patching.get_act_patch_attn_out(model, corrupted, cache, difference)
    finally:
        model.eval()


@pytest.mark.parametrize("component", ["q", "k"])
def test_direct_path_patching_is_refused_and_not_silently_wrong(
    model: HookedGptOss, clean: Tensor, corrupted: Tensor, cache: ActivationCache, component: str
) -> None:
    corrupted_cache = model.run_with_cache(corrupted)[1]
    # TransformerLens itself refuses keys and values that query heads share.
    kind, message = (
        (NotImplementedError, r"no hook_q_input .* edit blocks\.N\.attn\.hook_q at that head")
        if component == "q"
        else (ValueError, "n_key_value_heads=2 for n_heads=4")
    )
    with pytest.raises(kind, match=message):
        patching.get_act_patch_direct_path(
            model, corrupted, cache, corrupted_cache, difference, 0, 1, component=component, verbose=False
        )
    with pytest.raises(kind, match=message):
        patching.get_act_patch_direct_path_all_sources(
            model, corrupted, cache, corrupted_cache, difference, component=component, verbose=False
        )


def test_the_way_round_that_the_refusal_names_patches_one_heads_query_alone(
    model: HookedGptOss, corrupted: Tensor, cache: ActivationCache
) -> None:
    head, layer = 2, 1
    block = model.blocks[layer]
    with torch.no_grad():
        before = model.run_with_cache(corrupted)[1]
        change = cache["result", 0][:, :, 1] - before["result", 0][:, :, 1]
        moved = block.ln1(before["resid_pre", layer] + change)

        def as_the_message_says(q: Tensor, hook: object) -> Tensor:
            q = q.clone()
            q[:, :, head] = moved @ block.attn.W_Q[head] + block.attn.b_Q[head]
            return q

        def others_back(q: Tensor, hook: object) -> Tensor:
            back = before["q", layer].clone()
            back[:, :, head] = q[:, :, head]
            return back

        one_way = model.run_with_hooks(corrupted, fwd_hooks=[(f"blocks.{layer}.attn.hook_q", as_the_message_says)])
        # The other way: every head's query reads the changed stream, and the other heads' are put back.
        other_way = model.run_with_hooks(
            corrupted,
            fwd_hooks=[
                (f"blocks.{layer}.attn.hook_q_in", lambda x, hook: moved),
                (f"blocks.{layer}.attn.hook_q", others_back),
            ],
        )
        plain = model(corrupted)
    torch.testing.assert_close(one_way, other_way, rtol=1e-5, atol=1e-5)
    assert (one_way - plain).abs().max() > 1e-4
