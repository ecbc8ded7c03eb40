"""The work of the stages that drive: filling a memory, the comparison, and driving by the clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from squadron.core.errors import InputError
from squadron.core.rows import map_rows
from squadron.core.run import Stage
from squadron.evaluate.benchmark import Cell, run_benchmark
from squadron.evaluate.scores import Metrics, Problem
from squadron.methods.actor_reasoner import figures, film
from squadron.methods.actor_reasoner.benchmark import (
    ABLATIONS,
    ALONE,
    FULL,
    ORACLE,
    PPO,
    RULE,
    WAITING,
    Texts,
    World,
    contestant,
    fill,
    gatherer,
    read_memory,
    store_memory,
)
from squadron.methods.actor_reasoner.config import EvaluationConfig, LiveConfig, MemoryConfig
from squadron.methods.actor_reasoner.episodes import LIVE, outcomes, run_episodes
from squadron.methods.actor_reasoner.live import Clock, LiveReasoner, Mailbox, killing
from squadron.methods.actor_reasoner.memory import Memory
from squadron.methods.actor_reasoner.policy import PairPolicy
from squadron.methods.actor_reasoner.records import LearnedDriver, Live, Memories, SceneScores

_TOGETHER = 25


def build_memory(stage: Stage, world: World, config: MemoryConfig) -> Memories:
    """Fill the Actor's memory with what the Reasoner decides while the world waits for it; the same of any number of
    workers."""
    texts = Texts(world.config.embedder)
    width = texts(["nothing"]).shape[1]
    memory = Memory(config.capacity, width)
    if config.path is not None:
        memory = _earlier(config, width)
    rows = [
        {"id": f"episodes {start}", "episodes": [start, min(start + _TOGETHER, config.episodes)]}
        for start in range(0, config.episodes, _TOGETHER)
    ]
    lots = map_rows(stage, rows, _gather, unit="lot", timeout_s=3600.0, world=world) if rows else []
    candidates = [candidate for lot in lots for candidate in lot["candidates"]]
    fill(memory, texts, candidates)
    asked, unread = sum(lot["asked"] for lot in lots), sum(lot["unread"] for lot in lots)
    if not len(memory) and (failures := stage.failures()):
        what = f"{len(failures)} of {len(rows)} lots of episodes failed: {failures[0]['error']}"
        raise InputError(what, where=str(stage.folder), fix="fix the cause, then give the same command")
    if not len(memory):
        why = next((lot["why"] for lot in lots if lot["why"]), "")
        unreadable = f"; {unread:,} of {asked:,} answers could not be read, the first because {why}" if unread else ""
        fix = "take a larger model, or change reasoner.template" if unread else "raise memory.episodes"
        raise InputError(f"the Actor has nothing to remember{unreadable}", where=f"scene {world.scene}", fix=fix)
    store_memory(stage.folder, "memory.safetensors", memory)
    stage.show(figures.memory_table(world.scene, memory, len(candidates), asked, unread))
    stage.headline(f"memories, {world.scene}", f"{len(memory):,}")
    return Memories.made(stage, "memory.safetensors", scene=world.scene, count=len(memory), unread=unread)


def _gather(row: dict[str, Any], world: World) -> dict[str, Any]:
    """Runs on a worker."""
    return gatherer(world)(row)


def _drive(
    cell: Cell, world: World, memories: str, learned: str | None, entries: Mapping[str, tuple[str, int | None]]
) -> list[Metrics]:
    """Runs on a worker."""
    method, size = entries[cell.methods[0]]
    return contestant(world, memories, learned).score(method, [int(one.name) for one in cell.problems], size)


def _earlier(config: MemoryConfig, width: int) -> Memory:
    from pathlib import Path

    memory = Memory.load(Path(str(config.path)))
    if memory.width != width or not memory.partition:
        what = f"this memory has vectors of {memory.width} numbers, those of memory.embedder have {width}"
        raise InputError(what, where=str(config.path), fix="take the embedder that it was built with")
    memory.capacity = config.capacity
    return memory


def compare(
    stage: Stage, world: World, memories: Memories, learned: LearnedDriver, config: EvaluationConfig
) -> SceneScores:
    """Drive the same unseen episodes by every method."""
    methods = [FULL.name, WAITING.name, ALONE.name, RULE]
    methods += [variant.name for variant in ABLATIONS] if config.ablations else []
    methods += [PPO] if learned.file is not None else []
    methods += [ORACLE] if config.oracle else []
    sizes = {f"{FULL.name}, {size} memories": size for size in config.memory_sizes if size < memories.count}
    scores = run_benchmark(
        stage,
        [*methods, *sizes],
        list(map(Problem, range(config.episodes))),
        _drive,
        problems_per_cell=config.part,
        required=(),
        whole=[FULL.name],
        unit="part",
        timeout_s=config.timeout_s,
        world=world,
        memories=memories.path,
        learned=learned.file,
        entries={method: (method, None) for method in methods} | {name: (FULL.name, n) for name, n in sizes.items()},
    )
    whole = scores.only([method for method in methods if scores.complete(method)])
    stage.show(figures.methods_table(world.scene, whole))
    stage.show(figures.differences(world.scene, whole, FULL.name))
    if at := {size: name for name, size in sorted(sizes.items(), key=lambda one: one[1]) if scores.complete(name)}:
        stage.show(figures.memory_curves(world.scene, scores, {**at, memories.count: FULL.name}))
    if config.filmed:
        film.show(stage, world, memories.path, config, scores)
    driven = tuple(figures.driven(method, whole) for method in whole.methods)
    for one in driven:
        if one.method in (FULL.name, RULE):
            stage.headline(f"{one.method} collided, {world.scene}", f"{one.collided:.1%}")
            stage.headline(f"{one.method} succeeded, {world.scene}", f"{one.succeeded:.1%}")
        if one.method == FULL.name:
            stage.measure(collided=one.collided, succeeded=one.succeeded)
    return SceneScores(scene=world.scene, driven=driven)


def drive_live(stage: Stage, world: World, memories: Memories, config: LiveConfig) -> Live:
    """Drive some episodes at once by the clock."""
    stage.claim_cluster()
    texts = Texts(world.config.embedder)
    memory = read_memory(stage.run.folder, memories.path)
    texts(["nothing"])  # the embedder is loaded before the clock starts
    traffic = world.start([LIVE + episode for episode in range(config.cars)])
    clock = Clock(world.config.traffic.tick_s)
    mailbox = Mailbox(lambda: LiveReasoner(world, config.slowed_s), texts, config, stage.run.profile.worker)
    with mailbox, killing(mailbox, config.killed_every_s):
        track = run_episodes(
            traffic, world.config.drivers, PairPolicy(world.scene, FULL, mailbox, memory, texts), clock
        )
    account = mailbox.account
    stage.show(figures.live_table(world.scene, clock, account, outcomes(track)))
    ticks = len(track.wanted_TB)
    stage.headline(f"control ticks missed of {ticks}, {world.scene}", str(clock.missed))
    if account.ages_s:
        stage.headline(f"median age of a thought, {world.scene}", f"{np.median(account.ages_s):.2f} s")
    return Live(ticks=ticks, missed=clock.missed, restarts=account.lost)
