"""A small widget for the harness's and the driver's own tests: a counter, an echo, a stream of pictures, a theme."""

from __future__ import annotations

import threading
import time
from typing import Any

import anywidget
import numpy as np
import traitlets

SCRIPT = """
function render({ model, el, signal }) {
  el.innerHTML = `<div class="toy">
    <button class="toy-count" data-lm-suppress-shortcuts="true">Count</button>
    <output class="toy-shown" aria-label="counted"></output>
    <input class="toy-name" aria-label="Name" data-lm-suppress-shortcuts="true">
    <canvas width="100" height="24" role="img" aria-label="stream"></canvas>
    <span class="toy-echo"></span> <span class="toy-rows"></span></div>`;
  const $ = (name) => el.querySelector(name);
  const show = () => { $(".toy-shown").value = model.get("count"); };
  const onMessage = (message, buffers) => {
    if (message.did === "echo") $(".toy-echo").textContent = new Float32Array(buffers[0].buffer.slice(
      buffers[0].byteOffset, buffers[0].byteOffset + buffers[0].byteLength)).join(" ");
    if (message.did === "rows") {
      const context = $("canvas").getContext("2d"), picture = context.createImageData(100, 24);
      for (let i = 0; i < 2400; i++) picture.data.set([buffers[0].getUint8(i), 80, 80, 255], 4 * i);
      context.putImageData(picture, 0, 0);
      $(".toy-rows").textContent = message.at;
    }
  };
  model.on("change:count", show);
  model.on("msg:custom", onMessage);
  $(".toy-count").onclick = () => model.send({ do: "count" });
  $(".toy-name").oninput = (event) => { model.set("name", event.target.value); model.save_changes(); };
  show();
  return () => {
    model.off("change:count", show);
    model.off("msg:custom", onMessage);
    window.toysGone = (window.toysGone ?? 0) + 1;
  };
}
export default { initialize({ model }) { window.toyHello = model.get("count"); }, render };
"""


class Toy(anywidget.AnyWidget):
    """Counts clicks in Python, sends back what it is sent, streams pictures from a thread of its own."""

    _esm = SCRIPT
    _css = ".toy { font: 13px var(--jp-ui-font-family); color: var(--jp-ui-font-color1) }"
    count = traitlets.Int(0).tag(sync=True)
    name = traitlets.Unicode("").tag(sync=True)

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.threads: list[str] = []
        self.received: list[bytes] = []
        self.on_msg(self._received)

    def _received(self, widget: Any, content: dict[str, Any], buffers: list[memoryview]) -> None:
        self.threads.append(threading.current_thread().name)
        self.received += [bytes(buffer) for buffer in buffers]
        if content["do"] == "count":
            self.count += 1
        elif content["do"] == "echo":
            self.send({"did": "echo"}, buffers)
        elif content["do"] == "fail":
            raise ValueError("the toy was told to fail")

    def stream(self, n: int, rate: float) -> threading.Thread:
        """Send n pictures of 24 × 100 at `rate` a second, from another thread."""

        def work() -> None:
            for i in range(n):
                self.send({"did": "rows", "at": i + 1}, [np.full((24, 100), i % 256, np.uint8).tobytes()])
                time.sleep(1 / rate)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread
