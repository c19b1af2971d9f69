"""A widget's Python side joined to a page in a browser, without Jupyter.

As in a kernel there are two threads beside the test's own: one speaks to the page (a kernel's IOPub thread), one runs
the widget's callbacks one after the other (a kernel's main thread, with a running asyncio loop). Sends may come from
any thread, also while a callback blocks. What crosses is one binary frame a message, over a WebSocket on 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket
from ipywidgets.widgets.widget import _remove_buffers

from tests.browser.wire import Message, pack, unpack

HERE = Path(__file__).parent
# No eval, nothing from elsewhere: what breaks this is an error on the console, which fails the test.
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' blob:; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; connect-src 'self' {socket}"
)


class Comm:
    """What ipywidgets asks of a comm, ending at the bridge."""

    def __init__(self, bridge: Bridge, comm_id: str) -> None:
        self.comm_id = comm_id
        self.callback: Callable[[dict[str, Any]], None] | None = None
        self._bridge = bridge

    def on_msg(self, callback: Callable[[dict[str, Any]], None] | None) -> None:
        self.callback = callback

    def on_close(self, callback: Callable[[dict[str, Any]], None] | None) -> None:
        """The page never closes a comm."""

    def send(self, data: Any = None, metadata: Any = None, buffers: Sequence[Any] | None = None) -> None:
        self._bridge.send(self.comm_id, data, buffers or ())

    def close(self, *arguments: object, **named: object) -> None:
        self._bridge.send(self.comm_id, {"method": "close"})


class Bridge:
    """Serves the page and carries messages both ways.

    Attributes:
        messages: every Message, oldest first.
        errors: the tracebacks of callbacks that raised.
    """

    def __init__(self, widgets: Sequence[anywidget.AnyWidget], html: str) -> None:
        self.messages: list[Message] = []
        self.errors: list[str] = []
        self._widgets = list(widgets)
        self._waiting: list[bytes] | None = []
        self._socket: _Socket | None = None
        self._io, self._kernel = _Loop("bench-io"), _Loop("bench-kernel")
        self.port = self._io.run(self._serve(html))
        self.url = f"http://127.0.0.1:{self.port}/"
        self.comms = {widget.model_id: Comm(self, widget.model_id) for widget in self._widgets}
        # ipywidgets logs what a callback of `on_msg` raises, and goes on.
        self._log = _Log(self.errors)
        logging.getLogger("traitlets").addHandler(self._log)
        for widget in self._widgets:
            self._open(widget)

    def run(self, function: Callable[[], Any], timeout: float = 60) -> Any:
        """Call a function on the thread that runs the widgets' callbacks, as a cell would, and give its result."""

        async def call() -> Any:
            return function()

        return self._kernel.run(call(), timeout)

    def send(self, comm: str, data: dict[str, Any], buffers: Sequence[Any] = ()) -> None:
        """Python → page, from any thread."""
        try:
            frame = pack({"comm": comm, "data": data}, buffers)
        except (TypeError, ValueError) as problem:
            self.errors.append(f"this cannot be sent: {problem}\n{''.join(traceback.format_stack(limit=12))}")
            raise
        self._note("out", comm, data, len(frame))
        self._io.soon(self._deliver, frame)

    def close(self) -> None:
        """Close the page's end and stop both threads. The widgets stay, joined to nothing."""
        for comm in self.comms.values():
            comm.callback = None
        logging.getLogger("traitlets").removeHandler(self._log)
        self._io.run(self._stop())
        self._kernel.stop()
        self._io.stop()

    # ------------------------------------------------------------ the I/O thread

    async def _serve(self, html: str) -> int:
        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        port = sockets[0].getsockname()[1]
        policy = POLICY.format(socket=f"ws://127.0.0.1:{port}")
        script = Path(anywidget.__file__).parent / "nbextension" / "index.js"
        files = {
            "/": ("text/html", html.encode()),
            "/bridge.js": ("text/javascript", (HERE / "bridge.js").read_bytes()),
            "/probes.js": ("text/javascript", (HERE / "probes.js").read_bytes()),
            "/anywidget.js": ("text/javascript", script.read_bytes()),
            "/favicon.ico": ("image/x-icon", b""),
        }
        routes: list[Any] = [(r"/wire", _Socket, {"bridge": self})]
        routes += [
            (path, _File, {"kind": kind, "body": body, "policy": policy}) for path, (kind, body) in files.items()
        ]
        application = tornado.web.Application(
            routes, websocket_max_message_size=2**30, log_function=lambda handler: None
        )
        self._server = tornado.httpserver.HTTPServer(application)
        self._server.add_sockets(sockets)
        return port

    async def _stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._server.stop()
        await self._server.close_all_connections()

    def _deliver(self, frame: bytes) -> None:
        if self._waiting is not None:
            self._waiting.append(frame)
        elif self._socket is not None and self._socket.ws_connection is not None:
            self._socket.write_message(frame, binary=True)

    def connected(self, socket: _Socket) -> None:
        """The page is there: what was said before goes out first."""
        self._socket, waiting, self._waiting = socket, self._waiting or [], None
        for frame in waiting:
            self._deliver(frame)

    def received(self, frame: bytes) -> None:
        """Page → Python: the kernel's thread handles it when it is free."""
        header, buffers = unpack(frame)
        self._note("in", header["comm"], header["data"], len(frame))
        self._kernel.soon(self._handle, header["comm"], header["data"], buffers)

    # ------------------------------------------------------------ the kernel's thread

    def _handle(self, comm: str, data: dict[str, Any], buffers: list[memoryview]) -> None:
        callback = self.comms[comm].callback
        if callback is None:
            return
        try:
            callback({"content": {"data": data}, "buffers": buffers})
        except Exception:
            self.errors.append(traceback.format_exc())

    def _open(self, widget: anywidget.AnyWidget) -> None:
        state: dict[str, Any]
        state, paths, buffers = _remove_buffers(widget.get_state())  # pyright: ignore[reportAssignmentType]
        widget.comm = self.comms[widget.model_id]
        state = {name: value for name, value in state.items() if not str(value).startswith("IPY_MODEL_")}
        self.send(widget.model_id, {"method": "open", "state": state, "buffer_paths": paths}, buffers)

    def _note(self, way: str, comm: str, data: dict[str, Any], size: int) -> None:
        self.messages.append(Message(way, comm, data["method"], data.get("content"), size, time.perf_counter()))


class _Log(logging.Handler):
    """Keeps the tracebacks that are logged."""

    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.kept.append(f"{record.getMessage()}\n{''.join(traceback.format_exception(*record.exc_info))}")


class _Loop:
    """A thread with a running asyncio loop."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Any, timeout: float = 60) -> Any:
        future: concurrent.futures.Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(timeout)

    def soon(self, function: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        if not self._thread.is_alive():  # a callback that still blocks keeps its daemon thread
            self._loop.close()


class _File(tornado.web.RequestHandler):
    def initialize(self, kind: str, body: bytes, policy: str) -> None:
        self.kind, self.body, self.policy = kind, body, policy

    def get(self) -> None:
        self.set_header("Content-Type", f"{self.kind}; charset=utf-8")
        self.set_header("Content-Security-Policy", self.policy)
        self.write(self.body)


class _Socket(tornado.websocket.WebSocketHandler):
    def initialize(self, bridge: Bridge) -> None:
        self.bridge = bridge

    def open(self, *arguments: str, **named: str) -> None:
        self.set_nodelay(True)
        self.bridge.connected(self)

    def on_message(self, message: str | bytes) -> None:
        assert isinstance(message, bytes)
        self.bridge.received(message)
