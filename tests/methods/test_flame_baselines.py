"""What a federation is compared with: the same number of steps, and a restart that changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from squadron.core.folder import Folder
from squadron.evaluate.scores import Metrics, Problem, Scores
from squadron.methods.flame.algorithm import BCPolicy, Optimisation, make_optimiser
from squadron.methods.flame.baselines import _resume, _save, steps_of_a_round, train_alone
from squadron.methods.flame.config import FederationConfig, TrainingConfig
from squadron.methods.flame.demos import write_shard
from squadron.methods.flame.figures import score
from squadron.methods.flame.records import Shard
from squadron.sim.manipulation.expert import Episode
from squadron.sim.manipulation.spec import Factors, sample_environment

LIB = Path(__file__).resolve().parents[2] / "lib"
TRAINING = TrainingConfig(batch_size=8)


@pytest.mark.parametrize(
    ("local_steps", "expected"),
    [(None, 10 * 5 * 3), (7, 10 * 7), (99, 10 * 5 * 3)],
)
def test_a_round_counts_the_steps_of_all_its_clients(local_steps: int | None, expected: int) -> None:
    training = TrainingConfig(local_epochs=5, batch_size=32, local_steps=local_steps)
    assert steps_of_a_round(training, FederationConfig(clients_per_round=10), steps_per_home=90.0) == expected


def _row(folder: Folder) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            rng.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8),
            rng.normal(size=(20, 8)).astype(np.float32),
            rng.uniform(0, 1, (20, 8)).astype(np.float32),
            True,
        )
        for _ in range(3)
    ]
    write_shard(folder, "home.parquet", sample_environment("close_box", 0, 0, Factors()), 16, episodes)
    shard = Shard.of(folder, "home.parquet", client_id=0, episodes=3, steps=60, attempts=3)
    return {"id": "centralised", "shards": [shard.model_dump()], "rounds": 40, "steps": 15}


def _train(folder: Folder, row: dict[str, Any]) -> dict[str, Any]:
    return train_alone(row, folder, folder / "out", 16, TRAINING, 0)


def test_other_work_of_the_process_computes_as_before(tmp_path: Path) -> None:
    _train(Folder(tmp_path), _row(Folder(tmp_path)) | {"rounds": 1, "steps": 1})
    assert np.nextafter(0.0, 1.0) * np.float64(1.0) > 0
    assert (torch.tensor(1e-310, dtype=torch.float64) / 2).item() > 0


def test_a_killed_baseline_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, cut = Folder(tmp_path / "whole"), Folder(tmp_path / "cut")
    expected = _train(whole, _row(whole))
    row = _row(cut)
    code = (
        "import json, sys, torch; torch.set_num_threads(int(sys.argv[3]))\n"
        "from squadron.core.folder import Folder\n"
        "from squadron.methods.flame.baselines import train_alone\n"
        "from squadron.methods.flame.config import TrainingConfig\n"
        "folder = Folder(sys.argv[1])\n"
        "train_alone(json.loads(sys.argv[2]), folder, folder / 'out', 16, TrainingConfig(batch_size=8), 0)\n"
    )
    import torch

    command = [sys.executable, "-c", code, cut.path, json.dumps(row), str(torch.get_num_threads())]
    worker = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(LIB)})
    deadline = time.monotonic() + 240
    while not (cut / "out").exists("centralised.progress"):
        assert worker.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert not (cut / "out").exists("centralised.safetensors"), "killed too late to show anything"
    resumed = _train(cut, row)
    assert resumed["policy"]["sha256"] == expected["policy"]["sha256"] and resumed["losses"] == expected["losses"]
    assert (cut / "out").ls() == ["centralised.safetensors"]


def test_progress_that_has_changed_since_it_was_written_counts_as_none(tmp_path: Path) -> None:
    row = _row(Folder(tmp_path)) | {"rounds": 2, "steps": 2}
    out = Folder(tmp_path) / "out"
    expected = _train(Folder(tmp_path), row)
    policy, settings = BCPolicy(16), Optimisation()
    optimiser = make_optimiser(policy, settings)
    _save(out, "centralised.progress", policy, optimiser, [1.0])
    assert _resume(out, "centralised.progress", policy, optimiser) == [1.0]
    saved = out.read_bytes("centralised.progress")
    middle = len(saved) // 2
    for damaged in (b"", saved[:middle], saved[:middle] + bytes([saved[middle] ^ 1]) + saved[middle + 1 :]):
        out.write_bytes("centralised.progress", damaged)
        assert _train(Folder(tmp_path), row) == expected


def test_scores_pool_episodes_and_take_one_root() -> None:
    records: list[tuple[str, int, int, Metrics]] = [
        ("a", 0, 0, {"success": [True, True], "squared_error": 8.0, "values": 2}),
        ("a", 1, 0, {"success": [False, True], "squared_error": 0.0, "values": 2}),
        ("b", 0, 0, {"success": [False], "squared_error": 1.0, "values": 1}),
    ]
    scores = score(Scores.collect(["a", "b"], [Problem(0), Problem(1)], [0], records))
    assert (scores["a"].mean, scores["a"].trials) == (3 / 4, 4)
    assert scores["a"].rmse == pytest.approx(2**0.5)
    assert scores["a"].low <= 0.75 <= scores["a"].high
    assert scores["b"].low == 0 and 0.7 < scores["b"].high < 0.85
