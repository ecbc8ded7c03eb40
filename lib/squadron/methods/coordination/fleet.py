"""Robots of one's own: their routes from a file, or starts and tasks on a map, and the schedule that comes out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from squadron.core.errors import InputError
from squadron.core.folder import Folder, relative
from squadron.core.panels import Film, Table
from squadron.core.run import Stage
from squadron.data.records import is_number, read_records
from squadron.methods.coordination.algorithm import COSTS, completion_times
from squadron.methods.coordination.config import CostName, FleetConfig, FloorLimits, SamplingConfig
from squadron.methods.coordination.film import CAPTION, drive
from squadron.methods.coordination.graph import build_graph
from squadron.methods.coordination.planner import learned, plan_graph
from squadron.methods.coordination.records import Fleet, Planned, Planner
from squadron.methods.coordination.schedule import Schedule
from squadron.sim.film import store_film
from squadron.sim.fleet.maps import GridMap, read_map, read_starts, read_tasks, shortest_routes
from squadron.sim.routes import Route, make_route


def check_fleet(stage: Stage, fleet: FleetConfig, limits: FloorLimits) -> Fleet:
    """Read the fleet and see to it that it can be planned, before anything else is done."""
    routes, grid = read_fleet(fleet)
    graph = build_graph(routes, limits)
    stage.folder.write_json("routes.json", {"routes": [route.points_P2.tolist() for route in routes]})
    if grid is not None:
        stage.folder.write_json("map.json", {"free": grid.free_HW.astype(int).tolist()})
    folder = relative(stage.folder, stage.run.folder)
    return Fleet(folder=folder, robots=graph.robots, encounters=graph.edges, mapped=grid is not None)


def plan_fleet(stage: Stage, planner: Planner, fleet: Fleet, limits: FloorLimits, sampling: SamplingConfig) -> Planned:
    """Plan the fleet's routes, write `schedule.json`, and film it."""
    folder = stage.run.folder / fleet.folder
    routes = [make_route(points) for points in folder.read_json("routes.json")["routes"]]
    grid = GridMap(np.array(folder.read_json("map.json")["free"], bool)) if fleet.mapped else None
    propose = learned(Folder(planner.locate(stage.run.folder)))
    started = time.perf_counter()
    graph = build_graph(routes, limits)
    built_s = time.perf_counter() - started
    schedule = plan_graph(graph, planner.cost, propose, sampling)
    planned_s = time.perf_counter() - started - built_s
    stage.folder.write_json("schedule.json", describe(schedule))
    value = float(COSTS[planner.cost](graph, schedule.enter_N[None])[0])
    stage.show(_summary(planner.cost, schedule, routes, limits.radius_m, value, built_s, planned_s))
    name = store_film(stage.folder, "fleet", drive(routes, grid, schedule, limits.radius_m))
    stage.show(Film(title="Your fleet, all at once and by plan", file=name, caption=CAPTION))
    stage.headline(f"your fleet, {planner.cost.replace('_', ' ')}", f"{value:.1f} s")
    return Planned(file=relative(stage.folder, stage.run.folder, "schedule.json"), cost=value)


def passing(routes: Sequence[Route], radius_m: float) -> int:
    """How many routes lead so close to another's end that its robot must have left by then."""
    import shapely

    lines = [shapely.LineString(route.points_P2) for route in routes]
    ends = [shapely.Point(route.points_P2[-1]) for route in routes]
    end, line = shapely.STRtree(lines).query(ends, predicate="dwithin", distance=2 * radius_m - 1e-9)
    return len(set(line[end != line].tolist()))


def _summary(
    cost: CostName,
    schedule: Schedule,
    routes: Sequence[Route],
    radius_m: float,
    value: float,
    built_s: float,
    planned_s: float,
) -> Table:
    graph = schedule.graph
    rows: list[list[Any]] = [
        ["robots", graph.robots],
        ["intervals", graph.nodes],
        ["encounters", graph.edges],
        [f"{cost.replace('_', ' ')} [s]", value],
        ["the same without other robots [s]", float(COSTS[cost](graph, graph.enter_N[None])[0])],
        ["routes that pass where another robot has arrived", passing(routes, radius_m)],
        ["time to find encounters [s]", built_s],
        ["time to plan [s]", planned_s],
    ]
    return Table(title="Your fleet", columns=["", "value"], rows=rows)


def read_fleet(fleet: FleetConfig) -> tuple[list[Route], GridMap | None]:
    """The fleet's routes, and its map if it has one. Raises InputError for what cannot be read or driven.

    On a map robots without a task stay where they are, as walls do; where others have arrived, routes go around
    wherever there is a way.
    """
    if fleet.routes is not None:
        return _read_routes(fleet.routes), None
    grid = read_map(str(fleet.map))
    starts, tasks = read_starts(str(fleet.starts), grid), read_tasks(str(fleet.tasks), grid)
    robots = min(len(starts), len(tasks)) if fleet.robots is None else fleet.robots
    parked = starts[robots:] if fleet.robots is None else []
    if robots > min(len(starts), len(tasks)):
        raise InputError(
            f"{robots} robots were asked for, {len(starts)} starts and {len(tasks)} tasks are there",
            where=f"{fleet.starts}, {fleet.tasks}",
            fix="lower fleet.robots",
        )
    free = grid.free_HW.copy()
    free.flat[parked] = False
    grid = GridMap(free, grid.cell_m)
    visits = [[start, *task] for start, task in zip(starts[:robots], tasks[:robots], strict=True)]
    if taken := [robot for robot, cells in enumerate(visits) if set(cells) & set(parked)]:
        what = f"robot {taken[0]} is to drive to a place where a robot without a task stands"
        raise InputError(what, where=f"{fleet.starts}, {fleet.tasks}", fix="give that robot a task, or leave it out")
    return shortest_routes(grid, visits, fleet.seed, [cells[-1] for cells in visits]), grid


def describe(schedule: Schedule) -> dict[str, Any]:
    """A schedule as JSON values: for each robot where it may have to wait (metres of its route), from when on it may
    pass (seconds), and when it arrives; for each encounter who goes first."""
    graph = schedule.graph
    done_R = completion_times(graph, schedule.enter_N[None])[0]
    robots: list[dict[str, Any]] = [{"arrives_s": round(float(done), 3), "waits": []} for done in done_R]
    for robot, at, when in zip(graph.robot_N, graph.enter_N, schedule.enter_N, strict=True):
        robots[robot]["waits"].append({"at_m": round(float(at), 3), "until_s": round(float(when), 3)})
    encounters = []
    for (u, v), first, follows in zip(graph.edge_E2, schedule.first_E, schedule.following_E, strict=True):
        one, other = (u, v) if first else (v, u)
        pair = {"first": int(graph.robot_N[one]), "second": int(graph.robot_N[other])}
        encounters.append({**pair, "may_follow": bool(follows)})
    return {"robots": robots, "encounters": encounters}


_ROUTE = 'write {"route": [[x, y], …]} in metres, a line for each robot'


def _read_routes(path: str) -> list[Route]:
    """A record for each robot: `{"route": [[x, y], …]}`, in metres."""
    routes = []
    for record in read_records(path):
        points = record.items("route", fix=_ROUTE)
        if not all(isinstance(point, list) and len(point) == 2 and all(map(is_number, point)) for point in points):
            raise record.refusal("route", "a list of pairs of finite numbers", fix=_ROUTE)
        routes.append(make_route(points, f"the route in {record.where}"))
    if not routes:
        raise InputError("no robot in it", where=path, fix=_ROUTE)
    return routes
