"""Training the graph variational autoencoder, with and without its latent vector, on the house's loop.

Letters: N nodes, E joint-action edges of all graphs of a batch, B graphs, Z latent size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from squadron.core.errors import InputError
from squadron.core.folder import Folder, relative
from squadron.core.profile import WorkerResources
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows
from squadron.methods.coordination.config import LossConfig, ModelConfig
from squadron.methods.coordination.features import MESSAGE_FEATURES, NODE_FEATURES, join
from squadron.methods.coordination.records import Labels, Planner
from squadron.train.batching.batches import RowSource
from squadron.train.multi_run import one_process_each, run_side_by_side, train_in_process
from squadron.train.planning.allocation import place
from squadron.train.spec import TrainSpec
from squadron.train.worker import PREFIX

if TYPE_CHECKING:
    import torch

    from squadron.methods.coordination.model import GraphVae


def train_planners(
    stage: Stage, labels: Labels, models: Mapping[str, ModelConfig], loss: LossConfig, spec: TrainSpec
) -> tuple[Planner, ...]:
    """Train each network on the labelled plans, and write it as `config.json` and `model.safetensors`.

    Where the workers of training have no GPU and their number was not asked for, networks train side by side, each on
    an even share of a node's cores; else one after the other by `fit`.
    """
    workers, share = place(stage, spec)
    courses = {name: Course(name, model, loss, spec, labels, stage.run.folder) for name, model in models.items()}
    if one_process_each(stage, [share]):
        trainings = {course.place: partial(_train_here, course, stage.folder) for course in courses.values()}
        run_side_by_side(stage, trainings, share.cpus)
    else:
        for course in courses.values():
            _train_by_group(stage, course, workers, share)
    return tuple(_written(stage, course) for course in courses.values())


@dataclass(frozen=True)
class Course:
    """One network, and what it learns from."""

    name: str
    model: ModelConfig
    loss: LossConfig
    spec: TrainSpec
    labels: Labels
    run_folder: Folder

    @property
    def place(self) -> str:
        """Its folder in the stage's."""
        return self.name.replace(" ", "-")

    @property
    def rows(self) -> ArrowRows:
        return ArrowRows(self.run_folder, [self.labels.train])

    @property
    def held_out(self) -> ArrowRows:
        return ArrowRows(self.run_folder, [self.labels.held_out])


def _train_here(course: Course, folder: Folder) -> None:
    """Train one network in this process. Runs on a worker."""
    store = folder / course.place
    step = train_in_process(
        PlanLoss(course.loss),
        Build(course.model, course.spec.seed),
        RowSource(course.rows),
        course.spec,
        store,
        held_out=course.held_out,
        identity=course.name,
        on_step=lambda step, metrics: _note(store, step, metrics),
    )
    _write(store, course, step)


def _train_by_group(stage: Stage, course: Course, workers: int, share: WorkerResources) -> None:
    from squadron.core.progress import progress
    from squadron.train import fit

    source, store = RowSource(course.rows), stage.folder / course.place
    with progress(course.spec.steps or source.steps(course.spec), course.name, "step") as bar:

        def on_step(step: int, metrics: dict[str, float]) -> None:
            _note(store, step, metrics)
            bar.advance(step - bar.done)

        fitted = fit(
            PlanLoss(course.loss),
            Build(course.model, course.spec.seed),
            source,
            course.spec,
            store,
            held_out=course.held_out,
            workers=workers,
            resources=share,
            identity=course.name,
            on_step=on_step,
        )
    _write(store, course, fitted.step)


def _note(store: Folder, step: int, metrics: dict[str, float]) -> None:
    store.append_line("metrics.jsonl", json.dumps({"step": step, **metrics}))


def read_metrics(store: Folder) -> list[dict[str, float]]:
    """Metrics of each step, as done last, in order."""
    rows = {row["step"]: row for row in store.read_lines("metrics.jsonl")}
    return [rows[step] for step in sorted(rows)]


def _write(store: Folder, course: Course, step: int) -> None:
    from squadron.train.checkpoints.checkpoint import Reader

    with Reader(store, step) as reader:
        weights = {name.removeprefix(PREFIX): weight for name, weight in reader.tensors()}
    save_planner(store / "model", course.model, weights)


def _written(stage: Stage, course: Course) -> Planner:
    store = stage.folder / course.place
    held_out = [row["held_out_loss"] for row in read_metrics(store) if "held_out_loss" in row]
    return Planner(
        name=course.name,
        cost=course.labels.cost,
        path=relative(stage.folder, stage.run.folder, f"{course.place}/model"),
        sha256=hashlib.sha256((store / "model").read_bytes("model.safetensors")).hexdigest(),
        held_out_loss=held_out[-1] if held_out else None,
    )


@dataclass(frozen=True)
class Build:
    """Makes the network on a worker."""

    config: ModelConfig
    seed: int

    def __call__(self) -> GraphVae:
        import torch

        from squadron.methods.coordination.model import GraphVae

        torch.manual_seed(self.seed)
        return GraphVae(self.config)


@dataclass(frozen=True)
class PlanLoss:
    """The paper's loss: a hinge on the ranks of each edge's ends, cross-entropy on its type, and the divergence of the
    latent vector from a standard normal one; means over edges, and over graphs for the last."""

    config: LossConfig

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Several graphs with their plans as one."""
        import torch

        graphs = [_unflatten(row) for row in rows]
        joined = join(graphs)
        robots = np.cumsum([0, *(int(row["robot"][-1]) + 1 for row in rows[:-1])])
        robot_N = np.concatenate([np.asarray(row["robot"]) + first for row, first in zip(rows, robots, strict=True)])
        plans = {name: np.concatenate([np.asarray(row[name]) for row in rows]) for name in ("first", "following")}
        batch = {name: torch.as_tensor(values) for name, values in {**joined, "robot": robot_N}.items()}
        return batch | {name: torch.as_tensor(values, dtype=torch.float32) for name, values in plans.items()}

    def weight(self, batch: dict[str, torch.Tensor]) -> float:
        """Graphs."""
        return float(batch["graph"][-1]) + 1

    def __call__(self, model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        import torch
        from torch.nn import functional

        from squadron.methods.coordination.model import route_ranks

        graphs = int(batch["graph"][-1]) + 1
        divergence = torch.zeros(())
        latent_BZ = torch.zeros(graphs, model.config.latent)
        if model.config.latent:
            mean_BZ, log_spread_BZ = model.encode(batch)
            latent_BZ = mean_BZ + log_spread_BZ.exp() * torch.randn_like(mean_BZ)
            divergence = 0.5 * (mean_BZ**2 + (2 * log_spread_BZ).exp() - 1 - 2 * log_spread_BZ).sum(1).mean()
        decoded = model.decode(batch, latent_BZ)
        rank_N = route_ranks(decoded.bid_N, batch["robot"])
        ahead_E = (rank_N[batch["edges"][1]] - rank_N[batch["edges"][0]]) * (2 * batch["first"] - 1)
        order = functional.relu(self.config.margin - ahead_E).mean()
        following = functional.binary_cross_entropy_with_logits(decoded.confidence_E, batch["following"])
        config = self.config
        loss = config.order * order + config.following * following + config.divergence * divergence
        right = (ahead_E > 0).float().mean()
        return loss, {"order": order, "following": following, "divergence": divergence, "right_order": right}


def save_planner(folder: Folder, config: ModelConfig, weights: Mapping[str, torch.Tensor]) -> None:
    """Write a network: `config.json` and `model.safetensors`."""
    from safetensors.torch import save

    folder.make().write_bytes(
        "model.safetensors", save({name: weight.contiguous() for name, weight in weights.items()})
    )
    folder.write_json("config.json", config.model_dump(mode="json"))


def load_planner(folder: Folder) -> GraphVae:
    """A network that `save_planner` wrote. Raises InputError if the folder holds none, or its parts do not fit."""
    from pydantic import ValidationError
    from safetensors import SafetensorError
    from safetensors.torch import load

    from squadron.methods.coordination.model import GraphVae

    try:
        model = GraphVae(ModelConfig.model_validate_json(folder.read_bytes("config.json")))
        model.load_state_dict(load(folder.read_bytes("model.safetensors")))
    except (OSError, ValidationError, SafetensorError, RuntimeError) as error:
        raise InputError(f"no planner can be loaded: {error}", where=str(folder)) from None
    return model.eval()


def _unflatten(row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {
        "nodes": np.asarray(row["nodes"], np.float32).reshape(-1, NODE_FEATURES),
        "message": np.asarray(row["message"], np.int64).reshape(2, -1),
        "messages": np.asarray(row["messages"], np.float32).reshape(-1, MESSAGE_FEATURES),
        "edges": np.asarray(row["edges"], np.int64).reshape(2, -1),
    }
