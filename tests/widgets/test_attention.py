"""The attention view in Python. The truth is wb.run with the same specs, and loops over its patterns."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from tests.browser.benches import like_20b, tokens_of_length
from workbench import experiments, figures
from workbench.widgets import code, static
from workbench.widgets.views import attention_reduce as reduce
from workbench.widgets.views.attention_patterns import KINDS, Remembered

LAYER, HEAD = 1, 3


def pattern(run: wb.Run, layer: int = LAYER, head: int = HEAD) -> np.ndarray:
    return run[f"blocks.{layer}.attn.hook_pattern"][0, head].numpy()


def sink(run: wb.Run, layer: int = LAYER, head: int = HEAD) -> np.ndarray:
    return run[f"blocks.{layer}.attn.hook_sink"][0, :, head].numpy()


def act(bench: Any, **action: Any) -> None:
    bench["attention"].act({"layer": LAYER, "head": HEAD, **action})
    bench.session.wait(30)


def zoom(bench: Any, **ask: Any) -> tuple[dict, dict]:
    return bench["attention"].data({"what": "zoom", "layer": LAYER, "head": HEAD, **ask})


def naive_blocks(x: np.ndarray, block: int) -> np.ndarray:
    """The number of each block that is farthest from 0, by loops."""
    n = -(-len(x) // block)
    made = np.zeros((n, n), x.dtype)
    for row in range(n):
        for col in range(n):
            part = x[row * block : (row + 1) * block, col * block : (col + 1) * block].ravel()
            made[row, col] = part[np.abs(part).argmax()]
    return made


@pytest.fixture(scope="module")
def long(nano: Any) -> wb.Run:
    """300 tokens, with every pattern."""
    return wb.run(nano, torch.tensor([tokens_of_length(300)]), name="long")


@pytest.fixture(scope="module")
def without_patterns(nano: Any, long: wb.Run) -> wb.Run:
    """The same text, as runs of very long texts are kept."""
    kept = [name for name in nano.sites.wanted(None) if not name.endswith("hook_pattern")]
    return wb.run(nano, long.tokens, sites=kept, name="bare")


@pytest.fixture
def view_of() -> Any:
    """``wb.view.attention(run)``, closed after the test."""
    made = []

    def view_of(run: wb.Run) -> Any:
        made.append(wb.view.attention(run))
        return made[-1]

    yield view_of
    for view in made:
        view.close()


# ---------------------------------------------------------------- what is shown


@pytest.mark.parametrize("n, block", [(7, 3), (12, 4), (5, 1), (9, 9)])
def test_a_block_shows_its_largest_number_and_a_change_the_one_farthest_from_zero(n, block):
    x = np.random.default_rng(n).normal(size=(n, n)).astype(np.float32)
    assert np.array_equal(reduce.largest(np.abs(x), block), naive_blocks(np.abs(x), block))
    assert np.array_equal(reduce.strongest(x, block), naive_blocks(x, block))
    assert np.array_equal(
        reduce.along(np.diag(x), block, signed=True), np.diag(naive_blocks(np.diag(np.diag(x)), block))
    )


@pytest.mark.parametrize("n, most", [(1, 48), (48, 48), (49, 48), (2000, 48), (2000, 256)])
def test_there_are_never_more_blocks_than_asked_for(n, most):
    assert -(-n // reduce.block_size(n, most)) <= most


def test_the_large_pattern_is_the_runs_own(bench):
    about, arrays = zoom(bench)
    assert np.array_equal(arrays["pattern"], pattern(bench.base))
    assert np.array_equal(arrays["sink"], sink(bench.base))
    assert (about["block"], about["kv_head"], about["window"]) == (1, 0, 0)
    np.testing.assert_allclose(arrays["pattern"].sum(1) + arrays["sink"], 1, atol=1e-5)


def test_thumbnails_are_the_patterns_in_bytes_and_scores_those_of_head_matches(bench):
    about, arrays = bench["attention"].data({"what": "layer", "layer": LAYER})
    everything = bench.base[f"blocks.{LAYER}.attn.hook_pattern"][0].numpy()
    assert np.abs(arrays["thumbs"] / 255 - everything).max() <= 0.5 / 255 + 1e-6
    expected = experiments.head_matches(bench.base).sel(layer=LAYER)
    for kind, scores in zip(about["kinds"], arrays["scores"], strict=True):
        np.testing.assert_allclose(scores, expected.sink if kind == "sink" else expected["mean"].sel(kind=kind))


def test_of_a_long_text_blocks_are_shown_whether_or_not_its_patterns_were_kept(long, without_patterns, view_of):
    whole, bare = view_of(long).session, view_of(without_patterns).session
    expected = naive_blocks(pattern(long), 2)
    ask = {"layer": LAYER, "head": HEAD}
    for session, tolerance in ((whole, 0), (bare, 1e-5)):
        view = session.views["attention"]
        about, arrays = view.data({"what": "zoom", **ask})
        assert about["block"] == 2 and arrays["pattern"].shape == (150, 150)
        np.testing.assert_allclose(arrays["pattern"], expected, atol=tolerance)
        thumbs = view.data({"what": "layer", "layer": LAYER})[1]["thumbs"]
        np.testing.assert_allclose(thumbs[HEAD] / 255, naive_blocks(pattern(long), 7), atol=0.003)
    lines = [session.views["attention"].data({"what": "line", "position": 200, **ask}) for session in (whole, bare)]
    np.testing.assert_allclose(lines[0][1]["values"], lines[1][1]["values"], atol=1e-5)
    assert whole.views["attention"].patterns.keeps(whole.base) and not bare.views["attention"].patterns.keeps(bare.base)


def test_a_line_is_a_row_or_a_column_and_its_top_are_the_largest(bench):
    ask = {"what": "line", "layer": LAYER, "head": HEAD}
    out, values = bench["attention"].data({**ask, "position": 12})
    assert np.array_equal(values["values"], pattern(bench.base)[12])
    found = [(each["value"], each["position"]) for each in out["top"]]
    assert found == sorted(((float(v), i) for i, v in enumerate(pattern(bench.base)[12]) if v), reverse=True)[:8]
    assert out["sink"] == pytest.approx(sink(bench.base)[12])
    into, values = bench["attention"].data({**ask, "position": 4, "direction": "in"})
    assert np.array_equal(values["values"], pattern(bench.base)[:, 4]) and into["sink"] is None


def test_the_overview_has_every_head_of_every_layer_and_fits_one_message():
    bench = wb.Bench(like_20b(), tokens_of_length(60), open=["attention"])
    bench.session.wait(60)
    _, arrays = bench["attention"].data({"what": "all"})
    assert arrays["thumbs"].shape[:2] == (24, 64) and arrays["known"].all()
    assert sum(array.nbytes for array in arrays.values()) < 2e6
    layer = bench["attention"].data({"what": "layer", "layer": 7})[1]
    expected = naive_blocks(layer["thumbs"][33], reduce.block_size(layer["thumbs"].shape[-1], 16))
    assert np.array_equal(arrays["thumbs"][7, 33], expected)
    bench.close()


@pytest.mark.parametrize(
    "ask, words",
    [
        ({"what": "zoom", "layer": 9, "head": 0}, "there are 0 to 3"),
        ({"what": "line", "layer": 0, "head": 0, "position": 99}, "there are 0 to"),
        ({"what": "nothing"}, "it was asked for 'nothing'"),
    ],
)
def test_an_ask_for_what_is_not_there_is_refused_in_words(bench, ask, words):
    with pytest.raises(ValueError, match=words):
        bench["attention"].data(ask)


# ---------------------------------------------------------------- touching


@pytest.mark.parametrize("operation, value", [("scale", 0.25), ("scale", 3.0), ("set", 0.4), ("remove", None)])
def test_the_sinks_slider_gives_the_run_that_edit_sink_gives_and_removing_it_restores(bench, operation, value):
    before = zoom(bench)[1]
    act(bench, kind="sink", operation=operation, value=value)
    expected = wb.run(bench.model, bench.base.tokens, [wb.EditSink(LAYER, HEAD, operation, value)])
    about, arrays = zoom(bench)
    np.testing.assert_allclose(arrays["pattern"], pattern(expected), atol=1e-5)
    np.testing.assert_allclose(arrays["sink"], sink(expected), atol=1e-5)
    torch.testing.assert_close(bench.run.logits, expected.logits, atol=1e-4, rtol=1e-4)
    wanted = {"scale": np.minimum(before["sink"] * (value or 0), 1), "set": value, "remove": 0}[operation]
    np.testing.assert_allclose(arrays["sink"], np.broadcast_to(wanted, arrays["sink"].shape), atol=1e-5)
    assert about["edits"]["sink"] == {"operation": operation, "value": value}
    act(bench, kind="sink", operation="restore")
    assert bench.interventions == () and np.array_equal(zoom(bench)[1]["pattern"], before["pattern"])


def test_a_drag_is_one_step_of_the_history_and_one_chip(bench):
    entries = len(bench.session.history.entries)
    for value in (0.9, 0.8, 0.7, 0.6):
        act(bench, kind="sink", operation="scale", value=value, drag="one")
    assert bench.interventions == (wb.EditSink(LAYER, HEAD, "scale", 0.6),)
    assert len(bench.session.history.entries) == entries + 1
    act(bench, kind="sink", operation="scale", value=0.5, drag="two")
    bench.undo()
    assert bench.interventions == (wb.EditSink(LAYER, HEAD, "scale", 0.6),)
    bench.undo()
    assert bench.interventions == ()


@pytest.mark.parametrize("freed", ["redistribute", "drop"])
def test_a_cut_edge_gets_no_attention_and_cutting_it_again_restores_it(bench, freed):
    act(bench, kind="edge", query=12, key=9, freed=freed)
    act(bench, kind="edge", query=None, key=2, freed=freed)
    spec = wb.KnockOut(LAYER, ((12, 9), (None, 2)), HEAD, freed)
    assert bench.interventions == (spec,)  # one chip for a head
    expected = wb.run(bench.model, bench.base.tokens, [spec])
    about, arrays = zoom(bench)
    np.testing.assert_allclose(arrays["pattern"], pattern(expected), atol=1e-5)
    assert arrays["pattern"][12, 9] == 0 and (arrays["pattern"][:, 2] == 0).all()
    assert about["edits"]["cut"] == [[12, 9, freed], [None, 2, freed]]
    act(bench, kind="edge", query=12, key=9)
    assert bench.interventions == (wb.KnockOut(LAYER, ((None, 2),), HEAD, freed),)
    act(bench, kind="edge", query=None, key=2)
    assert bench.interventions == ()


def test_the_sink_of_one_query_can_be_cut_and_a_head_ablated_and_both_taken_back(bench):
    act(bench, kind="edge", query=5, key=-1)
    assert bench.interventions == (wb.EditSink(LAYER, HEAD, "remove", positions=(5,)),)
    assert zoom(bench)[1]["sink"][5] == 0 and zoom(bench)[0]["edits"]["cut"] == [[5, -1, None]]
    act(bench, kind="ablate")
    assert wb.AblateHead(LAYER, HEAD) in bench.interventions
    heads = bench["attention"].data({"what": "layer", "layer": LAYER})[0]["touched"]
    assert heads == {HEAD: "ablated, 1 edge cut"}
    act(bench, kind="ablate")
    act(bench, kind="edge", query=5, key=-1)
    assert bench.interventions == ()


def test_an_edge_that_no_query_sees_is_refused_and_nothing_changes(bench):
    with pytest.raises(ValueError, match="comes after it"):
        act(bench, kind="edge", query=2, key=9)
    assert bench.interventions == () and not bench.session.history.can_undo


def test_touching_the_pattern_of_the_other_prompt_edits_that_prompt(bench):
    bench.session.look(shown="corrupt")
    act(bench, kind="ablate")
    assert bench.session.state.subject == "corrupt" and bench.interventions == (wb.AblateHead(LAYER, HEAD),)


def test_the_difference_is_edited_minus_unedited(bench):
    bench.session.options("attention", values="change")
    assert not zoom(bench)[0]["change"]  # nothing is edited yet
    act(bench, kind="sink", operation="set", value=0.5)
    expected = wb.run(bench.model, bench.base.tokens, [wb.EditSink(LAYER, HEAD, "set", 0.5)])
    about, arrays = zoom(bench)
    change = pattern(expected) - pattern(bench.base)
    assert about["change"]
    np.testing.assert_allclose(arrays["pattern"], change, atol=1e-5)
    np.testing.assert_allclose(arrays["sink"], sink(expected) - sink(bench.base), atol=1e-5)
    described, heads = bench["attention"].data({"what": "layer", "layer": LAYER})
    assert described["limit"] == pytest.approx(np.abs(change).max(), abs=1e-5)
    thumb = (heads["thumbs"][HEAD].astype(float) - 128) / 127 * described["limit"]
    np.testing.assert_allclose(thumb, change, atol=0.5 / 127 + 1e-4)
    assert (heads["thumbs"][HEAD - 1] == 128).all()  # this head comes before the edit


def test_the_strongest_edge_of_a_block_is_selected(long, view_of):
    session = view_of(long).session
    session.views["attention"].act({"kind": "pick", "layer": 0, "head": 2, "row": 70, "col": 69})
    session.wait(10)
    part = pattern(long, 0, 2)[140:142, 138:140]
    chosen = session.selection
    assert (chosen.layer, chosen.head) == (0, 2)
    assert pattern(long, 0, 2)[chosen.position, chosen.key] == part.max()


# ---------------------------------------------------------------- long work


def test_layers_that_were_not_kept_are_worked_out_one_by_one_and_a_cancel_keeps_them(without_patterns, long, view_of):
    session = view_of(without_patterns).session
    view, sent = session.views["attention"], []
    assert not view.data({"what": "all"})[1]["known"].any()

    def send(message: dict, arrays: Any) -> None:
        if message["did"] == "stream":
            sent.append((message["json"]["layer"], arrays))
            if len(sent) == 2:
                session.jobs[-1].cancel()

    session.send = send
    view.act({"kind": "fill"})
    session.wait(30)
    assert session.jobs[-1].state == "cancelled"
    assert view.data({"what": "all"})[1]["known"].tolist() == [1, 1, 0, 0]
    session.jobs[-1].resume()
    session.wait(30)
    arrays = view.data({"what": "all"})[1]
    assert arrays["known"].all() and session.jobs[-1].state == "done"
    for layer, streamed in sent:
        assert np.array_equal(streamed["thumbs"], arrays["thumbs"][layer])
    expected = experiments.head_matches(long)
    np.testing.assert_allclose(arrays["scores"][:, KINDS.index("sink")], expected.sink, atol=1e-5)
    np.testing.assert_allclose(arrays["scores"][:, 2], expected["mean"].sel(kind="induction"), atol=1e-5)


def test_what_is_remembered_is_bounded_and_goes_with_its_run(nano):
    remembered = Remembered(3000)
    run = wb.run(nano, "Mia")
    for key in range(5):
        remembered.get(run, key, lambda: np.zeros(1000, np.uint8))
    assert [remembered.has(run, key) for key in range(5)] == [False, False, True, True, True]
    other = wb.run(nano, "Tom")
    assert not remembered.has(other, 4)
    del run
    remembered.get(other, 0, lambda: np.zeros(1, np.uint8))
    assert len(remembered._there) == 1


# ---------------------------------------------------------------- without a browser


def run_code(bench: Any, run: Any = None) -> dict[str, Any]:
    """What the copied cell leaves, in a namespace of its own. Its last line is a figure."""
    lines = code.of(bench.session, "attention").rstrip().split("\n")
    lines[-1] = f"figure = {lines[-1]}"
    if run is not None:
        lines = [f"{run.name} = given" if line.startswith(f"{run.name} = ") else line for line in lines]
    made: dict[str, Any] = {"given": run}
    exec("\n".join(lines), made)
    return made


def test_the_copied_code_gives_the_numbers_on_screen(bench):
    bench.select(layer=2, head=5)
    made = run_code(bench)
    assert np.array_equal(made["pattern"].pattern, pattern(bench.base, 2, 5))
    bench.select(layer=LAYER, head=HEAD)
    bench.session.options("attention", values="change")
    act(bench, kind="sink", operation="scale", value=0.5)
    made = run_code(bench)
    arrays = zoom(bench)[1]
    np.testing.assert_allclose(made["pattern"].pattern - made["before"].pattern, arrays["pattern"], atol=1e-5)
    drawn = made["figure"].data[0]
    np.testing.assert_allclose(np.array(drawn.z, float)[:, 0], arrays["sink"], atol=1e-5)


def test_the_code_of_a_text_that_kept_no_patterns_runs_the_layer_again(without_patterns, long, view_of):
    session = view_of(without_patterns).session
    session.select(layer=2, head=1)
    text = session.views["attention"].code()
    assert "sites=['blocks.2.attn.hook_pattern', 'blocks.2.attn.hook_sink']" in text
    made: dict[str, Any] = {"wb": wb, "experiments": experiments, "figures": figures}
    made |= {"model": without_patterns.model, code.variable("bare"): without_patterns}
    exec(text, made)
    np.testing.assert_allclose(made["pattern"].pattern, pattern(long, 2, 1), atol=1e-5)


def test_the_table_holds_what_is_on_screen(bench, long, view_of):
    bench.select(layer=LAYER, head=HEAD)
    table = bench["attention"].table()
    assert np.array_equal(table.pattern, pattern(bench.base)) and table.score.dims == ("kind", "head")
    assert table.query_token.values[1] == " Ben" or len(table.query_token) == len(table.key_token)
    act(bench, kind="ablate")
    bench.session.options("attention", values="change")
    table = bench["attention"].table()
    assert float(np.abs(table.pattern_change).max()) == 0  # what a head writes does not change where it looks
    blocks = view_of(long).session.views["attention"].table()
    assert np.array_equal(blocks.pattern, naive_blocks(pattern(long, 0, 0), 2))
    assert blocks.query_pos.values[:3].tolist() == [0, 2, 4]


def test_the_figure_shows_the_same_and_its_change(bench):
    bench.select(layer=LAYER, head=HEAD)
    shown = np.array([[np.nan if v is None else v for v in row] for row in bench["attention"].figure().data[1].z])
    np.testing.assert_allclose(np.nan_to_num(shown), pattern(bench.base), atol=1e-6)
    bench.session.options("attention", values="change")
    act(bench, kind="sink", operation="remove")
    figure = bench["attention"].figure()
    scale = figure.layout.coloraxis
    assert figure.layout.title.text.startswith("Change of attention") and scale.cmin == -scale.cmax
    arrays = zoom(bench)[1]
    assert scale.cmax == pytest.approx(max(np.abs(arrays["pattern"]).max(), np.abs(arrays["sink"]).max()), abs=1e-5)


@pytest.mark.parametrize("n", [1, 20, 300, 2000])
def test_the_static_form_is_small_and_has_no_script_at_any_length(nano, view_of, n):
    run = wb.run(nano, torch.tensor([tokens_of_length(n)]), name="text")
    page = view_of(run).session.views["attention"].static()
    assert len(page) < 400_000 and "<script" not in page and "<table" in page and 'alt="patterns of the heads' in page


def test_static_form_and_answers_make_hostile_tokens_harmless(nano, view_of):
    run = wb.run(nano, "<img src=x onerror=alert(1)> </script> \u202e")
    session = view_of(run).session
    page = session.views["attention"].static()
    assert not re.search(r"<img(?! alt=)", page) and "</script" not in page and "\u202e" not in page


def test_options_are_checked_in_words(bench):
    for values, words in (({"show": "some"}, "expected one of"), ({"layer": 9}, "0 to 3"), ({"head": -1}, "0 to 7")):
        with pytest.raises(ValueError, match=words):
            bench.session.options("attention", **values)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (1.0, "1"), (0.0049, "≈0"), (0.9951, "≈1"), (-0.001, "≈0"), (0.005001, "0.01"), (-0.5, "-0.50")],
)
def test_a_share_that_is_nearly_all_or_nothing_is_not_written_as_all_or_nothing(value: float, said: str):
    assert static.share(value) == said
