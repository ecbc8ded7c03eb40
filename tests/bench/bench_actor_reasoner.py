"""The Actor's memory, episodes a second, and driving by the clock with Reasoners that are slow and die.

python tests/bench/bench_actor_reasoner.py              # all of it
python tests/bench/bench_actor_reasoner.py retrieval    # one part: retrieval, episodes, live, demo, collisions

`demo` runs `squadron run actor_reasoner`, minutes; `collisions` runs `squadron run actor_reasoner full`, 42 minutes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from squadron.core.cluster import connect
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources
from squadron.llm.embed import PackagedEmbedder
from squadron.llm.settings import Rule, ScriptedModel
from squadron.methods.actor_reasoner.algorithm import WEIGHTS
from squadron.methods.actor_reasoner.benchmark import ALONE, FULL, Gatherer, Texts, World, fill
from squadron.methods.actor_reasoner.benchmark import RULE as IDM
from squadron.methods.actor_reasoner.config import ActorReasonerConfig, LiveConfig, WorldConfig
from squadron.methods.actor_reasoner.episodes import LIVE, outcomes, run_episodes
from squadron.methods.actor_reasoner.live import Clock, LiveReasoner, Mailbox, killing
from squadron.methods.actor_reasoner.memory import NEAREST, Memory
from squadron.methods.actor_reasoner.policy import UNTHOUGHT, PairPolicy
from squadron.methods.actor_reasoner.prompts import memory_words
from squadron.methods.actor_reasoner.records import ReasonerModel
from squadron.sim.driving.drivers import GO_FIRST, NOTHING, YIELD

ROOT = Path(__file__).resolve().parents[2]
RECORDS, WIDTH = 10_000, 384
GO = "Style: CONSERVATIVE\nIntention: DECELERATE\nDecision: FASTER\nDisplay: I go first"
WAIT = "Style: AGGRESSIVE\nIntention: ACCELERATE\nDecision: SLOWER\nDisplay: you go first"
_DRAWN = np.random.default_rng(2).normal(size=(54, WIDTH)).astype(np.float32)
WORDS = _DRAWN / np.linalg.norm(_DRAWN, axis=1, keepdims=True)
"""Vectors of as many texts as the small model has words for."""
RULE = ScriptedModel(name="rule", rules=(Rule(pattern="room to go first|stands: go on", reply=GO),), otherwise=WAIT)


def filled(count: int = RECORDS) -> tuple[Memory, dict[str, np.ndarray]]:
    """A memory of so many situations of one style, and the same as arrays."""
    draw, memory = np.random.default_rng(0), Memory(count, WIDTH)
    written: dict[str, list[np.ndarray]] = {"numbers": [], "vectors": [], "actions": []}
    while len(memory) < count:
        row = situations(draw, 1)[0], WORDS[draw.integers(len(WORDS))], draw.integers(3)
        if memory.write(1, row[0], row[1], int(row[2]), "words"):
            for values, value in zip(written.values(), row, strict=True):
                values.append(value)
    return memory, {name: np.array(values) for name, values in written.items()}


def situations(draw: np.random.Generator, count: int) -> np.ndarray:
    """Numbers as situations have them."""
    low, high = (0, -20, -200, -8), (60, 20, 200, 8)
    return np.column_stack([draw.integers(5, size=count), draw.uniform(low, high, (count, 4))])


def retrieval() -> bool:
    """One situation at a time, as in a car, against looking at every memory. Bars: 5 ms, and the same."""
    memory, held = filled()
    draw = np.random.default_rng(1)
    asked, vectors = situations(draw, 2000), WORDS[draw.integers(len(WORDS), size=2000)]
    seconds, same = [], 0
    for numbers, vector in zip(asked, vectors, strict=True):
        started = time.perf_counter()
        found = memory.recall(np.array([1]), numbers[None], vector[None])[0]
        seconds.append(time.perf_counter() - started)
        near = np.argsort(np.abs(held["numbers"] - numbers) @ WEIGHTS, kind="stable")[:NEAREST]
        alike = [round(float(held["vectors"][place].astype(float) @ vector), 6) for place in near]
        same += bool(found == held["actions"][near[int(np.argmax(alike))]])
    p50, p99 = 1000 * np.percentile(seconds, [50, 99])
    print(
        f"retrieval of {RECORDS:,} memories, one core: median {p50:.2f} ms, 99th percentile {p99:.2f} ms (bar 5); "
        f"equal to brute force in {same:,} of {len(asked):,}"
    )
    return p99 < 5 and same == len(asked)


def world(scene: str) -> World:
    settings = ActorReasonerConfig.model_validate({"scenes": [scene], "reasoner": {"model": RULE}})
    config: WorldConfig = settings.world(scene)  # type: ignore[arg-type]
    return World(Folder("."), config, ReasonerModel())


class Nobody:
    """No Reasoner at all: the Actor alone."""

    def wanted(self, tick: int) -> bool:
        return False

    def offer(self, *_: object) -> None: ...

    def take(self, tick: int) -> list[object]:
        return []


def drive_alone(scene: str, start: int, count: int) -> float:
    """Simulated seconds of so many episodes by the Actor alone, with 1,000 memories."""
    place, texts = world(scene), Texts(PackagedEmbedder())
    texts.learn({memory_words(UNTHOUGHT, said): WORDS[0] for said in (GO_FIRST, NOTHING, YIELD)})
    policy = PairPolicy(scene, FULL, Nobody(), filled(1000)[0], texts)
    track = run_episodes(place.start(range(start, start + count)), place.config.drivers, policy)
    return len(track.wanted_TB) * place.config.traffic.tick_s * count


def episodes() -> bool:
    """Episodes a second with one process and with two, start-up left out. Bars: 50 times real time, near-linear."""
    context = multiprocessing.get_context("spawn")
    rates, times = [], []
    for workers in (1, 2):
        with context.Pool(workers) as pool:
            pool.starmap(drive_alone, [("intersection", 0, 5)] * workers, chunksize=1)
            started = time.perf_counter()
            lots = [("intersection", 100 * lot, 100) for lot in range(8)]
            simulated = sum(pool.starmap(drive_alone, lots, chunksize=1))
            seconds = time.perf_counter() - started
        rates.append(800 / seconds)
        times.append(simulated / seconds)
        print(
            f"Actor alone, {workers} worker(s): {rates[-1]:.0f} episodes/s, {times[-1]:,.0f} times real time (bar 50)"
        )
    print(f"two workers: {rates[1] / rates[0]:.2f} times one")
    return min(times) > 50 and rates[1] / rates[0] > 1.6


def live(cars: int = 25, lots: int = 8) -> bool:
    """A Reasoner slowed to 3 s and killed every 10 s. Bar: no control tick missed in 200 episodes."""
    connect(cpus=2)
    place, texts, memory = world("intersection"), Texts(PackagedEmbedder()), Memory(1000, WIDTH)
    fill(memory, texts, Gatherer(place)({"id": "bench", "episodes": [0, 25]})["candidates"])
    config, clocks, mailboxes, found = LiveConfig(slowed_s=3.0, killed_every_s=10.0), [], [], []
    for lot in range(lots):
        clocks.append(Clock(place.config.traffic.tick_s))
        mailboxes.append(Mailbox(lambda: LiveReasoner(place, config.slowed_s), texts, config, WorkerResources(cpus=1)))
        start = place.start([LIVE + lot * cars + car for car in range(cars)])
        policy = PairPolicy("intersection", FULL, mailboxes[-1], memory, texts)
        with mailboxes[-1], killing(mailboxes[-1], config.killed_every_s):
            found.append(outcomes(run_episodes(start, place.config.drivers, policy, clocks[-1])))
    work_ms = 1000 * np.concatenate([clock.work_s for clock in clocks])
    missed, accounts = sum(clock.missed for clock in clocks), [mailbox.account for mailbox in mailboxes]
    lost, thoughts = sum(account.lost for account in accounts), sum(account.thoughts for account in accounts)
    good, hits = sum(int(one.succeeded.sum()) for one in found), sum(int(one.collided.sum()) for one in found)
    print(
        f"by the clock, {cars * lots} episodes, {cars} at once, a Reasoner of 3 s killed every 10 s: "
        f"{missed} of {len(work_ms):,} ticks missed (bar 0); {thoughts:,} thoughts given, {lost} questions lost; "
        f"work of a tick: median {np.median(work_ms):.1f} ms, longest {work_ms.max():.1f} ms; "
        f"{good} succeeded, {hits} collided"
    )
    return missed == 0


def demo() -> bool:
    """Every way to drive at the intersection, with a model learned in minutes."""
    return _collisions("demo")


def collisions() -> bool:
    """Every way to drive in every scene. Bar: fewer collisions than the rule and than the Reasoner alone."""
    return _collisions("full")


def _collisions(config: str) -> bool:
    target, met = ROOT / "runs" / "bench" / f"actor_reasoner-{config}", True
    command = [sys.executable, "-m", "squadron.core.cli", "run", "actor_reasoner", config, "--run", str(target)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for done in sorted(target.glob("stages/compare-*/done.json")):
        output = json.loads(done.read_text())["output"]
        found = {one["method"]: one for one in output["driven"]}
        for name, one in found.items():
            passed = "nobody passed" if one["passed_s"] is None else f"{one['passed_s']:.2f} s"
            print(f"{output['scene']}, {name}: {one['collided']:.1%} of {one['episodes']} collided, {passed}")
        others = [found[name]["collided"] for name in (IDM, ALONE.name)]
        met &= found[FULL.name]["collided"] < min(others)
    return met


PARTS = {"retrieval": retrieval, "episodes": episodes, "live": live, "demo": demo, "collisions": collisions}

if __name__ == "__main__":
    results = [PARTS[part]() for part in sys.argv[1:] or PARTS]
    sys.exit(not all(results))
