"""Drivers of three styles, as players of a Bayesian game, and what they say.

Each tick a driver looks at the other car that it comes closest to at a conflict. For every style that the other may
have it finds the actions at which neither would change its own (a Nash equilibrium in pure actions), weighs them by its
belief, and takes the action with the highest expected reward.

Letters: B drivers, A actions, T styles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from squadron.sim.driving.scenes import Scene
from squadron.sim.driving.spec import DriversConfig
from squadron.sim.driving.traffic import STANDS_BELOW, Traffic

GO_FIRST, YIELD, NOTHING = "I go first", "you go first", ""
_LEAST_OFFSET = 0.1


@dataclass(frozen=True, eq=False)
class Cars:
    """One car of each of B situations."""

    line_B: np.ndarray
    arc_B: np.ndarray
    speed_B: np.ndarray


def drivers_wish(traffic: Traffic, config: DriversConfig, belief_BV3: np.ndarray | None = None) -> np.ndarray:
    """The acceleration (B, V) that each driver wants, in m/s²; 0 for the automated car. `belief_BV3` is what each
    thinks of the style of the driver that it meets; None: the prior of all."""
    wish_BV = np.zeros(traffic.line_BV.shape)
    opponent_BV, open_BV = opponents(traffic)
    rows = np.arange(traffic.episodes)
    for car in range(1, traffic.line_BV.shape[1]):
        other_B = opponent_BV[:, car]
        own = Cars(traffic.line_BV[:, car], traffic.arc_BV[:, car], traffic.speed_BV[:, car])
        other = Cars(traffic.line_BV[rows, other_B], traffic.arc_BV[rows, other_B], traffic.speed_BV[rows, other_B])
        belief_B3 = np.tile(config.prior, (len(rows), 1)) if belief_BV3 is None else belief_BV3[:, car]
        action_B = best_actions(traffic.scene, config, traffic.style_BV[:, car], own, other, belief_B3, config.ahead_s)
        chosen_B = np.array(config.accelerations)[action_B]
        tired_B = (traffic.stood_BV[:, car] > config.patience_s) & (other.speed_B < STANDS_BELOW)
        wish_BV[:, car] = np.where(open_BV[:, car] & ~tired_B, chosen_B, max(config.accelerations))
    return wish_BV


def opponents(traffic: Traffic) -> tuple[np.ndarray, np.ndarray]:
    """For each car the other one that it would be closest to in time at an open conflict (B, V), and whether there is
    any. The official code takes the last one within four seconds; ours is the closest."""
    seconds_BVV = traffic.seconds_to_conflict_BVV
    apart_BVV = np.abs(seconds_BVV - seconds_BVV.transpose(0, 2, 1))
    apart_BVV = np.where(traffic.open_BVV, apart_BVV, np.inf)
    nearest_BV: np.ndarray = apart_BVV.argmin(-1)
    return nearest_BV, np.asarray(traffic.open_BVV.any(-1))


def best_actions(
    scene: Scene,
    config: DriversConfig,
    style_B: np.ndarray,
    own: Cars,
    other: Cars,
    belief_B3: np.ndarray,
    ahead_s: float,
) -> np.ndarray:
    """The number of the action (B) that each driver takes, believing that the other one plays the game too."""
    weights_T4 = np.array([style.weights for style in config.styles])
    short_T = np.array([style.short_s for style in config.styles])
    terms_BAA4, others_BAA4 = _terms(scene, config, own, other, ahead_s)
    mine_BAA = _reward(terms_BAA4, weights_T4[style_B], short_T[style_B])
    expected_BA = np.zeros(mine_BAA.shape[:2])
    for style in range(3):
        # The other's rewards by own action and by its action, as if it were of this style.
        count = len(style_B)
        theirs_BAA = _reward(others_BAA4, np.tile(weights_T4[style], (count, 1)), np.full(count, short_T[style]))
        answer_B = equilibrium(mine_BAA, theirs_BAA)[1]
        expected_BA += belief_B3[:, style, None] * mine_BAA[np.arange(count), :, answer_B]
    return expected_BA.argmax(1)


def equilibrium(mine_BAA: np.ndarray, theirs_BAA: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Actions (B) of both at the first pair at which neither is better off with another; both 0 where there is none.

    Rows are own actions and columns the other's; pairs are looked at row by row, and of actions that are equally good
    the first counts, as in the official code.
    """
    actions = np.arange(mine_BAA.shape[1])
    mine_best = mine_BAA.argmax(1)[:, None, :] == actions[:, None]
    theirs_best = theirs_BAA.argmax(2)[:, :, None] == actions
    both = (mine_best & theirs_best).reshape(len(mine_BAA), -1)
    first_B = np.where(both.any(1), both.argmax(1), 0)
    own_B, other_B = np.divmod(first_B, mine_BAA.shape[2])
    return own_B, other_B


def drivers_say(traffic: Traffic) -> np.ndarray:
    """What each driver says (B, V). One that is close to its conflict, or keeps driving towards it, says that it goes
    first; one that stands says that the other may. Without a conflict a driver says nothing, nor does the automated
    car."""
    to_BV = np.where(traffic.open_BVV, traffic.to_conflict_BVV, np.inf).min(-1)
    speed_BV = traffic.speed_BV
    first_BV = (to_BV < 4.0) | ((to_BV < 15.0) & (speed_BV > 4.9))
    said_BV = np.where(speed_BV <= 0.2, YIELD, np.where(first_BV, GO_FIRST, NOTHING))
    said_BV[:, 0] = NOTHING
    return np.where(np.isfinite(to_BV), said_BV, NOTHING)


def believe(config: DriversConfig, display_B: np.ndarray) -> np.ndarray:
    """What drivers believe (B, 3) of a car's style by its display: a car that yields is conservative, one that goes
    first is aggressive, and of one that says nothing they believe the prior."""
    belief_B3 = np.tile(np.array(config.prior), (len(display_B), 1))
    if config.hears_display:
        belief_B3[display_B == YIELD] = (0.0, 0.0, 1.0)
        belief_B3[display_B == GO_FIRST] = (1.0, 0.0, 0.0)
    return belief_B3


def _terms(
    scene: Scene, config: DriversConfig, own: Cars, other: Cars, ahead_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """What both care about, by own action and the other's (B, A, A, 4): how far off the line (the least that counts,
    since cars keep to it), speed, how far the end of the line is as the crow flies, and speed over the distance to the
    other car, after the time ahead. Unlike in the official code, nobody considers driving backwards."""
    accelerations_A = np.array(config.accelerations)
    after = []
    for cars in (own, other):
        speed_BA = np.maximum(cars.speed_B[:, None] + accelerations_A * ahead_s, 0.0)
        arc_BA = cars.arc_B[:, None] + speed_BA * ahead_s
        place_BA2 = scene.at(np.repeat(cars.line_B[:, None], len(accelerations_A), 1), arc_BA)[..., :2]
        goal_L2 = np.array([line.points_P2[-1] for line in scene.lines])
        left_BA = np.linalg.norm(place_BA2 - goal_L2[cars.line_B][:, None], axis=-1)
        after.append((speed_BA, left_BA, place_BA2))
    apart_BAA = np.linalg.norm(after[0][2][:, :, None] - after[1][2][:, None, :], axis=-1)
    shape = apart_BAA.shape
    terms = []
    for (speed_BA, left_BA, _), axis in zip(after, (2, 1), strict=True):
        speed_BAA = np.broadcast_to(np.expand_dims(speed_BA, axis), shape)
        left_BAA = np.broadcast_to(np.expand_dims(left_BA, axis), shape)
        closing_BAA = speed_BAA / np.maximum(apart_BAA, 1e-6)
        terms.append(np.stack([np.full(shape, _LEAST_OFFSET), speed_BAA, left_BAA, closing_BAA], -1))
    return terms[0], terms[1]


def _reward(terms_BAA4: np.ndarray, weights_B4: np.ndarray, short_B: np.ndarray) -> np.ndarray:
    """Comfort on the line, speed, progress, and safety: minus the short time over the time to collision."""
    scale_BAA4 = np.array([-10.0, 1.0, -1.0, -1.0]) * np.ones((len(short_B), 1, 1, 4))
    scale_BAA4[..., 3] *= short_B[:, None, None]
    reward_BAA: np.ndarray = (terms_BAA4 * scale_BAA4 * weights_B4[:, None, None]).sum(-1)
    return reward_BAA
