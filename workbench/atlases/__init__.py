"""Where every token of a corpus was routed: written once as Parquet, asked with SQL.

| file | what |
|---|---|
| corpus.py, documents.py | files, folders, datasets and lists, read a document at a time |
| plan.py, build.py, workers.py | a corpus in parts, each run and written once, here or on an executor |
| rows.py, tables.py | documents through the model; the rows as Parquet |
| folder.py, lock.py, settings.py | what is on disk, and what it is of |
| queries.py, database.py | an atlas that is there, and its tables |
| contexts.py, spread.py, compare.py | where experts fire, how the corpus is spread over them, what changed |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.atlases.errors import AtlasError, CorpusError
from workbench.atlases.settings import Options

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import xarray as xr

    from workbench.atlases.corpus import Bad, Given
    from workbench.atlases.queries import Atlas

__all__ = ["AtlasError", "CorpusError", "atlas"]


class _Atlases:
    """``wb.atlas``: builds an atlas when it is called; ``open`` and ``compare`` are for those that are there."""

    def __call__(
        self,
        model: Any,
        corpus: Any,
        folder: str | Path,
        *,
        domain: Given = None,
        language: Given = None,
        sites: str | Sequence[str] = (),
        interventions: Sequence[Any] = (),
        sources: Mapping[str, Any] | None = None,
        store: str = Options.store,
        batch_tokens: int = Options.batch_tokens,
        max_length: int | None = Options.max_length,
        part_tokens: int | None = Options.part_tokens,
        bad: Bad = "raise",
        executor: Executor | None = None,
        progress: bool = True,
        cancel: Any = None,
    ) -> Atlas:
        """Run a corpus through a model and keep where every token was routed; or go on with what was begun.

        The corpus is read as a stream and never whole in memory, run in batches of documents of like length, and
        written in parts. A part is there whole or not at all: a build that was killed goes on where it was when it is
        called again in the same way, and does no finished part again.

        Args:
            model: a model, or "nano", a folder or a Recipe as ``wb.sweep`` takes them.
            corpus: texts, Chats, rows of token ids or mappings, in a list, a generator or a Hugging Face dataset; a
                ``.txt``, ``.jsonl`` or ``.parquet`` file or a folder of them; or a mapping of domain → one of these.
                :func:`workbench.atlases.corpus.documents` says what each may hold. Text is read as ``wb.run`` reads it:
                a special token that is spelled out is that token. A Chat is rendered as the model sees it at its
                end: thinking that led to an earlier final answer is left out.
            folder: where the atlas is, a folder of its own.
            domain, language: of documents that name none: a word, a list of one a document, or a function of the
                Document.
            sites: floating-point sites whose activations are kept too, such as ``blocks.3.hook_resid_post``: a vector
                a token, which is much more than the routing.
            interventions: specs that are carried out in every pass; positions are counted in each window.
            sources: name → vector, for the specs that read one.
            store: "float32", or "float16" for activations half as large.
            batch_tokens: most tokens in one pass, padding counted.
            max_length: tokens of a window; a longer document is cut into windows that do not see each other. 1024, or
                the model's longest context if that is less.
            part_tokens: about how many tokens are written at once: what a killed build does again. Smaller for a slow
                model. By default 65,536, and less where activations are kept.
            bad: "raise" at an entry of the corpus that is no document, or "skip" and count it.
            executor: any ``concurrent.futures.Executor``, to have parts run by its workers, each of which loads the
                model once. What travels back is Parquet; the folder is written here. Processes on one machine need a
                thread each: ``ProcessPoolExecutor(2, mp_context=get_context("spawn"),
                initializer=torch.set_num_threads, initargs=(1,))``.
            progress: show a bar.
            cancel: an Event, or a function that gives true, to stop before the next pass; finished parts stay.

        Returns:
            The Atlas, of what is finished: ``atlas.complete`` says whether that is all.

        Raises:
            AtlasError: the folder holds an atlas of another model, other settings or specs, or another build is at
                work in it; it cannot be written; an argument does not fit.
            CorpusError: an entry that is no document, naming its file and line; or a corpus that is not the one that
                the finished parts are of.
        """
        from workbench.atlases.build import build
        from workbench.atlases.corpus import entries

        options = Options(
            sites=sites, interventions=interventions, sources=sources, store=store, batch_tokens=batch_tokens,
            max_length=max_length, part_tokens=part_tokens,
        )  # fmt: skip
        documents = entries(corpus, domain, language, bad)
        build(model, documents, folder, options, executor=executor, progress=progress, cancel=cancel)
        return self.open(folder)

    def open(self, folder: str | Path) -> Atlas:
        """An atlas that is there, or what is finished of it; to read only, and without the model.

        Raises:
            AtlasError: there is none, or nothing of it is finished.
        """
        from workbench.atlases.queries import Atlas

        return Atlas(folder)

    def compare(self, a: Atlas | str | Path, b: Atlas | str | Path, n: int = 50) -> xr.Dataset:
        """What changed from one atlas to another of the same documents: of two models, or of one before and after an
        intervention.

        Args:
            n: how many of the most changed tokens are listed.

        Returns:
            set_agreement, first_agreement, overlap (layer): of the same token, whether the set of its experts is the
            same, whether the strongest is, and the share of routes that both have. jensen_shannon (layer), in bits,
            of the experts' shares of routes. load_a, load_b, load_change (layer, expert); kept (layer, expert), of the
            expert's tokens in ``a`` those that it has in both. changed_routes (changed) with document, position, token
            and text: the places where most routes went elsewhere, over all layers; type_share and type_count (type)
            with type_token and type_text: the token ids of which the largest share did (seen at least 5 times).

        Raises:
            AtlasError: for atlases of other documents, another tokenizer or another shape.
        """
        from workbench.atlases.compare import compare
        from workbench.atlases.queries import Atlas

        opened = [given if isinstance(given, Atlas) else self.open(given) for given in (a, b)]
        return compare(opened[0], opened[1], n)

    def __repr__(self) -> str:
        return "wb.atlas(model, corpus, folder) builds an atlas; wb.atlas.open(folder) and wb.atlas.compare(a, b) read"


atlas = _Atlases()
