"""What a method offers to a server: what to load, and which requests it answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from squadron.core.profile import WorkerResources

if TYPE_CHECKING:
    from squadron.serve.spec import ServeSpec


@dataclass(frozen=True)
class Route:
    """Requests to `path` go to `method` of what the service has loaded, which takes and returns these records; it may
    be a coroutine.

    A request that says `stream: true` goes to the method `stream`, an asynchronous iterator of lists of `Event`, which
    takes the request and its `Context`. `example` is a request that the server's page offers to try. `work` says how
    many units of work a request is at most, from what it says and before anything is computed, `tokens` how many tokens
    it may read and write; None: one unit, and no tokens.
    """

    path: str
    method: str
    request: type[BaseModel]
    response: type[BaseModel]
    summary: str
    stream: str | None = None
    example: dict[str, Any] | None = None
    work: Callable[[Any], int] | None = None
    tokens: Callable[[Any], int] | None = None


@dataclass(frozen=True)
class Page:
    """A web page at `path`, for anybody: what it shows of a run it asks for by routes that need a key. It asks by paths
    relative to its own."""

    path: str
    summary: str
    html: str


@dataclass(frozen=True)
class SharedBase:
    """What a service adds, by its `part`, to a `base` that is large: services over the same base are served as one,
    which `merge` makes of the base and of each model's part."""

    base: str
    part: str
    merge: Callable[[str, Mapping[str, str]], Service]


@dataclass(frozen=True)
class Service:
    """`build` loads what answers, on a replica; it and all that it needs must be picklable.

    `max_parallel` is how many requests one replica works on at a time, and `capacity` with how many units of work
    together, of the kind that `unit` names; None: as many as there are requests. `models` are the names by which
    requests that have a `model` ask for this service; one that is `over` a base has one. Where vLLM serves, `by_vllm`
    gives what Ray Serve deploys, by the server's settings and whether there are GPUs.
    """

    name: str
    build: Callable[[], Any]
    routes: tuple[Route, ...]
    resources: WorkerResources = field(default_factory=WorkerResources)
    max_parallel: int = 4
    capacity: int | None = None
    unit: str = "units of work"
    models: tuple[str, ...] = ()
    over: SharedBase | None = None
    by_vllm: Callable[[ServeSpec, bool], Any] | None = None
    pages: tuple[Page, ...] = ()


@dataclass(frozen=True)
class Context:
    """What the gateway decides for a streamed answer, so that another replica can go on with it: its name, when it
    began, the seed of one that brings none, how many of its characters have been sent, and the client it is for."""

    id: str
    created: int
    seed: int
    skip: int = 0
    client: str = ""


@dataclass(frozen=True)
class Event:
    """A part of a streamed answer: how many of its characters it holds, itself as JSON, and how many tokens were read
    and written for the answer up to here."""

    characters: int
    data: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Services:
    """What one run offers, behind one address."""

    services: tuple[Service, ...]


def compose(services: Sequence[Service]) -> list[Service]:
    """What is served of these: each under a name of its own, and those over one base as one."""
    composed: list[Service] = []
    bases: dict[str, dict[str, str]] = {}
    for service in distinct(services):
        if service.over is None:
            composed.append(service)
            continue
        parts = bases.setdefault(service.over.base, {})
        if not parts:
            composed.append(service)
        parts |= dict.fromkeys(service.models, service.over.part)
    return [one if one.over is None else one.over.merge(one.over.base, bases[one.over.base]) for one in composed]


def distinct(services: Sequence[Service]) -> list[Service]:
    """The same services, each under a name of its own: of two with one name the second is called `name-2`, and so are
    its models."""
    taken: set[str] = set()
    named = []
    for service in services:
        number, name = 1, service.name
        while name in taken:
            number += 1
            name = f"{service.name}-{number}"
        taken.add(name)
        suffix = name.removeprefix(service.name)
        models = tuple(f"{model}{suffix}" for model in service.models)
        named.append(replace(service, name=name, models=models))
    return named


def paths(services: Sequence[Service]) -> dict[str, list[tuple[Service, Route]]]:
    """Which services answer at which path.

    Services that requests tell apart by their `model` share a path. Of others that have the same, the first has it, and
    each has one under its own name, `/name/v1/…`.
    """
    found: dict[str, list[tuple[Service, Route]]] = defaultdict(list)
    for service in services:
        for route in service.routes:
            found[route.path].append((service, route))
    for path, several in list(found.items()):
        if len(several) > 1 and "model" not in several[0][1].request.model_fields:
            found[path] = several[:1]
            found |= {f"/{service.name}{path}": [(service, route)] for service, route in several}
    return dict(found)


def pages(services: Sequence[Service]) -> dict[str, Page]:
    """Which page is at which path. Of several services with the same path, the first has it, and each has one under its
    own name: from there it asks the routes under that name."""
    found: dict[str, list[tuple[Service, Page]]] = defaultdict(list)
    for service in services:
        for page in service.pages:
            found[page.path].append((service, page))
    placed = {path: several[0][1] for path, several in found.items()}
    for path, several in found.items():
        if len(several) > 1:
            placed |= {f"/{service.name}{path}": page for service, page in several}
    return placed
