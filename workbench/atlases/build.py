"""An atlas built: the parts that are not there yet go through the model, here or on an executor, and are added."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow
import torch
from tqdm.auto import tqdm

from workbench.atlases.corpus import Skipped
from workbench.atlases.documents import Document
from workbench.atlases.errors import AtlasError, CorpusError
from workbench.atlases.folder import Folder, Part
from workbench.atlases.plan import Planned, parts
from workbench.atlases.rows import Stopped, rows_of
from workbench.atlases.settings import Options, Settings, checked
from workbench.atlases.tables import tables_of, vocabulary
from workbench.atlases.workers import on_executor
from workbench.checkpoints import load_once, recipe_of
from workbench.model import HookedGptOss
from workbench.provenance import recording

if TYPE_CHECKING:
    from workbench.checkpoints import Recipe

Done = tuple[Planned, dict[str, bytes], int]  # the part, its tables, its tokens
Cancel = Any  # a threading.Event, or a function that gives true


def build(
    model: HookedGptOss | Recipe | str | Path,
    corpus: Iterator[Document | Skipped],
    folder: str | Path,
    options: Options,
    *,
    executor: Executor | None,
    progress: bool,
    cancel: Cancel,
) -> bool:
    """Build an atlas, or go on with it; arguments and errors are those of ``wb.atlas``. Returns whether it is whole."""
    recipe = None if executor is None and isinstance(model, HookedGptOss) else recipe_of(model)
    if not isinstance(model, HookedGptOss):
        assert recipe is not None
        model = load_once(recipe)
    settings = checked(model, options)
    place, stopped = Folder(folder), _stopped(cancel)
    try:
        place.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AtlasError(f"no atlas can be kept in {place.path}: {error.strerror or error}") from error
    identity, about = settings.identity(model), _about(model, settings)
    said = {"folder": str(place.path.resolve()), "interventions": about["interventions"]}
    with place.lock(), recording("atlas", about=said, model=about["model"], fingerprint=identity["model"]) as record:
        place.prepare(identity, about)
        _keep_tokenizer(model, place)
        with tqdm(desc="atlas", unit="token", unit_scale=True, disable=not progress) as bar:
            work = _Build(place, settings, bar, stopped)
            todo = work.unfinished(corpus, settings.part_tokens)
            try:
                if executor is None or recipe is None:
                    done = work.here(model, todo)
                else:
                    done = on_executor(executor, recipe, settings, todo, stopped)
                for part, tables, n_tokens in done:
                    work.add(part, tables, n_tokens, by_part=executor is not None)
            except Stopped:
                record.note(stopped=True)
                return False
            finally:
                record.note(parts=len(work.finished), tokens=sum(part.n_tokens for part in work.finished.values()))
            return work.finish()


class _Build:
    """One call of ``build``: which parts are there, and what was added."""

    def __init__(self, place: Folder, settings: Settings, bar: Any, stopped: Callable[[], bool]) -> None:
        self.place, self.settings, self.bar, self.stopped = place, settings, bar, stopped
        self.finished = place.parts(whole=True)
        self.seen = 0
        self.whole = False

    def unfinished(self, found: Iterator[Document | Skipped], part_tokens: int) -> Iterator[Planned]:
        """The parts that are not there, of a corpus of which those that are there must be the same."""
        for part in parts(found, part_tokens):
            self.seen += 1
            there = self.finished.get(part.number)
            if there is None:
                yield part
            elif there.digest != part.digest:
                first, last = part.first_document, part.first_document + max(len(part.documents), there.n_documents) - 1
                raise CorpusError(
                    f"{self.place.path} holds an atlas of another corpus: documents {first} to {last} (part "
                    f"{part.number}) are not what they were. Give another folder, or the corpus as it was"
                )
            else:
                self.bar.update(there.n_tokens)
            if self.stopped():
                raise Stopped
        beyond = [number for number in self.finished if number >= self.seen]
        if beyond:
            raise CorpusError(
                f"{self.place.path} holds an atlas of a longer corpus: {len(beyond)} of its parts come after "
                "the end of this one. Give another folder, or the corpus as it was"
            )
        if not self.seen:
            raise CorpusError("the corpus has no documents")
        self.whole = True

    def here(self, model: HookedGptOss, todo: Iterator[Planned]) -> Iterator[Done]:
        """Through the model in this process."""
        for part in todo:
            rows = rows_of(model, self.settings, part.documents, self.bar.update, self.stopped)
            yield part, tables_of(rows, part.documents, part.first_document), len(rows.tokens)

    def add(self, part: Planned, tables: dict[str, bytes], n_tokens: int, by_part: bool) -> None:
        """Put it on the disk."""
        record = Part(part.number, part.first_document, len(part.documents), n_tokens, part.n_skipped, part.digest)
        self.finished[part.number] = self.place.add(record, tables)
        if by_part:
            self.bar.update(n_tokens)

    def finish(self) -> bool:
        """Say that the corpus is at its end, and how much it was."""
        about = self.place.about()
        assert about is not None
        records = self.finished.values()
        names = ("n_documents", "n_tokens", "n_skipped")
        complete = {"n_parts": len(records)} | {name: sum(getattr(part, name) for part in records) for name in names}
        if complete["n_skipped"]:
            warnings.warn(
                f"{complete['n_skipped']} entries of the corpus are no documents, and were skipped", stacklevel=4
            )
        if about["complete"] != complete:
            self.place.say(about | {"complete": complete})
        return self.whole


def _stopped(cancel: Cancel) -> Callable[[], bool]:
    if cancel is None:
        return lambda: False
    return cancel.is_set if hasattr(cancel, "is_set") else cancel


def _about(model: HookedGptOss, settings: Settings) -> dict[str, Any]:
    """What is not needed to tell an atlas from another, and good to know."""
    config = model.config
    return {
        "model": config.name,
        "n_layers": config.n_layers,
        "n_experts": config.n_experts,
        "n_slots": config.experts_per_token,
        "batch_tokens": settings.batch_tokens,
        "interventions": [repr(spec) for spec in settings.interventions],
        "recipe": model.loaded_by,
        "versions": {
            "torch": torch.__version__,
            "duckdb": duckdb.__version__,
            "pyarrow": pyarrow.__version__,
            "numpy": np.__version__,
        },
    }


def _keep_tokenizer(model: HookedGptOss, place: Folder) -> None:
    if model.tokenizer is None or (place.path / "vocabulary.parquet").exists():
        return
    with TemporaryDirectory() as made:  # the tokenizer writes where it likes; here each file is put down whole
        model.tokenizer.save(made)
        for path in sorted(Path(made).rglob("*")):
            if path.is_file():
                place.write(f"tokenizer/{path.relative_to(made).as_posix()}", path.read_bytes())
    place.write("vocabulary.parquet", vocabulary(model.tokenizer))
