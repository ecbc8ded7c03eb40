"""What one worker may use. Hardware is named here and never in a method's configuration."""

from __future__ import annotations

from pydantic import Field

from squadron.core.config import Config
from squadron.core.errors import ConfigError, suggest

WAIT_S = 900.0
"""How long work waits for room on a cluster, unless it is said."""


class WorkerResources(Config):
    """The share of a node that one worker actor reserves."""

    cpus: float = Field(1, ge=0, description="CPU cores; 0 for what only waits")
    gpus: float = Field(0, ge=0, description="GPUs; a fraction shares a card")
    memory_gb: float = Field(0, ge=0, description="memory to reserve; 0 reserves none")


class Profile(Config):
    """A kind of hardware: the machines, the share of one worker, and how many workers at most."""

    name: str
    worker: WorkerResources = WorkerResources()
    max_workers: int | None = Field(None, ge=1, description="None: as many as fit")
    workers: int | None = Field(None, ge=1, description="exactly so many, or refuse to start; None: what fits")
    trainer: WorkerResources | None = Field(
        None, description="the share of one training worker; None: one card or node"
    )
    nodes: int = Field(1, ge=1, description="how many machines")
    cpus: int | None = Field(None, ge=1, description="of one machine, as a cluster or a cloud is asked for them")
    memory_gb: float | None = Field(None, gt=0, description="of one machine, in GiB")
    cards: int | None = Field(None, ge=1, description="of one machine")
    gpu: str | None = Field(None, description="the kind of card")
    wait_s: float = Field(
        WAIT_S, ge=0, description="how long to wait for room: for other work to end, or for machines to be added"
    )

    @property
    def trainers(self) -> int | None:
        """How many workers a training takes: all that are asked for, or one on each card; None: as many as fit."""
        if self.workers is not None or self.cards is None:
            return self.workers
        return self.nodes * self.cards


_8XH100 = Profile(
    name="8xh100",
    worker=WorkerResources(cpus=2, gpus=0.125),
    trainer=WorkerResources(cpus=8, gpus=1),
    cpus=128,
    memory_gb=1024,
    cards=8,
    gpu="H100",
)
PROFILES = {
    profile.name: profile
    for profile in (
        Profile(name="auto"),
        Profile(name="laptop", max_workers=4),
        Profile(
            name="h200",
            worker=WorkerResources(cpus=1, gpus=0.0625),
            trainer=WorkerResources(cpus=12, gpus=1),
            cpus=16,
            memory_gb=128,
            cards=1,
            gpu="H200",
        ),
        _8XH100,
        _8XH100.model_copy(update={"name": "2x8xh100", "nodes": 2}),
    )
}


def find_profile(name: str) -> Profile:
    """The profile called `name`. Raises ConfigError with the nearest name if there is none."""
    if name not in PROFILES:
        raise ConfigError(f"no profile called {name!r}", where="--profile", fix=suggest(name, PROFILES))
    return PROFILES[name]
