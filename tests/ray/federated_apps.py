"""Client apps and a plain grid that the tests of federated learning share. Small NumPy models, no Ray in here."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.message import make_message
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SHAPES = {"weight": (4, 3), "bias": (3,), "scale": ()}


def model(value: float = 0.0) -> ArrayRecord:
    """A small model in float32, with a scalar among its arrays."""
    return ArrayRecord({name: Array(np.full(shape, value, np.float32)) for name, shape in SHAPES.items()})


def values(record: ArrayRecord) -> dict[str, np.ndarray[Any, Any]]:
    return {name: array.numpy() for name, array in record.items()}


def step(arrays: ArrayRecord, client: int, add: float = 0.0) -> ArrayRecord:
    """What a client without any randomness does: each entry moves by its own amount."""
    moved = {}
    for name, array in arrays.items():
        old = array.numpy()
        amount = np.sin(np.arange(old.size) + client).reshape(old.shape) / (client + 3) + add
        moved[name] = Array(np.asarray(old + amount.astype(old.dtype)))
    return ArrayRecord(moved)


def train_steadily(message: Message, context: Context) -> Message:
    client = int(context.node_config["partition-id"])
    metrics = MetricRecord({"num-examples": client + 1, "train_loss": 1.0 / (client + 1)})
    return Message(RecordDict({"arrays": step(message.content["arrays"], client), "m": metrics}), reply_to=message)


def evaluate_steadily(message: Message, context: Context) -> Message:
    total = float(sum(array.numpy().sum() for array in message.content["arrays"].values()))
    return Message(RecordDict({"m": MetricRecord({"num-examples": 1, "loss": total})}), reply_to=message)


def _app(**options: Any) -> ClientApp:
    app = ClientApp(**options)
    app.train()(train_steadily)
    app.evaluate()(evaluate_steadily)
    return app


steady = _app()
fixed_clipping = _app(mods=[fixedclipping_mod])
adaptive_clipping = _app(mods=[adaptiveclipping_mod])

boosted = ClientApp()


@boosted.train()
def train_boosted(message: Message, context: Context) -> Message:
    """Answers with one made-up tree in XGBoost's JSON, as its strategies pass models around."""
    client = int(context.node_config["partition-id"])
    booster = {
        "gbtree_model_param": {"num_trees": "1", "num_parallel_tree": "1"},
        "trees": [{"id": 0, "leaf": client}],
        "tree_info": [0],
        "iteration_indptr": [0, 1],
    }
    text = json.dumps({"learner": {"gradient_booster": {"model": booster}}}).encode()
    arrays = ArrayRecord([np.frombuffer(text, np.uint8)])
    return Message(RecordDict({"arrays": arrays, "m": MetricRecord({"num-examples": 1})}), reply_to=message)


@boosted.evaluate()
def evaluate_boosted(message: Message, context: Context) -> Message:
    size = len(message.content["arrays"]["0"].numpy())
    return Message(RecordDict({"m": MetricRecord({"num-examples": 1, "size": size})}), reply_to=message)


unruly = ClientApp()


@unruly.train()
def train_unruly(message: Message, context: Context) -> Message:
    """Remembers its visits, draws random numbers, and misbehaves as the message's configuration tells it."""
    client, config = int(context.node_config["partition-id"]), message.content["config"]
    _misbehave(client, config)
    visits = int(context.state["memory"]["visits"]) + 1 if "memory" in context.state else 1  # type: ignore[index]
    drift = context.state["drift"]["drift"].numpy() if "drift" in context.state else np.zeros(3)  # type: ignore[index]
    drift = drift + np.random.standard_normal(3)
    context.state["memory"] = MetricRecord({"visits": visits})
    context.state["drift"] = ArrayRecord({"drift": Array(drift)})
    arrays = step(message.content["arrays"], client, add=float(drift.sum()) + visits)
    if client in config.get("spoil", []):
        arrays["bias"] = Array(np.array([1.0, np.nan, np.inf], np.float32))
    metrics = MetricRecord({"num-examples": config.get("examples", client + 1), "visits": visits})
    return Message(RecordDict({"arrays": arrays, "m": metrics}), reply_to=message)


@unruly.query()
def who(message: Message, context: Context) -> Message:
    about = {key: value for key, value in context.node_config.items()} | dict(context.run_config)
    return Message(RecordDict({"about": ConfigRecord({**about, "pid": os.getpid()})}), reply_to=message)


def _misbehave(client: int, config: ConfigRecord) -> None:
    if "visits" in config:
        Path(str(config["visits"]), f"round-{config['server-round']}-client-{client}").touch()
    if client in config.get("raise", []) or config.get("all-fail-in", 0) == config.get("server-round"):
        raise RuntimeError(f"client {client} has no data")
    if client in config.get("die", []):
        print(f"client {client} is about to die", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if client in config.get("die-once", []):
        marker = Path(str(config["marker"]))
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if client in config.get("hang", []):
        time.sleep(600)
    delays = config.get("delays", [])
    time.sleep(delays[client] if delays else 0)


big = ClientApp()


@big.train()
def train_big(message: Message, context: Context) -> Message:
    arrays = ArrayRecord({name: Array(array.numpy() + 1) for name, array in message.content["arrays"].items()})
    return Message(RecordDict({"arrays": arrays, "m": MetricRecord({"num-examples": 1})}), reply_to=message)


class PlainGrid(Grid):
    """Flower's grid in its simplest form: every message is answered in this process, one after another."""

    def __init__(self, app: ClientApp, node_ids: list[int]) -> None:
        self._app, self._node_ids = app, node_ids
        self._states = {node_id: RecordDict() for node_id in node_ids}
        self.set_run(Run.create_empty(run_id=1))

    def set_run(self, run: Run) -> None:
        self._run = run
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1

    @property
    def run(self) -> Run:
        return self._run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return self._node_ids

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return sorted((self._answer(m) for m in messages), key=lambda m: m.metadata.src_node_id)

    def _answer(self, message: Message) -> Message:
        node_id = message.metadata.dst_node_id
        position = {"partition-id": self._node_ids.index(node_id), "num-partitions": len(self._node_ids)}
        context = Context(1, node_id, position, self._states[node_id], {})
        arrays = {key: ArrayRecord(dict(r)) if isinstance(r, ArrayRecord) else r for key, r in message.content.items()}
        return self._app(make_message(metadata=message.metadata, content=RecordDict(arrays)), context)
