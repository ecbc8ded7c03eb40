"""Robots driving on their floor, coloured by how long they have waited: all at once, and by plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from squadron.core.folder import Folder
from squadron.core.panels import Film
from squadron.core.run import Stage
from squadron.methods.coordination.config import EvaluationConfig, FloorLimits, SamplingConfig
from squadron.methods.coordination.graph import build_graph
from squadron.methods.coordination.planner import learned, plan_graph
from squadron.methods.coordination.problems import unseen_problem
from squadron.methods.coordination.records import Planner
from squadron.methods.coordination.schedule import Schedule
from squadron.sim.film import film, store_film, tile
from squadron.sim.fleet.maps import GridMap
from squadron.sim.routes import Route

CAPTION = "Blue robots have not waited, orange ones for 15 s or longer; a red ring is a collision."
_SIDE_PX = 440
_FRAMES = 90
_PAPER, _WALL, _WAY, _HIT = (250, 250, 248), (96, 100, 108), (222, 224, 228), (214, 39, 40)
_FRESH, _TIRED = np.array((44, 123, 182)), np.array((253, 141, 60))
_TIRED_AFTER_S = 15.0


def show(
    stage: Stage,
    planner: Planner,
    limits: FloorLimits,
    sampling: SamplingConfig,
    config: EvaluationConfig,
) -> None:
    """Film the largest problem that a person can follow, of at most 60 robots, on a map where there is one."""
    robots = max((size for size in config.robots if size <= 60), default=min(config.robots))
    routes, grid = unseen_problem(config, limits, robots, 0)
    graph = build_graph(routes, limits)
    schedule = plan_graph(graph, planner.cost, learned(Folder(planner.locate(stage.run.folder))), sampling)
    name = store_film(stage.folder, "robots", drive(routes, grid, schedule, limits.radius_m))
    stage.show(Film(title=f"{robots} robots, all at once and by plan", file=name, caption=CAPTION))


def drive(routes: Sequence[Route], grid: GridMap | None, schedule: Schedule, radius_m: float) -> bytes:
    """Both ways to drive side by side, as an animation."""
    times_T = np.linspace(0, schedule.end_s + 1, _FRAMES)
    graph = schedule.graph
    by_plan = schedule.arcs(times_T)
    at_once = Schedule(graph, schedule.first_E, schedule.following_E, graph.enter_N)
    runs = [(at_once.arcs(times_T), at_once.on_floor(times_T)), (by_plan, schedule.on_floor(times_T))]
    frames = [_frames(routes, grid, times_T, arc_TR, on_TR, radius_m) for arc_TR, on_TR in runs]
    return film(tile(frames, ["all at once", "by plan"], columns=2), fps=12)


def _frames(
    routes: Sequence[Route],
    grid: GridMap | None,
    times_T: np.ndarray,
    arc_TR: np.ndarray,
    on_TR: np.ndarray,
    radius_m: float,
) -> list[np.ndarray]:
    corners = np.concatenate([route.points_P2 for route in routes])
    low = corners.min(0) - 2 * radius_m
    scale = (_SIDE_PX - 1) / float((corners.max(0) + 2 * radius_m - low).max())
    floor = _floor(routes, grid, low, scale)
    place_TR2 = np.stack([route.at(arc) for route, arc in zip(routes, arc_TR.T, strict=True)], axis=1)
    waited_TR = np.minimum(times_T[:, None], arc_TR[-1]) - arc_TR
    frames = []
    for place_R2, on_R, waited_R in zip(place_TR2, on_TR, waited_TR, strict=True):
        image = floor.copy()
        pen = ImageDraw.Draw(image)
        for robot in np.flatnonzero(on_R):
            x, y = (place_R2[robot] - low) * scale
            r = radius_m * scale
            share = min(1.0, max(0.0, float(waited_R[robot])) / _TIRED_AFTER_S)
            colour = tuple(int(c) for c in _FRESH + share * (_TIRED - _FRESH))
            apart = np.linalg.norm(place_R2[on_R] - place_R2[robot], axis=1)
            hit = (apart < 2 * radius_m * (1 - 1e-6)).sum() > 1
            pen.ellipse((x - r, y - r, x + r, y + r), fill=colour, outline=_HIT if hit else None, width=2)
        frames.append(np.asarray(image))
    return frames


def _floor(routes: Sequence[Route], grid: GridMap | None, low: np.ndarray, scale: float) -> Image.Image:
    image = Image.new("RGB", (_SIDE_PX, _SIDE_PX), _PAPER)
    pen = ImageDraw.Draw(image)
    if grid is not None:
        for centre in grid.centres(np.flatnonzero(~grid.free_HW)):
            x, y = (centre - low) * scale
            r = grid.cell_m / 2 * scale
            pen.rectangle((x - r, y - r, x + r, y + r), fill=_WALL)
    for route in routes:
        pen.line([tuple(point) for point in ((route.points_P2 - low) * scale).tolist()], fill=_WAY, width=1)
    return image
