"""What the stages of an actor_reasoner run hand to each other. Files are named relative to the run folder."""

from __future__ import annotations

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.llm.settings import AnyModel, HfModel
from squadron.sim.driving.spec import SceneName


class ReasonerModel(Config):
    """The Reasoner's model: one of the user's, or the small one of this run; and what it is asked by."""

    model: AnyModel | None
    path: str | None
    template: str

    def settings(self, run: Folder) -> AnyModel:
        """The model as workers load it."""
        if self.model is not None:
            return self.model
        assert self.path is not None
        return HfModel(name="small model", path=run.file(self.path), batch_size=128)


class Memories(Config):
    """The Actor's memory of a scene."""

    scene: SceneName
    file: str
    sha256: str
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
