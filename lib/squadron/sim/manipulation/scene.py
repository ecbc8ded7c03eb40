"""From a specification to a world: model, lamps, cameras.

Axes: x away from the robot, y to its left, z up; the robot's base stands at the origin, on the table.
The front camera looks back at the robot; the shoulder cameras look over it.
Legend: G geoms, 3 xyz in metres or RGB, 33 rotation matrix.
"""

from __future__ import annotations

import mujoco
import numpy as np

from squadron.sim.manipulation.arm import add_arm
from squadron.sim.manipulation.spec import CameraShift, DistractorSpec, EnvironmentSpec
from squadron.sim.manipulation.task import USER_VALUES, Scene, painted, plain, solid
from squadron.sim.manipulation.tasks import TASKS
from squadron.sim.manipulation.view import Camera, Light, Look

TIMESTEP_S = 0.005
STEP_S = 0.05
"""Simulated time of one action."""
SUBSTEPS = round(STEP_S / TIMESTEP_S)
FOVY_DEG = 45.0
AMBIENT = 0.45

_POSES = {
    "front": ((1.45, 0.0, 0.85), (0.40, 0.0, 0.17)),
    "left_shoulder": ((-0.25, 0.65, 0.9), (0.5, 0.0, 0.05)),
    "right_shoulder": ((-0.25, -0.65, 0.9), (0.5, 0.0, 0.05)),
}
"""Where each camera stands and the point it looks at, in metres, before the environment shifts it."""

_LAMPS = ((-0.4, 0.3, -1.0), (-0.3, -0.8, -0.8), (0.7, 0.4, -0.8))
"""Direction in which the light of each lamp travels."""

_SHAPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
}


def build_scene(spec: EnvironmentSpec) -> Scene:
    """Build the world of `spec`. Equal specs give worlds that behave alike bit for bit."""
    world = mujoco.MjSpec()
    world.compiler.degree = False
    world.option.timestep = TIMESTEP_S
    world.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    world.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    world.option.impratio = 10
    world.nuser_geom = USER_VALUES
    add_arm(world)
    _add_table(world, spec)
    for distractor in spec.distractors:
        _add_distractor(world, distractor)
    TASKS[spec.task].build(world, spec)
    model = world.compile()
    cameras = {name: _camera(*_POSES[name], shift) for name, shift in spec.cameras.items()}
    return Scene(spec=spec, model=model, data=mujoco.MjData(model), look=_look(model, spec), cameras=cameras)


def _add_table(world: mujoco.MjSpec, spec: EnvironmentSpec) -> None:
    world.worldbody.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.65, 0.75, 0.05], pos=[0.35, 0, -0.05],
        friction=[0.1, 0.005, 0.0001], **solid(), **painted(spec.table),
    )  # fmt: skip


def _add_distractor(world: mujoco.MjSpec, item: DistractorSpec) -> None:
    """Stand a distractor on the table. It is fixed there. A capsule is half as long again as it is wide."""
    shape, half = _SHAPES[item.shape], item.size_m
    length, height = (0.5 * half, 1.5 * half) if item.shape == "capsule" else (half, half)
    world.worldbody.add_geom(
        type=shape, size=[half, length, half], pos=[item.x_m, item.y_m, height],
        quat=[np.cos(item.yaw_rad / 2), 0, 0, np.sin(item.yaw_rad / 2)], **solid(), **plain(item.colour),
    )  # fmt: skip


def _camera(position: tuple[float, ...], target: tuple[float, ...], shift: CameraShift) -> Camera:
    """A camera that looks from `position` at `target` with its x axis level, then shifted."""
    position_3 = np.array(position)
    backward_3 = position_3 - np.array(target)
    backward_3 /= np.linalg.norm(backward_3)
    right_3 = np.cross([0.0, 0.0, 1.0], backward_3)
    right_3 /= np.linalg.norm(right_3)
    level_33 = np.column_stack([right_3, np.cross(backward_3, right_3), backward_3])
    return Camera(
        position_3=position_3 + shift.position_m,
        rotation_33=level_33 @ _euler(shift.euler_rad),
        fovy_deg=FOVY_DEG,
    )


def _euler(angles: tuple[float, float, float]) -> np.ndarray:
    """The rotation about x, then the turned y, then the turned z."""
    quat_4, matrix_9 = np.zeros(4), np.zeros(9)
    mujoco.mju_euler2Quat(quat_4, np.array(angles), "xyz")
    mujoco.mju_quat2Mat(matrix_9, quat_4)
    return matrix_9.reshape(3, 3)


def _look(model: mujoco.MjModel, spec: EnvironmentSpec) -> Look:
    colour_3 = np.array(spec.light_rgb)
    directions = [np.array(direction) / np.linalg.norm(direction) for direction in _LAMPS]
    return Look(
        colours_G3=model.geom_rgba[:, :3].astype(np.float64),
        second_colours_G3=model.geom_user[:, 1:4].copy(),
        textures_G=model.geom_user[:, 0].astype(np.int64),
        ambient_3=np.full(3, AMBIENT),
        lights=tuple(Light(direction_3=direction, colour_3=colour_3) for direction in directions),
        background_colour_3=np.array(spec.background.colour),
        background_second_colour_3=np.array(spec.background.second_colour),
        background_texture=spec.background.texture,
    )
