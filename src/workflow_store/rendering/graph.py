"""What depends on what in a run, as its definition says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any, NamedTuple

from ..state import WorkflowStepState
from ..store import RunSnapshot

__all__ = ["Edge", "Graph", "Node", "graph"]


@dataclass(frozen=True)
class Node:
    """A step of the definition, of the run, or of both; or one that is only named.

    Attributes:
        step_id: its id, which in a definition may be any string.
        step: the step of the run; None where it has not been written.
        defined: whether the definition has it.
        needs: the positions of the nodes that it depends on, as the definition orders them.
        layer: how many nodes stand before it on the longest way to it, circles left out.
    """

    step_id: str
    step: WorkflowStepState | None
    defined: bool
    needs: tuple[int, ...]
    layer: int

    @property
    def is_unknown(self) -> bool:
        """Whether a step depends on it, and neither definition nor run has it."""
        return self.step is None and not self.defined


class Edge(NamedTuple):
    """A dependency: the step at `after` depends on the one at `before`, by their positions."""

    before: int
    after: int


@dataclass(frozen=True)
class Graph:
    """The dependencies of a run.

    Attributes:
        nodes: the steps of the definition in its order, those that only the run has in the
            run's order, and those that are only named.
        closing: the dependencies that close a circle: without them there is none.
    """

    nodes: list[Node]
    closing: frozenset[Edge]

    def edges(self) -> Iterator[Edge]:
        """Give all dependencies, those that close a circle included."""
        for position, node in enumerate(self.nodes):
            for need in node.needs:
                yield Edge(need, position)

    def layers(self) -> list[list[int]]:
        """Give the positions of the nodes by layer."""
        layers: list[list[int]] = [[] for _ in range(1 + max(node.layer for node in self.nodes))]
        for position, node in enumerate(self.nodes):
            layers[node.layer].append(position)
        return layers

    def unmet(self, node: Node) -> list[Node]:
        """Give what a node depends on that has not completed, in order."""
        needs = (self.nodes[need] for need in node.needs)
        return [need for need in needs if need.step is None or need.step.status != "completed"]


def graph(snapshot: RunSnapshot) -> Graph | None:
    """Find the dependencies of a run, in time that grows with their number.

    They are in `definition["steps"]`, a list of objects with an `id` and a `depends_on`: a
    list of ids, or one id.

    Args:
        snapshot: the run and its steps.

    Returns:
        None where the definition is not of this kind: where a step has no id or one that is
        taken, where a `depends_on` is something else, and where there is none at all.
    """
    needs = _needs_by_id(snapshot.run.definition.get("steps"))
    if needs is None:
        return None
    steps = {step.step_id: step for step in snapshot.steps}
    ids = [*dict.fromkeys([*needs, *steps, *(each for some in needs.values() for each in some)])]
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
        named = step.get("depends_on")
        if named is None:
            named = []
        elif isinstance(named, str):
            named = [named]
        if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
            return None
        needs[step_id] = [*dict.fromkeys(named)]
    return needs if any(needs.values()) else None


def _closing_edges(links: list[list[int]]) -> Iterator[Edge]:
    """Walk from each node along what it needs; what leads back onto the way closes a circle."""
    seen: set[int] = set()
    for start in range(len(links)):
        if start in seen:
            continue
        seen.add(start)
        way = {start: iter(links[start])}
        while way:
            node, needs = next(reversed(way.items()))
            for need in needs:
                if need in way:
                    yield Edge(need, node)
                elif need not in seen:
                    seen.add(need)
                    way[need] = iter(links[need])
                    break
            else:
                way.popitem()


def _layers(links: list[list[int]], closing: frozenset[Edge]) -> list[int]:
    layer = [0] * len(links)
    sorter = TopologicalSorter(
        {
            node: [need for need in needs if Edge(need, node) not in closing]
            for node, needs in enumerate(links)
        }
    )
    sorter.prepare()
    number = 0
    while ready := sorter.get_ready():
        for node in ready:
            layer[node] = number
        sorter.done(*ready)
        number += 1
    return layer
