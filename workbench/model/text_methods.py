"""Text in and out of a model: the methods that need its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from workbench.text import Chat, Labels, label, pad, render

if TYPE_CHECKING:
    from workbench.model.config import Config
    from workbench.text import Tokenizer


class MissingTokenizer(RuntimeError):
    """A text method was called on a model that came without a tokenizer."""


class TextMethods:
    """to_tokens, to_string, to_str_tokens, to_single_token and label, with TransformerLens' names."""

    config: Config
    tokenizer: Tokenizer | None
    embed: nn.Embedding

    def to_tokens(
        self,
        input: str | Chat | Sequence[str | Chat],
        prepend_bos: bool = False,
        padding_side: Literal["left", "right"] = "right",
        return_mask: bool = False,
        add_generation_prompt: bool = True,
    ) -> Int[Tensor, "batch pos"] | tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """Token ids of text, of a chat (rendered as harmony), or of several of them, padded.

        Args:
            prepend_bos: put the beginning-of-text token first. gpt-oss was not trained to need one.
            padding_side: where shorter rows are padded. Right padding changes no real token; left padding
                needs the mask.
            return_mask: also return [batch pos], true for real tokens: give it to the model as ``attention_mask``.
            add_generation_prompt: end a chat with ``<|start|>assistant``, ready to generate.

        Raises:
            ValueError: if rows were padded on the left and no mask was asked for: without it the logits would be wrong.
        """
        rows = [self._encode(item, prepend_bos, add_generation_prompt) for item in _as_list(input)]
        if padding_side == "left" and not return_mask and len({len(row) for row in rows}) > 1:
            raise ValueError(
                "rows of different lengths were to be padded on the left without a mask, and the padding would "
                "then be read as text; "
                "use tokens, mask = to_tokens(…, padding_side='left', return_mask=True) and model(tokens, "
                "attention_mask=mask)"
            )
        ids, mask = pad(rows, padding_side, self._pad_id)
        tokens = torch.tensor(ids, dtype=torch.long, device=self.embed.weight.device).reshape(len(rows), -1)
        return (
            (tokens, torch.tensor(mask, dtype=torch.bool, device=tokens.device).reshape(tokens.shape))
            if return_mask
            else tokens
        )

    def to_string(self, tokens: Int[Tensor, ...] | Sequence[int]) -> str | list[str]:
        """Text of tokens [pos]; of a batch [batch pos], a list of texts."""
        ids = torch.as_tensor(tokens)
        if ids.ndim > 1:
            return [self.text.decode(row.tolist()) for row in ids]
        return self.text.decode(ids.reshape(-1).tolist())

    def to_str_tokens(
        self, input: str | Chat | Int[Tensor, "*batch pos"] | Sequence[int], prepend_bos: bool = False
    ) -> list[str] | list[list[str]]:
        """Each token as a printable string; a batch of several rows gives a list of lists."""
        if isinstance(input, str | Chat):
            return self.text.str_tokens(self._encode(input, prepend_bos, True))
        ids = torch.as_tensor(input)
        if ids.ndim > 1 and ids.shape[0] > 1:
            return [self.text.str_tokens(row.tolist()) for row in ids]
        return self.text.str_tokens(ids.reshape(-1).tolist())

    def to_single_token(self, text: str) -> int:
        """The id of a text that is exactly one token.

        Raises:
            ValueError: if it is several; the message shows them.
        """
        ids = self.text.encode(text)
        if len(ids) != 1:
            pieces = self.text.str_tokens(ids)
            hint = f"; {' ' + text!r} is one token" if len(self.text.encode(" " + text)) == 1 else ""
            raise ValueError(f"{text!r} is {len(ids)} tokens {pieces}, expected exactly one{hint}")
        return ids[0]

    def to_single_str_token(self, token: int) -> str:
        """The printable string of one token."""
        return self.text.str_tokens([int(token)])[0]

    def label(self, tokens: Int[Tensor, "*batch pos"] | Sequence[int]) -> Labels | list[Labels]:
        """Message, role and channel of each token; of a batch of several rows, a list."""
        ids = torch.as_tensor(tokens)
        if ids.ndim > 1 and ids.shape[0] > 1:
            return [label(row.tolist(), self.text) for row in ids]
        return label(ids.reshape(-1).tolist(), self.text)

    def as_batch(
        self, input: Any, attention_mask: Tensor | None = None
    ) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"] | None]:
        """Whatever a run accepts (text, Chat, several, a tensor or list of ids) as tokens on the model's device, and
        the mask of its real tokens: the one given, that of texts of unequal length (padded right), or None.

        Raises:
            ValueError: for an empty input, ids outside the vocabulary, a tensor that is not [pos] or [batch pos], or
                a mask that does not fit.
        """
        if isinstance(input, str | Chat):
            input = self.to_tokens(input)
        elif isinstance(input, list | tuple) and input and isinstance(input[0], str | Chat):
            input, padded = self.to_tokens(input, return_mask=True)
            attention_mask = padded if attention_mask is None and not bool(padded.all()) else attention_mask
        tokens = self._checked_tokens(_as_tensor(input).to(self.embed.weight.device))
        return tokens, None if attention_mask is None else _checked_mask(torch.as_tensor(attention_mask), tokens)

    def _checked_tokens(self, tokens: Tensor) -> Int[Tensor, "batch pos"]:
        if tokens.ndim == 1:
            tokens = tokens[None]
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise ValueError(
                f"tokens of shape {tuple(tokens.shape)}: expected [batch pos] or [pos] with at least one token"
            )
        if tokens.is_floating_point() or tokens.dtype == torch.bool:
            raise ValueError(f"tokens are {tokens.dtype}: expected whole numbers, the ids that model.to_tokens gives")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.config.d_vocab:
            wrong = low if low < 0 else high
            raise ValueError(f"token id {wrong} is outside the vocabulary 0 to {self.config.d_vocab - 1}")
        return tokens.long()

    def _encode(self, item: str | Chat, prepend_bos: bool, add_generation_prompt: bool) -> list[int]:
        if isinstance(item, Chat):
            ids = render(item, self.text, add_generation_prompt=add_generation_prompt)
        else:
            ids = self.text.encode(item)
        if not prepend_bos:
            return ids
        if self.config.bos_token_id is None:
            raise ValueError("prepend_bos=True, and this model's config names no bos_token_id; leave it out")
        return [self.config.bos_token_id, *ids]

    @property
    def text(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            MissingTokenizer: if the model came without one; the message says what to pass.
        """
        if self.tokenizer is None:
            raise MissingTokenizer(
                f"{self.config.name} was loaded without a tokenizer (no tokenizer.json beside its weights), so "
                f"text cannot be "
                "turned into tokens. Pass tokens, or set model.tokenizer = wb.Tokenizer.from_directory(DIR)"
            )
        return self.tokenizer

    @property
    def _pad_id(self) -> int:
        if self.config.pad_token_id is not None:
            return self.config.pad_token_id
        return self.config.eos_token_ids[0] if self.config.eos_token_ids else 0


def _as_tensor(input: Any) -> Tensor:
    try:
        return torch.as_tensor(input)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{input!r:.80} is no input: expected text, a Chat, several of them, or token ids, in rows of one length "
            f"({error})"
        ) from None


def _as_list(input: str | Chat | Sequence[str | Chat]) -> list[str | Chat]:
    return [input] if isinstance(input, str | Chat) else list(input)


def _checked_mask(mask: Tensor, tokens: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    if mask.ndim == 1:
        mask = mask[None]
    if mask.shape != tokens.shape:
        raise ValueError(
            f"attention_mask {tuple(mask.shape)} does not fit tokens {tuple(tokens.shape)}: expected one entry "
            f"a token, "
            "1 for a real one and 0 for padding (with a cache: of the new tokens only)"
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError(
            f"attention_mask holds {mask.unique().tolist()[:5]}: expected 1 or True for real tokens, else 0"
        )
    return mask.to(device=tokens.device, dtype=torch.bool)
