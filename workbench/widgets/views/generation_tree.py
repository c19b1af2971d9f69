"""A tree of continuations as plain data: each node a token after its parent, and what was on when it came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.interventions import Intervention, as_dict, from_dict

ROOT = 0
MOST_NODES = 5_000


@dataclass(frozen=True)
class Node:
    """One token of a continuation.

    Attributes:
        parent: the node before it; ROOT is the end of the prompt.
        token: its id.
        specs: the interventions that were on in the pass that it was taken from.
    """

    id: int
    parent: int
    token: int
    specs: tuple[Intervention, ...] = ()


@dataclass(frozen=True)
class Tree:
    """Continuations of one prompt.

    Attributes:
        prompt: its tokens; a tree over another prompt is no tree of this one.
        nodes: by number, parents before their children.
    """

    prompt: tuple[int, ...]
    nodes: Mapping[int, Node] = field(default_factory=dict)

    def add(self, parent: int, token: int, specs: Sequence[Intervention] = ()) -> tuple[Tree, int]:
        """The tree with a child more, and its number; the child that is there where it is the same token and specs.

        Raises:
            ValueError: for a parent that is not there, or a tree that is full.
        """
        self.check(parent)
        for child in self.children(parent):
            if child.token == token and child.specs == tuple(specs):
                return self, child.id
        if len(self.nodes) >= MOST_NODES:
            raise ValueError(f"the tree has {MOST_NODES} tokens; take some away before you add more")
        id = max(self.nodes, default=ROOT) + 1
        return replace(self, nodes={**self.nodes, id: Node(id, parent, token, tuple(specs))}), id

    def without(self, id: int) -> Tree:
        """The tree without a node and all that follows it; the root: an empty tree."""
        self.check(id)
        gone = {id} if id != ROOT else {ROOT}
        for node in self.nodes.values():  # parents come first
            if node.parent in gone:
                gone.add(node.id)
        return replace(self, nodes={key: node for key, node in self.nodes.items() if key not in gone})

    def children(self, id: int) -> Iterator[Node]:
        """The tokens after a node, oldest first."""
        return (node for node in self.nodes.values() if node.parent == id)

    def path(self, id: int) -> list[Node]:
        """The nodes from the first after the prompt to this one."""
        self.check(id)
        made: list[Node] = []
        while id != ROOT:
            made.append(self.nodes[id])
            id = self.nodes[id].parent
        return made[::-1]

    def tokens(self, id: int) -> tuple[int, ...]:
        """The prompt and what was added to it, up to a node."""
        return (*self.prompt, *(node.token for node in self.path(id)))

    def leaves(self) -> list[int]:
        """Nodes that nothing follows."""
        parents = {node.parent for node in self.nodes.values()}
        return [id for id in self.nodes if id not in parents]

    def check(self, id: int) -> None:
        """Refuse a node that is not there.

        Raises:
            ValueError: naming the last that is.
        """
        if id != ROOT and id not in self.nodes:
            raise ValueError(f"the tree has no node {id}; it has 0 (the prompt) to {max(self.nodes, default=0)}")

    def rows(self) -> list[list[int]]:
        """Its nodes in rows, as it is drawn: the first child goes on in its parent's row, others begin rows below it,
        those that fork off last nearest to it."""
        children: dict[int, list[int]] = {}
        for node in self.nodes.values():
            children.setdefault(node.parent, []).append(node.id)
        made: list[list[int]] = []
        waiting = children.get(ROOT, [])[::-1]
        while waiting:
            row = [waiting.pop()]
            while after := children.get(row[-1]):
                waiting += after[:0:-1]
                row.append(after[0])
            made.append(row)
        return made

    def as_data(self) -> dict[str, Any]:
        """Plain data, for a file."""
        specs = list(dict.fromkeys(node.specs for node in self.nodes.values()))
        return {
            "prompt": list(self.prompt),
            "specs": [[as_dict(spec) for spec in each] for each in specs],
            "nodes": [[node.id, node.parent, node.token, specs.index(node.specs)] for node in self.nodes.values()],
        }

    @classmethod
    def from_data(cls, given: Any) -> Tree:
        """What :meth:`as_data` made.

        Raises:
            ValueError: for anything else.
        """
        try:
            specs = [tuple(from_dict(spec) for spec in each) for each in given["specs"]]
            tree = cls(tuple(_whole(given["prompt"])))
            nodes: dict[int, Node] = {}
            for entry in given["nodes"]:
                id, parent, token, which = _whole(entry)
                if (parent != ROOT and parent not in nodes) or id in nodes or id <= parent:
                    raise ValueError(f"node {id} after {parent} is no tree")
                nodes[id] = Node(id, parent, token, specs[which])
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"this is no tree of continuations: {error}") from None
        if len(nodes) > MOST_NODES:
            raise ValueError(f"a tree has at most {MOST_NODES} tokens: this has {len(nodes)}")
        return replace(tree, nodes=nodes)


def _whole(values: Iterable[Any]) -> list[int]:
    made = list(values)
    if not all(type(value) is int and value >= 0 for value in made):
        raise TypeError(f"expected whole numbers, got {made[:5]!r}")
    return made


def difference(first: Sequence[Node], second: Sequence[Node]) -> dict[str, Any]:
    """Two continuations: how many tokens they share from the start, by their tokens, and the rest of each."""
    shared = 0
    while shared < min(len(first), len(second)) and first[shared].token == second[shared].token:
        shared += 1
    return {"shared": shared, "first": [n.id for n in first[shared:]], "second": [n.id for n in second[shared:]]}
