"""A job of one's own, small enough to be run a dozen times: gradient descent on a parabola."""

from __future__ import annotations

import time

import ray

from squadron.core.config import Config
from squadron.core.job import job
from squadron.core.run import Run, Stage


class DescentConfig(Config):
    rate: float = 0.1
    start: float = 4.0
    steps: int = 4
    seconds: float = 0.0
    fails_above: float = 1e9
    dies_at_step: int | None = None
    on_workers: bool = False


class Point(Config):
    x: float


def gradient(x: float) -> float:
    return 2 * x


def begin(stage: Stage, start: float) -> Point:
    """The same for all trials that begin at the same point."""
    stage.folder.append_line("begun.txt", "begun")
    return Point(x=start)


def descend(stage: Stage, start: Point, config: DescentConfig) -> Point:
    """Go down, and keep the place at every step."""
    stage.claim_cluster()
    place = stage.folder.read_json("place.json") if stage.folder.exists("place.json") else {"step": 0, "x": start.x}
    while place["step"] < config.steps:
        step = place["step"] + 1
        if config.rate > config.fails_above:
            raise ValueError(f"a rate of {config.rate:g} is too much")
        if step == config.dies_at_step and not stage.folder.exists("died.txt"):
            stage.folder.write_bytes("died.txt", b"")
            import os

            os._exit(9)
        slope = ray.get(ray.remote(gradient).remote(place["x"])) if config.on_workers else gradient(place["x"])
        x = place["x"] - config.rate * slope
        place = {"step": step, "x": x}
        stage.folder.write_json("place.json", place)
        time.sleep(config.seconds)
        stage.log(step, loss=x * x)
    stage.measure(loss=place["x"] ** 2, distance=abs(place["x"]))
    return Point(x=place["x"])


@job(DescentConfig, metrics={"loss": "min", "distance": "min"})
def descent(run: Run, config: DescentConfig) -> None:
    """Down a parabola."""
    start = run.stage(begin, config.start)
    run.stage(descend, start, config)
