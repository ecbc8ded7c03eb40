"""Settings of FLAME. Defaults are those of `configs/flame/demo.yaml` where the paper and its code are silent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from squadron.core.config import Config, decisive, operational
from squadron.core.rehearsal import AtMost, StandIns
from squadron.data.record_files import RecordsPath
from squadron.sim.manipulation.spec import EVAL, TEST, TRAIN, Factors

ChooseBy = Literal["success", "error"]
TaskName = Literal["close_box", "slide_block_to_target", "insert_onto_square_peg", "scoop_with_spatula"]


class HomesConfig(Config):
    """The simulated homes: one environment, and one federated client, each."""

    task: TaskName = "close_box"
    clients: Annotated[int, AtMost(3)] = Field(
        64, ge=1, le=len(TRAIN), description="homes that hold training data, environments 0, 1, …"
    )
    eval_homes: Annotated[int, AtMost(1)] = Field(
        5, ge=1, le=len(EVAL), description="held-out homes that choose the best round, from 400"
    )
    test_homes: Annotated[int, AtMost(1)] = Field(
        10, ge=1, le=len(TEST), description="held-out homes that give the result, from 410"
    )
    factors: Factors = Factors()
    seed: int = Field(0, ge=0, description="which worlds are drawn")


class DemosConfig(Config):
    """Demonstrations by the scripted expert, or recordings of one's own."""

    recordings: RecordsPath | None = Field(
        None, description="folder or URL of Parquet shards, one a home, to train on instead of the expert's"
    )
    per_home: Annotated[int, AtMost(2)] = Field(
        10, ge=2, description="successful episodes each home keeps; the last tenth, at least one, validates"
    )
    held_out_per_home: Annotated[int, AtMost(1)] = Field(
        2, ge=1, description="episodes of each held-out home, for the offline error"
    )
    image_size: Literal[64, 128] = Field(64, description="pixels; 64 in the paper's summary, 128 in its public code")
    shadows: bool = True
    action_noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="spread of the noise on executed velocities while the clean action is recorded",
    )
    max_steps: int = Field(300, ge=1, description="steps of 50 ms")
    seed: int = Field(0, ge=0, description="which episodes are drawn")
    timeout_s: float = operational(1800.0, gt=0, description="longest time for one home")


class TrainingConfig(Config):
    """Behaviour cloning on one home, as in the public code: Adam made anew each round, mean squared error."""

    local_epochs: Annotated[int, AtMost(1)] = Field(5, ge=1, description="passes over a home's data in a round")
    local_steps: Annotated[int | None, AtMost(2, unset=2)] = Field(
        None, ge=1, description="stop a visit after so many batches; None: all epochs"
    )
    batch_size: int = decisive(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    shift_px: int = Field(0, ge=0, description="random image shifts up to so many pixels; 0 in the paper")
    precision: Literal["fp32", "bf16", "auto"] = Field(
        "fp32", description="bf16 multiplies in bfloat16, weights stay float32; auto: where the processor can"
    )


class StrategyConfig(Config):
    """A strategy of `flwr.serverapp.strategy` by name, and settings of its own constructor."""

    name: str = "fedavg"
    settings: dict[str, Any] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """What it is called in a table."""
        told = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return f"{self.name} ({told})" if told else self.name


class BenchmarkConfig(Config):
    """Several tasks, each with several strategies, in one run and one table."""

    tasks: tuple[TaskName, ...] = Field(
        ("close_box", "slide_block_to_target", "insert_onto_square_peg", "scoop_with_spatula"), min_length=1
    )
    strategies: tuple[StrategyConfig, ...] = Field(
        (
            StrategyConfig(name="fedavg"),
            StrategyConfig(name="fedavgm"),
            StrategyConfig(name="fedadam", settings={"eta": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-9}),
            StrategyConfig(name="krum", settings={"num_malicious_nodes": 0}),
        ),
        min_length=1,
        description="by default FLAME's four; one may come several times, with other settings",
    )

    @model_validator(mode="after")
    def _none_comes_twice(self) -> BenchmarkConfig:
        for name in ("tasks", "strategies"):
            asked = [getattr(one, "label", one) for one in getattr(self, name)]
            if len(set(asked)) < len(asked):
                raise ValueError(f"{name} name one twice")
        return self

    def rehearse(self, stand_ins: StandIns) -> BenchmarkConfig:
        """Every strategy, on one task."""
        return self.model_copy(update={"tasks": self.tasks[:1]})


class RoundsConfig(Config):
    """How much training there is."""

    rounds: Annotated[int, AtMost(2)] = Field(30, ge=1)
    clients_per_round: Annotated[int, AtMost(2)] = Field(10, ge=1)
    seed: int = Field(0, ge=0, description="initial weights, choice of clients, order of batches")


class FederationConfig(RoundsConfig):
    """Rounds of the federation."""

    clients_per_evaluation: Annotated[int, AtMost(1)] = Field(
        1, ge=0, description="clients that report their validation loss each round"
    )
    candidate_every: Annotated[int, AtMost(1)] = decisive(
        5, ge=1, description="keep the policy of every so many rounds, and of the last, as a candidate"
    )
    timeout_s: float = operational(3600.0, gt=0, description="longest time for one client's visit")


class BaselinesConfig(Config):
    """What federated learning is measured against, at the same number of samples seen."""

    centralised: bool = Field(True, description="one policy trained on all homes' data pooled")
    local_only: Annotated[int, AtMost(1)] = Field(
        0, ge=0, description="so many homes each train a policy on their own data alone"
    )
    timeout_s: float = operational(6 * 3600.0, gt=0)


class EvaluationConfig(Config):
    """Held-out evaluation: offline root mean square error, online success."""

    episodes_per_home: Annotated[int, AtMost(1)] = Field(5, ge=1)
    max_steps: Annotated[int, AtMost(10)] = Field(300, ge=1, description="steps of 50 ms")
    film_homes: Annotated[int, AtMost(1)] = operational(4, ge=0, description="test homes shown in the film")
    film_size: Annotated[int, AtMost(64)] = operational(160, ge=64, le=512, description="pixels")
    seed: int = Field(1, ge=0, description="which episodes are drawn")
    timeout_s: float = operational(1800.0, gt=0, description="longest time for one home")


class FlameConfig(Config):
    """A FLAME run: homes, demonstrations, federation, baselines, evaluation; or, with `benchmark`, one for each task
    and strategy of it."""

    homes: HomesConfig = HomesConfig()
    demos: DemosConfig = DemosConfig()
    training: TrainingConfig = TrainingConfig()
    strategy: StrategyConfig = StrategyConfig()
    federation: FederationConfig = FederationConfig()
    baselines: BaselinesConfig = BaselinesConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    choose_by: ChooseBy = Field(
        "success",
        description="what rounds are chosen by in the evaluation homes; error: on held-out demonstrations, without "
        "letting any policy act",
    )
    benchmark: BenchmarkConfig | None = Field(
        None, description="tasks and strategies in place of homes.task and strategy"
    )

    @property
    def tasks(self) -> tuple[HomesConfig, ...]:
        """The homes of each task."""
        tasks = (self.homes.task,) if self.benchmark is None else self.benchmark.tasks
        return tuple(self.homes.model_copy(update={"task": task}) for task in tasks)

    @property
    def strategies(self) -> dict[str, StrategyConfig]:
        """The strategies that are tried on each task, by what the report calls their policies."""
        if self.benchmark is None:
            return {"federated": self.strategy}
        return {one.label: one for one in self.benchmark.strategies}

    @model_validator(mode="after")
    def _clients_suffice(self) -> FlameConfig:
        for name in ("clients_per_round", "clients_per_evaluation"):
            asked = getattr(self.federation, name)
            if asked > self.homes.clients:
                raise ValueError(f"federation.{name} is {asked}, but homes.clients is {self.homes.clients}")
        if self.baselines.local_only > self.homes.clients:
            raise ValueError(
                f"baselines.local_only is {self.baselines.local_only}, but homes.clients is {self.homes.clients}"
            )
        return self
