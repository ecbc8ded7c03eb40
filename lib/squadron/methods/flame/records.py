"""What the stages of FLAME hand to each other: small records; files are named relative to the run folder."""

from __future__ import annotations

from squadron.core.artifacts import Artifact
from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.evaluate.summary import Estimate
from squadron.sim.manipulation.spec import EnvironmentSpec


class Shard(Artifact):
    """One home's demonstrations: a Parquet file, and what is in it."""

    client_id: int
    episodes: int
    steps: int
    attempts: int


class Homes(Artifact):
    """The environments of a run; the file holds their specifications, from which each is rebuilt exactly."""

    task: str
    train: tuple[int, ...]
    eval: tuple[int, ...]
    test: tuple[int, ...]

    def specs(self, run: Folder) -> dict[int, EnvironmentSpec]:
        """The specifications that `build_homes` wrote, by client id."""
        return Specs.model_validate(self.read_json(run)).specs


class Specs(Config):
    """The content of the file of `Homes`, by client id."""

    specs: dict[int, EnvironmentSpec]


class Demos(Artifact):
    """Demonstrations of the homes that train, and of those held out. The file lists the shards as JSON."""

    image_size: int
    clients: int
    steps: int

    def shards(self, run: Folder) -> Shards:
        """The shards that `collect_demos` listed."""
        return Shards.model_validate(self.read_json(run))


class Shards(Config):
    """The content of the file of `Demos`."""

    train: tuple[Shard, ...]
    held_out: tuple[Shard, ...]


class Policy(Artifact):
    """Weights of a `BCPolicy` in a safetensors file."""

    name: str
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
    """The comparison at the end of a task."""

    task: str

    scores: tuple[PolicyScore, ...]


class Experiments(Config):
    """What a benchmark came to."""

    tasks: tuple[PolicyScores, ...]
