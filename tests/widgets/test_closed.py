"""A closed Bench is gone: its runs are gigabytes of a real model. The truth is the garbage collector's."""

import gc
import weakref

import pytest

import workbench as wb
from tests.widgets.every_view import small_atlas, work
from workbench.widgets import Bench


def left(made: list[weakref.ref]) -> list[str]:
    """The types of those that are still there."""
    gc.collect()
    return [type(each).__name__ for ref in made if (each := ref()) is not None]


def parts(bench: Bench) -> list[weakref.ref]:
    """What takes memory, or holds what does."""
    session = bench.session
    return [weakref.ref(each) for each in (bench, session, bench.base, *session.views.values())]


@pytest.mark.parametrize("worked", [False, True], ids=["just made", "when every view has worked"])
def test_a_closed_bench_leaves_no_run_in_memory(nano, pair, worked):
    bench = Bench(nano, pair)
    bench.session.wait(60)
    bench.add(wb.AblateHead(1, 2))
    bench.session.wait(60)
    if worked:
        bench["routing"].use_texts({"people": ["Mia went to the park."], "numbers": ["1 2 3"]})
        bench.session.options("steering", direction="token", length=8)
        bench.session.options("generation", length=6)
        bench.atlas = small_atlas(nano)
        work(bench)
    made = parts(bench)
    bench.close()
    del bench
    assert left(made) == []


def test_a_closed_view_of_a_run_leaves_the_run_to_its_owner(nano, pair):
    run = wb.run(nano, pair.clean)
    view = wb.view.attention(run)
    made, mine = [weakref.ref(view), weakref.ref(view.session)], weakref.ref(run)
    view.close()
    del view
    assert left(made) == []
    del run
    assert left([mine]) == []
