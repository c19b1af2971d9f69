"""The Bench: one widget in which prompts, views, interventions and history are linked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.activations import Run
from workbench.figures.text import visible
from workbench.interventions import Intervention
from workbench.model import HookedGptOss
from workbench.prompts import Pair
from workbench.prompts.pair import Prompt as Input
from workbench.text import Chat
from workbench.widgets import code, export, workspace
from workbench.widgets.answer import two_tokens
from workbench.widgets.history import MOST
from workbench.widgets.selection import Selection
from workbench.widgets.session import Session
from workbench.widgets.state import EDITED
from workbench.widgets.views.base import View
from workbench.widgets.widget import LiveView
from workbench.widgets.worker import Job

if TYPE_CHECKING:
    from workbench.atlases.queries import Atlas

OPEN = (
    "logit_lens", "attention", "routing", "patching", "ablation", "steering", "generation", "graph", "atlas",
    "history",
)  # fmt: skip


class Bench(LiveView):
    """Look inside a model: every view of one prompt (or of two), linked, live.

    What is clicked is a value in Python (``bench.selection``), every value can be ablated, every state is code
    (``bench.code()``).

    Args:
        model: from ``wb.load``.
        prompt: text, a Chat, token ids; a ``prompts.Pair``, or two texts by name: ``{"clean": …, "corrupt": …}``.
        answer: two tokens, right and wrong, as text or ids, whose logits patching and ablation weigh; None takes those
            of the Pair, else the two likeliest.
        interventions: on the first prompt, from the start.
        atlas: an Atlas (``wb.atlas.open(folder)``) or its folder, for the view of that name.
        open: the views on screen; None for all.
        layout: "tabs", or "side" by side.
        steps: of the history that are kept; older ones fall off.

    Raises:
        ValueError: for a prompt, an intervention or a view that cannot be; before anything runs.
    """

    def __init__(
        self,
        model: HookedGptOss,
        prompt: Any,
        *,
        answer: Sequence[str | int] | None = None,
        interventions: Sequence[Any] = (),
        atlas: Atlas | str | Path | None = None,
        open: Sequence[str] | None = None,
        layout: str = "tabs",
        steps: int = MOST,
    ) -> None:
        prompts = _prompts(prompt)
        if answer is None and isinstance(prompt, Pair):
            answer = (prompt.right, prompt.wrong)
        weighed = None if answer is None else two_tokens(model, answer)
        session = Session(model, prompts, answer=weighed, interventions=interventions, steps=steps)
        super().__init__(session)
        if atlas is not None:
            self.atlas = atlas
        session.look(open=OPEN if open is None else open, layout=layout)

    # ------------------------------------------------------------ what is chosen

    @property
    def selection(self) -> Selection:
        """What is chosen in every view: ``.values()``, ``.ablate()``, ``.patch_from("clean")``, ``.code()``."""
        return self.session.selection

    @selection.setter
    def selection(self, selection: Selection) -> None:
        self.session.selection = selection

    def select(self, **changes: Any) -> Selection:
        """Change some of the selection: ``bench.select(layer=3, expert=7)``; None clears a field."""
        return self.session.select(**changes)

    @property
    def atlas(self) -> Atlas | None:
        """The atlas that the view of that name shows; assign an Atlas, its folder, or None.

        Raises:
            AtlasError: there is none in the folder, or it cannot be read.
        """
        return self.session.views["atlas"].atlas

    @atlas.setter
    def atlas(self, given: Atlas | str | Path | None) -> None:
        self.session.views["atlas"].show(given)

    # ------------------------------------------------------------ what is done

    @property
    def model(self) -> HookedGptOss:
        """The model."""
        return self.session.model

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """The interventions that are on; assign others to replace all."""
        return self.session.state.specs

    @interventions.setter
    def interventions(self, specs: Sequence[Any]) -> None:
        self.session.edit(tuple(specs), "interventions from Python")

    def add(self, spec: Any) -> int:
        """Put one more intervention on; gives its number, for ``remove``."""
        return self.session.add(spec)

    def remove(self, number: int) -> None:
        """Take an intervention away."""
        self.session.remove(number)

    def vector(self, name: str, recipe: Mapping[str, Any] | Any) -> None:
        """Give ``Steer(…, vector=name)`` its vector: a recipe (see widgets/recipes.py), or the numbers themselves."""
        numbers = not isinstance(recipe, Mapping)
        self.session.set_vector(name, {"kind": "numbers", "values": [float(v) for v in recipe]} if numbers else recipe)

    def undo(self) -> None:
        """Back to the state before."""
        self.session.travel(lambda history: history.step(-1))

    def redo(self) -> None:
        """Forward again."""
        self.session.travel(lambda history: history.step(1))

    # ------------------------------------------------------------ what came out

    @property
    def run(self) -> Run:
        """The run with the interventions that are on now, or the unedited one; waits for it."""
        return self.session.run(EDITED if self.session.state.specs else self.session.state.subject, newest=True)

    @property
    def base(self) -> Run:
        """The unedited run of the same prompt."""
        return self.session.run(self.session.state.subject, newest=True)

    def __getitem__(self, view: str) -> View:
        """A view on the side of Python: ``bench["attention"].table()``, ``.figure()``, ``.code()``.

        Raises:
            ValueError: for a view that is not there.
        """
        if view not in self.session.views:
            raise ValueError(f"there is no view {view!r}; there are {', '.join(self.session.views)}")
        return self.session.views[view]

    @property
    def jobs(self) -> list[Job]:
        """Work under way, and the last of each view: ``job.cancel()``, ``job.resume()``, ``await job``."""
        return self.session.jobs

    def wait(self, timeout: int | float | None = None) -> None:
        """Wait until nothing is under way, and put what is on screen into the notebook's file.

        Raises:
            TimeoutError: if it takes longer.
        """
        self.session.wait(timeout)
        self.freeze()

    # ------------------------------------------------------------ as code, as files

    def code(self, view: str | None = None) -> str:
        """A cell of Python that shows what is on screen without a widget."""
        return code.of(self.session, view)

    def export(self, path: str | Path, view: str | None = None) -> Path:
        """Write what is on screen: ``.html`` (without scripts), ``.csv`` (``.zip`` of several) or ``.png`` (one view).

        Raises:
            ValueError: for another ending, or a view that is not there.
        """
        path = Path(path)
        ending = path.suffix.removeprefix(".")
        made = export.export(self.session, "csv" if ending == "zip" else ending, view)
        if made.mime == "application/zip" and ending == "csv":
            path = path.with_suffix(".zip")
        path.write_bytes(made.content)
        return path

    def save(self, path: str | Path) -> Path:
        """Write the workspace as JSON: prompts, interventions, history, what is on screen; no weights, no numbers."""
        path = Path(path)
        path.write_text(workspace.to_json(self.session), "utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path, model: HookedGptOss) -> Bench:
        """A Bench from a file that ``save`` wrote.

        Raises:
            ValueError: for a file that is no workspace, or that does not fit the model.
        """
        text = workspace.read(path)
        bench = cls(model, workspace.prompts_of(text))
        workspace.restore(bench.session, text)
        return bench

    def __repr__(self) -> str:
        state = self.session.state
        names = ", ".join(f"{prompt.name}: {len(prompt.tokens)} tokens" for prompt in state.prompts)
        return f"Bench({visible(self.session.config.name, 80)}, {names}, {len(state.specs)} interventions)"


def _prompts(given: Any) -> dict[str, Input]:
    if isinstance(given, Pair):
        return {"clean": given.clean, "corrupt": given.corrupt}
    if isinstance(given, Mapping):
        if not 1 <= len(given) <= 2:
            raise ValueError(f"{len(given)} prompts were given: expected one or two, by name")
        return dict(given)
    if isinstance(given, str | Chat):
        return {"prompt": given}
    try:
        return {"prompt": tuple(int(token) for token in given)}
    except (TypeError, ValueError):
        expected = "text, a Chat, token ids, a prompts.Pair, or two prompts by name"
        raise ValueError(f"prompt={given!r:.80}: expected {expected}") from None
