"""A group of workers without Ray: runs the scenarios that a test asks for, one after the other.

python tests/train/group.py SCENARIOS.json RANK WORKERS PORT FOLDER

SCENARIOS.json holds a list of `Scenario` records. Worker 0 writes FOLDER/<name>.json with what came out.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.train.batching.batches import Row, RowSource
from squadron.train.spec import LoraSettings, TrainSpec


class Scenario(Config):
    """One run: where it keeps its checkpoints, whose it begins with, and at which step it is cut off."""

    name: str
    store: str
    model: str
    spec: TrainSpec
    objective: str = "sft"
    lora: LoraSettings | None = None
    begins_with: str | None = None
    cut_at: int | None = None
    probe: bool = False
    rows: int = 24


class Cut(Exception):
    """The end of a run before its time."""


@dataclass(frozen=True)
class CutShort:
    """A source that ends with an error at a step, on every worker alike."""

    inner: RowSource
    cut_at: int

    def steps(self, spec: TrainSpec) -> int:
        return self.inner.steps(spec)

    def read(self, spec: TrainSpec, rank: int, workers: int, start: int) -> Iterator[list[list[Row]]]:
        for step, micro in enumerate(self.inner.read(spec, rank, workers, start), start):
            if step == self.cut_at:
                raise Cut(f"cut off before step {step}")
            yield micro


class Probed:
    """An objective that, when it measures the held-out loss, also keeps the model's logits on a fixed text."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.logits = inner, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, model: Any, batch: Any) -> Any:
        import torch

        if not model.training:
            self.logits = model(input_ids=torch.arange(3, 19)[None]).logits.tolist()
        return self.inner(model, batch)


def make_rows(count: int, vocabulary: int = 64) -> list[dict[str, Any]]:
    """Sequences of different lengths, whose first third has no label: what each weighs differs."""
    draw = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        ids = draw.integers(3, vocabulary, int(draw.integers(6, 30)))
        labels = np.where(np.arange(len(ids)) < len(ids) // 3, -100, ids)
        answers = {
            name: draw.integers(3, vocabulary, int(draw.integers(2, 9))) for name in ("chosen_ids", "rejected_ids")
        }
        more = {"negative_ids": [draw.integers(3, vocabulary, 5) for _ in range(2)], "label": int(ids[0] % 2)}
        row = {"input_ids": ids, "labels": labels, "prompt_ids": ids[:5], **answers, **more, "number": number}
        rows.append({**row, "query_ids": ids[:4], "positive_ids": ids})
    return rows


def run(scenario: Scenario, rank: int, workers: int) -> dict[str, Any]:
    import torch

    from squadron.train.checkpoints.checkpoint import Reader
    from squadron.train.worker import Training, train

    if scenario.begins_with is not None:
        if rank == 0:
            shutil.copytree(scenario.begins_with, scenario.store)
        torch.distributed.barrier()
    rows = make_rows(scenario.rows)
    source: Any = RowSource(rows, lambda row: len(row["input_ids"]))
    if scenario.cut_at is not None:
        source = CutShort(source, scenario.cut_at)
    objective, build = make_objective(scenario)
    steps: dict[int, dict[str, float]] = {}
    store = Folder(scenario.store)
    held_out = make_rows(7)
    if scenario.probe:
        objective = Probed(objective)
    training = Training(build, objective, source, held_out, scenario.spec, store, "tiny")
    error = ""
    try:
        train(training, rank, workers, torch.device("cpu"), lambda step, metrics: steps.update({step: metrics}))
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    answer: dict[str, Any] = {"steps": {str(step): metrics for step, metrics in steps.items()}, "error": error}
    if scenario.probe:
        answer["logits"] = objective.logits
    if rank == 0 and not error:
        total = scenario.spec.steps or 0
        with Reader(store, total) as reader:
            torch.save({name: tensor for name, tensor in reader.tensors()}, f"{scenario.store}/weights.pt")
    return answer


def make_objective(scenario: Scenario) -> tuple[Any, Any]:
    from squadron.train.models.builders import PolicyWithReference, Pretrained
    from squadron.train.objectives.contrastive import Contrastive
    from squadron.train.objectives.language import DirectPreference, SupervisedFineTuning
    from squadron.train.objectives.reward import Classification, OutcomeReward

    causal = Pretrained(scenario.model, precision=scenario.spec.precision, lora=scenario.lora)
    classifier = Pretrained(scenario.model, head="sequence", labels=2, pad_token_id=0)
    match scenario.objective:
        case "sft":
            return SupervisedFineTuning(scenario.spec.loss_chunk), causal
        case "dpo":
            frozen = Pretrained(scenario.model, precision=scenario.spec.precision)
            return DirectPreference(beta=0.5), causal if scenario.lora else PolicyWithReference(causal, frozen)
        case "classification":
            return Classification(pad_token_id=0), classifier
        case "reward":
            return OutcomeReward(pad_token_id=0), Pretrained(scenario.model, head="sequence", pad_token_id=0)
        case "contrastive":
            return Contrastive(pad_token_id=0), Pretrained(scenario.model, head="none")
    raise ValueError(scenario.objective)


def main(path: str, rank: int, workers: int, port: int, folder: str) -> None:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ.update(place, WORLD_SIZE=str(workers))
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    from squadron.train.engine import quiet_deepspeed

    quiet_deepspeed(cuda=False)
    gc.freeze()  # ZeRO 3 collects garbage for each engine: half a second to look at all that is imported
    for record in json.loads(Path(path).read_text()):
        scenario = Scenario.model_validate(record)
        answer = run(scenario, rank, workers)
        if rank == 0:
            (Path(folder) / f"{scenario.name}.json").write_text(json.dumps(answer))
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
