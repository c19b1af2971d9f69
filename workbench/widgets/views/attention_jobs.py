"""What the attention view has the model do: layers that a long text did not keep, and the strongest edge of a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.widgets.views.attention_reduce import TINY, ZOOM, block_size, peak, smaller
from workbench.widgets.views.base import number_of
from workbench.widgets.worker import Job

if TYPE_CHECKING:
    from workbench.widgets.views.attention import Attention


def pick(view: Attention, action: dict[str, Any]) -> Job:
    """Choose the strongest edge of a block of the large pattern."""
    layer, head = view.asked(action)
    run, before = view.runs({"change": view.option("values") == "change"})
    block = block_size(run.tokens.shape[1], ZOOM)
    blocks = -(-run.tokens.shape[1] // block)
    row, col = number_of(action, "row", blocks), number_of(action, "col", blocks)

    def work(job: Job) -> None:
        query, key = peak(view.whole(run, before, layer, head)[0], block, row, col)
        view.session.select(layer=layer, head=head, position=query, key=key)

    return view.session.submit(work, "find the strongest edge", replaces="attention pick", urgent=True)


def fill(view: Attention, values: str) -> Job:
    """Work out the layers that the run did not keep, one after the other."""
    run, before = view.runs({"change": values == "change"})
    n_layers, revision = view.session.config.n_layers, view.session.revision

    def work(job: Job) -> None:
        for layer in range(n_layers):
            if job.cancelled or view.session.revision != revision:
                return
            found = view.patterns.summary(run, layer, before)
            about = {"layer": layer, "revision": revision, "values": values, "limit": found.limit}
            tiny = smaller(found.thumbs, TINY, before is not None)
            view.session.stream(view.name, f"layer {layer}", about, {"thumbs": tiny, "scores": found.scores})
            job.report(layer + 1)
            job.breathe()

    return view.session.submit(
        work,
        "attention of every layer",
        view=view.name,
        total=n_layers,
        replaces="attention of every layer",
        resumable=lambda: fill(view, values),
    )
