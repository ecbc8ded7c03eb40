"""Trainings side by side are the trainings that they would be alone, and are done once."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from squadron.core.config import Config
from squadron.core.errors import WorkerError
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.train.models.builders import Pretrained
from squadron.train.multi_run import TrainJob, run_side_by_side, train_several
from squadron.train.objectives.language import SupervisedFineTuning
from squadron.train.spec import OptimizerConfig, TrainSpec

sys.path.append(str(Path(__file__).parent))
from conftest import RunGroup
from group import make_rows

SPEC = TrainSpec(steps=4, batch_size=8, micro_batch_size=8, optimizer=OptimizerConfig(learning_rate=1e-3))


class Nothing(Config):
    pass


def _stage(folder: Path) -> Stage:
    run = Run("several", Nothing(), Folder(folder), Profile(name="auto"), track=())
    stage = Stage(run, "train", "", {}, run.folder / "stages" / "train-0")
    stage.begin()
    return stage


def _job(name: str, model: str, spec: TrainSpec = SPEC) -> TrainJob:
    rows = [row | {"length": len(row["input_ids"])} for row in make_rows(24)]
    return TrainJob(name, Pretrained(model), SupervisedFineTuning(0), rows, spec)


def test_side_by_side_gives_the_weights_of_one_worker_alone_and_one_that_fails_spoils_no_other(
    ray_cluster: object, run_group: RunGroup, tiny_model: str, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    store = str(tmp_path / "alone")
    run_group(1, [{"name": "alone", "store": store, "model": tiny_model, "spec": SPEC.model_dump(mode="json")}])
    alone = torch.load(f"{store}/weights.pt", weights_only=True)
    longer = SPEC.model_copy(update={"steps": 6})
    jobs = [_job("same", tiny_model), _job("longer", tiny_model, longer)]
    results = train_several(_stage(tmp_path), jobs)
    assert [len(one.losses) for one in results] == [4, 6]
    file = tmp_path / results[0].path / "model.safetensors"
    together = load_file(file)
    for name, tensor in together.items():
        (known,) = (value for key, value in alone.items() if key.endswith(name))
        assert torch.equal(tensor, known), name
    written = file.stat().st_mtime_ns
    with pytest.raises(WorkerError, match="1 of 3 trainings failed; bad: the model cannot be loaded"):
        train_several(_stage(tmp_path), [*jobs, _job("bad", str(tmp_path / "no-model"))])
    assert file.stat().st_mtime_ns == written
    assert train_several(_stage(tmp_path), jobs) == results


def _train(folder: Path, end: str) -> None:
    """A training that leaves a mark each time it begins, and then ends in one way or another."""
    marks = Folder(folder)
    marks.append_line("begun", "1")
    if end == "raises":
        raise ValueError("no gradient")
    if end == "dies once" and len(marks.read_lines("begun")) == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_training_whose_worker_dies_is_resumed_and_only_what_failed_is_run_again(
    ray_cluster: object, tmp_path: Path
) -> None:
    ends = {"steady": "", "unlucky": "dies once", "bad": "raises"}
    with pytest.raises(WorkerError, match=r"1 of 3 trainings failed; bad: (.|\n)*ValueError: no gradient"):
        run_side_by_side(
            _stage(tmp_path), {name: partial(_train, tmp_path / name, end) for name, end in ends.items()}, 2
        )
    run_side_by_side(_stage(tmp_path), {name: partial(_train, tmp_path / name, "") for name in ends}, 2)
    begun = {name: len(Folder(tmp_path / name).read_lines("begun")) for name in ends}
    assert begun == {"steady": 1, "unlucky": 2, "bad": 2}
