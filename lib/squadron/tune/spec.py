"""What a sweep is asked to do, and what it finds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from squadron.core.config import Config
from squadron.core.job import Goal


class SweepSpec(Config):
    """A search for the best settings of a job."""

    job: str
    base: dict[str, Any] = Field(description="the configuration that trials start from")
    contents: str = Field("", description="stands for what the files and models hold that the configurations name")
    over: dict[str, str] = Field(description="settings that are varied, and over what: lr: loguniform(1e-5,1e-3)")
    metric: str
    goal: Goal
    trials: int = Field(ge=1)
    search: Literal["random", "optuna"] = Field("random", description="optuna: by what earlier trials came to (TPE)")
    scheduler: Literal["none", "asha", "pbt"] = Field(
        "none", description="asha stops the worse trials early; pbt lets them resume better ones' work"
    )
    grace: int = Field(1, ge=1, description="asha: values of the metric that a trial may log before it can be stopped")
    reduction: int = Field(3, ge=2, description="asha: at each level, one of this many trials continues")
    perturb_every: int = Field(5, ge=1, description="pbt: values of the metric between two changes of settings")
    seed: int = 0

    @model_validator(mode="after")
    def _kinds_agree(self) -> SweepSpec:
        if self.scheduler == "pbt" and self.search == "optuna":
            raise ValueError("population-based training changes settings itself: leave search at random")
        if self.scheduler == "pbt" and self.trials < 4:
            raise ValueError("a population is of four trials at least")
        return self


Status = Literal["running", "finished", "stopped", "failed"]


class Record(Config):
    """What is known of one trial. `value` is what the run measured at its end, or the last that it logged."""

    number: int
    settings: dict[str, Any]
    status: Status = "running"
    value: float | None = None
    seconds: float = 0.0
    error: str = ""
    session: str = ""


class Winner(Config):
    """The best trial of a sweep, and how many there were."""

    trial: str
    settings: dict[str, Any]
    value: float
    finished: int
    stopped: int
    failed: int
