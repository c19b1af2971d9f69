"""Predict before you see: an answer is committed, and only then the figure appears beside it."""

from __future__ import annotations

import difflib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from numbers import Real
from typing import Any

from workbench.figures.static import FOLDED, PLOTLY
from workbench.lessons.panel import COLOURS, Panel, marked_up

# The still form stands beside the live one and hides itself while that is there.
QUIET = ".jp-OutputArea-child:has(.wb-predict-{0} button) + .jp-OutputArea-child .wb-predicted-{0} {{ display: none }}"
QUIET_EMPTY = (
    ".jp-OutputArea-child:not(:has(> .jp-OutputArea-output > *, > .jupyter-widgets))"
    ":has(+ .jp-OutputArea-child .wb-predicted-{0}) {{ display: none }}"
)


@dataclass(frozen=True)
class Question:
    """What is asked, and what may be answered: exactly one of choices, number and selection.

    Attributes:
        number: the lowest and the highest answer.
        selection: an object with a ``selection`` (a Bench or a view), and the fields of it that count.
        answer: what comes out, or a function that computes it when it is needed.
        tolerance: how far a number may be off and be called close; a tenth of the range by default.
    """

    key: str
    text: str
    answer: Any
    choices: tuple[str, ...] = ()
    number: tuple[float, float] | None = None
    selection: tuple[Any, tuple[str, ...]] | None = None
    unit: str = ""
    tolerance: int | float | None = None

    def __post_init__(self) -> None:
        if bool(self.choices) + (self.number is not None) + (self.selection is not None) != 1:
            raise ValueError(f"prediction {self.key!r} needs one of choices=, number= and selection=")
        if self.choices and not callable(self.answer) and self.answer not in self.choices:
            raise ValueError(f"prediction {self.key!r}: the answer {self.answer!r} is none of {list(self.choices)}")

    def valid(self, value: Any) -> Any:
        """A commitment in its own form.

        Raises:
            ValueError: it is none of the choices, out of range, or nothing is selected.
        """
        if self.choices:
            if value in self.choices:
                return value
            near = difflib.get_close_matches(str(value), self.choices, 1, 0)
            raise ValueError(f"{value!r} is none of the choices {list(self.choices)}; nearest: {near[0]!r}")
        if self.number is not None:
            low, high = self.number
            if isinstance(value, Real) and not isinstance(value, bool) and low <= value <= high:  # pyright: ignore[reportOperatorIssue]
                return float(value)
            given = f"{value:g}" if isinstance(value, float) else f"{value!r:.80}"
            raise ValueError(f"expected a number from {low:g} to {high:g}, you gave {given}")
        assert self.selection is not None
        fields = self.selection[1]
        if not isinstance(value, Mapping) or any(value.get(name) is None for name in fields):
            raise ValueError(
                f"select {' and '.join(fields)} in the view first (what is selected: {value or 'nothing'})"
            )
        return {name: int(value[name]) for name in fields}

    def outcome(self) -> Any:
        """What came out."""
        return self.answer() if callable(self.answer) else self.answer

    def right(self, value: Any) -> bool:
        """Whether a commitment agrees with what came out."""
        outcome = self.outcome()
        if self.number is not None:
            return abs(value - float(outcome)) <= self.close
        if self.selection is not None:
            return all(int(outcome[name]) == value[name] for name in self.selection[1])
        return value == outcome

    @property
    def close(self) -> float:
        """How far off a number may be."""
        assert self.number is not None
        return (self.number[1] - self.number[0]) / 10 if self.tolerance is None else self.tolerance

    def said(self, value: Any) -> str:
        """An answer in words."""
        if self.number is not None:
            return f"{float(value):.3g}{f' {self.unit}' if self.unit else ''}"
        if self.selection is not None:
            return ", ".join(f"{name} {value[name]}" for name in self.selection[1])
        return str(value)


@dataclass
class Prediction:
    """A question with what was committed. In a notebook it shows itself.

    Attributes:
        value: what was committed; None before.
        figure: what was revealed; None before.
    """

    question: Question
    reveal: Callable[[], Any] | None
    because: str
    keep: Callable[[str, Any, bool], None]
    value: Any = None
    figure: Any = None
    _widget: Any = field(default=None, repr=False)
    _still: Any = field(default=None, repr=False)
    _mark: str = ""
    _style: str = ""

    @property
    def committed(self) -> bool:
        """Whether there is no way back."""
        return self.value is not None

    @property
    def right(self) -> bool | None:
        """Whether it came out so; None before the commitment."""
        return None if self.value is None else self.question.right(self.value)

    def commit(self, value: Any = None) -> None:
        """Commit an answer, as the button does; without one, what the controls or the view's selection say.

        Raises:
            ValueError: it is no valid answer, or another one was committed before.
        """
        given = self._chosen() if value is None else value
        valid = self.question.valid(given)
        if self.committed:
            if valid != self.value:
                raise ValueError(f"you committed {self.question.said(self.value)!r} already; a prediction is made once")
            return
        self.value = valid
        self.keep(self.question.key, valid, self.question.right(valid))
        self._show_reveal()

    def restore(self, value: Any) -> None:
        """Take up what was committed in an earlier session."""
        try:
            self.value = self.question.valid(value)
        except (ValueError, TypeError, OverflowError):  # the question has changed since, or somebody changed the file
            self.value = None

    def outcome_text(self) -> str:
        """What came out, beside what was said."""
        outcome = self.question.said(self.question.outcome())
        if self.value is None:
            return f"It is: **{outcome}**."
        said = self.question.said(self.value)
        if self.right:
            return (
                f"You said **{said}**, and it is **{outcome}**."
                if said != outcome
                else f"You said **{said}**, and so it is."
            )
        return f"You said **{said}**. It is **{outcome}**."

    # ------------------------------------------------------------ display

    def show(self) -> None:
        """The question with its controls, and beside it, once committed, the figure."""
        from IPython.display import HTML, display

        mark = uuid.uuid4().hex[:12]
        self._widget = self._controls(mark)
        if self.committed:
            self._fill()
        display(self._widget)
        style = f"<style>{QUIET.format(mark)}{QUIET_EMPTY.format(mark)}</style>"
        self._mark, self._style = mark, style
        self._still = display(HTML(style + self._still_html()), display_id=True)

    def show_answered(self) -> None:
        """For readers without a kernel: the question, and what came out under a line that one opens."""
        from IPython.display import HTML, display

        display(HTML(f"<div>{self._asked_html()}</div>"))
        self.figure = self.reveal() if self.reveal is not None else None
        after = f"<p>{marked_up(self.outcome_text())}</p><p>{marked_up(self.because)}</p>"
        metadata = {FOLDED: {"line": "What came out (predict first, then open)", "after": after}}
        if hasattr(self.figure, "to_plotly_json"):
            display(_output(self.figure)["data"], raw=True, metadata=metadata)
            return
        shown = self.figure._repr_html_() if hasattr(self.figure, "_repr_html_") else ""
        display(HTML(f"<details><summary>{metadata[FOLDED]['line']}</summary>{shown}{after}</details>"))

    def _asked_html(self) -> str:
        choices = "".join(f"<li>{marked_up(choice)}</li>" for choice in self.question.choices)
        if self.question.number is not None:
            low, high = self.question.number
            choices = f"<li>a number from {low:g} to {high:g} {escape(self.question.unit)}</li>"
        if self.question.selection is not None:
            choices = f"<li>select {' and '.join(self.question.selection[1])} in the view</li>"
        colour = COLOURS["note"]
        return (
            f'<div style="border-left: 4px solid {colour}; padding: .35em .9em; margin: .4em 0; max-width: 48em">'
            f"<b>Predict.</b> {marked_up(self.question.text)}<ul>{choices}</ul></div>"
        )

    def _still_html(self) -> str:
        said = ""
        if self.committed:
            said = f"<p>{marked_up(self.outcome_text())}</p><p>{marked_up(self.because)}</p>"
        return f'<div class="wb-predicted-{self._mark}">{self._asked_html()}{said}</div>'

    def _controls(self, mark: str) -> Any:
        import ipywidgets as widgets

        asked = widgets.HTML(f"<b>Predict.</b> {marked_up(self.question.text)}")
        self._control = self._control_of(widgets)
        self._button = widgets.Button(description="Commit", tooltip="commit this answer and see what comes out")
        self._said = widgets.HTML()
        self._beside = widgets.Output(layout=widgets.Layout(flex="1 1 auto", max_width="100%"))
        self._button.on_click(self._clicked)
        left = widgets.VBox([self._control, self._button, self._said], layout=widgets.Layout(flex="0 1 20em"))
        row = widgets.HBox([left, self._beside], layout=widgets.Layout(flex_flow="row wrap"))
        box = widgets.VBox([asked, row])
        box.add_class(f"wb-predict-{mark}")
        return box

    def _control_of(self, widgets: Any) -> Any:
        question = self.question
        wide = widgets.Layout(width="auto")
        if question.choices:
            return widgets.RadioButtons(options=question.choices, value=None, layout=wide)
        if question.number is not None:
            low, high = question.number
            # No number stands there before: a default would be committed by who has not thought.
            return widgets.Text(
                placeholder=f"a number from {low:g} to {high:g}{f' {question.unit}' if question.unit else ''}",
                tooltip=question.text,
            )
        return widgets.HTML(
            f"Select {' and '.join(question.selection[1] if question.selection else ())} in the view, then commit."
        )

    def _chosen(self) -> Any:
        if self.question.selection is not None:
            place, fields = self.question.selection
            chosen = place.selection
            return {name: getattr(chosen, name, None) for name in fields}
        value = None if self._widget is None else self._control.value
        if value in (None, ""):
            raise ValueError("choose an answer first")
        return value if self.question.choices else _as_number(value)

    def _clicked(self, _: Any) -> None:
        try:
            self.commit()
        except ValueError as error:
            self._said.value = Panel("not yet", str(error))._repr_html_()

    def _show_reveal(self) -> None:
        if self._widget is not None:
            self._fill()
        if self._still is not None:
            from IPython.display import HTML

            self._still.update(HTML(self._style + self._still_html()))

    def _fill(self) -> None:
        """The committed answer, locked, and what came out."""
        from IPython.display import Markdown

        self._control.disabled = self._button.disabled = True
        if self.question.selection is None:
            self._control.value = self.value if self.question.choices else f"{self.value:g}"
        self._said.value = Panel("right" if self.right else "note", self.outcome_text())._repr_html_()
        self.figure = self.reveal() if self.reveal is not None else None
        self._beside.outputs = ()
        if self.figure is not None:
            self._beside.outputs = (_output(self.figure),)
        if self.because:
            self._beside.append_display_data(Markdown(self.because))


def ask(
    key: str,
    text: str,
    *,
    choices: Sequence[str] | None,
    number: Sequence[int | float] | None,
    selection: tuple[Any, Sequence[str]] | None,
    **rest: Any,
) -> Question:
    """A question of the kind that its arguments say."""
    chosen = None if selection is None else (selection[0], tuple(selection[1]))
    ends = None if number is None else (float(number[0]), float(number[1]))
    return Question(key, text, choices=tuple(choices or ()), number=ends, selection=chosen, **rest)


def _as_number(text: str) -> Any:
    """What was typed, as a number (a comma for the point is one too); as it is where it is none."""
    try:
        return float(text.strip().rstrip("%").replace(",", "."))
    except ValueError:
        return text


def _output(shown: Any) -> dict[str, Any]:
    """An output as a notebook keeps it. (A plotly figure shows itself by a renderer, which an Output cannot catch.)"""
    if hasattr(shown, "to_plotly_json"):
        data: Any = {PLOTLY: json.loads(shown.to_json()), "text/plain": "a figure"}
    else:
        from IPython.core.formatters import DisplayFormatter

        data, _ = DisplayFormatter().format(shown)
    return {"output_type": "display_data", "data": data, "metadata": {}}
