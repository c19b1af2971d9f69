"""The one error of everything that reads or writes checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SHOWN = 5
_LONGEST = 1000  # characters of what a file says


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: in which file, about which tensor or config key, what was expected, what was found."""

    file: Path | str
    subject: str
    expected: str
    found: str
    hint: str = ""

    def __str__(self) -> str:
        subject = f" {_short(self.subject)}:" if self.subject else ""
        hint = f". {self.hint}" if self.hint else ""
        return f"{self.file}:{subject} expected {_short(self.expected)}, found {_short(self.found)}{hint}"


def _short(words: str) -> str:
    words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]} …"
    return words.encode("utf-8", "backslashreplace").decode("utf-8")  # JSON can hold half of a surrogate pair


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or cannot be written as asked.

    ``problems`` has every :class:`Problem`; the message shows the first five.
    """

    def __init__(self, problems: str | Problem | Sequence[Problem], headline: str = "") -> None:
        if isinstance(problems, str):
            problems, headline = (), problems
        elif isinstance(problems, Problem):
            problems = (problems,)
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"and {len(self.problems) - _SHOWN} more like these")
        if len(lines) == 1 and not headline:
            super().__init__(lines[0])
        else:
            headline = headline or f"{len(self.problems)} problems"
            super().__init__("\n  - ".join([headline, *lines]))
