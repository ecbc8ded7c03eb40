"""What watches a worker: a stall that names its rank and phase, a loss that goes wrong."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from squadron.core.config import Config
from squadron.core.errors import SquadronError
from squadron.core.folder import Folder
from squadron.train.batching.batches import Row

if TYPE_CHECKING:
    import torch

STALLED_EXIT = 86
_WARMUP_STEPS = 10


class TrainingStopped(SquadronError):
    """The loss is no number, or has exploded; going on would waste the run."""


class Stall(Config):
    """Where a worker stood when its time was over."""

    rank: int
    step: int
    micro_batch: int
    phase: str
    seconds: float
    stacks: str


class Watch:
    """Ends this process if one phase of one step takes longer than `limit_s` (the first, which loads the model,
    `start_limit_s`), after writing down where it stood.

    A lost peer or a deadlocked exchange of gradients hangs all workers without a word; the process that ends lets the
    group be started again from the last checkpoint.
    """

    def __init__(
        self,
        rank: int,
        folder: Folder,
        limit_s: float,
        start_limit_s: float,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._rank, self._folder, self._end = rank, folder, end
        self._limit_s, self._start_limit_s = limit_s, start_limit_s
        self._step, self._micro, self._phase, self._since = -1, 0, "start", time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="stall-watch", daemon=True).start()

    @contextlib.contextmanager
    def phase(self, step: int, name: str, micro_batch: int = 0) -> Iterator[None]:
        """What is being done until the block ends."""
        self._step, self._micro, self._phase, self._since = step, micro_batch, name, time.monotonic()
        yield
        self._phase, self._since = f"after {name}", time.monotonic()

    def close(self) -> None:
        self._closed.set()

    def _watch(self) -> None:
        every_s = min(1.0, self._limit_s / 4)
        while not self._closed.wait(every_s):
            seconds = time.monotonic() - self._since
            if seconds > (self._start_limit_s if self._phase == "start" else self._limit_s):
                stall = Stall(
                    rank=self._rank,
                    step=self._step,
                    micro_batch=self._micro,
                    phase=self._phase,
                    seconds=round(seconds, 1),
                    stacks=_stacks(),
                )
                self._folder.write_json(f"stalls/rank-{self._rank:02d}.json", stall.model_dump())
                time.sleep(2 * every_s)  # the end of one ends all, and whoever this one waits for has to say so first
                self._end(STALLED_EXIT)
                return


def read_stalls(folder: Folder) -> list[Stall]:
    """What stalled workers wrote down, the one that others waited for first: the least advanced."""
    names = (folder / "stalls").ls()
    found = [Stall.model_validate((folder / "stalls").read_json(name)) for name in names]
    return sorted(found, key=_advance)


_PHASES = ("start", "data", "forward", "backward", "update", "evaluate", "save")


def _advance(stall: Stall) -> tuple[int, ...]:
    """How far a worker had come: steps, then micro-batches, then phases. A step's data comes before all, its update
    after."""
    name = stall.phase.removeprefix("after ")
    number = 2 * _PHASES.index(name) + (name != stall.phase)
    inside = name in ("forward", "backward")
    block = 1 if inside else 0 if name in ("start", "data") else 2
    return stall.step, block, stall.micro_batch if inside else 0, number, stall.rank


class LossGuard:
    """Notices a loss that is no number, or `factor` times its mean over the first ten steps."""

    def __init__(self, factor: float | None, first: Sequence[float] = ()) -> None:
        self._factor, self.first = factor, list(first[:_WARMUP_STEPS])

    def problem(self, loss: float) -> str | None:
        """What is wrong with this step's loss, if anything."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if len(self.first) < _WARMUP_STEPS:
            self.first.append(loss)
            return None
        start = sum(self.first) / len(self.first)
        if self._factor is not None and loss > self._factor * abs(start):
            return f"the loss is {loss:.4g}, more than {self._factor:g} times the {start:.4g} that it began with"
        return None


def keep_batch(
    folder: Folder, step: int, rank: int, batches: Sequence[dict[str, torch.Tensor]], rows: Sequence[Sequence[Row]]
) -> str:
    """Save this worker's micro-batches of a step, and the numbers of their rows if they carry any (`number`)."""
    from safetensors.torch import save_file

    tensors = {f"{n}.{name}": t.detach().cpu().contiguous() for n, b in enumerate(batches) for name, t in b.items()}
    numbers = [[int(row["number"]) for row in part if "number" in row] for part in rows]
    name = f"stopped/step-{step:06d}-rank-{rank:02d}.safetensors"
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "batch.safetensors")
        save_file(tensors, path, metadata={"rows": json.dumps(numbers)})
        folder.put(name, path)
    return name


def _stacks() -> str:
    with tempfile.TemporaryFile("w+") as stream:
        faulthandler.dump_traceback(stream, all_threads=True)
        stream.seek(0)
        return stream.read()
