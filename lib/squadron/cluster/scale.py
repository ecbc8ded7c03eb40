"""What a stage costs against its size: what crosses the network, what Ray and the disk hold, and what the driver does.

    rows(count=1_000_000, row_bytes=500, answer_bytes=200, workers=1000)      # any stage of `map_rows`
    rounds(clients=1000, rounds=100, parameters=2_660_000, nodes=1000)        # federated learning
    training(parameters=7e9, workers=64, steps=1000, checkpoints=10)          # Ray Train and DeepSpeed

Every job is made of these (`PARTS`). Counts are those of the code, times those of the driver on one core, mostly
by `bench_scale.py`. What the driver holds is an upper estimate, to say where it no longer fits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from squadron.core.rows import default_batch_size

_BATCH_S = 13e-3
"""Of the driver for a batch of rows, nearly all of it Ray Data's."""
_VISIT_S = 1.4e-3
"""Of the driver for a visit to a client, without its model."""
_ROW_S = 5e-6
"""Of the driver for a row in a batch: its JSON is written, its answer read."""
_AGGREGATE_S = 1.8e-9
"""Of the driver for a number of a client's reply: checked and averaged."""
_REPORT_S = 5e-3
"""Of the driver for what one training worker reports with a checkpoint: an estimate, not measured."""
_ENVELOPE = 2000
"""Bytes of a task and of its result, besides what they carry."""


@dataclass(frozen=True)
class Cost:
    """Of one stage, all of it. What the driver holds is the most at one time."""

    network_bytes: float = 0.0
    objects: int = 0
    files: int = 0
    driver_bytes: float = 0.0
    driver_s: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Of two stages, one after the other: what the driver holds is not added up."""
        sums = {one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        return Cost(**sums | {"driver_bytes": max(self.driver_bytes, other.driver_bytes)})


PARTS = {
    "actor_reasoner": ("rows",),
    "coordination": ("rows", "training"),
    "crowdselect": ("rows", "training"),
    "finetune": ("rows", "training"),
    "flame": ("rows", "rounds"),
    "hot": ("rows", "training"),
    "mor": ("rows", "training"),
    "rewrite": ("rows", "training"),
    "self_rewarding": ("rows", "training"),
    "toolret": ("rows", "training"),
}
"""What each job is made of. Questions to models count as rows: a batch of them is a task of an actor."""


def rows(count: int, row_bytes: int, answer_bytes: int, workers: int, batch_size: int | None = None) -> Cost:
    """A stage of `map_rows`, whose rows and answers take so many bytes of JSON.

    The driver holds all rows and all answers as Python's objects, and the rows once more as they travel; Ray holds them
    until they are handed out. Workers write the answers to the run folder, from where the driver reads them.
    """
    size = batch_size or default_batch_size(count, workers, row_bytes)
    batches = math.ceil(count / size)
    return Cost(
        network_bytes=count * (row_bytes + answer_bytes) + batches * _ENVELOPE,
        objects=2 * batches,
        files=2 * batches,
        driver_bytes=count * (_in_python(row_bytes) + row_bytes + _in_python(answer_bytes)),
        driver_s=batches * _BATCH_S + count * _ROW_S,
    )


def rounds(clients: int, rounds: int, parameters: float, nodes: int, state_bytes: int = 0, keep: int = 2) -> Cost:
    """Federated learning in which all these clients train in each round, in float32.

    The model travels once to each node, and back from each client. All replies of a round lie in the driver's object
    store until the strategy has averaged them. Of the server's states the last `keep` stay on disk.
    """
    model = 4 * parameters
    visits = clients * rounds
    return Cost(
        network_bytes=rounds * nodes * model + visits * (model + 2 * state_bytes + _ENVELOPE),
        objects=rounds + visits,
        files=min(rounds + 1, keep) + 1 + (min(keep, rounds) * clients if state_bytes else 0),
        driver_bytes=clients * (model + state_bytes) + 3 * model,
        driver_s=visits * (_VISIT_S + parameters * _AGGREGATE_S),
    )


def training(parameters: float, workers: int, steps: int, checkpoints: int) -> Cost:
    """Training by data parallelism in bfloat16: gradients are summed among the workers in each step, by a ring. The
    driver sees reports alone. A checkpoint has a file of each worker for the optimizer, and one of the model."""
    ring = 2 * (workers - 1) / workers * 2 * parameters
    return Cost(
        network_bytes=steps * workers * ring,
        objects=checkpoints * workers,
        files=checkpoints * (workers + 1),
        driver_bytes=checkpoints * workers * _ENVELOPE,
        driver_s=checkpoints * workers * _REPORT_S,
    )


def _in_python(json_bytes: float) -> float:
    """Bytes of the objects that JSON becomes: within a factor of two for rows of words. Lists of numbers take more."""
    return 200 + 2 * json_bytes
