"""A kernel that is interrupted, as by the stop button, while a cell runs the model: the next cell has the same bits."""

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.manager import KernelManager, start_new_kernel

START = """
import hashlib, threading, warnings
import workbench as wb
from workbench import experiments
model = wb.load("nano")
tokens = model.to_tokens("Mia lives in the park.")
edits = [wb.AblateHead(1, 3), wb.AblateExpert(2, 5, "zero")]
def look():
    free = []
    def take():
        free.append(model._lock.acquire(blocking=False))
        model._lock.release()
    thread = threading.Thread(target=take)
    thread.start(); thread.join()
    logits = wb.run(model, tokens).logits
    return hashlib.sha256(logits.numpy().tobytes()).hexdigest()[:12], len(model.list_hooks()), free, model.positions
"""
CELLS = (
    "while True: wb.run(model, tokens, edits)",
    "while True:\n    with model.edited(edits): model.generate(tokens, 5).finish()",
    "while True: experiments.ablation_sweep(model, [tokens], lambda logits: logits[:, 5], 'heads', progress=False)",
    "while True: experiments.attribution_patching(model, tokens, tokens.flip(1), (5, 6))",
)


class Cells:
    """A kernel and its cells."""

    def __init__(self, manager: KernelManager, client: Any) -> None:
        self.manager, self.client = manager, client

    def run(self, code: str, interrupt_after: float | None = None) -> tuple[str, str | None]:
        """What a cell's last expression gave, and the name of the error that ended it."""
        number = self.client.execute(code)
        if interrupt_after is not None:
            while self._message(number)["content"].get("execution_state") != "busy":
                pass
            time.sleep(interrupt_after)
            self.manager.interrupt_kernel()
        shown, error = "", None
        while True:
            message = self._message(number)
            content = message["content"]
            if message["msg_type"] == "execute_result":
                shown = content["data"]["text/plain"]
            elif message["msg_type"] == "error":
                error = content["ename"]
            elif content.get("execution_state") == "idle":
                return shown, error

    def _message(self, number: str) -> dict[str, Any]:
        while True:
            message = self.client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") == number:
                return message


@pytest.fixture(scope="module")
def kernel() -> Iterator[Cells]:
    manager, client = start_new_kernel(kernel_name="python3")
    yield Cells(manager, client)
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_after_an_interrupted_cell_the_next_one_has_the_same_bits(kernel: Cells, draw: random.Random, full: bool):
    assert kernel.run(START)[1] is None
    expected, error = kernel.run("look()")
    assert error is None and "0, [True], None" in expected
    for _ in range(20 if full else 1):
        for cell in CELLS:
            seconds = 0.05 + 0.3 * draw.random()
            error = kernel.run(cell, interrupt_after=seconds)[1]
            assert error in ("KeyboardInterrupt", "Interrupted"), (cell, error)
            assert kernel.run("look()") == (expected, None), f"{cell}, interrupted after {seconds} s"
