"""Routes, grid maps and random worlds."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.errors import ConfigError, InputError
from squadron.sim.fleet import maps, worlds
from squadron.sim.fleet.spec import FloorConfig
from squadron.sim.routes import make_route
from tests.conftest import REAL_DATA

FLOOR = """type octile
height 3
width 4
map
....
.@@.
....
"""


def test_positions_along_a_route() -> None:
    route = make_route([(0, 0), (3, 0), (3, 0), (3, 4)])
    assert route.length == 7
    assert route.at(np.array([-1, 0, 1.5, 3, 5, 7, 9])).tolist() == [
        [0, 0], [0, 0], [1.5, 0], [3, 0], [3, 2], [3, 4], [3, 4],
    ]  # fmt: skip


def test_points_that_cannot_be_told_apart_are_one() -> None:
    """A stretch without a length has no direction either."""
    route = make_route([(1, 1), (1, 1 + 1e-12), (1 + 1e-300, 1), (2, 2), (2, 2)])
    assert route.points_P2.tolist() == [[1, 1], [2, 2]]


@pytest.mark.parametrize(
    ("points", "words"),
    [([], "needs a path"), ([(1, 2)], "does not leave its start"), ([(1, 2), (1, 2)], "does not leave its start"),
     ([(0, 0), (0, float("nan"))], "not a list of points"), ([(0, 0, 0), (1, 1, 1)], "not a list of points"),
     ([(0, 0), (1,)], "not a list of points"), ("abc", "not a list of points"),
     ([(0, 0), (1e150, 0)], "leaves the floor"), ([(-1e308, 0), (1e308, 0)], "leaves the floor"),
     ([(0, 0), (1e-300, 0), (0, 1e-300)], "does not leave its start")],
)  # fmt: skip
def test_what_is_no_route_is_refused_by_name(points: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        make_route(points, "the path of robot 7")  # type: ignore[arg-type]
    assert "robot 7" in str(refused.value)


@given(st.integers(0, 2**32 - 1))
def test_routes_on_a_map_are_shortest_and_keep_to_free_cells(seed: int) -> None:
    draw = np.random.default_rng(seed)
    grid = worlds.random_map(8, 9, 0.25, draw)
    visits = worlds.random_visits(grid, min(4, len(grid.free_cells) // 2), draw)
    free = nx.grid_2d_graph(8, 9).subgraph([divmod(int(cell), 9) for cell in grid.free_cells])
    for (start, goal), route in zip(visits, maps.shortest_routes(grid, visits, seed), strict=True):
        assert route.length == nx.shortest_path_length(free, divmod(start, 9), divmod(goal, 9))
        cells = [(round(y), round(x)) for x, y in route.at(np.arange(route.length + 1)).tolist()]
        assert all(free.has_edge(one, other) for one, other in pairwise(cells))


def test_a_route_is_its_corners_and_any_part_of_it_can_be_had() -> None:
    route = make_route([(0, 0), (1, 0), (1, 0), (3, 0), (2, 0), (2, 2), (2, 5)])
    assert route.points_P2.tolist() == [[0, 0], [3, 0], [2, 0], [2, 5]] and route.length == 9
    assert route.between(1, 5).tolist() == [[1, 0], [3, 0], [2, 0], [2, 1]]
    assert route.between(6, 6.5).tolist() == [[2, 2], [2, 2.5]]


def test_a_seed_draws_the_same_routes_again() -> None:
    grid = maps.GridMap(np.ones((9, 9), bool))
    visits = worlds.random_visits(grid, 8, np.random.default_rng(0))
    one, same, other = (maps.shortest_routes(grid, visits, seed) for seed in (1, 1, 2))
    assert all((a.points_P2 == b.points_P2).all() for a, b in zip(one, same, strict=True))
    assert any(a.points_P2.tolist() != b.points_P2.tolist() for a, b in zip(one, other, strict=True))


def write(folder: Path, text: str) -> Path:
    file = folder / "floor.map"
    file.write_text(text)
    return file


def test_a_map_is_read(tmp_path: Path) -> None:
    grid = maps.read_map(write(tmp_path, FLOOR))
    assert grid.free_HW.tolist() == [[True] * 4, [True, False, False, True], [True] * 4]
    assert grid.centres(np.array([0, 7])).tolist() == [[0, 0], [3, 1]]


def test_the_letters_of_movingai_and_of_the_competition_are_read(tmp_path: Path) -> None:
    grid = maps.read_map(write(tmp_path, "type octile\nheight 2\nwidth 4\nmap\n.GSE\n@OTW\n"))
    assert grid.free_HW.tolist() == [[True] * 4, [False] * 4]


@given(
    st.integers(1, 5).flatmap(lambda width: st.lists(st.text(".GSE@OTW", min_size=width, max_size=width), min_size=1)),
    st.sampled_from(["\n", "\r\n"]), st.sampled_from([" ", "\t", "  "]), st.sampled_from(["", " ", "\t "]),
    st.sampled_from([b"", b"\xef\xbb\xbf"]), st.sampled_from(["", "\n", "\n\n \n"]), st.booleans(),
)  # fmt: skip
def test_a_map_is_read_however_its_lines_end(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], end: str, between: str, blank: str, mark: bytes,
    rest: str, packed: bool,
) -> None:  # fmt: skip
    head = [f"type{between}octile", f"height{between}{len(rows)}", f"width{between}{len(rows[0])}", "map"]
    text = end.join(line + blank for line in head + rows) + rest.replace("\n", end)
    file, content = tmp_path_factory.getbasetemp() / "any.map", mark + text.encode()
    file.write_bytes(gzip.compress(content) if packed else content)
    assert maps.read_map(file).free_HW.tolist() == [[cell in ".GSE" for cell in row] for row in rows]


@pytest.mark.parametrize(
    ("text", "words"),
    [(FLOOR.rsplit("....", 1)[0], "cut short: 3 rows are announced, 2 are there"),
     (FLOOR.replace(".@@.", ".@@"), "4 cells are announced, 3 are there"),
     (FLOOR.replace("height 3\n", ""), "height or width is missing"),
     (FLOOR.replace("map\n", ""), "no line says `map`"), ("", "no line says `map`"),
     (FLOOR.replace("height 3", "height 0"), "height is '0', not a positive whole number\\n.*line 2"),
     (FLOOR.replace("height 3", "height"), "height is ''"), (FLOOR.replace("width 4", "width ²"), "width is '²'"),
     (FLOOR.replace("width 4", "width 4.0"), "width is '4.0'"),
     (FLOOR.replace("width 4", "width 4 4"), "width is '4 4'"),
     (FLOOR.replace("width 4", "width -4"), "width is '-4'"), (FLOOR.replace("3", "9" * 5000), "not a positive whole"),
     (FLOOR.replace("3", "99999999"), "more than 100,000,000"),
     (FLOOR.replace(".@@.", ".@x."), "'x' in column 3 is no cell of a map\\n.*line 6"),
     (FLOOR.replace(".@@.", "\xa0@@."), "in column 1 is no cell"), (FLOOR.replace(".@@.", ".@@. ."), "6 are there"),
     (FLOOR + "....\n", "3 rows are announced, 4 are there\\n.*line 8")],
)  # fmt: skip
def test_a_broken_map_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        maps.read_map(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "words"),
    [("2\n0\n", "cut short: 2 lines are announced, 1 are there"), ("1\n5\n", "cell 5 is blocked"),
     ("1\n99\n", "cell 99 is blocked, or off the map"), ("1\nx\n", "not cell numbers"), ("", "does not say how many"),
     ("1\n-1\n", "not cell numbers"), ("1\n1.0\n", "not cell numbers"), ("1\n²\n", "not cell numbers"),
     ("1\n" + "9" * 5000, "not cell numbers"), ("²\n0\n", "does not say how many"), ("0\n", "none are announced"),
     ("# a\n 1 \n  # b\n7,8\n", "2 cells where one is expected\\n.*line 4")],
)  # fmt: skip
def test_starts_that_cannot_be_are_refused(tmp_path: Path, text: str, words: str) -> None:
    grid = maps.read_map(write(tmp_path, FLOOR))
    with pytest.raises(InputError, match=words):
        maps.read_starts(write(tmp_path, text), grid)


def test_tasks_are_read_past_comments_and_blanks(tmp_path: Path) -> None:
    file = write(tmp_path, "\ufeff# tasks\r\n2 \r\n  # the first\r\n 7 , 8,\r\n\r\n11\r\nmore is not announced\r\n")
    assert maps.read_tasks(file, maps.GridMap(np.ones((3, 4), bool))) == [[7, 8], [11]]


def test_a_goal_behind_walls_is_refused() -> None:
    free = np.ones((3, 3), bool)
    free[:, 1] = False
    with pytest.raises(InputError, match="robot 0 cannot get from cell 0 to cell 2"):
        maps.shortest_routes(maps.GridMap(free), [[0, 2]])


def test_starts_and_goals_of_a_random_world_are_apart_and_trips_as_long_as_asked() -> None:
    floor = FloorConfig(area_per_robot_m2=12, trip_m=(4, 6), detour_m=1)
    routes = worlds.random_routes(floor, 60, 0.4, np.random.default_rng(3))
    for end in (0, -1):
        ends = np.array([route.points_P2[end] for route in routes])
        apart = np.linalg.norm(ends[:, None] - ends, axis=-1) + np.eye(60)
        assert apart.min() > 0.8
    assert all(4 <= np.linalg.norm(route.points_P2[-1] - route.points_P2[0]) <= 6 for route in routes)


def test_a_floor_that_is_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match="60 robots of radius"):
        worlds.random_routes(FloorConfig(area_per_robot_m2=0.5, trip_m=(1, 2)), 60, 0.4, np.random.default_rng())
    with pytest.raises(ConfigError, match="40 robots on 49 free cells"):
        worlds.random_visits(maps.GridMap(np.ones((7, 7), bool)), 40, np.random.default_rng())


@pytest.mark.parametrize(("name", "robots", "tasks"), [("random-64-64-10", 400, 3200), ("room-64-64-16", 250, 1375)])
def test_the_competitions_maps_agents_and_tasks_are_read(name: str, robots: int, tasks: int) -> None:
    folder = REAL_DATA / "coordination"
    if not folder.is_dir():
        pytest.skip("the competition's maps are not here: shared/data/coordination")
    grid = maps.read_map(folder / f"{name}.map")
    example = folder / f"{name.split('-')[0]}-example_{robots}"
    starts = maps.read_starts(example.with_suffix(".agents"), grid)
    visits = maps.read_tasks(example.with_suffix(".tasks"), grid)
    assert (len(starts), len(visits)) == (robots, tasks)
    routes = maps.shortest_routes(grid, [[starts[0], *visits[0]]])
    assert len(routes) == 1


def test_routes_go_around_cells_to_avoid_where_there_is_a_way() -> None:
    """Robot 1 is to end in the middle of the way of robot 0, on an open floor and in a corridor."""
    floor, corridor = maps.GridMap(np.ones((2, 5), bool)), maps.GridMap(np.ones((1, 5), bool))
    around, straight = (
        maps.shortest_routes(grid, [[0, 4], [1, 2]], avoid=[4, 2])[0].length for grid in (floor, corridor)
    )
    assert (around, straight) == (6, 4)
