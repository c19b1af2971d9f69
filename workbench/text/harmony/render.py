"""A conversation to tokens: through the checkpoint's own chat template where that can say it, else by ourselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.text.harmony.chat import Chat, Developer, HarmonyError, Message, System
from workbench.text.harmony.scan import CALL, CHANNEL, END, MESSAGE, RETURN, START
from workbench.text.harmony.through_template import is_thinking, through_template
from workbench.text.harmony.write import message_writer
from workbench.text.template import TemplateError
from workbench.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Rendering:
    """The tokens of a conversation, and how they came about.

    Attributes:
        ids: token ids [pos].
        by: for each message, in `label`'s order: "template", or "workbench" where the template could not say it.
        reason: why the template could say none of it; None where it said at least a part.
    """

    ids: list[int]
    by: tuple[str, ...]
    reason: str | None = None


def render(
    chat: Chat, tokenizer: Tokenizer, add_generation_prompt: bool = True, drop_analysis: bool = True
) -> list[int]:
    """Token ids [pos] of a conversation; `rendering` also says how they were made.

    Each message is the checkpoint's chat template's wherever its text, parsed, says what `chat` says. A message of
    which that is not so (a system message without a date, a tool's result that is not JSON, …) is written here, in the
    form of OpenAI's harmony library; so are all when the template refuses the chat (a second developer message,
    commentary for the user, text that quotes special tokens, an open message, …).
    The text of a message is always text: a quoted `<|end|>` does not end it.

    Args:
        chat: the conversation.
        tokenizer: the model's.
        add_generation_prompt: end with `<|start|>assistant`. Without it, a last final answer ends with `<|return|>`, as
            in training. An open last message (complete=False) is itself what the model goes on with.
        drop_analysis: leave out earlier thinking once a final answer was given, as gpt-oss expects; see `visible`.

    Raises:
        HarmonyError: the tokenizer has no harmony tokens, or the checkpoint has no such built-in tool.
    """
    return rendering(chat, tokenizer, add_generation_prompt, drop_analysis).ids


def rendering(
    chat: Chat, tokenizer: Tokenizer, add_generation_prompt: bool = True, drop_analysis: bool = True
) -> Rendering:
    """As `render`, with the way it was made."""
    missing = [marker for marker in (START, CHANNEL, MESSAGE, END, RETURN, CALL) if marker not in tokenizer.special]
    if missing:
        raise HarmonyError(f"a Chat needs harmony's special tokens, and this tokenizer lacks {', '.join(missing)}")
    shown = visible(chat, add_generation_prompt) if drop_analysis else chat
    messages, reason = shown.all_messages, None
    try:
        written = through_template(shown, tokenizer, add_generation_prompt)
    except TemplateError as error:
        written, reason = [None] * len(messages), str(error)
    own = message_writer(shown, tokenizer, add_generation_prompt)
    ids = [own(i) if given is None else given for i, given in enumerate(written)]
    if add_generation_prompt and not _is_open(messages):
        ids.append([tokenizer.special[START], *tokenizer.encode("assistant")])
    by = tuple("workbench" if given is None else "template" for given in written)
    return Rendering([token for part in ids for token in part], by, reason)


def _is_open(messages: Sequence[System | Developer | Message]) -> bool:
    return bool(messages) and isinstance(messages[-1], Message) and not messages[-1].complete


def visible(chat: Chat, add_generation_prompt: bool = True) -> Chat:
    """The conversation as the model sees it again: without the thinking that led to an earlier final answer.

    Everything on the analysis channel before the last complete final answer is dropped. Without a generation prompt,
    when that answer is the last message, the thinking directly before it stays: that is a whole turn, as in training.
    """
    messages = chat.messages
    finals = [i for i, message in enumerate(messages) if _is_final(message)]
    if not finals:
        return chat
    keep_from = last = finals[-1]
    if last == len(messages) - 1 and not add_generation_prompt:
        while keep_from > 0 and is_thinking(messages[keep_from - 1]):
            keep_from -= 1
    kept = [m for i, m in enumerate(messages) if i >= keep_from or not _is_on_analysis(m)]
    return replace(chat, messages=tuple(kept))


def _is_final(message: Developer | Message) -> bool:
    return (
        message.role == "assistant" and isinstance(message, Message) and message.channel == "final" and message.complete
    )


def _is_on_analysis(message: Developer | Message) -> bool:
    return isinstance(message, Message) and message.channel == "analysis"
