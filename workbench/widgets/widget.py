"""The one live widget: a session on one side, the bundle of JavaScript on the other, messages between them."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import numpy as np
import traitlets

from workbench.widgets import describe, export, shell, static
from workbench.widgets.asks import Asks
from workbench.widgets.session import Session
from workbench.widgets.views import VIEWS
from workbench.widgets.wire import clean, packed
from workbench.widgets.worker import in_words

STATIC = Path(__file__).parent / "static"
NEWEST = ("state", "jobs", "stream")  # messages of which an older one must not come after a newer one
# Without a kernel JupyterLab writes "Loading widget..." for ever: that line is left out where the static form stands
# below it. (A live view has elements in it, and Lab's own errors have the class.)
QUIET = (
    ".jp-OutputArea-child:not(:has(> .jp-OutputArea-output > *, > .jupyter-widgets))"
    ":has(+ .jp-OutputArea-child .wb-static-{}) {{ display: none }}"
)


class LiveView(anywidget.AnyWidget):
    """Shows a session. ``Bench`` and ``wb.view`` make these.

    Args:
        single: a view's name, to show it alone, without the shell.
    """

    # Text, and no paths: for a file anywidget makes a watcher that holds every widget for ever, closed ones too.
    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    _static_id = traitlets.Unicode().tag(sync=True)
    _single = traitlets.Unicode(allow_none=True, default_value=None).tag(sync=True)
    session: Session
    _asks: Asks
    _timer: threading.Timer | None = None
    _frozen: Any = None
    settle_after: ClassVar[float] = 0.7  # seconds without a change, before the static form is made again

    def __init__(self, session: Session, single: str | None = None) -> None:
        self.session = session
        session.views = {view.name: view(session) for view in VIEWS}
        self._sending, self._numbers, self._sent = threading.Lock(), itertools.count(1), dict[Any, int]()
        self._asks = Asks(self._push)
        super().__init__(_static_id=uuid.uuid4().hex[:12], _single=single)
        session.send, session.on_settled = self._push, self._settled
        self.on_msg(self._heard)

    @traitlets.default("_esm")
    def _script(self) -> str:
        return _read("bench.js")

    @traitlets.default("_css")
    def _style(self) -> str:
        return _read("bench.css")

    # ------------------------------------------------------------ messages

    def _heard(self, widget: Any, content: Any, buffers: Any) -> None:
        """A message from the browser. Whatever is wrong with it is answered, never raised into the kernel."""
        if not isinstance(content, Mapping):
            return
        # They come back in the answer, and name a place: nothing but a word or a number.
        content = {**content, **{name: _plain(content.get(name)) for name in ("id", "slot", "view")}}
        does = content.get("do")
        if does == "hello":
            self._push({"did": "state"}, {})
            self._push({"did": "jobs"}, {})
        elif does == "ask":
            self._asks.put(content, lambda: _asked(content, "ask", lambda ask: self._view_of(content).data(ask)))
        elif does == "act":
            self._act(content)

    def _act(self, content: Mapping[str, Any]) -> None:
        head = {"id": content.get("id"), "view": content.get("view")}
        try:
            if content.get("view") == "bench":
                done = _asked(content, "action", lambda action: shell.act(self.session, action))
            else:
                done = _asked(content, "action", lambda action: self._view_of(content).act(action))
        except Exception as error:
            self._push({"did": "failed", "error": in_words(error), **head}, {})
        else:
            self._push({"did": "done", "json": done or {}, **head}, {})

    def _view_of(self, content: Mapping[str, Any]) -> Any:
        name = content.get("view")
        if not isinstance(name, str) or name not in self.session.views:
            raise ValueError(f"there is no view {name!r:.80}; there are {', '.join(self.session.views)}")
        return self.session.views[name]

    def _push(self, message: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        # State and jobs are described when they are sent, so that of many changes the newest arrives. Not under the
        # lock, for that would wait for the session's: another thread may have sent a newer description by then.
        place = (message["did"], message.get("view"), message.get("key"))
        number = message.pop("number", None) or next(self._numbers)
        if message["did"] == "state":
            message = {**message, "state": {**describe.state(self.session), "single": self._single}}
        elif message["did"] == "jobs":
            message = {**message, **describe.jobs(self.session)}
        described, buffers = packed(arrays)
        if described:
            message = {**message, "arrays": described}
        with self._sending:
            if message["did"] in NEWEST:
                if number < self._sent.get(place, 0):
                    return
                self._sent[place] = number
            self.send(clean(message), buffers)

    # ------------------------------------------------------------ display

    def _ipython_display_(self, **kwargs: Any) -> None:
        """The live view, and beside it its static form, which hides itself while the live one is there."""
        from IPython.display import display

        data: Any = self._repr_mimebundle_(**kwargs)  # anywidget gives (data, metadata), ipywidgets the data
        display(data if isinstance(data, dict) else data[0], raw=True)
        self._frozen = display(self._still(), display_id=True)

    def _still(self) -> Any:
        from IPython.display import HTML

        return HTML(f"<style>{QUIET.format(self._static_id)}</style>{self._beside()}")

    def _beside(self) -> str:
        return f'<div class="wb-static wb-static-{self._static_id}">{self.static()}</div>'

    def static(self) -> str:
        """What is on screen as HTML without scripts; only the prompt, while the first run is under way."""
        session = self.session
        names = [self._single] if self._single else list(session.state.open)
        try:
            if session.running:
                return static.note(f"workbench on {session.config.name}: the first run is under way")
            return export.body(session, names)
        except Exception as error:  # a view that cannot be said must not keep the others from being shown
            return static.note(f"workbench on {session.config.name}: {in_words(error)}")

    def _settled(self) -> None:
        """Make the static form again, when nothing has changed for a moment."""
        if self._frozen is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(self.settle_after, self.freeze)
        self._timer.daemon = True
        self._timer.start()

    def freeze(self) -> None:
        """Put what is on screen now into the notebook's file, as it will be seen without a kernel."""
        if self._frozen is not None:
            self._frozen.update(self._still())

    def close(self) -> None:
        """Stop its jobs and take it off the screen. (Python calls it too where the making of one has failed.)"""
        if self._timer is not None:
            self._timer.cancel()
        for part in ("_asks", "session"):
            if part in self.__dict__:
                getattr(self, part).close()
        super().close()


@cache
def _read(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _plain(given: Any) -> Any:
    return given if isinstance(given, str | int | float) else None


def _asked(content: Mapping[str, Any], part: str, answer: Callable[[dict[str, Any]], Any]) -> Any:
    """The answer to a part of a message; fields of a type that nobody there expects are an error in words."""
    given = content.get(part) or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{part}: expected an object, got {given!r:.80}")
    try:
        return answer(dict(given))
    except KeyError as error:
        if type(error) is not KeyError:
            raise
        raise ValueError(f"the {part} {dict(given)!r:.120} needs {error}") from error
    except (TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"the {part} {dict(given)!r:.120} has a field that is not what it needs: {error}") from error
