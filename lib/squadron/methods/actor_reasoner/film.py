"""Episodes from above with the thoughts beside, and as distances over time."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from squadron.core.panels import Curves, Film, Series
from squadron.core.run import Stage
from squadron.core.work import take_turns
from squadron.evaluate.scores import Scores
from squadron.methods.actor_reasoner.algorithm import ACCELERATIONS, ACTIONS
from squadron.methods.actor_reasoner.benchmark import FULL, World, contestant
from squadron.methods.actor_reasoner.config import EvaluationConfig
from squadron.methods.actor_reasoner.episodes import Track
from squadron.methods.actor_reasoner.policy import UNTHOUGHT
from squadron.methods.actor_reasoner.prompts import INTENTIONS, Thought
from squadron.sim.driving.spec import STYLES
from squadron.sim.film import film, store_film

CAPTION = (
    "Blue: the automated car; what it thinks of the driver, decides and shows. Orange: the driver, whose style it "
    "cannot see. Twice as fast as in life."
)
_SIDE_PX, _TEXT_PX, _REACH_M, _EVERY = 420, 330, 42.0, 2
_PAPER, _ROAD, _INK = (250, 250, 248), (214, 217, 222), (40, 44, 52)
_OWN, _OTHER, _HIT = (44, 123, 182), (230, 120, 30), (214, 39, 40)


def show(stage: Stage, world: World, memories: str, config: EvaluationConfig, scores: Scores) -> None:
    """Film the first collision, if there is one, and then the closest episodes; and draw where cars were when."""
    drives = contestant(world, memories)
    close, collided = (scores.of(FULL.name, metric).ravel() for metric in ("encroachment_s", "collided"))
    order = np.lexsort((np.arange(len(close)), np.where(np.isnan(close), np.inf, close), -collided))
    for place, episode in enumerate(order[: config.filmed].tolist(), 1):
        track, trail = drives.drive_one(episode)
        name = store_film(stage.folder, f"episode-{place}", film_track(track, trail))
        stage.show(Film(title=f"Episode {episode}, {world.scene}", file=name, caption=CAPTION))
        stage.show(over_time(track, f"Episode {episode}, {world.scene}: to the conflict over time"))


def film_track(track: Track, trail: Sequence[Thought]) -> bytes:
    """The first episode of a track as a film, twice as fast as in life."""
    return film(frames(track, trail), fps=2 / (_EVERY * track.traffic.config.tick_s))


def over_time(track: Track, title: str) -> Curves:
    """Metres to the conflict against time, of the automated car and of each other: whose line is below 0 first went
    first."""
    traffic = track.traffic
    seconds = (np.arange(len(track.arc_TBV)) * traffic.config.tick_s).tolist()
    conflict_VV = traffic.scene.conflict_LL[traffic.line_BV[0][:, None], traffic.line_BV[0]]
    series = []
    for other in range(1, conflict_VV.shape[0]):
        if np.isfinite(conflict_VV[0, other]):
            own, theirs = (
                conflict_VV[0, other] - track.arc_TBV[:, 0, 0],
                conflict_VV[other, 0] - track.arc_TBV[:, 0, other],
            )
            number = "" if conflict_VV.shape[0] == 2 else f" {other}"
            series.append(Series(name=f"automated car{number}", x=seconds, y=own))
            series.append(Series(name=f"{STYLES[traffic.style_BV[0, other]]} driver{number}", x=seconds, y=theirs))
    return Curves(title=title, x_label="time [s]", y_label="to the conflict [m]", series=series)


def frames(track: Track, trail: Sequence[Thought]) -> list[np.ndarray]:
    """The first episode of a track from above, a picture every other tick, with what was thought, decided and shown
    beside."""
    traffic = track.traffic
    middle = traffic.scene.at(
        traffic.line_BV[0, 0], traffic.scene.conflict_LL[traffic.line_BV[0, 0], traffic.line_BV[0, 1]]
    )
    road = _road(traffic, middle[:2])
    font = ImageFont.load_default(15)
    pictures = []
    for tick in range(0, len(track.wanted_TB), _EVERY):
        take_turns()
        image = road.copy()
        pen = ImageDraw.Draw(image)
        poses_V3 = traffic.scene.at(traffic.line_BV[0], track.arc_TBV[tick + 1, 0])
        hit = bool(track.collided_TB[tick, 0])
        for car, (x, y, heading) in enumerate(poses_V3.tolist()):
            colour = _HIT if hit and car == 0 else _OWN if car == 0 else _OTHER
            pen.polygon(_corners(x, y, heading, traffic.config.length_m, traffic.config.width_m, middle), fill=colour)
        pen.rectangle((_SIDE_PX, 0, _SIDE_PX + _TEXT_PX, _SIDE_PX), fill=_PAPER)
        pen.multiline_text((_SIDE_PX + 14, 20), _words(track, tick, trail[tick]), fill=_INK, font=font, spacing=8)
        pictures.append(np.asarray(image))
    return pictures


def _words(track: Track, tick: int, thought: Thought) -> str:
    wanted = float(track.wanted_TB[tick, 0])
    decision = ACTIONS[int(np.abs(ACCELERATIONS - wanted).argmin())]
    speeds = track.speed_TBV[tick + 1, 0]
    lines = [
        f"{tick * track.traffic.config.tick_s:.1f} s",
        "",
        f"automated car: {speeds[0]:.1f} m/s",
        f"decides: {decision}",
    ]
    lines += [f"display: {track.display_TB[tick, 0] or 'nothing'}", ""]
    thinks = f"{STYLES[thought.style]} driver, will {INTENTIONS[thought.intention].lower()}"
    lines += [f"thinks: {'nothing yet' if thought is UNTHOUGHT else thought.error or thinks}", ""]
    for other in range(1, len(speeds)):
        lines.append(f"in truth: {STYLES[track.traffic.style_BV[0, other]]} driver: {speeds[other]:.1f} m/s")
    return "\n".join(part for line in lines for part in textwrap.wrap(line, 38) or [""])


def _road(traffic: Any, middle: np.ndarray) -> Image.Image:
    image = Image.new("RGB", (_SIDE_PX + _TEXT_PX, _SIDE_PX), _PAPER)
    pen = ImageDraw.Draw(image)
    scale = _SIDE_PX / (2 * _REACH_M)
    for line in traffic.scene.lines:
        width = int(3.4 * scale)
        places = [_pixel(x, y, middle) for x, y in line.at(np.arange(0, line.length, 0.5)).tolist()]
        pen.line(places, fill=_ROAD, width=width, joint="curve")
    for own in {int(one) for one in traffic.line_BV[0]}:
        route = traffic.scene.lines[own]
        places = [_pixel(x, y, middle) for x, y in route.at(np.arange(0, route.length, 0.5)).tolist()]
        pen.line(places, fill=(180, 184, 190), width=2)
    return image


def _corners(
    x: float, y: float, heading: float, length_m: float, width_m: float, middle: np.ndarray
) -> list[tuple[float, float]]:
    along, across = np.array([np.cos(heading), np.sin(heading)]), np.array([-np.sin(heading), np.cos(heading)])
    corners = [
        np.array([x, y]) + a * length_m / 2 * along + b * width_m / 2 * across
        for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))
    ]
    return [_pixel(float(corner[0]), float(corner[1]), middle) for corner in corners]


def _pixel(x: float, y: float, middle: np.ndarray) -> tuple[float, float]:
    scale = _SIDE_PX / (2 * _REACH_M)
    return _SIDE_PX / 2 + (x - middle[0]) * scale, _SIDE_PX / 2 - (y - middle[1]) * scale
