"""What every view is on the side of Python: it answers asks, acts, and can be said without a browser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.widgets.session import Session

Payload = tuple[dict[str, Any], dict[str, np.ndarray]]


class View:
    """One view of a session. It holds no numbers of its own: what is on screen follows from the state.

    Attributes:
        name: of its files, in Python and in JavaScript.
        title: what people see.
        defaults: its options and what they are until someone changes them.
        choices: of options that take one of a few values: which.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    defaults: ClassVar[dict[str, Any]] = {}
    choices: ClassVar[dict[str, Iterable[Any]]] = {}

    def __init__(self, session: Session) -> None:
        self.session = session

    def data(self, ask: dict[str, Any]) -> Payload:
        """What the browser asks for: words, and arrays by name. Called on a reader's thread."""
        raise NotImplementedError

    def act(self, action: dict[str, Any]) -> dict[str, Any] | None:
        """What a click does; quick, for it runs where the kernel calls. Work on the model goes to session.submit."""
        raise ValueError(f"{self.title} does not know how to {action.get('kind')!r}")

    def static(self) -> str:
        """What is on screen as HTML without scripts."""
        raise NotImplementedError

    def code(self) -> str:
        """Python that shows the same without a widget, given ``model`` and the runs by their names."""
        raise NotImplementedError

    def table(self) -> xr.Dataset:
        """What is on screen, labelled."""
        raise NotImplementedError

    def figure(self) -> go.Figure:
        """What is on screen as a plotly figure, for papers."""
        raise NotImplementedError

    def option(self, name: str) -> Any:
        """One of its options, as set or by default.

        Raises:
            KeyError: for an option that it does not have.
        """
        return self.session.state.options.get(self.name, {}).get(name, self.defaults[name])

    def check_options(self, values: dict[str, Any]) -> None:
        """Refuse options that it does not have, that are of another type than their defaults, or none of the choices.

        Raises:
            ValueError: naming them.
        """
        for name, value in values.items():
            if name not in self.defaults:
                known = ", ".join(self.defaults) or "none"
                raise ValueError(f"{self.title} has no option {name!r}; it has {known}")
            default = self.defaults[name]
            if default is not None and value is not None and not _alike(value, default):
                raise ValueError(f"{self.title}: {name}={value!r}; expected something like {default!r}")
            if name in self.choices and value not in (known := tuple(self.choices[name])):
                raise ValueError(f"{self.title}: {name}={value!r}; expected one of {known}")


class Formed(View):
    """A view of which a module of its own makes all that needs no browser.

    Attributes:
        forms: functions of the view: page (HTML), code, table, figure.
    """

    forms: ClassVar[Any]

    def static(self) -> str:
        return self.forms.page(self)

    def code(self) -> str:
        return self.forms.code(self)

    def table(self) -> xr.Dataset:
        return self.forms.table(self)

    def figure(self) -> go.Figure:
        return self.forms.figure(self)


def number_of(given: Mapping[str, Any], name: str, size: int | None = None) -> int:
    """A whole number of an ask or an action.

    Args:
        size: there are 0 to size − 1; None: any.

    Raises:
        ValueError: for anything else.
    """
    value = given.get(name)
    if type(value) is int and (size is None or 0 <= value < size):
        return value
    known = "expected a whole number" if size is None else f"there are 0 to {size - 1}"
    raise ValueError(f"{name}={value!r:.80}: {known}")


def _alike(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, int | float):
        return isinstance(value, int | float)
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple)
    return isinstance(value, type(default))
