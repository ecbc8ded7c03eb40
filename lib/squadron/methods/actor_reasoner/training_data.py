"""What the small model learns from: situations, with the driver's true style, what it does next, and what to do: the
decision of an oracle which tries what comes of each, for every style that the driver may have after what it did.

Letters: B episodes, P plans, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from squadron.methods.actor_reasoner.algorithm import ACCELERATIONS, ACTIONS, FASTER, IDLE, see
from squadron.methods.actor_reasoner.baselines import PLANS, Suspects, suspected_costs
from squadron.methods.actor_reasoner.config import SceneConfig
from squadron.methods.actor_reasoner.episodes import Decision, beliefs, run_episodes, silent
from squadron.methods.actor_reasoner.policy import Past
from squadron.methods.actor_reasoner.prompts import Situation, Thought
from squadron.sim.driving.drivers import NOTHING, drivers_wish
from squadron.sim.driving.scenes import make_scene
from squadron.sim.driving.traffic import Traffic, draw_traffic

_SILENT = 0.25
"""Share of situations whose driver is shown as if it said nothing: the model must know them too."""


_LEAST_S = 0.5
"""What is at stake in any lesson, so that those where all decisions are as good are learned too."""


class Lesson(NamedTuple):
    """A situation of an episode, what to think of it, how many styles the driver may have after what it did, and what
    each of `ACTIONS` would cost, in seconds."""

    episode: int
    situation: Situation
    thought: Thought
    styles: int
    costs: tuple[float, ...]

    def lost_s(self, action: int) -> float:
        """What it costs to decide otherwise than the oracle, in seconds."""
        return max(0.0, self.costs[action] - self.costs[self.thought.action])


def draw_lessons(world: SceneConfig, episodes: Sequence[int], explore: float, collision_s: float) -> list[Lesson]:
    """Lessons of these episodes. The car goes by the oracle's decision until it would be thought about again, or by a
    random one with the chance `explore`. A collision costs `collision_s` seconds."""
    teacher = _Teacher(world, episodes, explore, collision_s)
    start = draw_traffic(make_scene(world.scene), world.traffic, world.drivers, world.seed, episodes)
    run_episodes(start, world.drivers, teacher)
    return [lesson._replace(episode=episodes[lesson.episode]) for lesson in teacher.lessons]


def by_stake(lessons: Sequence[Lesson], count: int, seed: int) -> list[Lesson]:
    """`count` lessons, each as often as there is at stake in it: what other decisions would lose, on average.

    Who learns from such examples learns the decision of the least cost to be expected, not the one that is right most
    often (cost-proportionate weighting; Zadrozny, Langford and Abe 2003): in doubt it waits.
    """
    stake_N = np.array([sum(map(lesson.lost_s, range(len(ACTIONS)))) / (len(ACTIONS) - 1) for lesson in lessons])
    share_N = (stake_N + _LEAST_S).cumsum()
    draws = (np.random.default_rng(seed).random() + np.arange(count)) / count  # evenly: no lesson is left to chance
    return [lessons[place] for place in np.searchsorted(share_N / share_N[-1], draws, side="right").tolist()]


class _Teacher:
    """Drives by the oracle, with mistakes, and takes notes."""

    def __init__(self, world: SceneConfig, episodes: Sequence[int], explore: float, collision_s: float) -> None:
        self._scene, self._drivers = world.scene, world.drivers
        self._explore, self._collision_s = explore, collision_s
        self._every = max(1, round(world.every_s / world.traffic.tick_s))
        self._draws = [np.random.default_rng([world.seed, episode, 1]) for episode in episodes]
        self._tick = 0
        self._past: Past | None = None
        self._suspects: Suspects | None = None
        self._last_B = np.full(len(episodes), IDLE)
        self._display_B = silent(len(episodes))
        self.lessons: list[Lesson] = []

    def decide(self, traffic: Traffic, said_BV: np.ndarray) -> Decision:
        self._past = self._past or Past(self._scene, traffic.config.tick_s)
        self._past.note(traffic)
        self._suspects = self._suspects or Suspects(traffic, self._drivers)
        if self._tick % self._every == 0:
            self._decide(traffic, said_BV)
        self._tick += 1
        meets_B = traffic.open_BVV[:, 0].any(1)
        action_B = np.where(meets_B, self._last_B, FASTER)
        decision = Decision(ACCELERATIONS[action_B], np.where(meets_B, self._display_B, NOTHING))
        self._suspects.note(traffic, decision.display_B)
        return decision

    def _decide(self, traffic: Traffic, said_BV: np.ndarray) -> None:
        assert self._suspects is not None
        cost_3BP = suspected_costs(traffic, self._drivers, self._suspects)
        plan_B = np.nanmean(cost_3BP, 0).argmin(1)
        first_P = np.array([plan.action for plan in PLANS])
        action_B = first_P[plan_B]
        cost_BP = np.nanmean(np.minimum(cost_3BP, self._collision_s), 0)
        cost_BA = np.stack([cost_BP[:, first_P == action].min(1) for action in range(len(ACTIONS))], axis=1)
        display_B = np.array([plan.display for plan in PLANS], dtype=object)[plan_B]
        self._note(traffic, said_BV, action_B, display_B, cost_BA)
        for row, draw in enumerate(self._draws):
            strays = draw.random() < self._explore
            self._last_B[row] = draw.integers(len(ACTIONS)) if strays else action_B[row]
            self._display_B[row] = NOTHING if strays else display_B[row]

    def _note(
        self,
        traffic: Traffic,
        said_BV: np.ndarray,
        action_B: np.ndarray,
        display_B: np.ndarray,
        cost_BA: np.ndarray,
    ) -> None:
        assert self._past is not None and self._suspects is not None
        view = see(traffic)
        wish_BV = drivers_wish(traffic, self._drivers, beliefs(traffic, self._drivers, display_B))
        for row in np.flatnonzero(view.meets_B).tolist():
            other = int(view.other_B[row])
            said = NOTHING if self._draws[row].random() < _SILENT else str(said_BV[row, other])
            situation = self._past.situation(row, view, said, int(self._last_B[row]), str(self._display_B[row]))
            style, slows = int(traffic.style_BV[row, other]), bool(wish_BV[row, other] < 0)
            thought = Thought(style, int(slows), int(action_B[row]), str(display_B[row]))
            styles = int(self._suspects.may_BV3[row, other].sum())
            costs = tuple(cost_BA[row].round(3).tolist())
            self.lessons.append(Lesson(row, situation, thought, styles, costs))
