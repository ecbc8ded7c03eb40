"""Recorded traffic: cars of a CommonRoad file drive as they did, and the automated one drives a route of the map.

What a replay cannot do: recorded drivers do not react. They drive as if the automated car were not there, and into it
if it is slower than the car that they had in front of them.

Letters: R recorded cars, T steps of the record, S steps of one car, L lines.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat

import numpy as np
import shapely

from squadron.core.errors import ConfigError, InputError
from squadron.core.outside import read_content
from squadron.sim.driving.lanelets import Lanelet, way_to_goal
from squadron.sim.driving.scenes import Scene
from squadron.sim.driving.spec import TrafficConfig
from squadron.sim.driving.stretches import conflicts_with, stretches
from squadron.sim.driving.traffic import Replay, Traffic, as_recorded
from squadron.sim.routes import Route, make_route

OFF_LINE_M = 0.5
"""How far a replayed car may be from where it was recorded; a file with a car that is further off is refused."""
_MOST_STEPS = 100_000
_MOST_RADIANS = 1000.0
_STEP_M, _BEFORE_M, _BEHIND_M = 0.5, 10.0, 1.0
_MOVES_M = 2.0


@dataclass(frozen=True, eq=False)
class Recorded:
    """What a file says. `route` is the automated car's: it starts at `start_arc` with `start_speed`, at step 0, and is
    at its goal from `goal_arc` on. `here_TR` says when recorded cars are there, and `pose_TR3` x, y and heading as the
    file has them, the first or the last while they are not. `lines` are what they drove, a little longer at both ends,
    `arc_TR` is how far along them they were. `size_R2` is their length and width."""

    name: str
    step_s: float
    route: Route
    start_arc: float
    start_speed: float
    goal_arc: float
    names: tuple[str, ...]
    lines: tuple[Route, ...]
    here_TR: np.ndarray
    pose_TR3: np.ndarray
    arc_TR: np.ndarray
    speed_TR: np.ndarray
    acceleration_TR: np.ndarray
    size_R2: np.ndarray


class _Track(NamedTuple):
    """A car from its first step on."""

    name: str
    size: tuple[float, float]
    first: int
    pose_S3: np.ndarray
    speed_S: np.ndarray
    acceleration_S: np.ndarray


def replay_traffic(recorded: Recorded, config: TrafficConfig, episodes: int = 1) -> Traffic:
    """The start of `episodes` equal episodes, in which `drive` moves the automated car and sets the others to where the
    record has them. Between ticks and steps of different lengths cars are interpolated.

    Recorded cars keep the sizes that they have in the file, the automated one has that of the configuration. They
    have no style (-1). A car that would touch the automated one where they drive side by side is on its lane: the
    automated car keeps its distance behind it, and they conflict where it comes onto the lane. A car that never comes
    so close to the route can be collided with but has no conflict; recorded cars have none with each other.

    Raises ConfigError if the automated car was recorded faster than its top speed.
    """
    if recorded.start_speed > config.top_speed:
        raise ConfigError(
            f"the automated car starts at {recorded.start_speed:.1f} m/s, faster than top_speed {config.top_speed:g}",
            where=recorded.name,
            fix=f"set top_speed to {np.ceil(recorded.start_speed):g} or more",
        )
    scene, line_TR = _scene(recorded, config.width_m)
    shape = (episodes, len(recorded.lines) + 1)
    line_BV, arc_BV, speed_BV = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape)
    arc_BV[:, 0], speed_BV[:, 0] = recorded.start_arc, recorded.start_speed
    traffic = Traffic(scene, config, line_BV, np.full(shape, -1), arc_BV, speed_BV, np.zeros(shape), np.zeros(shape))
    motion = (line_TR, recorded.arc_TR, recorded.speed_TR, recorded.acceleration_TR)
    replay = Replay(recorded.step_s, recorded.here_TR, recorded.pose_TR3, *motion, recorded.size_R2)
    return as_recorded(traffic, replay)


def _scene(recorded: Recorded, own_width_m: float) -> tuple[Scene, np.ndarray]:
    """The automated car's route and the lines of the others, and which line each car is on (T, R). A car has a line for
    each time that it comes onto the route, and is on the first of them that is not over."""
    lines, names, entrances, found = [recorded.route], ["the automated car's"], [0], []
    line_TR = np.zeros(recorded.arc_TR.shape, np.int64)
    for car, line in enumerate(recorded.lines):
        reach = (own_width_m + recorded.size_R2[car, 1]) / 2
        times = stretches(recorded.route, line, reach)
        ends = np.array([one.end for one in times[:-1]])
        line_TR[:, car] = len(lines) + np.searchsorted(ends, recorded.arc_TR[:, car])
        found += [(len(lines) + place, one) for place, one in enumerate(times)]
        copies = max(len(times), 1)
        lines += [line] * copies
        names += [f"recorded car {recorded.names[car]}"] * copies
        entrances += [car + 1] * copies
    return Scene(tuple(lines), tuple(names), np.array(entrances), 0, conflicts_with(len(lines), found)), line_TR


def read_recorded(path: Path | str) -> Recorded:
    """A scenario of CommonRoad (2018b or 2020a, gzipped or plain), with its first planning problem. Speeds and
    accelerations are the file's, and differences of positions where it has none. Parked cars are recorded cars too.

    Raises InputError if the file is missing, cut short or no such scenario, declares a document type (which could make
    it grow without bounds), or has no lanelets, no car that moves, no planning problem, or no route to its goal along
    the lanes; if states are uncertain, missing or beyond a hundred thousand steps; or if a car is further than
    `OFF_LINE_M` from a line along which it only goes forward.
    """
    try:
        scenario, problems = _parsed(Path(path))
        lanelets = _lanelets(scenario.lanelet_network.lanelets)
        if not lanelets:
            raise InputError("the scenario has no lanelets", fix="take one with a map")
        if not problems:
            raise InputError("the scenario has no planning problem", fix="take one that says where the car is to go")
        if not 0 < scenario.dt < np.inf:
            raise InputError(f"steps of {scenario.dt:g} s", fix="check timeStepSize of the scenario")
        begin, own_speed = _start(problems[0].initial_state)
        route, start, goal = _route(lanelets, problems[0])
        tracks = [_track(car, scenario.dt) for car in scenario.dynamic_obstacles]
        if not any(_moves(track, begin) for track in tracks):
            raise InputError("no car of the scenario moves", fix="take one with recorded traffic")
        steps = max(track.first + len(track.pose_S3) for track in tracks) - begin
        if steps > _MOST_STEPS:
            raise InputError(f"a record of {steps} steps", fix=f"take one of at most {_MOST_STEPS}")
        tracks += [_parked(car, begin, steps) for car in scenario.static_obstacles]
        columns = [_columns(track, begin, steps) for track in tracks]
    except InputError as error:
        raise InputError(error.what, where=str(path), fix=error.fix) from None
    here_TR, pose_TR3, arc_TR, speed_TR, acceleration_TR = (
        np.stack(values, axis=1) for values in zip(*(values for _, values in columns), strict=True)
    )
    return Recorded(
        name=str(scenario.scenario_id),
        step_s=float(scenario.dt),
        route=route,
        start_arc=start,
        start_speed=own_speed,
        goal_arc=goal,
        names=tuple(track.name for track in tracks),
        lines=tuple(line for line, _ in columns),
        here_TR=here_TR,
        pose_TR3=pose_TR3,
        arc_TR=arc_TR,
        speed_TR=speed_TR,
        acceleration_TR=acceleration_TR,
        size_R2=np.array([track.size for track in tracks]),
    )


def _parsed(path: Path) -> tuple[Any, list[Any]]:
    """The scenario and its planning problems as commonroad-io reads them, once the file is known to be harmless."""
    content = read_content(path)
    _check_xml(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its own imports, and signs that nobody drives by here
            from commonroad.common.file_reader import CommonRoadFileReader

            scenario, problems = CommonRoadFileReader(io.BytesIO(content)).open()
    except Exception as error:  # of what is missing or wrong the reader raises anything, bare assertions among it
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"not a complete CommonRoad scenario ({reason})", fix="give a file of version 2018b or 2020a"
        ) from None
    return scenario, list(problems.planning_problem_dict.values())


def _check_xml(content: bytes) -> None:
    """Raises InputError unless these bytes are whole XML with the root of CommonRoad, no document type, and angles that
    are some: the reader turns them by one full turn at a time, and so for ever where a turn is less than rounding."""
    roots: list[str] = []
    angle: list[str] = []

    def starts(name: str, attributes: Mapping[str, str]) -> None:
        if not roots:
            roots.append(name)
        if name == "orientation":
            angle.clear()
            parser.CharacterDataHandler = angle.append

    def ends(name: str) -> None:
        if parser.CharacterDataHandler is None:
            return
        _check_angle("".join(angle))
        angle.clear()
        if name == "orientation":
            parser.CharacterDataHandler = None

    def refuses(*_: object) -> None:
        raise InputError(
            "declares a document type, which scenarios do not need and which can make a small file enormous",
            fix="remove <!DOCTYPE …>, if you trust the file",
        )

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.StartDoctypeDeclHandler = starts, ends, refuses
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        line = f"line {error.lineno}: {expat.ErrorString(error.code)}"
        if roots == ["commonRoad"]:
            raise InputError(f"the XML is cut short or damaged, {line}", fix="fetch the file again") from None
        raise InputError(f"not XML, {line}", fix="give a CommonRoad scenario") from None
    if roots != ["commonRoad"]:
        raise InputError(f"the root of the XML is {roots[0]}, not commonRoad", fix="give a CommonRoad scenario")


def _check_angle(text: str) -> None:
    try:
        turned = abs(float(text))
    except ValueError:  # nothing, or what the reader itself refuses
        return
    if turned > _MOST_RADIANS:
        what = f"an orientation of {text.strip():.40} radians"
        raise InputError(what, fix="give angles between -2 pi and 2 pi")


def _lanelets(given: list[Any]) -> dict[int, Lanelet]:
    numbers = {one.lanelet_id for one in given}
    return {
        one.lanelet_id: Lanelet(
            make_route(one.center_vertices, f"the centre line of lanelet {one.lanelet_id}"),
            shapely.Polygon(np.concatenate([one.left_vertices, one.right_vertices[::-1]])),
            tuple(number for number in one.predecessor if number in numbers),
            tuple(number for number in one.successor if number in numbers),
        )
        for one in given
    }


def _route(lanelets: dict[int, Lanelet], problem: Any) -> tuple[Route, float, float]:
    """The automated car's line, longer behind its start, and where on it the car starts and its goal begins."""
    places = [state.position for state in problem.goal.state_list if hasattr(state, "position")]
    if not places:
        raise InputError("the goal of the planning problem is no place", fix="take a scenario whose goal is on the map")
    region = shapely.union_all([_region(place) for place in places])
    named = problem.goal.lanelets_of_goal_position or {}
    goals = {number for numbers in named.values() for number in numbers}
    goals |= {
        number
        for number, lanelet in lanelets.items()
        if not named and shapely.LineString(lanelet.centre.points_P2).intersects(region)
    }
    state = problem.initial_state
    way, start, goal = way_to_goal(lanelets, state.position, state.orientation, region, goals)
    back_2 = way.at(0.0) - way.at(1.0)
    route = make_route(np.vstack([way.at(0.0) + _BEFORE_M * back_2 / np.linalg.norm(back_2), way.points_P2]))
    return route, start + _BEFORE_M, goal + _BEFORE_M


def _region(place: Any) -> shapely.Geometry:
    shapes = getattr(place, "shapes", [place])
    return shapely.union_all([_outline(shape) for shape in shapes])


def _outline(shape: Any) -> shapely.Geometry:
    if hasattr(shape, "radius"):  # whose own geometry has half of it
        return shapely.Point(shape.center).buffer(shape.radius)
    return shapely.make_valid(shape.shapely_object)


def _start(state: Any) -> tuple[int, float]:
    """The step and the speed at which the automated car starts."""
    _poses("the automated car starts", [state])
    speed = _number(getattr(state, "velocity", None))
    if not isinstance(state.time_step, int) or not np.isfinite(speed):
        raise InputError(
            "when or how fast the automated car starts is uncertain", fix="take a scenario with an exact start"
        )
    return state.time_step, speed


def _track(car: Any, step_s: float) -> _Track:
    """A moving obstacle of the file. Raises InputError if it is uncertain where it was."""
    name, fix = str(car.obstacle_id), "take a scenario with recorded trajectories"
    if not hasattr(car.prediction, "trajectory"):
        raise InputError(f"car {name} has no trajectory", fix=fix)
    states = [car.initial_state, *car.prediction.trajectory.state_list]
    steps = [state.time_step for state in states]
    if steps != list(range(steps[0], steps[0] + len(steps))):
        raise InputError(f"car {name} has no state for some of its steps, or in another order", fix=fix)
    pose_S3 = _poses(f"car {name} was", states)
    pose_S3[:, 2] = np.unwrap(pose_S3[:, 2])
    speed_S, acceleration_S = (
        np.array([_number(getattr(state, key, None)) for state in states]) for key in ("velocity", "acceleration")
    )
    moved_S = np.linalg.norm(np.gradient(pose_S3[:, :2], axis=0), axis=1) / step_s
    speed_S = np.where(np.isfinite(speed_S), speed_S, moved_S)
    acceleration_S = np.where(np.isfinite(acceleration_S), acceleration_S, np.gradient(speed_S) / step_s)
    return _Track(name, _size(name, car.obstacle_shape), steps[0], pose_S3, speed_S, acceleration_S)


def _parked(car: Any, first: int, steps: int) -> _Track:
    name = str(car.obstacle_id)
    pose_S3 = np.repeat(_poses(f"car {name} stands", [car.initial_state]), steps, axis=0)
    return _Track(name, _size(name, car.obstacle_shape), first, pose_S3, np.zeros(steps), np.zeros(steps))


def _moves(track: _Track, begin: int) -> bool:
    """Whether a car moves once the automated one has started."""
    places_S2 = track.pose_S3[max(begin - track.first, 0) :, :2]
    return len(places_S2) > 0 and bool(np.ptp(places_S2, axis=0).max() > _MOVES_M)


def _poses(what: str, states: list[Any]) -> np.ndarray:
    exact = [isinstance(state.position, np.ndarray) and isinstance(state.orientation, float) for state in states]
    pose_S3 = np.array([[*state.position, state.orientation] for state in states]) if all(exact) else np.array(np.nan)
    if not np.isfinite(pose_S3).all():
        raise InputError(f"where {what} is uncertain", fix="take a scenario with exact positions")
    return pose_S3


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def _size(name: str, shape: Any) -> tuple[float, float]:
    """Length and width of a rectangle, of a circle, or of the box around a polygon."""
    if hasattr(shape, "length"):
        return float(shape.length), float(shape.width)
    if hasattr(shape, "radius"):
        return 2 * float(shape.radius), 2 * float(shape.radius)
    if hasattr(shape, "vertices"):
        length, width = np.ptp(shape.vertices, axis=0)
        return float(length), float(width)
    raise InputError(f"car {name} is of several shapes", fix="take a scenario whose cars are rectangles")


def _columns(track: _Track, begin: int, steps: int) -> tuple[Route, tuple[np.ndarray, ...]]:
    """A car's line, and whether it is there, poses, arc lengths, speeds and accelerations at the steps of the record
    (T, …)."""
    line, arc_S = _driven(track)
    step_T = np.arange(begin, begin + steps) - track.first
    there_T = (step_T >= 0) & (step_T < len(arc_S))
    at_T = np.clip(step_T, 0, len(arc_S) - 1)
    motion = (np.where(there_T, values_S[at_T], 0.0) for values_S in (track.speed_S, track.acceleration_S))
    return line, (there_T, track.pose_S3[at_T], arc_S[at_T], *motion)


def _driven(track: _Track) -> tuple[Route, np.ndarray]:
    """The line that a car drove, straight on at both ends, and how far along it was (S).

    Corners are places half a metre or more ahead of the one before: cars that stand seem to shake in records.
    """
    place_S2 = track.pose_S3[:, :2]
    ahead_S2 = np.stack([np.cos(track.pose_S3[:, 2]), np.sin(track.pose_S3[:, 2])], axis=1)
    corners = [0]
    for step in range(1, len(place_S2)):
        if (place_S2[step] - place_S2[corners[-1]]) @ ahead_S2[step] >= _STEP_M:
            corners.append(step)
    start_2 = place_S2[0] - _BEFORE_M * ahead_S2[0]
    line = make_route(np.vstack([start_2, place_S2[corners], place_S2[corners[-1]] + _BEHIND_M * ahead_S2[-1]]))
    arc_S = np.maximum.accumulate(
        shapely.line_locate_point(shapely.LineString(line.points_P2), shapely.points(place_S2))
    )
    off = np.linalg.norm(line.at(arc_S) - place_S2, axis=1).max()
    if off > OFF_LINE_M:
        raise InputError(
            f"car {track.name} is {off:.1f} m off a line on which it only goes forward",
            fix="take a scenario in which no car goes backwards",
        )
    return line, arc_S
