"""Decisions over HTTP: `POST /v1/act` is the Actor, who answers from memory at once; `POST /v1/think` is the Reasoner;
`POST /v1/watch` shows both at the wheel.

A car asks for a thought now and then, and sends the last one that it has with every request to act.

Letters: B cars that ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.run_reader import outputs, settings
from squadron.methods.actor_reasoner.algorithm import ACCELERATIONS, ACTIONS, ActionName, View, how_safe
from squadron.methods.actor_reasoner.config import ActorReasonerConfig
from squadron.methods.actor_reasoner.prompts import INTENTIONS, Intention, Situation, Thought
from squadron.methods.actor_reasoner.records import Memories, ReasonerModel
from squadron.serve.rollout_video import WatchAnswer, WatchRequest, watch_answer, watch_route
from squadron.serve.service import Route, Service, Services
from squadron.sim.driving.spec import STYLES, SceneName, Style
from squadron.sim.driving.traffic import time_to

if TYPE_CHECKING:
    from squadron.methods.actor_reasoner.benchmark import Contestant, World
    from squadron.methods.actor_reasoner.memory import Memory
    from squadron.methods.actor_reasoner.reasoner import Reasoner

_FARTHEST_M, _FASTEST, _HARDEST = 10_000.0, 100.0, 20.0
_LONGEST_TEXT, _MOST_CARS = 200, 256
_COLUMNS = ("own_m", "own_speed", "own_acceleration", "other_m", "other_speed", "other_acceleration")


class Meeting(Config):
    """A car and the one that it meets next: metres to where their ways cross (negative: past it), m/s and m/s²."""

    own_m: float = Field(ge=-_FARTHEST_M, le=_FARTHEST_M)
    own_speed: float = Field(ge=0, le=_FASTEST)
    own_acceleration: float = Field(0.0, ge=-_HARDEST, le=_HARDEST)
    other_m: float = Field(ge=-_FARTHEST_M, le=_FARTHEST_M)
    other_speed: float = Field(ge=0, le=_FASTEST)
    other_acceleration: float = Field(0.0, ge=-_HARDEST, le=_HARDEST)
    said: str = Field("", max_length=_LONGEST_TEXT, description="what the driver says")


class DriverThought(Config):
    """What the Reasoner thinks of a driver, and what the car's display is to show it."""

    style: Style
    intention: Intention
    decision: ActionName
    display: str = Field("", max_length=_LONGEST_TEXT)
    unreadable: bool = Field(False, description="no thought of the model's, but the careful one in its place")


class ActingCar(Meeting):
    """A car that must decide now."""

    thought: DriverThought | None = Field(None, description="the last one about this driver; none yet: the careful one")


class ActRequest(Config):
    """Cars that must decide now."""

    scene: SceneName | None = Field(None, description="whose memories are asked; else the first of the run")
    cars: tuple[ActingCar, ...] = Field(min_length=1, max_length=_MOST_CARS)


class CarAction(Config):
    """What to do, and the acceleration that it means, in m/s²."""

    action: ActionName
    acceleration: float


class ActAnswer(Config):
    """What each car does."""

    cars: tuple[CarAction, ...]


class ThinkingCar(Meeting):
    """A car to think about, with what its driver did so far: what is left out is as it is now."""

    slowest: float | None = Field(None, ge=0, le=_FASTEST, description="the driver's lowest speed so far")
    before_speed: float | None = Field(None, ge=0, le=_FASTEST, description="of the driver, a second ago")
    before_m: float | None = Field(None, ge=-_FARTHEST_M, le=_FARTHEST_M, description="of the driver, a second ago")
    stood_s: float = Field(0.0, ge=0, le=_FARTHEST_M)
    last: ActionName = Field("IDLE", description="the car's last decision")
    display: str = Field("", max_length=_LONGEST_TEXT, description="what the car's display shows now")


class ThinkRequest(Config):
    """Cars to think about."""

    scene: SceneName | None = Field(None, description="else the first of the run")
    cars: tuple[ThinkingCar, ...] = Field(min_length=1, max_length=_MOST_CARS)


class ThinkAnswer(Config):
    """What is thought of each driver."""

    cars: tuple[DriverThought, ...]


def services(folder: Folder) -> Services:
    """The Actor and the Reasoner of a run, behind one address. Raises InputError for a run that has filled no memory,
    or whose memories are gone."""
    from squadron.methods.actor_reasoner.benchmark import World

    reasoner_model = outputs(folder, "prepare_reasoner", ReasonerModel)[0]
    config = settings(folder, ActorReasonerConfig)
    kept = outputs(folder, "build_memory", Memories)
    for one in kept:
        one.locate(folder)
    memories = {one.scene: one.path for one in kept}
    worlds = {scene: World(folder, config.world(scene), reasoner_model) for scene in memories}
    car = {"own_m": 20, "own_speed": 8, "other_m": 25, "other_speed": 7}
    act = Route(
        "/v1/act",
        "act",
        ActRequest,
        ActAnswer,
        "what each car does now, from memory",
        example={"cars": [car]},
        work=_cars,
    )
    watch = watch_route("Actor and Reasoner at the wheel, in an episode that took no part in filling the memory")
    told = "what kind of driver each car meets, and what to do"
    think = Route("/v1/think", "think", ThinkRequest, ThinkAnswer, told, example={"cars": [car]}, work=_cars)
    return Services((
        Service("actor", LoadActor(worlds, memories), (act,), capacity=4 * _MOST_CARS, unit="cars"),
        Service("reasoner", LoadReasoner(worlds, memories), (think, watch), capacity=4 * _MOST_CARS, unit="cars"),
    ))  # fmt: skip


def _cars(request: ActRequest | ThinkRequest) -> int:
    return len(request.cars)


@dataclass(frozen=True)
class LoadActor:
    """Loads the memories on a replica."""

    worlds: Mapping[SceneName, World]
    memories: Mapping[SceneName, str]

    def __call__(self) -> ServedActor:
        from squadron.methods.actor_reasoner.benchmark import read_memory

        found = {scene: read_memory(self.worlds[scene].run_folder, file) for scene, file in self.memories.items()}
        return ServedActor(self.worlds, found)


@dataclass(frozen=True)
class LoadReasoner:
    """Loads the language model on a replica."""

    worlds: Mapping[SceneName, World]
    memories: Mapping[SceneName, str]

    def __call__(self) -> ServedReasoner:
        return ServedReasoner(self.worlds, self.memories, next(iter(self.worlds.values())).open_reasoner())


class ServedActor:
    """Answers from memory."""

    def __init__(self, worlds: Mapping[SceneName, World], memories: Mapping[SceneName, Memory]) -> None:
        from squadron.methods.actor_reasoner.benchmark import Texts

        self._worlds, self._memories = worlds, memories
        self._texts = Texts(next(iter(worlds.values())).config.embedder)
        self._texts(["nothing"])  # its model is loaded before anybody waits for a decision

    def act(self, request: ActRequest) -> ActAnswer:
        """As it was decided when things were most alike. Raises InputError for a scene without memories."""
        from squadron.methods.actor_reasoner.benchmark import FULL
        from squadron.methods.actor_reasoner.policy import UNTHOUGHT, remember

        world = _world(self._worlds, request.scene)
        view = _view(request.cars, world)
        thoughts = [UNTHOUGHT if car.thought is None else _thought(car.thought) for car in request.cars]
        said_B = np.array([car.said for car in request.cars], dtype=object)
        action_B = remember(self._memories[world.scene], self._texts, FULL, view, thoughts, said_B)
        return ActAnswer(
            cars=tuple(
                CarAction(action=ACTIONS[action], acceleration=float(ACCELERATIONS[action]))
                for action in action_B.tolist()
            )
        )


class ServedReasoner:
    """Answers with the language model."""

    def __init__(
        self, worlds: Mapping[SceneName, World], memories: Mapping[SceneName, str], reasoner: Reasoner
    ) -> None:
        self._worlds, self._memories, self._reasoner = worlds, memories, reasoner
        self._contestants: dict[SceneName, Contestant] = {}

    def watch(self, request: WatchRequest) -> WatchAnswer:
        """An episode from above, with what is thought, decided and shown beside; the next scene with the next."""
        from squadron.methods.actor_reasoner.benchmark import Contestant
        from squadron.methods.actor_reasoner.film import CAPTION, film_track

        scenes = list(self._worlds)
        episode, place = divmod(request.episode, len(scenes))
        scene = scenes[place]
        if scene not in self._contestants:
            world, memories = self._worlds[scene], self._memories[scene]
            self._contestants[scene] = Contestant(world, memories, None, self._reasoner)
        track, trail = self._contestants[scene].drive_one(episode)
        return watch_answer(film_track(track, trail), f"{scene}. {CAPTION}")

    def think(self, request: ThinkRequest) -> ThinkAnswer:
        """A thought about each car. Raises InputError for a scene without memories."""
        world = _world(self._worlds, request.scene)
        view = _view(request.cars, world)
        caution_B = how_safe(view)
        situations = [
            _situation(car, world.scene, float(view.own_s_B[row]), float(view.other_s_B[row]), int(caution_B[row]))
            for row, car in enumerate(request.cars)
        ]
        return ThinkAnswer(
            cars=tuple(
                DriverThought(
                    style=STYLES[thought.style],
                    intention=INTENTIONS[thought.intention],
                    decision=ACTIONS[thought.action],
                    display=thought.display[:_LONGEST_TEXT],
                    unreadable=bool(thought.error),
                )
                for thought in self._reasoner.think(situations)
            )
        )


def _world(worlds: Mapping[SceneName, World], scene: SceneName | None) -> World:
    if scene is not None and scene not in worlds:
        raise InputError(f"scene: nothing is remembered of {scene}", fix=f"ask for {', '.join(worlds)}")
    return worlds[scene] if scene is not None else next(iter(worlds.values()))


def _view(cars: Sequence[Meeting], world: World) -> View:
    columns = {name: np.array([getattr(car, name) for car in cars], float) for name in _COLUMNS}

    def seconds(who: str) -> np.ndarray:
        speed_B = columns[f"{who}_speed"]
        top_B = np.maximum(world.config.traffic.top_speed, speed_B)
        return time_to(columns[f"{who}_m"], speed_B, columns[f"{who}_acceleration"], top_B)

    return View(
        other_B=np.ones(len(cars), np.int64),
        meets_B=np.ones(len(cars), bool),
        own_s_B=seconds("own"),
        other_s_B=seconds("other"),
        **{f"{name}_B": column for name, column in columns.items()},
    )


def _thought(given: DriverThought) -> Thought:
    style, intention = STYLES.index(given.style), INTENTIONS.index(given.intention)
    return Thought(style, intention, ACTIONS.index(given.decision), given.display)


def _situation(car: ThinkingCar, scene: SceneName, own_s: float, other_s: float, caution: int) -> Situation:
    before_speed = car.other_speed if car.before_speed is None else car.before_speed
    return Situation(
        scene=scene,
        own_m=car.own_m,
        own_speed=car.own_speed,
        own_s=own_s,
        other_m=car.other_m,
        other_speed=car.other_speed,
        other_s=other_s,
        other_acceleration=car.other_acceleration,
        slowest=car.other_speed if car.slowest is None else car.slowest,
        before_speed=before_speed,
        before_m=car.other_m + before_speed if car.before_m is None else car.before_m,
        stood_s=car.stood_s,
        caution=caution,
        said=car.said,
        last=ACTIONS.index(car.last),
        display=car.display,
    )
