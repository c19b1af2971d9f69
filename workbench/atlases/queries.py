"""An atlas that is there: asked with SQL, and with the questions that come up most. It needs no model and no torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from workbench.atlases import compare, contexts, spread
from workbench.atlases.contexts import Context
from workbench.atlases.database import Database, quoted_name, reading
from workbench.atlases.errors import AtlasError
from workbench.atlases.folder import Folder

if TYPE_CHECKING:
    import pandas as pd

    from workbench.text import Tokenizer


class Atlas:
    """Where every token of a corpus was routed, of the parts that are finished.

    Args:
        folder: as ``wb.atlas`` made it. Parts that a build adds meanwhile are not seen: open it again.

    Attributes:
        about: model, fingerprints, settings, versions, counts.
        n_tokens, n_documents: in the finished parts.
        complete: whether the whole corpus is in it.
        layers: their numbers.
        n_experts, n_slots: of a layer, and how many a token goes to.
        max_length: tokens of a window. A token at ``position`` of its document was run with ``position % max_length``
            tokens before it: a longer document is cut into windows that do not see each other.

    Raises:
        AtlasError: there is no atlas, or no finished part of one.
    """

    def __init__(self, folder: str | Path) -> None:
        place = Folder(folder)
        found = place.about()
        if found is None:
            raise AtlasError(
                f"there is no atlas in {str(folder)!r}: wb.atlas(model, corpus, {str(folder)!r}) builds one"
            )
        self.parts = parts = [part for _, part in sorted(place.parts().items())]
        if not parts:
            raise AtlasError(f"no part of the atlas in {str(folder)!r} is finished yet")
        self.folder = place.path
        self.n_tokens = sum(part.n_tokens for part in parts)
        self.n_documents = sum(part.n_documents for part in parts)
        done = found.get("complete")
        self.complete = done is not None and done["n_parts"] == len(parts)
        self.n_experts, self.n_slots = int(found["n_experts"]), int(found["n_slots"])
        self.layers = tuple(range(found["n_layers"]))
        self.max_length = int(found["identity"]["max_length"])
        counts = {"n_tokens": self.n_tokens, "n_documents": self.n_documents, "n_parts": len(parts)}
        counts |= {"n_skipped": sum(part.n_skipped for part in parts), "n_bytes": _bytes(parts)}
        self.about: dict[str, Any] = found | counts | {"complete": self.complete, "folder": str(self.folder)}
        self.database = Database(self.folder, parts, self.n_slots, self.max_length)

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer, which is kept in the atlas; None if the model had none."""
        from workbench.text import Tokenizer

        path = self.folder / "tokenizer"
        return Tokenizer.from_directory(path) if path.is_dir() else None

    def sql(self, question: str, parameters: Any = None) -> pd.DataFrame:
        """The answer of DuckDB to any question.

        ``atlas.sql("select expert, count(*) from routing where layer = 2 group by expert")``. The tables:
        routing, a row a route (token, layer, slot, expert, weight, role, channel, document, position, context, domain,
        language); routes, the same with a row a token and layer, and the slots as columns expert_0, weight_0, …;
        documents (document, id, domain, language, n_tokens, digest); vocabulary (token, text); activations (document,
        position, token and a column a site), if there are any.

        Args:
            parameters: values for the question marks in the question.

        Raises:
            AtlasError: DuckDB does not take it.
        """
        return self.database.ask(question, parameters)

    @reading("top")
    def top(
        self,
        layer: int,
        expert: int,
        n: int = 20,
        by: str = "weight",
        per_document: int | None = None,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Where an expert fires hardest.

        Args:
            by: "weight", the largest first, ties in the order of the corpus; "random" for any of its tokens, evenly.
            per_document: at most so many of one document.
            seed: of "random".

        Returns:
            document, id, position, token, text, weight, slot, role, channel, domain, language of at most n tokens. A
            large weight says that the router prefers the expert there, not that what it writes matters.
        """
        return contexts.top(self, layer, expert, n, by, per_document, seed)

    @reading("contexts")
    def contexts(
        self,
        layer: int,
        expert: int,
        n: int = 20,
        before: int = 12,
        after: int = 6,
        by: str = "weight",
        per_document: int | None = None,
        seed: int = 0,
    ) -> list[Context]:
        """The text round each token of :meth:`top`, with this expert's weight at each of its tokens.

        Args:
            before, after: how many tokens of the same document are shown on either side, where there are so many.
        """
        found = self.top(layer, expert, n, by, per_document, seed)
        return contexts.contexts(self, found, layer, expert, before, after)

    @reading("load")
    def load(self) -> xr.Dataset:
        """How the corpus is spread: count, load, route_share, mean_weight and weight_share (layer, expert), and
        entropy (layer), 1 where all experts have as many tokens.

        ``load`` is the share of tokens that go to an expert: a layer's loads sum to the number of slots, and an even
        spread is the attribute ``even_load``. ``route_share`` sums to 1.
        """
        return spread.load(self)

    @reading("specialisation")
    def specialisation(self, by: str = "domain", level: float = 0.95) -> xr.Dataset:
        """Which experts serve which part of a corpus.

        Args:
            by: "domain", "language", "role", "channel" or "document". What has none is the group "".
            level: of the intervals.

        Returns:
            share (layer, expert, by), of the group's tokens those that go to the expert (N_i^D / N^D of OLMoE, arXiv
            2409.02060); composition, P(group | expert); lift = P(group | expert) / P(group), 1 for an expert that does
            not care; counts, and the tokens and documents of each group. Tokens of a document are alike, so that the
            intervals count whole documents: NaN for a group that is in one document only. They are of one cell each:
            among many cells some lie outside by chance.
        """
        return spread.specialisation(self, by, level)

    @reading("coactivation")
    def coactivation(self, layer: int) -> xr.Dataset:
        """Which experts serve the same tokens: count, share, lift and pmi (expert, other).

        Slots are few, so that experts that nothing joins have less than a lift of 1: a token that goes to one has a
        slot less for the others.
        """
        return spread.coactivation(self, layer)

    @reading("neighbours")
    def neighbours(self, layer: int, expert: int, n: int = 5) -> pd.DataFrame:
        """The experts that an expert shares the most tokens with for their loads: expert, count, share, lift, pmi."""
        return spread.neighbours(self, layer, expert, n)

    @reading("activations")
    def activations(self, site: str, documents: Sequence[int] | None = None) -> xr.DataArray:
        """What a site held at each token, of some documents (by number) or all: [row value], in memory.

        Its coordinates say the document, the position and the token id of each row; axes of the site after pos are
        one, in their order.

        Raises:
            AtlasError: the atlas was built without this site.
        """
        kept = self.about["identity"]["sites"]
        if site not in kept:
            raise AtlasError(
                f"this atlas does not keep {site!r}; it keeps {kept or 'no activations'}: build it with sites="
            )
        some = "" if documents is None else f"where document in ({', '.join(str(int(d)) for d in documents) or 'null'})"
        found = self.database.ask_arrow(
            f"select document, position, token, {quoted_name(site)} as found from activations {some} "
            "order by document, position"
        )
        values = found["found"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        rows = {name: ("row", found[name].to_numpy()) for name in ("document", "position", "token")}
        shape = (len(found), -1) if len(found) else (0, 0)
        return xr.DataArray(values.reshape(shape), rows, ("row", "value"), site, self.provenance("activations"))

    @reading("compare")
    def compare(self, other: Atlas, n: int = 50) -> xr.Dataset:
        """What changed from this atlas to another of the same documents; see ``wb.atlas.compare``."""
        return compare.compare(self, other, n)

    # ------------------------------------------------------------ for the parts of this package
    def check(self, *, layer: int, expert: int = 0) -> None:
        """Refuse a layer or an expert that the model does not have."""
        for what, given, size in (("layer", layer, len(self.layers)), ("expert", expert, self.n_experts)):
            if not isinstance(given, int | np.integer) or isinstance(given, bool) or not 0 <= given < size:
                raise AtlasError(f"{what}={given!r}: this atlas has {what}s 0 to {size - 1}")

    def texts(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Token ids as printable strings."""
        with reading("texts"):
            words = self._words
        return [words.get(int(i), str(int(i))) for i in ids]

    @cached_property
    def _words(self) -> dict[int, str]:
        found = self.database.ask("select token, text from vocabulary")
        pairs = zip(found["token"].tolist(), found["text"].tolist(), strict=True)
        return {token: text if isinstance(text, str) else str(token) for token, text in pairs}

    def provenance(self, experiment: str) -> dict[str, Any]:
        """Attributes of what is computed from it."""
        return {
            "experiment": f"atlas.{experiment}",
            "model": self.about["model"],
            "fingerprint": self.about["identity"]["model"],
            "interventions": "; ".join(self.about["interventions"]),
            "n_tokens": self.n_tokens,
            "n_documents": self.n_documents,
        }

    def close(self) -> None:
        """Let go of the files."""
        self.database.close()

    def __enter__(self) -> Atlas:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self.complete else ", unfinished"
        edits = f", {len(self.about['interventions'])} interventions" if self.about["interventions"] else ""
        return (
            f"Atlas({self.about['model']}: {self.n_tokens:,} tokens of {self.n_documents:,} documents, "
            f"{len(self.layers)} layers × {self.n_experts} experts{edits}{state}; {str(self.folder)!r})"
        )


def _bytes(parts: list[Any]) -> int:
    return sum(size for part in parts for size, _ in part.files.values())
