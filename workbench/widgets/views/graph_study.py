"""What is traced: which tokens' logits, after which text, with how many nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.experiments.nodes import Node
from workbench.interventions import (
    AblateExpert,
    AblateHead,
    AblateSite,
    Intervention,
    KnockOut,
    Patch,
    PatchExpert,
)
from workbench.widgets.session import Session

TARGETS = ("difference", "token")
NODES = (25, 50, 100, 200, 400)
LIKELY = 6  # next tokens that are offered as the target


@dataclass(frozen=True)
class Study:
    """One graph.

    Attributes:
        prompt: its name.
        tokens: of the prompt, to the position whose logits are traced.
        ids: one token, or the right and the wrong one.
        n_nodes: how many nodes are kept.
    """

    prompt: str
    tokens: tuple[int, ...]
    ids: tuple[int, ...]
    n_nodes: int

    @property
    def key(self) -> tuple[Any, ...]:
        """What the tracing depends on: other numbers of nodes come from the same."""
        return self.tokens, self.ids

    @property
    def position(self) -> int:
        """Whose logits are traced."""
        return len(self.tokens) - 1

    @property
    def target(self) -> Any:
        """As experiments take it."""
        return self.ids if len(self.ids) == 2 else self.ids[0]

    def words(self, session: Session) -> str:
        """The target, in words."""
        return " − ".join(f"logit of ‘{session.word(token)}’" for token in self.ids)


def study_of(session: Session, choice: dict[str, Any]) -> Study:
    """What these options say of the state as it is."""
    prompt = session.state.prompt(prompt_of(session))
    position = choice["position"]
    last = len(prompt.tokens) - 1
    position = last if position is None or position > last else position
    right, wrong = answer(session, prompt.name, position)
    token = choice["token"]
    ids = (right, wrong) if choice["target"] == "difference" else (right if token is None else token,)
    return Study(prompt.name, prompt.tokens[: position + 1], ids, choice["n_nodes"])


def prompt_of(session: Session) -> str:
    """The prompt that the graph is of: the one that is shown, or that the shown interventions act on."""
    names = {prompt.name for prompt in session.state.prompts}
    return session.state.shown if session.state.shown in names else session.state.subject


def answer(session: Session, prompt: str, position: int) -> tuple[int, int]:
    """The tokens that are weighed: those chosen, else the two likeliest after that position of the unedited text."""
    if session.state.answer is not None:
        return session.state.answer
    right, wrong = (token for token, _ in likely(session, prompt, position)[:2])
    return right, wrong


def likely(session: Session, prompt: str, position: int) -> list[tuple[int, float]]:
    """The likeliest next tokens after a position, with their probabilities."""

    def make() -> list[tuple[int, float]]:
        found = session.run(prompt).logits[0, position].detach().float().softmax(-1).topk(LIKELY)
        return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))

    return session.memo(("likely", prompt, position), make)


# ---------------------------------------------------------------- touching


def ablation(name: str, everywhere: bool = False) -> Intervention:
    """A node without what it writes, at its position or at all.

    Raises:
        ValueError: for a name that is no node's.
    """
    node = Node.parse(name)
    positions = None if everywhere or node.pos is None else (node.pos,)
    if node.kind == "head":
        return AblateHead(_whole(node.layer), _whole(node.index), positions=positions)
    if node.kind == "expert":
        return AblateExpert(_whole(node.layer), _whole(node.index), "zero", positions)
    return AblateSite("hook_embed", positions=positions)


def patch(name: str, source: str) -> Intervention:
    """A node that writes, at its position, what it writes in another prompt's run."""
    node = Node.parse(name)
    positions = None if node.pos is None else (node.pos,)
    if node.kind == "expert":
        return PatchExpert(_whole(node.layer), _whole(node.index), source, positions)
    if node.kind == "head":
        return Patch(f"blocks.{node.layer}.attn.hook_z", source, positions, component=node.index)
    return Patch("hook_embed", source, positions)


def knock_out(source: str, target: str) -> tuple[Intervention, str]:
    """What comes nearest to an edge's removal among interventions, and what it is in words.

    Into a head: its attention edge, with all that stands at the source's position. Into an expert: the expert, at that
    token. Into the logits: the source's write, at its position.
    """
    start = Node.parse(source)
    if target == "logits":
        return ablation(source), f"{source} writes nothing"
    end = Node.parse(target)
    if end.kind == "head":
        edge = ((end.pos, start.pos),)
        spec = KnockOut(_whole(end.layer), edge, end.index, "drop")
        return spec, f"head {end.index} of layer {end.layer} reads nothing of position {start.pos} at {end.pos}"
    return ablation(target), f"{target} writes nothing"


def touched(spec: Intervention, node: Node) -> bool:
    """Whether an intervention acts on a node itself."""
    site = str(getattr(spec, "site", ""))
    if isinstance(spec, KnockOut):
        queries = [query for query, _ in spec.edges]
        here = None in queries or node.pos in queries
    else:
        positions = getattr(spec, "positions", None)
        here = positions is None or node.pos in positions
    if not here:
        return False
    if node.kind == "embed":
        return site == "hook_embed"
    if getattr(spec, "layer", None) == node.layer and getattr(spec, node.kind, -1) in (node.index, None):
        return True
    return (
        node.kind == "head"
        and site == f"blocks.{node.layer}.attn.hook_z"
        and (getattr(spec, "component", None) in (node.index, None))
    )


def _whole(value: int | None) -> int:
    assert value is not None
    return value
