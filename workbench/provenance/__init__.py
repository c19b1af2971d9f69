"""Records of runs: which model, which tokens, which edits, which versions, kept in one small database.

Every ``wb.run`` and ``wb.rerun`` leaves one, and a sweep or an atlas one for the whole of it. The database is one
SQLite file of this user on this machine; nothing of it is sent anywhere. It holds the tokens and up to 2,000 characters
of the prompt, so it is readable by its owner only. ``WORKBENCH_RECORDS=/another/file.sqlite`` keeps it elsewhere,
``WORKBENCH_RECORDS=off`` keeps nothing.

| file | what |
|---|---|
| place.py | where the file is |
| facts.py | versions and machine |
| entry.py | one record before it is written |
| recording.py | what is recorded, and what is not |
| writer.py | the thread that writes |
| schema.py, store.py | the file |
| row.py, record.py, records.py | what is read of it |
| compare.py, table.py | two records beside each other; records as a table |
"""

from workbench.provenance.compare import Comparison
from workbench.provenance.entry import Entry, Part, Result, Vector
from workbench.provenance.place import PLACE, place
from workbench.provenance.record import Maker, Record
from workbench.provenance.recording import Held, Whole, held, id_of, on, quiet, recording, submit, trouble
from workbench.provenance.records import Records
from workbench.provenance.schema import RecordsError
from workbench.provenance.writer import flush

__all__ = [
    "PLACE",
    "Comparison",
    "Entry",
    "Held",
    "Maker",
    "Part",
    "Record",
    "Records",
    "RecordsError",
    "Result",
    "Vector",
    "Whole",
    "flush",
    "held",
    "id_of",
    "on",
    "place",
    "quiet",
    "recording",
    "submit",
    "trouble",
]
