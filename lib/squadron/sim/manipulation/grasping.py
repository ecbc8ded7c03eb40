"""What the experts share that pick things up: when an object is held, how to grasp it, how to carry it.

Grasps are held by friction between the fingers and the object, nothing else.
Legend: 3 xyz in metres, world frame; 33 rotation matrix; A the 8 numbers of an action.
"""

from __future__ import annotations

import numpy as np

from squadron.sim.manipulation.arm import (
    drive_tool,
    gripper_open,
    rotation_error,
    tool_position,
    tool_rotation,
)
from squadron.sim.manipulation.task import Scene, ramp

DOWN_3 = np.array([0.0, 0.0, -1.0])
FINGER_GEOMS = ("left_finger", "right_finger")

_GAIN = 8.0
"""Speed per distance still to go, 1/s."""
_HOVER_M = 0.08
_ON_COURSE_M, _OFF_COURSE_M = 0.01, 0.035
"""The open gripper is right above the grasp point within the first distance, and high beyond the second."""
_CLOSE_M, _KEEP_M = 0.012, 0.03
"""The gripper starts to close within the first distance of the grasp point and keeps closing within the second."""


def body_pose(scene: Scene, body: str) -> tuple[np.ndarray, np.ndarray]:
    """Position_3 and rotation_33 of a body."""
    item = scene.data.body(body)
    return item.xpos.copy(), item.xmat.reshape(3, 3).copy()


def grasped(scene: Scene, body: str) -> bool:
    """Whether both fingers touch a geom of `body`."""
    model, contact = scene.model, scene.data.contact
    body_id = model.body(body).id
    for finger in FINGER_GEOMS:
        pairs_K2 = contact.geom[(contact.geom == model.geom(finger).id).any(axis=1)]
        if not (model.geom_bodyid[pairs_K2] == body_id).any():
            return False
    return True


def turn_between(wanted_33: np.ndarray, actual_33: np.ndarray) -> float:
    """The angle between two rotations, in radians."""
    return float(np.linalg.norm(rotation_error(wanted_33, actual_33)))


def grasp(scene: Scene, point_3: np.ndarray, rotation_33: np.ndarray) -> np.ndarray:
    """The action_A that brings the open tool to a pose from above and closes the gripper there.

    Half a turn makes no difference to the fingers, so the nearer of the two is taken. Sideways and turning
    errors keep the tool high: the way down is a funnel, and a missed grasp leads back up it.
    """
    tool_3, tool_33 = tool_position(scene.data), tool_rotation(scene.data)
    rotation_33 = min(
        (rotation_33, rotation_33 * [-1.0, -1.0, 1.0]), key=lambda wanted_33: turn_between(wanted_33, tool_33)
    )
    away_3 = point_3 - tool_3
    off = float(np.linalg.norm(away_3[:2])) + 0.1 * turn_between(rotation_33, tool_33)
    opened = gripper_open(scene.data) > 0.5
    closing = float(np.linalg.norm(away_3)) < (_CLOSE_M if opened else _KEEP_M)
    hover_m = 0.0 if closing else _HOVER_M * (ramp(off, _ON_COURSE_M, _OFF_COURSE_M) if opened else 1.0)
    return action(scene, point_3 - hover_m * DOWN_3, rotation_33, opening=not closing)


def carry(
    scene: Scene, body: str, position_3: np.ndarray, rotation_33: np.ndarray, speed: float, turn_speed: float
) -> np.ndarray:
    """Gripper closed, the action_A that brings the held `body` towards a pose.

    The body moves with at most `speed` m/s and turns with at most `turn_speed` rad/s.
    """
    body_3, body_33 = body_pose(scene, body)
    turn_33 = rotation_33 @ body_33.T
    tool_3 = position_3 + turn_33 @ (tool_position(scene.data) - body_3)
    tool_33 = turn_33 @ tool_rotation(scene.data)
    return action(scene, tool_3, tool_33, opening=False, speed=speed, turn_speed=turn_speed)


def move(scene: Scene, velocity_3: np.ndarray, tool_33: np.ndarray, opening: bool) -> np.ndarray:
    """The action_A that moves the tool at `velocity_3`, in m/s, while it turns towards a rotation."""
    tool_3 = tool_position(scene.data) + velocity_3 / _GAIN
    return action(scene, tool_3, tool_33, opening, speed=float(np.linalg.norm(velocity_3)))


def action(
    scene: Scene,
    tool_3: np.ndarray,
    tool_33: np.ndarray,
    opening: bool,
    speed: float = 0.4,
    turn_speed: float = 1.0,
) -> np.ndarray:
    """The action_A that drives the tool towards a pose and opens or closes the gripper."""
    velocity_7 = drive_tool(scene.model, scene.data, tool_3, tool_33, speed, turn_speed, _GAIN)
    return np.append(velocity_7, 1.0 if opening else 0.0)
