"""Where the jobs of a graph go: in layers, each below all that it depends on, with few crossings and straight lines.

Layers by longest path, order within them by barycentres, positions by isotonic regression (pool adjacent violators)
towards the mean of the neighbours. An edge over several layers bends in each; those of one source bend at the same
places. The same graph always comes out the same.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

_SWEEPS = 12
_PASSES = 8
_MOST_BENDS = 20_000
"""of all edges; with more, long ones are drawn straight across"""

Pair = tuple[int, int]
"""source and target"""


@dataclass(frozen=True)
class Layout:
    """Items are the jobs, by position, and after them the bends."""

    layers: list[list[int]]
    """items, in their order across"""
    across: list[float]
    """centre of each item, 0 or more"""
    paths: list[list[int]]
    """of each edge, the items that it goes through, its ends included"""

    def layer_of(self) -> list[int]:
        """The layer of each item."""
        found = [0] * len(self.across)
        for number, layer in enumerate(self.layers):
            for item in layer:
                found[item] = number
        return found


def arrange(
    count: int, edges: Sequence[Pair], *, size: Callable[[int], float], gap: float, bend: float, whole: bool = False
) -> Layout:
    """Lay out so many jobs. `size` is that of a job across, `bend` that of a bend, `gap` is between two of a layer.

    With `whole`, for odd sizes and a whole gap, every edge of a job is at a whole number.
    """
    depth = layers_of(count, edges)
    paths, bends = _paths(count, edges, depth)
    depth += bends
    layers: list[list[int]] = [[] for _ in range(max(depth, default=-1) + 1)]
    for item, layer in enumerate(depth):
        layers[layer].append(item)
    above: list[list[int]] = [[] for _ in depth]
    below: list[list[int]] = [[] for _ in depth]
    for path in paths:
        for source, target in pairwise(path):
            if target not in below[source]:
                below[source].append(target)
                above[target].append(source)
    layers = _order(layers, above, below)
    sizes = [size(item) if item < count else bend for item in range(len(depth))]
    return Layout(layers, _place(layers, above, below, sizes, gap, count, whole), paths)


def layers_of(count: int, edges: Sequence[Pair]) -> list[int]:
    """The layer of each job: one more than the last of those that it depends on. Of a cycle one edge is ignored."""
    waiting = [0] * count
    dependents: list[list[int]] = [[] for _ in range(count)]
    for source, target in edges:
        waiting[target] += 1
        dependents[source].append(target)
    layer = [0] * count
    done = [False] * count
    ready = [job for job in range(count) if not waiting[job]]
    stuck = 0
    for _ in range(count):
        if not ready:
            while done[stuck]:
                stuck += 1
            ready.append(stuck)
        job = ready.pop()
        done[job] = True
        for dependent in dependents[job]:
            waiting[dependent] -= 1
            if not done[dependent]:
                layer[dependent] = max(layer[dependent], layer[job] + 1)
                if not waiting[dependent]:
                    ready.append(dependent)
    return layer


def _paths(count: int, edges: Sequence[Pair], depth: Sequence[int]) -> tuple[list[list[int]], list[int]]:
    """The items that each edge goes through, and the layers of the bends."""
    bent = sum(max(0, depth[target] - depth[source] - 1) for source, target in edges) <= _MOST_BENDS
    bends: list[int] = []
    at: dict[Pair, int] = {}
    paths = []
    for source, target in edges:
        path = [source]
        for layer in range(depth[source] + 1, depth[target]) if bent else ():
            if (source, layer) not in at:
                at[source, layer] = count + len(bends)
                bends.append(layer)
            path.append(at[source, layer])
        paths.append([*path, target])
    return paths, bends


def _order(layers: list[list[int]], above: list[list[int]], below: list[list[int]]) -> list[list[int]]:
    best, fewest = layers, _crossings(layers, below)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        layers = [list(layer) for layer in layers]
        down = sweep % 2 == 0
        neighbours = above if down else below
        for number in range(1, len(layers)) if down else range(len(layers) - 2, -1, -1):
            fixed = layers[number - 1 if down else number + 1]
            places = {item: place for place, item in enumerate(fixed)}
            layers[number] = _by_barycentre(layers[number], neighbours, places)
        crossings = _crossings(layers, below)
        if crossings < fewest:
            best, fewest = layers, crossings
    return best


def _by_barycentre(layer: list[int], neighbours: list[list[int]], places: dict[int, int]) -> list[int]:
    """The layer sorted by the mean place of each one's neighbours; who has none stays at its place."""
    means: dict[int, float] = {}
    for item in layer:
        near = [places[other] for other in neighbours[item] if other in places]
        if near:
            means[item] = sum(near) / len(near)
    movable = iter(sorted(means, key=means.__getitem__))  # stable: equals keep their order
    return [next(movable) if item in means else item for item in layer]


def _crossings(layers: list[list[int]], below: list[list[int]]) -> int:
    total = 0
    for upper, lower in pairwise(layers):
        places = {item: place for place, item in enumerate(lower)}
        seen: list[int] = []
        for item in upper:
            ends = sorted(places[target] for target in below[item] if target in places)
            for end in ends:
                total += len(seen) - bisect_right(seen, end)
            for end in ends:
                insort(seen, end)
    return total


def _place(
    layers: list[list[int]],
    above: list[list[int]],
    below: list[list[int]],
    sizes: list[float],
    gap: float,
    count: int,
    whole: bool,
) -> list[float]:
    across = [0.0] * len(sizes)
    offsets: list[list[float]] = []
    for layer in layers:
        offsets.append(_offsets([sizes[item] for item in layer], gap))
        for item, offset in zip(layer, offsets[-1], strict=True):
            across[item] = offset
    for number in range(_PASSES + 1):
        # The last pass looks both ways, so that neither end of an edge has the last word.
        ways = (above, below) if number == _PASSES else ((above,) if number % 2 == 0 else (below,))
        order = range(len(layers)) if number % 2 == 0 else range(len(layers) - 1, -1, -1)
        for place in order:
            wishes, weights = [], []
            for item in layers[place]:
                near = [(across[other], _weight(item, other, count)) for way in ways for other in way[item]]
                weight = sum(pull for _, pull in near)
                wishes.append(sum(at * pull for at, pull in near) / weight if near else across[item])
                weights.append(weight or 0.1)
            for item, at in zip(layers[place], _spread(wishes, weights, offsets[place], whole), strict=True):
                across[item] = at
    left = min((at - sizes[item] / 2 for item, at in enumerate(across)), default=0)
    return [at - left for at in across]


def _weight(one: int, other: int, count: int) -> float:
    """How much an edge wants to be straight: between bends most of all."""
    return (1.0, 2.0, 8.0)[(one >= count) + (other >= count)]


def _offsets(sizes: list[float], gap: float) -> list[float]:
    """Where the centres of a layer would be without room between."""
    offsets, end = [], 0.0
    for size in sizes:
        offsets.append(end + size / 2)
        end += size + gap
    return offsets


def _spread(wishes: list[float], weights: list[float], offsets: list[float], whole: bool) -> list[float]:
    """The positions nearest to the wishes (least squares) that keep the order and the distances of `offsets`."""
    pools: list[tuple[float, float, int]] = []
    for wish, weight, offset in zip(wishes, weights, offsets, strict=True):
        at, mass, members = wish - offset, weight, 1
        while pools and pools[-1][0] >= at:
            other_at, other_mass, other_members = pools.pop()
            at = (at * mass + other_at * other_mass) / (mass + other_mass)
            mass, members = mass + other_mass, members + other_members
        pools.append((at, mass, members))
    shifts = [at for at, _, members in pools for _ in range(members)]
    if whole:
        # Offsets are halves, for sizes are odd: what is added must be so too.
        shifts = [float(int(shift // 1)) for shift in shifts]
    return [shift + offset for shift, offset in zip(shifts, offsets, strict=True)]
