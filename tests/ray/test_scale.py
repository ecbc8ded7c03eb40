"""The model of costs counts what is really there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from squadron.cluster import scale
from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.rows import map_rows
from squadron.core.run import Run, Stage
from squadron.federated import RayGrid, federate

CLIENTS, ROUNDS = 5, 4


def echo(row: dict[str, Any]) -> dict[str, Any]:
    return row


@pytest.mark.parametrize("size", [1, 7])
def test_files_of_rows(size: int, ray_cluster: object, tmp_path: Path) -> None:
    run = Run("rows", Config(), Folder(tmp_path), Profile(name="auto"), track=())
    stage = Stage(run, "work", "", {}, run.folder / "stages" / "work-0")
    stage.begin()
    assert len(map_rows(stage, [{"id": str(number)} for number in range(20)], echo, batch_size=size)) == 20
    found = [path for path in (tmp_path / "stages" / "work-0" / "rows").rglob("*") if path.is_file()]
    assert len(found) == scale.rows(20, 10, 10, workers=2, batch_size=size).files


def test_files_and_objects_of_rounds(ray_cluster: object, tmp_path: Path) -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        visits = int(context.state["seen"]["visits"]) + 1 if "seen" in context.state else 1  # type: ignore[index, arg-type, call-overload]
        context.state["seen"] = MetricRecord({"visits": visits})
        metrics = MetricRecord({"num-examples": 1, "visits": visits})
        return Message(RecordDict({"arrays": message.content["arrays"], "metrics": metrics}), reply_to=message)

    arrays = ArrayRecord({"weight": Array(np.zeros(1000, np.float32))})
    strategy = FedAvg(min_train_nodes=CLIENTS, min_available_nodes=CLIENTS, fraction_evaluate=0.0)
    with RayGrid(app, CLIENTS, max_workers=2) as grid:
        result = federate(grid, strategy, arrays, ROUNDS, Folder(tmp_path))
    assert result.history[-1].clients == CLIENTS
    said = scale.rounds(CLIENTS, ROUNDS, 1000, nodes=1, state_bytes=100)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == said.files
    assert said.objects == ROUNDS * (1 + CLIENTS)
