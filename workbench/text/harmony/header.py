"""The words between `<|start|>` and `<|message|>`: who writes, on which channel, to whom, in what form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.text.harmony.chat import BUILTINS, CHANNELS, ROLES

Words = Sequence[str]


@dataclass(frozen=True)
class Header:
    """A header, understood as far as it goes. `unread` is the first word that nothing could be made of."""

    role: str | None = None
    channel: str | None = None
    recipient: str | None = None
    name: str | None = None
    content_type: str | None = None
    unread: str | None = None


def read_header(author: Words, channel: Words, content_type: Words, default_role: str | None) -> Header:
    """Understand a header. A recipient may stand before the channel (as gpt-oss is shown it) or after (as it writes).

    Args:
        author: the words after `<|start|>`.
        channel: the words after `<|channel|>`.
        content_type: the words after `<|constrain|>`.
        default_role: the role where `author` is empty.
    """
    recipients = [word[3:] for word in (*author, *channel) if word.startswith("to=")]
    recipient = (recipients[-1] or None) if recipients else None
    author = [word for word in author if not word.startswith("to=")]
    channel = [word for word in channel if not word.startswith("to=")]
    role, name = _role(author[0], recipient) if author else (default_role, None)
    known = channel[0] if channel and channel[0] in CHANNELS else None
    unread = [*author[:1]] if author and role is None else [*channel[:1]] if channel and known is None else []
    form = " ".join([*author[1:], *channel[1:], *content_type])
    return Header(role, known, recipient, name, form or None, unread[0] if unread else None)


def _role(author: str, recipient: str | None) -> tuple[str | None, str | None]:
    if author in ROLES:
        return author, None
    is_tool = author.split(".")[0] in ("functions", *BUILTINS) or recipient == "assistant"
    return ("tool", author) if is_tool else (None, None)
