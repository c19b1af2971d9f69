"""nano's tokenizer: byte-level BPE in which every word of the microworld is one token, and any text is lossless.

As in gpt-oss a piece of text that is a token as a whole is taken whole (``ignore_merges``); every other piece falls
back to the merges and, in the end, to its bytes.
"""

import json
import random
from collections import Counter
from pathlib import Path

import regex
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from .microworld import DOCUMENTS
from .microworld.words import TWO_DIGITS

SPECIAL = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
)
# Words, numbers two digits at a time, single signs (each with one leading space at most), newlines, spaces.
PIECES = r' ?"""| ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]|\s*[\r\n]+|\s+(?!\S)|\s+'
D_VOCAB = 1024
SAMPLES = 1000  # documents of each domain that the words and the merges are taken from


def corpus(seed: int, per_domain: int) -> list[str]:
    """Texts of every domain, without special tokens."""
    rng = random.Random(f"tokenizer {seed}")
    texts = [make(rng).text for make in DOCUMENTS.values() for _ in range(per_domain)]
    return [part for text in texts for part in regex.split(r"<\|\w+\|>", text) if part]


def _whole_pieces(texts: list[str]) -> list[str]:
    """Every piece of the corpus, and every number, that is to be one token, in a fixed order."""
    counts = Counter(piece for text in texts for piece in regex.findall(PIECES, text))
    numbers = [*TWO_DIGITS, *(f" {n}" for n in range(100))]
    return sorted({piece for piece in counts if len(piece) > 1} | set(numbers))


def _to_bytes_alphabet(piece: str) -> str:
    return "".join(
        part for part, _ in pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(piece)
    )


def _merges(texts: list[str], count: int) -> tuple[list[str], list[tuple[str, str]]]:
    """The 256 bytes, and the first ``count`` merges learned from the corpus (a shorter list is its beginning)."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = _pre_tokenizer()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=256 + count, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    model = json.loads(learner.to_str())["model"]
    return alphabet, [tuple(merge) for merge in model["merges"]]


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train_tokenizer(seed: int = 0) -> Tokenizer:
    """The tokenizer, determined by ``seed``; its vocabulary has ``D_VOCAB`` tokens, the special ones first."""
    texts = corpus(seed, SAMPLES)
    whole = [_to_bytes_alphabet(piece) for piece in _whole_pieces(texts)]
    room = D_VOCAB - len(SPECIAL)
    alphabet, merges = _merges(texts, room - 256)
    # The more merges, the more of them are words already: take the largest count that still fits.
    for count in range(len(merges), -1, -1):
        made = dict.fromkeys(alphabet + ["".join(merge) for merge in merges[:count]] + whole)
        if len(made) <= room:
            return _assemble({piece: i for i, piece in enumerate((*SPECIAL, *made))}, merges[:count])
    raise ValueError(f"{len(whole)} words do not fit into {D_VOCAB} tokens: raise D_VOCAB")


def _assemble(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, path: Path, n_ctx: int) -> None:
    """Write tokenizer.json and tokenizer_config.json, as transformers reads them."""
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|return|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": n_ctx,
    }
    text = json.dumps(config, indent=2) + "\n"
    (path / "tokenizer_config.json").write_text(text, encoding="utf-8", newline="\n")
