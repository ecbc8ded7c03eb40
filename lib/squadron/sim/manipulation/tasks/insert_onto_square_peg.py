"""Put a square ring onto the pillar that wears the colour of the ring's handle.

Three pillars of one size stand in a row. Colours and sizes are drawn for each environment, the order of the
pillars for each episode. A policy sees no sentence, so the ring itself carries the instruction: its handle is
painted like the instructed pillar.

The frame of the ring lies in the centre of its hole, on the ring's underside, and its handle points along -x.
Legend: 3 xyz in metres, world frame; 33 rotation matrix; A the 8 numbers of an action.
"""

from __future__ import annotations

import mujoco
import numpy as np

from squadron.sim.manipulation.arm import tool_facing
from squadron.sim.manipulation.grasping import DOWN_3, body_pose, carry, grasp, grasped, turn_between
from squadron.sim.manipulation.spec import EnvironmentSpec, ObjectSpec
from squadron.sim.manipulation.task import Scene, Task, painted, place, ramp, solid

PILLARS = ("pillar", "second_pillar", "third_pillar")
"""The first one is the instructed one."""
PLACES_Y = (-0.14, 0.0, 0.14)
PILLAR_X = 0.60
RING_X, RING_Y, RING_YAW = (0.40, 0.46), (-0.22, 0.22), 0.6
"""Where a ring may lie: spans in metres, and the largest turn to either side in radians."""

HOLE, WALL, RING_HEIGHT = 0.030, 0.008, 0.026
"""Half the width of the hole, thickness and height of the walls, for a ring of size 1."""
HANDLE = (0.030, 0.009, 0.010)
"""Half sizes of the handle; it sticks out of the ring's side."""
PILLAR, PILLAR_HEIGHT = 0.020, 0.080
"""Half the width of a pillar of size 1, and its height."""

DOWN_M = 0.01
"""The ring is down when its underside is no higher than this."""
CARRY_M = 0.13
"""How high the ring's underside is carried."""
FRICTION = (0.5, 0.005, 0.0001)


def build(world: mujoco.MjSpec, spec: EnvironmentSpec) -> None:
    """The ring and three pillars, which take the size of the first."""
    _add_ring(world, spec.objects["ring"], spec.objects[PILLARS[0]])
    half, height = _pillar_half(spec), PILLAR_HEIGHT / 2 * spec.objects[PILLARS[0]].size
    for name in PILLARS:
        pillar = world.worldbody.add_body(name=name, mocap=True)
        pillar.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, size=[half, half, height], pos=[0, 0, height], friction=FRICTION,
            **solid(), **painted(spec.objects[name].surface),
        )  # fmt: skip


def _add_ring(world: mujoco.MjSpec, ring: ObjectSpec, instructed: ObjectSpec) -> None:
    """Four walls, and a handle in the colour of the instructed pillar that weighs a fifth of the ring."""
    body = world.worldbody.add_body(name="ring")
    body.add_freejoint()
    hole, wall, height = HOLE * ring.size, WALL * ring.size / 2, RING_HEIGHT * ring.size / 2
    common = {"type": mujoco.mjtGeom.mjGEOM_BOX, "friction": FRICTION, **solid()}
    for along_x in (True, False):
        for sign in (-1, 1):
            offset = sign * (hole + wall)
            body.add_geom(
                size=[hole + 2 * wall, wall, height] if along_x else [wall, hole, height],
                pos=[0, offset, height] if along_x else [offset, 0, height],
                mass=0.2 * ring.mass_kg, **common, **painted(ring.surface),
            )  # fmt: skip
    body.add_geom(
        name="handle", size=[half * ring.size for half in HANDLE], pos=_handle(ring.size).tolist(),
        mass=0.2 * ring.mass_kg, **common, **painted(instructed.surface),
    )  # fmt: skip


def _handle(size: float) -> np.ndarray:
    """The centre of the handle in the ring's frame: its top is level with the ring's."""
    return size * np.array([-(HOLE + WALL + HANDLE[0]), 0.0, RING_HEIGHT - HANDLE[2]])


def _pillar_half(spec: EnvironmentSpec) -> float:
    return PILLAR * spec.objects[PILLARS[0]].size


def reset(scene: Scene, rng: np.random.Generator) -> None:
    """The pillars in an order of their own, the ring between them and the robot."""
    for name, y in zip(PILLARS, rng.permutation(PLACES_Y), strict=True):
        place(scene, name, np.array([PILLAR_X, y, 0.0]))
    position_3 = np.array([rng.uniform(*RING_X), rng.uniform(*RING_Y), 0.0])
    place(scene, "ring", position_3, rng.uniform(-RING_YAW, RING_YAW))


def around(scene: Scene, pillar: str) -> bool:
    """Whether the ring lies around `pillar`, down on the table."""
    position_3, rotation_33 = body_pose(scene, "ring")
    offset_3 = rotation_33.T @ (scene.data.body(pillar).xpos - position_3)
    inside = np.abs(offset_3[:2]).max() < HOLE * scene.spec.objects["ring"].size
    return bool(inside and abs(position_3[2]) < DOWN_M and rotation_33[2, 2] > 0.95)


def success(scene: Scene) -> bool:
    """The ring lies around the instructed pillar."""
    return around(scene, PILLARS[0])


def expert(scene: Scene) -> np.ndarray:
    """Grasp the handle, lift the ring above the pillars, bring it over its own, lower it."""
    ring_3, ring_33 = body_pose(scene, "ring")
    if not grasped(scene, "ring"):
        handle_3 = ring_3 + ring_33 @ _handle(scene.spec.objects["ring"].size)
        return grasp(scene, handle_3, tool_facing(DOWN_3, ring_33[:, 1]))
    return carry(scene, "ring", _next_position(scene), np.eye(3), speed=0.3, turn_speed=1.0)


def _next_position(scene: Scene) -> np.ndarray:
    """Up while the ring is low, across when it is high, down once the hole is above the pillar."""
    ring_3, ring_33 = body_pose(scene, "ring")
    target_3 = scene.data.body(PILLARS[0]).xpos - [0.0, 0.0, 0.005]
    away_m = float(np.linalg.norm((target_3 - ring_3)[:2])) + 0.05 * turn_between(np.eye(3), ring_33)
    across = max(ramp(ring_3[2], CARRY_M - 0.06, CARRY_M - 0.02), 1.0 - ramp(away_m, 0.02, 0.03))
    room_m = HOLE * scene.spec.objects["ring"].size - _pillar_half(scene.spec)
    height = target_3[2] + ramp(away_m, 0.6 * room_m, room_m) * (CARRY_M - target_3[2])
    return np.append(ring_3[:2] + across * (target_3 - ring_3)[:2], height)


TASK = Task(
    description="put the ring onto the pillar that has the colour of its handle",
    build=build,
    reset=reset,
    success=success,
    expert=expert,
)
