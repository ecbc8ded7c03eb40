"""Episodes from their start to their end, many at once, and what came of them.

A policy drives the automated cars; drivers play their game. No clock runs here: what a policy takes to think is counted
in ticks, so that an episode is the same on any machine and whatever runs beside it.

Letters: T ticks, B episodes, V cars.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from squadron.core.work import take_turns
from squadron.methods.actor_reasoner.prompts import meaning
from squadron.sim.driving.drivers import NOTHING, believe, drivers_say, drivers_wish, opponents
from squadron.sim.driving.spec import DriversConfig
from squadron.sim.driving.traffic import Traffic, collisions, drive

EVALUATION, REINFORCEMENT, LESSONS, MEMORIES, LIVE = (purpose * 1_000_000 for purpose in range(5))
"""Where episodes of each purpose are counted from, so that none is met twice."""


class Decision(NamedTuple):
    """What automated cars do: the acceleration wanted, in m/s² (B), and what the display says (B), as text."""

    wanted_B: np.ndarray
    display_B: np.ndarray


class Policy(Protocol):
    """What drives the automated cars of a batch of episodes, from their first tick on."""

    def decide(self, traffic: Traffic, said_BV: np.ndarray) -> Decision:
        """The decisions of this tick; `said_BV` is what drivers say."""


@dataclass(frozen=True, eq=False)
class Track:
    """What happened: where cars were and how fast, at each tick, with what was wanted and shown between two; `traffic`
    is the start."""

    traffic: Traffic
    arc_TBV: np.ndarray
    speed_TBV: np.ndarray
    wanted_TB: np.ndarray
    display_TB: np.ndarray
    collided_TB: np.ndarray


class Outcomes(NamedTuple):
    """What came of episodes (B). Seconds are NaN where there are none.

    `passed_s`: until the automated car was past its conflicts; `encroachment_s`: between the first car's leaving the
    conflict and the second's coming there, the least over cars met (post-encroachment time); `first`: whether it went
    before every other; `acceleration` and `jerk`: root mean squares, in m/s² and m/s³; `braking`: the hardest, in m/s².
    """

    collided: np.ndarray
    passed_s: np.ndarray
    encroachment_s: np.ndarray
    first: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    braking: np.ndarray

    @property
    def succeeded(self) -> np.ndarray:
        """Past in time, and nobody hurt."""
        return ~self.collided & np.isfinite(self.passed_s)


def run_episodes(
    traffic: Traffic,
    drivers: DriversConfig,
    policy: Policy,
    pace: Callable[[int], None] | None = None,
    over: Callable[[Traffic], np.ndarray] | None = None,
) -> Track:
    """Drive until each episode is over, by default when all cars are past their conflicts, or the automated one has
    collided, or time is. `pace` is called with the number of each tick before it begins, and may wait."""
    start, config = traffic, traffic.config
    arcs, speeds, wanted, shown, hits = [traffic.arc_BV], [traffic.speed_BV], [], [], []
    over_B = np.zeros(traffic.episodes, bool)
    for tick in range(config.ticks):
        take_turns()
        if pace is not None:
            pace(tick)
        decision = policy.decide(traffic, drivers_say(traffic))
        wish_BV = drivers_wish(traffic, drivers, beliefs(traffic, drivers, decision.display_B))
        wish_BV[:, 0] = decision.wanted_B
        traffic = drive(traffic, wish_BV)
        hits.append(collisions(traffic)[:, 0].any(1))
        arcs.append(traffic.arc_BV)
        speeds.append(traffic.speed_BV)
        wanted.append(decision.wanted_B)
        shown.append(decision.display_B)
        over_B |= hits[-1] | (~comes_BV(traffic).any(1) if over is None else over(traffic))
        if over_B.all():
            break
    return Track(start, np.array(arcs), np.array(speeds), np.array(wanted), np.array(shown), np.array(hits))


def comes_BV(traffic: Traffic) -> np.ndarray:
    """Which cars (B, V) are not past their conflict with the automated one; of that one, with any other."""
    before_BVV = traffic.to_conflict_BVV > -traffic.config.over_after_m
    return np.column_stack([before_BVV[:, 0].any(1), before_BVV[:, 1:, 0]])


def beliefs(traffic: Traffic, drivers: DriversConfig, display_B: np.ndarray) -> np.ndarray:
    """What drivers think (B, V, 3) of the style of whoever they meet: those who meet the automated car have seen its
    display, if they heed it."""
    cars = traffic.line_BV.shape[1]
    belief_BV3 = np.tile(np.array(drivers.prior), (traffic.episodes, cars, 1))
    if drivers.hears_display:
        known_B3 = believe(drivers, np.array([meaning(text) for text in display_B.tolist()]))
        met_BV = opponents(traffic)[0] == 0
        belief_BV3 = np.where(met_BV[..., None], known_B3[:, None], belief_BV3)
    return belief_BV3


def silent(count: int) -> np.ndarray:
    """Displays that say nothing."""
    return np.full(count, NOTHING, dtype=object)


def outcomes(track: Track) -> Outcomes:
    """What came of a track. Of an episode only what was before it was over counts."""
    traffic, config = track.traffic, track.traffic.config
    tick_s = config.tick_s
    conflict_BVV = traffic.scene.conflict_LL[traffic.line_BV[:, :, None], traffic.line_BV[:, None, :]]
    own_B1V, other_B1V = conflict_BVV[:, 0, None, :], conflict_BVV[:, :, 0][:, None]
    meets_BV = np.isfinite(conflict_BVV[:, 0])
    past_TBV = track.arc_TBV[:, :, :1] > own_B1V[:, 0] + config.over_after_m
    past_TB = np.all(past_TBV | ~meets_BV, axis=-1)
    collided_B = np.asarray(track.collided_TB.any(0))
    end_B = np.minimum(_first(past_TB), _first(track.collided_TB) + 1)
    passed_B = np.where(_first(past_TB) < len(past_TB), _first(past_TB) * tick_s, np.nan)
    half_m = config.length_m / 2
    comes = [
        _first(arcs + half_m > at[:, 0])
        for arcs, at in ((track.arc_TBV[:, :, :1], own_B1V), (track.arc_TBV, other_B1V))
    ]
    leaves = [
        _first(arcs - half_m > at[:, 0])
        for arcs, at in ((track.arc_TBV[:, :, :1], own_B1V), (track.arc_TBV, other_B1V))
    ]
    own_first_BV = comes[0] < comes[1]
    first_B = np.asarray((own_first_BV | ~meets_BV).all(1))
    between_BV = np.where(own_first_BV, comes[1] - leaves[0], comes[0] - leaves[1]) * tick_s
    both_BV = meets_BV & (comes[0] < len(past_TB)) & (comes[1] < len(past_TB))
    least_B = np.where(both_BV, between_BV, np.inf).min(1)
    speed_TB = track.speed_TBV[:, :, 0]
    acceleration_TB = np.diff(speed_TB, axis=0) / tick_s
    counts_TB = np.arange(len(acceleration_TB))[:, None] < np.maximum(end_B, 2)
    return Outcomes(
        collided_B,
        np.where(collided_B, np.nan, passed_B),
        np.where(np.isfinite(least_B) & ~collided_B, least_B, np.nan),
        first_B & ~collided_B,
        _root_mean_square(acceleration_TB, counts_TB),
        _root_mean_square(np.diff(acceleration_TB, axis=0) / tick_s, counts_TB[1:]),
        -np.where(counts_TB, acceleration_TB, 0.0).min(0, initial=0.0),
    )


def _first(true_T: np.ndarray) -> np.ndarray:
    """The first tick at which something is so; the number of ticks where it never is."""
    return np.where(true_T.any(0), true_T.argmax(0), len(true_T))


def _root_mean_square(values_TB: np.ndarray, counts_TB: np.ndarray) -> np.ndarray:
    squares_B = np.where(counts_TB, values_TB**2, 0.0).sum(0)
    mean_B: np.ndarray = np.sqrt(squares_B / np.maximum(counts_TB.sum(0), 1))
    return mean_B
