"""What the stages of FLAME hand to each other: small records; files are named relative to the run folder."""

from __future__ import annotations

import hashlib

from squadron.core.config import Config
from squadron.core.folder import Folder, relative
from squadron.evaluate.summary import Estimate
from squadron.sim.manipulation.spec import EnvironmentSpec


class Shard(Config):
    """One home's demonstrations: a file relative to the run folder, and what is in it."""

    client_id: int
    file: str
    episodes: int
    steps: int
    attempts: int
    sha256: str


class Homes(Config):
    """The environments of a run; `file` holds their specifications, from which each is rebuilt exactly."""

    task: str
    file: str
    sha256: str
    train: tuple[int, ...]
    eval: tuple[int, ...]
    test: tuple[int, ...]


class Specs(Config):
    """The content of `Homes.file`, by client id."""

    specs: dict[int, EnvironmentSpec]


class Demos(Config):
    """Demonstrations of the homes that train, and of those held out. `file` lists the shards as JSON."""

    image_size: int
    file: str
    sha256: str
    clients: int
    steps: int


class Shards(Config):
    """The content of `Demos.file`."""

    train: tuple[Shard, ...]
    held_out: tuple[Shard, ...]


class Policy(Config):
    """Weights of a `BCPolicy` in a safetensors file."""

    name: str
    file: str
    sha256: str
    image_size: int
    round: int | None = None


class Federated(Config):
    """The candidates of a federation, one for each kept round; the last is the final policy."""

    candidates: tuple[Policy, ...]
    failed_visits: int


class Policies(Config):
    """Several policies to be compared."""

    policies: tuple[Policy, ...]


class PolicyScore(Estimate):
    """One policy on held-out homes: success, and root mean square error."""

    policy: str
    rmse: float


class PolicyScores(Config):
    """The comparison at the end."""

    scores: tuple[PolicyScore, ...]


def write_record(folder: Folder, run_folder: Folder, name: str, record: Config) -> tuple[str, str]:
    """Write a record into a stage's folder; return its path relative to the run folder, and its SHA-256."""
    data = record.model_dump_json(indent=1).encode()
    folder.write_bytes(name, data)
    return relative(folder, run_folder, name), hashlib.sha256(data).hexdigest()


def load_specs(run_folder: Folder, homes: Homes) -> dict[int, EnvironmentSpec]:
    """The specifications that `build_homes` wrote, by client id."""
    return Specs.model_validate(run_folder.read_json(homes.file)).specs


def load_shards(run_folder: Folder, demos: Demos) -> Shards:
    """The shards that `collect_demos` listed."""
    return Shards.model_validate(run_folder.read_json(demos.file))
