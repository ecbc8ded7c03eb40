"""Close the box: flip a lid that lies open beside its box, by pushing its free edge up and over.

The box stands still; its lid turns on a hinge along the box's x axis and opens towards its y axis. The lid
starts 2.85 rad open and the task is done when it has turned by more than 2.6 rad (The Colosseum's condition).

The lid's angle is 0 when shut. All directions below lie in the plane across the hinge: `out` is the box's y
axis, `up` is z. Legend: 3 xyz in metres, world frame; 33 rotation matrix; A the 8 numbers of an action.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from squadron.sim.manipulation.arm import (
    drive_tool,
    rotation_error,
    tool_facing,
    tool_position,
    tool_rotation,
)
from squadron.sim.manipulation.spec import EnvironmentSpec, Surface
from squadron.sim.manipulation.task import Scene, Task, painted, place, ramp, solid

WIDTH_M, DEPTH_M, HEIGHT_M, WALL_M = 0.22, 0.20, 0.10, 0.004
"""Outer width along the hinge, depth across it, and half the thickness of a wall, at size 1."""

OPEN_RAD = 2.85
"""Angle of the lid at the start: it leans on a stop, a little short of lying flat."""
TURN_RAD = 2.6
CENTRE_X_M, CENTRE_Y_M, YAW_RAD = (0.42, 0.54), (-0.17, -0.07), (-np.pi / 8, np.pi / 8)
"""Where an episode puts the centre of the box, and how far it turns it."""
LID_KG = 0.2
SPRING, FRICTION = 0.75, 0.35
"""Torques of the hinge, as shares of the lid's own: a spring that pulls shut (at the open end) and friction.
The lid stays where it is left until it stands upright, and falls shut by itself from there."""

_UP_3 = np.array([0.0, 0.0, 1.0])

LEAD_RAD = 0.35
"""How far ahead of the lid the pushing fingers aim."""
BACK_OFF_M = 0.16
"""How far back along their own direction the fingers line up before they go under the lid."""


def build(world: mujoco.MjSpec, spec: EnvironmentSpec) -> None:
    """Five walls and a lid on a hinge. Lid and box show the same two colours, the other way round."""
    item = spec.objects["box"]
    look, scale = painted(item.surface), item.size
    width, depth, height = (scale * length / 2 for length in (WIDTH_M, DEPTH_M, HEIGHT_M))
    box = world.worldbody.add_body(name="box", mocap=True)
    walls = (
        ([width, depth, WALL_M], [0, 0, WALL_M]),
        ([width, WALL_M, height], [0, depth - WALL_M, height]),
        ([width, WALL_M, height], [0, WALL_M - depth, height]),
        ([WALL_M, depth, height], [width - WALL_M, 0, height]),
        ([WALL_M, depth, height], [WALL_M - width, 0, height]),
    )
    for size, position in walls:
        box.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=size, pos=position, **solid(), **look)
    lid = box.add_body(name="lid", pos=[0, depth, 2 * height])
    weight_nm = LID_KG * 9.81 * depth
    lid.add_joint(
        name="lid", axis=[-1, 0, 0], range=[0, OPEN_RAD], limited=True, damping=0.02, armature=0.001,
        stiffness=SPRING * weight_nm / OPEN_RAD, springref=0.0, frictionloss=FRICTION * weight_nm,
    )  # fmt: skip
    surface = item.surface
    inside_out = Surface(colour=surface.second_colour, second_colour=surface.colour, texture=surface.texture)
    lid.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=[width, depth, WALL_M], pos=[0, -depth, WALL_M + 0.002],
        mass=LID_KG, **solid(), **painted(inside_out),
    )  # fmt: skip
    world.add_exclude(bodyname1="box", bodyname2="lid")


def reset(scene: Scene, rng: np.random.Generator) -> None:
    """The box somewhere in its area, turned by up to 22.5 degrees, its lid open."""
    centre_3 = np.array([rng.uniform(*CENTRE_X_M), rng.uniform(*CENTRE_Y_M), 0.0])
    place(scene, "box", centre_3, rng.uniform(*YAW_RAD))
    scene.data.joint("lid").qpos[0] = OPEN_RAD


def success(scene: Scene) -> bool:
    """The lid has turned by more than 2.6 rad."""
    return bool(OPEN_RAD - scene.data.joint("lid").qpos[0] > TURN_RAD)


@dataclass(frozen=True)
class _Lid:
    """Where the lid is, and what follows from it."""

    hinge_3: np.ndarray
    along_3: np.ndarray
    out_3: np.ndarray
    length: float
    half_width: float
    angle: float

    def direction(self, angle: float) -> np.ndarray:
        """From the hinge to the free edge."""
        return -np.cos(angle) * self.out_3 + np.sin(angle) * _UP_3

    def normal(self, angle: float) -> np.ndarray:
        """Of the outer face: the side on which the fingers push."""
        return np.sin(angle) * self.out_3 + np.cos(angle) * _UP_3

    def push_point(self, angle: float) -> np.ndarray:
        """Where the tool belongs to push a lid at `angle`: under its edge while open, then behind it."""
        openness = ramp(angle, 2.1, OPEN_RAD)
        reach = 0.75 * self.length + openness * (0.25 * self.length - 0.03)
        gap = 0.02 + 0.05 * openness
        return self.hinge_3 + reach * self.direction(angle) + gap * self.normal(angle)

    def pointing(self) -> np.ndarray:
        """The tool's direction: slanting in under the open lid, nearly straight down once it stands."""
        tilt = np.radians(15.0 + 35.0 * ramp(self.angle, 1.2, OPEN_RAD))
        return -np.sin(tilt) * self.out_3 - np.cos(tilt) * _UP_3

    def engaged(self, tool_3: np.ndarray) -> float:
        """1 where the tool would push the lid if it moved on, 0 where it would miss or hit the wrong side."""
        offset_3 = tool_3 - self.hinge_3
        beyond_edge = offset_3 @ self.direction(self.angle) - self.length
        inside = -(offset_3 @ self.normal(self.angle))
        aside = abs(offset_3 @ self.along_3) / self.half_width
        misses = (ramp(beyond_edge, 0.02, 0.05), ramp(inside, 0.005, 0.02), ramp(aside, 0.6, 0.9))
        return float(np.prod([1.0 - miss for miss in misses]))


def expert(scene: Scene) -> np.ndarray:
    """Come in along the fingers' direction to under the lid's edge, then push it round its hinge."""
    lid, tool_3 = _lid(scene), tool_position(scene.data)
    pointing_3 = lid.pointing()
    rotation_33 = tool_facing(pointing_3, lid.along_3)
    start_3 = lid.push_point(lid.angle)
    away_3 = tool_3 - start_3
    off_axis = float(np.linalg.norm(away_3 - pointing_3 * (away_3 @ pointing_3)))
    turned = float(np.linalg.norm(rotation_error(rotation_33, tool_rotation(scene.data))))
    approach_3 = start_3 - BACK_OFF_M * ramp(off_axis + 0.1 * turned, 0.02, 0.09) * pointing_3
    push_3 = lid.push_point(lid.angle - LEAD_RAD)
    target_3 = approach_3 + lid.engaged(tool_3) * (push_3 - approach_3)
    action_A = np.zeros(8)
    action_A[:7] = drive_tool(scene.model, scene.data, target_3, rotation_33)
    return action_A


def _lid(scene: Scene) -> _Lid:
    data, scale = scene.data, scene.spec.objects["box"].size
    along_3, out_3, _ = data.body("box").xmat.reshape(3, 3).T
    return _Lid(
        hinge_3=data.body("lid").xpos.copy(),
        along_3=along_3.copy(),
        out_3=out_3.copy(),
        length=DEPTH_M * scale,
        half_width=WIDTH_M * scale / 2,
        angle=float(data.joint("lid").qpos[0]),
    )


TASK = Task(
    description="close the box by turning its lid over",
    build=build,
    reset=reset,
    success=success,
    expert=expert,
)
