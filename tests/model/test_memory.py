"""What `wb.estimate` says is held against what torch allocates; a run that cannot fit is refused before it runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.model import hardware
from tests.model.allocated import fullest
from tests.small import as_in_a_notebook  # noqa: F401
from workbench.checkpoints import CheckpointError
from workbench.interventions import AblateExpert
from workbench.model import Config, HookedGptOss, Rope, UnknownSite, engines, random_weights
from workbench.model.memory import Asked, NotEnoughMemory, Weights, check, free, suggest
from workbench.model.memory.live import shape_of, weights_of_model

# Larger than what a call takes beside its tensors (masks, tables): what counts on a real model counts here too.
SMALL = Config(
    name="small",
    n_layers=3,
    d_model=256,
    n_heads=8,
    n_key_value_heads=2,
    d_head=64,
    d_mlp=320,
    n_experts=8,
    experts_per_token=2,
    d_vocab=3000,
    rope=Rope(),
    bos_token_id=None,
    eos_token_ids=(),
)
STANDARD = ("hook_pattern", "hook_sink", "hook_z", "hook_scale", "hook_resid_post", "hook_expert_indices")
FILTERS: dict[str, Any] = {
    "nothing": (),
    "everything": "all",
    "some": lambda name: name.endswith(STANDARD),
    "streams": lambda name: "resid" in name,
    "one pattern": "blocks.1.attn.hook_pattern",
    "results": lambda name: name.endswith(("hook_result", "hook_expert_up")),
}
PLAIN, WITH_GRADIENTS = (0.9, 1.1), (0.8, 1.2)  # how far an estimate may lie from the truth


def small(dtype: str = "bfloat16", experts: str = "dense", **changes: Any) -> HookedGptOss:
    return random_weights(HookedGptOss(SMALL.with_(dtype=dtype, **changes), experts=experts), 0)


def tokens(batch: int, length: int) -> Tensor:
    return torch.randint(0, SMALL.d_vocab, (batch, length), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True, scope="module")
def one_engine() -> Iterator[None]:
    """The one that is everywhere; the native one has its scratch beside torch's allocator."""
    with engines.use("eager"):
        yield


@pytest.fixture
def with_free(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make so many bytes free, and every run worth a look."""

    def limit(n_bytes: int, cpu: int | None = None) -> None:
        def free_memory(device: str) -> free.Free:
            return free.Free(n_bytes if cpu is None or str(device) != "cpu" else cpu, "the test")

        for module in (check, suggest):
            monkeypatch.setattr(module, "free_memory", free_memory)
        monkeypatch.setattr(check, "heap_room", lambda: 0)
        monkeypatch.setattr(check, "TINY", 0)

    return limit


# ---------------------------------------------------------------- weights


# Parameters and bytes as OpenAI's model card and the published weights' index state them.
@pytest.mark.parametrize(
    ("name", "parameters", "on_disk"),
    [("20b", 20_914_757_184, 13_761_264_768), ("120b", 116_829_156_672, 65_248_815_744)],
)
def test_the_published_models_are_as_large_as_their_files(name: str, parameters: int, on_disk: int):
    packed, dense = wb.estimate(name), wb.estimate(name, experts="dense")
    norms = 2 * (2 * packed.config.n_layers + 1) * packed.config.d_model  # 2 bytes more each than in the files
    assert packed.config.n_params == parameters
    assert packed.weights.on_disk == on_disk
    assert packed.weights.total == on_disk + norms
    assert dense.weights.total == 2 * parameters + norms


@pytest.mark.parametrize("experts", ["dense", "packed"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_weights_of_a_shape_are_the_parameters_and_buffers_of_its_model(dtype: str, experts: str):
    model = small(dtype, experts)
    held = sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))
    of_shape = wb.estimate(SMALL, dtype=dtype, experts=experts).weights
    assert of_shape.total == held == wb.estimate(model).weights.total
    assert wb.estimate(model).weights == Weights(held, 0, None, (("cpu", held),))
    assert wb.estimate(SMALL, dtype=dtype, experts=experts, device="cuda:0").weights.private == held


@pytest.mark.parametrize("form", ["huggingface", "huggingface-mxfp4", "openai"])
@pytest.mark.parametrize(
    ("stored", "dtype"), [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "float32")]
)
def test_the_headers_tell_what_a_load_will_hold_and_map(form: str, stored: str, dtype: str, tmp_path: Path):
    wb.save_pretrained(small(stored, n_layers=1, d_vocab=300), tmp_path / "saved", form=form)
    for experts in ("packed", "dense") if form != "huggingface" else ("dense",):
        estimated = wb.estimate(tmp_path / "saved", dtype=dtype, experts=experts)
        loaded = weights_of_model(wb.load(tmp_path / "saved", dtype=dtype, experts=experts))
        assert (estimated.weights.private, estimated.weights.mapped) == (loaded.private, loaded.mapped)
    files = (tmp_path / "saved").glob("*.safetensors")
    in_headers = 8 + sum(int.from_bytes(file.read_bytes()[:8], "little") for file in files)
    size = sum(file.stat().st_size for file in (tmp_path / "saved").glob("*.safetensors"))
    assert estimated.weights.on_disk == size - in_headers


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says what is mapped")
def test_mapped_weights_are_those_that_the_kernel_maps_from_the_file(tmp_path: Path):
    wb.save_pretrained(small(n_layers=1), tmp_path / "saved", form="huggingface-mxfp4")
    model = wb.load(tmp_path / "saved")
    spans = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(".safetensors")
    ]
    tensors = [*model.parameters(), *model.buffers()]
    in_file = [x for x in tensors if any(first <= x.data_ptr() < last for first, last in spans)]
    assert in_file
    assert wb.estimate(model).weights.mapped == sum(x.nbytes for x in in_file)


# ---------------------------------------------------------------- what is kept, exactly


@pytest.mark.parametrize(
    ("dtype", "pos_slice"),
    [("bfloat16", None), ("float64", None), ("float32", -1), ("bfloat16", (3, 9)), ("float32", [0, 4])],
)
def test_each_kept_site_has_the_bytes_that_were_said(dtype: str, pos_slice: Any):
    model = HookedGptOss(SMALL.with_(n_layers=2), dtype=getattr(torch, dtype))
    _, cache = model.run_with_cache(tokens(2, 21), pos_slice=pos_slice)
    said = wb.estimate(model, 2, 21, "all", pos_slice=pos_slice)
    assert dict(said.sites) == {name: x.nbytes for name, x in cache.items()}
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in cache.values()}
    assert sum(storages.values()) == said.kept  # nothing larger stays alive behind a view


def test_kept_sites_have_as_many_keys_as_the_cache_that_went_before():
    model, past = small(sliding_window=8), 30
    kept = model.new_cache()
    model(tokens(2, past), past_kv_cache=kept)
    _, cache = model.run_with_cache(tokens(2, 5), past_kv_cache=kept)
    said = wb.estimate(model, 2, 5, "all", past=past)
    assert dict(said.sites) == {name: x.nbytes for name, x in cache.items()}
    assert said.kv_cache == kept.n_bytes


def test_each_kept_gradient_has_the_bytes_that_were_said():
    model = small()
    with torch.enable_grad():
        _, cache = model.run_with_cache(tokens(2, 21), return_type="loss", incl_bwd=True)
    gradients = sum(x.nbytes for name, x in cache.items() if name.endswith("_grad"))
    of_weights = sum(weight.grad.nbytes for weight in model.parameters())
    assert wb.estimate(model, 2, 21, "all", grads=True).gradients == gradients + of_weights


@pytest.mark.parametrize("length", [1, 7, 8, 40])
def test_the_kv_cache_is_as_large_as_was_said(length: int):
    model = small(sliding_window=8)
    cache = model.new_cache()
    model(tokens(3, length), past_kv_cache=cache)
    assert wb.estimate(model, 3, length).kv_cache == cache.n_bytes
    model(tokens(3, 2), past_kv_cache=cache)
    assert wb.estimate(model, 3, 2, past=length).kv_cache == cache.n_bytes


# ---------------------------------------------------------------- the fullest moment, nearly


@pytest.mark.parametrize("sites", FILTERS)
@pytest.mark.parametrize(
    ("batch", "length", "dtype", "experts"),
    [(1, 70, "float32", "packed"), (2, 260, "bfloat16", "packed"), (1, 400, "float32", "dense")],
)
def test_the_fullest_moment_is_what_the_allocator_counts(sites: str, batch: int, length: int, dtype: str, experts: str):
    model, given = small(dtype, experts), tokens(batch, length)
    said = wb.estimate(model, batch, length, FILTERS[sites], cache=False)
    names = list(said.sites)
    run = (lambda: model.run_with_cache(given, names_filter=names)) if names else (lambda: model(given))
    run()  # tables and scratch that stay are made by the first
    assert PLAIN[0] < said.run / fullest(run) < PLAIN[1]


@pytest.mark.parametrize("returns", ["logits", "loss", "logprobs", None])
def test_the_fullest_moment_knows_what_is_returned(returns: str | None):
    model, given = small(d_vocab=20_000), tokens(1, 200)
    asked = Asked(batch=1, length=200, returns=returns, **shape_of(model))
    model(given)
    assert PLAIN[0] < asked.peaks["cpu"].n_bytes / fullest(lambda: model(given, return_type=returns)) < PLAIN[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_fullest_moment_knows_that_only_the_last_token_is_unembedded(dtype: str):
    model, given = small(dtype, d_vocab=20_000), tokens(2, 200)
    asked = Asked(batch=2, length=200, last_logits=True, **shape_of(model))
    model(given)
    held = fullest(lambda: model(given, logits_at="last"))
    assert PLAIN[0] < asked.peaks["cpu"].n_bytes / held < PLAIN[1]
    assert held < 200 * 20_000 * given.element_size()  # so the logits of all would not have fitted


@pytest.mark.parametrize("sites", ["nothing", "some", "everything"])
@pytest.mark.parametrize(
    ("dtype", "experts", "length"), [("bfloat16", "packed", 90), ("float32", "dense", 90), ("bfloat16", "packed", 250)]
)
def test_the_fullest_moment_with_gradients_is_near_what_the_allocator_counts(
    sites: str, dtype: str, experts: str, length: int
):
    model, given = small(dtype, experts), tokens(1, length)
    said = wb.estimate(model, 1, length, FILTERS[sites], grads=True, cache=False)
    names = list(said.sites)

    def run() -> Any:
        model.zero_grad()
        with torch.enable_grad():
            if not names:
                return model(given, return_type="loss").backward()
            return model.run_with_cache(given, names_filter=names, return_type="loss", incl_bwd=True)

    run()
    model.zero_grad()
    assert WITH_GRADIENTS[0] < said.run / fullest(run) < WITH_GRADIENTS[1]


@pytest.mark.parametrize("trains", [True, False])
def test_what_autograd_keeps_is_near_what_stays_after_a_forward(trains: bool):
    model, given = small().requires_grad_(trains), tokens(1, 200)
    model.embed.weight.requires_grad_()
    asked = Asked(batch=1, length=200, graph=True, **(shape_of(model) | {"trains": trains}))
    with torch.enable_grad():
        model(given)
        assert PLAIN[0] < asked.peaks["cpu"].n_bytes / fullest(lambda: model(given)) < PLAIN[1]


def test_an_edited_run_counts_the_comparison_with_the_unedited_one():
    model, given = small(d_vocab=20_000), tokens(1, 100)
    edits = [AblateExpert(layer=1, expert=2)]
    names = tuple(model.sites.wanted(None))
    asked = Asked(batch=1, length=100, names=names, compared=True, **shape_of(model))
    wb.run(model, given, edits)
    assert PLAIN[0] < asked.peaks["cpu"].n_bytes / fullest(lambda: wb.run(model, given, edits)) < PLAIN[1]


def test_layers_on_two_devices_need_on_each_what_is_kept_there():
    names = tuple(name for name in small().sites if "hook_z" in name)
    one = Asked(SMALL, 1, 50, "bfloat16", False, names)
    two = replace(one, devices=("cuda:0", "cuda:0", "cuda:1", "cuda:1", "cuda:1"))
    z = 50 * 8 * 64 * 2
    assert one.peaks["cpu"].left == 3 * z + 50 * 3000 * 2
    assert two.peaks["cuda:0"].left == z
    assert two.peaks["cuda:1"].left == 2 * z + 50 * 3000 * 2
    on_cpu = replace(two, keep_on="cpu")
    assert on_cpu.peaks["cuda:0"].left == 0
    assert on_cpu.peaks["cpu"].n_bytes == 3 * z


def test_a_layer_whose_weights_only_visit_a_device_needs_room_for_them_there():
    at_home = Asked(SMALL, 1, 50, "bfloat16", True)
    visiting = replace(at_home, visitors=(0, 10**9, 0, 10**9, 0))
    added = visiting.peaks["cpu"].n_bytes - at_home.peaks["cpu"].n_bytes
    assert 0.99e9 < added <= 10**9


# ---------------------------------------------------------------- the refusal


def test_a_run_that_cannot_fit_is_refused_before_anything_runs(with_free: Callable[..., None]):
    model, ran = small(), []
    model.embed.register_forward_pre_hook(lambda *_: ran.append(True))
    with_free(10_000_000)
    with pytest.raises(wb.NotEnoughMemory) as refused:
        model.run_with_cache(tokens(2, 300))
    with pytest.raises(MemoryError):
        wb.run(model, tokens(2, 300), sites="all")
    assert not ran
    error, message = refused.value, str(refused.value)
    said = wb.estimate(model, 2, 300, "all", cache=False)
    assert (error.device, error.needed, error.free) == ("cpu", said.run, 10_000_000)
    assert error.sites == dict(said.sites)
    for kind, n_bytes in list(said.by_kind.items())[:3]:
        assert f"{kind} {n_bytes / 1e6:.1f} MB" in message
    assert "10.0 MB are free there (says the test)" in message
    assert not any(point._forward_hooks for point in model.hook_points())


def test_it_runs_all_the_same_when_told_to(with_free: Callable[..., None]):
    with_free(1000)
    model, given = small(), tokens(1, 20)
    assert len(model.run_with_cache(given, check_memory=False)[1]) == len(model.sites)
    assert wb.run(model, given, check_memory=False).logits.shape == (1, 20, SMALL.d_vocab)


def test_what_fits_by_a_byte_runs_and_what_lacks_one_does_not(with_free: Callable[..., None]):
    model, given = small(), tokens(1, 100)
    needed = wb.estimate(model, 1, 100, FILTERS["streams"], cache=False).run
    with_free(needed)
    model.run_with_cache(given, names_filter=FILTERS["streams"])
    with_free(needed - 1)
    with pytest.raises(NotEnoughMemory):
        model.run_with_cache(given, names_filter=FILTERS["streams"])


@pytest.mark.parametrize(
    ("filter_", "share", "grads"),
    [
        *(("everything", 0.5, False), ("everything", 0.05, False), ("everything", 0.2, True)),
        *(("some", 0.6, False), ("some", 0.3, True), ("one pattern", 0.7, False), ("one pattern", 0.05, True)),
    ],
)
@pytest.mark.usefixtures("as_in_a_notebook")
def test_what_a_refusal_suggests_runs_and_takes_what_it_said(
    filter_: str, share: float, grads: bool, with_free: Callable[..., None]
):
    model, given = small("float32", n_layers=2), tokens(3, 100)
    kwargs = {} if filter_ == "everything" else {"names_filter": FILTERS[filter_]}
    with torch.set_grad_enabled(grads):
        model.run_with_cache(given, **kwargs)
        asked = wb.estimate(model, 3, 100, FILTERS[filter_], cache=False).run
        with_free(int(asked * share))
        with pytest.raises(NotEnoughMemory) as refused:
            model.run_with_cache(given, **kwargs)
    assert refused.value.suggestions
    for suggestion in refused.value.suggestions:
        assert suggestion.needed <= asked * share
        assert suggestion.code in str(refused.value)
        if "wb.load" not in suggestion.code:  # that is another model
            measured = fullest(lambda code=suggestion: run_as_suggested(model, given, kwargs, code))
            assert measured < PLAIN[1] * suggestion.needed


def run_as_suggested(model: HookedGptOss, given: Tensor, kwargs: dict[str, Any], suggestion: Any) -> Any:
    """Do what a suggestion says; the check, which is on, must let it pass."""
    code, names = suggestion.code, {"model": model, "tokens": given, "torch": torch}
    whole = re.fullmatch(r"with torch.no_grad\(\): (model.*)", code)
    with torch.set_grad_enabled("no_grad" not in code + suggestion.remark and torch.is_grad_enabled()):
        if whole:
            return eval(whole[1], names)
        if code.startswith("tokens"):
            return model.run_with_cache(eval(code, names), **kwargs)
        changed = {} if code.startswith("with") else eval(f"dict({code})", names)
        return model.run_with_cache(given, **(kwargs | changed))


def test_on_a_gpu_that_is_too_small_the_cache_is_offered_a_place_in_main_memory(with_free: Callable[..., None]):
    asked = Asked(SMALL, 1, 300, "bfloat16", True, tuple(small().sites), devices=("cuda:0",) * 5)
    with_free(60_000_000, cpu=10**9)
    error = NotEnoughMemory(asked, "cuda:0", free.Free(60_000_000, "the test"), "run_with_cache")
    (offered,) = [each for each in error.suggestions if each.code == 'device="cpu"']
    assert offered.needed == replace(asked, keep_on="cpu").peaks["cuda:0"].n_bytes < 60_000_000
    assert "on cuda:0" in str(error)


def test_the_dtype_is_offered_where_float32_is_what_makes_it_too_large(with_free: Callable[..., None]):
    model = small("float32")
    needed = wb.estimate(model, 1, 200, FILTERS["streams"], cache=False).run
    with_free(int(0.6 * needed))
    with pytest.raises(NotEnoughMemory, match=re.escape('wb.load(…, dtype="bfloat16")')):
        model.run_with_cache(tokens(1, 200), names_filter=FILTERS["streams"])


def test_small_runs_are_not_looked_at(monkeypatch: pytest.MonkeyPatch):
    def asked(device: str) -> None:
        raise AssertionError("it was looked at")

    monkeypatch.setattr(check, "free_memory", asked)
    model = small()
    model.run_with_cache(tokens(1, 20))
    with pytest.raises(AssertionError, match="looked at"):
        model.run_with_cache(tokens(4, 1000), names_filter="hook_embed")


# ---------------------------------------------------------------- what is free


def test_what_is_free_is_what_the_system_says_unless_a_container_limits_it(monkeypatch: pytest.MonkeyPatch):
    available = psutil.virtual_memory().available
    found = free.free_memory("cpu")
    assert found is not None
    assert 0 < found.n_bytes <= psutil.virtual_memory().total
    monkeypatch.setattr(free, "container_free", lambda: free.Free(1_000_000, "the container's limit"))
    assert free.free_memory("cpu") == free.Free(1_000_000, "the container's limit")
    monkeypatch.setattr(free, "container_free", lambda: free.Free(10 * available, "the container's limit"))
    assert free.free_memory("cpu").source == "the machine"
    assert free.free_memory("meta") is None


def group(folder: Path, **files: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("memory_", "memory.", 1)).write_text(f"{content}\n")


STAT = "anon 5\nfile 700\nactive_file 200\ninactive_file 300\nshmem 100"


def test_of_a_container_v2_the_tightest_group_counts_and_file_pages_are_room(tmp_path: Path):
    group(tmp_path / "proc/self", cgroup="0::/slice/box")
    group(tmp_path / "sys/fs/cgroup/slice", memory_max=5000, memory_current=4800, memory_stat=STAT)
    group(tmp_path / "sys/fs/cgroup/slice/box", memory_max="max", memory_current=4000, memory_stat=STAT)
    assert free.container_free(tmp_path) == free.Free(5000 - 4800 + 500, "the container's limit")


def test_of_a_container_v1_the_counts_include_its_parts(tmp_path: Path):
    group(tmp_path / "proc/self", cgroup="3:cpu:/\n4:memory:/box\n0::/")
    stat = "active_file 1\ninactive_file 2\ntotal_active_file 10\ntotal_inactive_file 20"
    box = tmp_path / "sys/fs/cgroup/memory/box"
    group(box, memory_limit_in_bytes=1000, memory_usage_in_bytes=400, memory_stat=stat)
    assert free.container_free(tmp_path) == free.Free(1000 - 400 + 30, "the container's limit")


@pytest.mark.parametrize("limit", ["max", 9223372036854771712])
def test_a_group_without_a_limit_limits_nothing(limit: Any, tmp_path: Path):
    # The path is the host's, as inside many containers: only the mount itself is there.
    group(tmp_path / "proc/self", cgroup="0::/docker/abc\n4:memory:/docker/abc")
    group(tmp_path / "sys/fs/cgroup", memory_max=limit, memory_current=1)
    group(tmp_path / "sys/fs/cgroup/memory", memory_limit_in_bytes=limit, memory_usage_in_bytes=1)
    assert free.container_free(tmp_path) is None


def test_without_groups_there_is_no_container(tmp_path: Path):
    assert free.container_free(tmp_path) is None


# ---------------------------------------------------------------- what an estimate says


def test_the_table_adds_up():
    said = wb.estimate("20b", length=128)
    rows = {what: n_bytes for what, n_bytes, _ in said.rows()}
    assert rows["in all"] == rows["weights"] + rows["run"] == said.total
    assert said.kept == sum(said.by_kind.values()) < said.run
    shown = str(said)
    assert shown.splitlines()[0] == "gpt-oss-20b: 1 × 128 tokens, bfloat16, packed experts"
    assert all(what in shown and what in said._repr_html_() for what in rows)


def test_a_loaded_model_must_only_fit_its_run():
    model = small()
    said, of_shape = wb.estimate(model, cache=False), wb.estimate(SMALL, experts="dense", cache=False)
    assert said.run == of_shape.run
    assert said.fits(said.run) and not said.fits(said.run - 1)
    assert of_shape.fits(of_shape.total) and not of_shape.fits(of_shape.total - 1)
    assert of_shape.total == of_shape.run + of_shape.weights.private
    assert not wb.estimate("120b", experts="dense", dtype="float32").fits()


def test_an_estimate_of_what_is_not_there_downloads_nothing_and_says_so():
    with pytest.raises(CheckpointError, match="neither a folder here nor a shape that is known by name"):
        wb.estimate("somebody/gpt-oss-7b")
    assert wb.estimate("openai/gpt-oss-20b").config is wb.GPT_OSS_20B


def test_wrong_arguments_are_refused():
    with pytest.raises(UnknownSite, match=r"closest is 'blocks\.0.attn.hook_z'"):
        wb.estimate(SMALL, sites="blocks.0.atn.hook_z")
    with pytest.raises(ValueError, match="batch=0"):
        wb.estimate(SMALL, batch=0)
    with pytest.raises(ValueError, match="dtype="):
        wb.estimate(SMALL, dtype="int8")


@pytest.mark.usefixtures("as_in_a_notebook")  # checking types at each of 100,000 calls takes most of the time
def test_the_tables_of_the_hardware_page_are_what_the_estimates_say():
    document = hardware.DOCUMENT.read_text(encoding="utf-8")
    assert hardware.written(document) == document, "run `python -m tests.model.hardware`"
    assert f"{2 * wb.GPT_OSS_20B.d_vocab / 1000:.0f} kB a token" in document
    assert f"becomes {wb.estimate('20b', dtype='float32').weights.private / 1e9:.1f} GB for 20b" in document
    assert f"120b packed is {wb.estimate('120b').weights.total / 1e9:.1f} GB" in document


def test_a_model_that_accelerate_spreads_out_keeps_its_sites_in_one_place(
    tmp_path: Path, with_free: Callable[..., None]
):
    wb.save_pretrained(small(), tmp_path / "saved", form="huggingface-mxfp4")
    model = wb.load(tmp_path / "saved", device_map={"": "cpu", "blocks.1": "disk"})
    said = wb.estimate(model, 1, 60, "all", cache=False)
    assert [device for device, _, _ in said.peaks] == ["cpu"]
    with_free(said.run * 2)
    assert len(model.run_with_cache(tokens(1, 60))[1]) == len(model.sites)
    with_free(said.kept // 2)
    with pytest.raises(NotEnoughMemory):
        model.run_with_cache(tokens(1, 60))
