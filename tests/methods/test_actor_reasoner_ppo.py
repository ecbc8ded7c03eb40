"""A driver learned by reinforcement: what it sees, what it is rewarded for, that what is saved is what was trained."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from squadron.core.errors import InputError, ResourceError
from squadron.core.folder import Folder
from squadron.methods.actor_reasoner import ppo
from squadron.methods.actor_reasoner.algorithm import ACCELERATIONS
from squadron.methods.actor_reasoner.config import PpoConfig, RewardConfig
from squadron.methods.actor_reasoner.episodes import REINFORCEMENT
from squadron.methods.actor_reasoner.ppo import METRICS_FILE, POLICY_FILE, VERSION, PpoPolicy, train_ppo
from squadron.methods.actor_reasoner.reinforcement import (
    FEATURES,
    OTHER_FEATURES,
    OWN_FEATURES,
    DrivingEnv,
    World,
    keep_accelerating,
    observe,
    past_last_conflict,
)
from squadron.sim.driving.drivers import drivers_wish
from squadron.sim.driving.scenes import make_scene
from squadron.sim.driving.spec import DriversConfig, SceneName, TrafficConfig
from squadron.sim.driving.traffic import Traffic, collisions, draw_traffic, drive

SCENES: tuple[SceneName, ...] = ("intersection", "roundabout", "merge")
DRIVERS, REWARD = DriversConfig(), RewardConfig()
FASTER, IDLE, SLOWER = range(3)
TINY = PpoConfig(decisions=60, decisions_per_update=30, minibatch=10, epochs=1, hidden=(8, 6), envs_per_runner=6)


def start(scene: SceneName = "intersection", others: int = 1, episodes: int = 40, seed: int = 0) -> Traffic:
    return draw_traffic(make_scene(scene), TrafficConfig(others=others), DRIVERS, seed, range(episodes))


def under_way(scene: SceneName, others: int, ticks: int, seed: int) -> Traffic:
    """Some way into episodes in which the automated car does this and that."""
    traffic, draw = start(scene, others, seed=seed), np.random.default_rng(seed)
    for _ in range(ticks):
        wish_BV = drivers_wish(traffic, DRIVERS)
        wish_BV[:, 0] = draw.choice(ACCELERATIONS, traffic.episodes)
        traffic = drive(traffic, wish_BV)
    return traffic


def world(scenes: tuple[SceneName, ...] = SCENES, **changed: object) -> World:
    return replace(World(scenes, TrafficConfig(), DRIVERS, REWARD, 5), **changed)


# What a car sees


def test_of_more_cars_than_can_be_seen_the_first_are() -> None:
    """As among recorded cars: each of three is there twice, and what is seen is the first twice and the second once."""
    traffic = under_way("intersection", 3, 20, 0)
    columns = {
        name: getattr(traffic, name)[:, [0, 1, 2, 3, 1, 2, 3]]
        for name in ("line_BV", "style_BV", "arc_BV", "speed_BV", "acceleration_BV", "stood_BV")
    }
    few_BF, many_BF = observe(traffic), observe(replace(traffic, **columns))
    first, second = (slice(OWN_FEATURES + n * OTHER_FEATURES, OWN_FEATURES + (n + 1) * OTHER_FEATURES) for n in (0, 1))
    expected_BF = np.concatenate([few_BF[:, : first.stop], few_BF[:, first], few_BF[:, second]], axis=1)
    assert np.array_equal(many_BF, expected_BF)


@given(st.sampled_from(SCENES), st.integers(1, 3), st.integers(0, 80), st.integers(0, 1000))
@settings(max_examples=15)
def test_no_style_shows_and_all_that_is_seen_is_small(scene: SceneName, others: int, ticks: int, seed: int) -> None:
    traffic = under_way(scene, 1 if scene == "merge" else others, ticks, seed)
    seen_BF = observe(traffic)
    other_BV = np.random.default_rng(seed).integers(0, 3, traffic.style_BV.shape)
    assert np.array_equal(observe(replace(traffic, style_BV=other_BV)), seen_BF)
    assert seen_BF.shape == (traffic.episodes, FEATURES) and seen_BF.dtype == np.float32
    assert np.isfinite(seen_BF).all() and np.abs(seen_BF).max() <= 2


def test_other_cars_are_seen_in_the_same_way_whatever_their_number_in_the_world() -> None:
    traffic = under_way("intersection", 3, 30, 0)
    order = [0, 3, 1, 2]
    shuffled = replace(
        traffic,
        **{name: getattr(traffic, name)[:, order] for name in vars(traffic) if name.endswith("_BV")},
    )
    assert np.array_equal(observe(shuffled), observe(traffic))


def test_open_conflicts_come_first_then_near_ones_and_empty_places_hold_zeros() -> None:
    traffic = under_way("intersection", 2, 60, 1)
    seen_BOF = observe(traffic)[:, OWN_FEATURES:].reshape(traffic.episodes, -1, OTHER_FEATURES)
    there_BO, own_BO, open_BO = seen_BOF[..., 0], seen_BOF[..., 1], seen_BOF[..., 10]
    assert there_BO.tolist() == [[1, 1, 0]] * traffic.episodes and not seen_BOF[:, 2].any()
    assert (open_BO[:, 0] >= open_BO[:, 1]).all() and 0 < open_BO.mean() < 1
    both_B = open_BO[:, 0] == open_BO[:, 1]
    assert both_B.any() and (own_BO[both_B, 0] <= own_BO[both_B, 1]).all()


def test_what_is_seen_of_a_car_is_what_is_so() -> None:
    traffic = replace(start(episodes=1), speed_BV=np.array([[8.0, 4.0]]), acceleration_BV=np.array([[2.0, 0.0]]))
    to = traffic.to_conflict_BVV[0]
    near = traffic.scene.near_LL
    own, other = traffic.line_BV[0]
    seen_F = observe(traffic)[0]
    own_s, its_s = to[0, 1] / 8, to[1, 0] / 4
    own_line, its_line = near[own, other] - traffic.arc_BV[0, 0], near[other, own] - traffic.arc_BV[0, 1]
    assert seen_F[:3] == pytest.approx([1.0, 0.5, 0.0])
    places = [1, to[0, 1] / 50, own_line / 50, to[1, 0] / 50, its_line / 50]
    assert seen_F[3:12] == pytest.approx([*places, 0.5, 0.0, own_s / 20, its_s / 20], abs=1e-6)
    assert seen_F[12] == np.sign(own_s - its_s) and seen_F[13] == 1


# What it is rewarded for


def test_a_decision_is_so_many_ticks_and_earns_what_they_do() -> None:
    traffic = start("intersection", episodes=200)
    wanted_B = np.random.default_rng(0).choice(ACCELERATIONS, 200)
    ticks_B = np.arange(200) % 90
    outcome = keep_accelerating(traffic, DRIVERS, REWARD, wanted_B, ticks_B)
    on_B = np.ones(200, bool)
    earned_B = np.zeros(200)
    for tick in range(89):
        wish_BV = drivers_wish(traffic, DRIVERS)
        wish_BV[:, 0] = wanted_B
        before, traffic = traffic, drive(traffic, wish_BV)
        hits_B = collisions(traffic)[:, 0].any(1)
        for b in np.flatnonzero(on_B & (tick < ticks_B)):
            earned_B[b] += REWARD.metre * (traffic.arc_BV[b, 0] - before.arc_BV[b, 0]) - REWARD.second * 0.1
            earned_B[b] -= REWARD.braking * max(-traffic.acceleration_BV[b, 0] - REWARD.comfortable, 0) * 0.1
            earned_B[b] -= REWARD.collision * hits_B[b]
            on_B[b] = not hits_B[b] and not past_last_conflict(traffic)[b]
    assert outcome.reward_B == pytest.approx(earned_B)
    assert np.array_equal(outcome.hit_B | outcome.passed_B, ~on_B) and outcome.hit_B.any() and outcome.passed_B.any()
    assert not (outcome.hit_B & outcome.passed_B).any() and (outcome.ticks_B <= ticks_B).all()
    assert (outcome.ticks_B[on_B] == ticks_B[on_B]).all()


@pytest.mark.parametrize("scene", SCENES)
def test_who_yields_earns_more_than_who_crashes_and_less_than_who_gets_through(scene: SceneName) -> None:
    env = DrivingEnv(world((scene,)), 150)
    earned = {}
    for name in ("goes", "yields"):
        env.reset(seed=3)
        total_B, over_B, crashed_B = np.zeros(150), np.zeros(150, bool), np.zeros(150, bool)
        seen_BF = env.reset(seed=3)[0]
        for _ in range(41):
            waits_B = (name == "yields") & (seen_BF[:, OWN_FEATURES + 10] == 1)
            seen_BF, reward_B, terminated_B, truncated_B, _ = env.step(np.where(waits_B, SLOWER, FASTER))
            total_B += np.where(over_B, 0, reward_B)
            crashed_B |= ~over_B & terminated_B & (reward_B < -REWARD.collision / 2)
            over_B |= terminated_B | truncated_B
        assert over_B.all()
        earned[name] = (total_B, crashed_B)
    (goes_B, crashed_B), (yields_B, never_B) = earned["goes"], earned["yields"]
    assert crashed_B.any() and not never_B.any()
    assert (goes_B[crashed_B] < yields_B[crashed_B]).all() and goes_B[~crashed_B].mean() > yields_B[~crashed_B].mean()


# Episodes, as Gymnasium wants them


def play(env: DrivingEnv, steps: int, seed: int) -> list[list[np.ndarray]]:
    draw = np.random.default_rng(seed)
    return [list(env.step(draw.integers(0, 3, env.num_envs))[:4]) for _ in range(steps)]


def test_the_environment_keeps_to_its_spaces_and_to_its_seed() -> None:
    env, again = DrivingEnv(world(), 7), DrivingEnv(world(), 7)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    first, notes = env.reset(seed=4)
    assert notes == {} and env.observation_space.contains(first)
    assert env.single_observation_space.contains(first[0]) and env.action_space.contains(env.action_space.sample())
    again.reset(seed=5)
    assert np.array_equal(again.reset(seed=4)[0], first) and not np.array_equal(again.reset(seed=5)[0], first)
    again.reset(seed=4)
    done = 0
    for one, other in zip(play(env, 60, 0), play(again, 60, 0), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        seen_BF, reward_B, terminated_B, truncated_B = one
        assert env.observation_space.contains(seen_BF)
        assert reward_B.shape == terminated_B.shape == truncated_B.shape == (7,)
        assert terminated_B.dtype == truncated_B.dtype == bool and not (terminated_B & truncated_B).any()
        done += (terminated_B | truncated_B).sum()
    assert done > 7
    unseeded = env.reset()[0]
    assert not np.array_equal(unseeded, first)


def test_an_episode_that_is_over_begins_anew_at_the_next_step_with_a_number_of_its_own() -> None:
    def fresh(numbers: Sequence[int]) -> Traffic:
        episodes = [REINFORCEMENT + number for number in numbers]
        return draw_traffic(make_scene("intersection"), TrafficConfig(), DRIVERS, 2, episodes)

    env = DrivingEnv(world(("intersection",)), 4)
    assert np.array_equal(env.reset(seed=2)[0], observe(fresh(range(4))))
    drawn, over_B = 4, np.zeros(4, bool)
    for _ in range(60):
        was_over_B = over_B
        seen_BF, reward_B, terminated_B, truncated_B, _ = env.step(np.full(4, FASTER))
        over_B = terminated_B | truncated_B
        for b in np.flatnonzero(was_over_B):
            assert np.array_equal(seen_BF[b], observe(fresh([drawn]))[0]) and reward_B[b] == 0 and not over_B[b]
            drawn += 1
    assert drawn > 10


def test_episodes_end_at_the_last_tick_even_in_the_middle_of_a_decision() -> None:
    short = TrafficConfig(ticks=12)
    env = DrivingEnv(world(traffic=short), 6)
    env.reset(seed=0)
    ends = [truncated_B.tolist() for _, _, _, truncated_B in play(env, 8, 0)]
    assert ends == ([[False] * 6] * 2 + [[True] * 6] + [[False] * 6]) * 2


def test_episodes_are_shared_evenly_among_scenes() -> None:
    env = DrivingEnv(world(), 8)
    env.reset(seed=0)
    assert [traffic.episodes for traffic in env._traffic] == [3, 3, 2]
    assert [traffic.scene for traffic in env._traffic] == [make_scene(name) for name in SCENES]
    with pytest.raises(InputError, match="2 episodes cannot be shared among 3 scenes"):
        DrivingEnv(world(), 2)


# Training, and what is saved


@pytest.fixture(scope="module")
def trained(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = Folder(tmp_path_factory.mktemp("ppo"))
    assert train_ppo(SCENES, TrafficConfig(), DRIVERS, TINY, folder) == folder.file(POLICY_FILE)
    return folder


def test_a_tiny_training_writes_weights_and_no_pickles(trained: Folder) -> None:
    assert trained.ls() == sorted([METRICS_FILE, POLICY_FILE])
    policy = PpoPolicy.load(trained.file(POLICY_FILE))
    assert [weight.shape for weight in policy.weights] == [(8, FEATURES), (6, 8), (3, 6)] and policy.decide_every == 5
    steps = [row["step"] for row in trained.read_lines(METRICS_FILE)]
    assert len(steps) >= 2 and steps == sorted(steps) and steps[-1] >= TINY.decisions


def test_the_saved_policy_is_rllibs_own_module() -> None:
    import torch

    with ppo._rllib(world(), TINY) as algorithm:
        algorithm.train()
        module = algorithm.get_module()
        arrays = ppo._actor_layers(ppo._get_weights(algorithm))
        layers = [[arrays[f"{n}.{kind}"] for n in range(3)] for kind in ("weight", "bias")]
        policy = PpoPolicy(tuple(layers[0]), tuple(layers[1]), 5)
        for scene in SCENES:
            traffic = under_way(scene, 1, 25, 7)
            out = module.forward_inference({"obs": torch.from_numpy(observe(traffic))})
            logits_BA = out["action_dist_inputs"].detach().numpy()
            assert policy.logits(observe(traffic)) == pytest.approx(logits_BA, abs=1e-5)
            greedy = module.get_inference_action_dist_cls().from_logits(torch.from_numpy(logits_BA)).to_deterministic()
            chosen_B = greedy.sample().numpy()
            assert policy.accelerations(traffic).tolist() == [ACCELERATIONS[a] for a in chosen_B]


def test_a_training_that_was_cut_off_ends_with_the_same_weights_and_a_finished_one_is_kept(
    trained: Folder, tmp_path: Path
) -> None:
    folder = Folder(tmp_path)
    (first, *_) = trained.read_lines(METRICS_FILE)
    folder.append_line(METRICS_FILE, json.dumps(first))  # all that a training leaves that is killed after an update
    np.random.seed(7)  # nothing depends on what the process did before
    train_ppo(SCENES, TrafficConfig(), DRIVERS, TINY, folder)
    for name in (POLICY_FILE, METRICS_FILE):
        assert folder.read_bytes(name) == trained.read_bytes(name), name
    written = (tmp_path / POLICY_FILE).stat().st_mtime_ns
    train_ppo(SCENES, TrafficConfig(), DRIVERS, TINY, folder)
    assert (tmp_path / POLICY_FILE).stat().st_mtime_ns == written
    with pytest.raises(InputError, match="a training with other settings was left here"):
        train_ppo(("merge",), TrafficConfig(), DRIVERS, TINY, folder)


def test_other_processes_drive_if_there_is_room_and_torch_is_left_as_it_was(
    ray_cluster: object, tmp_path: Path
) -> None:
    import torch

    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    apart = TINY.model_copy(update={"runners": 1, "decisions": 30})
    assert PpoPolicy.load(train_ppo(SCENES, TrafficConfig(), DRIVERS, apart, Folder(tmp_path))).decide_every == 5
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    with pytest.raises(ResourceError, match="reinforcement learning asks for 99 workers"):
        train_ppo(SCENES, TrafficConfig(), DRIVERS, TINY.model_copy(update={"runners": 99}), Folder(tmp_path / "other"))


def layers(*sizes: int) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for n, (before, after) in enumerate(itertools.pairwise(sizes)):
        arrays |= {f"{n}.weight": np.zeros((after, before), np.float32), f"{n}.bias": np.zeros(after, np.float32)}
    return arrays


@pytest.mark.parametrize(
    ("sizes", "version", "what"),
    [
        ((FEATURES, 8, 3), VERSION + 1, f"weights of version {VERSION + 1}, where {VERSION} is needed"),
        ((FEATURES, 8, 3), None, "weights of version unknown"),
        ((FEATURES + 1, 8, 3), VERSION, f"layer 0 of the policy does not take the {FEATURES} values before it"),
        ((FEATURES, 8, 4), VERSION, "the policy knows 4 actions, not 3"),
        ((FEATURES,), VERSION, f"the policy knows {FEATURES} actions, not 3"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_words(
    sizes: tuple[int, ...], version: int | None, what: str, tmp_path: Path
) -> None:
    path = tmp_path / POLICY_FILE
    notes = {"decide_every": 5} | ({} if version is None else {"version": version})
    save_file(layers(*sizes), path, {"squadron": json.dumps(notes)})
    with pytest.raises(InputError, match=what):
        PpoPolicy.load(str(path))


def test_what_are_no_weights_is_refused_in_words(tmp_path: Path) -> None:
    for data in (b"", b"not weights at all", bytes(100)):
        (tmp_path / POLICY_FILE).write_bytes(data)
        with pytest.raises(InputError, match="no weights can be read"):
            PpoPolicy.load(str(tmp_path / POLICY_FILE))
    with pytest.raises(InputError, match="file not found"):
        PpoPolicy.load(str(tmp_path / "none"))
