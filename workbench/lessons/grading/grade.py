"""Grading a folder of handed-in notebooks, each in a process of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from workbench.lessons.grading.handed_in import HandedIn, collect
from workbench.lessons.grading.report import Grade, Report, Score
from workbench.lessons.names import LESSONS
from workbench.lessons.progress import PLACE
from workbench.provenance.place import PLACE as RECORDS

TIMEOUT = 30.0  # seconds for one exercise: its check takes at most 2 on a laptop
STARTING = 180.0  # seconds until a process has imported what it needs
MEMORY = 6_000_000_000  # bytes that one notebook may take, beyond what the imports take


@dataclass(frozen=True)
class Limits:
    """What one notebook may use.

    Attributes:
        seconds: for one exercise.
        memory: bytes; held to where the system can (Linux).
    """

    seconds: float = TIMEOUT
    memory: int = MEMORY
    starting: float = STARTING


def grade(
    folder: Path,
    course: Path,
    *,
    lessons: Sequence[str] = LESSONS,
    limits: Limits | None = None,
    seed: int | None = None,
    jobs: int = 1,
    step: Callable[[int, int], None] | None = None,
) -> Report:
    """Grade every notebook under a folder.

    Args:
        course: the folder of the course's own notebooks.
        lessons: only these.
        seed: of the class, where it is not to be read from the notebooks.
        jobs: how many at a time.
        step: called with (done, all) after each notebook.

    Raises:
        FileNotFoundError, ValueError: there is no such folder, or no notebook in it.
    """
    found, problems = collect(folder, lessons)
    grades: list[Grade] = []
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        work = {pool.submit(grade_one, each, course, limits or Limits(), seed, stop): each for each in found}
        try:
            for n, future in enumerate(as_completed(work), 1):
                try:
                    grades.append(future.result())
                except (OSError, ValueError) as error:
                    problems.append(f"{work[future].path.relative_to(folder)}: {error}")
                if step is not None:
                    step(n, len(work))
        except BaseException:  # Ctrl-C: the processes that run now are ended, no other is started
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    grades.sort(key=lambda each: (each.handed_in.lesson, each.handed_in.student, str(each.handed_in.path)))
    problems += [f"{each.handed_in.path.relative_to(folder)}: {line}" for each in grades for line in each.problems]
    return Report(folder, tuple(grades), tuple(problems))


def grade_one(
    handed_in: HandedIn, course: Path, limits: Limits, seed: int | None = None, stop: threading.Event | None = None
) -> Grade:
    """The grade of one notebook. An exercise that takes too long, or ends Python, is left, and the next one tried.

    Args:
        stop: set by whoever wants no more of it.

    Raises:
        ValueError: the grader itself could not start; says what it wrote.
    """
    seed = handed_in.seed if seed is None else seed
    state = _State()
    tried = -1
    while not state.finished:
        if len(state.found) == tried:
            raise ValueError(
                f"the grader ended between two exercises, after {tried}; {' '.join(state.problems)}".strip()
            )
        tried = len(state.found)
        job = {
            "notebook": str(handed_in.path.resolve()),
            "ours": str((course / f"{handed_in.lesson}.ipynb").resolve()),
            "lesson": handed_in.lesson,
            "seed": seed,
            "memory": limits.memory,
            "done": {name: score["kind"] == "passed" for name, score in state.found.items()},
        }
        with tempfile.TemporaryDirectory(prefix="workbench-grade-", ignore_cleanup_errors=True) as folder:
            _follow(job, Path(folder), state, limits, stop or threading.Event())
    scores = tuple(
        Score(name, points, **state.found[name]) if name in state.found else Score(name, points, "missing", "")
        for name, points in state.exercises
    )
    return Grade(handed_in, seed, scores, handed_in.predictions(), tuple(dict.fromkeys(state.problems)))


@dataclass
class _State:
    """What is known of a notebook so far."""

    exercises: list[tuple[str, int]] = field(default_factory=list)
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    current: str | None = None
    ready: bool = False
    finished: bool = False

    def hear(self, message: dict[str, Any]) -> None:
        """Take up one line of the child."""
        if "ready" in message:
            self.exercises, self.ready = [(str(name), int(points)) for name, points in message["ready"]], True
        elif "begin" in message:
            self.current = message["begin"]
        elif "end" in message:
            self.found[message.pop("end")], self.current = message, None
        elif "problem" in message:
            self.problems.append(message["problem"])
        self.finished = self.finished or "finished" in message

    def give_up(self, kind: str, hint: str, seconds: float | None) -> None:
        """The exercise that was tried has no verdict of its own."""
        assert self.current is not None
        self.found[self.current] = {"kind": kind, "hint": hint, "seconds": seconds}
        self.current = None


def _follow(job: dict[str, Any], folder: Path, state: _State, limits: Limits, stop: threading.Event) -> None:
    """Run one child until it has finished, or has to be ended."""
    state.ready, state.current = False, None
    said = (folder / "stderr").open("w+b")
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench.lessons.grading.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        cwd=folder,
        env=_environment(),
        start_new_session=True,
    )
    try:
        assert process.stdin is not None
        process.stdin.write((json.dumps(job) + "\n").encode())
        process.stdin.close()
        for message in _messages(process, state, limits, stop):
            state.hear(message)
    except BrokenPipeError:
        process.wait()
    except TimeoutError as late:
        if state.current is None:
            raise ValueError(f"the grader gave no answer for {late} s; is the machine very busy?") from None
        hint = f"It took longer than {limits.seconds:g} s: does a loop never end? It was stopped, and the rest graded."
        state.give_up("too slow", hint, limits.seconds)
    finally:
        _end(process)
        said.seek(0)
        words = said.read().decode(errors="replace").strip()
        said.close()
    if not state.finished and state.current is not None:
        state.give_up("crashed", f"It ended Python (exit status {process.returncode}).", None)
    elif not state.ready:
        why = [*words.splitlines(), *state.problems] or ["it said nothing"]
        raise ValueError(f"the grader could not start: {why[-1]}")


def _messages(
    process: subprocess.Popen[bytes], state: _State, limits: Limits, stop: threading.Event
) -> Iterator[dict[str, Any]]:
    """What the child says until it ends.

    Raises:
        TimeoutError: it was silent for too long, or is to stop; its argument is how long.
    """
    lines: queue.Queue[bytes | None] = queue.Queue()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=listen, daemon=True).start()
    heard = time.monotonic()
    while True:
        most = limits.seconds if state.current is not None else limits.starting
        try:
            line = lines.get(timeout=0.2)
        except queue.Empty:
            if time.monotonic() - heard >= most or stop.is_set():
                raise TimeoutError(f"{most:g}") from None
            continue
        heard = time.monotonic()
        if line is None:
            return
        yield json.loads(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it has started."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.Error:
        family = []
    if hasattr(os, "killpg"):  # those too whose parent has ended already
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    for each in family:
        with suppress(psutil.Error):
            each.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _environment() -> dict[str, str]:
    """Nothing is downloaded, nobody's progress and no records are written, and the workbench is this one."""
    package = str(Path(__file__).resolve().parents[3])
    paths = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    given = {
        "PYTHONPATH": paths,
        PLACE: "off",
        RECORDS: "off",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
    }
    environment = {**os.environ, **given}
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment.pop("WORKBENCH_VERDICTS", None)
    return environment
