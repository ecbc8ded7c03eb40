"""One environment as a loop of actions and observations.

An observation is a front image and eight numbers, an action is eight numbers, a step is 50 ms. The reward
is 1 when the task is done, else 0, and an episode ends there or after `max_steps`: the last reward is the
result.
Legend: H, W pixels, C RGB, S the 8 numbers of the state, A the 8 numbers of an action.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from squadron.core.errors import InputError
from squadron.sim.manipulation.arm import ARM, command, gripper_open, reset_arm
from squadron.sim.manipulation.camera import Renderer
from squadron.sim.manipulation.scene import SUBSTEPS, build_scene
from squadron.sim.manipulation.spec import EnvironmentSpec
from squadron.sim.manipulation.tasks import TASKS

STATE_SIZE = ACTION_SIZE = 8


@dataclass(frozen=True)
class Observation:
    """`image_HWC` is uint8; `state_S` float32: seven joint angles in radians, gripper_open (0 or 1)."""

    image_HWC: np.ndarray
    state_S: np.ndarray


class ManipulationEnv:
    """A task in one environment. Equal specs, seeds and actions give equal observations, bit for bit."""

    def __init__(
        self, spec: EnvironmentSpec, image_size: int = 128, max_steps: int = 300, shadows: bool = True
    ) -> None:
        """`image_size` is in pixels; 0 turns the camera off and images are empty."""
        self.spec = spec
        self.task = TASKS[spec.task]
        self.scene = build_scene(spec)
        self.image_size, self.max_steps = image_size, max_steps
        self._steps = max_steps
        self._camera = None
        if image_size:
            model, look, camera = self.scene.model, self.scene.look, self.scene.cameras["front"]
            self._camera = Renderer(model, look, camera, image_size, shadows=shadows)

    def reset(self, episode_seed: int) -> Observation:
        """Start the episode that `episode_seed` (0 or more) stands for: it decides where the objects lie."""
        scene = self.scene
        mujoco.mj_resetData(scene.model, scene.data)
        reset_arm(scene.model, scene.data)
        self.task.reset(scene, np.random.default_rng((self.spec.seed, self.spec.client_id, episode_seed)))
        mujoco.mj_forward(scene.model, scene.data)
        self._steps = 0
        return self._observe()

    def step(self, action_A: np.ndarray) -> tuple[Observation, float, bool]:
        """Act for 50 ms. Returns the observation, the reward (1.0 once the task is done) and if it is over.

        Raises InputError for an action that is not eight finite numbers.
        """
        action_A = np.asarray(action_A, dtype=np.float64)
        if action_A.shape != (ACTION_SIZE,) or not np.isfinite(action_A).all():
            raise InputError(f"an action is {ACTION_SIZE} finite numbers, not {action_A!r}")
        scene = self.scene
        command(scene.data, action_A)
        mujoco.mj_step(scene.model, scene.data, nstep=SUBSTEPS)
        mujoco.mj_kinematics(scene.model, scene.data)
        mujoco.mj_comPos(scene.model, scene.data)
        self._steps += 1
        success = self.task.success(scene)
        return self._observe(), float(success), success or self._steps >= self.max_steps

    def close(self) -> None:
        """Nothing is held outside this process; there for callers that close what they open."""

    def _observe(self) -> Observation:
        data = self.scene.data
        state_S = np.append(data.qpos[ARM], gripper_open(data)).astype(np.float32)
        image_HWC = self._camera.render(data) if self._camera else np.zeros((0, 0, 3), np.uint8)
        return Observation(image_HWC=image_HWC, state_S=state_S)
