"""The dependencies between the steps of a run, read from its definition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import chain
from typing import Any, NamedTuple

from ..state import WorkflowStepState
from ..store import RunSnapshot

__all__ = ["Edge", "Graph", "Node", "Siblings", "graph"]


@dataclass(frozen=True)
class Node:
    """A step of the definition or the run, or an unknown dependency.

    Attributes:
        step_id: its id; in a definition, any string.
        step: the step of the run; None if it has not been written.
        defined: whether the definition has it.
        needs: the positions of the nodes that it depends on, in the definition's order.
        layer: the length of the longest path to it, ignoring edges that close a cycle.
    """

    step_id: str
    step: WorkflowStepState | None
    defined: bool
    needs: tuple[int, ...]
    layer: int


class Edge(NamedTuple):
    """A dependency: the node at position `after` depends on the node at position `before`."""

    before: int
    after: int


class Siblings(NamedTuple):
    """Nodes of one layer with the same dependencies.

    Attributes:
        layer: the number of the layer, from 1.
        nodes: the nodes.
        needs: their dependencies, each with whether it closes a cycle.
    """

    layer: int
    nodes: list[Node]
    needs: list[tuple[Node, bool]]


@dataclass(frozen=True)
class Graph:
    """The dependencies of a run.

    Attributes:
        nodes: the steps of the definition in its order, the other steps of the run in theirs,
            and the unknown dependencies.
        closing: the edges that close a cycle; without them the graph is acyclic.
    """

    nodes: list[Node]
    closing: frozenset[Edge]

    def edges(self) -> Iterator[Edge]:
        """Yield all dependencies, including those that close a cycle."""
        for position, node in enumerate(self.nodes):
            for need in node.needs:
                yield Edge(need, position)

    def layers(self) -> list[list[int]]:
        """Return the positions of the nodes by layer."""
        layers: list[list[int]] = [[] for _ in range(1 + max(node.layer for node in self.nodes))]
        for position, node in enumerate(self.nodes):
            layers[node.layer].append(position)
        return layers

    def siblings(self) -> Iterator[Siblings]:
        """Yield the nodes, layer by layer, grouped by their dependencies."""
        for number, layer in enumerate(self.layers(), start=1):
            groups: dict[tuple[tuple[int, bool], ...], list[Node]] = {}
            for position in layer:
                node = self.nodes[position]
                needs = tuple((need, Edge(need, position) in self.closing) for need in node.needs)
                groups.setdefault(needs, []).append(node)
            for needs, nodes in groups.items():
                yield Siblings(number, nodes, [(self.nodes[at], closes) for at, closes in needs])

    def unmet(self, node: Node) -> list[Node]:
        """Return the dependencies of a node that have not completed, in order."""
        needs = (self.nodes[need] for need in node.needs)
        return [need for need in needs if need.step is None or need.step.status != "completed"]


def graph(snapshot: RunSnapshot) -> Graph | None:
    """Return the dependencies of a run, in linear time.

    They are read from `definition["steps"]`, a list of objects with an `id` and a `depends_on`
    that is an id or a list of ids.

    Args:
        snapshot: the run and its steps.

    Returns:
        None if the definition has another form (an id is missing or repeated, or a `depends_on`
        is something else), or has no dependencies.
    """
    needs = _needs_by_id(snapshot.run.definition.get("steps"))
    if needs is None:
        return None
    steps = {step.step_id: step for step in snapshot.steps}
    ids = [*dict.fromkeys(chain(needs, steps, *needs.values()))]
    position = {step_id: index for index, step_id in enumerate(ids)}
    links = [[position[need] for need in needs.get(step_id, [])] for step_id in ids]
    closing = frozenset(_closing_edges(links))
    layer = _layers(links, closing)
    return Graph(
        [
            Node(step_id, steps.get(step_id), step_id in needs, tuple(links[at]), layer[at])
            for at, step_id in enumerate(ids)
        ],
        closing,
    )


def _needs_by_id(steps: Any) -> dict[str, list[str]] | None:
    if not isinstance(steps, list):
        return None
    needs: dict[str, list[str]] = {}
    for step in steps:
        step_id = step.get("id") if isinstance(step, dict) else None
        if not isinstance(step_id, str) or step_id in needs:
            return None
        depends_on = step.get("depends_on")
        if depends_on is None:
            depends_on = []
        elif isinstance(depends_on, str):
            depends_on = [depends_on]
        if not isinstance(depends_on, list) or not all(isinstance(id_, str) for id_ in depends_on):
            return None
        needs[step_id] = [*dict.fromkeys(depends_on)]
    return needs if any(needs.values()) else None


def _closing_edges(links: list[list[int]]) -> Iterator[Edge]:
    """Yield the back edges of a depth-first search, without recursion."""
    seen: set[int] = set()
    for start in range(len(links)):
        if start in seen:
            continue
        seen.add(start)
        path = {start: iter(links[start])}
        while path:
            node, needs = next(reversed(path.items()))
            for need in needs:
                if need in path:
                    yield Edge(need, node)
                elif need not in seen:
                    seen.add(need)
                    path[need] = iter(links[need])
                    break
            else:
                path.popitem()


def _layers(links: list[list[int]], closing: frozenset[Edge]) -> list[int]:
    acyclic = {
        node: [need for need in needs if Edge(need, node) not in closing]
        for node, needs in enumerate(links)
    }
    layer = [0] * len(links)
    for node in TopologicalSorter(acyclic).static_order():
        layer[node] = max((layer[need] + 1 for need in acyclic[node]), default=0)
    return layer
