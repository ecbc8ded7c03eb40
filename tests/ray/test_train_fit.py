"""fit() on a real group of Ray Train workers: what it survives, and what it says of what it cannot."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from squadron.core.errors import ConfigError, InputError, ResourceError, SquadronError, WorkerError
from squadron.core.folder import Folder
from squadron.train import TrainSpec, fit, per_row
from squadron.train.checkpoints.checkpoint import Reader
from squadron.train.checkpoints.commits import complete_steps
from squadron.train.guard import TrainingStopped, read_stalls
from squadron.train.loop import _Mailbox

pytestmark = pytest.mark.usefixtures("ray_cluster")
SPEC = TrainSpec.model_validate(
    {
        "steps": 24,
        "batch_size": 8,
        "micro_batch_size": 2,
        "optimizer": {"learning_rate": 0.05},
        "sharding": {"zero": 2},
        "checkpoint": {"every": 5, "keep_last": 2},
    }
)


def rows() -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    points = draw.normal(size=(40, 4)).astype(np.float32)
    return [{"x": x, "y": x[:1] - 2 * x[1:2], "number": np.int64(n)} for n, x in enumerate(points)]


def build() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


@dataclass(frozen=True)
class SquaredError:
    """A loss that makes trouble on one rank once it has seen so many batches: each of `troubles` in one attempt.

    `done` keeps which of them have been; without it, there is the same trouble in each attempt.
    """

    troubles: tuple[str, ...] = ()
    rank: int = 1
    after: int = 30
    done: Path | None = None

    def __call__(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = ((model(batch["x"]) - batch["y"]) ** 2).mean()
        seen = getattr(model, "seen", 0) + 1
        model.seen = seen
        if torch.distributed.get_rank() == self.rank and seen == self.after and (trouble := self._next()):
            return self._make(trouble, loss)
        return loss

    def _next(self) -> str:
        past = 0
        if self.done is not None:
            past = self.done.stat().st_size if self.done.exists() else 0
            self.done.write_text("x" * (past + 1))
        return "".join(self.troubles[past : past + 1])

    def _make(self, trouble: str, loss: torch.Tensor) -> torch.Tensor:
        if trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble == "hang":
            time.sleep(600)
        if trouble == "nan":
            return loss * float("nan")
        raise ValueError("this loss is broken")


def train(folder: Path, objective: SquaredError, spec: TrainSpec = SPEC, workers: int = 2) -> tuple[Any, list[int]]:
    steps: list[int] = []
    fitted = fit(
        per_row(objective), build, rows(), spec, Folder(folder), workers=workers, on_step=lambda n, _: steps.append(n)
    )
    return fitted, steps


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with Reader(Folder(folder), 24) as reader:
        return dict(reader.tensors())


@pytest.fixture(scope="module")
def uninterrupted(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    fitted, steps = train(folder, SquaredError())
    assert steps == list(range(1, 25)) and fitted.restarts == 0
    assert complete_steps(Folder(folder)) == [20, 24]
    return weights(folder)


def test_a_killed_worker_and_then_a_stall_cost_at_most_the_steps_since_the_last_checkpoint(
    uninterrupted: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = SPEC.model_copy(update={"guard": SPEC.guard.model_copy(update={"stall_s": 15.0})})
    trouble = SquaredError(("kill", "hang"), after=16, done=tmp_path / "done")
    fitted, steps = train(tmp_path, trouble, spec)
    assert fitted.restarts == 2
    assert len(steps) - len(set(steps)) <= 2 * SPEC.checkpoint.every and sorted(set(steps)) == list(range(1, 25))
    out = " ".join(capsys.readouterr().out.split())
    assert "a worker was lost; all workers start again from step" in out
    assert "worker 1 stood still" in out
    stalled = {stall.rank: stall for stall in read_stalls(Folder(tmp_path))}
    assert stalled[1].phase == "forward" and "in _make" in stalled[1].stacks
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, uninterrupted[name]), name


def test_a_loss_that_is_no_number_stops_with_its_batch_saved(tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped, match="the loss is nan") as stopped:
        train(tmp_path, SquaredError(("nan",)))
    saved = sorted((tmp_path / "stopped").iterdir())
    assert len(saved) == 2 and "stopped" in stopped.value.where
    from safetensors import safe_open

    with safe_open(saved[1], framework="pt") as file:
        assert file.get_tensor("0.x").shape == (2, 4)
    assert complete_steps(Folder(tmp_path))[-1] < 24, "no checkpoint holds weights that the bad batch has changed"


def test_an_error_of_the_loss_is_tried_once_more_and_then_shown(tmp_path: Path) -> None:
    """The two attempts that the settings allow: that a third would not be made is stated below."""
    spec = SPEC.model_copy(update={"guard": SPEC.guard.model_copy(update={"max_restarts": 1})})
    with pytest.raises(WorkerError, match="this loss is broken"):
        train(tmp_path, SquaredError(("raise",), rank=0, after=22), spec, workers=1)
    assert complete_steps(Folder(tmp_path))[-1] < 24, "and what was saved before is not taken for the end"


def test_only_an_error_that_was_not_seen_before_is_tried_again() -> None:
    mailbox = _Mailbox()
    for attempt, error in enumerate(("ValueError: row 3", "KeyError: 'x'", "ValueError: row 9")):
        assert [mailbox.start(2) for _ in range(2)] == [(attempt, True)] * 2
        mailbox.error(attempt, 1, f"Traceback\n{error}")
    assert mailbox.start(2) == (3, False), "of one kind with the first: only the numbers differ"


@pytest.mark.parametrize(
    ("spec", "data", "workers", "kind", "words"),
    [
        ({"batch_size": 8, "micro_batch_size": 4}, rows(), 3, ConfigError, ["3 workers", "batch_size to 12", "2"]),
        ({"batch_size": 64, "micro_batch_size": 1}, rows(), 64, ResourceError, ["asks for 64 workers", "room for 2"]),
        ({}, [], 1, InputError, ["no rows"]),
        ({"packing": True, "max_length": 8}, rows(), 1, InputError, ["cannot be packed"]),
    ],
)
def test_what_cannot_work_is_refused_before_a_worker_starts(
    tmp_path: Path, spec: dict[str, Any], data: Any, workers: int, kind: type[SquadronError], words: list[str]
) -> None:
    started = time.monotonic()
    with pytest.raises(kind) as refused:
        fit(per_row(SquaredError()), build, data, TrainSpec.model_validate(spec), Folder(tmp_path), workers=workers)
    assert all(word in str(refused.value) for word in words) and time.monotonic() - started < 60


def test_one_worker_alone_goes_on_after_a_kill_to_the_same_weights(tmp_path: Path) -> None:
    """A single worker without a GPU is a task, not a group: it is started again like one."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(whole, SquaredError(), workers=1)
    fitted, steps = train(broken, SquaredError(("kill",), rank=0, after=40, done=tmp_path / "done"), workers=1)
    assert fitted.restarts == 1 and sorted(set(steps)) == list(range(1, 25)) and len(steps) > 24 - 5
    for name, value in weights(broken).items():
        assert torch.equal(value, weights(whole)[name]), name


def test_workers_that_are_lost_too_often_are_given_up(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"guard": SPEC.guard.model_copy(update={"max_restarts": 1})})
    with pytest.raises(WorkerError, match="the workers were lost more than 1 times"):
        train(tmp_path, SquaredError(("kill", "kill"), rank=0, after=22, done=tmp_path / "done"), spec, workers=1)
