"""The manipulation environment: repeatable bit for bit, obedient to velocities, ended by success."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from squadron.core.errors import InputError
from squadron.sim.manipulation.arm import (
    HOME_7,
    LIMITS_72,
    drive_tool,
    tool_facing,
    tool_position,
    tool_rotation,
)
from squadron.sim.manipulation.env import ManipulationEnv
from squadron.sim.manipulation.expert import rollout
from squadron.sim.manipulation.scene import build_scene
from squadron.sim.manipulation.spec import EnvironmentSpec, Factors, sample_environment
from squadron.sim.manipulation.tasks import TASKS, close_box

OWN_TASKS = ("close_box", "slide_block_to_target")
STILL_A = np.zeros(8)


def make(task: str, client_id: int = 0, image_size: int = 0, max_steps: int = 300) -> ManipulationEnv:
    return ManipulationEnv(sample_environment(task, client_id), image_size, max_steps)


def played(env: ManipulationEnv, episode_seed: int, steps: int = 40) -> np.ndarray:
    """All positions and speeds of the physics under random actions."""
    rng, rows = np.random.default_rng(7), []
    env.reset(episode_seed)
    for _ in range(steps):
        env.step(np.append(rng.uniform(-1, 1, 7), rng.integers(2)))
        rows.append(np.concatenate([env.scene.data.qpos, env.scene.data.qvel]))
    return np.array(rows)


@pytest.mark.parametrize("task", OWN_TASKS)
def test_a_specification_from_json_replays_the_same_episode_bit_for_bit(task: str) -> None:
    env = make(task, client_id=5)
    again = ManipulationEnv(EnvironmentSpec.model_validate_json(env.spec.model_dump_json()), image_size=0)
    first = played(env, 3)
    np.testing.assert_array_equal(first, played(again, 3))
    np.testing.assert_array_equal(first, played(env, 3))
    assert not np.array_equal(first, played(env, 4))


def test_images_replay_too_and_change_between_environments() -> None:
    first, again = (rollout(make("close_box", 1, 32, max_steps=5), 0) for _ in range(2))
    assert first.images_THWC.shape == (5, 32, 32, 3) and first.images_THWC.dtype == np.uint8
    np.testing.assert_array_equal(first.images_THWC, again.images_THWC)
    other = rollout(make("close_box", 2, 32, max_steps=5), 0)
    assert np.abs(first.images_THWC.astype(int) - other.images_THWC).mean() > 5


@pytest.mark.parametrize("task", OWN_TASKS)
def test_the_expert_succeeds_and_shows_what_it_did(task: str) -> None:
    for client_id in range(3):
        episode = rollout(make(task, client_id), 0)
        steps = len(episode.actions_TA)
        assert episode.success and 20 < steps < 150
        assert episode.actions_TA.shape == episode.states_TS.shape == (steps, 8)
        assert episode.actions_TA.dtype == episode.states_TS.dtype == np.float32
        assert np.abs(episode.actions_TA).max() <= 1.0
        np.testing.assert_allclose(episode.states_TS[0, :7], HOME_7, atol=1e-6)
        assert episode.states_TS[0, 7] == 1.0 and episode.states_TS[-1, 7] == 0.0


@pytest.mark.parametrize("task", OWN_TASKS)
def test_the_expert_recovers_from_disturbance_and_its_own_answers_are_kept(task: str) -> None:
    env = make(task, 1)
    clean, noisy = rollout(env, 0), rollout(env, 0, action_noise=0.15)
    assert noisy.success
    np.testing.assert_array_equal(clean.actions_TA[0], noisy.actions_TA[0])
    assert not np.array_equal(clean.states_TS[1], noisy.states_TS[1])


def test_the_box_is_not_closed_by_doing_nothing_and_the_lid_stays_open() -> None:
    env = make("close_box", max_steps=60)
    env.reset(0)
    for step in range(60):
        _, reward, done = env.step(STILL_A)
        assert reward == 0.0 and done == (step == 59)
    assert env.scene.data.joint("lid").qpos[0] == pytest.approx(close_box.OPEN_RAD, abs=0.02)


def test_the_box_counts_as_closed_beyond_26_tenths_of_a_radian() -> None:
    env = make("close_box")
    env.reset(0)
    for turned, closed in ((0.0, False), (2.59, False), (2.61, True), (2.85, True)):
        env.scene.data.joint("lid").qpos[0] = close_box.OPEN_RAD - turned
        assert TASKS["close_box"].success(env.scene) is closed


def test_a_lid_that_stands_upright_or_less_falls_shut() -> None:
    env = make("close_box")
    env.reset(0)
    env.scene.data.joint("lid").qpos[0] = 1.3
    assert any(env.step(STILL_A)[1] for _ in range(100))


@pytest.mark.parametrize(("offset", "inside"), [(0.0, True), (0.055, True), (0.065, False), (-0.065, False)])
def test_the_block_must_lie_on_the_target_with_all_its_corners(offset: float, inside: bool) -> None:
    env = make("slide_block_to_target")
    env.reset(0)
    data, place = env.scene.data, env.scene.data.body("target").xpos
    yaw_33 = data.body("target").xmat.reshape(3, 3)
    start = env.scene.model.joint("block").qposadr[0]
    data.qpos[start : start + 2] = (place + yaw_33 @ [offset, 0.0, 0.0])[:2]
    mujoco.mju_mat2Quat(data.qpos[start + 3 : start + 7], yaw_33.flatten())
    mujoco.mj_forward(env.scene.model, data)
    assert TASKS["slide_block_to_target"].success(env.scene) is inside


def test_an_action_is_a_joint_velocity_in_rad_per_s() -> None:
    env = make("close_box")
    state_S = env.reset(0).state_S
    velocity_7 = np.array([0.4, -0.3, 0.5, 0.2, -0.6, 0.3, 1.0])
    for _ in range(10):
        observation, _, _ = env.step(np.append(velocity_7, 1.0))
    np.testing.assert_allclose(observation.state_S[:7] - state_S[:7], 0.5 * velocity_7, atol=0.03)
    assert observation.state_S[7] == 1.0


def test_the_arm_holds_still_under_gravity_and_stops_at_its_limits() -> None:
    env = make("close_box")
    env.reset(0)
    for _ in range(20):
        observation, _, _ = env.step(STILL_A)
    np.testing.assert_allclose(observation.state_S[:7], HOME_7, atol=1e-3)
    for _ in range(80):
        observation, _, _ = env.step(np.array([0, 0, 0, 0, 1.0, 0, 1.0, 0]))
    assert (observation.state_S[:7] < LIMITS_72[:, 1] + 0.02).all()


def panda_tool_pose(joints_7: np.ndarray) -> np.ndarray:
    """The 4x4 pose of the tool from the Panda's published modified Denavit-Hartenberg table (a, d, alpha)."""
    quarter, pose_44 = np.pi / 2, np.eye(4)
    table = [
        (0, 0.333, 0), (0, 0, -quarter), (0, 0.316, quarter), (0.0825, 0, quarter),
        (-0.0825, 0.384, -quarter), (0, 0, quarter), (0.088, 0, quarter), (0, 0.107 + 0.1034, 0),
    ]  # fmt: skip
    for (a, d, alpha), theta in zip(table, [*joints_7, -np.pi / 4], strict=True):
        (ct, st), (ca, sa) = (np.cos(theta), np.sin(theta)), (np.cos(alpha), np.sin(alpha))
        pose_44 = pose_44 @ [
            [ct, -st, 0, a], [st * ca, ct * ca, -sa, -d * sa], [st * sa, ct * sa, ca, d * ca], [0, 0, 0, 1]
        ]  # fmt: skip
    return pose_44


def test_kinematics_agree_with_the_published_table() -> None:
    scene, rng = build_scene(sample_environment("close_box", 0)), np.random.default_rng(0)
    for _ in range(20):
        joints_7 = rng.uniform(*LIMITS_72.T)
        scene.data.qpos[:7] = joints_7
        mujoco.mj_kinematics(scene.model, scene.data)
        expected_44 = panda_tool_pose(joints_7)
        np.testing.assert_allclose(tool_position(scene.data), expected_44[:3, 3], atol=1e-9)
        np.testing.assert_allclose(tool_rotation(scene.data), expected_44[:3, :3], atol=1e-9)


def test_the_tool_reaches_a_pose() -> None:
    env = make("close_box")
    env.reset(0)
    wanted_3 = np.array([0.45, 0.2, 0.35])
    down_33 = tool_facing(np.array([0.0, 0.0, -1.0]), np.array([0.0, -1.0, 0.0]))
    for _ in range(60):
        env.step(np.append(drive_tool(env.scene.model, env.scene.data, wanted_3, down_33), 0.0))
    np.testing.assert_allclose(tool_position(env.scene.data), wanted_3, atol=0.005)


def test_a_scene_is_small_enough_to_cast_rays_against() -> None:
    for task in OWN_TASKS:
        scene = build_scene(sample_environment(task, 0))
        assert scene.model.ngeom <= 40
        assert set(scene.cameras) == {"front", "left_shoulder", "right_shoulder"}
        for camera in scene.cameras.values():
            np.testing.assert_allclose(camera.rotation_33.T @ camera.rotation_33, np.eye(3), atol=1e-12)


def test_without_factors_only_the_placement_of_objects_varies() -> None:
    bare = Factors.none()
    one, two = (build_scene(sample_environment("close_box", i, 0, bare)) for i in (3, 9))
    np.testing.assert_array_equal(one.model.geom_size, two.model.geom_size)
    np.testing.assert_array_equal(one.look.colours_G3, two.look.colours_G3)
    assert not one.look.textures_G.any()


@pytest.mark.parametrize("action", [np.zeros(7), np.full(8, np.nan), np.zeros((1, 8))])
def test_a_malformed_action_is_refused(action: np.ndarray) -> None:
    env = make("close_box")
    env.reset(0)
    with pytest.raises(InputError, match="8 finite numbers"):
        env.step(action)
