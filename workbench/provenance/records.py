"""The records of a file: listed, chosen, compared, pinned, forgotten."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from workbench.provenance import table, writer
from workbench.provenance.compare import Comparison, compared
from workbench.provenance.record import Maker, Record, read
from workbench.provenance.schema import RecordsError, reading
from workbench.provenance.store import Store

if TYPE_CHECKING:
    import pandas as pd

PAGE = 500  # records that are read at once
FEWEST_DIGITS = 4
When = datetime | date | timedelta | str


@dataclass(frozen=True, repr=False)
class Records:
    """Records, newest first. It holds none itself: each question is put to the file as it is then.

    ``records[0]`` is the newest, ``records[-1]`` the oldest, ``records["3fa9"]`` the one whose id begins so, and
    ``records[:10]`` a list.

    Attributes:
        path: the file; None where WORKBENCH_RECORDS is "off".
        maker: makes runs again.
        read_only: whether it is another file than the one that runs go to.
    """

    path: Path | None
    maker: Maker = field(repr=False)
    read_only: bool = False
    _where: tuple[str, ...] = ()
    _given: tuple[Any, ...] = ()

    def filter(
        self,
        *,
        model: str | None = None,
        fingerprint: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        spec: str | type | None = None,
        since: When | None = None,
        until: When | None = None,
        text: str | None = None,
        session: str | None = None,
        pinned: bool | None = None,
    ) -> Records:
        """Those of them that are all of this; ``records.filter(…).filter(…)`` narrows further.

        Args:
            model: its name.
            fingerprint: of the model, or how it begins.
            kind: "run", "sweep", "atlas", …
            name: of the run.
            spec: an intervention that is among those of the run, "AblateExpert" or ``wb.AblateExpert``.
            since: from this time on: a datetime or date (local time if it has no zone), the same as ISO text, or a
                timedelta before now.
            until: before this time.
            text: is in the beginning of the prompt; large and small letters of ASCII are the same.
            session: of this process.
            pinned: is pinned, or is not.
        """
        tests: list[tuple[str, Any]] = [
            (f"{column}=?", value)
            for column, value in (("model", model), ("kind", kind), ("name", name), ("session", session))
            if value is not None
        ]
        if fingerprint is not None:
            tests.append(("substr(fingerprint, 1, length(?1))=?1", fingerprint))
        if spec is not None:
            named = spec if isinstance(spec, str) else spec.__name__
            tests.append(("instr(specs, ?)", f'"kind":"{named}"'))
        tests += [
            (f"started{sign}?", moment(value, said))
            for sign, value, said in ((">=", since, "since"), ("<", until, "until"))
            if value is not None
        ]
        if text is not None:
            tests.append(("instr(lower(text), lower(?))", text))
        if pinned is not None:
            tests.append(("pinned=?", int(pinned)))
        # Each test has its own number among the parameters: one of them uses its own twice.
        first = len(self._given) + 1
        clauses = [test.replace("?1", "?").replace("?", f"?{first + i}") for i, (test, _) in enumerate(tests)]
        return replace(self, _where=(*self._where, *clauses), _given=(*self._given, *(value for _, value in tests)))

    # ------------------------------------------------------------ reading

    def __len__(self) -> int:
        found = self._one(f"SELECT count(*) FROM records WHERE {self._condition}", self._given)
        return 0 if found is None else int(found[0])

    def __bool__(self) -> bool:
        return len(self) > 0

    def __iter__(self) -> Iterator[Record]:
        before = 2**62
        while True:
            page = self._page(f"AND seq<{before}", f"LIMIT {PAGE}")
            yield from (record for _, record in page)
            if len(page) < PAGE:
                return
            if page[-1][0] >= before:
                raise RecordsError(f"{self.path} is damaged: its records are not in their order")
            before = page[-1][0]

    @overload
    def __getitem__(self, key: int | str) -> Record: ...
    @overload
    def __getitem__(self, key: slice) -> list[Record]: ...
    def __getitem__(self, key: int | str | slice) -> Record | list[Record]:
        """By place, newest first, or by id.

        Raises:
            IndexError: there are fewer.
            KeyError: no id begins so, or several do.
        """
        if isinstance(key, str):
            return self._by_id(key)
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                return [self._at(i) for i in range(start, stop, step)]
            return [record for _, record in self._page("", f"LIMIT {max(0, stop - start)} OFFSET {start}")]
        return self._at(key)

    def _at(self, i: int) -> Record:
        order, at = ("DESC", i) if i >= 0 else ("ASC", -1 - i)
        page = self._page("", f"LIMIT 1 OFFSET {at}", order)
        if not page:
            raise IndexError(f"there is no record {i}; there are {len(self)}")
        return page[0][1]

    def _by_id(self, id: str) -> Record:
        if not re.fullmatch(f"[0-9a-f]{{{FEWEST_DIGITS},32}}", id):
            raise KeyError(f"{id!r} is no id of a record: expected {FEWEST_DIGITS} or more of its 12 hex digits")
        page = self._page(f"AND substr(id, 1, {len(id)})='{id}'", "LIMIT 2")
        if len(page) != 1:
            what = "there is no record whose id begins" if not page else "several records' ids begin"
            raise KeyError(f"{what} with {id!r} in {self.path}")
        return page[0][1]

    @property
    def _condition(self) -> str:
        return " AND ".join(("1", *self._where))

    def _page(self, more: str, limit: str, order: str = "DESC") -> list[tuple[int, Record]]:
        query = (
            f"SELECT records.*, environments.facts FROM records LEFT JOIN environments ON digest=environment "
            f"WHERE {self._condition} {more} ORDER BY seq {order} {limit}"
        )
        return [(row["seq"], read(row, self)) for row in self._all(query, self._given)]

    def _one(self, query: str, given: tuple[Any, ...]) -> Any:
        rows = self._all(query, given)
        return rows[0] if rows else None

    def _all(self, query: str, given: tuple[Any, ...]) -> list[Any]:
        if self.path is None:
            return []
        writer.flush(self.path)
        if not self.path.exists():
            if self.read_only:
                raise RecordsError(f"there are no records at {self.path}: no such file")
            return []
        with reading(self.path) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(query, given).fetchall()

    # ------------------------------------------------------------ as a table

    def to_dataframe(self) -> pd.DataFrame:
        """One row a record, newest first, with the id as its index: what is short of each, and the summary."""
        import pandas as pd

        rows = [table.flat(record) for record in self]
        return pd.DataFrame(rows, columns=None if rows else table.COLUMNS).set_index("id")

    def __repr__(self) -> str:
        return table.as_text(self)

    def _repr_html_(self) -> str:
        return table.as_html(self)

    # ------------------------------------------------------------ two of them

    def compare(self, a: int | str | Record, b: int | str | Record, *, rerun: bool = False) -> Comparison:
        """What differs between two records.

        Args:
            a, b: records, their ids, or their places.
            rerun: make both runs again, and say how far their predictions are apart.

        Raises:
            RecordsError: as :meth:`Record.reload`, with ``rerun``.
        """
        one, other = (each if isinstance(each, Record) else self[each] for each in (a, b))
        return compared(one, other, self.maker if rerun else None)

    # ------------------------------------------------------------ keeping and forgetting

    def pin(self, *which: str | Record, pinned: bool = True) -> None:
        """Keep records whatever their age, with the runs that they took something from; or, False, no longer.

        Raises:
            KeyError: for an id that is not there.
            RecordsError: for a file that is only read here.
        """
        ids = list(dict.fromkeys(id for each in which for id in self._with_sources(self._id(each), pinned)))
        self._to_change().pin(ids, pinned)

    def forget(self, which: str | Record | Iterable[str | Record]) -> int:
        """Take records out of the file, with their texts; how many that were. Runs that took something from them can
        no longer be made again.

        Args:
            which: an id, a record, several, or all of ``records.filter(…)``.

        Raises:
            KeyError: for an id that is not there.
            RecordsError: for one that is pinned, or a file that is only read here; none is forgotten then.
        """
        store = self._to_change()
        several = [which] if isinstance(which, str | Record) else list(which)
        records = [each if isinstance(each, Record) else self._by_id(each) for each in several]
        if pinned := [record.id for record in records if record.pinned]:
            raise RecordsError(f"{pinned[:5]} are pinned; records.pin({pinned[0]!r}, pinned=False) lets go of one")
        return store.forget([record.id for record in records])

    def _id(self, which: str | Record) -> str:
        return which.id if isinstance(which, Record) else self._by_id(which).id

    def _with_sources(self, id: str, deep: bool) -> list[str]:
        found, left = [], [id]
        whole = replace(self, _where=(), _given=())
        while left:
            id = left.pop()
            if id in found:
                continue
            try:
                record = whole._by_id(id)
            except KeyError:
                continue  # a source that was forgotten
            found.append(id)
            left += used(record) if deep else []
        return found

    def _to_change(self) -> Store:
        if self.read_only or self.path is None:
            what = "runs leave no records (WORKBENCH_RECORDS=off)" if self.path is None else f"{self.path} is only read"
            raise RecordsError(f"{what}: nothing can be changed in it here")
        writer.flush(self.path)
        return writer.store_of(self.path)


def used(record: Record) -> list[str]:
    """The ids of the records that a run took something from."""
    named: list[Mapping[str, Any]] = [*record.sources.values(), record.about.get("rerun") or {}]
    return [each[key] for each in named for key in ("record", "base", "unedited") if each.get(key)]


def moment(when: When, said: str) -> float:
    """A time as seconds since 1970."""
    if isinstance(when, timedelta):
        return (datetime.now().astimezone() - when).timestamp()
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            raise ValueError(f"{said}={when!r}: expected a time like '2026-11-22' or '2026-11-22T10:30'") from None
    if not isinstance(when, datetime):
        when = datetime(when.year, when.month, when.day)
    return when.timestamp()
