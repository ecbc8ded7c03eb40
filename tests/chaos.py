"""Runs on a cluster of several nodes that lose a part of it at a moment drawn by chance: what they report, and what
they do twice, beside undisturbed ones.

A worker process or a whole node is killed, a node stands still, or is cut off, for longer than its cluster waits for
it, or the driver is killed and the command given again. The code under test knows nothing of it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.drivers import Process
from tests.kills import Job, Moment, kill_process
from tests.nodes import Nodes

KINDS = ("worker", "node", "still", "cut", "driver")
COUNT = 3
STILL_S = 6.0
"""A node of which nothing is heard for so long has been taken for lost."""


@dataclass
class Loss(Moment):
    """A moment on a cluster. `twice` are rows that were answered more than once, of `rows`."""

    twice: int = 0
    rows: int = 0


@dataclass(frozen=True)
class ChaosJob(Job):
    """A job whose driver is on the head of a cluster."""

    nodes: Nodes
    kinds: ClassVar[Sequence[str]] = KINDS

    @property
    def before(self) -> Sequence[str]:
        return self.nodes.inside(0)

    @property
    def environment(self) -> Mapping[str, str]:
        return self.nodes.environment

    @staticmethod
    def on(nodes: Nodes, name: str, place: Path, more: Sequence[str] = ()) -> ChaosJob:
        """The smoke run of a job on these nodes."""
        job = Job.of(name, place, [*more, "--address", nodes.address])
        return ChaosJob(job.name, job.words, job.whole, nodes)

    def strike(self, driver: Process, moment: Moment) -> None:
        draw = random.Random(moment.number)
        number = draw.randrange(1, COUNT)
        if moment.kind == "node":
            moment.victim = f"node {number}"
            self.nodes.kill(number)
        elif moment.kind == "still":
            moment.victim = f"node {number}"
            self.nodes.stop(number)
            time.sleep(STILL_S)
            self.nodes.go_on(number)
        elif moment.kind == "cut" and self.nodes.switch:
            moment.victim = f"node {number}"
            self.nodes.doubtful.add(number)
            self.nodes.switch.cut(number)
            time.sleep(STILL_S)
            self.nodes.switch.join(number)
        elif moment.kind == "worker" and (workers := self.nodes.workers()):
            moment.victim = kill_process(draw.choice(workers))
        else:
            moment.victim = "driver"
            os.killpg(driver.pid, signal.SIGKILL)

    def repair(self) -> None:
        """Start again what was lost, so that the next run has all nodes."""
        for number in range(COUNT):
            process = self.nodes.running.get(number)
            if process is not None and (number in self.nodes.doubtful or process.poll() is not None):
                self.nodes.kill(number)
            if number not in self.nodes.running:
                self.nodes.start(number)


def count_rows(folder: Path) -> tuple[int, int]:
    """How many rows of a run were answered more than once, and how many there are."""
    twice = rows = 0
    for place in folder.glob("stages/*/rows"):
        answered: Counter[str] = Counter()
        for file in place.glob("*.jsonl*"):
            for line in file.read_text(errors="replace").splitlines():
                answered.update(json.loads(line).get("ids", []) if line.strip() else [])
        rows += len(answered)
        twice += sum(count - 1 for count in answered.values())
    return twice, rows


def disturb(job: ChaosJob, number: int, folder: Path) -> Loss:
    """Run the job with one loss, until it ends well, and bring the cluster back."""
    moment = job.disturb(number, folder)
    twice, rows = count_rows(folder)
    job.repair()
    return Loss(**vars(moment), twice=twice, rows=rows)
