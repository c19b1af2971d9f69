"""Which message, role, channel and part each token belongs to, for any sequence of ids whatever."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import SupportsIndex, overload

from workbench.text.harmony.header import Header
from workbench.text.harmony.scan import scan
from workbench.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Label:
    """What one token is.

    Attributes:
        message: number of its message, from 0; −1 outside of any.
        role: system, developer, user, assistant or tool; None where the header does not say.
        channel: analysis, commentary or final; None where the header names none of them.
        part: "marker" for a special token, "header" for words between start and message, "body" for all other text.
        recipient: whom its message is for, such as "functions.get_weather", else None.
    """

    message: int
    role: str | None
    channel: str | None
    part: str
    recipient: str | None

    @property
    def name(self) -> str:
        """Role and channel in one word for colours and legends: "user", "assistant/analysis", or "" when unknown."""
        return "/".join(word for word in (self.role, self.channel) if word)


@dataclass(frozen=True)
class Labels(Sequence[Label]):
    """A `Label` for each token, and each of their fields as a column: `labels.role[3] == labels[3].role`."""

    message: tuple[int, ...]
    role: tuple[str | None, ...]
    channel: tuple[str | None, ...]
    part: tuple[str, ...]
    recipient: tuple[str | None, ...]

    @property
    def name(self) -> tuple[str, ...]:
        """Role and channel of each token in one word; see `Label.name`."""
        return tuple(label.name for label in self)

    def __len__(self) -> int:
        return len(self.message)

    @overload
    def __getitem__(self, index: int) -> Label: ...
    @overload
    def __getitem__(self, index: slice) -> Labels: ...
    def __getitem__(self, index: int | slice) -> Label | Labels:
        columns = (self.message, self.role, self.channel, self.part, self.recipient)
        made = Labels if isinstance(index, slice) else Label
        return made(*(column[index] for column in columns))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Label]:
        return map(Label, self.message, self.role, self.channel, self.part, self.recipient)


def label(tokens: Iterable[SupportsIndex], tokenizer: Tokenizer) -> Labels:
    """The message, role, channel, part and recipient of each token.

    Never fails on what the tokens say: cut off at either end, malformed, just generated, or no harmony at all (then
    every token is "body" outside of any message). A token has the role and channel of its whole message, so the
    `<|start|>` before "assistant" is the assistant's too. A special token inside a body is a marker of that message.
    Words before a `<|channel|>` or `<|message|>` without a `<|start|>` are taken as its header if they name a role;
    words before a closing token without one, as the body of a message whose beginning is missing.

    Args:
        tokens: token ids [pos], any integers.
        tokenizer: the model's; it says which ids are harmony's markers.
    """
    ids = [operator.index(i) for i in tokens]
    found = scan(ids, tokenizer)
    headers = [Header() if message < 0 else found.drafts[message].header for message in found.message]
    return Labels(
        message=tuple(found.message),
        role=tuple(header.role for header in headers),
        channel=tuple(header.channel for header in headers),
        part=tuple(found.part),
        recipient=tuple(header.recipient for header in headers),
    )
