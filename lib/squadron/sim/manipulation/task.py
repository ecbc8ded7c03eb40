"""What a task is: four functions on a scene. And how a task adds objects that can be seen.

A task's modules live in `tasks/`. Collisions: the arm touches objects and the table but never itself.
Legend: 3 xyz in the world frame, metres; A the 8 numbers of an action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from squadron.sim.manipulation.spec import RGB, EnvironmentSpec, Surface
from squadron.sim.manipulation.view import Camera, Look


@dataclass(frozen=True)
class Scene:
    """One environment's world. `data` is the state; all else is fixed."""

    spec: EnvironmentSpec
    model: mujoco.MjModel
    data: mujoco.MjData
    look: Look
    cameras: dict[str, Camera]


@dataclass(frozen=True)
class Task:
    """A task as functions.

    `build` adds the objects to a world that has the arm and the table (its top is at z = 0).
    `reset` places them for an episode, drawing from the generator; the arm is at home already.
    `success` tells whether the task is done; `expert` gives the next action_A from the state alone.
    """

    description: str
    build: Callable[[mujoco.MjSpec, EnvironmentSpec], None]
    reset: Callable[[Scene, np.random.Generator], None]
    success: Callable[[Scene], bool]
    expert: Callable[[Scene], np.ndarray]


USER_VALUES = 4
"""Numbers that each geom carries for the camera: texture id and second colour."""


def painted(surface: Surface) -> dict[str, Any]:
    """Keyword arguments for `add_geom` that give a geom this surface."""
    return {"rgba": [*surface.colour, 1.0], "userdata": [float(surface.texture), *surface.second_colour]}


def plain(colour: RGB) -> dict[str, Any]:
    """Keyword arguments for `add_geom` that give a geom one colour."""
    return painted(Surface(colour=colour, second_colour=colour))


def solid() -> dict[str, Any]:
    """Keyword arguments for `add_geom`: the geom collides with the arm and with every other solid."""
    return {"contype": 2, "conaffinity": 3}


def ghost() -> dict[str, Any]:
    """Keyword arguments for `add_geom`: the geom is seen but touches nothing and weighs nothing."""
    return {"contype": 0, "conaffinity": 0, "mass": 0.0}


def place(scene: Scene, body: str, position_3: np.ndarray, yaw_rad: float = 0.0) -> None:
    """Put a mocap body, or a body with a free joint, at a position, turned about z."""
    quat_4 = np.array([np.cos(yaw_rad / 2), 0.0, 0.0, np.sin(yaw_rad / 2)])
    item = scene.model.body(body)
    if item.mocapid[0] >= 0:
        scene.data.mocap_pos[item.mocapid[0]] = position_3
        scene.data.mocap_quat[item.mocapid[0]] = quat_4
    else:
        start = scene.model.jnt_qposadr[item.jntadr[0]]
        scene.data.qpos[start : start + 7] = [*position_3, *quat_4]


def ramp(value: float, low: float, high: float) -> float:
    """0 at `low` and below, 1 at `high` and above, straight between: experts blend motions with it."""
    return float(np.clip((value - low) / (high - low), 0.0, 1.0))
