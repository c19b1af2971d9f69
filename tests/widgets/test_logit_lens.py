"""The logit lens on screen, against the experiments, and against the final norm and unembedding in numpy."""

import threading

import numpy as np
import pytest
import torch

import workbench as wb
from tests.figures.data import HOSTILE
from tests.widgets.cells import ran
from workbench import experiments
from workbench.experiments.lenses.lens_difference import lens_difference
from workbench.model import NANO, HookedGptOss, random_weights
from workbench.widgets.views import logit_lens as module
from workbench.widgets.views.logit_lens_grid import Grid
from workbench.widgets.views.logit_lens_shades import SHADES
from workbench.widgets.wire import clean, packed

PAIR = {"mia": "Mia is in the garden. Where is Mia?", "tom": "Tom is in the big garden. Where is Tom?"}


@pytest.fixture
def bench(bench_of):
    return bench_of(PAIR)


@pytest.fixture
def view(bench):
    return bench["logit_lens"]


@pytest.fixture(scope="module")
def wide() -> HookedGptOss:
    """20b's counts, tiny inside."""
    config = NANO.with_(
        n_layers=24, n_heads=64, n_key_value_heads=8, n_experts=32, experts_per_token=4, d_model=32, d_head=8,
        d_mlp=8, d_vocab=1000, layer_types=("sliding_attention", "full_attention") * 12, name="wide",
    )  # fmt: skip
    return random_weights(HookedGptOss(config), seed=0)


def naive(run, position, stage):
    """Probabilities in float64 numpy: the stream, its root mean square, the gain, the unembedding."""
    model = run.model
    stream = run["hook_embed" if stage == 0 else f"blocks.{stage - 1}.hook_resid_post"][0, position].double().numpy()
    normed = stream / np.sqrt((stream**2).mean() + model.config.rms_eps) * model.ln_final.w.detach().double().numpy()
    logits = model.unembed.weight.detach().double().numpy() @ normed
    exp = np.exp(logits - logits.max())
    return exp / exp.sum()


def test_every_cell_shows_the_likeliest_token_of_its_layer(bench, view):
    json, arrays = view.data({"part": "grid", "shade": "entropy"})
    for position in range(len(json["tokens"])):
        for stage in range(5):
            p = naive(bench.base, position, stage)
            best = int(p.argmax())
            assert json["words"][arrays["word"][position, stage]] == bench.session.word(best)
            assert arrays["probability"][position, stage] == pytest.approx(p[best], rel=1e-4)
            assert arrays["value"][position, stage] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-4)
    hits = experiments.logit_lens(bench.base, top_k=1).target_rank.values == 1
    assert np.array_equal(arrays["hit"].astype(bool), hits)


@pytest.mark.parametrize("shade", SHADES)
@pytest.mark.parametrize("target", [None, 22])
def test_the_numbers_are_those_of_the_experiments(bench, view, shade, target):
    bench.session.options("logit_lens", shade=shade, target=target)
    _, alone = view.data({})
    lens = experiments.logit_lens(bench.base, target=target, top_k=1)
    name = {"probability": "top_probability", "target": "target_probability", "rank": "target_rank"}.get(shade, shade)
    expected = lens[name].isel(rank=0) if shade == "probability" else lens[name]
    expected = np.log10(expected.values) if shade == "rank" else expected.values
    assert alone["value"] == pytest.approx(expected, abs=1e-6)
    bench.session.options("logit_lens", compare="tom")
    _, apart = view.data({})
    whole = lens_difference(bench.base, bench.session.run("tom"), target=target)
    name = {"probability": "word_change", "kl": "kl"}.get(shade, f"{shade}_change")
    assert apart["value"] == pytest.approx(whole[name].values, abs=1e-6, nan_ok=True)
    assert np.array_equal(apart["partner"], whole.other_pos.values)


def test_the_popup_tells_what_numpy_finds_there(bench, view):
    base, stages = bench.base, 5
    bench.session.options("logit_lens", compare="tom")
    for position, stage in ((0, 0), (4, 2), (9, 4)):
        cell, _ = view.data({"part": "cell", "position": position, "stage": stage})
        p, final = naive(base, position, stage), naive(base, position, stages - 1)
        assert [each["id"] for each in cell["top"]] == np.argsort(-p)[:10].tolist()
        assert [each["p"] for each in cell["top"]] == pytest.approx(np.sort(p)[::-1][:10], rel=1e-3)
        assert cell["entropy"] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-4)
        assert cell["kl"] == pytest.approx((final * np.log(final / p)).sum(), abs=1e-4)
        target = int(base.logits[0, position].argmax())
        assert (cell["target"]["id"], cell["target"]["rank"]) == (target, int((p > p[target]).sum()) + 1)
        q = naive(bench.session.run("tom"), cell["other"]["position"], stage)
        assert cell["other"]["kl"] == pytest.approx((p * np.log(p / q)).sum(), abs=1e-4)
        assert [each["other"] for each in cell["top"]] == pytest.approx(
            q[[each["id"] for each in cell["top"]]], rel=1e-3
        )


def test_a_trajectory_is_the_row_of_its_token(bench, view):
    lens = experiments.logit_lens(bench.base)
    json, arrays = view.data({"part": "lines", "positions": [3, 7, 99], "measure": "kl"})
    assert arrays["values"] == pytest.approx(lens.kl.values[[3, 7]], abs=1e-6)
    assert [line["position"] for line in json["lines"]] == [3, 7]


def test_a_lens_on_the_edited_run_shows_the_edit_and_undo_takes_it_back(bench, view):
    plain = view.data({})[1]["value"]
    bench.add(wb.AblateLayer(2))
    bench.wait(30)
    edited = view.data({})[1]["value"]
    assert np.array_equal(edited[:, :3], plain[:, :3]) and not np.array_equal(edited[:, 3:], plain[:, 3:])
    bench.session.options("logit_lens", compare="mia", shade="kl")
    assert (view.data({})[1]["value"][:, :3] == 0).all()
    bench.undo()
    bench.wait(30)
    assert np.array_equal(view.data({"shade": "probability"})[1]["value"], plain)


def test_a_token_is_followed_by_its_text_and_let_go(bench, view):
    view.act({"kind": "follow", "token": " garden"})
    json, _ = view.data({})
    assert json["target"]["text"] == "␣garden"
    with pytest.raises(ValueError, match="tokens"):
        view.act({"kind": "follow", "token": "not one token"})
    view.act({"kind": "follow", "token": None})
    assert view.data({})[0]["target"] is None


@pytest.mark.parametrize(
    "wrong",
    [{"shade": "x"}, {"target": -1}, {"target": "a"}, {"pinned": ["a"]}, {"rows": "x"}, {"measure": ""}, {"no": 1}],
)
def test_options_that_make_no_sense_are_refused(bench, wrong):
    with pytest.raises(ValueError, match="Logit lens"):
        bench.session.options("logit_lens", **wrong)


def test_a_cell_that_is_not_there_is_refused(view):
    for place in ({"position": 99, "stage": 0}, {"position": 0, "stage": 9}):
        with pytest.raises(ValueError, match="there is no cell"):
            view.data({"part": "cell", **place})


@pytest.mark.parametrize("compare", ["", "tom"])
def test_the_copied_code_draws_the_numbers_on_screen(bench, view, compare):
    bench.session.options("logit_lens", compare=compare, shade="kl", target=22)
    figure, _ = ran(bench.code("logit_lens"))
    _, arrays = view.data({})
    assert np.array(figure.data[0].z, float) == pytest.approx(arrays["value"], abs=1e-5, nan_ok=True)
    assert np.array(view.figure().data[0].z, float) == pytest.approx(arrays["value"], abs=1e-5, nan_ok=True)


def test_the_table_is_the_experiments_dataset(bench, view):
    expected = experiments.logit_lens(bench.base, top_k=1)
    made = view.table()
    for name in ("top_id", "top_probability", "target_probability", "target_rank", "entropy", "kl"):
        assert made[name].transpose(*expected[name].dims).values == pytest.approx(expected[name].values, abs=1e-6)
    assert np.array_equal(made.top_token, expected.top_token) and np.array_equal(made.token, expected.token)


@pytest.mark.parametrize("n", [1, 20, 300, 2000])
def test_any_length_is_answered_in_little(bench_of, nano, n):
    ids = nano.to_tokens("Mia is in the garden. Tom went to the mill. ")[0].tolist()
    bench = bench_of((ids * n)[:n])
    view = bench["logit_lens"]
    json, arrays = view.data({})
    described, buffers = packed(arrays)
    sent = sum(len(buffer) for buffer in buffers) + len(str(clean(json)))
    assert arrays["value"].shape == (n, 5) and sent < 400_000 and len(described) == 4
    said = view.static()
    assert len(said) < 150_000 and ("<img" in said) == (n > 40)


def test_a_long_grid_is_read_bit_by_bit_and_stops_and_goes_on(bench_of, wide, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 0.0)
    bench = bench_of(tuple(range(100)), model=wide)
    session, view = bench.session, bench["logit_lens"]
    told, blocks = [], threading.Event()
    session.send = lambda message, arrays: (told.append(message), blocks.set()) if message["did"] == "stream" else None
    first, _ = view.data({})
    assert first["total"] == 25 * 2
    blocks.wait(10)
    job = next(job for job in session.jobs if job.view == "logit_lens")
    job.cancel()
    job.wait(10)
    kept, arrays = view.data({})
    stopped = kept["done"]
    assert 0 < stopped < 50 and job.state == "cancelled" and np.isfinite(arrays["value"]).any()
    top, bottom = np.isfinite(arrays["value"][[0, -1]])
    assert top[-1] and not bottom.any()  # from the beginning, the last layer first
    with pytest.raises(ValueError, match="still being read"):
        view.figure()
    assert "parts are read" in view.static()
    again = job.resume().wait(60)
    assert again.total == 50 and again.done == 50 and view.data({})[0]["done"] == 50
    expected = experiments.logit_lens(bench.base, top_k=1)
    assert view.data({})[1]["value"] == pytest.approx(expected.top_probability.values[..., 0], abs=1e-6)
    assert {message["key"] for message in told} == {"grid"}


def test_what_is_near_the_selected_token_is_read_first(bench_of, wide):
    grid = Grid(bench_of(tuple(range(300)), model=wide).base, None, None)
    grid.prefer(130)
    chunks = list(dict.fromkeys(start for _, start, _ in grid._todo))
    assert chunks == [128, 64, 192, 0, 256] and [stage for stage, *_ in grid._todo[:25]] == list(range(24, -1, -1))


def test_urgent_work_goes_between_the_parts_of_a_long_grid(bench_of, wide, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 0.0)
    bench = bench_of(tuple(range(100)), model=wide)
    bench["logit_lens"].data({})
    lens = next(job for job in bench.session.jobs if job.view == "logit_lens")
    done_then = bench.session.submit(lambda job: lens.done, "urgent", urgent=True).result(60)
    assert done_then < lens.wait(60).done == 50


def test_hostile_tokens_leave_no_element_in_the_static_form(bench_of, nano, monkeypatch):
    bench = bench_of("Mia is in the garden")
    texts = [*HOSTILE]
    monkeypatch.setattr(type(nano.tokenizer), "str_tokens", lambda self, ids: [texts[i % len(texts)] for i in ids])
    said = bench["logit_lens"].static()
    assert "<img src=x" not in said and "<b>" not in said and "<script" not in said and "\u202e" not in said
    json, _ = bench["logit_lens"].data({})
    assert all(len(word) <= 24 for word in json["words"])


def test_without_a_tokenizer_tokens_are_their_ids(bench_of, wide):
    bench = bench_of((5, 7, 9), model=wide)
    json, arrays = bench["logit_lens"].data({})
    expected = experiments.logit_lens(bench.base, top_k=1)
    assert json["bands"] == [] and len(json["stages"]) == 25
    words = np.array(json["words"])[arrays["word"]]
    assert np.array_equal(words, expected.top_id.values[..., 0].astype(str))


def test_a_view_alone_of_two_runs_shows_their_difference(nano):
    runs = [wb.run(nano, text, name=name) for name, text in PAIR.items()]
    single = wb.view.logit_lens(*runs)
    try:
        assert single.session.views["logit_lens"].data({})[0]["other"] == "tom"
    finally:
        single.close()


def test_reading_a_lens_leaves_the_model_without_hooks(bench, view):
    view.data({})
    assert not any(point._forward_hooks for point in bench.model.hook_points())
    assert torch.equal(wb.run(bench.model, PAIR["mia"]).logits, bench.base.logits)
