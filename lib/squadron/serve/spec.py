"""Settings of a server."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from squadron.core.config import Config

KEYS = "SQUADRON_API_KEYS"
"""Environment variable with the keys that clients may present, separated by commas; one may have a name, `name:key`."""


class Autoscaling(Config):
    """Between how many replicas a service has, by how busy they are."""

    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(4, ge=1)
    ongoing_requests: float = Field(2.0, gt=0, description="requests that each replica shall have, waiting or at work")
    upscale_delay_s: float = Field(10.0, ge=0)
    downscale_delay_s: float = Field(300.0, ge=0)

    @model_validator(mode="after")
    def _ends_agree(self) -> Autoscaling:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is above max_replicas")
        return self

    def for_ray(self) -> dict[str, Any]:
        """The same in Ray Serve's terms."""
        return {
            "min_replicas": self.min_replicas,
            "max_replicas": self.max_replicas,
            "target_ongoing_requests": self.ongoing_requests,
            "upscale_delay_s": self.upscale_delay_s,
            "downscale_delay_s": self.downscale_delay_s,
        }


class VllmServing(Config):
    """How vLLM serves language models."""

    gpus: int = Field(1, ge=1, description="cards of one replica, by tensor parallelism")
    gpu_memory: float = Field(0.9, gt=0, le=1, description="share of a card's memory, for weights and answers")
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "auto"
    quantization: str | None = Field(None, description="of a quantised model, such as awq; None: what its files say")
    max_length: int | None = Field(None, ge=1, description="tokens of a conversation; None: the model's own")
    max_parallel: int = Field(256, ge=1, description="requests that one replica works on")
    adapters_at_once: int = Field(8, ge=1, description="adapters that may share a batch")


class Edge(Config):
    """What HAProxy lets through, before anything else looks at it. It is the same for all keys."""

    header_kb: int = Field(16, ge=4, le=256, description="request line and headers of a request, together")
    headers: int = Field(100, ge=20, le=32767, description="headers of a request")
    header_timeout_s: float = Field(10.0, gt=0, description="for headers to arrive, and then for a short body")
    body_timeout_s: float = Field(30.0, gt=0, description="for a whole body to arrive")
    stalled_timeout_s: float = Field(20.0, gt=0, description="that a client may read nothing of its answer")
    held_mb: float = Field(128.0, gt=0, description="of bodies that one key has at work")
    idle_timeout_s: float = Field(60.0, gt=0, description="that a connection may wait for its next request")
    connections: int = Field(4096, ge=1, description="at a time")
    connections_per_address: int = Field(1024, ge=1, description="at a time; of IPv6, addresses of one /64")
    wrong_keys_per_minute: int = Field(30, ge=1, description="of one address; more, and new keys of it are turned away")
    requests_without_key_per_minute: int = Field(600, ge=1, description="of one address")
    trusted_proxies: tuple[str, ...] = Field(
        (),
        description="networks whose X-Forwarded-For names the client; else it is where the connection comes from",
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_network(network)) for network in networks)


LimitName = Literal["max_body_mb", "max_tokens", "requests_per_minute", "tokens_per_minute"]


class KeyLimits(Config):
    """What is other for one key than for the rest; None: the same."""

    max_body_mb: float | None = Field(None, gt=0)
    max_tokens: int | None = Field(None, ge=1)
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)


class ServeSpec(Config):
    """Where a server listens, how much it takes on, and what it refuses."""

    host: str = Field("127.0.0.1", pattern=r"^[\w.:-]+$", description="0.0.0.0: every network of this machine")
    port: int = Field(8000, ge=1, le=65535)
    names: tuple[str, ...] = Field(
        (), description="host names that clients may ask for where no key is needed, beside this machine's own"
    )
    proxy: Literal["auto", "haproxy", "none"] = Field(
        "auto", description="what listens before Ray Serve; auto: HAProxy, or nothing for this machine alone"
    )
    inner_port: int | None = Field(
        None, ge=1, le=65535, description="where Ray Serve listens behind HAProxy, on loopback; None: any free one"
    )
    edge: Edge = Edge()
    engine: Literal["auto", "own", "vllm"] = Field(
        "auto", description="of language models; auto: vLLM, where it is installed and the cluster has GPUs"
    )
    vllm: VllmServing = VllmServing()
    replicas: int = Field(1, ge=1, description="processes that hold the model")
    gpus: float = Field(0, ge=0, description="of one replica, where vLLM does not serve; a fraction shares a card")
    autoscaling: Autoscaling | None = Field(None, description="as many replicas as are needed, in place of a number")
    max_parallel: int | None = Field(None, ge=1, description="requests that one replica works on; None: what suits it")
    queue: int = Field(32, ge=1, description="requests that may wait; more are sent away with 429")
    timeout_s: float = Field(60.0, gt=0, description="after which a request is given up with 504")
    drain_s: float = Field(30.0, ge=0, description="that a replica which is to end is given for what it has begun")
    max_body_mb: float = Field(8.0, gt=0, description="larger requests are refused with 413")
    max_tokens: int | None = Field(None, ge=1, description="the longest answer that may be asked for, with 400")
    requests_per_minute: float | None = Field(None, gt=0, description="of one key; more are sent away with 429")
    tokens_per_minute: float | None = Field(None, gt=0, description="of one key, prompts and answers together")
    keys: dict[str, KeyLimits] = Field({}, description="limits of single keys, by their names")
    log_prompts: bool = Field(False, description="write what was asked and answered into the log")
    without_keys: bool = Field(False, description="answer anybody, on every network")

    @property
    def local(self) -> bool:
        """Whether it listens on this machine alone."""
        return self.host in ("127.0.0.1", "localhost", "::1")

    def limit(self, name: LimitName, key: str) -> Any:
        """This limit for a key."""
        own = getattr(self.keys[key], name) if key in self.keys else None
        return getattr(self, name) if own is None else own
