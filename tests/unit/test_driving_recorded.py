"""Recorded traffic: cars go as they did, the automated one drives among them, and bad files are refused."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from squadron.core.errors import ConfigError, InputError
from squadron.sim.driving.drivers import drivers_say, drivers_wish, opponents
from squadron.sim.driving.recorded import OFF_LINE_M, Recorded, read_recorded, replay_traffic
from squadron.sim.driving.spec import DriversConfig, TrafficConfig
from squadron.sim.driving.stretches import stretches
from squadron.sim.driving.traffic import NEVER_S, Traffic, collisions, drive
from squadron.sim.routes import make_route
from tests.conftest import REAL_DATA

FOLDER = REAL_DATA / "driving"
HIGHWAY, CROSSING = "USA_US101-4_1_T-1", "USA_Peach-4_8_T-1"
needs_data = pytest.mark.skipif(not FOLDER.exists(), reason=f"no recorded traffic in {FOLDER}")
Wish = Callable[[Traffic], np.ndarray | float]


def real(name: str) -> Recorded:
    return read_recorded(FOLDER / f"{name}.xml.gz")


def play(traffic: Traffic, wish: Wish, ticks: int) -> list[Traffic]:
    """The traffic at every tick, the automated car wishing so and the others anything."""
    played = [traffic]
    for _ in range(ticks):
        wanted_BV = np.full(traffic.line_BV.shape, 1.0)
        wanted_BV[:, 0] = wish(traffic)
        traffic = drive(traffic, wanted_BV)
        played.append(traffic)
    return played


def go(traffic: Traffic) -> float:
    return 2.0


def stand(traffic: Traffic) -> float:
    return -4.0


def give_way(traffic: Traffic) -> np.ndarray:
    return np.where(traffic.open_BVV[:, 0].any(1), -4.0, 2.0)


def hits(played: Sequence[Traffic]) -> tuple[np.ndarray, np.ndarray]:
    """In which episodes which cars were run into by the automated one with its front half, and which ran into it from
    behind or from its side (B, V)."""
    front_BV, back_BV = np.zeros((2, *played[0].line_BV.shape), bool)
    for traffic in played:
        first_BV = collisions(traffic)[:, 0] & ~front_BV & ~back_BV
        pose_BV3 = traffic.poses_BV3
        off_BV2 = pose_BV3[..., :2] - pose_BV3[:, :1, :2]
        heading_B1 = pose_BV3[:, :1, 2]
        ahead_BV = off_BV2[..., 0] * np.cos(heading_B1) + off_BV2[..., 1] * np.sin(heading_B1) > 0
        front_BV |= first_BV & ahead_BV
        back_BV |= first_BV & ~ahead_BV
    return front_BV, back_BV


# Real records


@needs_data
@pytest.mark.parametrize(("name", "steps", "cars"), [(HIGHWAY, 101, 22), (CROSSING, 61, 9)])
def test_cars_are_at_every_tick_where_commonroad_says(name: str, steps: int, cars: int, tmp_path: Path) -> None:
    from commonroad.common.file_reader import CommonRoadFileReader

    plain = tmp_path / "plain.xml"
    plain.write_bytes(gzip.decompress((FOLDER / f"{name}.xml.gz").read_bytes()))
    record, _ = CommonRoadFileReader(str(plain)).open()
    recorded = read_recorded(plain)
    assert recorded.arc_TR.shape == (steps, cars)
    traffic = replay_traffic(recorded, TrafficConfig())
    for tick in range(steps + 3):
        for car, obstacle in enumerate(record.dynamic_obstacles, 1):
            state = obstacle.state_at_time(tick)
            assert traffic.here_BV[0, car] == (state is not None)
            if state is not None:
                assert traffic.poses_BV3[0, car, :2] == pytest.approx(state.position, abs=1e-9)
                assert np.exp(1j * traffic.poses_BV3[0, car, 2]) == pytest.approx(np.exp(1j * state.orientation))
                assert traffic.speed_BV[0, car] == pytest.approx(state.velocity, abs=1e-9)
                assert traffic.acceleration_BV[0, car] == pytest.approx(state.acceleration, abs=1e-9)
                on_line = traffic.scene.at(traffic.line_BV[0, car], traffic.arc_BV[0, car])[:2]
                assert np.linalg.norm(on_line - state.position) < 0.3 < OFF_LINE_M
                shape = obstacle.obstacle_shape
                assert traffic.size_BV2[0, car] == pytest.approx([shape.length, shape.width])
        traffic = drive(traffic, np.full(traffic.line_BV.shape, -1.0))


@needs_data
@pytest.mark.parametrize("name", [HIGHWAY, CROSSING])
def test_recorded_speeds_are_those_at_which_cars_move(name: str) -> None:
    """As far as the record itself agrees: its speeds and positions are up to 2.5 m/s apart for a tick, and on average
    0.1 m/s on the highway and 0.24 at the crossing. Lines add nothing to that."""
    recorded = real(name)
    both_TR = recorded.here_TR[1:] & recorded.here_TR[:-1]
    mean_TR = (recorded.speed_TR[1:] + recorded.speed_TR[:-1]) / 2
    on_line_TR = np.diff(recorded.arc_TR, axis=0) / recorded.step_s
    as_recorded_TR = np.linalg.norm(np.diff(recorded.pose_TR3[..., :2], axis=0), axis=-1) / recorded.step_s
    errors = [np.abs(moved_TR - mean_TR)[both_TR] for moved_TR in (on_line_TR, as_recorded_TR)]
    assert errors[0].mean() < errors[1].mean() + 0.005 and errors[0].max() < 2.5
    for moved_T, mean_T, both_T in zip(on_line_TR.T, mean_TR.T, both_TR.T, strict=True):
        way_m, speeds_m = moved_T[both_T].sum() * recorded.step_s, mean_T[both_T].sum() * recorded.step_s
        assert way_m == pytest.approx(speeds_m, rel=0.05, abs=0.5)


@needs_data
def test_on_the_highway_a_car_that_only_follows_gets_to_its_goal_and_hits_nobody() -> None:
    """The planning problem asks for a place, at 9 to 10 s, at 3 m/s at the most."""
    recorded = real(HIGHWAY)
    played = play(replay_traffic(recorded, TrafficConfig()), go, 100)
    assert not np.any(hits(played))
    for traffic in played[90:]:
        assert recorded.goal_arc <= traffic.arc_BV[0, 0] < recorded.goal_arc + 2 and traffic.speed_BV[0, 0] <= 3
    assert not any(traffic.open_BVV[:, 0].any() for traffic in played)  # nobody's way is crossed, only shared


@needs_data
def test_on_the_highway_the_automated_car_runs_into_nobody_whatever_it_wants() -> None:
    """Recorded drivers do not react: it is they who run into a car that is slower than the one that they followed."""
    draw = np.random.default_rng(0)
    traffic = replay_traffic(real(HIGHWAY), TrafficConfig(top_speed=20.0), 60)
    speed_BV = traffic.speed_BV.copy()
    speed_BV[:, 0] = draw.uniform(0, 9, 60)
    mean_B = draw.uniform(-2, 2, 60)
    front_BV, back_BV = hits(play(replace(traffic, speed_BV=speed_BV), lambda _: mean_B + draw.uniform(-2, 2, 60), 100))
    assert not front_BV.any()
    assert 0 < back_BV.any(1).mean() < 1


@needs_data
def test_a_car_that_stands_on_the_highway_is_hit_by_the_two_behind_it() -> None:
    recorded = real(HIGHWAY)
    front_BV, back_BV = hits(play(replay_traffic(recorded, TrafficConfig()), stand, 100))
    assert not front_BV.any()
    assert [recorded.names[car - 1] for car in np.flatnonzero(back_BV[0])] == ["468", "475"]


@needs_data
@pytest.mark.parametrize(("wish", "hit"), [(go, ["520"]), (give_way, []), (stand, ["605"])])
def test_at_the_crossing_a_left_turn_has_to_wait_for_one_car_and_not_for_ever(wish: Wish, hit: list[str]) -> None:
    """Car 520 comes the other way; car 605 is behind and turns left too."""
    recorded = real(CROSSING)
    traffic = replay_traffic(recorded, TrafficConfig())
    assert [recorded.names[car - 1] for car in np.flatnonzero(traffic.open_BVV[0, 0])] == ["520"]
    assert opponents(traffic)[0][0, 0] == recorded.names.index("520") + 1
    played = play(traffic, wish, 60)
    assert [recorded.names[car - 1] for car in np.flatnonzero(np.any(hits(played), axis=(0, 1)))] == hit
    assert (played[-1].arc_BV[0, 0] > recorded.goal_arc) == (wish is not stand)


@needs_data
@pytest.mark.parametrize("name", [HIGHWAY, CROSSING])
def test_a_replay_is_the_same_in_every_episode_and_whatever_is_wanted_of_recorded_cars(name: str) -> None:
    recorded = real(name)
    wish_B = np.array([2.0, -1.0, 0.0])
    together = play(replay_traffic(recorded, TrafficConfig(), 3), lambda _: wish_B, 70)
    for episode, wish in enumerate(wish_B):
        alone = play(replay_traffic(recorded, TrafficConfig()), lambda _, wish=wish: wish, 70)
        for one, other in zip(together, alone, strict=True):
            for field in ("line_BV", "arc_BV", "speed_BV", "acceleration_BV", "stood_BV", "poses_BV3", "here_BV"):
                assert getattr(one, field)[episode].tolist() == getattr(other, field)[0].tolist()
            assert one.arc_BV[episode, 1:].tolist() == one.arc_BV[0, 1:].tolist()


@needs_data
@pytest.mark.parametrize("name", [HIGHWAY, CROSSING])
def test_ticks_may_be_shorter_or_longer_than_steps(name: str) -> None:
    recorded = real(name)
    at_steps = play(replay_traffic(recorded, TrafficConfig()), go, 60)
    for tick_s, every in ((0.05, 2), (0.02, 5)):
        finer = play(replay_traffic(recorded, TrafficConfig(tick_s=tick_s)), go, 60 * every)
        for step, one in enumerate(at_steps):
            other = finer[every * step]
            assert other.here_BV.tolist() == one.here_BV.tolist()
            assert other.poses_BV3[:, 1:] == pytest.approx(one.poses_BV3[:, 1:], abs=1e-6)
            if step:
                both = one.here_BV & at_steps[step - 1].here_BV
                between = finer[every * step - 1].poses_BV3
                assert finer[every * step - 1].here_BV.tolist() == both.tolist()
                share = 1 / every
                mixed = at_steps[step - 1].poses_BV3 * share + one.poses_BV3 * (1 - share)
                assert between[both][1:] == pytest.approx(mixed[both][1:], abs=1e-6)
    coarser = play(replay_traffic(recorded, TrafficConfig(tick_s=0.2)), go, 30)
    for tick, one in enumerate(coarser):
        assert one.poses_BV3[:, 1:] == pytest.approx(at_steps[2 * tick].poses_BV3[:, 1:], abs=1e-6)


@needs_data
@pytest.mark.parametrize("name", [HIGHWAY, CROSSING])
def test_what_was_written_for_traffic_works_and_nobody_meets_a_car_that_is_not_there(name: str) -> None:
    for traffic in play(replay_traffic(real(name), TrafficConfig(), 2), give_way, 70)[::10]:
        gone_BV = ~traffic.here_BV
        assert np.isfinite(drivers_wish(traffic, DriversConfig())).all()
        assert drivers_say(traffic).shape == traffic.line_BV.shape
        assert not traffic.open_BVV[gone_BV].any() and not traffic.open_BVV.transpose(0, 2, 1)[gone_BV].any()
        assert not collisions(traffic)[gone_BV].any()
        assert (traffic.seconds_to_conflict_BVV[gone_BV] == NEVER_S).all()
        nearest_BV, open_BV = opponents(traffic)
        assert all(traffic.here_BV[b, nearest_BV[b, v]] for b, v in np.argwhere(open_BV))


# Made-up records


def scenario(
    cars: Sequence[tuple[str, ...]] = (),
    start: tuple[float, float] = (10.0, 0.0),
    goal: str = "<lanelet ref='2'/>",
    step_s: float = 0.1,
    lanelets: bool = True,
    problem: bool = True,
    extra: str = "",
) -> str:
    """A road to the east, of two lanelets of 100 m one behind the other, with the automated car on the first."""

    def bound(side: str, x: float, y: float) -> str:
        points = "".join(f"<point><x>{a}</x><y>{y}</y></point>" for a in (x, x + 50, x + 100))
        return f"<{side}Bound>{points}</{side}Bound>"

    road = "".join(
        f"<lanelet id='{number}'>{bound('left', x, 1.75)}{bound('right', x, -1.75)}{link}</lanelet>"
        for number, x, link in ((1, 0.0, "<successor ref='2'/>"), (2, 100.0, "<predecessor ref='1'/>"))
    )
    asks = (
        "<planningProblem id='900'><initialState>"
        f"{point(*start)}{exact(orientation=0.0, time=0, velocity=5.0, yawRate=0.0, slipAngle=0.0)}</initialState>"
        f"<goalState><position>{goal}</position><time><intervalStart>0</intervalStart>"
        "<intervalEnd>90</intervalEnd></time></goalState></planningProblem>"
    )
    return (
        f"<?xml version='1.0'?><commonRoad commonRoadVersion='2020a' benchmarkID='ZAM_Made-1_1_T-1' date='2026-01-01' "
        f"author='a' affiliation='b' source='c' timeStepSize='{step_s}'><location><geoNameId>0</geoNameId>"
        "<gpsLatitude>0</gpsLatitude><gpsLongitude>0</gpsLongitude></location><scenarioTags><urban/></scenarioTags>"
        f"{road if lanelets else ''}{''.join(map(''.join, cars))}{extra}{asks if problem else ''}</commonRoad>"
    )


def point(x: float, y: float) -> str:
    return f"<position><point><x>{x}</x><y>{y}</y></point></position>"


def exact(**values: float) -> str:
    return "".join(f"<{name}><exact>{value}</exact></{name}>" for name, value in values.items())


def car(number: int, places: np.ndarray, heading: float | np.ndarray = 0.0, first: int = 0, **values: float) -> str:
    """A car of 5 by 2 m at these places (S, 2), one a step."""
    headings = np.broadcast_to(heading, len(places))
    states = [
        f"{point(*place)}{exact(orientation=angle, time=first + step, **values)}"
        for step, (place, angle) in enumerate(zip(places.tolist(), headings.tolist(), strict=True))
    ]
    following = "".join(f"<state>{state}</state>" for state in states[1:])
    return (
        f"<dynamicObstacle id='{number}'><type>car</type><shape><rectangle><length>5.0</length><width>2.0</width>"
        f"</rectangle></shape><initialState>{states[0]}</initialState><trajectory>{following}</trajectory>"
        "</dynamicObstacle>"
    )


def east(x: float, y: float, speed: float, steps: int = 100) -> np.ndarray:
    """Places of a car that drives to the east."""
    return np.stack([x + speed * 0.1 * np.arange(steps), np.full(steps, y)], axis=1)


def made(tmp_path: Path, text: str | bytes, name: str = "made.xml") -> Recorded:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_recorded(path)


def test_a_made_up_record_is_read_as_it_was_made(tmp_path: Path) -> None:
    text = scenario([car(7, east(40, 0.5, 6.0), velocity=6.0, acceleration=0.0)])
    recorded = made(tmp_path, text)
    assert recorded.names == ("7",) and recorded.step_s == 0.1 and recorded.start_speed == 5.0
    assert recorded.route.length == pytest.approx(210) and recorded.start_arc == pytest.approx(20)
    assert recorded.goal_arc == pytest.approx(110, abs=0.3) and recorded.size_R2.tolist() == [[5.0, 2.0]]
    traffic = replay_traffic(recorded, TrafficConfig())
    assert np.diff(traffic.arc_BV[0] - traffic.scene.conflict_LL[[0, 1], [1, 0]])[0] == pytest.approx(30)
    circle = made(tmp_path, text.replace("<lanelet ref='2'/>", CIRCLE))
    assert circle.goal_arc == pytest.approx(58, abs=0.3)
    zipped = made(tmp_path, gzip.compress(text.encode()), "made.xml.gz")
    assert zipped.arc_TR.tolist() == recorded.arc_TR.tolist()


def test_speeds_and_accelerations_that_a_record_lacks_are_those_of_its_positions(tmp_path: Path) -> None:
    seconds = 0.1 * np.arange(60)
    places = np.stack([30 + 4 * seconds + seconds**2, np.zeros(60)], axis=1)
    recorded = made(tmp_path, scenario([car(7, places)]))
    assert recorded.speed_TR[1:-1, 0] == pytest.approx((4 + 2 * seconds)[1:-1])
    assert recorded.acceleration_TR[2:-2, 0] == pytest.approx(np.full(56, 2.0))


def test_the_automated_car_stops_behind_a_parked_one(tmp_path: Path) -> None:
    parked = car(8, east(70, 0.8, 0.0, 1)).replace("dynamicObstacle", "staticObstacle")
    parked = parked.replace("<trajectory></trajectory>", "").replace("<type>car", "<type>parkedVehicle")
    recorded = made(tmp_path, scenario([car(7, east(60, 6.0, 8.0, 200)), parked]))
    played = play(replay_traffic(recorded, TrafficConfig()), go, 190)
    assert not np.any(hits(played)) and played[-1].speed_BV[0, 0] < 0.1
    gap_m = 70 - played[-1].poses_BV3[0, 0, 0] - (5.0 + 4.8) / 2
    assert 1 < gap_m < 4


def test_a_car_that_leaves_the_lane_and_comes_back_is_followed_both_times(tmp_path: Path) -> None:
    x = 30 + 0.5 * np.arange(300)
    bump = np.where((x > 50) & (x < 90), np.sin((x - 50) / 40 * np.pi) ** 2, 0.0)
    ends = []
    for aside_m, lines in ((0.0, 2), (4.0, 3)):
        y = aside_m * bump
        places, heading = np.stack([x, y], axis=1), np.arctan2(np.gradient(y), np.gradient(x))
        recorded = made(tmp_path, scenario([car(7, places, heading)]))
        traffic = replay_traffic(recorded, TrafficConfig(top_speed=6.0))
        assert len(traffic.scene.lines) == lines
        played = play(traffic, go, 290)
        used = [int(one.line_BV[0, 1]) for one in played]
        assert set(used) == set(range(1, lines)) and used == sorted(used)
        assert not np.any(hits(played))
        assert played[-1].speed_BV[0, 0] == pytest.approx(5, abs=0.2)
        ends.append([one.poses_BV3[0, 0, 0] for one in played])
    away = int(np.argmax(x > 85))
    assert ends[1][away] > ends[0][away] + 1  # it closed up while nobody was in front
    assert ends[1][-1] == pytest.approx(ends[0][-1], abs=0.5)


def test_a_crossing_car_conflicts_where_the_ways_cross_and_only_while_it_is_there(tmp_path: Path) -> None:
    north = np.stack([np.full(60, 60.0), -20 + 0.8 * np.arange(60)], axis=1)
    recorded = made(tmp_path, scenario([car(7, north, np.pi / 2, first=10)]))
    played = play(replay_traffic(recorded, TrafficConfig()), give_way, 120)
    assert [one.here_BV[0, 1] for one in played] == [10 <= tick < 70 for tick in range(121)]
    assert not played[0].open_BVV.any() and played[10].open_BVV[0, 0, 1]
    assert played[10].to_conflict_BVV[0, 1, 0] == pytest.approx(20, abs=0.3)
    assert played[10].to_conflict_BVV[0, 0, 1] + played[10].poses_BV3[0, 0, 0] == pytest.approx(60, abs=0.3)
    assert not np.any(hits(played))
    over = next(tick for tick in range(10, 70) if not played[tick].open_BVV[0, 0, 1])
    assert played[over].poses_BV3[0, 1, 1] == pytest.approx(3, abs=1)


def test_a_recorded_car_that_is_faster_than_the_top_speed_is_taken_to_stay_so(tmp_path: Path) -> None:
    north = np.stack([np.full(40, 60.0), -50 + 1.5 * np.arange(40)], axis=1)
    recorded = made(tmp_path, scenario([car(7, north, np.pi / 2, velocity=15.0, acceleration=1.0)]))
    traffic = replay_traffic(recorded, TrafficConfig())
    assert traffic.config.top_speed < 15 and traffic.seconds_to_conflict_BVV[0, 1, 0] == pytest.approx(
        50 / 15, abs=0.02
    )


@given(st.floats(-1.5, 1.5), st.floats(20, 160), st.floats(1.0, 2.5))
def test_a_line_beside_a_route_shares_it_if_and_only_if_it_is_within_reach(
    aside: float, start: float, reach: float
) -> None:
    assume(abs(abs(aside) - reach) > 1e-6)
    route = make_route([(0, 0), (200, 0)])
    for offset in (aside, aside + 4):
        line = make_route([(start, offset), (start + 30, offset)])
        found = stretches(route, line, reach)
        assert len(found) == (abs(offset) <= reach)
        for one in found:
            assert one.on_line == 0 and one.on_route == pytest.approx(start)
            assert one.shared == pytest.approx(30, abs=0.3) == one.end
            assert start - reach - 0.8 <= one.near_route <= start


@given(st.floats(50, 130), st.floats(60, 120))
def test_a_line_across_a_route_conflicts_where_they_cross(degrees: float, where: float) -> None:
    way = np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])
    centre = np.array([where, 0.0])
    (one,) = stretches(make_route([(0, 0), (200, 0)]), make_route([centre - 40 * way, centre + 30 * way]), 2.0)
    assert one.on_line == pytest.approx(40, abs=0.3) and one.on_route == pytest.approx(where, abs=0.3)
    assert one.shared == 0 and one.near_line < 38.5 and one.near_route < where - 1.5


# Bad files

MOVES = car(7, east(40, 0.0, 6.0, 30))
CIRCLE = "<circle><radius>2</radius><center><x>50</x><y>0</y></center></circle>"
LATE = "<time><exact>60</exact></time><velocity>"
BOMB = "<!DOCTYPE c [<!ENTITY a 'x'><!ENTITY b '&a;&a;&a;'>]>"
GOOD = scenario([MOVES])
TURNED = "<orientation><exact>0.0</exact></orientation>"
BAD: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "not XML"),
    "other text": ('{"cars": []}', "not XML"),
    "other XML": ("<osm><node/></osm>", "root of the XML is osm"),
    "cut short": (GOOD[: len(GOOD) // 2], "cut short or damaged, line 1"),
    "zipped and cut short": (gzip.compress(GOOD.encode())[:300], "gzipped file is cut short"),
    "zipped badly": (b"\x1f\x8b rubbish", "cannot be read"),
    "entities": (GOOD.replace("?>", f"?>{BOMB}"), "declares a document type"),
    "entities in another encoding": (GOOD.replace("?>", f"?>{BOMB}").encode("utf-16"), "declares a document type"),
    "another version": (GOOD.replace("2020a", "1999x"), "not a complete CommonRoad scenario"),
    "numbers that are none": (GOOD.replace("<x>40.0</x>", "<x>far</x>"), "not a complete CommonRoad scenario"),
    "an angle without end": (GOOD.replace(TURNED, TURNED.replace("0.0", "1e999"), 1), "orientation of 1e999 radians"),
    "an angle beyond rounding": (GOOD.replace(TURNED, TURNED.replace("0.0", "9" * 60), 1), "orientation of 9999"),
    "no lanelets": (scenario([MOVES], lanelets=False, goal=CIRCLE), "has no lanelets"),
    "no cars": (scenario(), "no car of the scenario moves"),
    "cars that stand": (scenario([car(7, east(40, 0.0, 0.0))]), "no car of the scenario moves"),
    "no planning problem": (scenario([MOVES], problem=False), "no planning problem"),
    "a start beside the road": (scenario([MOVES], start=(10.0, 9.0)), "no lane at"),
    "a goal behind the start": (
        scenario([MOVES], start=(150.0, 0.0), goal="<lanelet ref='1'/>"),
        "no route to the goal",
    ),
    "a goal that is no place": (GOOD.replace("<position><lanelet ref='2'/></position>", ""), "is no place"),
    "a car that goes backwards": (scenario([car(7, east(90, 0.0, -6.0, 30))]), "goes|off a line"),
    "missing steps": (
        GOOD.replace("<time><exact>5</exact></time>", "<time><exact>55</exact></time>"),
        "some of its steps",
    ),
    "an uncertain place": (
        GOOD.replace("<point><x>43.0</x><y>0.0</y></point>", "<circle><radius>2</radius></circle>"),
        "is uncertain",
    ),
    "steps of no length": (scenario([MOVES], step_s=0.0), "steps of 0 s"),
    "steps without end": (scenario([car(7, east(40, 0.0, 6.0, 30), first=10**9)]), "a record of 1000000030 steps"),
    "cars that are gone when it starts": (
        GOOD.replace("<time><exact>0</exact></time><velocity>", LATE),
        "car .* moves",
    ),
    "an uncertain start": (
        GOOD.replace("<point><x>10.0</x><y>0.0</y></point>", "<circle><radius>2</radius></circle>"),
        "where the automated car starts is uncertain",
    ),
    "a place that is no number": (GOOD.replace("<x>43.0</x>", "<x>nan</x>"), "uncertain|not a complete"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_refused_by_name_with_what_to_do(kind: str, tmp_path: Path) -> None:
    text, says = BAD[kind]
    with pytest.raises(InputError, match=says) as refused:
        made(tmp_path, text)
    assert str(tmp_path / "made.xml") in refused.value.where and refused.value.fix


def test_a_missing_file_and_a_start_above_top_speed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read") as refused:
        read_recorded(tmp_path / "none.xml")
    assert "none.xml" in refused.value.where
    with pytest.raises(ConfigError, match=r"5\.0 m/s, faster than top_speed 4"):
        replay_traffic(made(tmp_path, GOOD), TrafficConfig(top_speed=4.0))
