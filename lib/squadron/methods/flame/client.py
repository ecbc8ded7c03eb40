"""The Flower client of FLAME: a plain `ClientApp`, as it would run in a real home."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from squadron.core.folder import Folder
from squadron.methods.flame.algorithm import BCPolicy, Optimisation, fit, mean_squared_error
from squadron.methods.flame.config import TrainingConfig
from squadron.methods.flame.demos import cached_shard
from squadron.methods.flame.records import Shard


def make_client_app(
    run_folder: Folder, shards: Sequence[Shard], image_size: int, training: TrainingConfig, seed: int
) -> ClientApp:
    """A client app in which partition `i` trains on `shards[i]`.

    The messages carry the policy as `arrays` and `server-round` (and FedProx's `proximal-mu`) as `config`, which is
    what Flower's strategies send; replies carry `loss` and `num-examples`, by which they weigh.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition, config = int(context.node_config["partition-id"]), message.content.config_records["config"]
        policy = _load(message, image_size)
        data, _ = cached_shard(run_folder, shards[partition])
        visit_seed = _seed(seed, int(str(config["server-round"])), shards[partition].client_id)
        settings = optimisation(training, proximal_mu=float(str(config.get("proximal-mu", 0.0))))
        loss = fit(policy, data, settings, visit_seed)
        content = RecordDict(
            {
                "arrays": ArrayRecord(policy.cpu().state_dict()),
                "metrics": MetricRecord({"loss": loss, "num-examples": len(data)}),
            }
        )
        return Message(content=content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        _, validation = cached_shard(run_folder, shards[int(context.node_config["partition-id"])])
        error = mean_squared_error(_load(message, image_size), validation)
        metrics = MetricRecord({"validation_loss": error, "num-examples": len(validation)})
        return Message(content=RecordDict({"metrics": metrics}), reply_to=message)

    return app


def optimisation(training: TrainingConfig, proximal_mu: float = 0.0) -> Optimisation:
    """The settings of one visit to a home, as the algorithm takes them."""
    return Optimisation(
        epochs=training.local_epochs,
        max_steps=training.local_steps,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        shift_px=training.shift_px,
        proximal_mu=proximal_mu,
        bf16=training.precision == "bf16" or (training.precision == "auto" and multiplies_bf16()),
    )


def multiplies_bf16() -> bool:
    """Whether this worker's processor multiplies bfloat16 itself. One that does not takes some eight times as long as
    for float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)


def device() -> torch.device:
    """The GPU that Ray gave this worker, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _load(message: Message, image_size: int) -> BCPolicy:
    policy = BCPolicy(image_size)
    policy.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    return policy.to(device())


def _seed(seed: int, server_round: int, client_id: int) -> int:
    return int(np.random.SeedSequence((seed, server_round, client_id)).generate_state(1)[0])
