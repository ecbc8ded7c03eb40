"""Settings of a server."""

from __future__ import annotations

from pydantic import Field

from squadron.core.config import Config

KEYS = "SQUADRON_API_KEYS"
"""Environment variable with the keys that clients may present, separated by commas."""


class ServeSpec(Config):
    """Where a server listens, how much it takes on, and what it refuses."""

    host: str = Field("127.0.0.1", description="0.0.0.0: every network of this machine")
    port: int = Field(8000, ge=1, le=65535)
    replicas: int = Field(1, ge=1, description="processes that hold the model")
    at_once: int = Field(1, ge=1, description="requests that one replica works on at a time")
    queue: int = Field(32, ge=1, description="requests that may wait; more are sent away with 429")
    timeout_s: float = Field(60.0, gt=0, description="after which a request is given up with 504")
    max_body_mb: float = Field(8.0, gt=0, description="larger requests are refused with 413")
    without_keys: bool = Field(False, description="answer anybody, on every network")
