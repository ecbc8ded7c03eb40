"""Slide the block to the target: push a block along the table until all of it lies on a marked square.

The block lies at the robot's right, the target in front or at its left. Directions below lie in the table's
plane: `goal` points from the block to the target, `aside` across it.
Legend: 2 xy, 3 xyz in metres, world frame.
"""

from __future__ import annotations

import mujoco
import numpy as np

from squadron.sim.manipulation.arm import drive_tool, tool_facing, tool_position
from squadron.sim.manipulation.spec import EnvironmentSpec
from squadron.sim.manipulation.task import Scene, Task, ghost, painted, place, ramp, solid

BLOCK_HALF_3 = (0.04, 0.04, 0.025)
TARGET_HALF_M = 0.10
BLOCK_X_M, BLOCK_Y_M = (0.40, 0.54), (-0.20, -0.10)
TARGET_X_M, TARGET_Y_M = (0.40, 0.54), (0.08, 0.18)
YAW_RAD = (-np.pi / 8, np.pi / 8)

TABLE_FRICTION = 0.4
"""Friction between block and table is the block's own coefficient times this one (as Bullet combines them):
at 15 kg the arm pushes with up to 60 N."""

PUSH_HEIGHT_M = 0.022
"""Height of the tool while it pushes: the fingertips, 9 mm below it, stay clear of the table."""
BEHIND_M = 0.10
"""How far behind the block's centre the fingers come down."""
CONTACT_M = 0.055
"""About the distance from the block's centre to fingers that touch it."""
LEAD_M = 0.09
"""How far ahead of the block the pushing fingers aim."""
LIFT_M = 0.14
"""How much higher the tool travels until it is there."""

_DOWN_33 = tool_facing(np.array([0.0, 0.0, -1.0]), np.array([0.0, -1.0, 0.0]))


def build(world: mujoco.MjSpec, spec: EnvironmentSpec) -> None:
    """A free block and a mark on the table."""
    target = world.worldbody.add_body(name="target", mocap=True)
    target.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=[TARGET_HALF_M, TARGET_HALF_M, 0.001], **ghost(),
        **painted(spec.objects["target"].surface),
    )  # fmt: skip
    block = world.worldbody.add_body(name="block")
    block.add_freejoint(name="block")
    block.add_geom(
        name="block", type=mujoco.mjtGeom.mjGEOM_BOX, size=BLOCK_HALF_3, mass=spec.objects["block"].mass_kg,
        friction=[spec.friction * TABLE_FRICTION, 0.005, 0.0001], **solid(),
        **painted(spec.objects["block"].surface),
    )  # fmt: skip


def reset(scene: Scene, rng: np.random.Generator) -> None:
    """Block and target somewhere in their areas, each turned by up to 22.5 degrees."""
    block_3 = np.array([rng.uniform(*BLOCK_X_M), rng.uniform(*BLOCK_Y_M), BLOCK_HALF_3[2]])
    target_3 = np.array([rng.uniform(*TARGET_X_M), rng.uniform(*TARGET_Y_M), 0.001])
    place(scene, "block", block_3, rng.uniform(*YAW_RAD))
    place(scene, "target", target_3, rng.uniform(*YAW_RAD))


def success(scene: Scene) -> bool:
    """All corners of the block lie above the target square."""
    block, target = scene.data.body("block"), scene.data.body("target")
    signs_43 = np.array([[x, y, -1.0] for x in (-1, 1) for y in (-1, 1)])
    corners_43 = block.xpos + (signs_43 * BLOCK_HALF_3) @ block.xmat.reshape(3, 3).T
    local_43 = (corners_43 - target.xpos) @ target.xmat.reshape(3, 3)
    return bool(np.all(np.abs(local_43[:, :2]) < TARGET_HALF_M))


def expert(scene: Scene) -> np.ndarray:
    """Come down behind the block, then push it straight at the target; steer by staying on their line."""
    tool_3 = tool_position(scene.data)
    block_2, target_2 = scene.data.body("block").xpos[:2], scene.data.body("target").xpos[:2]
    distance = float(np.linalg.norm(target_2 - block_2))
    goal_2 = (target_2 - block_2) / max(distance, 1e-6)
    aside_2 = np.array([-goal_2[1], goal_2[0]])

    behind_2 = block_2 - BEHIND_M * goal_2
    missed = float(np.linalg.norm(tool_3[:2] - behind_2))
    approach_3 = np.array([*behind_2, PUSH_HEIGHT_M + LIFT_M * ramp(missed, 0.02, 0.08)])
    push_2 = block_2 + (min(LEAD_M, distance + 0.03) - CONTACT_M) * goal_2
    push_3 = np.array([*push_2, PUSH_HEIGHT_M])

    away_2 = tool_3[:2] - block_2
    misses = (
        ramp(tool_3[2], PUSH_HEIGHT_M + 0.015, PUSH_HEIGHT_M + 0.04),
        ramp(abs(float(away_2 @ aside_2)), 0.025, 0.05),
        ramp(float(away_2 @ goal_2), -0.03, 0.0),
    )
    engaged = float(np.prod([1.0 - miss for miss in misses]))
    action_A = np.zeros(8)
    if not success(scene):
        target_3 = approach_3 + engaged * (push_3 - approach_3)
        action_A[:7] = drive_tool(scene.model, scene.data, target_3, _DOWN_33)
    return action_A


TASK = Task(
    description="slide the block onto the marked square",
    build=build,
    reset=reset,
    success=success,
    expert=expert,
)
