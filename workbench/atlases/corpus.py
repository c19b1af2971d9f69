"""Corpora, read a document at a time: lists and generators, files and folders of text, JSON Lines, Parquet, chat logs,
datasets of Hugging Face."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from workbench.atlases.documents import FIELDS, Document, NotADocument, document
from workbench.atlases.errors import CorpusError
from workbench.text import Chat

Given = str | Sequence[str] | Callable[[Document], str | None] | None
Bad = Literal["raise", "skip"]

TEXT, LINES, TABLES = (".txt", ".md", ".text"), (".jsonl", ".ndjson"), (".parquet",)
LONGEST = 2**20  # characters: more of one .txt are further documents, so that no file is ever whole in memory
LONGEST_LINE = 2**27  # bytes of one JSON line; a small .gz can hold a line without end
ROWS = 256  # of a Parquet file at once


@dataclass(frozen=True)
class Skipped:
    """An entry that is no document, and why."""

    place: str
    reason: str


def documents(corpus: Any, domain: Given = None, language: Given = None, bad: Bad = "raise") -> Iterator[Document]:
    """The documents of a corpus, in order.

    Args:
        corpus: one of
            an iterable (a list, a generator, a ``datasets`` Dataset or IterableDataset) of texts, Chats, rows of token
            ids, Documents, or mappings with the fields below;
            a file: ``.txt`` or ``.md`` (the whole file is one document; beyond a million characters it is cut at
            the end of a line into several, ``name:0``, ``name:1``, …), ``.jsonl`` (an object a line) or ``.parquet``,
            the first two also as ``.gz``;
            a folder: all such files in it, in the order of their names;
            a mapping of domain → corpus.
            The fields of an object or a row: ``text``, or ``messages`` (a chat log), or ``tokens``; and ``id``,
            ``domain``, ``language``.
        domain, language: for documents that name none: a word for all, a list of one a document, or a function of the
            Document.
        bad: what happens at an entry that is no document: "raise", or "skip" it.

    Raises:
        CorpusError: for a corpus of another kind, an entry that is no document, or a list of the wrong length.
    """
    return (entry for entry in entries(corpus, domain, language, bad) if isinstance(entry, Document))


def entries(
    corpus: Any, domain: Given = None, language: Given = None, bad: Bad = "skip"
) -> Iterator[Document | Skipped]:
    """As :func:`documents`, with each entry that is none and is skipped in its place."""
    if bad not in ("raise", "skip"):
        raise CorpusError(f"bad={bad!r}: expected 'raise' or 'skip'")
    return _entries(corpus, domain, language, bad)


def _entries(corpus: Any, domain: Given, language: Given, bad: Bad) -> Iterator[Document | Skipped]:
    n = 0
    for n, entry in enumerate(_read(corpus), 1):
        if isinstance(entry, Skipped):
            if bad == "raise":
                raise CorpusError(
                    f"{entry.place}: {entry.reason}; mend it, or pass bad='skip' to leave such entries out"
                )
            yield entry
            continue
        known = {"domain": _of(domain, "domain", n - 1, entry), "language": _of(language, "language", n - 1, entry)}
        yield replace(entry, **{name: word for name, word in known.items() if getattr(entry, name) is None})
    for name, given in (("domain", domain), ("language", language)):
        if isinstance(given, Sequence) and not isinstance(given, str) and len(given) != n:
            raise CorpusError(f"{len(given)} entries in {name}= for {n} documents: expected one a document")


def _of(given: Given, name: str, n: int, entry: Document) -> str | None:
    if given is None or isinstance(given, str):
        return given
    if callable(given):
        return given(entry)
    if n >= len(given):
        raise CorpusError(f"{name}= has {len(given)} entries, and there are more documents: expected one a document")
    return given[n]


def _read(corpus: Any) -> Iterator[Document | Skipped]:
    if isinstance(corpus, str | Path):
        yield from _path(Path(corpus).expanduser())
    elif isinstance(corpus, Chat) or not isinstance(corpus, Iterable):
        raise CorpusError(f"a {type(corpus).__name__} is no corpus: expected a path, or a list of texts or Chats")
    elif isinstance(corpus, Mapping):
        yield from _by_domain(corpus)
    elif hasattr(corpus, "itertuples"):  # a pandas.DataFrame
        yield from _each(_of_frame(corpus), "row {}")
    else:
        yield from _each(corpus, "{}")


def _of_frame(frame: Any) -> Iterator[dict[str, Any]]:
    for row in frame.itertuples(index=False, name=None):
        named = zip(frame.columns, row, strict=True)
        # pandas says NaN where there is nothing.
        yield {name: value for name, value in named if not (isinstance(value, float) and value != value)}


def _by_domain(corpus: Mapping[Any, Any]) -> Iterator[Document | Skipped]:
    if type(corpus).__name__ in ("DatasetDict", "IterableDatasetDict"):  # whose keys are splits, and no domains
        raise CorpusError(f"a {type(corpus).__name__} holds {sorted(map(str, corpus))}: pass one, dataset['train']")
    if any(name in corpus for name in ("text", "messages", "tokens")):
        raise CorpusError(f"a mapping with {sorted(map(str, corpus))} is one document: expected a list of such")
    for domain, part in corpus.items():
        for entry in _read(part):
            if isinstance(entry, Document) and entry.domain is None:
                entry = replace(entry, domain=str(domain))
            yield entry


def _each(found: Iterable[Any], place: str) -> Iterator[Document | Skipped]:
    for n, entry in enumerate(found):
        yield _document(entry, place.format(n))


def _document(entry: Any, place: str) -> Document | Skipped:
    try:
        return document(entry, place)
    except NotADocument as error:
        return Skipped(place, str(error))


# ---------------------------------------------------------------- files
def _path(path: Path) -> Iterator[Document | Skipped]:
    if path.is_dir():
        yield from _folder(path)
    elif path.exists():
        yield from _file(path, path.name)
    else:
        raise CorpusError(f"there is no file or folder {str(path)!r}; a text that is itself meant goes into a list")


def _folder(path: Path) -> Iterator[Document | Skipped]:
    found = sorted(each for each in path.rglob("*") if each.is_file() and _suffix(each) in (*TEXT, *LINES, *TABLES))
    if not found:
        raise CorpusError(f"{path} holds no file that ends in {', '.join((*TEXT, *LINES, *TABLES))}")
    for each in found:
        yield from _file(each, each.relative_to(path).as_posix())


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def _file(path: Path, name: str) -> Iterator[Document | Skipped]:
    suffix = _suffix(path)
    try:
        if suffix in TABLES:
            yield from _parquet(path, name)
        elif suffix in LINES:
            with _opened(path) as file:
                yield from _json_lines(file, path, name)
        elif suffix in TEXT:
            with _opened(path) as file:
                yield from _text(file, path, name)
        else:
            known = ", ".join((*TEXT, *LINES, *TABLES))
            raise CorpusError(f"{path}: expected a file that ends in {known} (or .txt.gz, .jsonl.gz)")
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _opened(path: Path) -> Any:  # a file, or what reads like one
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _json_lines(file: Any, path: Path, name: str) -> Iterator[Document | Skipped]:
    for number, raw in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
        place = f"{path}, line {number}"
        if len(raw) == LONGEST_LINE:
            raise CorpusError(f"{place} has more than {LONGEST_LINE:,} bytes: expected a document a line")
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            if not line.strip():
                continue
            entry = json.loads(line)
        except UnicodeDecodeError as error:
            yield Skipped(place, f"not UTF-8: the byte {error.object[error.start]:#x}")
        except (ValueError, RecursionError) as error:
            yield Skipped(place, f"not JSON: {error}")
        else:
            yield _row(entry, f"{name}:{number}", place)


def _row(entry: Any, id: str, place: str) -> Document | Skipped:
    if not isinstance(entry, Mapping):
        return Skipped(place, f"a {type(entry).__name__}, expected an object with text, messages or tokens")
    found = _document(entry, id)
    return Skipped(place, found.reason) if isinstance(found, Skipped) else found


def _text(file: Any, path: Path, name: str) -> Iterator[Document | Skipped]:
    """The file as one document, or, where it is very long, as several, cut at the ends of lines where there are any."""
    parts, size, n, line = [], 0, 0, 0
    decoder = codecs.getincrementaldecoder("utf-8-sig")()  # a very long line may be cut inside a character
    while raw := file.readline(4 * LONGEST):
        line += 1
        try:
            parts.append(decoder.decode(raw))
        except UnicodeDecodeError as error:
            yield Skipped(f"{path}, line {line}", f"not UTF-8: the byte {error.object[error.start]:#x}")
            return
        size += len(parts[-1])
        if size >= LONGEST:
            yield Document("".join(parts), f"{name}:{n}")
            parts, size, n = [], 0, n + 1
    if parts:
        yield Document("".join(parts), f"{name}:{n}" if n else name)


def _parquet(path: Path, name: str) -> Iterator[Document | Skipped]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise CorpusError(f"{path} is no Parquet file: {error}") from None
    with file:
        columns = [column for column in FIELDS if column in file.schema_arrow.names]
        if not {"text", "messages", "tokens"} & set(columns):
            raise CorpusError(
                f"{path} has the columns {', '.join(file.schema_arrow.names[:12])}: expected text, messages or tokens"
            )
        for n, entry in enumerate(_entries_of(file, columns, path)):
            yield _row(entry, f"{name}:{n}", f"{path}, row {n}")


def _entries_of(file: Any, columns: Sequence[str], path: Path) -> Iterator[Any]:
    """Its rows as mappings. What is damaged inside is met only when it is read."""
    import pyarrow

    batches = file.iter_batches(batch_size=ROWS, columns=columns)
    while True:
        try:
            batch = next(batches, None)
            rows = None if batch is None else batch.to_pylist()
        except (pyarrow.ArrowException, ValueError, OverflowError, OSError, NotImplementedError) as error:
            raise CorpusError(f"{path} cannot be read: {str(error)[:1000]}") from error
        if rows is None:
            return
        yield from rows
