"""What is served, at work in a simulated world: `POST /v1/watch` answers with a film."""

from __future__ import annotations

import base64

from pydantic import Field

from squadron.core.config import Config
from squadron.serve.service import Route
from squadron.sim.film import media_type


class WatchRequest(Config):
    """What to watch."""

    episode: int = Field(0, ge=0, le=10**6, description="each is another world, or begins another way")


class WatchAnswer(Config):
    """A film in base64, and what it shows."""

    film: str
    media_type: str
    caption: str


def watch_route(summary: str) -> Route:
    """A route to `watch`, which takes and returns these records."""
    return Route("/v1/watch", "watch", WatchRequest, WatchAnswer, summary, example={"episode": 0})


def watch_answer(film: bytes, caption: str) -> WatchAnswer:
    """The answer with a film by `squadron.sim.film`."""
    return WatchAnswer(film=base64.b64encode(film).decode(), media_type=media_type(film), caption=caption)
