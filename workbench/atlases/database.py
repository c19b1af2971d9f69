"""An atlas' files as tables of DuckDB. Nothing is loaded: a question reads the columns and the layers that it needs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from workbench.atlases.errors import AtlasError
from workbench.atlases.folder import Part

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# What DuckDB raises: of a file that is damaged, now and then something more general.
DUCKDB = (duckdb.Error, ValueError, RuntimeError, OSError, MemoryError)
# What pandas, numpy and we do about a table that does not hold what it should.
ODD = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
SAID = ("role", "channel", "domain", "language")
TABLES = """\
routing(token, layer, slot, expert, weight, role, channel, document, position, context, domain, language): a row
  a route
routes(layer, document, position, token, expert_0 …, weight_0 …, role, channel, domain, language): the same, a row a
  token and layer
documents(document, id, domain, language, n_tokens, digest)
vocabulary(token, text)"""


class Database:
    """The tables of an atlas.

    Args:
        folder: the atlas'.
        parts: those that are read.
        n_slots: experts of a token.
        max_length: of a window, from which a token's context follows.
    """

    def __init__(self, folder: Path, parts: Sequence[Part], n_slots: int, max_length: int) -> None:
        self._connection = duckdb.connect(":memory:")
        self.slots = range(n_slots)
        try:
            self._open(folder, parts, max_length)
        except DUCKDB as error:
            self._connection.close()
            raise AtlasError(f"the tables of {folder} are not those of an atlas: {_short(error)}") from error

    def _open(self, folder: Path, parts: Sequence[Part], max_length: int) -> None:
        # Files that are there never change; what a large question spills does not go into the caller's folder.
        spilled = quoted(str(Path(tempfile.gettempdir()) / f"workbench-atlas-{os.getpid()}"))
        for setting in (
            "parquet_metadata_cache = true",
            f"temp_directory = '{spilled}'",
            "enable_progress_bar = false",
            "autoinstall_known_extensions = false",  # a question must not fetch anything
        ):
            self._connection.execute(f"set {setting}")
        self._files = {
            table: [str(folder / name) for part in parts for name in part.files if name.startswith(f"{table}/")]
            for table in ("routing", "documents", "activations")
        }
        for table, name in (("routing", "routes"), ("documents", "documents"), ("activations", "activations")):
            if self._files[table]:
                self._connection.execute(f"create view {name} as {self.reads(table)}")
        self._vocabulary(folder / "vocabulary.parquet")
        self._connection.execute(f"create view routing as {self._long(max_length)}")

    @property
    def has_activations(self) -> bool:
        """Whether sites were asked for."""
        return bool(self._files["activations"])

    def reads(self, table: str) -> str:
        """SQL for a table as it is on disk, for any connection."""
        listed = ", ".join(f"'{quoted(file)}'" for file in self._files[table])
        return f"select * from read_parquet([{listed}])"

    def _vocabulary(self, path: Path) -> None:
        if path.exists():
            self._connection.execute(
                f"create table vocabulary as select * from read_parquet('{quoted(str(path))}') order by token"
            )
        else:  # a model without a tokenizer: ids are their own text
            self._connection.execute(
                "create table vocabulary as select distinct token, token::varchar as text from routes where layer = 0"
            )

    def _long(self, max_length: int) -> str:
        """A row a slot. Each slot's columns are read by themselves, so a filter on the expert meets them directly."""
        said = ", ".join(SAID)
        rows = " union all ".join(
            f"select token, layer, {slot}::utinyint as slot, expert_{slot}::usmallint as expert, "
            f"weight_{slot} as weight, document, position, {said} from routes"
            for slot in self.slots
        )
        return f"select *, (position % {max_length})::integer as context from ({rows})"

    def ask(self, question: str, parameters: Any = None) -> pd.DataFrame:
        """The answer as a table. Threads may ask at once.

        Raises:
            AtlasError: DuckDB does not take the question; the message says what tables there are.
        """
        return self._asked(lambda cursor: cursor.execute(question, parameters).df())

    def ask_arrow(self, question: str) -> pa.Table:
        """The answer as an Arrow table: for lists, which pandas would make objects of."""
        return self._asked(lambda cursor: cursor.sql(question).to_arrow_table())

    def _asked(self, ask: Callable[[Any], Any]) -> Any:
        try:
            with self._connection.cursor() as cursor:
                return ask(cursor)
        except DUCKDB as error:
            also = "\nactivations(document, position, token, and a column a site)" if self.has_activations else ""
            raise AtlasError(f"{_short(error)}\n\nThe tables of an atlas:\n{TABLES}{also}") from error

    def close(self) -> None:
        """Let go of the files."""
        self._connection.close()


@contextmanager
def reading(what: str) -> Iterator[None]:
    """A question of ours to tables that may be anybody's: what goes wrong with the answer is said in our words."""
    try:
        yield
    except AtlasError:
        raise
    except (duckdb.OutOfMemoryException, MemoryError) as error:
        raise AtlasError(f"{what}: memory is not enough for it ({_short(error)}); free some, and ask again") from error
    except (*ODD, duckdb.Error) as error:
        raise AtlasError(
            f"{what}: the atlas' tables do not hold what they should ({type(error).__name__}: {_short(error)}); "
            "build it anew, or ask with sql"
        ) from error


def _short(error: BaseException) -> str:
    return str(error)[:2000].encode("utf-8", "backslashreplace").decode()


def quoted(text: str) -> str:
    """Text inside the quotes of an SQL string."""
    return text.replace("'", "''")


def quoted_name(text: str) -> str:
    """The name of a column, with the quotes of SQL."""
    return '"' + text.replace('"', '""') + '"'
