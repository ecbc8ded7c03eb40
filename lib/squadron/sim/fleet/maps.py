"""Grid maps in MovingAI's format, with starts and tasks as the MAPF competition writes them, and shortest routes on
them.

Cells are numbered row by row; the centre of cell (row, column) is at x = column, y = row, a cell a metre wide unless
`cell_m` says otherwise. Robots move between cells that share a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from squadron.core.errors import InputError
from squadron.sim.routes import Route, make_route

FREE = frozenset(".GS")
"""Characters of a map that can be driven on; `@`, `O`, `T`, `W` and others cannot."""


@dataclass(frozen=True, eq=False)
class GridMap:
    """A floor of free and blocked cells."""

    free_HW: np.ndarray
    cell_m: float = 1.0

    @property
    def free_cells(self) -> np.ndarray:
        """Numbers of the cells that can be driven on."""
        return np.flatnonzero(self.free_HW)

    def centres(self, cells: np.ndarray) -> np.ndarray:
        """Positions (…, 2) of cells, in metres."""
        rows, columns = np.divmod(cells, self.free_HW.shape[1])
        return np.stack([columns, rows], axis=-1) * self.cell_m


def read_map(path: str | Path) -> GridMap:
    """A map file of MovingAI. Raises InputError, with the line, if it is cut short or does not hold what it says."""
    lines = _lines(path)
    number = next((number for number, line in enumerate(lines, 1) if line.strip() == "map"), None)
    if number is None:
        raise InputError("no line says `map`, so no cells follow", where=str(path), fix="give a map of MovingAI")
    header = dict(line.strip().partition(" ")[::2] for line in lines[: number - 1])
    try:
        height, width = int(header["height"]), int(header["width"])
    except (KeyError, ValueError):
        raise InputError("height or width is missing", where=str(path), fix="give a map of MovingAI") from None
    rows = lines[number : number + height]
    if len(rows) < height:
        raise InputError(f"the map is cut short: {height} rows are announced, {len(rows)} are there", where=str(path))
    for place, row in enumerate(rows, number + 1):
        if len(row) != width:
            raise InputError(f"{width} cells are announced, {len(row)} are there", where=f"{path}, line {place}")
    return GridMap(np.array([[cell in FREE for cell in row] for row in rows]))


def read_starts(path: str | Path, grid: GridMap) -> list[int]:
    """The start cell of each robot: a count, then a cell number a line. Raises InputError at a line that holds none, at
    a blocked cell, and where lines are missing."""
    return [cells[0] for cells in _read_cells(path, grid)]


def read_tasks(path: str | Path, grid: GridMap) -> list[list[int]]:
    """The cells of each task, in the order of visits. Raises InputError as `read_starts` does."""
    return _read_cells(path, grid)


def shortest_routes(
    grid: GridMap, visits: Sequence[Sequence[int]], seed: int = 0, avoid: Sequence[int] = ()
) -> list[Route]:
    """A shortest route through each list of cells. Which of several equally short ones is drawn by `seed`, so that
    robots do not all keep to the same wall. Of routes through fewer of the cells to `avoid`, however long, the shortest
    is taken; a route's own start and goal may be among these.

    Raises InputError naming the robot whose cells do not differ, or cannot be reached.
    """
    graph = _moves(grid, seed, avoid)
    sources = sorted({cell for cells in visits for cell in cells[:-1]})
    row_of = {cell: row for row, cell in enumerate(sources)}
    _, before = csgraph.dijkstra(graph, indices=sources, return_predecessors=True)
    routes = []
    for robot, cells in enumerate(visits):
        walk = [cells[0]]
        for start, goal in pairwise(cells):
            walk += _walk(before[row_of[start]], start, goal, f"robot {robot}")
        routes.append(make_route(grid.centres(np.array(walk)), f"the route of robot {robot}"))
    return routes


def _moves(grid: GridMap, seed: int, avoid: Sequence[int]) -> sparse.csr_array:
    """Steps between neighbouring free cells, each longer than one by a random amount, the same both ways, so small that
    no way of more steps becomes the shorter one; to and from cells to avoid, longer than any way around."""
    height, width = grid.free_HW.shape
    cells_HW = np.arange(height * width).reshape(height, width)
    across = grid.free_HW[:, :-1] & grid.free_HW[:, 1:]
    down = grid.free_HW[:-1] & grid.free_HW[1:]
    one = np.concatenate([cells_HW[:, :-1][across], cells_HW[:-1][down]])
    other = np.concatenate([cells_HW[:, 1:][across], cells_HW[1:][down]])
    cost = 1 + np.random.default_rng(seed).random(len(one)) / cells_HW.size
    cost += cells_HW.size * np.isin(np.stack([one, other]), avoid).sum(0)
    ends = (np.concatenate([one, other]), np.concatenate([other, one]))
    return sparse.csr_array((np.tile(cost, 2), ends), shape=(cells_HW.size, cells_HW.size))


def _walk(before: np.ndarray, start: int, goal: int, name: str) -> list[int]:
    """Cells from behind the start to the goal."""
    walk: list[int] = []
    cell = goal
    while cell != start:
        walk.append(cell)
        cell = int(before[cell])
        if cell < 0:
            raise InputError(f"{name} cannot get from cell {start} to cell {goal}: walls are between them")
    return walk[::-1]


def _read_cells(path: str | Path, grid: GridMap) -> list[list[int]]:
    lines = [(number, line) for number, line in enumerate(_lines(path), 1) if line.strip() and line[0] != "#"]
    if not lines or not lines[0][1].strip().isdigit():
        raise InputError("the first line does not say how many follow", where=str(path))
    count = int(lines[0][1])
    if len(lines) - 1 < count:
        raise InputError(f"cut short: {count} lines are announced, {len(lines) - 1} are there", where=str(path))
    return [_cells(line, grid, f"{path}, line {number}") for number, line in lines[1 : count + 1]]


def _cells(line: str, grid: GridMap, where: str) -> list[int]:
    words = line.strip().split(",")
    if not all(word.strip().isdigit() for word in words):
        raise InputError(f"not cell numbers: {line.strip()[:60]!r}", where=where)
    cells = [int(word) for word in words]
    for cell in cells:
        if cell >= grid.free_HW.size or not grid.free_HW.flat[cell]:
            raise InputError(f"cell {cell} is blocked, or off the map", where=where)
    return cells


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from None
