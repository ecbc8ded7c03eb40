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
from squadron.core.outside import read_text_lines
from squadron.sim.routes import Route, make_route

FREE, BLOCKED = frozenset(".GSE"), frozenset("@OTW")
"""Characters of a map. MovingAI's: `.` and `G` are ground, `S` shallow swamp, all of which can be walked on; `@` and
`O` are out of bounds, `T` trees, `W` water. The competition's add `E`, an emitter, and give `S` to a service point:
both can be driven on. So the two agree on every letter that they share."""
_MOST_CELLS, _MOST_DIGITS = 10**8, 12


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
    """A map file of MovingAI or the competition. Raises InputError, with the line, if it is cut short, does not hold
    what its head says, or holds a letter that neither of the two has."""
    lines = read_text_lines(path)
    number = next((number for number, line in enumerate(lines, 1) if line.strip() == "map"), None)
    if number is None:
        raise InputError("no line says `map`, so no cells follow", where=str(path), fix="give a map of MovingAI")
    header = {
        words[0]: (words[1:], place) for place, line in enumerate(lines[: number - 1], 1) if (words := line.split())
    }
    height, width = (_announced(path, header, name) for name in ("height", "width"))
    if height * width > _MOST_CELLS:
        raise InputError(f"{height} by {width} cells, more than {_MOST_CELLS:,}", where=str(path), fix="check the head")
    rows = lines[number:]
    while rows and not rows[-1].strip():
        rows.pop()
    if len(rows) < height:
        raise InputError(f"the map is cut short: {height} rows are announced, {len(rows)} are there", where=str(path))
    if len(rows) > height:
        where = f"{path}, line {number + height + 1}"
        raise InputError(f"{height} rows are announced, {len(rows)} are there", where=where, fix="correct the height")
    return GridMap(np.array([_row(row, width, f"{path}, line {place}") for place, row in enumerate(rows, number + 1)]))


def read_starts(path: str | Path, grid: GridMap) -> list[int]:
    """The start cell of each robot: a count, then a cell number a line. Raises InputError at a line that holds none or
    several, at a blocked cell, and where lines are missing."""
    return [cell for (cell,) in _read_cells(path, grid, most=1)]


def read_tasks(path: str | Path, grid: GridMap) -> list[list[int]]:
    """The cells of each task, in the order of visits: a count, then a line for each. Raises InputError as `read_starts`
    does."""
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


def _announced(path: str | Path, header: dict[str, tuple[list[str], int]], name: str) -> int:
    """The height or width in the head of a map."""
    if name not in header:
        raise InputError("height or width is missing", where=str(path), fix="give a map of MovingAI")
    words, place = header[name]
    number = _whole_number(words[0]) if len(words) == 1 else None
    if not number:
        what = f"the {name} is {' '.join(words)[:60]!r}, not a positive whole number"
        raise InputError(what, where=f"{path}, line {place}", fix="give a map of MovingAI")
    return number


def _row(row: str, width: int, where: str) -> list[bool]:
    """Which cells of a row are free. Trailing blanks are none of its cells."""
    row = row.rstrip()
    if len(row) != width:
        raise InputError(f"{width} cells are announced, {len(row)} are there", where=where)
    for column, cell in enumerate(row, 1):
        if cell not in FREE and cell not in BLOCKED:
            fix = f"write {' '.join(sorted(FREE))} for free cells and {' '.join(sorted(BLOCKED))} for blocked ones"
            raise InputError(f"{cell!r} in column {column} is no cell of a map", where=where, fix=fix)
    return [cell in FREE for cell in row]


def _read_cells(path: str | Path, grid: GridMap, most: int | None = None) -> list[list[int]]:
    lines = [(number, line.strip()) for number, line in enumerate(read_text_lines(path), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    count = _whole_number(lines[0][1]) if lines else None
    if count is None:
        fix = "write how many robots or tasks there are, then a line for each: cell numbers, counted row by row from 0"
        where = f"{path}, line {lines[0][0]}" if lines else str(path)
        raise InputError("the first line does not say how many follow", where=where, fix=fix)
    if not count:
        raise InputError("none are announced: there is nothing to do", where=f"{path}, line {lines[0][0]}")
    if len(lines) - 1 < count:
        raise InputError(f"cut short: {count} lines are announced, {len(lines) - 1} are there", where=str(path))
    return [_cells(line, grid, most, f"{path}, line {number}") for number, line in lines[1 : count + 1]]


def _cells(line: str, grid: GridMap, most: int | None, where: str) -> list[int]:
    words = line.removesuffix(",").split(",")  # some writers end a task with one
    cells = [cell for word in words if (cell := _whole_number(word.strip())) is not None]
    if len(cells) < len(words):
        raise InputError(f"not cell numbers: {line[:60]!r}", where=where)
    if most is not None and len(cells) > most:
        raise InputError(f"{len(cells)} cells where one is expected", where=where, fix="are starts and tasks swapped?")
    for cell in cells:
        if cell >= grid.free_HW.size or not grid.free_HW.flat[cell]:
            raise InputError(f"cell {cell} is blocked, or off the map", where=where)
    return cells


def _whole_number(word: str) -> int | None:
    """The number that a few ASCII digits stand for; None for anything else, such as ² or five thousand digits."""
    return int(word) if word.isascii() and word.isdigit() and len(word) <= _MOST_DIGITS else None
