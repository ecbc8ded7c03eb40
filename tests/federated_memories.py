"""Strategies that keep all kinds of things between rounds, each with `play`, which uses and changes them."""

from __future__ import annotations

import enum
import functools
import logging
import random
import threading
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg

from squadron.federated.memory import Memory, take_apart
from squadron.federated.records import BufferTable, write_npz

logger = logging.getLogger(__name__)
total, heard = 0, [0.0]
weights = torch.zeros(3)
Seen = namedtuple("Seen", "number loss")


class Mode(enum.Enum):
    WARM = "warm"
    COLD = "cold"


class Flags(enum.Flag):
    A = enum.auto()
    B = enum.auto()


@dataclass(frozen=True)
class Note:
    number: int
    values: list[float] = field(default_factory=list)


class Slotted:
    __slots__ = ("__hidden", "shown")

    def __init__(self) -> None:
        self.__hidden, self.shown = 0, 1.5

    def step(self) -> float:
        self.__hidden += 1
        return self.__hidden * self.shown


class Stateful:
    """Can be kept as the advice says, whatever it holds."""

    def __init__(self) -> None:
        self.lock, self.count = threading.Lock(), 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class Keeps(FedAvg):
    """Keeps what `make` gives, and plays with it."""

    def play(self, number: int) -> Any:
        raise NotImplementedError


class Plain(Keeps):
    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[Any, Any] = {(1, "a"): 0.1, None: float("nan"), 2.5: 2**70, True: -0.0, "é\ud83d": 1 + 2j}
        self.bytes, self.more, self.range = b"\0\xff", bytearray(b"a"), range(0, 9, 2)
        self.frozen, self.path, self.mode, self.flags = frozenset({1, (2, 3)}), Path("/a/b"), Mode.WARM, Flags.A

    def play(self, number: int) -> Any:
        self.kept[2.5] += number
        self.kept["é\ud83d"] *= 1j
        self.bytes += bytes([number])
        self.more.append(number)
        self.frozen |= {number * 10}
        self.path, self.mode, self.flags = self.path / str(number), Mode.COLD, Flags.A | Flags.B
        return [list(map(repr, self.kept.items())), self.bytes.hex(), self.more.hex(), list(self.range),
                sorted(map(str, self.frozen)), str(self.path), self.mode.name, repr(self.flags)]  # fmt: skip


class Containers(Keeps):
    def __init__(self) -> None:
        super().__init__()
        self.last: deque[float] = deque(maxlen=3)
        self.by_client: defaultdict[int, list[float]] = defaultdict(list)
        self.nested: defaultdict[int, Counter[str]] = defaultdict(lambda: Counter(a=1))
        self.ordered: OrderedDict[str, int] = OrderedDict()
        self.numbers = {0}

    def play(self, number: int) -> Any:
        self.last.append(number / 3)
        self.by_client[number % 2].append(number)
        self.nested[number]["a"] += number
        self.ordered[str(number)] = number
        self.ordered.move_to_end(next(iter(self.ordered)))
        self.numbers |= {number * 2**31, -number}
        self.numbers.discard(0)
        sums = functools.reduce(lambda a, b: a / 3 + b, self.numbers, 0.1)  # depends on the order
        return [list(self.last), dict(self.by_client), {k: dict(v) for k, v in self.nested.items()},
                list(self.ordered), sums, self.last.maxlen]  # fmt: skip


class Arrays(Keeps):
    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = np.ones((40, 50), np.float32), np.asfortranarray(np.ones((40, 50), np.float32))
        self.turned = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)
        self.scalar, self.empty, self.zero = np.float32(0.1), np.zeros((0, 3)), np.array(1.5)
        self.dates, self.mixed = np.array(["2020-01-01"], "M8[D]"), np.zeros(2, [("a", "i4"), ("b", "f8")])
        self.shared = self.rows
        self.model = ArrayRecord({})
        self.metrics = MetricRecord({"a": [1.0]})

    def play(self, number: int) -> Any:
        noise = np.random.default_rng(number).random((40, 50)).astype(np.float32)
        self.rows += noise
        self.columns = np.asfortranarray(self.columns * noise.T.reshape(40, 50))
        self.turned = self.turned * 1.1
        self.scalar = self.scalar * np.float32(1.1)
        self.zero += 1
        self.dates += 1
        self.mixed["b"] += number
        self.metrics["a"] = [*self.metrics["a"], number / 2]  # type: ignore[misc]
        sums = [float(one.sum()).hex() for one in (self.rows, self.columns, self.turned)]
        return [sums, self.rows is self.shared, float(self.scalar), str(type(self.scalar)), self.empty.shape,
                float(self.zero), str(self.dates), str(self.mixed), self.columns.flags.f_contiguous,
                list(self.metrics["a"])]  # type: ignore[arg-type]  # fmt: skip


class Randoms(Keeps):
    def __init__(self) -> None:
        super().__init__()
        self.python, self.numpy, self.old = random.Random(), np.random.default_rng(3), np.random.RandomState(4)
        self.python.seed(1)
        self.others = [np.random.Generator(np.random.Philox(1)), np.random.Generator(np.random.MT19937(2))]
        self.torch = torch.Generator().manual_seed(5)

    def play(self, number: int) -> Any:
        drawn = [self.python.gauss(), self.numpy.random(), self.old.randn(), self.numpy.integers(9, dtype="i1")]
        drawn.append(torch.rand(1, generator=self.torch).item())
        child = self.numpy.spawn(1)[0]
        return [
            *drawn,
            child.random(),
            *(float(one.random()) for one in self.others),
            self.numpy.integers(9, dtype="i1"),
        ]


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5))
        self.last = torch.nn.Linear(4, 1)
        self.register_buffer("seen", torch.zeros(1), persistent=False)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> Any:
        self.calls += 1
        self.seen += x.sum()
        return self.last(self.layers(x)) * self.calls


class Torch(Keeps):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = Network()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), 0.1)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        self.half, self.turned = torch.ones(3, dtype=torch.bfloat16), torch.ones(3, 4).T
        self.own = torch.nn.Parameter(torch.ones(2))
        self.sgd = torch.optim.SGD([self.own], 0.1, momentum=0.9)
        self.things = [torch.float16, torch.device("cpu"), torch.Size([2])]

    def play(self, number: int) -> Any:
        torch.manual_seed(number)
        self.network(torch.randn(5, 3)).sum().backward()  # gradients add up in every second round
        if number % 2:
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.schedule.step()
        self.own.sum().backward()
        self.sgd.step()
        self.half = self.half * 1.1
        self.turned = self.turned + torch.randn(4, 3)
        if number == 2:
            self.network.eval()
        shown = [value.double().sum().item().hex() for value in (*self.network.parameters(), self.half, self.turned)]
        same = self.own is self.sgd.param_groups[0]["params"][0]
        return [shown, self.own.tolist(), same, self.network.calls, self.network.seen.item(), self.turned.stride(),
                self.schedule.get_last_lr(), repr(self.things)]  # fmt: skip


class Objects(Keeps):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Any] = []
        self.slotted, self.stateful, self.log = Slotted(), Stateful(), logging.getLogger("strategy")
        self.first = {"me": self}
        self.ring: list[Any] = [self.notes]
        self.ring.append(self.ring)
        self.gone: int | None = 1
        self._lr = 1.0

    @property
    def lr(self) -> float:
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = value / 2

    def play(self, number: int) -> Any:
        self.notes.append(Note(number, [number / 3]))
        self.notes.append(Seen(number, 0.5))
        self.lr = self.lr * 3
        self.stateful.count += 1
        if hasattr(self, "gone"):
            del self.gone
        self.new = Note(number)
        same = [self.first["me"] is self, self.ring[1] is self.ring, self.ring[0] is self.notes]
        return [list(map(repr, self.notes)), same, self.slotted.step(), self.stateful.count, self.lr, self.new.number,
                self.log.name]  # fmt: skip


def averager(start: float) -> tuple[Callable[[float], float], Callable[[], float]]:
    """Two functions that close over one variable."""
    mean = start

    def add(value: float) -> float:
        nonlocal mean
        mean = 0.9 * mean + 0.1 * value
        return mean

    return add, lambda: mean


def remembers(value: float, seen: list[float] = []) -> int:  # noqa: B006 - kept as well
    seen.append(value)
    return len(seen)


class Functions(Keeps):
    rounds = 0
    losses: ClassVar[list[float]] = []

    def __init__(self) -> None:
        super().__init__()
        self.add, self.mean = averager(1.0)
        self.scale = functools.partial(max, 0)
        self.twice = functools.partial(self.add)
        self.again = self.count
        self.best = np.mean

    def count(self) -> int:
        global total
        total += 1
        type(self).rounds += 1
        heard.append(total / 3)
        weights.add_(total)
        self.losses.append(total)
        return self.rounds

    def play(self, number: int) -> Any:
        logger.debug("round %d", number)
        if number == 2:
            self.best = np.median
        return [self.add(number), self.mean(), self.twice(number), self.scale(-number), self.again(), list(heard),
                self.losses, remembers(number), weights.tolist(), float(self.best([1, 2, 9]))]  # fmt: skip


STRATEGIES: dict[str, type[Keeps]] = {
    kind.__name__: kind for kind in (Plain, Containers, Arrays, Randoms, Torch, Objects, Functions)
}


def save(strategy: Keeps, born: dict[str, str]) -> bytes:
    buffers = BufferTable()
    memory: Memory = take_apart(strategy, buffers, born)
    return write_npz(buffers.by_name, memory.tree)


def play(strategy: Keeps, first: int, last: int) -> list[str]:
    return [repr(strategy.play(number)) for number in range(first, last + 1)]
