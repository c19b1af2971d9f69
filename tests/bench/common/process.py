"""The parent's side of a measured process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
LIMIT = 900.0  # seconds for one answer; then the process is ended


class Failed(Exception):
    """What a subject said, or how its process ended."""


class Process:
    """A subject in a process of its own, under a given environment."""

    def __init__(self, kind: str, environment: dict[str, str], python: str = sys.executable) -> None:
        self.kind, self._overdue = kind, False
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  until close()
        self._process = subprocess.Popen(
            [python, "-m", "tests.bench.common.worker", kind],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
        )

    def do(self, command: str, **how: Any) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises:
            Failed: if the subject raises, takes longer than LIMIT, or its process is gone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watch = threading.Timer(LIMIT, self._give_up)
        watch.start()
        try:
            self._process.stdin.write(json.dumps({"do": command, **how}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watch.cancel()
        if not line:
            raise Failed(self._ending())
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def close(self) -> None:
        """End it, and wait until its memory is free."""
        with suppress(BrokenPipeError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def _give_up(self) -> None:
        self._overdue = True
        self._process.kill()

    def _ending(self) -> str:
        code = self._process.wait()
        if self._overdue:
            return f"{self.kind}: no answer within {LIMIT:g} seconds, so it was ended"
        if self._errors.closed:
            return "its process has ended"
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        return f"{self.kind}: {how}{f': {lines[-1][:200]}' if lines else ''}"
