"""Settings of random worlds."""

from __future__ import annotations

from pydantic import Field, model_validator

from squadron.core.config import Config


class FloorConfig(Config):
    """An open square floor, on which each robot drives from a random start over a way-point to a random goal."""

    area_per_robot_m2: float = Field(40.0, gt=0, description="the density dial: less floor, more interference")
    trip_m: tuple[float, float] = Field(
        (8.0, 16.0), description="straight-line distance from start to goal, from and to"
    )
    detour_m: float = Field(3.0, ge=0, description="how far the way-point lies off the straight line, at most")

    @model_validator(mode="after")
    def _trip_is_a_range(self) -> FloorConfig:
        if not 0 < self.trip_m[0] <= self.trip_m[1]:
            raise ValueError(f"trip_m must be two lengths, the shorter first, not {self.trip_m}")
        return self
