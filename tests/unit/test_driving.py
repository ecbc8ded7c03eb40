"""The driving world: lines, conflicts, motion, drivers as players of a game."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.sim.driving.drivers import (
    GO_FIRST,
    NOTHING,
    YIELD,
    Cars,
    believe,
    best_actions,
    drivers_say,
    drivers_wish,
    equilibrium,
)
from squadron.sim.driving.scenes import SAMPLE_M, Scene, make_scene
from squadron.sim.driving.spec import DriversConfig, SceneName, TrafficConfig
from squadron.sim.driving.traffic import NEVER_S, Traffic, collisions, draw_traffic, drive, time_to
from squadron.sim.routes import make_route

SCENES: tuple[SceneName, ...] = ("intersection", "roundabout", "merge")
DRIVERS = DriversConfig()
seeds = st.integers(0, 2**32 - 1)


def start(scene: SceneName = "intersection", episodes: int = 50, others: int = 1, seed: int = 0) -> Traffic:
    return draw_traffic(make_scene(scene), TrafficConfig(others=others), DRIVERS, seed, range(episodes))


# Lines and where they meet


@pytest.mark.parametrize("name", SCENES)
def test_lines_meet_where_their_conflict_is_and_nowhere_before(name: SceneName) -> None:
    scene = make_scene(name)
    for one, other in np.argwhere(np.isfinite(scene.conflict_LL)):
        at, there = scene.conflict_LL[one, other], scene.conflict_LL[other, one]
        assert scene.lines[one].at(at) == pytest.approx(scene.lines[other].at(there), abs=1e-6)
        arcs = np.arange(0, at - 0.5, 0.5)
        way = scene.lines[other].at(np.arange(0, scene.lines[other].length, 0.2))
        apart = np.linalg.norm(scene.lines[one].at(arcs)[:, None] - way, axis=-1).min(1)
        assert apart.min() > 1e-3
        near = scene.near_LL[one, other]
        assert 0 <= near < at and (apart[arcs < near - SAMPLE_M] > 2.5).all()


def test_scenes_have_the_lines_that_their_names_say() -> None:
    assert [len(make_scene(name).lines) for name in SCENES] == [24, 12, 2]
    scene = make_scene("intersection")
    for name, line in zip(scene.names, scene.lines, strict=True):
        turn = np.diff(scene.at(np.array([scene.names.index(name)] * 2), np.array([0, line.length - 1]))[:, 2])[0]
        wanted = {"left": np.pi / 2, "right": -np.pi / 2, "straight on": 0.0}[name.rpartition(", ")[2]]
        assert turn == pytest.approx(wanted, abs=0.02)


def test_lanes_are_shared_behind_a_merge_and_not_behind_a_crossing() -> None:
    merge, crossing = make_scene("merge"), make_scene("intersection")
    assert merge.shared_LL[0, 1] == pytest.approx(100, abs=1)
    straight = [n for n, name in enumerate(crossing.names) if name.endswith("lane 1, straight on")]
    assert crossing.shared_LL[np.ix_(straight, straight)].max() == 0


def test_a_scene_without_a_conflict_is_refused() -> None:
    lanes = (make_route([(0, 0), (50, 0)]), make_route([(0, 9), (50, 9)]))
    scene = Scene(lanes, ("one", "other"), np.array([0, 1]), 0)
    with pytest.raises(InputError, match="no two lines of this scene conflict"):
        draw_traffic(scene, TrafficConfig(), DRIVERS, 0, [0])
    with pytest.raises(InputError, match="3 other cars cannot meet"):
        draw_traffic(make_scene("merge"), TrafficConfig(others=3), DRIVERS, 0, [0])


# Motion


@given(st.floats(0.1, 80), st.floats(0, 8), st.sampled_from([-4.0, -1.0, -0.3, 0.0, 0.5, 2.0]))
@settings(max_examples=200)
def test_time_to_a_place_is_what_driving_there_takes(distance: float, speed: float, acceleration: float) -> None:
    found = float(time_to(np.array(distance), np.array(speed), np.array(acceleration), 8.0))
    arc, v, t, tick = 0.0, speed, 0.0, 1e-3
    while arc < distance and t < 60 and not (v == 0 and acceleration <= 0):
        faster = min(max(v + acceleration * tick, 0.0), 8.0)
        arc, v, t = arc + (v + faster) / 2 * tick, faster, t + tick
    if arc >= distance and found < NEVER_S:
        assert found == pytest.approx(t, abs=0.05 + 0.02 * t)
    elif t < 60:  # to the last centimetre before a stand either may be right
        assert found == NEVER_S or distance - arc < 0.02
    else:
        assert found >= 59


def test_a_conflict_that_is_behind_or_is_none_takes_no_time_or_for_ever() -> None:
    assert time_to(np.array([-3.0, np.nan]), np.ones(2), np.ones(2), 8.0).tolist()[0] == 0
    traffic = start(others=2, episodes=20)
    seconds = traffic.seconds_to_conflict_BVV
    assert (seconds[np.isnan(traffic.to_conflict_BVV)] == NEVER_S).all()


@pytest.mark.parametrize("name", SCENES)
def test_a_car_that_yields_stands_before_the_others_way_and_is_not_hit(name: SceneName) -> None:
    traffic = start(name, 200)
    wish = np.full(traffic.line_BV.shape, 2.0)
    for _ in range(traffic.config.ticks):
        wish[:, 0] = np.where(traffic.open_BVV[:, 0, 1], -4.0, 2.0)
        traffic = drive(traffic, wish)
        assert (traffic.speed_BV >= 0).all() and (traffic.speed_BV <= traffic.config.top_speed).all()
        assert not collisions(traffic).any()


@pytest.mark.parametrize("name", SCENES)
def test_cars_that_all_go_collide_often(name: SceneName) -> None:
    traffic = start(name, 200)
    hit_B = np.zeros(200, bool)
    for _ in range(traffic.config.ticks):
        traffic = drive(traffic, np.full(traffic.line_BV.shape, 2.0))
        hit_B |= collisions(traffic)[:, 0, 1]
    assert 0.2 < hit_B.mean() < 0.95


def test_cars_overlap_as_rectangles_do() -> None:
    draw = np.random.default_rng(0)
    traffic = start(episodes=300, others=2)
    lengths = np.array([line.length for line in traffic.scene.lines])[traffic.line_BV]
    traffic = replace(traffic, arc_BV=np.minimum(80 + draw.uniform(0, 25, traffic.arc_BV.shape), lengths - 1))
    found = collisions(traffic)
    half = np.array([traffic.config.length_m, traffic.config.width_m]) / 2
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    count = 0
    for b, poses in enumerate(traffic.poses_BV3):
        turned = [corners @ np.array([[np.cos(h), np.sin(h)], [-np.sin(h), np.cos(h)]]) + (x, y) for x, y, h in poses]
        boxes = [shapely.Polygon(one) for one in turned]
        for one, other in itertools.permutations(range(3), 2):
            assert found[b, one, other] == (boxes[one].intersection(boxes[other]).area > 1e-9)
            count += found[b, one, other]
    assert count > 50


def test_an_episode_is_the_same_whatever_runs_beside_it() -> None:
    together, alone = start(episodes=30, others=2, seed=5), start(episodes=30, others=2, seed=5)
    alone = draw_traffic(together.scene, together.config, DRIVERS, 5, [17])
    for _ in range(60):
        together, alone = (drive(one, drivers_wish(one, DRIVERS)) for one in (together, alone))
    assert together.arc_BV[17].tolist() == alone.arc_BV[0].tolist()
    assert together.speed_BV[17].tolist() == alone.speed_BV[0].tolist()


# Drivers


def game_by_the_book(
    scene: Scene, style: int, own: tuple[int, float, float], other: tuple[int, float, float], belief: list[float]
) -> int:
    """The driver's action once more, one number at a time."""
    actions = DRIVERS.accelerations

    def after(car: tuple[int, float, float], acceleration: float) -> tuple[float, float, float, float]:
        line, arc, speed = car
        speed = max(speed + acceleration * DRIVERS.ahead_s, 0.0)
        x, y, _ = scene.at(np.array(line), np.array(arc + speed * DRIVERS.ahead_s))
        return x, y, speed, float(np.hypot(*(np.array([x, y]) - scene.lines[line].points_P2[-1])))

    def reward(style: int, mine: tuple[float, ...], theirs: tuple[float, ...]) -> float:
        config = DRIVERS.styles[style]
        distance = float(np.hypot(mine[0] - theirs[0], mine[1] - theirs[1]))
        closeness = config.short_s * mine[2] / distance
        parts = (-10 * 0.1, mine[2], -mine[3], -closeness)
        return sum(weight * part for weight, part in zip(config.weights, parts, strict=True))

    mine = [after(own, a) for a in actions]
    theirs = [after(other, a) for a in actions]
    expected = [0.0] * len(actions)
    for thought in range(3):
        answer = 0
        for i, j in itertools.product(range(len(actions)), repeat=2):
            own_choices = [reward(style, mine[k], theirs[j]) for k in range(len(actions))]
            other_choices = [reward(thought, theirs[k], mine[i]) for k in range(len(actions))]
            if own_choices.index(max(own_choices)) == i and other_choices.index(max(other_choices)) == j:
                answer = j
                break
        for k in range(len(actions)):
            expected[k] += belief[thought] * reward(style, mine[k], theirs[answer])
    return expected.index(max(expected))


def test_drivers_play_the_game_as_brute_force_does_in_a_thousand_situations() -> None:
    draw = np.random.default_rng(1)
    for name, count in zip(SCENES, (400, 300, 300), strict=True):
        scene = make_scene(name)
        pairs = scene.pairs[draw.integers(len(scene.pairs), size=count)]
        arcs = np.array([[scene.conflict_LL[a, b], scene.conflict_LL[b, a]] for a, b in pairs])
        arcs = np.maximum(arcs - draw.uniform(-5, 50, (count, 2)), 0)
        speeds, styles = draw.uniform(0, 8, (count, 2)), draw.integers(0, 3, count)
        beliefs = draw.dirichlet(np.ones(3), count)
        own, other = (Cars(pairs[:, side], arcs[:, side], speeds[:, side]) for side in (0, 1))
        found = best_actions(scene, DRIVERS, styles, own, other, beliefs, DRIVERS.ahead_s)
        expected = [
            game_by_the_book(
                scene,
                int(styles[b]),
                (int(pairs[b, 0]), float(arcs[b, 0]), float(speeds[b, 0])),
                (int(pairs[b, 1]), float(arcs[b, 1]), float(speeds[b, 1])),
                beliefs[b].tolist(),
            )
            for b in range(count)
        ]
        assert found.tolist() == expected
        assert len(set(expected)) >= 2


def test_the_first_equilibrium_counts_and_none_is_the_first_action() -> None:
    stag = np.array([[[4.0, 0.0], [3.0, 3.0]]])
    assert [one.tolist() for one in equilibrium(stag, stag.transpose(0, 2, 1))] == [[0], [0]]
    pennies = np.array([[[1.0, -1.0], [-1.0, 1.0]]])
    assert [one.tolist() for one in equilibrium(pennies, -pennies)] == [[0], [0]]
    dominated = np.array([[[1.0, 0.0], [5.0, 2.0]]])
    assert [one.tolist() for one in equilibrium(dominated, dominated.transpose(0, 2, 1))] == [[1], [1]]


def test_the_bolder_the_driver_the_sooner_it_goes_and_the_more_often_it_takes_its_way() -> None:
    """Before a car that yields for ever, which in the end every driver loses patience with; and before one that never
    does."""
    passed, taken = [], []
    for own_goes in (False, True):
        traffic = start("intersection", 600)
        style_B = traffic.style_BV[:, 1].copy()
        passed_B, first_B = np.full(600, np.nan), np.zeros(600, bool)
        for tick in range(traffic.config.ticks):
            wish = drivers_wish(traffic, DRIVERS)
            wish[:, 0] = 2.0 if own_goes else np.where(traffic.open_BVV[:, 0, 1], -4.0, 2.0)
            traffic = drive(traffic, wish)
            to = traffic.to_conflict_BVV
            passed_B = np.where(np.isnan(passed_B) & (to[:, 1, 0] < 0), tick / 10, passed_B)
            first_B |= (to[:, 1, 0] < 0) & (to[:, 0, 1] > 0)
        passed.append([passed_B[style_B == style].mean() for style in range(3)])
        taken.append([first_B[style_B == style].mean() for style in range(3)])
    assert passed[0][0] + 0.5 < passed[0][1] < passed[0][2] - 0.5 and taken[0] == [1, 1, 1]
    assert taken[1][0] > taken[1][1] + 0.1 > taken[1][2] + 0.2


def test_drivers_say_what_they_do() -> None:
    traffic = start(episodes=4)
    conflict = traffic.to_conflict_BVV[:, 1, 0] + traffic.arc_BV[:, 1]
    own = traffic.to_conflict_BVV[:, 0, 1] + traffic.arc_BV[:, 0]
    arc = np.stack([own - 30, conflict - np.array([3.0, 14.0, 14.0, 30.0])], axis=1)
    speed = np.array([[5, 1.0], [5, 6.0], [5, 0.1], [5, 6.0]])
    said = drivers_say(replace(traffic, arc_BV=arc, speed_BV=speed))
    assert said[:, 1].tolist() == [GO_FIRST, GO_FIRST, YIELD, NOTHING] and set(said[:, 0]) == {NOTHING}


def test_drivers_who_hear_believe_the_display_and_others_do_not() -> None:
    display = np.array([YIELD, GO_FIRST, NOTHING])
    assert believe(DRIVERS, display).tolist() == [list(DRIVERS.prior)] * 3
    hears = DRIVERS.model_copy(update={"hears_display": True})
    assert believe(hears, display).tolist() == [[0, 0, 1], [1, 0, 0], list(DRIVERS.prior)]
