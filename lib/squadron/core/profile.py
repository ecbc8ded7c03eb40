"""What one worker may use. Hardware is named here and never in a method's configuration."""

from __future__ import annotations

from pydantic import Field

from squadron.core.config import Config
from squadron.core.errors import ConfigError, suggest


class WorkerResources(Config):
    """The share of a node that one worker actor reserves."""

    cpus: float = Field(1, ge=0, description="CPU cores; 0 for what only waits")
    gpus: float = Field(0, ge=0, description="GPUs; a fraction shares a card")
    memory_gb: float = Field(0, ge=0, description="memory to reserve; 0 reserves none")


class Profile(Config):
    """A kind of hardware: the share of one worker, and how many workers at most."""

    name: str
    worker: WorkerResources = WorkerResources()
    max_workers: int | None = Field(None, ge=1, description="None: as many as fit")
    workers: int | None = Field(None, ge=1, description="exactly so many, or refuse to start; None: what fits")
    trainer: WorkerResources | None = Field(
        None, description="the share of one training worker; None: one card or node"
    )
    gpu: str | None = Field(None, description="the kind of card, for planning")
    cards: int | None = Field(None, ge=1, description="how many cards such a machine has, for planning")


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(name="auto"),
        Profile(name="laptop", max_workers=4),
        Profile(
            name="h200",
            worker=WorkerResources(cpus=1, gpus=0.0625),
            trainer=WorkerResources(cpus=12, gpus=1),
            gpu="H200",
            cards=1,
        ),
        Profile(
            name="8xh100",
            worker=WorkerResources(cpus=2, gpus=0.125),
            trainer=WorkerResources(cpus=8, gpus=1),
            gpu="H100",
            cards=8,
        ),
    )
}


def find_profile(name: str) -> Profile:
    """The profile called `name`. Raises ConfigError with the nearest name if there is none."""
    if name not in PROFILES:
        raise ConfigError(f"no profile called {name!r}", where="--profile", fix=suggest(name, PROFILES))
    return PROFILES[name]
