"""What a microworld generator yields: documents to train on and questions to score."""

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Kind = Literal["context", "answer", "silent"]
T = TypeVar("T")


@dataclass(frozen=True)
class Segment:
    """A piece of text. ``answer`` is what a reader could work out; ``silent`` is read but never learned."""

    text: str
    kind: Kind = "context"


@dataclass(frozen=True)
class Document:
    """One readable text of one domain; ``segments`` joined are its text."""

    domain: str
    task: str
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(segment.text for segment in self.segments)


@dataclass(frozen=True)
class Question:
    """A prompt, the answer that continues it, and a wrong answer of the same form and length."""

    domain: str
    task: str
    prompt: str
    answer: str
    wrong: str


def context(text: str) -> Segment:
    """Ordinary text."""
    return Segment(text)


def answer(text: str) -> Segment:
    """Text that follows from what stands before it."""
    return Segment(text, "answer")


def silent(text: str) -> Segment:
    """Text that the model reads and is never trained to write."""
    return Segment(text, "silent")


def held_out(*parts: object) -> bool:
    """Whether this combination is kept for evaluation: one in eight, by a hash that never changes."""
    return zlib.crc32("|".join(map(str, parts)).encode()) % 8 == 0


def draw(make: Callable[[], T], key: Callable[[T], tuple[object, ...]], held: bool) -> T:
    """Draw until the combination ``key(value)`` is on the wanted side of the split."""
    while True:
        value = make()
        if held_out(*key(value)) == held:
            return value


def other(rng: random.Random, values: Sequence[T], *not_these: T) -> T:
    """A random value that is none of ``not_these``."""
    return rng.choice([value for value in values if value not in not_these])
