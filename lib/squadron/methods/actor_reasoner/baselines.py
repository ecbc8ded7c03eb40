"""Other ways to drive: by a rule, and by an oracle that knows what no car can see.

Letters: B episodes, V cars, P plans, X pairs of an episode and a plan, G those of them that go on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from squadron.methods.actor_reasoner.algorithm import ACCELERATIONS, FASTER, IDLE, SLOWER, View, see
from squadron.methods.actor_reasoner.episodes import Decision, beliefs, comes_BV, silent
from squadron.sim.driving.drivers import GO_FIRST, NOTHING, YIELD, drivers_wish
from squadron.sim.driving.spec import DriversConfig
from squadron.sim.driving.traffic import Traffic, collisions, drive

_EASY, _COMFORTABLE, _HEADWAY_S, _STANDS_M = 2.0, 3.0, 1.0, 2.0
_HORIZON_S, _STEP_S = 10.0, 0.2
_MARGIN_M = 0.5
_COLLISION_S = 1000.0


@dataclass
class RulePolicy:
    """The intelligent driver model (Treiber, Hennecke and Helbing 2000), with the car that would be first at the
    conflict taken for one in front, as far ahead as it is closer to the conflict."""

    def decide(self, traffic: Traffic, said_BV: np.ndarray) -> Decision:
        return Decision(follow(see(traffic), traffic), silent(traffic.episodes))


def follow(view: View, traffic: Traffic) -> np.ndarray:
    """The acceleration (B) of the rule, between −4 and 2 m/s²."""
    speed_B, top = view.own_speed_B, traffic.config.top_speed
    yields_B = view.meets_B & (view.other_s_B < view.own_s_B) & (view.other_m_B > -traffic.config.over_after_m)
    gap_B = np.where(yields_B, view.own_m_B - np.maximum(view.other_m_B, 0.0) - traffic.config.length_m, np.inf)
    closing_B = speed_B - view.other_speed_B
    wish_B = _STANDS_M + np.maximum(
        0.0, speed_B * _HEADWAY_S + speed_B * closing_B / (2 * np.sqrt(_EASY * _COMFORTABLE))
    )
    wanted_B = _EASY * (1 - (speed_B / top) ** 4 - (wish_B / np.maximum(gap_B, 0.1)) ** 2)
    return np.clip(wanted_B, ACCELERATIONS[SLOWER], ACCELERATIONS[FASTER])


class Plan(NamedTuple):
    """What to do for how long (None: until all others are past), before going."""

    action: int
    seconds: float | None
    display: str


PLANS = (
    Plan(FASTER, 0.0, GO_FIRST),
    Plan(IDLE, 1.0, NOTHING),
    Plan(IDLE, 2.0, NOTHING),
    Plan(SLOWER, 0.5, NOTHING),
    Plan(SLOWER, 1.0, NOTHING),
    Plan(SLOWER, 2.0, NOTHING),
    Plan(SLOWER, None, YIELD),
)


class Suspects:
    """Which styles (B, V, 3) drivers may have, after what they did: those who would have done the same."""

    def __init__(self, traffic: Traffic, drivers: DriversConfig) -> None:
        self._drivers = drivers
        self.may_BV3 = np.ones((*traffic.line_BV.shape, 3), bool)

    def note(self, traffic: Traffic, display_B: np.ndarray) -> None:
        """See what drivers want at this tick, before a car with this display."""
        belief_BV3 = beliefs(traffic, self._drivers, display_B)
        wish_BV = drivers_wish(traffic, self._drivers, belief_BV3)
        for style in range(3):
            as_if = replace(traffic, style_BV=np.where(traffic.style_BV >= 0, style, -1))
            self.may_BV3[..., style] &= drivers_wish(as_if, self._drivers, belief_BV3) == wish_BV


@dataclass
class OraclePolicy:
    """Tries every plan of `PLANS` on the drivers, whose game it knows, and begins the best; again every `every` ticks.
    It `knows` their styles too, or weighs those that they may have. Nobody can drive so: it says how much there is to
    gain."""

    drivers: DriversConfig
    every: int = 5
    knows: bool = True
    _tick: int = 0
    _suspects: Suspects | None = None
    _chosen_B: np.ndarray | None = None

    def decide(self, traffic: Traffic, said_BV: np.ndarray) -> Decision:
        self._suspects = self._suspects or Suspects(traffic, self.drivers)
        if self._chosen_B is None or self._tick % self.every == 0:
            self._chosen_B = best_plans(traffic, self.drivers, None if self.knows else self._suspects)
        self._tick += 1
        meets_B = traffic.open_BVV[:, 0].any(1)
        action_B = np.where(meets_B, np.array([plan.action for plan in PLANS])[self._chosen_B], FASTER)
        display_B = np.array([plan.display for plan in PLANS], dtype=object)[self._chosen_B]
        decision = Decision(ACCELERATIONS[action_B], np.where(meets_B, display_B, NOTHING))
        if not self.knows:
            self._suspects.note(traffic, decision.display_B)
        return decision


def best_plans(traffic: Traffic, drivers: DriversConfig, suspects: Suspects | None = None) -> np.ndarray:
    """The number in `PLANS` (B) that gets each automated car past its conflicts the soonest and without a collision; of
    equal ones the first. With `suspects` it is the best on average over the styles that drivers may have."""
    if suspects is None:
        best_B: np.ndarray = plan_costs(traffic, drivers).argmin(1)
        return best_B
    best_B = np.nanmean(suspected_costs(traffic, drivers, suspects), 0).argmin(1)
    return best_B


def suspected_costs(traffic: Traffic, drivers: DriversConfig, suspects: Suspects) -> np.ndarray:
    """`plan_costs` for each style (3, B, P) that a driver may have; NaN where none may have it."""
    may_BV3 = suspects.may_BV3
    cost_3BP = np.full((3, traffic.episodes, len(PLANS)), np.nan)
    for style in range(3):
        # Of several drivers, those who cannot have this style keep one that they can.
        style_BV = np.where(may_BV3[..., style], style, may_BV3.argmax(-1))
        rows = np.flatnonzero(may_BV3[:, 1:, style].any(1))
        as_if = _rows(replace(traffic, style_BV=np.where(traffic.style_BV >= 0, style_BV, -1)), rows)
        cost_3BP[style, rows] = plan_costs(as_if, drivers)
    return cost_3BP


def plan_costs(traffic: Traffic, drivers: DriversConfig) -> np.ndarray:
    """Seconds (B, P) until each plan has the automated car past its conflicts; where it ends in a collision, more than
    any time, and the more the sooner."""
    count, plans = traffic.episodes, len(PLANS)
    config = traffic.config.model_copy(
        update={
            "tick_s": _STEP_S,
            "length_m": traffic.config.length_m + 2 * _MARGIN_M,
            "width_m": traffic.config.width_m + 2 * _MARGIN_M,
        }
    )
    rows = np.repeat(np.arange(count), plans)
    plan_X = np.tile(np.arange(plans), count)
    future = _rows(replace(traffic, config=config), rows)
    display_X = np.array([plan.display for plan in PLANS], dtype=object)[plan_X]
    until_X = np.array([np.inf if plan.seconds is None else plan.seconds for plan in PLANS])[plan_X]
    wait_X = ACCELERATIONS[np.array([plan.action for plan in PLANS])][plan_X]
    touches_X = np.asarray(collisions(future)[:, 0].any(1))  # closer than the margin already: only what is worse counts
    cost_X = np.full(len(rows), np.nan)
    going = np.arange(len(rows))
    for step in range(round(_HORIZON_S / _STEP_S)):
        now_s = step * _STEP_S
        coming_G = comes_BV(future)[:, 1:].any(1) & future.open_BVV[:, 0].any(1)
        waits_G = (now_s < until_X[going]) & (np.isfinite(until_X[going]) | coming_G)
        wish_GV = drivers_wish(future, drivers, beliefs(future, drivers, display_X[going]))
        wish_GV[:, 0] = np.where(waits_G, wait_X[going], ACCELERATIONS[FASTER])
        future = drive(future, wish_GV)
        hit_G = collisions(future)[:, 0].any(1)
        touches_X[going] &= hit_G
        hit_G &= ~touches_X[going]
        past_G = ~comes_BV(future)[:, 0]
        cost_X[going[hit_G]] = _COLLISION_S - now_s
        cost_X[going[past_G & ~hit_G]] = now_s + _STEP_S
        still_G = ~(hit_G | past_G)
        future, going = _rows(future, still_G), going[still_G]
        if not len(going):
            break
    cost_X[going] = _HORIZON_S + np.nan_to_num(future.to_conflict_BVV[:, 0]).max(1) / config.top_speed
    return cost_X.reshape(count, plans)


def _rows(traffic: Traffic, rows: np.ndarray) -> Traffic:
    """Some episodes, each as often as it is named."""
    names = ("line_BV", "style_BV", "arc_BV", "speed_BV", "acceleration_BV", "stood_BV")
    return replace(traffic, **{name: getattr(traffic, name)[rows] for name in names})
