"""Settings of coordination. Where the paper is silent, the default is reasoned in the description."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from squadron.core.config import Config, decisive, operational
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import AtMost, StandIns
from squadron.sim.fleet.spec import FloorConfig
from squadron.train.spec import OptimizerConfig, ScheduleConfig, TrainSpec

CostName = Literal["average_completion", "maximum_completion", "synchronous_completion", "average_delay"]
SolverName = Literal["cpsat", "highs"]
Distinct = Literal["order", "plan"]


class Area(Config):
    """A rectangle of the floor with a density limit of its own."""

    x_m: tuple[float, float]
    y_m: tuple[float, float]
    density: int = Field(ge=1, description="so many robots at most in a shared interval that touches it")


class FloorLimits(Config):
    """How large robots are and how many may crowd together."""

    radius_m: float = Field(0.4, gt=0, description="robots are discs")
    density: int = Field(2, ge=1, description="so many robots at most at a time where intervals meet")
    areas: tuple[Area, ...] = ()


class ProblemsConfig(Config):
    """Random problems to learn from. The paper: 10,000 of 2 to 8 robots and at most 14 intervals."""

    count: Annotated[int, AtMost(12)] = Field(10_000, ge=1)
    robots: Annotated[tuple[int, int], AtMost(4)] = Field((2, 8), description="fewest and most")
    max_intervals: int = Field(14, ge=2, description="a draw with more, or with none to decide, is drawn again")
    floor: FloorConfig = Field(
        FloorConfig(area_per_robot_m2=20.0), description="twice as crowded as what is planned later: more to learn from"
    )
    held_out: float = Field(0.05, gt=0, lt=0.5, description="share of problems that the loss is measured on")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _robots_are_a_range(self) -> ProblemsConfig:
        if not 2 <= self.robots[0] <= self.robots[1]:
            raise ValueError(f"robots must be two numbers from 2 on, the fewer first, not {self.robots}")
        return self


class LabelsConfig(Config):
    """Optimal plans for each problem. The paper: the best ten by Gurobi."""

    count: Annotated[int, AtMost(2)] = Field(10, ge=1, description="best plans for each problem")
    distinct: Distinct = Field(
        "order",
        description="plan: another assignment each, as in the paper, of which many differ in types that change nothing",
    )
    within: float = Field(
        0.05,
        ge=0,
        description="plans that cost more than the best by a larger share are no lesson; paper: any",
    )
    solver: SolverName = Field("cpsat", description="highs is the literal mixed-integer programme, and slower")
    time_limit_s: Annotated[float, AtMost(2)] = decisive(
        20.0, gt=0, description="for each plan; one that is not proven best keeps its gap"
    )
    timeout_s: float = operational(900.0, gt=0, description="longest time for one problem")


class ModelConfig(Config):
    """Size of the network. The paper's is 4 layers of 256; its heads and latent size are not published."""

    hidden: Annotated[int, AtMost(16)] = Field(64, ge=1)
    layers: Annotated[int, AtMost(2)] = Field(3, ge=1)
    heads: Annotated[int, AtMost(2)] = Field(4, ge=1)
    latent: Annotated[int, AtMost(4)] = Field(
        16, ge=0, description="0: a network that gives one answer, without a latent vector"
    )

    activation: Literal["elu", "relu"] = Field("elu", description="after each layer; the paper: relu")

    @model_validator(mode="after")
    def _heads_share_the_hidden_size(self) -> ModelConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is no multiple of heads {self.heads}")
        return self


class LossConfig(Config):
    """The paper's three terms and their weights."""

    order: float = Field(1.0, ge=0, description="hinge on ranks, for who goes first")
    margin: float = Field(0.1, gt=0, description="ranks must differ by as much, the right way round")
    following: float = Field(1.0, ge=0, description="cross-entropy, for the type")
    divergence: float = Field(0.01, ge=0, description="from a standard normal latent vector")


class SamplingConfig(Config):
    """How plans are made of a network. The paper: 100 latent vectors, a plan each, of which the best is kept."""

    samples: Annotated[int, AtMost(10)] = Field(100, ge=1, description="plans of which the best is kept")
    variations: int = Field(4, ge=1, description="plans of one latent vector, each with other noise; 1 in the paper")
    spread: float = Field(
        0.5, ge=0, description="of the noise on the logarithms of bids, growing from none at the first plan; paper: 0"
    )
    regrants: int = Field(
        1, ge=0, description="how often following is granted anew, to those who would lose most without it; paper: 0"
    )
    rounds: Annotated[int, AtMost(2)] = Field(
        10,
        ge=0,
        description="of as many samples again around the best so far, on graphs of 1,000 intervals and encounters or "
        "more; up to five times as many on smaller ones; paper: 0",
    )
    flips: int = Field(4, ge=1, description="encounters that such a sample changes, at most")
    by_parts: bool = Field(True, description="keep the best for each group of robots that meets no other; paper: false")
    seed: int = Field(0, ge=0)


def published_sampling(sampling: SamplingConfig) -> SamplingConfig:
    """The paper's way to sample, with as many samples."""
    return SamplingConfig(
        samples=sampling.samples, variations=1, spread=0.0, regrants=0, rounds=0, by_parts=False, seed=sampling.seed
    )


class EvaluationConfig(Config):
    """Unseen problems, and what the network is measured against on them."""

    robots: Annotated[tuple[int, ...], AtMost(6, distinct=True)] = Field(
        (5, 10, 25, 50, 100, 250), min_length=1, description="sizes of problems"
    )
    problems: Annotated[int, AtMost(1)] = Field(10, ge=1, description="of each size")
    floor: FloorConfig = FloorConfig()
    maps: float = Field(0.5, ge=0, le=1, description="share of problems on random grid maps, which training never sees")
    map_cells_per_robot: float = Field(40.0, ge=4)
    blocked: float = Field(0.1, ge=0, lt=0.6, description="share of a map's cells")
    reference_s: Annotated[float, AtMost(1)] = Field(
        60.0, gt=0, description="time of the exact solver; the best of all methods is the reference"
    )
    evolution_times: float = Field(10.0, gt=0, description="CMA-ES may take so many times as long as the network")
    back_tracking_s: Annotated[float, AtMost(1)] = Field(10.0, gt=0)
    timeout_s: float = operational(1800.0, gt=0, description="longest time for one problem")
    seed: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _sizes_are_robots(self) -> EvaluationConfig:
        if min(self.robots) < 2:
            raise ValueError("robots must be sizes of 2 or more")
        return self


class FleetConfig(Config):
    """Robots of one's own: a file of routes, or a map of MovingAI with starts and tasks as the MAPF competition has
    them."""

    routes: InputPath | None = Field(None, description='a line for each robot: {"route": [[x, y], …]}, in metres')
    map: InputPath | None = None
    starts: InputPath | None = None
    tasks: InputPath | None = None
    robots: Annotated[int | None, AtMost(4)] = Field(
        None, ge=1, description="the first so many starts and tasks; None: all"
    )
    seed: int = Field(0, ge=0, description="which of equally short ways on the map robots take")

    @model_validator(mode="after")
    def _one_source(self) -> FleetConfig:
        on_map = [self.map, self.starts, self.tasks]
        if (self.routes is None and None in on_map) or (self.routes is not None and any(on_map)):
            raise ValueError("give routes, or map, starts and tasks")
        return self

    def rehearse(self, stand_ins: StandIns) -> FleetConfig:
        """On the user's own files where they are."""
        from squadron.methods.coordination import rehearsal

        made = {
            "routes": rehearsal.made_up_routes,
            "map": rehearsal.made_up_map,
            "starts": rehearsal.made_up_starts,
            "tasks": rehearsal.made_up_tasks,
        }
        named = {name: path for name in made if (path := getattr(self, name)) is not None}
        return self.model_copy(update={name: stand_ins.text(path, made[name]) for name, path in named.items()})


class PlannersPath(InputPath):
    """A run folder, or the folder of a network. Reports and curves of that run do not count."""

    @classmethod
    def reads(cls, name: str) -> bool:
        """What says which networks there are, and the networks."""
        return name.rpartition("/")[2] in ("run.json", "done.json", "config.json", "model.safetensors")


class CoordinationConfig(Config):
    """A coordination run: problems, labels, a network for each cost, and the comparison."""

    costs: tuple[CostName, ...] = Field(("average_completion",), min_length=1, description="one network for each")
    limits: FloorLimits = FloorLimits()
    problems: ProblemsConfig = ProblemsConfig()
    labels: LabelsConfig = LabelsConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    training: TrainSpec = TrainSpec(
        epochs=10,
        batch_size=128,
        micro_batch_size=128,
        optimizer=OptimizerConfig(learning_rate=3e-4, betas=(0.9, 0.999)),
        schedule=ScheduleConfig(kind="constant", warmup_ratio=0.0),
    )
    sampling: SamplingConfig = SamplingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    fleet: FleetConfig | None = Field(None, description="robots of your own, planned by the network of each cost")
    planners: PlannersPath | None = Field(
        None, description="folder of an earlier run, or of a network in it: the fleet is planned by it, nothing trained"
    )

    @model_validator(mode="after")
    def _costs_differ(self) -> CoordinationConfig:
        if len(set(self.costs)) < len(self.costs):
            raise ValueError("a cost is named twice")
        return self

    @model_validator(mode="after")
    def _planners_have_a_fleet(self) -> CoordinationConfig:
        if self.planners is not None and self.fleet is None:
            raise ValueError("planners plan a fleet of your own: set fleet, too")
        return self
