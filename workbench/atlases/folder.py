"""An atlas on disk: which parts are finished, and how one is added so that it is there whole or not at all.

    atlas.json               what the atlas is of, and, when the corpus is at its end, how much that was
    tokenizer/               the model's, so that an atlas is read without the model
    vocabulary.parquet       token id, text
    routing/000000.parquet   a row a layer and token, a row group a layer
    documents/000000.parquet a row a document
    activations/…            a row a token, a column a site, where sites were asked for
    parts/000000.json        written last: only now part 0 is finished. Sizes and checksums of its files

Every file is written aside, put on the disk, and renamed.
"""

from __future__ import annotations

import json
import os
import uuid
import warnings
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.atlases.errors import AtlasError
from workbench.atlases.lock import Lock

ABOUT, PARTS, LOCK = "atlas.json", "parts", "build.lock"
ASIDE = ".aside"
TABLES, KEPT = ("routing", "documents", "activations"), ("tokenizer", "vocabulary.parquet")
MOST, MOST_EXPERTS = 2**62, 2**22  # of a count in a record; of all layers: gpt-oss-120b has 4,608
WORDS = {
    "model": "model (its weights have another fingerprint)",
    "tokenizer": "tokenizer",
    "interventions": "interventions",
    "sources": "sources of the interventions",
    "sites": "sites",
    "store": "store",
    "max_length": "max_length",
    "part_tokens": "part_tokens",
    "version": "version of the workbench",
}


@dataclass(frozen=True)
class Part:
    """A finished part, as its record says.

    Attributes:
        digest: of its documents, as the corpus gave them.
        files: name in the folder → (bytes, CRC-32).
    """

    number: int
    first_document: int
    n_documents: int
    n_tokens: int
    n_skipped: int
    digest: str
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def record(self) -> str:
        """Its record's name in the folder."""
        return f"{PARTS}/{self.number:06}.json"


class Folder:
    """An atlas' folder.

    Args:
        path: it need not be there to be made.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    def lock(self) -> Lock:
        """For as long as something is written.

        Raises:
            AtlasError: something in the folder is a link, through which we would write elsewhere.
        """
        self._no_links()
        return Lock(self.path / LOCK)

    def _no_links(self) -> None:
        links = [name for name in (LOCK, ABOUT, PARTS, *TABLES, *KEPT) if (self.path / name).is_symlink()]
        if links:
            raise AtlasError(f"{', '.join(links)} in {self.path} leads elsewhere (a link): put there what it leads to")

    # ------------------------------------------------------------ reading
    def about(self) -> dict[str, Any] | None:
        """What atlas.json says; None where there is none.

        Raises:
            AtlasError: it is there and cannot be read, or is none of ours; or something in the folder is a link.
        """
        self._no_links()
        path = self.path / ABOUT
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise AtlasError(f"{path} cannot be read: {error}") from error
        if not isinstance(found, dict) or (wrong := _not_about(found)):
            raise AtlasError(f"{path} does not describe an atlas" + (f": {wrong}" if isinstance(found, dict) else ""))
        return found

    def parts(self, whole: bool = False) -> dict[int, Part]:
        """The finished parts by number. A part of which something is missing is left out, with a warning.

        Args:
            whole: read every byte and compare checksums; else names and sizes only.
        """
        found = {}
        for path in sorted((self.path / PARTS).glob("*.json")):
            part = _part(path)
            wrong = "its record cannot be read" if part is None else self._wrong(part, whole)
            if part is None or wrong:
                warnings.warn(
                    f"part {path.stem} of {self.path} is not whole ({wrong}) and is left out; "
                    "building the atlas again writes it anew",
                    stacklevel=3,
                )
            else:
                found[part.number] = part
        return found

    def _wrong(self, part: Part, whole: bool) -> str | None:
        for name, (size, check) in part.files.items():
            path = self.path / name
            if not path.is_file():
                return f"{name} is missing"
            if not path.resolve().is_relative_to(self.path.resolve()):
                return f"{name} leads elsewhere (a link)"
            if (there := path.stat().st_size) != size:
                return f"{name} has {there:,} bytes, expected {size:,}"
            if whole and _crc(path) != check:
                return f"{name} does not have its checksum"
        return None

    # ------------------------------------------------------------ writing
    def prepare(self, identity: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Make the folder of an atlas of this, or see that it is one already; sweep up what a killed build left.

        Raises:
            AtlasError: the folder holds an atlas of something else, or something else, or cannot be written to.
        """
        found = self.about()
        if found is not None:
            self._same(found["identity"], json.loads(json.dumps(identity)))  # tuples come back as lists
        elif self.path.is_dir() and any(path.name != LOCK and not _ours(path) for path in self.path.iterdir()):
            raise AtlasError(f"{self.path} is not empty and holds no atlas; give a folder of its own")
        for path in self.path.rglob(f"*{ASIDE}"):
            _away(path)
        if found is None:
            made = datetime.now(UTC).isoformat(timespec="seconds")
            self.say({"identity": dict(identity), **about, "made": made, "complete": None})

    def _same(self, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        other = [name for name in {*there, *wanted} if there.get(name) != wanted.get(name)]
        if other:
            named = ", ".join(sorted(WORDS.get(name, name) for name in other))
            shown = "; ".join(f"{n}: {there.get(n)!r:.80} there, {wanted.get(n)!r:.80} now" for n in sorted(other))
            raise AtlasError(
                f"{self.path} holds an atlas with another {named} ({shown}). Give another folder, or the same "
                "arguments to go on with it"
            )

    def say(self, about: Mapping[str, Any]) -> None:
        """Write atlas.json."""
        self.write(ABOUT, json.dumps(about, indent=1, ensure_ascii=False).encode())

    def add(self, part: Part, tables: Mapping[str, Any]) -> Part:
        """Put a part's files on the disk, and then its record.

        Args:
            tables: name of the table → its bytes as Parquet.

        Raises:
            AtlasError: the disk is full, or gone. What was finished before is as it was.
        """
        files = {}
        for table, data in tables.items():
            name = f"{table}/{part.number:06}.parquet"
            self.write(name, data)
            files[name] = (len(data), zlib.crc32(data))
        part = Part(**{**vars(part), "files": files})
        self.write(part.record, json.dumps(asdict(part)).encode())
        return part

    def write(self, name: str, data: Any) -> None:
        """A file, whole or not at all.

        Raises:
            AtlasError: it cannot be written.
        """
        target = self.path / name
        aside = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}{ASIDE}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, target)
            _sync(target.parent)
        except OSError as error:
            _away(aside)
            raise AtlasError(
                f"{target} cannot be written: {error.strerror or error}. What is finished is safe; make room, and "
                "build the atlas again with the same arguments to go on from there"
            ) from error


def _ours(path: Path) -> bool:
    """Whether a killed build left it before it wrote atlas.json."""
    return path.name.endswith(ASIDE) or path.name in KEPT


def _not_about(found: Mapping[str, Any]) -> str | None:
    """What is wrong with an atlas.json: it may be somebody else's."""
    identity, complete = found.get("identity"), found.get("complete")
    if not isinstance(identity, dict):
        return "identity is no object"
    sizes: dict[str, Any] = {name: found.get(name) for name in ("n_layers", "n_experts", "n_slots")}
    longest: Any = identity.get("max_length")
    sizes["max_length"] = longest
    if wrong := [f"{name} is {each!r:.40}" for name, each in sizes.items() if type(each) is not int or each < 1]:
        return f"{wrong[0]}, expected a whole number from 1"
    if sizes["n_layers"] * sizes["n_experts"] > MOST_EXPERTS or not sizes["n_slots"] <= sizes["n_experts"]:
        return f"{sizes['n_layers']} layers of {sizes['n_experts']} experts, {sizes['n_slots']} of them at once"
    if longest >= 2**31:
        return f"max_length is {longest!r:.40}, expected less than 2^31"
    lists = {"sites": identity.get("sites"), "interventions": found.get("interventions")}
    for name, each in lists.items():
        if not isinstance(each, list) or not all(isinstance(word, str) for word in each):
            return f"{name} is {each!r:.40}, expected a list of texts"
    if not isinstance(found.get("model"), str | None):
        return f"model is {found.get('model')!r:.40}, expected a name"
    if complete is not None and not (isinstance(complete, dict) and type(complete.get("n_parts")) is int):
        return f"complete is {complete!r:.40}, expected counts"
    return None


def _part(path: Path) -> Part | None:
    """A part's record; None for what is none of ours. It names its own files and nothing else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        files = {name: (size, check) for name, (size, check) in found["files"].items()}
        part = Part(**{**found, "files": files})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    counts = [*vars(part).values(), *(number for pair in files.values() for number in pair)]
    whole = all(type(n) is int and 0 <= n < MOST for n in counts if n is not part.digest and n is not part.files)
    ours = {f"{table}/{part.number:06}.parquet" for table in TABLES} if whole else set()
    fits = whole and isinstance(part.digest, str) and path.name == f"{part.number:06}.json"
    return part if fits and {*ours} - {f"activations/{part.number:06}.parquet"} <= set(files) <= ours else None


def _crc(path: Path) -> int:
    check = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            check = zlib.crc32(block, check)
    return check


def _sync(folder: Path) -> None:
    """Put a rename on the disk, where the system has that."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _away(path: Path) -> None:
    with suppress(OSError):  # then the next build sweeps it up
        path.unlink(missing_ok=True)
