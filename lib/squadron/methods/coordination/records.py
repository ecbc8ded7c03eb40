"""What the stages of coordination hand to each other: small records; files are named relative to the run folder."""

from __future__ import annotations

from squadron.core.artifacts import Artifact
from squadron.core.config import Config
from squadron.evaluate.summary import Estimate
from squadron.methods.coordination.config import CostName


class Labels(Config):
    """Problems with their best plans, as Arrow files of rows that a network learns from (`training.COLUMNS`)."""

    cost: CostName
    train: str
    held_out: str
    problems: int
    plans: int
    proven: int


class Planner(Artifact):
    """A trained network: a folder with `config.json` and `model.safetensors`."""

    name: str
    cost: CostName
    held_out_loss: float | None


class Planners(Config):
    """Networks for one cost; the first is the method's."""

    planners: tuple[Planner, ...]


class Ratio(Estimate):
    """A method on problems of one world and size: the least known cost over its own, and seconds a problem."""

    method: str
    world: str
    robots: int
    seconds: float


class Ratios(Config):
    """Every method on every size."""

    cost: CostName
    ratios: tuple[Ratio, ...]


class Fleet(Config):
    """One's own robots: a folder with their routes, and their map if they have one."""

    folder: str
    robots: int
    encounters: int
    mapped: bool


class Planned(Config):
    """The plan of one's own fleet, as `fleet.describe` writes it."""

    file: str
    cost: float
