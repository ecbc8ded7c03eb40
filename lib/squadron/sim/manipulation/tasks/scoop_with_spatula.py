"""Scoop a cube off the table with a spatula.

The spatula lies on the table: a flat blade with a low wall behind and at both sides, a handle raised above
the table, and at the front edge a small lip. A real blade ends in an edge that slips under things; a box ends
in a face that pushes them away. So the lip is a thin box, tilted to dip into the table top, which it passes
through: what stands out is a sharp wedge. The rest of the blade lies on the table.

The blade is smooth and the cube is not, so a push drives the wedge under the cube rather than the cube along
the table. Behind the wedge's crest the cube drops onto the blade, and the crest keeps it there.

The frame of the spatula lies in the middle of the blade, at its underside: x to the front edge, z up.
Legend: 3 xyz in metres, world frame; 33 rotation matrix; A the 8 numbers of an action.
"""

from __future__ import annotations

import mujoco
import numpy as np

from squadron.sim.manipulation.arm import tool_facing, tool_rotation
from squadron.sim.manipulation.grasping import DOWN_3, body_pose, carry, grasp, grasped, move, turn_between
from squadron.sim.manipulation.spec import EnvironmentSpec, ObjectSpec
from squadron.sim.manipulation.task import Scene, Task, painted, place, ramp, solid

CUBE = 0.036
"""Edge of a cube of size 1, in metres; the lengths below are for a spatula of size 1."""
BLADE_BACK, BLADE_FRONT, BLADE_SIDE = -0.060, 0.032, 0.048
GRIP = np.array([-0.110, 0.0, 0.045])
"""Where the handle is taken."""
HANDLE = (0.050, 0.009, 0.012)
"""Half sizes of the handle."""
CREST_M, LIP_RAD, LIP_DIP_M = 0.0025, np.radians(14.0), 0.004
"""Height and slope of the wedge, and how deep the lip dips into the table: the same at every size."""
BLADE_FRICTION = 0.15
"""Of the blade, as a share of the cube's."""

SPATULA_X, SPATULA_Y, SPATULA_YAW = (0.46, 0.52), (0.13, 0.22), 0.35
CUBE_X, CUBE_Y, CUBE_YAW = (0.55, 0.63), (-0.14, 0.04), 0.35
"""Where the two may lie: spans in metres, and the largest turn to either side in radians. Every second
episode, on average, is mirrored left to right."""

SENSOR_LOW_3, SENSOR_HIGH_3 = np.array([0.30, -0.40, 0.12]), np.array([0.90, 0.40, 0.50])
"""The sensor above the table: two corners of a box, world frame."""

PUSH_SPEED, CLEAR_M = 0.2, 0.10
"""Speed of the blade under the cube, in m/s, and how high the spatula is carried before that."""
GAP_M, PRESS_M, LOW_M = 0.03, 0.004, 0.003
"""How far before the cube the blade's crest is set down, how far below the table top it aims, and how high it
may be for a push."""
TILT_RAD = 0.4
"""How far the loaded blade is tilted back."""
_UP_3 = -DOWN_3


def build(world: mujoco.MjSpec, spec: EnvironmentSpec) -> None:
    """The spatula and the cube. The lip alone ignores the table."""
    _add_spatula(world, spec.objects["spatula"], spec.friction)
    item = spec.objects["cube"]
    cube = world.worldbody.add_body(name="cube")
    cube.add_freejoint()
    cube.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=[CUBE * item.size / 2] * 3, mass=item.mass_kg,
        friction=[spec.friction, 0.005, 0.0001], **solid(), **painted(item.surface),
    )  # fmt: skip


def _add_spatula(world: mujoco.MjSpec, item: ObjectSpec, friction: float) -> None:
    """Blade, three walls, lip, neck and handle. The blade carries most of the mass, so that it lies flat."""
    scale, body = item.size, world.worldbody.add_body(name="spatula")
    body.add_freejoint()
    common = {"type": mujoco.mjtGeom.mjGEOM_BOX, **solid(), **painted(item.surface)}
    smooth = {"friction": [BLADE_FRICTION * friction, 0.005, 0.0001], "priority": 1, **common}
    middle, length = (BLADE_BACK + BLADE_FRONT) / 2, (BLADE_FRONT - BLADE_BACK) / 2
    blade = (
        (0.45, [middle, 0, 0.00075 / scale], [length, BLADE_SIDE, 0.00075 / scale]),
        (0.15, [BLADE_BACK, 0, 0.012], [0.002, BLADE_SIDE, 0.012]),
        (0.05, [BLADE_BACK + 0.04, BLADE_SIDE, 0.005], [0.04, 0.0015, 0.005]),
        (0.05, [BLADE_BACK + 0.04, -BLADE_SIDE, 0.005], [0.04, 0.0015, 0.005]),
    )
    shaft = (
        (0.05, [BLADE_BACK, 0, 0.030], [0.004, 0.009, 0.026]),
        (0.15, [BLADE_BACK - HANDLE[0], 0, GRIP[2]], list(HANDLE)),
    )
    for parts, looks in ((blade, smooth), (shaft, common)):
        for share, position, half in parts:
            body.add_geom(
                pos=[scale * value for value in position], size=[scale * value for value in half],
                mass=share * item.mass_kg, **looks,
            )  # fmt: skip
    _add_lip(world, body, scale, {"mass": 0.1 * item.mass_kg, **smooth})


def _add_lip(world: mujoco.MjSpec, spatula: mujoco.MjsBody, scale: float, looks: dict[str, object]) -> None:
    """A tilted sheet from the crest down into the table, on a body of its own that ignores the table."""
    half, thickness = (CREST_M + LIP_DIP_M) / np.sin(LIP_RAD) / 2, 0.0015
    along_3 = np.array([np.cos(LIP_RAD), 0.0, -np.sin(LIP_RAD)])
    normal_3 = np.array([np.sin(LIP_RAD), 0.0, np.cos(LIP_RAD)])
    crest_3 = np.array([scale * BLADE_FRONT, 0.0, CREST_M])
    lip = spatula.add_body(name="lip", pos=(crest_3 + half * along_3 - thickness * normal_3).tolist())
    lip.quat = [np.cos(LIP_RAD / 2), 0.0, np.sin(LIP_RAD / 2), 0.0]
    lip.add_geom(size=[half, scale * BLADE_SIDE, thickness], **looks)
    world.add_exclude(bodyname1="world", bodyname2="lip")


def reset(scene: Scene, rng: np.random.Generator) -> None:
    """The spatula to one side with its handle towards the robot, the cube ahead and to the other side."""
    side = rng.choice([-1.0, 1.0])
    place(
        scene, "spatula", np.array([rng.uniform(*SPATULA_X), side * rng.uniform(*SPATULA_Y), 0.0]),
        rng.uniform(-SPATULA_YAW, SPATULA_YAW),
    )  # fmt: skip
    height = CUBE * scene.spec.objects["cube"].size / 2
    place(
        scene, "cube", np.array([rng.uniform(*CUBE_X), side * rng.uniform(*CUBE_Y), height]),
        rng.uniform(-CUBE_YAW, CUBE_YAW),
    )  # fmt: skip


def success(scene: Scene) -> bool:
    """The cube is in the sensor above the table, and the gripper holds the spatula."""
    cube_3 = scene.data.body("cube").xpos
    inside = (cube_3 > SENSOR_LOW_3).all() and (cube_3 < SENSOR_HIGH_3).all()
    return bool(inside and grasped(scene, "spatula"))


def expert(scene: Scene) -> np.ndarray:
    """Grasp the handle; set the blade down before the cube; push it under; tilt and lift the cube."""
    spatula_3, spatula_33 = body_pose(scene, "spatula")
    if not grasped(scene, "spatula"):
        grip_3 = spatula_3 + spatula_33 @ (scene.spec.objects["spatula"].size * GRIP)
        return grasp(scene, grip_3, tool_facing(DOWN_3, spatula_33[:, 1]))
    if _loaded(scene):
        return _lift(scene)
    return _approach(scene)


def _loaded(scene: Scene) -> bool:
    """Whether the cube's centre is above the blade, behind the crest."""
    spatula_3, spatula_33 = body_pose(scene, "spatula")
    scale, half = scene.spec.objects["spatula"].size, CUBE * scene.spec.objects["cube"].size / 2
    x, y, z = spatula_33.T @ (scene.data.body("cube").xpos - spatula_3)
    inside = scale * BLADE_BACK < x < scale * BLADE_FRONT - 0.002 and abs(y) < scale * BLADE_SIDE
    return bool(inside and z < 2.5 * half)


def _lift(scene: Scene) -> np.ndarray:
    """Tilt the blade back, so that the cube slides to the rear wall, and raise it while the push fades."""
    _, spatula_33 = body_pose(scene, "spatula")
    heading_3 = _level(spatula_33[:, 0])
    tilted = ramp(float(np.arcsin(np.clip(spatula_33[2, 0], -1.0, 1.0))), 0.0, TILT_RAD)
    velocity_3 = (1.0 - tilted) * PUSH_SPEED * heading_3 + (0.05 + 0.15 * tilted) * _UP_3
    goal_33 = _blade_facing(np.cos(TILT_RAD) * heading_3 + np.sin(TILT_RAD) * _UP_3)
    tool_33 = goal_33 @ spatula_33.T @ tool_rotation(scene.data)
    return move(scene, velocity_3, tool_33, opening=False)


def _approach(scene: Scene) -> np.ndarray:
    """Bring the blade before a face of the cube and push along the face's normal."""
    spatula_3, spatula_33 = body_pose(scene, "spatula")
    heading_3 = _heading(scene, spatula_33[:, 0])
    goal_33 = _blade_facing(heading_3)
    away_3 = _flat(scene.data.body("cube").xpos - spatula_3)
    aside_3 = away_3 - (away_3 @ heading_3) * heading_3
    turn_m = 0.03 * turn_between(goal_33, spatula_33)
    scale, half = scene.spec.objects["spatula"].size, CUBE * scene.spec.objects["cube"].size / 2
    room_m = scale * BLADE_SIDE - half
    in_line = away_3 @ heading_3 > 0.0 and np.linalg.norm(aside_3) + turn_m < 0.6 * room_m
    if in_line and spatula_3[2] < LOW_M:
        target_3 = _flat(spatula_3) + aside_3 + PUSH_SPEED * heading_3 - PRESS_M * _UP_3
        return carry(scene, "spatula", target_3, goal_33, PUSH_SPEED, 0.5)
    start_3 = away_3 - (half + GAP_M + scale * BLADE_FRONT) * heading_3
    target_3 = _flat(spatula_3) + _set_down(start_3, spatula_3[2], turn_m, 0.3 * room_m)
    return carry(scene, "spatula", target_3, goal_33, 0.3, 1.0)


def _set_down(start_3: np.ndarray, height: float, turn_m: float, room_m: float) -> np.ndarray:
    """Where to go next from here, with the start of the push `start_3` away: up, across, down."""
    away_m = float(np.linalg.norm(start_3)) + turn_m
    across = max(ramp(height, CLEAR_M - 0.05, CLEAR_M - 0.02), 1.0 - ramp(away_m, 0.03, 0.04))
    return across * start_3 + (CLEAR_M * ramp(away_m, room_m, room_m + 0.02) - PRESS_M) * _UP_3


def _heading(scene: Scene, forward_3: np.ndarray) -> np.ndarray:
    """The horizontal direction, across one of the cube's faces, that is nearest to `forward_3`."""
    cube_33 = scene.data.body("cube").xmat.reshape(3, 3)
    level = [axis_3 for axis_3 in cube_33.T if abs(axis_3[2]) < 0.71]
    normals = [sign * axis_3 for axis_3 in level for sign in (-1.0, 1.0)]
    return _level(max(normals, key=lambda normal_3: float(normal_3 @ forward_3)))


def _blade_facing(forward_3: np.ndarray) -> np.ndarray:
    """The rotation of a spatula whose front points along `forward_3` and whose sides are level."""
    left_3 = _level(np.cross(_UP_3, forward_3))
    return np.column_stack([forward_3, left_3, np.cross(forward_3, left_3)])


def _flat(vector_3: np.ndarray) -> np.ndarray:
    return vector_3 * [1.0, 1.0, 0.0]


def _level(vector_3: np.ndarray) -> np.ndarray:
    """The unit vector along the horizontal part of `vector_3`."""
    return _flat(vector_3) / np.linalg.norm(vector_3[:2])


TASK = Task(
    description="scoop up the cube with the spatula",
    build=build,
    reset=reset,
    success=success,
    expert=expert,
)
