"""Groups of workers without Ray, and a tiny model for them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.drivers import free_port, start_quickly, wait_for_all

ROOT = Path(__file__).resolve().parents[2]
Answers = dict[str, dict[str, Any]]
RunGroup = Callable[[int, Sequence[dict[str, Any]]], Answers]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama of two layers with random weights, on disk."""
    import torch

    from squadron.train.models.builders import FromConfig

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    size = {"hidden_size": 64, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate_size": 128}
    FromConfig(vocabulary=64, special_tokens={"pad_token_id": 0, "eos_token_id": 1}, **size)().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def run_group(forks: None, tmp_path_factory: pytest.TempPathFactory) -> RunGroup:
    """`run_group(workers, scenarios)`: what each scenario of `group.py` came to, by its name."""

    def run(workers: int, scenarios: Sequence[dict[str, Any]]) -> Answers:
        folder = tmp_path_factory.mktemp("group")
        (folder / "scenarios.json").write_text(json.dumps(list(scenarios)))
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "lib"), "OMP_NUM_THREADS": "1"}
        script, port = str(Path(__file__).with_name("group.py")), str(free_port())
        with (folder / "printed").open("wb") as printed:
            group = [
                start_quickly([script, str(folder / "scenarios.json"), str(rank), str(workers), port, str(folder)],
                      environment, printed.fileno())
                for rank in range(workers)
            ]  # fmt: skip
            done = wait_for_all(group, timeout_s=600)
        assert done, (folder / "printed").read_text()[-3000:]
        return {s["name"]: json.loads((folder / f"{s['name']}.json").read_text()) for s in scenarios}

    return run
