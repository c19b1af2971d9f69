"""Documents → token ids with loss weights → rows that several documents share."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor

from .bpe import SPECIAL
from .microworld import DOCUMENTS, Document, passkey, repeats

END = SPECIAL.index("<|endoftext|>")
WEIGHTS: Mapping[str, float] = MappingProxyType({"context": 0.3, "answer": 1.0, "silent": 0.0})
# Share of the tokens of each domain; "random repeats" are ids drawn from the whole vocabulary, told twice.
MIXTURE: Mapping[str, float] = MappingProxyType(
    {
        "story": 0.8,
        "facts": 1.2,
        "names": 1.2,
        "repeats": 0.7,
        "random repeats": 2.0,
        "passkey": 1.5,
        "code": 0.8,
        "brackets": 0.7,
        "years": 0.7,
        "sums": 0.7,
        "dialects": 1.2,
        "chat facts": 1.3,
        "chat": 2.0,
    }
)


@dataclass(frozen=True)
class Encoded:
    """A document as the trainer reads it: ``weights[i]`` is what the loss of predicting ``ids[i]`` counts."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    domain: str


@dataclass(frozen=True)
class Batch:
    """Rows of packed documents. ``document`` tells them apart in a row, −1 is padding; weights are the tokens' own."""

    tokens: Int[Tensor, "batch pos"]
    document: Int[Tensor, "batch pos"]
    weights: Float[Tensor, "batch pos"]


class Encoder:
    """Encodes documents; short segments recur, so their ids are kept."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.d_vocab = tokenizer.get_vocab_size()
        self._ids = lru_cache(maxsize=100_000)(lambda text: tuple(tokenizer.encode(text).ids))

    def document(self, document: Document) -> Encoded:
        """Ids and weights; a document that is no chat ends with <|endoftext|>."""
        ids: list[int] = []
        weights: list[float] = []
        for segment in document.segments:
            new = self._ids(segment.text)
            ids += new
            weights += [WEIGHTS[segment.kind]] * len(new)
        if not document.domain.startswith("chat"):
            ids.append(END)
            weights.append(WEIGHTS["answer"])
        return Encoded(tuple(ids), tuple(weights), document.domain)

    def random_repeats(self, rng: random.Random, most: int = 100) -> Encoded:
        """Three to ``most`` random ordinary tokens, twice or (short ones) up to four times; the first is silent."""
        n = rng.randint(3, most)
        once = [rng.randrange(len(SPECIAL), self.d_vocab) for _ in range(n)]
        times = rng.randint(2, max(2, min(4, most // n)))
        return Encoded(tuple(once * times), (0.0,) * (n + 1) + (1.0,) * (n * (times - 1) - 1), "random repeats")

    def draw(self, domain: str, rng: random.Random, reach: float = 1.0) -> Encoded:
        """A training document of a domain in ``MIXTURE``; ``reach``, 0 to 1, is how far apart a repeat may stand."""
        if domain == "random repeats":
            return self.random_repeats(rng, round(8 + 92 * reach))
        if domain == "repeats":
            return self.document(repeats.document(rng, round(6 + 24 * reach)))
        if domain == "passkey":
            return self.document(passkey.document(rng, round(2 + 24 * reach)))
        return self.document(DOCUMENTS[domain](rng))


def mixed(encoder: Encoder, rng: random.Random, n_tokens: int, longest: int, reach: float = 1.0) -> list[Encoded]:
    """Documents of about ``n_tokens`` in all, none longer than ``longest``, in the proportions of ``MIXTURE``."""
    start = rng.random()  # so that over many small batches rounding does not favour the first domains
    used = {domain: -start * weight for domain, weight in MIXTURE.items()}
    documents, total = [], 0
    order = list(MIXTURE)
    rng.shuffle(order)
    while total < n_tokens:
        domain = min(order, key=lambda name: used[name] / MIXTURE[name])
        encoded = encoder.draw(domain, rng, reach)
        if len(encoded.ids) > longest:
            continue
        documents.append(encoded)
        used[domain] += len(encoded.ids)
        total += len(encoded.ids)
    return documents


def pack(documents: Iterable[Encoded], n_rows: int, length: int) -> Batch:
    """Longest first, each into the fullest row that has room; what fits nowhere is left out."""
    rows: list[list[Encoded]] = [[] for _ in range(n_rows)]
    room = [length] * n_rows
    for document in sorted(documents, key=lambda d: -len(d.ids)):
        fitting = [i for i in range(n_rows) if room[i] >= len(document.ids)]
        if fitting:
            row = min(fitting, key=room.__getitem__)
            rows[row].append(document)
            room[row] -= len(document.ids)
    tokens = torch.full((n_rows, length), END)
    owner = torch.full((n_rows, length), -1)
    weights = torch.zeros(n_rows, length)
    for i, row in enumerate(rows):
        at = 0
        for number, document in enumerate(row):
            stop = at + len(document.ids)
            tokens[i, at:stop] = torch.tensor(document.ids)
            owner[i, at:stop] = number
            weights[i, at:stop] = torch.tensor(document.weights)
            weights[i, at] = 0.0  # nothing stands before a first token
            at = stop
    return Batch(tokens, owner, weights)


def batch_at(encoder: Encoder, seed: int, step: int, n_rows: int, length: int, reach: float = 1.0) -> Batch:
    """The batch of one step: a function of its arguments alone, so that a resumed run sees what it would have seen."""
    rng = random.Random(f"batch {seed} {step}")
    return pack(mixed(encoder, rng, n_rows * length, length, reach), n_rows, length)
