"""Layout of a graph in layers, from left to right, as boxes and paths for an SVG.

It is a layered (Sugiyama) layout: https://en.wikipedia.org/wiki/Layered_graph_drawing. Nodes of a
layer are ordered by the mean position of their neighbours, and moved as close to it as the gap
between them allows. An edge that spans several layers has a lane in each; edges from the same
node share their lanes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from rich.cells import cell_len, set_cell_size

from .escaping import escape_invisible
from .graph import Edge, Graph, Node
from .status_styles import style_of

__all__ = ["MAX_EDGES", "MAX_NODES", "Arrow", "Box", "Drawing", "layout"]

MAX_NODES = 60
MAX_EDGES = 400
"""The drawing of a larger graph is illegible."""

_MAX_LABEL_CELLS = 28
_CELL = 7.5  # in a monospaced font of 12 pixels, a cell is 7.2 pixels wide
_HEIGHT = 32.0
_GAP = 14.0
_LANE = 10.0
_PADDING = 10.0
_LAYER_GAP = 36.0
_ARROW_HEAD = 6.0
_BACK_EDGE_MARGIN = 24.0
_MARGIN = 6.0
_SWEEPS = 2

_Slot = tuple[int, int]
"""A node's position and a layer: its box in its own layer, the lane of its edges in others."""


@dataclass(frozen=True)
class Box:
    """The box of a node, in pixels."""

    node: Node
    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Arrow:
    """A dependency: its SVG path, and whether it closes a cycle."""

    path: str
    closes: bool


@dataclass(frozen=True)
class Drawing:
    """The drawing of a graph, in pixels."""

    width: float
    height: float
    boxes: list[Box]
    arrows: list[Arrow]


def layout(graph: Graph) -> Drawing | None:
    """Return the drawing of a graph, None if it exceeds `MAX_NODES` or `MAX_EDGES`."""
    if len(graph.nodes) > MAX_NODES or sum(1 for _ in graph.edges()) > MAX_EDGES:
        return None
    return _Layout(graph).drawing()


class _Layout:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._layers: list[list[_Slot]] = [
            [(position, number) for position in layer]
            for number, layer in enumerate(graph.layers())
        ]
        self._before: dict[_Slot, list[_Slot]] = {}
        self._after: dict[_Slot, list[_Slot]] = {}
        self._forward = [edge for edge in graph.edges() if edge not in graph.closing]
        for edge in self._forward:
            self._connect(edge)
        self._order()
        self._middle = self._middles()

    def _layer(self, position: int) -> int:
        return self._graph.nodes[position].layer

    def _slots(self, edge: Edge) -> list[_Slot]:
        first, last = self._layer(edge.before), self._layer(edge.after)
        return [*((edge.before, layer) for layer in range(first, last)), (edge.after, last)]

    def _connect(self, edge: Edge) -> None:
        for one, other in pairwise(self._slots(edge)):
            if other[0] == edge.before:
                if other in self._before:  # the lane of another edge
                    continue
                self._layers[other[1]].append(other)
            self._before.setdefault(other, []).append(one)
            self._after.setdefault(one, []).append(other)

    def _sweeps(self) -> Iterator[tuple[list[_Slot], dict[_Slot, list[_Slot]]]]:
        """Yield each layer with its neighbours on one side, left to right, then right to left."""
        for _ in range(_SWEEPS):
            yield from ((layer, self._before) for layer in self._layers)
            yield from ((layer, self._after) for layer in reversed(self._layers))

    def _order(self) -> None:
        rank = {slot: at / len(layer) for layer in self._layers for at, slot in enumerate(layer)}
        for layer, near in self._sweeps():
            layer.sort(
                key=lambda slot: fmean(rank[neighbour] for neighbour in near.get(slot, [slot]))
            )
            rank.update((slot, at / len(layer)) for at, slot in enumerate(layer))

    def _middles(self) -> dict[_Slot, float]:
        """Return the vertical centre of each slot."""
        middle: dict[_Slot, float] = {}
        for layer in self._layers:
            middle.update(self._stacked(layer, [0.0] * len(layer)))
        for layer, near in self._sweeps():
            desired = [
                fmean(middle[neighbour] for neighbour in near.get(slot, [slot])) for slot in layer
            ]
            middle.update(self._stacked(layer, desired))
        return middle

    def _size(self, slot: _Slot) -> float:
        return _HEIGHT + _GAP if slot[1] == self._layer(slot[0]) else _LANE

    def _stacked(self, layer: list[_Slot], desired: list[float]) -> Iterator[tuple[_Slot, float]]:
        """Yield centres as near to the desired ones as the gaps between them allow.

        This is isotonic regression by pooling adjacent violators, after subtracting the gaps:
        https://en.wikipedia.org/wiki/Isotonic_regression
        """
        offsets = [0.0]
        for one, other in pairwise(layer):
            offsets.append(offsets[-1] + (self._size(one) + self._size(other)) / 2)
        pools: list[tuple[float, int]] = []
        for centre, offset in zip(desired, offsets, strict=True):
            total, count = centre - offset, 1
            while pools and pools[-1][0] / pools[-1][1] >= total / count:
                previous, size = pools.pop()
                total, count = total + previous, count + size
            pools.append((total, count))
        levels = [total / count for total, count in pools for _ in range(count)]
        for slot, level, offset in zip(layer, levels, offsets, strict=True):
            yield slot, level + offset

    def drawing(self) -> Drawing:
        labels = [_label(node) for node in self._graph.nodes]
        columns: list[tuple[float, float]] = []
        x = _MARGIN
        for layer in self._layers:
            cells = max(cell_len(labels[at]) for at, number in layer if number == self._layer(at))
            columns.append((x, x + cells * _CELL + 2 * _PADDING))
            x = columns[-1][1] + _LAYER_GAP
        top = min(self._middle.values()) - _HEIGHT / 2 - _MARGIN
        bottom = max(self._middle.values()) + _HEIGHT / 2 + _MARGIN
        boxes = [
            Box(
                node=node,
                label=labels[at],
                x=columns[node.layer][0],
                y=self._middle[at, node.layer] - _HEIGHT / 2 - top,
                width=columns[node.layer][1] - columns[node.layer][0],
                height=_HEIGHT,
            )
            for at, node in enumerate(self._graph.nodes)
        ]
        arrows = [Arrow(self._path(edge, columns, top), closes=False) for edge in self._forward]
        closing = sorted(self._graph.closing)
        arrows += [
            Arrow(_back_path(boxes[one], boxes[other]), closes=True) for one, other in closing
        ]
        margin = _BACK_EDGE_MARGIN if closing else 0.0
        width = columns[-1][1] + _MARGIN + margin
        return Drawing(width, bottom - top + margin, boxes, arrows)

    def _path(self, edge: Edge, columns: list[tuple[float, float]], top: float) -> str:
        slots = self._slots(edge)
        path = f"M{columns[slots[0][1]][1]:.1f} {self._middle[slots[0]] - top:.1f}"
        for one, other in pairwise(slots):
            left, right = columns[one[1]][1], columns[other[1]][0]
            y, to_y = self._middle[one] - top, self._middle[other] - top
            if other[0] == edge.after:
                right -= _ARROW_HEAD
            half = (left + right) / 2
            path += f"C{half:.1f} {y:.1f} {half:.1f} {to_y:.1f} {right:.1f} {to_y:.1f}"
            if other[0] == edge.before:
                path += f"H{columns[other[1]][1]:.1f}"
        return path


def _back_path(before: Box, after: Box) -> str:
    """Return the path of a back edge: from the right side, below the nodes, to the left side."""
    x, y = before.x + before.width, before.y + before.height / 2
    to_x, to_y = after.x - _ARROW_HEAD, after.y + after.height / 2
    below = max(before.y, after.y) + _HEIGHT + _GAP
    out, back = x + _LAYER_GAP / 2, to_x - _LAYER_GAP / 2
    return (
        f"M{x:.1f} {y:.1f}C{out:.1f} {y:.1f} {out:.1f} {below:.1f} {x:.1f} {below:.1f}"
        f"H{to_x:.1f}C{back:.1f} {below:.1f} {back:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
    )


def _label(node: Node) -> str:
    label = f"{style_of(node).symbol} {escape_invisible(node.step_id)}"
    if cell_len(label) > _MAX_LABEL_CELLS:
        label = set_cell_size(label, _MAX_LABEL_CELLS - 1) + "…"
    return label
