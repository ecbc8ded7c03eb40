"""What a federation is compared with: one policy trained on all data pooled, and policies trained at home alone."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from squadron.core.errors import InputError
from squadron.core.folder import Folder, relative
from squadron.core.row_progress import report_progress
from squadron.core.sealed_files import read_sealed, write_sealed
from squadron.methods.flame.algorithm import BCPolicy, Demonstrations, Optimisation, fit, make_optimiser
from squadron.methods.flame.client import device, optimisation
from squadron.methods.flame.config import RoundsConfig, TrainingConfig
from squadron.methods.flame.demos import pool, read_shard
from squadron.methods.flame.records import Policy, Shard


def steps_of_a_round(training: TrainingConfig, federation: RoundsConfig, steps_per_home: float) -> int:
    """Optimisation steps that all clients of one round take together."""
    epochs = training.local_epochs * math.ceil(steps_per_home / training.batch_size)
    return federation.clients_per_round * min(epochs, training.local_steps or epochs)


def train_alone(
    row: dict[str, Any],
    run_folder: Folder,
    folder: Folder,
    image_size: int,
    training: TrainingConfig,
    seed: int,
) -> dict[str, Any]:
    """Train one policy on the shards of `row` for `row["rounds"]` times `row["steps"]` batches; one Adam throughout.

    Progress is saved after every round's worth of batches, and a worker that takes over goes on from there.
    """
    data = pool([read_shard(run_folder, Shard.model_validate(shard))[0] for shard in row["shards"]])
    torch.manual_seed(seed)
    policy = BCPolicy(image_size).to(device())
    settings = optimisation(training)
    optimiser = make_optimiser(policy, settings)
    checkpoint = f"{row['id']}.progress"
    losses = _resume(folder, checkpoint, policy, optimiser)
    for done in range(len(losses), row["rounds"]):
        with _denormals_flushed():
            losses.append(_one_round(policy, data, settings, row["steps"], seed + done, optimiser))
        report_progress(len(losses) / row["rounds"])
        _save(folder, checkpoint, policy, optimiser, losses)
    name = f"{row['id']}.safetensors"
    save_policy(folder, name, policy)
    folder.remove(checkpoint)
    made = Policy.of(run_folder, relative(folder, run_folder, name), name=row["id"], image_size=image_size)
    return {"policy": made.model_dump(mode="json"), "losses": losses}


def save_policy(folder: Folder, name: str, policy: torch.nn.Module) -> None:
    """Write weights as safetensors."""
    from safetensors.torch import save

    folder.write_bytes(name, save({key: value.cpu().contiguous() for key, value in policy.state_dict().items()}))


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Compute with zero for denormal numbers here, and as before afterwards: it is the processor that is set.

    Within a thousand steps Adam's moments of units that have died decay to such numbers; processors are slow with them.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _one_round(
    policy: BCPolicy,
    data: Demonstrations,
    settings: Optimisation,
    steps: int,
    seed: int,
    optimiser: torch.optim.Optimizer,
) -> float:
    epochs = math.ceil(steps * settings.batch_size / len(data)) + 1
    budget = Optimisation(**{**settings.__dict__, "epochs": epochs, "max_steps": steps})
    return fit(policy, data, budget, seed, optimiser)


def _save(folder: Folder, name: str, policy: BCPolicy, optimiser: torch.optim.Optimizer, losses: list[float]) -> None:
    """Write weights, moments and losses as one sealed file."""
    stream = io.BytesIO()
    torch.save({"policy": policy.state_dict(), "optimiser": optimiser.state_dict(), "losses": losses}, stream)
    write_sealed(folder, name, stream.getvalue())


def _resume(folder: Folder, name: str, policy: BCPolicy, optimiser: torch.optim.Optimizer) -> list[float]:
    """Take up what was saved, and return the loss of each round; where there is nothing, or it has changed since, all
    begins anew, to the same end."""
    try:
        data = read_sealed(folder, name)
    except InputError:
        return []
    state = torch.load(io.BytesIO(data), weights_only=True, map_location=device())
    policy.load_state_dict(state["policy"])
    optimiser.load_state_dict(state["optimiser"])
    losses: list[float] = state["losses"]
    return losses
