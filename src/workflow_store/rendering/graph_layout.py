"""Where the nodes and the arrows of a graph are drawn, in layers from left to right.

The layers are those of the graph. Within one, nodes stand near what they are connected with:
ordered by the mean place of their neighbours, and then moved as close to it as the distance
between them allows. A long arrow keeps a place of its own in each layer that it passes, and
those that come from one node share it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from rich.cells import cell_len, set_cell_size

from .escaping import visible
from .graph import Edge, Graph, Node
from .status_styles import look_of

__all__ = ["MOST_ARROWS", "MOST_NODES", "Arrow", "Box", "Drawing", "draw"]

MOST_NODES = 2_000
MOST_ARROWS = 10_000
"""A graph of more than that is no picture any more, and takes a browser for ever."""

_MOST_CELLS = 28
_CELL = 7.5  # a cell of a monospaced font of 12 pixels takes 7.2
_HEIGHT = 32.0
_GAP = 14.0
_LANE = 10.0
_PADDING = 10.0
_BETWEEN_LAYERS = 36.0
_ARROW_HEAD = 6.0
_ROOM_FOR_WAYS_BACK = 24.0
_MARGIN = 6.0
_ROUNDS = 4

_Place = tuple[int, int]
"""What stands in a layer, and the layer: a node in its own, its arrows in those beyond."""


@dataclass(frozen=True)
class Box:
    """A node: its place in the graph, its label, and where it is drawn, in pixels."""

    position: int
    node: Node
    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Arrow:
    """A dependency: the path of an SVG, and whether it closes a circle."""

    path: str
    closes: bool


@dataclass(frozen=True)
class Drawing:
    """A graph as it is drawn; sizes are in pixels."""

    width: float
    height: float
    boxes: list[Box]
    arrows: list[Arrow]


def draw(found: Graph) -> Drawing | None:
    """Lay out a graph.

    Returns:
        None where it has more than `MOST_NODES` nodes or `MOST_ARROWS` arrows.
    """
    if len(found.nodes) > MOST_NODES or sum(1 for _ in found.edges()) > MOST_ARROWS:
        return None
    return _Layout(found).drawing()


class _Layout:
    def __init__(self, found: Graph) -> None:
        self._graph = found
        self._layers: list[list[_Place]] = [
            [(position, number) for position in layer]
            for number, layer in enumerate(found.layers())
        ]
        self._before: dict[_Place, list[_Place]] = {}
        self._after: dict[_Place, list[_Place]] = {}
        self._forward = [edge for edge in found.edges() if edge not in found.closing]
        hops = sum(self._layer(edge.after) - self._layer(edge.before) for edge in self._forward)
        self._has_lanes = hops <= MOST_ARROWS
        for edge in self._forward:
            self._connect(edge)
        self._order()
        self._middle = self._middles()

    def _layer(self, position: int) -> int:
        return self._graph.nodes[position].layer

    def _way(self, edge: Edge) -> list[_Place]:
        first, last = self._layer(edge.before), self._layer(edge.after)
        lanes = range(first + 1, last) if self._has_lanes else ()
        return [(edge.before, first), *((edge.before, at) for at in lanes), (edge.after, last)]

    def _connect(self, edge: Edge) -> None:
        for one, other in pairwise(self._way(edge)):
            if other[0] == edge.before:
                if other in self._before:  # it shares the lane of another arrow
                    continue
                self._layers[other[1]].append(other)
            self._before.setdefault(other, []).append(one)
            self._after.setdefault(one, []).append(other)

    def _rounds(self) -> Iterator[tuple[list[_Place], dict[_Place, list[_Place]]]]:
        """Give each layer with the neighbours on one side, to and fro."""
        for number in range(_ROUNDS):
            if number % 2 == 0:
                yield from ((layer, self._before) for layer in self._layers)
            else:
                yield from ((layer, self._after) for layer in reversed(self._layers))

    def _order(self) -> None:
        rank: dict[_Place, float] = {}
        for layer in self._layers:
            rank.update((place, at / len(layer)) for at, place in enumerate(layer))
        for layer, near in self._rounds():
            layer.sort(key=lambda place: fmean(rank[each] for each in near.get(place, [place])))
            rank.update((place, at / len(layer)) for at, place in enumerate(layer))

    def _middles(self) -> dict[_Place, float]:
        """Give the height of the middle of all that stands in a layer."""
        middle: dict[_Place, float] = {}
        for layer in self._layers:
            middle.update(self._stacked(layer, [0.0] * len(layer)))
        for layer, near in self._rounds():
            wished = [fmean(middle[each] for each in near.get(place, [place])) for place in layer]
            middle.update(self._stacked(layer, wished))
        return middle

    def _size(self, place: _Place) -> float:
        return _HEIGHT + _GAP if place[1] == self._layer(place[0]) else _LANE

    def _stacked(self, layer: list[_Place], wished: list[float]) -> Iterator[tuple[_Place, float]]:
        """Keep the places of a layer apart, as near to the wished ones as that allows.

        With the distances taken off, the nearest are those that never decrease: neighbours
        that would are pooled at their mean.
        """
        offsets = [0.0]
        for one, other in pairwise(layer):
            offsets.append(offsets[-1] + (self._size(one) + self._size(other)) / 2)
        pools: list[tuple[float, int]] = []
        for wish, offset in zip(wished, offsets, strict=True):
            total, count = wish - offset, 1
            while pools and pools[-1][0] / pools[-1][1] >= total / count:
                more, many = pools.pop()
                total, count = total + more, count + many
            pools.append((total, count))
        levels = [total / count for total, count in pools for _ in range(count)]
        for place, level, offset in zip(layer, levels, offsets, strict=True):
            yield place, level + offset

    def drawing(self) -> Drawing:
        labels = [_label(node) for node in self._graph.nodes]
        columns: list[tuple[float, float]] = []
        x = _MARGIN
        for layer in self._layers:
            cells = max(cell_len(labels[at]) for at, number in layer if number == self._layer(at))
            columns.append((x, x + cells * _CELL + 2 * _PADDING))
            x = columns[-1][1] + _BETWEEN_LAYERS
        top = min(self._middle.values()) - _HEIGHT / 2 - _MARGIN
        bottom = max(self._middle.values()) + _HEIGHT / 2 + _MARGIN
        boxes = [
            Box(
                position=at,
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
            Arrow(_way_back(boxes[one], boxes[other]), closes=True) for one, other in closing
        ]
        room = _ROOM_FOR_WAYS_BACK if closing else 0.0
        width = columns[-1][1] + _MARGIN + room
        return Drawing(width, bottom - top + room, boxes, arrows)

    def _path(self, edge: Edge, columns: list[tuple[float, float]], top: float) -> str:
        way = self._way(edge)
        path = f"M{columns[way[0][1]][1]:.1f} {self._middle[way[0]] - top:.1f}"
        for one, other in pairwise(way):
            left, right = columns[one[1]][1], columns[other[1]][0]
            y, to_y = self._middle[one] - top, self._middle[other] - top
            if other[0] == edge.after:
                right -= _ARROW_HEAD
            half = (left + right) / 2
            path += f"C{half:.1f} {y:.1f} {half:.1f} {to_y:.1f} {right:.1f} {to_y:.1f}"
            if other[0] == edge.before:
                path += f"H{columns[other[1]][1]:.1f}"
        return path


def _way_back(before: Box, after: Box) -> str:
    """Give the path of what closes a circle: out on the right, under the nodes, in on the left."""
    x, y = before.x + before.width, before.y + before.height / 2
    to_x, to_y = after.x - _ARROW_HEAD, after.y + after.height / 2
    below = max(before.y, after.y) + _HEIGHT + _GAP
    out, back = x + _BETWEEN_LAYERS / 2, to_x - _BETWEEN_LAYERS / 2
    return (
        f"M{x:.1f} {y:.1f}C{out:.1f} {y:.1f} {out:.1f} {below:.1f} {x:.1f} {below:.1f}"
        f"H{to_x:.1f}C{back:.1f} {below:.1f} {back:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
    )


def _label(node: Node) -> str:
    label = f"{look_of(node).symbol} {visible(node.step_id)}"
    if cell_len(label) > _MOST_CELLS:
        label = set_cell_size(label, _MOST_CELLS - 1) + "…"
    return label
