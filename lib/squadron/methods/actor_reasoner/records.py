"""What the stages of an actor_reasoner run hand to each other. Files are named relative to the run folder."""

from __future__ import annotations

from squadron.core.artifacts import Artifact
from squadron.core.config import Config
from squadron.llm.settings import Rehearsed
from squadron.sim.driving.spec import SceneName
from squadron.train.models.artifact import ModelArtifact


class ReasonerModel(Config):
    """The small model that this run has trained to think; none where the settings name a model."""

    trained: ModelArtifact | None = None
    rehearsed: Rehearsed | None = None


class Memories(Artifact):
    """The Actor's memory of a scene."""

    scene: SceneName
    count: int
    unread: int


class LearnedDriver(Config):
    """A policy learned by reinforcement, if there is one."""

    file: str | None


class Driven(Config):
    """A way to drive on the unseen episodes of a scene. Shares, and means over episodes that succeeded."""

    method: str
    episodes: int
    collided: float
    succeeded: float
    passed_s: float | None


class SceneScores(Config):
    """Every way to drive in a scene."""

    scene: SceneName
    driven: tuple[Driven, ...]


class Recordings(Config):
    """How often a recorded file was driven."""

    driven: int


class Live(Config):
    """Driving by the clock."""

    ticks: int
    missed: int
    restarts: int
