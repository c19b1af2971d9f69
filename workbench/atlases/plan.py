"""A corpus cut into parts, the same way each time: what is written together, and done again after a kill."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from workbench.atlases.corpus import Skipped
from workbench.atlases.documents import Document


@dataclass
class Planned:
    """Documents that are written together.

    Attributes:
        first_document: the number of the first of them in the corpus.
        n_skipped: entries among them that were no documents.
        size: about how many tokens they are.
    """

    number: int
    first_document: int
    documents: list[Document] = field(default_factory=list)
    n_skipped: int = 0
    size: int = 0

    @property
    def digest(self) -> str:
        """Of everything that the corpus said, and of where it stands in it."""
        made = hashlib.blake2b(str(self.first_document).encode(), digest_size=16)
        for document in self.documents:
            made.update(document.identity)
            made.update(b"\0")
        return made.hexdigest()


def parts(entries: Iterable[Document | Skipped], part_tokens: int) -> Iterator[Planned]:
    """Parts of about so many tokens, one at least each; no more than one is held."""
    now = Planned(0, 0)
    for entry in entries:
        if isinstance(entry, Skipped):
            now.n_skipped += 1
            continue
        now.documents.append(entry)
        now.size += entry.size
        if now.size >= part_tokens:
            yield now
            now = Planned(now.number + 1, now.first_document + len(now.documents))
    if now.documents or now.n_skipped:
        yield now
