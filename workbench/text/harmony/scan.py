"""Cutting a row of token ids into messages: one pass, total, and shared by `label` and `parse`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from workbench.text.harmony.header import Header, read_header
from workbench.text.tokenizer import Tokenizer

START, CHANNEL, CONSTRAIN, MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
END, RETURN, CALL = "<|end|>", "<|return|>", "<|call|>"

_CLOSING = (END, RETURN, CALL)
_DOCUMENT = ("<|startoftext|>", "<|endoftext|>", "<|pad|>")  # end a message without being harmony's
_LONGEST_AUTHOR = 64  # tokens; more words than that before a `<|channel|>` are text, not a header without its start


@dataclass
class Draft:
    """A message as it is found: the ids of each piece, and None for a piece that has not begun."""

    first: int
    started: bool = True
    author: list[int] = field(default_factory=list)
    channel: list[int] | None = None
    content_type: list[int] | None = None
    body: list[int] | None = None
    closing: str | None = None
    stray: str | None = None  # the first special token that does not belong where it stands
    header: Header = field(default_factory=Header)

    def __post_init__(self) -> None:
        self.current: list[int] = self.author

    def piece(self, special: str) -> None:
        """Begin the piece that a marker announces. One that already began makes the marker a stray."""
        name = {CHANNEL: "channel", CONSTRAIN: "content_type", MESSAGE: "body"}[special]
        self.current = list[int]()
        if getattr(self, name) is not None:
            self.stray = self.stray or special  # the first one counts; the words after this one are nobody's
            return
        setattr(self, name, self.current)

    def read(self, tokenizer: Tokenizer) -> Header:
        """The header, from the ids so far."""
        author, channel, form = (_words(ids, tokenizer) for ids in (self.author, self.channel, self.content_type))
        # A message without its beginning is the assistant's if it begins with <|channel|>, or ends as only its own do.
        generated = not self.started and (self.channel is not None or self.closing in (RETURN, CALL))
        return read_header(author, channel, form, "assistant" if generated else None)


def _words(ids: Sequence[int] | None, tokenizer: Tokenizer) -> list[str]:
    return tokenizer.decode(i for i in ids or () if 0 <= i < tokenizer.n_ids).split()


@dataclass
class Scan:
    """The messages found, and for each token the number of its message (−1: none) and its part."""

    tokenizer: Tokenizer
    drafts: list[Draft] = field(default_factory=list)
    message: list[int] = field(default_factory=list)
    part: list[str] = field(default_factory=list)
    loose: list[int] = field(default_factory=list)  # positions of ordinary tokens since the last message ended
    open: Draft | None = None

    def take(self, ids: Sequence[int], here: int, special: str | None) -> None:
        """Read the token at position `here`; `special` is its spelling if it is a special one."""
        self.message.append(-1 if self.open is None else len(self.drafts) - 1)
        self.part.append("body" if special is None else "marker")
        if special == START:
            self._begin(Draft(here), [here], "marker")
        elif special in (CHANNEL, CONSTRAIN, MESSAGE):
            self._piece(ids, here, special)
        elif special in _CLOSING:
            self._close(ids, here, special)
        elif special in _DOCUMENT:
            self.open, self.loose = None, []
        else:
            self._text(ids, here, special)

    def _begin(self, draft: Draft, positions: Sequence[int], part: str) -> Draft:
        """Open a message that holds these positions, as this part of it."""
        self.drafts.append(draft)
        self.open, self.loose = draft, []
        for i in positions:
            self.message[i] = len(self.drafts) - 1
            self.part[i] = part if self.part[i] == "body" else "marker"
        return draft

    def _piece(self, ids: Sequence[int], here: int, special: str) -> None:
        draft = self.open
        if draft is None:
            author = self._loose_author(ids)
            draft = self._begin(Draft(here, started=False, author=[ids[i] for i in author]), author, "header")
            self.message[here] = len(self.drafts) - 1
        if draft.body is None:
            draft.piece(special)
        else:
            draft.body.append(ids[here])
            draft.stray = draft.stray or special

    def _loose_author(self, ids: Sequence[int]) -> list[int]:
        """Positions of the words before a header without start, if they are the author of one."""
        if not 0 < len(self.loose) <= _LONGEST_AUTHOR:
            return []
        words = _words([ids[i] for i in self.loose], self.tokenizer)
        return self.loose if words and read_header(words, (), (), None).role else []

    def _close(self, ids: Sequence[int], here: int, special: str) -> None:
        if self.open is None and self.loose:
            loose = self.loose
            self._begin(Draft(loose[0], started=False, body=[ids[i] for i in loose]), [*loose, here], "body")
        if self.open is not None:
            self.open.closing = special
        self.open, self.loose = None, []

    def _text(self, ids: Sequence[int], here: int, special: str | None) -> None:
        draft = self.open
        if draft is None:
            self.loose.append(here)
            return
        draft.current.append(ids[here])
        draft.stray = draft.stray or special
        if draft.body is None and special is None:
            self.part[here] = "header"


def scan(ids: Sequence[int], tokenizer: Tokenizer) -> Scan:
    """Cut ids into messages. Total: any integers, in any order."""
    spelling = {i: name for name, i in tokenizer.special.items()}
    found = Scan(tokenizer)
    for here, token in enumerate(ids):
        found.take(ids, here, spelling.get(token))
    for draft in found.drafts:
        draft.header = draft.read(tokenizer)
    return found
