"""Cars on reference lines: where they are, how long to their conflicts, one tick of motion, of many episodes at once.

Every episode is drawn from its own number, so that it is the same whatever runs beside it. Car 0 is the automated one.

Letters: B episodes, V cars.
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
class Traffic:
    """Cars of B episodes of one scene. `style_BV` counts in `STYLES`, -1 for the automated car; `acceleration_BV` is
    what was last driven, `stood_BV` for how many seconds each has stood so far."""

    scene: Scene
    config: TrafficConfig
    line_BV: np.ndarray
    style_BV: np.ndarray
    arc_BV: np.ndarray
    speed_BV: np.ndarray
    acceleration_BV: np.ndarray
    stood_BV: np.ndarray

    @property
    def episodes(self) -> int:
        return len(self.line_BV)

    @property
    def poses_BV3(self) -> np.ndarray:
        """x, y and heading of each car."""
        return self.scene.at(self.line_BV, self.arc_BV)

    @property
    def to_conflict_BVV(self) -> np.ndarray:
        """Metres from each car to its conflict with each other one, negative when past it; NaN where there is none."""
        conflict_BVV = self.scene.conflict_LL[self.line_BV[:, :, None], self.line_BV[:, None, :]]
        return conflict_BVV - self.arc_BV[:, :, None]

    @property
    def open_BVV(self) -> np.ndarray:
        """Which pairs of cars still have a conflict before them: neither is far enough past it."""
        to_BVV = self.to_conflict_BVV
        return (to_BVV > -self.config.over_after_m) & (to_BVV.transpose(0, 2, 1) > -self.config.over_after_m)

    @property
    def seconds_to_conflict_BVV(self) -> np.ndarray:
        """Seconds until each car is at its conflicts if it goes on accelerating as it does; `NEVER_S` if it stops
        before or there is none, 0 when it is past."""
        seconds = time_to(
            self.to_conflict_BVV, self.speed_BV[..., None], self.acceleration_BV[..., None], self.config.top_speed
        )
        return np.where(np.isnan(seconds), NEVER_S, seconds)


def draw_traffic(
    scene: Scene, config: TrafficConfig, drivers: DriversConfig, seed: int, episodes: Sequence[int]
) -> Traffic:
    """The start of these episodes. Lines are drawn evenly among those that conflict with the automated car's, of an
    entrance each, since cars from one entrance would start inside each other.

    Raises InputError if no line of the automated car is met from so many entrances.
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

    Who brakes before a conflict that is open brakes so as to stand at the line in front of it, and not at all while
    that is far. Who is behind another on the same lane keeps its distance, whatever it wanted.
    """
    config = traffic.config
    acceleration_BV = np.minimum(_yield(traffic, wanted_BV), _keep_distance(traffic))
    speed_BV = np.clip(traffic.speed_BV + acceleration_BV * config.tick_s, 0.0, config.top_speed)
    return replace(
        traffic,
        arc_BV=traffic.arc_BV + (traffic.speed_BV + speed_BV) / 2 * config.tick_s,
        speed_BV=speed_BV,
        acceleration_BV=(speed_BV - traffic.speed_BV) / config.tick_s,
        stood_BV=traffic.stood_BV + config.tick_s * (speed_BV < STANDS_BELOW),
    )


def time_to(distance: np.ndarray, speed: np.ndarray, acceleration: np.ndarray, top_speed: float) -> np.ndarray:
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
    half = np.array([traffic.config.length_m, traffic.config.width_m]) / 2
    pose_BV3 = traffic.poses_BV3
    cos_BV, sin_BV = np.cos(pose_BV3[..., 2]), np.sin(pose_BV3[..., 2])
    axes_BV22 = np.stack([np.stack([cos_BV, sin_BV], -1), np.stack([-sin_BV, cos_BV], -1)], -2)
    between_BVV2 = pose_BV3[:, None, :, :2] - pose_BV3[:, :, None, :2]
    cars = pose_BV3.shape[1]
    here_BV = traffic.arc_BV < np.array([line.length for line in traffic.scene.lines])[traffic.line_BV]
    pairs_BVV = here_BV[:, :, None] & here_BV[:, None, :] & ~np.eye(cars, dtype=bool)
    turned_BVV22 = np.abs(np.einsum("bvik,bwjk->bvwij", axes_BV22, axes_BV22))
    apart_BVV2 = np.abs(np.einsum("bvik,bvwk->bvwi", axes_BV22, between_BVV2))
    reach_BVV2 = half + turned_BVV22 @ half
    inside_BVV = (apart_BVV2 < reach_BVV2).all(-1)
    return pairs_BVV & inside_BVV & inside_BVV.transpose(0, 2, 1)


def _yield(traffic: Traffic, wanted_BV: np.ndarray) -> np.ndarray:
    config = traffic.config
    near_BVV = traffic.scene.near_LL[traffic.line_BV[:, :, None], traffic.line_BV[:, None, :]]
    to_line_BVV = near_BVV - traffic.arc_BV[:, :, None] - config.length_m / 2 - config.stop_before_m
    line_BV = np.where(traffic.open_BVV & (to_line_BVV > -_OVERRUN_M), np.maximum(to_line_BVV, 0.0), np.inf).min(-1)
    stopping_BV = np.where(
        line_BV > config.brakes_within_m, 0.0, -(traffic.speed_BV**2) / (2 * np.maximum(line_BV, 1e-6))
    )
    waits_BV = (wanted_BV < 0) & np.isfinite(line_BV)
    return np.where(waits_BV, np.maximum(stopping_BV, _HARDEST), wanted_BV)


def _keep_distance(traffic: Traffic) -> np.ndarray:
    """The most (B, V) that a car may accelerate behind whoever is in front of it on the same lane, by the intelligent
    driver model (Treiber, Hennecke and Helbing 2000)."""
    shared_LL = traffic.scene.shared_LL
    line_BV = traffic.line_BV
    shared_BVV = shared_LL[line_BV[:, :, None], line_BV[:, None, :]]
    past_BVV = -traffic.to_conflict_BVV  # NaN is in front of nobody
    leads_BVV = past_BVV.transpose(0, 2, 1)
    speed_B1V = traffic.speed_BV[:, None, :]
    speed_BV1 = traffic.speed_BV[:, :, None]
    behind_BVV = (shared_BVV > 0) & (leads_BVV > 0) & (leads_BVV <= shared_BVV) & (past_BVV < leads_BVV)
    gap_BVV = np.where(behind_BVV, leads_BVV - past_BVV - traffic.config.length_m, np.inf)
    wish_BVV = _GAP_M + np.maximum(
        0.0, speed_BV1 * _HEADWAY_S + speed_BV1 * (speed_BV1 - speed_B1V) / (2 * np.sqrt(_EASY * _COMFORTABLE))
    )
    free_BV1 = 1 - (speed_BV1 / traffic.config.top_speed) ** 4
    most_BVV = np.where(behind_BVV, _EASY * (free_BV1 - (wish_BVV / np.maximum(gap_BVV, 0.1)) ** 2), np.inf)
    limit_BV: np.ndarray = np.maximum(most_BVV.min(-1), _HARDEST)
    return limit_BV
