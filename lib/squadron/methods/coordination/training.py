"""Training the graph variational autoencoder, with and without its latent vector, on the house's loop.

Letters: N nodes, E joint-action edges of all graphs of a batch, B graphs, Z latent size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.run import Stage
from squadron.core.run_reader import outputs
from squadron.data.rows import ArrowRows
from squadron.evaluate.panels import step_curves
from squadron.methods.coordination.config import CostName, LossConfig, ModelConfig
from squadron.methods.coordination.features import MESSAGE_FEATURES, NODE_FEATURES, join
from squadron.methods.coordination.records import Labels, Planner, Planners
from squadron.train.checkpoints.checkpoint import Reader
from squadron.train.multi_run import TrainJob, train_several
from squadron.train.spec import TrainSpec
from squadron.train.worker import PREFIX

if TYPE_CHECKING:
    import torch

    from squadron.methods.coordination.model import GraphVae


def train_planners(
    stage: Stage, labels: Labels, models: Mapping[str, ModelConfig], loss: LossConfig, spec: TrainSpec
) -> tuple[Planner, ...]:
    """Train each network on the labelled plans, show its losses, and keep it as `config.json` and
    `model.safetensors`. Raises as `train_several` does."""
    jobs = [
        TrainJob(
            name.replace(" ", "-"),
            Build(model, spec.seed),
            PlanLoss(loss),
            ArrowRows(stage.run.folder, [labels.train]),
            spec,
            held_out=ArrowRows(stage.run.folder, [labels.held_out]),
            length=None,
            identity=name,
            export=partial(_export, model),
        )
        for name, model in models.items()
    ]
    planners = []
    for name, result in zip(models, train_several(stage, jobs), strict=True):
        shown = {"order": "order", "following": "type", "loss": "all", "held_out_loss": "held out, all"}
        stage.show(step_curves(f"Loss of {name}", result.metrics, shown))
        held_out = [row["held_out_loss"] for row in result.metrics if "held_out_loss" in row]
        made = Planner.made(
            stage,
            f"{result.name}/model",
            name=name,
            cost=labels.cost,
            held_out_loss=held_out[-1] if held_out else None,
        )
        planners.append(made)
    return tuple(planners)


def adopt(stage: Stage, cost: CostName, source: Folder) -> tuple[Planner, ...]:
    """Copy the networks that an earlier run has trained for a cost, or the one network in a folder, for the stage.

    Raises InputError if there is none, if it was trained for other costs, or if it does not fit this version: its
    weights must take the features that graphs have here.
    """
    if source.exists("run.json"):
        trained = [one for record in outputs(source, "train_planners", Planners) for one in record.planners]
        known = dict.fromkeys(one.cost for one in trained)
        found = {one.name: Folder(one.locate(source)) for one in trained if one.cost == cost}
        if not found:
            fix = f"set costs to {', '.join(known)}"
            raise InputError(f"no network was trained for {cost}", where=str(source), fix=fix)
    else:
        found = {"graph VAE": source}
    planners = []
    for name, folder in found.items():
        model = load_planner(folder)
        place = f"{name.replace(' ', '-')}/model"
        save_planner(stage.folder / place, model.config, model.state_dict())
        planners.append(Planner.made(stage, place, name=name, cost=cost, held_out_loss=None))
    stage.headline(f"networks for {cost.replace('_', ' ')}", ", ".join(found))
    return tuple(planners)


def _export(config: ModelConfig, reader: Reader, folder: Path) -> None:
    weights = {name.removeprefix(PREFIX): weight for name, weight in reader.tensors()}
    save_planner(Folder(folder), config, weights)


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
        latent_BZ = batch["nodes"].new_zeros(graphs, model.config.latent)
        divergence = latent_BZ.new_zeros(())
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
    folder.write_bytes("config.json", config.model_dump_json(indent=1).encode())


def load_planner(folder: Folder) -> GraphVae:
    """A network that `save_planner` wrote. Raises InputError if the folder holds none, or its parts do not fit."""
    import torch
    from pydantic import ValidationError
    from safetensors import SafetensorError
    from safetensors.torch import load

    from squadron.methods.coordination.model import GraphVae

    try:
        config = ModelConfig.model_validate_json(folder.read_bytes("config.json"))
        weights = load(folder.read_bytes("model.safetensors"))
        if max(config.layers, config.hidden, config.latent) > sum(weight.numel() for weight in weights.values()):
            raise RuntimeError("its settings are those of a larger network")
        with torch.device("meta"):  # before the weights fit it, it takes no memory
            GraphVae(config).load_state_dict(weights, assign=True)
        model = GraphVae(config)
        model.load_state_dict(weights)
        if not all(torch.isfinite(weight).all() for weight in weights.values()):
            raise RuntimeError("its weights are not finite")
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
