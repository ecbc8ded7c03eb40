"""The stages of a coordination run, in the order of `jobs/coordination.py`."""

from __future__ import annotations

from statistics import fmean

from squadron.core.folder import Folder
from squadron.core.inputs import InputPath
from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.methods.coordination import plan
from squadron.methods.coordination.config import (
    CostName,
    EvaluationConfig,
    FleetConfig,
    FloorLimits,
    LabelsConfig,
    LossConfig,
    ModelConfig,
    ProblemsConfig,
    SamplingConfig,
)
from squadron.methods.coordination.records import Fleet, Labels, Planned, Planners, Ratios
from squadron.train.spec import TrainSpec


@estimated(plan.labels)
def label_problems(
    stage: Stage, cost: CostName, problems: ProblemsConfig, limits: FloorLimits, labels: LabelsConfig
) -> Labels:
    """Draw random problems and find the best plans of each."""
    from squadron.methods.coordination.labels import label

    return label(stage, cost, problems, limits, labels)


@estimated(plan.training)
def train_planners(stage: Stage, labels: Labels, model: ModelConfig, loss: LossConfig, training: TrainSpec) -> Planners:
    """Teach networks to propose plans like the best: with a latent vector, and without."""
    from squadron.methods.coordination.training import train_planners

    models = {"graph VAE": model, "no latent vector": model.model_copy(update={"latent": 0})}
    return Planners(planners=train_planners(stage, labels, models, loss, training))


def adopt_planners(stage: Stage, cost: CostName, planners: InputPath) -> Planners:
    """Take the networks of an earlier run for this cost, and see to it that they can plan."""
    from squadron.methods.coordination.training import adopt

    return Planners(planners=adopt(stage, cost, Folder(str(planners))))


@estimated(plan.comparison)
def compare(
    stage: Stage,
    trained: Planners,
    limits: FloorLimits,
    sampling: SamplingConfig,
    config: EvaluationConfig,
) -> Ratios:
    """Plan unseen problems, up to hundreds of robots, with the network and with everything else."""
    from squadron.methods.coordination import benchmark, figures, film

    ours = trained.planners[0]
    scores = benchmark.compete(stage, trained.planners, limits, sampling, config)
    found = figures.ratios(scores, ours.cost)
    for curves in figures.curves(found):
        stage.show(curves)
    stage.show(figures.ratio_table(found))
    stage.show(figures.savings_table(scores, ours.name, benchmark.EVOLUTION))
    stage.show(figures.ratio_spread(scores, [planner.name for planner in trained.planners]))
    film.show(stage, ours, limits, sampling, config)
    own = [row for row in found.ratios if row.method == ours.name]
    for row in own:
        shown = f"{ours.cost.replace('_', ' ')}, {row.robots} robots, {row.world}"
        stage.headline(shown, f"{row.mean:.3f} of the best known")
    stage.measure(ratio=fmean(row.mean for row in own))
    return found


def read_fleet(stage: Stage, fleet: FleetConfig, limits: FloorLimits) -> Fleet:
    """Read the routes of one's own robots, and see to it that they can be planned."""
    from squadron.methods.coordination.fleet import check_fleet

    return check_fleet(stage, fleet, limits)


def plan_fleet(stage: Stage, trained: Planners, fleet: Fleet, limits: FloorLimits, sampling: SamplingConfig) -> Planned:
    """Plan robots of one's own."""
    from squadron.methods.coordination import fleet as module

    return module.plan_fleet(stage, trained.planners[0], fleet, limits, sampling)
