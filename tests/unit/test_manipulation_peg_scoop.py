"""The ring and the spatula: experts that succeed by friction alone, and what counts as done."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from squadron.sim.manipulation.env import ManipulationEnv
from squadron.sim.manipulation.expert import rollout
from squadron.sim.manipulation.grasping import FINGER_GEOMS, grasped
from squadron.sim.manipulation.spec import EnvironmentSpec, Factors, sample_environment
from squadron.sim.manipulation.task import Scene, place
from squadron.sim.manipulation.tasks.insert_onto_square_peg import HOLE, PILLAR, PILLARS, PLACES_Y
from squadron.sim.manipulation.tasks.scoop_with_spatula import SENSOR_HIGH_3, SENSOR_LOW_3

PEG, SCOOP = "insert_onto_square_peg", "scoop_with_spatula"
TASKS = (PEG, SCOOP)
HELD = {PEG: "ring", SCOOP: "spatula"}
OPEN_A = np.array([0.0] * 7 + [1.0])


def make(task: str, client_id: int = 0, max_steps: int = 300) -> ManipulationEnv:
    return ManipulationEnv(sample_environment(task, client_id), image_size=0, max_steps=max_steps)


def play(env: ManipulationEnv, until: float = np.inf) -> float:
    """Let the expert act until the held body is higher than `until`, or the episode ends; the last reward."""
    body, reward, done = env.scene.data.body(HELD[env.spec.task]), 0.0, False
    while not done and body.xpos[2] < until:
        _, reward, done = env.step(env.task.expert(env.scene))
    return reward


def put(scene: Scene, body: str, position: np.ndarray) -> None:
    place(scene, body, position)
    mujoco.mj_forward(scene.model, scene.data)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("client_id", [0, 1, 2, 411])
def test_the_expert_succeeds_with_every_factor_on(task: str, client_id: int) -> None:
    episode = rollout(make(task, client_id), episode_seed=1)
    assert episode.success and 30 < len(episode.actions_TA) < 200
    assert np.abs(episode.actions_TA[:, :7]).max() <= 1.0
    assert set(np.unique(episode.actions_TA[:, 7])) == {0.0, 1.0}


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_succeeds_with_every_factor_off(task: str) -> None:
    assert rollout(ManipulationEnv(sample_environment(task, 0, 0, Factors.none()), image_size=0), 0).success


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_copes_with_disturbance(task: str) -> None:
    assert rollout(make(task, 3), 0, action_noise=0.05).success


@pytest.mark.parametrize("task", TASKS)
def test_a_specification_from_json_replays_the_same_episode_bit_for_bit(task: str) -> None:
    env = make(task, 7)
    again = ManipulationEnv(EnvironmentSpec.model_validate_json(env.spec.model_dump_json()), image_size=0)
    first, second = rollout(env, 2), rollout(again, 2)
    np.testing.assert_array_equal(first.states_TS, second.states_TS)
    np.testing.assert_array_equal(first.actions_TA, second.actions_TA)
    np.testing.assert_array_equal(env.scene.data.qpos, again.scene.data.qpos)


@pytest.mark.parametrize("task", TASKS)
def test_nothing_is_done_at_the_start_nor_by_waiting(task: str) -> None:
    for client_id in range(5):
        env = make(task, client_id, max_steps=20)
        env.reset(client_id)
        assert not env.task.success(env.scene)
        start = env.scene.data.body(HELD[task]).xpos.copy()
        while not env.step(OPEN_A)[2]:
            pass
        assert not env.task.success(env.scene)
        np.testing.assert_allclose(env.scene.data.body(HELD[task]).xpos, start, atol=2e-3)


@pytest.mark.parametrize("task", TASKS)
def test_nothing_but_friction_holds_a_grasp(task: str) -> None:
    env = make(task, 1, max_steps=150)
    model = env.scene.model
    env.reset(0)
    assert model.neq == 0
    model.geom_friction[[model.geom(finger).id for finger in FINGER_GEOMS]] = [1e-5, 1e-5, 1e-5]
    assert play(env, until=0.06) == 0.0
    assert env.scene.data.body(HELD[task]).xpos[2] < 0.06


@pytest.mark.parametrize("task", TASKS)
def test_a_dropped_object_is_picked_up_again(task: str) -> None:
    env = make(task, 2)
    env.reset(0)
    play(env, until=0.04)
    assert grasped(env.scene, HELD[task])
    for _ in range(12):
        env.step(OPEN_A)
    assert not grasped(env.scene, HELD[task])
    assert env.scene.data.body(HELD[task]).xpos[2] < 0.01
    assert play(env) == 1.0


@pytest.mark.parametrize("task", TASKS)
def test_a_scene_is_small_enough_to_cast_rays_against(task: str) -> None:
    assert all(make(task, client_id).scene.model.ngeom <= 40 for client_id in range(3))


def test_only_the_instructed_pillar_counts() -> None:
    env = make(PEG)
    env.reset(0)
    for pillar in PILLARS:
        put(env.scene, "ring", env.scene.data.body(pillar).xpos.copy())
        assert env.task.success(env.scene) is (pillar == PILLARS[0])


def test_the_ring_must_be_around_its_pillar_and_down() -> None:
    env = make(PEG)
    env.reset(0)
    pillar_3 = env.scene.data.body(PILLARS[0]).xpos.copy()
    beside = HOLE * env.spec.objects["ring"].size + 0.001
    put(env.scene, "ring", pillar_3)
    assert env.task.success(env.scene)
    for offset in ([0, 0, 0.02], [beside, 0, 0], [0, -beside, 0]):
        put(env.scene, "ring", pillar_3 + offset)
        assert not env.task.success(env.scene)


def test_every_ring_fits_every_pillar() -> None:
    for client_id in range(100):
        objects = sample_environment(PEG, client_id).objects
        assert HOLE * objects["ring"].size > PILLAR * objects[PILLARS[0]].size + 0.005


def test_the_ring_shows_which_pillar_is_meant() -> None:
    for client_id in range(10):
        env = make(PEG, client_id)
        model, look = env.scene.model, env.scene.look
        handle = model.geom("handle").id
        same = [
            np.array_equal(look.colours_G3[handle], look.colours_G3[model.body(pillar).geomadr[0]])
            for pillar in PILLARS
        ]
        assert same == [True, False, False]


def test_the_instructed_pillar_changes_its_place_between_episodes() -> None:
    env, places = make(PEG), set()
    for episode_seed in range(20):
        env.reset(episode_seed)
        places.add(float(env.scene.data.body(PILLARS[0]).xpos[1]))
    assert places == set(PLACES_Y)


def test_a_cube_in_the_sensor_counts_only_while_the_spatula_is_held() -> None:
    env = make(SCOOP)
    env.reset(0)
    put(env.scene, "cube", (SENSOR_LOW_3 + SENSOR_HIGH_3) / 2)
    assert not env.task.success(env.scene)
    play(env, until=0.02)
    assert grasped(env.scene, "spatula") and not env.task.success(env.scene)
    put(env.scene, "cube", (SENSOR_LOW_3 + SENSOR_HIGH_3) / 2)
    assert env.task.success(env.scene)


def test_a_scooped_cube_stays_on_the_spatula_and_dropping_it_undoes_the_success() -> None:
    env = make(SCOOP, 4)
    env.reset(0)
    assert play(env) == 1.0
    for _ in range(20):
        env.step(np.zeros(8))
    assert env.task.success(env.scene)
    for _ in range(15):
        env.step(OPEN_A)
    assert not env.task.success(env.scene)
