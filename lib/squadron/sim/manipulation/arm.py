"""A seven-joint arm with a parallel gripper, and the differential kinematics that moves its tool.

The kinematics, joint limits and torque limits are those of the Franka Emika Panda (its published
Denavit-Hartenberg table); links are capsules and boxes. The arm is added first to every model, so its
joints, degrees of freedom and actuators are always 0..6, and its two fingers 7 and 8.

The tool frame lies between the fingertips: z points out of the hand, the fingers slide along y.
Legend: 3 xyz in the world frame, metres; 7 arm joints, radians; 33 rotation matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

ARM, FINGERS = slice(0, 7), slice(7, 9)
HOME_7 = np.array([0.0, -0.25, 0.0, -2.2, 0.0, 1.95, 0.785])
"""Posture at the start of an episode: the gripper points down, 0.4 m above the table."""

MAX_SPEED = 1.0
"""Joint speed of an action of 1, in rad/s."""
FINGER_TRAVEL_M = 0.04
OPEN_FRACTION = 0.9
"""The gripper counts as open when both fingers are beyond this share of their travel."""
GRIP_N, FINGER_SPEED = 50.0, 0.15
"""Each finger moves at this speed (m/s) and, once blocked, presses with this force."""
TOOL = "tool"

ARMATURE, GAIN = 1.2, 240.0
"""Inertia of a motor at its joint (kg m^2) and stiffness of its speed control (Nm s/rad).

Armature over gain, 5 ms, is how fast a joint takes up a new speed. It must not be shorter than the physics
time step: a motor at its torque limit would swing between both ends of it.
"""

_CONTACT_ARM, _CONTACT_WORLD = 1, 2


@dataclass(frozen=True)
class _Link:
    """Pose of a link in its parent, and its capsules (from, to, radius), all in metres."""

    pos: tuple[float, float, float]
    roll: float
    limits: tuple[float, float]
    torque: float
    mass_kg: float
    capsules: tuple[tuple[tuple[float, ...], tuple[float, ...], float], ...]


_LINKS = (
    _Link((0, 0, 0.333), 0, (-2.8973, 2.8973), 87, 4.0, (((0, 0, -0.19), (0, 0, -0.05), 0.06),)),
    _Link(
        (0, 0, 0), -1, (-1.7628, 1.7628), 87, 4.0,
        (((0, 0, -0.05), (0, 0, 0.05), 0.06), ((0, -0.06, 0), (0, -0.2, 0), 0.06)),
    ),
    _Link((0, -0.316, 0), 1, (-2.8973, 2.8973), 87, 3.0, (((0, 0, -0.06), (0.0825, 0, 0), 0.055),)),
    _Link((0.0825, 0, 0), 1, (-3.0718, -0.0698), 87, 2.7, (((0, 0, 0), (-0.0825, 0.1, 0), 0.05),)),
    _Link((-0.0825, 0.384, 0), -1, (-2.8973, 2.8973), 60, 2.6, (((0, 0, -0.26), (0, 0, 0), 0.05),)),
    _Link((0, 0, 0), 1, (-0.0175, 3.7525), 60, 1.5, (((0, 0, 0), (0.088, 0, 0), 0.045),)),
    _Link((0.088, 0, 0), 1, (-2.8973, 2.8973), 60, 0.7, (((0, 0, 0), (0, 0, 0.07), 0.045),)),
)  # fmt: skip
"""`roll` counts quarter turns about x. The three wrist torques are 60 Nm where the Panda has 12: the heaviest
block of the slide task weighs 15 kg and rubs with up to 150 N."""

LIMITS_72 = np.array([link.limits for link in _LINKS])


def add_arm(spec: mujoco.MjSpec) -> None:
    """Add the arm, its gripper and its actuators to an empty spec. Its base stands at the origin."""
    white, grey = [0.92, 0.92, 0.92, 1.0], [0.25, 0.25, 0.28, 1.0]
    base = spec.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.08, 0.07, 0], pos=[0, 0, 0.07], rgba=white
    )
    base.contype, base.conaffinity = _CONTACT_ARM, _CONTACT_WORLD
    body = spec.worldbody
    for number, link in enumerate(_LINKS, start=1):
        body = body.add_body(name=f"link{number}", pos=link.pos, quat=_quarter_turn(link.roll), gravcomp=1)
        body.add_joint(name=f"joint{number}", axis=[0, 0, 1], range=link.limits, limited=True, armature=ARMATURE)
        for start, end, radius in link.capsules:
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[*start, *end], size=[radius, 0, 0], rgba=white,
                mass=link.mass_kg / len(link.capsules), contype=_CONTACT_ARM, conaffinity=_CONTACT_WORLD,
            )  # fmt: skip
        motor = spec.add_actuator(name=f"motor{number}", target=f"joint{number}", trntype=_JOINT)
        motor.set_to_velocity(kv=GAIN)
        motor.ctrlrange, motor.ctrllimited = [-MAX_SPEED, MAX_SPEED], True
        motor.forcerange, motor.forcelimited = [-link.torque, link.torque], True
    _add_gripper(spec, body, white, grey)


def _add_gripper(spec: mujoco.MjSpec, wrist: mujoco.MjsBody, white: list[float], grey: list[float]) -> None:
    """Hand, two fingers and the tool frame. The fingers open or close at FINGER_SPEED."""
    box, contact = mujoco.mjtGeom.mjGEOM_BOX, {"contype": _CONTACT_ARM, "conaffinity": _CONTACT_WORLD}
    eighth = [np.cos(np.pi / 8), 0, 0, -np.sin(np.pi / 8)]
    hand = wrist.add_body(name="hand", pos=[0, 0, 0.107], quat=eighth, gravcomp=1)
    hand.add_geom(type=box, size=[0.03, 0.1, 0.033], pos=[0, 0, 0.033], mass=0.6, rgba=white, **contact)
    hand.add_site(name=TOOL, pos=[0, 0, 0.1034])
    for side, sign in (("left", 1.0), ("right", -1.0)):
        finger = hand.add_body(name=f"{side}_finger", pos=[0, 0, 0.0584], gravcomp=1)
        finger.add_joint(
            name=f"{side}_finger", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, sign, 0],
            range=[0, FINGER_TRAVEL_M], limited=True, armature=1.0,
        )  # fmt: skip
        finger.add_geom(
            name=f"{side}_finger", type=box, size=[0.0105, 0.0075, 0.027], pos=[0, sign * 0.0075, 0.027],
            mass=0.05, rgba=grey, friction=[1.0, 0.005, 0.0001], priority=1,
            solref=[0.01, 1.0], solimp=[0.95, 0.99, 0.001, 0.5, 2.0], **contact,
        )  # fmt: skip
        motor = spec.add_actuator(name=f"{side}_finger", target=f"{side}_finger", trntype=_JOINT)
        motor.set_to_velocity(kv=GRIP_N / FINGER_SPEED)


_JOINT = mujoco.mjtTrn.mjTRN_JOINT


def _quarter_turn(count: float) -> list[float]:
    return [np.cos(count * np.pi / 4), np.sin(count * np.pi / 4), 0, 0]


def reset_arm(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Put the arm at home with an open gripper."""
    data.qpos[ARM] = HOME_7
    data.qpos[FINGERS] = FINGER_TRAVEL_M
    data.ctrl[FINGERS] = FINGER_SPEED


def command(data: mujoco.MjData, action_8: np.ndarray) -> None:
    """Hand an action to the motors: joint velocities in units of MAX_SPEED, and open if action[7] > 0.5."""
    data.ctrl[ARM] = np.clip(action_8[:7], -1.0, 1.0) * MAX_SPEED
    data.ctrl[FINGERS] = FINGER_SPEED if action_8[7] > 0.5 else -FINGER_SPEED


def gripper_open(data: mujoco.MjData) -> float:
    """1.0 while both fingers are open, else 0.0."""
    return float(np.all(data.qpos[FINGERS] > OPEN_FRACTION * FINGER_TRAVEL_M))


def tool_position(data: mujoco.MjData) -> np.ndarray:
    """Where the point between the fingertips is, in metres."""
    return data.site(TOOL).xpos.copy()


def tool_rotation(data: mujoco.MjData) -> np.ndarray:
    """The tool's axes as columns, in the world frame."""
    return data.site(TOOL).xmat.reshape(3, 3).copy()


def tool_facing(approach_3: np.ndarray, fingers_3: np.ndarray) -> np.ndarray:
    """The rotation of a tool that points along `approach_3` with its fingers sliding along `fingers_3`.

    The part of `fingers_3` along the approach is dropped; lengths do not matter.
    """
    z_3 = approach_3 / np.linalg.norm(approach_3)
    y_3 = fingers_3 - z_3 * (fingers_3 @ z_3)
    y_3 = y_3 / np.linalg.norm(y_3)
    return np.column_stack([np.cross(y_3, z_3), y_3, z_3])


def drive_tool(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    position_3: np.ndarray,
    rotation_33: np.ndarray,
    speed: float = 0.4,
    turn_speed: float = 1.0,
    gain: float = 4.0,
) -> np.ndarray:
    """Joint velocities_7, in units of MAX_SPEED, that bring the tool towards a pose.

    Resolved-rate control (Whitney 1969): the tool's velocity is `gain` (1/s) times the remaining way, at most
    `speed` m/s and `turn_speed` rad/s; damped least squares maps it to the joints, and what freedom is left
    pulls them to the home posture. If one joint would be too fast, all are slowed alike: the tool's direction
    stays.
    """
    error_3 = position_3 - tool_position(data)
    turn_3 = rotation_error(rotation_33, tool_rotation(data))
    twist_6 = np.concatenate([_saturate(gain * error_3, speed), _saturate(gain * turn_3, turn_speed)])
    jacobian_67 = tool_jacobian(model, data)
    squared_66 = jacobian_67 @ jacobian_67.T + 1e-3 * np.eye(6)
    inverse_76 = np.linalg.solve(squared_66, jacobian_67).T
    posture_7 = 0.5 * (HOME_7 - data.qpos[ARM])
    velocity_7 = inverse_76 @ twist_6 + posture_7 - inverse_76 @ (jacobian_67 @ posture_7)
    return velocity_7 / max(MAX_SPEED, float(np.abs(velocity_7).max()))


def tool_jacobian(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """The 6x7 map from joint velocities to the tool's linear (m/s) and angular (rad/s) velocity."""
    linear_3V, angular_3V = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    mujoco.mj_jacSite(model, data, linear_3V, angular_3V, model.site(TOOL).id)
    return np.vstack([linear_3V[:, ARM], angular_3V[:, ARM]])


def rotation_error(wanted_33: np.ndarray, actual_33: np.ndarray) -> np.ndarray:
    """The rotation vector, in radians and world axes, that turns `actual_33` into `wanted_33`."""
    quat_4, vector_3 = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quat_4, (wanted_33 @ actual_33.T).flatten())
    mujoco.mju_quat2Vel(vector_3, quat_4, 1.0)
    return vector_3


def _saturate(vector_3: np.ndarray, length: float) -> np.ndarray:
    return vector_3 * min(1.0, length / max(float(np.linalg.norm(vector_3)), 1e-9))
