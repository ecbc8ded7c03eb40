"""Among recorded cars: the automated car on a route of a CommonRoad file, driven by each method.

Recorded drivers do not react, so that this shows how memories of one world do in traffic of another, not who would have
given way.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.methods.actor_reasoner.benchmark import ALONE, FULL, PPO, RULE, World, contestant
from squadron.methods.actor_reasoner.episodes import Track, run_episodes
from squadron.methods.actor_reasoner.records import LearnedDriver, Memories, Recordings
from squadron.sim.driving.recorded import Recorded, read_recorded, replay_traffic
from squadron.sim.driving.traffic import Traffic


def check_recordings(paths: tuple[str, ...]) -> None:
    """Read every file. Raises InputError for one that holds no scenario to drive in."""
    for path in paths:
        read_recorded(path)


def drive_recorded(
    stage: Stage, world: World, memories: Memories, learned: LearnedDriver, paths: tuple[str, ...]
) -> Recordings:
    """Drive each file once by each method."""
    drives = contestant(world, memories.path, learned.file)
    methods = [FULL.name, ALONE.name, RULE] + ([PPO] if learned.file is not None else [])
    rows: list[list[Any]] = []
    for path in paths:
        recorded = read_recorded(path)
        for method in methods:
            track = run_episodes(
                start(recorded, world),
                world.config.drivers,
                drives.policy(method)[0],
                over=lambda traffic, goal=recorded.goal_arc: traffic.arc_BV[:, 0] >= goal,  # type: ignore[misc]
            )
            rows.append([recorded.name, method, *_row(track, recorded)])
    columns = ["recording", "method", "reached its goal, s", "collided", "on the way, m", "hardest braking, m/s²"]
    note = f"With memories of the scene {memories.scene}. Recorded drivers do not react to the automated car."
    stage.show(Table(title="Among recorded cars", columns=columns, rows=rows, note=note))
    reached = sum(row[2] is not None for row in rows if row[1] == FULL.name)
    stage.headline(f"of {len(paths)} recordings driven to the goal, {memories.scene}", str(reached))
    return Recordings(driven=len(rows))


def start(recorded: Recorded, world: World) -> Traffic:
    """The record from its first step to its last; the automated car may drive as fast as it was recorded."""
    config = world.config.traffic
    ticks = math.ceil(len(recorded.here_TR) * recorded.step_s / config.tick_s)
    fastest = max(config.top_speed, math.ceil(recorded.start_speed))
    return replay_traffic(recorded, config.model_copy(update={"ticks": ticks, "top_speed": float(fastest)}))


def _row(track: Track, recorded: Recorded) -> list[Any]:
    arc_T, speed_T = track.arc_TBV[:, 0, 0], track.speed_TBV[:, 0, 0]
    there = np.flatnonzero(arc_T >= recorded.goal_arc)
    tick_s = track.traffic.config.tick_s
    hits = np.flatnonzero(track.collided_TB[:, 0])
    hit = bool(len(hits)) and (not len(there) or hits[0] < there[0])
    braking = -float(np.diff(speed_T).min(initial=0.0)) / tick_s
    reached = round(float(there[0]) * tick_s, 1) if len(there) and not hit else None
    return [reached, hit, round(float(arc_T[-1] - arc_T[0]), 1), round(braking, 1)]
