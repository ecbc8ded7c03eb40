"""Driving as a problem of reinforcement learning: what a car sees, what it is rewarded for, many episodes at once.

Letters: B episodes, O other cars, F features.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from squadron.core.errors import InputError
from squadron.methods.actor_reasoner.algorithm import ACCELERATIONS
from squadron.methods.actor_reasoner.config import RewardConfig
from squadron.methods.actor_reasoner.episodes import REINFORCEMENT
from squadron.sim.driving.drivers import GO_FIRST, YIELD, drivers_say, drivers_wish
from squadron.sim.driving.scenes import make_scene
from squadron.sim.driving.spec import DriversConfig, SceneName, TrafficConfig
from squadron.sim.driving.traffic import Traffic, collisions, draw_traffic, drive

OTHERS = 3
"""Cars that an observation has room for."""
OWN_FEATURES, OTHER_FEATURES = 3, 14
FEATURES = OWN_FEATURES + OTHERS * OTHER_FEATURES
_FAR_M, _LATE_S, _STOOD_S, _HARD, _MOST = 50.0, 20.0, 5.0, 4.0, 2.0


def observe(traffic: Traffic) -> np.ndarray:
    """What the automated car sees (B, F), scaled to about -1 to 1; nothing of it tells a driver's style.

    Of itself: speed, acceleration, for how long it has stood. Of `OTHERS` cars, open conflicts and near ones first:
    that it is there; own distances to the conflict and to where one begins to be in its way; the same two of the other;
    its speed and acceleration; seconds of both to the conflict; which of them is first; whether the conflict is open;
    whether it says that it goes first, or that one may; for how long it has stood. Places of cars that are not there,
    or have no conflict, hold zeros.
    """
    config, scene, line_BV = traffic.config, traffic.scene, traffic.line_BV
    own_BO, its_BO = traffic.to_conflict_BVV[:, 0, 1:], traffic.to_conflict_BVV[:, 1:, 0]
    seconds_BVV = np.minimum(traffic.seconds_to_conflict_BVV, _LATE_S)
    own_s_BO, its_s_BO = seconds_BVV[:, 0, 1:], seconds_BVV[:, 1:, 0]
    open_BO = traffic.open_BVV[:, 0, 1:]
    said_BO = drivers_say(traffic)[:, 1:]
    speed_BV, acceleration_BV = traffic.speed_BV / config.top_speed, traffic.acceleration_BV / _HARD
    stood_BV = np.minimum(traffic.stood_BV / _STOOD_S, 1.0)
    features = [
        np.ones(own_BO.shape),
        own_BO / _FAR_M,
        (scene.near_LL[line_BV[:, :1], line_BV[:, 1:]] - traffic.arc_BV[:, :1]) / _FAR_M,
        its_BO / _FAR_M,
        (scene.near_LL[line_BV[:, 1:], line_BV[:, :1]] - traffic.arc_BV[:, 1:]) / _FAR_M,
        speed_BV[:, 1:],
        acceleration_BV[:, 1:],
        own_s_BO / _LATE_S,
        its_s_BO / _LATE_S,
        np.sign(own_s_BO - its_s_BO),
        open_BO,
        said_BO == GO_FIRST,
        said_BO == YIELD,
        stood_BV[:, 1:],
    ]
    meets_BO = np.isfinite(own_BO)
    others_BOF = np.where(meets_BO[..., None], np.stack(features, -1), 0.0)
    order_BO = np.lexsort((np.nan_to_num(its_BO), np.nan_to_num(own_BO), ~open_BO, ~meets_BO))
    others_BOF = np.take_along_axis(others_BOF, order_BO[:, :OTHERS, None], 1)
    seen_BF = np.zeros((traffic.episodes, FEATURES), np.float32)
    seen_BF[:, :OWN_FEATURES] = np.stack([speed_BV[:, 0], acceleration_BV[:, 0], stood_BV[:, 0]], -1)
    flat_BF = others_BOF.reshape(traffic.episodes, others_BOF.shape[1] * OTHER_FEATURES)
    seen_BF[:, OWN_FEATURES : OWN_FEATURES + flat_BF.shape[1]] = flat_BF
    return np.clip(seen_BF, -_MOST, _MOST)


def past_last_conflict(traffic: Traffic) -> np.ndarray:
    """Whether the automated car (B) is past all its conflicts, or at the end of its line."""
    conflict_BV = traffic.scene.conflict_LL[traffic.line_BV[:, :1], traffic.line_BV]
    ends_B = np.array([line.length for line in traffic.scene.lines])[traffic.line_BV[:, 0]]
    over_B = np.nanmax(conflict_BV, 1) + traffic.config.over_after_m
    past_B: np.ndarray = traffic.arc_BV[:, 0] >= np.minimum(over_B, ends_B)
    return past_B


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one decision in B episodes: where cars are now, what was earned until the episode was over, whether
    it ended in a collision, whether the automated car is past its last conflict, and how many ticks were driven."""

    traffic: Traffic
    reward_B: np.ndarray
    hit_B: np.ndarray
    passed_B: np.ndarray
    ticks_B: np.ndarray


def keep_accelerating(
    traffic: Traffic, drivers: DriversConfig, reward: RewardConfig, wanted_B: np.ndarray, ticks_B: np.ndarray
) -> Outcome:
    """Drive on for so many ticks of each episode with one acceleration of the automated car (B, m/s²).

    An episode that is over earns nothing more, though its cars go on until the longest is done.
    """
    count = traffic.episodes
    reward_B, driven_B = np.zeros(count), np.zeros(count, np.int64)
    hit_B, passed_B = np.zeros(count, bool), np.zeros(count, bool)
    for tick in range(int(ticks_B.max(initial=0))):
        on_B = ~hit_B & ~passed_B & (tick < ticks_B)
        wish_BV = drivers_wish(traffic, drivers)
        wish_BV[:, 0] = wanted_B
        before_B, traffic = traffic.arc_BV[:, 0], drive(traffic, wish_BV)
        hit_B |= on_B & collisions(traffic)[:, 0].any(-1)
        passed_B |= on_B & ~hit_B & past_last_conflict(traffic)
        harder_B = np.maximum(-traffic.acceleration_BV[:, 0] - reward.comfortable, 0.0)
        earned_B = reward.metre * (traffic.arc_BV[:, 0] - before_B) - reward.collision * hit_B
        earned_B -= (reward.second + reward.braking * harder_B) * traffic.config.tick_s
        reward_B += np.where(on_B, earned_B, 0.0)
        driven_B += on_B
    return Outcome(traffic, reward_B, hit_B, passed_B, driven_B)


@dataclass(frozen=True)
class World:
    """What episodes of training are drawn from, and how often the automated car decides."""

    scenes: tuple[SceneName, ...]
    traffic: TrafficConfig
    drivers: DriversConfig
    reward: RewardConfig
    decide_every: int
    first_episode: int = REINFORCEMENT


class DrivingEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many episodes at once, shared evenly among scenes. An action is the number of one of `ACCELERATIONS`, kept for
    `decide_every` ticks.

    An episode terminates at a collision of the automated car or when it is past its last conflict, and is truncated at
    the last tick. It starts anew at the step after, which then earns nothing. Episodes are drawn from the seed of the
    last seeded reset and their own numbers, which go up by one. Raises InputError if a scene would have none.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, world: World, num_envs: int) -> None:
        if num_envs < len(world.scenes):
            raise InputError(f"{num_envs} episodes cannot be shared among {len(world.scenes)} scenes")
        self.world, self.num_envs = world, num_envs
        self.single_observation_space = Box(-_MOST, _MOST, (FEATURES,), np.float32)
        self.single_action_space = Discrete(len(ACCELERATIONS))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = MultiDiscrete([len(ACCELERATIONS)] * num_envs)
        parts = np.array_split(np.arange(num_envs), len(world.scenes))
        self._parts = [slice(int(part[0]), int(part[-1]) + 1) for part in parts]
        self._seed, self._next = 0, world.first_episode
        self._traffic: list[Traffic] = []
        self._ticks_B, self._over_B = np.zeros(num_envs, np.int64), np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin all episodes anew. A seed also begins counting them anew."""
        if seed is not None:
            self._seed, self._next = seed, self.world.first_episode
        self._traffic = [
            self._draw(scene, part.stop - part.start)
            for scene, part in zip(self.world.scenes, self._parts, strict=True)
        ]
        self._ticks_B[:], self._over_B[:] = 0, False
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Carry out one decision in each episode."""
        world, fresh_B = self.world, self._over_B
        wanted_B = np.array(ACCELERATIONS)[np.asarray(actions)]
        left_B = np.minimum(world.decide_every, world.traffic.ticks - self._ticks_B)
        outcomes = []
        for number, part in enumerate(self._parts):
            outcome = keep_accelerating(
                self._traffic[number], world.drivers, world.reward, wanted_B[part], np.where(fresh_B, 0, left_B)[part]
            )
            outcomes.append(outcome)
            drawn = self._draw(world.scenes[number], int(fresh_B[part].sum()))
            self._traffic[number] = _put(outcome.traffic, fresh_B[part], drawn)
        self._ticks_B = np.where(fresh_B, 0, self._ticks_B + np.concatenate([one.ticks_B for one in outcomes]))
        terminated_B = np.concatenate([one.hit_B | one.passed_B for one in outcomes])
        truncated_B = (self._ticks_B >= world.traffic.ticks) & ~terminated_B
        self._over_B = terminated_B | truncated_B
        return self._observe(), np.concatenate([one.reward_B for one in outcomes]), terminated_B, truncated_B, {}

    def _observe(self) -> np.ndarray:
        return np.concatenate([observe(traffic) for traffic in self._traffic])

    def _draw(self, scene: SceneName, count: int) -> Traffic:
        world, episodes = self.world, range(self._next, self._next + count)
        self._next += count
        return draw_traffic(make_scene(scene), world.traffic, world.drivers, self._seed, episodes)


def _put(traffic: Traffic, chosen_B: np.ndarray, new: Traffic) -> Traffic:
    """The traffic with the chosen episodes replaced by the new ones, in order."""
    changed = {}
    for field in fields(Traffic):
        if field.name.endswith("_BV"):
            changed[field.name] = getattr(traffic, field.name).copy()
            changed[field.name][chosen_B] = getattr(new, field.name)
    return replace(traffic, **changed)
