"""What an automated car sees, what it can do, and which of its decisions are worth remembering.

Letters: B situations, V cars.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from squadron.sim.driving.drivers import opponents
from squadron.sim.driving.traffic import STANDS_BELOW, Traffic, time_to

ActionName = Literal["FASTER", "IDLE", "SLOWER"]
ACTIONS: tuple[ActionName, ...] = ("FASTER", "IDLE", "SLOWER")
ACCELERATIONS = np.array([2.0, 0.0, -4.0])
"""Of each action, in m/s². The official controller's, whose filter of memories takes −2 for SLOWER; ours takes −4."""
FASTER, IDLE, SLOWER = range(3)

FEATURES = ("how safe", "distance", "time between", "distance between", "speed between")
WEIGHTS = np.array([10.0, 1.0, 1.0, 1.0, 1.0])
"""Of the differences of features, in the sum that tells how alike two situations are."""
LONGEST_BETWEEN_S = 20.0
SAFE, PERHAPS, SERIOUS, DANGER, STANDS = range(5)


class View(NamedTuple):
    """The car that each of B automated cars meets next: which one it is, whether there is any, and metres to the
    conflict, m/s, m/s² and seconds to the conflict of both."""

    other_B: np.ndarray
    meets_B: np.ndarray
    own_m_B: np.ndarray
    other_m_B: np.ndarray
    own_speed_B: np.ndarray
    other_speed_B: np.ndarray
    own_acceleration_B: np.ndarray
    other_acceleration_B: np.ndarray
    own_s_B: np.ndarray
    other_s_B: np.ndarray

    @property
    def between_s_B(self) -> np.ndarray:
        """Seconds by which the other is later at the conflict, within ±`LONGEST_BETWEEN_S`."""
        return np.clip(self.other_s_B - self.own_s_B, -LONGEST_BETWEEN_S, LONGEST_BETWEEN_S)


def see(traffic: Traffic) -> View:
    """What each automated car sees."""
    opponent_BV, open_BV = opponents(traffic)
    rows, other_B = np.arange(traffic.episodes), opponent_BV[:, 0]
    to_BVV, seconds_BVV = traffic.to_conflict_BVV, traffic.seconds_to_conflict_BVV
    return View(
        other_B,
        open_BV[:, 0],
        to_BVV[rows, 0, other_B],
        to_BVV[rows, other_B, 0],
        traffic.speed_BV[:, 0],
        traffic.speed_BV[rows, other_B],
        traffic.acceleration_BV[:, 0],
        traffic.acceleration_BV[rows, other_B],
        seconds_BVV[rows, 0, other_B],
        seconds_BVV[rows, other_B, 0],
    )


def how_safe(view: View) -> np.ndarray:
    """Which of five cautions a situation calls for (B), by the seconds between the two: more than 5 is safe, down to 1
    perhaps not, down to −5 serious, less a danger; and a car that stands can be passed."""
    between_B = view.other_s_B - view.own_s_B
    caution_B = np.select([between_B > 5, between_B > 1, between_B > -5], [SAFE, PERHAPS, SERIOUS], DANGER)
    return np.where(view.other_speed_B < STANDS_BELOW, STANDS, caution_B)


def features(view: View) -> np.ndarray:
    """A situation in five numbers (B, 5), as memories keep it; see `FEATURES`."""
    return np.stack(
        [
            how_safe(view).astype(float),
            view.own_m_B,
            view.between_s_B,
            view.other_m_B - view.own_m_B,
            view.other_speed_B - view.own_speed_B,
        ],
        axis=1,
    )


def worth_keeping(view: View, action_B: np.ndarray, tick_s: float, top_speed: float) -> np.ndarray:
    """Whether a decision (B) is worth a memory: the cars are more than 5 s apart at the conflict, or the action, taken
    for one tick while the other goes on, brings them no closer in time."""
    acceleration_B = ACCELERATIONS[action_B]
    speed_B = np.clip(view.own_speed_B + acceleration_B * tick_s, 0.0, top_speed)
    left_B = view.own_m_B - (view.own_speed_B + speed_B) / 2 * tick_s
    own_s_B = time_to(left_B, speed_B, acceleration_B, top_speed)
    after_B = np.abs(np.clip(view.other_s_B - tick_s - own_s_B, -LONGEST_BETWEEN_S, LONGEST_BETWEEN_S))
    between_B = np.abs(view.between_s_B)
    return view.meets_B & ((between_B > 5) | (after_B >= between_B))
