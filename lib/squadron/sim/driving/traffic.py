"""Cars on reference lines: where they are, how long to their conflicts, and one tick of motion; many episodes at once.

Every episode is drawn from its own number, so it does not depend on the others. Car 0 is the automated one.

Letters: B episodes, V cars, R recorded cars, T steps of a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from squadron.core.errors import InputError
from squadron.sim.driving.scenes import Scene
from squadron.sim.driving.spec import DriversConfig, TrafficConfig

STANDS_BELOW = 0.2
"""Metres a second at which a car counts as standing."""
_HARDEST, _OVERRUN_M = -9.0, 0.5
_EASY, _COMFORTABLE, _HEADWAY_S, _GAP_M = 2.0, 3.0, 1.0, 2.0
NEVER_S = 10_000.0
"""Time to a conflict that a car does not reach as it drives now."""


@dataclass(frozen=True, eq=False)
class Replay:
    """A record of cars, `step_s` from one step to the next, and how many seconds of it are over. Between steps cars are
    on the straight line between two. They are there at the steps that `here_TR` says, and nowhere after the last.
    `pose_TR3` is x, y and heading as recorded, which their lines come close to."""

    step_s: float
    here_TR: np.ndarray
    pose_TR3: np.ndarray
    line_TR: np.ndarray
    arc_TR: np.ndarray
    speed_TR: np.ndarray
    acceleration_TR: np.ndarray
    size_R2: np.ndarray
    seconds: float = 0.0

    @property
    def here_R(self) -> np.ndarray:
        """Which cars are there now."""
        before, after, _ = self._steps
        last = len(self.here_TR) - 1
        return self.here_TR[min(before, last)] & self.here_TR[min(after, last)] & (after <= last)

    @property
    def line_R(self) -> np.ndarray:
        """The line that each car is on now."""
        return np.asarray(self.line_TR[min(self._steps[0], len(self.line_TR) - 1)])

    def now(self, values_TR: np.ndarray) -> np.ndarray:
        """What such values are now (R, …)."""
        before, after, share = self._steps
        last = len(values_TR) - 1
        return np.asarray(values_TR[min(before, last)] * (1 - share) + values_TR[min(after, last)] * share)

    @property
    def _steps(self) -> tuple[int, int, float]:
        """The steps before and after now, and how far it is between them; ticks add up to steps but for rounding."""
        place = self.seconds / self.step_s
        nearest = round(place)
        if abs(place - nearest) < 1e-6:
            return nearest, nearest, 0.0
        return int(place), int(place) + 1, place - int(place)


@dataclass(frozen=True, eq=False)
class Traffic:
    """Cars of B episodes of one scene. `style_BV` counts in `STYLES`, -1 for the automated car and for recorded ones;
    `acceleration_BV` is what was last driven, `stood_BV` for how many seconds each has stood so far. With a `replay`
    all cars but the automated one go as they did in its record, in every episode."""

    scene: Scene
    config: TrafficConfig
    line_BV: np.ndarray
    style_BV: np.ndarray
    arc_BV: np.ndarray
    speed_BV: np.ndarray
    acceleration_BV: np.ndarray
    stood_BV: np.ndarray
    replay: Replay | None = None

    @property
    def episodes(self) -> int:
        return len(self.line_BV)

    @property
    def poses_BV3(self) -> np.ndarray:
        """x, y and heading of each car."""
        pose_BV3 = self.scene.at(self.line_BV, self.arc_BV)
        if self.replay:
            pose_BV3[:, 1:] = self.replay.now(self.replay.pose_TR3)
        return pose_BV3

    @property
    def here_BV(self) -> np.ndarray:
        """Which cars are there: all but recorded ones that are not there yet, or not any more."""
        here_BV = np.ones(self.line_BV.shape, bool)
        if self.replay:
            here_BV[:, 1:] = self.replay.here_R
        return here_BV

    @property
    def size_BV2(self) -> np.ndarray:
        """Length and width of each car: recorded ones have their own."""
        size_BV2 = np.tile([self.config.length_m, self.config.width_m], (*self.line_BV.shape, 1))
        if self.replay:
            size_BV2[:, 1:] = self.replay.size_R2
        return size_BV2

    @property
    def to_conflict_BVV(self) -> np.ndarray:
        """Metres from each car to its conflict with each other one, negative when past it; NaN where there is none."""
        conflict_BVV = self.scene.conflict_LL[self.line_BV[:, :, None], self.line_BV[:, None, :]]
        both_BVV = self.here_BV[:, :, None] & self.here_BV[:, None, :]
        return np.where(both_BVV, conflict_BVV - self.arc_BV[:, :, None], np.nan)

    @property
    def open_BVV(self) -> np.ndarray:
        """Which pairs of cars still have a conflict before them: neither is far enough past it."""
        to_BVV = self.to_conflict_BVV
        return (to_BVV > -self.config.over_after_m) & (to_BVV.transpose(0, 2, 1) > -self.config.over_after_m)

    @property
    def seconds_to_conflict_BVV(self) -> np.ndarray:
        """Seconds until each car is at its conflicts if it goes on accelerating as it does; `NEVER_S` if it stops
        before or there is none, 0 when it is past. A recorded car that is faster than the top speed stays as fast."""
        speed_BV1, acceleration_BV1 = self.speed_BV[..., None], self.acceleration_BV[..., None]
        top_BV1 = np.maximum(self.config.top_speed, speed_BV1)
        seconds = time_to(self.to_conflict_BVV, speed_BV1, acceleration_BV1, top_BV1)
        return np.where(np.isnan(seconds), NEVER_S, seconds)


def draw_traffic(
    scene: Scene, config: TrafficConfig, drivers: DriversConfig, seed: int, episodes: Sequence[int]
) -> Traffic:
    """The start of these episodes. Lines are drawn evenly among those that conflict with the automated car's, of an
    entrance each, since cars from one entrance would start inside each other.

    Raises InputError if no line of the automated car is met from as many entrances as there are other cars.
    """
    partners = {
        int(own): scene.pairs[scene.pairs[:, 0] == own, 1]
        for own in np.unique(scene.pairs[:, 0])
        if len(np.unique(scene.entrance_L[scene.pairs[scene.pairs[:, 0] == own, 1]])) >= config.others
    }
    if not partners:
        raise InputError(f"{config.others} other cars cannot meet the automated one here", fix="ask for fewer others")
    shape = (len(episodes), config.others + 1)
    line_BV, style_BV = np.zeros(shape, np.int64), np.full(shape, -1)
    arc_BV, speed_BV = np.zeros(shape), np.zeros(shape)
    for place, episode in enumerate(episodes):
        draw = np.random.default_rng([seed, episode])
        own = list(partners)[draw.integers(len(partners))]
        entrance = scene.entrance_L[partners[own]]
        chosen = draw.permutation(np.unique(entrance))[: config.others]
        others = [int(draw.choice(partners[own][entrance == one])) for one in chosen]
        meets = [scene.near_LL[own, others].min(), *scene.near_LL[others, own]]
        line_BV[place] = [own, *others]
        style_BV[place, 1:] = draw.choice(3, config.others, p=drivers.mix)
        arc_BV[place] = np.maximum(np.array(meets) - draw.uniform(*config.approach_m, len(meets)), 0.0)
        speed_BV[place] = np.minimum(draw.uniform(*config.start_speed, len(meets)), config.top_speed)
    return Traffic(scene, config, line_BV, style_BV, arc_BV, speed_BV, np.zeros(shape), np.zeros(shape))


def drive(traffic: Traffic, wanted_BV: np.ndarray) -> Traffic:
    """One tick later, cars having tried to accelerate as wanted (m/s²).

    A car that brakes before an open conflict brakes so as to stand at the line in front of it, and not at all while the
    line is far. A car behind another on the same lane keeps its distance, whatever is wanted. Recorded cars follow
    their record.
    """
    config = traffic.config
    acceleration_BV = np.minimum(_yield(traffic, wanted_BV), _keep_distance(traffic))
    speed_BV = np.clip(traffic.speed_BV + acceleration_BV * config.tick_s, 0.0, config.top_speed)
    after = replace(
        traffic,
        arc_BV=traffic.arc_BV + (traffic.speed_BV + speed_BV) / 2 * config.tick_s,
        speed_BV=speed_BV,
        acceleration_BV=(speed_BV - traffic.speed_BV) / config.tick_s,
    )
    if traffic.replay:
        after = as_recorded(after, replace(traffic.replay, seconds=traffic.replay.seconds + config.tick_s))
    return replace(after, stood_BV=traffic.stood_BV + config.tick_s * (after.speed_BV < STANDS_BELOW))


def as_recorded(traffic: Traffic, replay: Replay) -> Traffic:
    """With all cars but the automated one where the record has them. Those that are nowhere keep a place on their
    lines, where nobody hits or meets them: `here_BV` tells."""
    moments = {"line_BV": replay.line_R}
    moments |= {f"{name}_BV": replay.now(getattr(replay, f"{name}_TR")) for name in ("arc", "speed", "acceleration")}
    columns = {}
    for name, values_R in moments.items():
        columns[name] = getattr(traffic, name).copy()
        columns[name][:, 1:] = values_R
    return replace(traffic, replay=replay, **columns)


def time_to(
    distance: np.ndarray, speed: np.ndarray, acceleration: np.ndarray, top_speed: float | np.ndarray
) -> np.ndarray:
    """Seconds to drive a distance at a constant acceleration, up to the top speed or to a stand: `NEVER_S` if it is not
    reached, 0 if it is behind."""
    goes = np.maximum(distance, 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ramp_s = np.where(acceleration > 0, np.maximum(top_speed - speed, 0.0) / acceleration, np.inf)
        ramp_m = speed * ramp_s + acceleration * ramp_s**2 / 2
        square = speed**2 + 2 * acceleration * goes
        root_s = (np.sqrt(np.maximum(square, 0.0)) - speed) / acceleration
        steady_s = goes / speed
        after_s = ramp_s + (goes - ramp_m) / top_speed
    seconds = np.where(acceleration == 0, steady_s, np.where(goes <= ramp_m, root_s, after_s))
    seconds = np.where((acceleration < 0) & (square < 0), NEVER_S, np.where(acceleration < 0, root_s, seconds))
    seconds = np.where(np.isnan(distance), np.nan, seconds)
    return np.where(goes == 0, 0.0, np.minimum(np.where(np.isnan(seconds), NEVER_S, seconds), NEVER_S))


def collisions(traffic: Traffic) -> np.ndarray:
    """Which pairs of cars (B, V, V) overlap as rectangles: no side of either separates them. Cars at the end of their
    lines are gone."""
    half_BV2 = traffic.size_BV2 / 2
    pose_BV3 = traffic.poses_BV3
    cos_BV, sin_BV = np.cos(pose_BV3[..., 2]), np.sin(pose_BV3[..., 2])
    axes_BV22 = np.stack([np.stack([cos_BV, sin_BV], -1), np.stack([-sin_BV, cos_BV], -1)], -2)
    between_BVV2 = pose_BV3[:, None, :, :2] - pose_BV3[:, :, None, :2]
    cars = pose_BV3.shape[1]
    here_BV = traffic.here_BV & (
        traffic.arc_BV < np.array([line.length for line in traffic.scene.lines])[traffic.line_BV]
    )
    pairs_BVV = here_BV[:, :, None] & here_BV[:, None, :] & ~np.eye(cars, dtype=bool)
    turned_BVV22 = np.abs(np.einsum("bvik,bwjk->bvwij", axes_BV22, axes_BV22))
    apart_BVV2 = np.abs(np.einsum("bvik,bvwk->bvwi", axes_BV22, between_BVV2))
    reach_BVV2 = half_BV2[:, :, None] + np.einsum("bvwij,bwj->bvwi", turned_BVV22, half_BV2)
    inside_BVV = (apart_BVV2 < reach_BVV2).all(-1)
    return pairs_BVV & inside_BVV & inside_BVV.transpose(0, 2, 1)


def _yield(traffic: Traffic, wanted_BV: np.ndarray) -> np.ndarray:
    config = traffic.config
    near_BVV = traffic.scene.near_LL[traffic.line_BV[:, :, None], traffic.line_BV[:, None, :]]
    half_BV1 = traffic.size_BV2[:, :, :1] / 2
    to_line_BVV = near_BVV - traffic.arc_BV[:, :, None] - half_BV1 - config.stop_before_m
    line_BV = np.where(traffic.open_BVV & (to_line_BVV > -_OVERRUN_M), np.maximum(to_line_BVV, 0.0), np.inf).min(-1)
    stopping_BV = np.where(
        line_BV > config.brakes_within_m, 0.0, -(traffic.speed_BV**2) / (2 * np.maximum(line_BV, 1e-6))
    )
    waits_BV = (wanted_BV < 0) & np.isfinite(line_BV)
    return np.where(waits_BV, np.maximum(stopping_BV, _HARDEST), wanted_BV)


def _keep_distance(traffic: Traffic) -> np.ndarray:
    """The most (B, V) that a car may accelerate behind the car in front of it on the same lane, by the intelligent
    driver model (Treiber, Hennecke and Helbing 2000)."""
    shared_LL = traffic.scene.shared_LL
    line_BV = traffic.line_BV
    shared_BVV = shared_LL[line_BV[:, :, None], line_BV[:, None, :]]
    past_BVV = -traffic.to_conflict_BVV  # NaN is in front of nobody
    leads_BVV = past_BVV.transpose(0, 2, 1)
    speed_B1V = traffic.speed_BV[:, None, :]
    speed_BV1 = traffic.speed_BV[:, :, None]
    behind_BVV = (shared_BVV > 0) & (leads_BVV > 0) & (leads_BVV <= shared_BVV) & (past_BVV < leads_BVV)
    length_BV = traffic.size_BV2[..., 0]
    lengths_BVV = (length_BV[:, :, None] + length_BV[:, None, :]) / 2
    gap_BVV = np.where(behind_BVV, leads_BVV - past_BVV - lengths_BVV, np.inf)
    wish_BVV = _GAP_M + np.maximum(
        0.0, speed_BV1 * _HEADWAY_S + speed_BV1 * (speed_BV1 - speed_B1V) / (2 * np.sqrt(_EASY * _COMFORTABLE))
    )
    free_BV1 = 1 - (speed_BV1 / traffic.config.top_speed) ** 4
    most_BVV = np.where(behind_BVV, _EASY * (free_BV1 - (wish_BVV / np.maximum(gap_BVV, 0.1)) ** 2), np.inf)
    limit_BV: np.ndarray = np.maximum(most_BVV.min(-1), _HARDEST)
    return limit_BV
