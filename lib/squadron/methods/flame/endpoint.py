"""A robot's next action over HTTP: `POST /v1/act`, by the policy that the homes have taught; `POST /v1/watch` shows it
at work.

Shapes: H image height, W image width, S state size.
"""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources
from squadron.core.run_reader import outputs, settings
from squadron.core.work import take_turns
from squadron.methods.flame.config import EvaluationConfig, FlameConfig
from squadron.methods.flame.records import Homes, Policy
from squadron.serve.rollout_video import WatchAnswer, WatchRequest, watch_answer, watch_route
from squadron.serve.service import Route, Service, Services

if TYPE_CHECKING:
    from squadron.methods.flame.algorithm import BCPolicy

_LONGEST_IMAGE, _MOST_ROBOTS = 2**20, 64  # characters of base64
_STATE, _LARGEST = 8, 1e3
_FORMATS = ("PNG", "JPEG")
Joint = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]


class Observation(Config):
    """What a robot sees and feels."""

    image: str = Field(max_length=_LONGEST_IMAGE, description="a PNG or JPEG file in base64, of the policy's size")
    state: tuple[Joint, ...] = Field(
        min_length=_STATE, max_length=_STATE, description="seven joint angles, and how far the gripper is open"
    )


class ActRequest(Config):
    """Robots that want to know what to do next."""

    robots: tuple[Observation, ...] = Field(min_length=1, max_length=_MOST_ROBOTS)


class RobotAction(Config):
    """Seven joint velocities in [-1, 1], and the gripper: 0 closed, 1 open."""

    velocities: tuple[float, ...]
    gripper: float


class ActAnswer(Config):
    """What each robot does."""

    policy: str
    robots: tuple[RobotAction, ...]


def services(folder: Folder) -> Services:
    """The chosen policy of a run. Raises InputError if none has been chosen, or its weights are gone."""
    policy = outputs(folder, "choose_round", Policy)[-1]
    policy.locate(folder)
    size = policy.image_size
    example = {"robots": [{"image": _blank(size), "state": [0.0] * _STATE}]}
    summary = f"What a robot does next, by its camera of {size} × {size} pixels and its joints"
    route = Route(
        "/v1/act", "act", ActRequest, ActAnswer, summary, example=example, work=lambda request: len(request.robots)
    )
    films = LoadFilms(
        folder, policy, outputs(folder, "build_homes", Homes)[-1], settings(folder, FlameConfig).evaluation
    )
    watch = watch_route("The robot at work in a home that took no part in training")
    return Services((
        Service("flame", Load(folder, policy), (route,), capacity=4 * _MOST_ROBOTS, unit="robots"),
        Service("flame-watch", films, (watch,), WorkerResources(cpus=0)),  # no robot waits for a film
    ))  # fmt: skip


@dataclass(frozen=True)
class Load:
    """What a replica loads."""

    folder: Folder
    policy: Policy

    def __call__(self) -> ServedPolicy:
        from squadron.methods.flame.simulation import load_policy

        return ServedPolicy(self.policy, load_policy(self.folder, self.policy))


class ServedPolicy:
    """A policy that answers many robots at a time."""

    def __init__(self, record: Policy, network: BCPolicy) -> None:
        self._record, self._network = record, network

    def act(self, request: ActRequest) -> ActAnswer:
        """What each robot does. Raises InputError for an image that is none, or of another size."""
        from squadron.methods.flame.simulation import predict

        size = self._record.image_size
        images = np.stack([_decode(robot.image, size, place) for place, robot in enumerate(request.robots)])
        states = np.array([robot.state for robot in request.robots], np.float32)
        actions = predict(self._network, images, states).tolist()
        robots = tuple(RobotAction(velocities=tuple(action[:7]), gripper=action[7]) for action in actions)
        return ActAnswer(policy=self._record.name, robots=robots)


@dataclass(frozen=True)
class LoadFilms:
    """Loads what films a policy, on a replica."""

    folder: Folder
    policy: Policy
    homes: Homes
    config: EvaluationConfig

    def __call__(self) -> Films:
        return Films(self)


class Films:
    """Films a policy in the homes that a run has set apart for its measurement."""

    def __init__(self, known: LoadFilms) -> None:
        from squadron.methods.flame.simulation import load_policy

        self._known, self._network = known, load_policy(known.folder, known.policy)
        self._specs = known.homes.specs(known.folder)

    def watch(self, request: WatchRequest) -> WatchAnswer:
        """An episode in one of the homes, and the next home with the next."""
        from squadron.methods.flame.simulation import film_episode
        from squadron.sim.film import film

        homes = self._known.homes.test
        round_, place = divmod(request.episode, len(homes))
        spec = self._specs[homes[place]]
        frames, success = film_episode(self._network, spec, self._known.policy.image_size, round_, self._known.config)
        end = "done" if success else "not done"
        return watch_answer(film(frames, fps=10.0), f"{self._known.homes.task}, home {homes[place]}: {end}")


def _decode(text: str, size: int, place: int) -> np.ndarray:
    """An image as uint8 [H, W, 3]."""
    from PIL import Image, UnidentifiedImageError

    take_turns()
    where = f"robots.{place}.image"
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=_FORMATS) as image:
            if image.size != (size, size):
                raise InputError(f"{where}: {image.width} × {image.height} pixels; the policy sees {size} × {size}")
            return np.asarray(image.convert("RGB"))
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InputError(f"{where}: no PNG or JPEG file in base64") from None


def _blank(size: int) -> str:
    """A grey image, for the page's example."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (size, size), (128, 128, 128)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()
