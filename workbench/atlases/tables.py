"""A part's rows as Parquet: what an atlas' files look like inside.

``routing`` has a row for each layer and token, and the experts and weights of its slots as columns: k rows of the long
form in one. Each layer is a row group, so that a question about one layer reads nothing of the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.atlases.documents import Document
from workbench.text.harmony.chat import CHANNELS, ROLES

if TYPE_CHECKING:
    from workbench.atlases.rows import Rows
    from workbench.text import Tokenizer

WORDS = ("role", "channel", "domain", "language")


def tables_of(rows: Rows, documents: Sequence[Document], first_document: int) -> dict[str, bytes]:
    """Table → its bytes as Parquet. ``first_document``: the number of the first of these in the whole corpus."""
    lengths = rows.lengths
    numbers = np.repeat(np.arange(first_document, first_document + len(documents), dtype=np.int32), lengths)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    position = (np.arange(len(rows.tokens)) - starts).astype(np.int32)
    place = {"document": pa.array(numbers), "position": pa.array(position), "token": pa.array(rows.tokens)}
    made = {
        "routing": _routing(rows, documents, place),
        "documents": _documents(rows, documents, first_document),
    }
    if rows.activations:
        made["activations"] = _activations(rows, place)
    return made


def _routing(rows: Rows, documents: Sequence[Document], place: dict[str, pa.Array]) -> bytes:
    n_layers, _, n_slots = rows.experts.shape
    words = {
        "role": _coded(rows.role, ROLES),
        "channel": _coded(rows.channel, CHANNELS),
        "domain": _of_documents([document.domain for document in documents], rows.lengths),
        "language": _of_documents([document.language for document in documents], rows.lengths),
    }
    sink, writer = pa.BufferOutputStream(), None
    for layer in range(n_layers):
        columns: dict[str, Any] = {"layer": pa.array(np.full(len(rows.tokens), layer, np.uint16)), **place}
        for name, values in (("expert", rows.experts), ("weight", rows.weights)):
            columns |= {
                f"{name}_{slot}": pa.array(np.ascontiguousarray(values[layer, :, slot])) for slot in range(n_slots)
            }
        table = pa.table(columns | words)
        if writer is None:
            # Weights hardly repeat: a dictionary of them would be built and thrown away.
            coded: Any = [name for name in table.column_names if not name.startswith("weight")]
            writer = pq.ParquetWriter(sink, table.schema, compression="zstd", compression_level=1, use_dictionary=coded)
        writer.write_table(table, row_group_size=max(len(table), 1))
    assert writer is not None
    writer.close()
    return sink.getvalue().to_pybytes()


def _coded(codes: np.ndarray, names: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(names, pa.string()))


def _of_documents(words: Sequence[str | None], lengths: np.ndarray) -> pa.DictionaryArray:
    names = sorted({word for word in words if word is not None})
    number = {name: i for i, name in enumerate(names)}
    codes = np.array([-1 if word is None else number[word] for word in words], dtype=np.int32)
    return _coded(np.repeat(codes, lengths), names)


def _documents(rows: Rows, documents: Sequence[Document], first_document: int) -> bytes:
    ends = np.cumsum(rows.lengths)
    read = [rows.tokens[end - length : end] for end, length in zip(ends, rows.lengths, strict=True)]
    table = pa.table(
        {
            "document": pa.array(np.arange(first_document, first_document + len(documents), dtype=np.int32)),
            "id": pa.array([document.id for document in documents], pa.string()),
            "domain": pa.array([document.domain for document in documents], pa.string()),
            "language": pa.array([document.language for document in documents], pa.string()),
            "n_tokens": pa.array(rows.lengths.astype(np.int32)),
            # Two atlases are compared token by token: of the same tokens.
            "digest": pa.array([hashlib.blake2b(ids.tobytes(), digest_size=12).hexdigest() for ids in read]),
        }
    )
    return _written(table)


def _activations(rows: Rows, place: dict[str, pa.Array]) -> bytes:
    columns: dict[str, Any] = dict(place)
    for name, values in rows.activations.items():
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return _written(pa.table(columns))


def vocabulary(tokenizer: Tokenizer) -> bytes:
    """Every token id of a tokenizer and its printable text."""
    texts = tokenizer.str_tokens(range(tokenizer.n_ids))
    return _written(pa.table({"token": pa.array(np.arange(len(texts), dtype=np.int32)), "text": pa.array(texts)}))


def _written(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=1)
    return sink.getvalue().to_pybytes()
