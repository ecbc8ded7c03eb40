"""Finished runs: what every one has, metrics that sweeps compare and something to serve; and one that is made up."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest

from squadron.core import registry
from squadron.core.folder import Folder
from squadron.core.manifest import FORMAT
from squadron.core.marker import write_marker
from squadron.core.seals import seal_yaml, unseal
from squadron.serve.runs import find_services


def store_flame_run(place: Path, image_size: int) -> Folder:
    """What a FLAME run leaves, as far as a server looks at it: a policy of random weights, two homes to film it in."""
    import torch

    from squadron.methods.flame.algorithm import BCPolicy
    from squadron.methods.flame.baselines import save_policy
    from squadron.methods.flame.records import Homes, Policy, Specs
    from squadron.sim.manipulation.spec import TEST, sample_environment

    folder = Folder(place).make()
    build, choose = (folder / "stages" / f"{name}-0123456789ab" for name in ("build_homes", "choose_round"))
    torch.manual_seed(0)
    save_policy(choose, "policy.safetensors", BCPolicy(image_size))
    path = f"stages/{choose.name}/policy.safetensors"
    policy = Policy.of(folder, path, name="round-0003", image_size=image_size, round=3)
    specs = {number: sample_environment("close_box", number, 0) for number in TEST[:2]}
    build.write_json("homes.json", Specs(specs=specs).model_dump(mode="json"))
    path, apart = f"stages/{build.name}/homes.json", {"train": (), "eval": (), "test": tuple(specs)}
    homes = Homes.of(folder, path, task="close_box", **apart)
    for stage, output in ((build, homes), (choose, policy)):
        write_marker(stage, output.model_dump(mode="json"))
    folder.write_bytes("config.yaml", seal_yaml(b"evaluation: {max_steps: 3, film_size: 64}\n"))
    folder.write_json("run.json", {"job": "flame", "format": FORMAT, "stages": [build.name, choose.name]})
    return folder


def store_coordination_run(place: Path) -> Folder:
    """What a coordination run leaves, as far as a server looks at it, with a network that has learned nothing."""
    from squadron.methods.coordination.config import ModelConfig
    from squadron.methods.coordination.records import Planner
    from squadron.methods.coordination.training import Build, save_planner

    folder, config = Folder(place).make(), ModelConfig(hidden=8, layers=1, heads=2, latent=2)
    stage = folder / "stages" / "train_planners-0123456789ab"
    path = f"stages/{stage.name}/graph-VAE/model"
    save_planner(folder / path, config, Build(config, 0)().state_dict())
    planner = Planner.of(folder, path, name="graph VAE", cost="average_delay", held_out_loss=None)
    write_marker(stage, {"planners": [planner.model_dump(mode="json")]})
    folder.write_json("run.json", {"job": "coordination", "format": FORMAT, "stages": [stage.name]})
    folder.write_bytes("config.yaml", seal_yaml(b"sampling: {samples: 20, rounds: 2}\n"))
    return folder


def run_smoke(job: str, folder: Path, *words: str) -> int:
    """The exit code of a job's smoke run with these settings."""
    from squadron.core.cli import main

    return main(["run", job, "smoke", *words, "--run", str(folder)])


def one_line(captured: pytest.CaptureFixture[str]) -> str:
    """What was printed, on one line however wide the terminal is; nobody was shown a traceback."""
    said = " ".join("".join(captured.readouterr()).split())
    assert "Traceback" not in said, said
    return said


def missing_metrics(run: Path) -> set[str]:
    """Metrics that the run's job declares, and that none of its stages has measured or logged as a finite number."""
    job = json.loads((run / "run.json").read_text())["job"]
    rows = [unseal(path.read_bytes()) for path in run.glob("stages/*/measures.json")]
    for path in run.glob("stages/*/metrics.jsonl"):
        rows += map(unseal, path.read_bytes().splitlines())
    found = {key for row in rows for key, value in row.items() if value is not None and math.isfinite(value)}
    metrics = set(registry.load_job(job).metrics)
    assert metrics
    return metrics - found


def score_with(run: Path, *rows: dict[str, Any]) -> Any:
    """The scores that a reward model or classifier which a run serves gives, as a replica would."""
    from squadron.serve.scoring import ScoredRow, ScoreRequest

    offered: Any = find_services(Folder(run))
    request = ScoreRequest(model=run.name, rows=tuple(ScoredRow(**row) for row in rows))
    return offered.services[0].build().score(request).data


def chat_with(run: Path, text: str) -> Any:
    """What the chat model that a run serves answers, as a replica would."""
    from squadron.serve.openai_requests import ChatCompletionRequest

    offered: Any = find_services(Folder(run))
    service = offered.services[0]
    assert service.models == (run.name,)
    server = service.build()
    asked = {"model": run.name, "messages": [{"role": "user", "content": text}], "max_tokens": 5, "temperature": 0}
    try:
        return asyncio.run(server.chat(ChatCompletionRequest.model_validate(asked)))
    finally:
        server.close()
