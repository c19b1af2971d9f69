"""What a corpus is made of, whatever it came as: documents, each with its name and what was said of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.text import Chat
from workbench.text.harmony import HarmonyError

Content = str | Chat | tuple[int, ...]

FIELDS = ("text", "messages", "tokens", "id", "domain", "language")
THINKING = (
    "reasoning_content",
    "thinking",
    "reasoning",
)  # the names under which chat logs keep an assistant's thinking


class NotADocument(ValueError):
    """What is wrong with an entry; whoever knows its file and line says so too."""


@dataclass(frozen=True)
class Document:
    """One text of a corpus.

    Attributes:
        content: text, a Chat, or token ids.
        id: its name; where the corpus gives none, the place that it was read from.
        domain, language: as the corpus or the caller gave them; None where nobody did. They are never guessed.

    Raises:
        NotADocument: for a name with half a character in it.
    """

    content: Content
    id: str
    domain: str | None = None
    language: str | None = None

    def __post_init__(self) -> None:
        for name in ("id", "domain", "language"):
            _check_word(name, getattr(self, name))

    @property
    def size(self) -> int:
        """About how many tokens: the ids, or a quarter of the characters; the same on every machine."""
        if isinstance(self.content, tuple):
            return len(self.content) + 1
        if isinstance(self.content, str):
            return len(self.content) // 4 + 1
        return sum(len(getattr(message, "text", "") or "") for message in self.content.messages) // 4 + 1

    @property
    def identity(self) -> bytes:
        """Bytes that another document does not have."""
        kind, said = _said(self.content)
        return json.dumps([self.id, self.domain, self.language, kind, said], ensure_ascii=True).encode()


def _said(content: Content) -> tuple[str, Any]:
    if isinstance(content, str):
        return "text", content
    return ("tokens", list(content)) if isinstance(content, tuple) else ("chat", repr(content))


def document(entry: Any, place: str) -> Document:
    """An entry of a corpus as a Document.

    Args:
        entry: text, a Chat, a Document, token ids (a list, an array, a tensor), or a mapping with one of the fields
            text, messages and tokens, and id, domain and language where they are known.
        place: its id where it names none.

    Raises:
        NotADocument: for anything else, saying what was expected.
    """
    if isinstance(entry, Document):
        return entry
    if isinstance(entry, str | Chat):
        return Document(entry, place)
    if isinstance(entry, Mapping):
        return _of_fields(entry, place)
    if isinstance(getattr(entry, "text", None), str):  # such as a document of the microworld
        return Document(entry.text, place, _word(entry, "domain"), _word(entry, "language"))
    return Document(_ids(entry), place)


def _word(entry: Any, name: str) -> str | None:
    found = entry.get(name) if isinstance(entry, Mapping) else getattr(entry, name, None)
    if found is None or (isinstance(found, str | int) and not isinstance(found, bool)):
        return None if found is None else str(found)
    raise NotADocument(f"{name} is {found!r:.60}, expected a word")


def _check_word(name: str, word: str | None) -> None:
    """JSON can hold half a character, which is no text and cannot be written to Parquet."""
    try:
        (word or "").encode()
    except UnicodeEncodeError:
        raise NotADocument(f"{name} is {word!a:.60}: a part of it is no character") from None


def _of_fields(entry: Mapping[str, Any], place: str) -> Document:
    given = [name for name in ("text", "messages", "tokens") if entry.get(name) is not None]
    if not given:
        known = ", ".join(map(repr, list(entry)[:8])) or "nothing"
        raise NotADocument(f"it has the fields {known}: expected 'text', 'messages' or 'tokens'")
    name, found = given[0], entry[given[0]]
    if name == "text":
        if not isinstance(found, str):
            raise NotADocument(f"text is {found!r:.60}, expected a string")
        content: Content = found
    else:
        content = chat_of(found) if name == "messages" else _ids(found)
    return Document(content, _word(entry, "id") or place, _word(entry, "domain"), _word(entry, "language"))


def _ids(entry: Any) -> tuple[int, ...]:
    found = entry.tolist() if hasattr(entry, "tolist") else entry
    listed = isinstance(found, Sequence) and not isinstance(found, str | bytes)
    if listed and all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in found):
        return tuple(found)
    raise NotADocument(f"{entry!r:.60} is no document: expected text, a Chat, a row of token ids, or a mapping")


# ---------------------------------------------------------------- chat logs
def chat_of(messages: Any) -> Chat:
    """A chat log in transformers' form as a Chat.

    A system or developer entry becomes harmony's developer message, as gpt-oss' own template has it; an assistant's
    thinking becomes a message on the channel analysis before its answer; tool calls and results keep their names.

    Args:
        messages: a list of {"role", "content"}, and where they are known "channel", "name", "tool_calls" and thinking.

    Raises:
        NotADocument: for a message without a role that harmony has, or of another form, naming it.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes) or not messages:
        raise NotADocument(f"messages is {messages!r:.60}, expected a list of at least one message")
    chat = Chat()
    called: dict[Any, str] = {}
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise NotADocument(f"messages[{i}] is {message!r:.60}, expected a mapping with role and content")
        try:
            chat = _with(chat, {key: value for key, value in message.items() if value is not None}, called)
        except (HarmonyError, NotADocument, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise NotADocument(f"messages[{i}]: {str(error)[:1000]}") from None
    return chat


def _with(chat: Chat, message: Mapping[str, Any], called: dict[Any, str]) -> Chat:
    role, text = message.get("role"), _text(message.get("content", ""))
    if role in ("system", "developer"):
        return chat.developer(text)
    if role == "user":
        return chat.user(text)
    if role == "tool":
        name = message.get("name") or called.get(message.get("tool_call_id"))
        if not name:
            raise NotADocument("a tool's result that names no tool: expected a name")
        return chat.tool(name, text)
    if role == "assistant":
        return _assistant(chat, message, text, called)
    raise NotADocument(f"role is {role!r}, expected system, developer, user, assistant or tool")


def _assistant(chat: Chat, message: Mapping[str, Any], text: str, called: dict[Any, str]) -> Chat:
    thought = next((message[name] for name in THINKING if message.get(name)), None)
    if thought:
        chat = chat.assistant(_text(thought), "analysis")
    for call in message.get("tool_calls") or ():
        function = call.get("function") or call
        called[call.get("id")] = function["name"]
        chat = chat.call(function["name"], function.get("arguments") or {})
    if text or not (thought or message.get("tool_calls")):
        chat = chat.assistant(text, message.get("channel") or "final")
    return chat


def _text(content: Any) -> str:
    """The content of a message: text, or a list of parts of which each is text."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(isinstance(part, Mapping) for part in content):
        parts = [part.get("text") for part in content]
        if all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))
    raise NotADocument(f"content is {content!r:.60}, expected text")
