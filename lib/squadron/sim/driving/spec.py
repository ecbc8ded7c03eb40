"""Settings of the driving world."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from squadron.core.config import Config
from squadron.core.rehearsal import AtMost

SceneName = Literal["intersection", "roundabout", "merge"]
Style = Literal["aggressive", "normal", "conservative"]
STYLES: tuple[Style, ...] = ("aggressive", "normal", "conservative")


class TrafficConfig(Config):
    """How cars move and where they start. Figures are the official simulator's unless said otherwise."""

    tick_s: float = Field(0.1, gt=0)
    ticks: Annotated[int, AtMost(60)] = Field(200, ge=1, description="longest episode")
    start_speed: tuple[float, float] = Field((6.0, 9.0), description="m/s, drawn evenly")
    top_speed: float = Field(8.0, gt=0, description="m/s")
    approach_m: tuple[float, float] = Field((25.0, 55.0), description="from the start to the other's way, drawn evenly")
    others: int = Field(1, ge=1, le=3, description="cars with drivers, besides the automated one")
    stop_before_m: float = Field(
        1.0, gt=0, description="how far in front of the other's way the bumper of a car that yields stands"
    )
    brakes_within_m: float = Field(25.0, gt=0, description="of that line; braking earlier is ignored")
    over_after_m: float = Field(3.0, ge=0, description="a conflict is over when one is so far past it")
    length_m: float = Field(4.8, gt=0)
    width_m: float = Field(1.9, gt=0)

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> TrafficConfig:
        for name in ("start_speed", "approach_m"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name} must be two numbers from 0 on, the smaller first, not {(low, high)}")
        return self


class StyleConfig(Config):
    """What a driver of one style wants: weights of comfort, speed, progress and safety, and how short a time to
    collision feels short."""

    weights: tuple[float, float, float, float]
    short_s: float = Field(gt=0)


class DriversConfig(Config):
    """Drivers as players of a Bayesian game."""

    accelerations: tuple[float, ...] = Field((0.0, 2.0, -2.0, -4.0), min_length=2, description="m/s², to choose from")
    prior: tuple[float, float, float] = Field(
        (0.14, 0.41, 0.45), description="what a driver believes of another's style: aggressive, normal, conservative"
    )
    aggressive: StyleConfig = StyleConfig(weights=(1.56, 0.0, 8.33, 3.69), short_s=2.0)
    normal: StyleConfig = StyleConfig(weights=(1.72, 0.0, 8.2, 5.7), short_s=6.0)
    conservative: StyleConfig = StyleConfig(weights=(2.1, 0.0, 7.79, 8.44), short_s=7.0)
    ahead_s: float = Field(
        1.0,
        gt=0,
        description="how far drivers think ahead; official: 0.1, at which all but aggressive ones always yield",
    )
    patience_s: float = Field(
        3.0, gt=0, description="of standing, after which a driver goes while the other stands; official: forever"
    )
    mix: tuple[float, float, float] = Field((1 / 3, 1 / 3, 1 / 3), description="shares of styles among drivers")
    hears_display: bool = Field(False, description="drivers believe what the automated car's display says")

    @model_validator(mode="after")
    def _shares_add_up(self) -> DriversConfig:
        for name in ("prior", "mix"):
            shares = getattr(self, name)
            if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
                raise ValueError(f"{name} must be shares that add up to 1, not {shares}")
        return self

    @property
    def styles(self) -> tuple[StyleConfig, StyleConfig, StyleConfig]:
        """In the order of `STYLES`."""
        return self.aggressive, self.normal, self.conservative
