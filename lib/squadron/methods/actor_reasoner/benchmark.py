"""Who drives how: every method on the same unseen episodes of a scene, and the memory that the Actor brings to them."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from squadron.core.folder import Folder
from squadron.evaluate.scores import Metrics
from squadron.llm.embed import AnyEmbedder, open_embedder
from squadron.llm.providers import open_model
from squadron.methods.actor_reasoner.algorithm import ACCELERATIONS, FASTER, features, see, worth_keeping
from squadron.methods.actor_reasoner.baselines import OraclePolicy, RulePolicy
from squadron.methods.actor_reasoner.config import WorldConfig
from squadron.methods.actor_reasoner.episodes import (
    EVALUATION,
    MEMORIES,
    Decision,
    Policy,
    Track,
    outcomes,
    run_episodes,
    silent,
)
from squadron.methods.actor_reasoner.language import open_small
from squadron.methods.actor_reasoner.memory import Memory
from squadron.methods.actor_reasoner.policy import Car, PairPolicy, SimulatedThoughts, Variant
from squadron.methods.actor_reasoner.ppo import PpoPolicy
from squadron.methods.actor_reasoner.prompts import Thought, memory_words
from squadron.methods.actor_reasoner.reasoner import Reasoner
from squadron.methods.actor_reasoner.records import ReasonerModel
from squadron.sim.driving.scenes import make_scene
from squadron.sim.driving.spec import SceneName, TrafficConfig
from squadron.sim.driving.traffic import Traffic, draw_traffic

FULL = Variant()
WAITING = Variant("Reasoner alone, the world waits", actor=False, waits=True)
ALONE = Variant("Reasoner alone", actor=False)
ABLATIONS = (
    Variant("no partition", partition=False),
    Variant("one layer", layers=1),
    Variant("no speech", hears=False),
    Variant("no display", shows=False),
)
_MOST_TEXTS = 10_000
RULE, ORACLE, PPO = "rule (IDM)", "oracle", "PPO"


class Texts:
    """Vectors of texts, each computed once; all are forgotten when there are too many."""

    def __init__(self, settings: AnyEmbedder) -> None:
        self._settings = settings
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        if len(self._known) > _MOST_TEXTS:
            self._known = {}
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self.learn(dict(zip(new, self._embedder.embed(new), strict=True)))
        return np.stack([self._known[text] for text in texts])

    def learn(self, vectors: dict[str, np.ndarray]) -> None:
        """Vectors that were computed elsewhere."""
        self._known.update(vectors)

    def unknown(self, texts: Sequence[str]) -> bool:
        """Whether any of these would have to be computed."""
        return any(text not in self._known for text in texts)

    @functools.cached_property
    def _embedder(self) -> Any:
        return open_embedder(self._settings)


@dataclass(frozen=True)
class World:
    """A scene with its drivers, and the Reasoner there: what every worker needs."""

    run_folder: Folder
    config: WorldConfig
    reasoner_model: ReasonerModel

    @property
    def scene(self) -> SceneName:
        return self.config.scene

    def start(self, episodes: Sequence[int]) -> Traffic:
        """These episodes at their first tick."""
        config = self.config
        return draw_traffic(make_scene(config.scene), config.traffic, config.drivers, config.seed, episodes)

    def open_reasoner(self) -> Reasoner:
        """The Reasoner, loaded."""
        asked = self.config.reasoner
        if self.reasoner_model.trained is not None:
            return open_small(self.reasoner_model, self.run_folder, asked.display_words)
        assert asked.model is not None
        return Reasoner(open_model(asked.model), asked.template, asked.sampling, asked.display_words)

    def ticks(self, seconds: float) -> int:
        return round(seconds / self.config.traffic.tick_s)

    def thoughts(self, reasoner: Reasoner, waits: bool) -> SimulatedThoughts:
        """The Reasoner on simulated time."""
        asked = self.config.reasoner
        return SimulatedThoughts(reasoner, 0 if waits else self.ticks(asked.think_s), self.ticks(asked.every_s))


@functools.lru_cache(maxsize=2)
def gatherer(world: World) -> Gatherer:
    """A worker's, kept for its next row."""
    return Gatherer(world)


@functools.lru_cache(maxsize=2)
def contestant(world: World, memories: str, learned: str | None = None) -> Contestant:
    """A worker's, kept for its next row."""
    return Contestant(world, memories, learned)


class Gatherer:
    """Lets the Reasoner drive, and notes what is worth remembering."""

    def __init__(self, world: World) -> None:
        self._world, self._reasoner = world, world.open_reasoner()
        self._texts = Texts(world.config.embedder)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Candidates for the memory, in order of episode and tick, as JSON values."""
        world = self._world
        traffic = world.start([MEMORIES + episode for episode in range(*row["episodes"])])
        thoughts = world.thoughts(self._reasoner, waits=True)
        notes = _Notes(PairPolicy(world.scene, WAITING, thoughts, Memory(1, 1), self._texts), world.config.traffic)
        run_episodes(traffic, world.config.drivers, notes)
        notes.found.sort(key=lambda note: (note["episode"], note["tick"]))
        why = thoughts.errors[0] if thoughts.errors else ""
        counts = {"asked": thoughts.asked, "unread": len(thoughts.errors), "why": why}
        return {"id": row["id"], "candidates": notes.found, **counts}


class _Notes:
    """Drives as the Reasoner says, and notes each new thought that is worth keeping."""

    def __init__(self, policy: PairPolicy, config: TrafficConfig) -> None:
        self._policy, self._config, self._tick = policy, config, 0
        self._noted: dict[Car, Thought] = {}
        self.found: list[dict[str, Any]] = []

    def decide(self, traffic: Traffic, said_BV: np.ndarray) -> Decision:
        decision = self._policy.decide(traffic, said_BV)
        view = see(traffic)
        numbers_B5 = features(view)
        for row, other in enumerate(view.other_B.tolist()):
            thought = self._policy.known.get((row, other))
            if thought is None or thought.error or self._noted.get((row, other)) is thought:
                continue
            self._noted[row, other] = thought
            action_B = np.full(traffic.episodes, thought.action)
            if worth_keeping(view, action_B, self._config.tick_s, self._config.top_speed)[row]:
                words = memory_words(thought, str(said_BV[row, other]))
                self.found.append(
                    {
                        "episode": row,
                        "tick": self._tick,
                        "style": thought.style,
                        "numbers": numbers_B5[row].tolist(),
                        "words": words,
                        "action": thought.action,
                    }
                )
        self._tick += 1
        return decision


def fill(memory: Memory, texts: Texts, candidates: Sequence[dict[str, Any]]) -> None:
    """Offer candidates to a memory, in their order."""
    if not candidates:
        return
    vectors_NE = texts([candidate["words"] for candidate in candidates])
    for one, vector_E in zip(candidates, vectors_NE, strict=True):
        memory.write(one["style"], np.array(one["numbers"]), vector_E, one["action"], one["words"])


class Contestant:
    """Drives episodes by any method."""

    def __init__(self, world: World, memories: str, learned: str | None, reasoner: Reasoner | None = None) -> None:
        """`memories` is the file of the memory, `learned` that of a policy learned by reinforcement; both in the run
        folder. A Reasoner that is not given is loaded when it is needed."""
        self._world, self._learned = world, learned
        self._memory = read_memory(world.run_folder, memories)
        self._texts = Texts(world.config.embedder)
        self._reasoner = reasoner
        self._shared = self._memory.merged()

    def score(self, method: str, episodes: Sequence[int], memories: int | None = None) -> list[Metrics]:
        """Outcomes of some episodes by one method; the first has what all of them took: situations thought about,
        answers that could not be read, seconds, and seconds of simulated time."""
        world = self._world
        policy, thoughts = self.policy(method, memories)
        traffic = world.start([EVALUATION + episode for episode in episodes])
        started = time.perf_counter()
        track = run_episodes(traffic, world.config.drivers, policy)
        seconds = time.perf_counter() - started
        found = outcomes(track)
        columns = {**found._asdict(), "succeeded": found.succeeded}
        metrics: list[Metrics] = [
            {name: float(values[n]) for name, values in columns.items()} for n in range(len(episodes))
        ]
        took = {
            "asked": thoughts.asked if thoughts else 0,
            "unread": len(thoughts.errors) if thoughts else 0,
            "seconds": seconds,
            "simulated_s": len(track.wanted_TB) * world.config.traffic.tick_s * len(episodes),
        }
        return [{**metrics[0], **took}, *metrics[1:]]

    def policy(self, method: str, memories: int | None = None) -> tuple[Policy, SimulatedThoughts | None]:
        """A method, ready for the first tick of some episodes, and its Reasoner's thoughts if it has one."""
        if method == RULE:
            return RulePolicy(), None
        if method == ORACLE:
            return OraclePolicy(
                self._world.config.drivers, self._world.ticks(self._world.config.reasoner.every_s)
            ), None
        if method == PPO:
            return LearnedPolicy(PpoPolicy.load(self._world.run_folder.file(str(self._learned)))), None
        variant = next(one for one in (FULL, WAITING, ALONE, *ABLATIONS) if one.name == method)
        return self._pair(variant, memories)

    def drive_one(self, episode: int) -> tuple[Track, list[Thought]]:
        """An episode by the method itself: its track, and what was thought at each tick."""
        policy, _ = self._pair(FULL, None)
        track = run_episodes(self._world.start([EVALUATION + episode]), self._world.config.drivers, policy)
        return track, policy.trail

    def _pair(self, variant: Variant, memories: int | None) -> tuple[PairPolicy, SimulatedThoughts]:
        self._reasoner = self._reasoner or self._world.open_reasoner()
        thoughts = self._world.thoughts(self._reasoner, variant.waits)
        memory = self._memory if variant.partition else self._shared
        if memories is not None:
            memory = memory.first(memories)
        return PairPolicy(self._world.scene, variant, thoughts, memory, self._texts), thoughts


@dataclass
class LearnedPolicy:
    """A policy learned by reinforcement at the wheel: it keeps to each decision for as long as it learned to."""

    policy: PpoPolicy
    _tick: int = 0
    _wanted_B: np.ndarray | None = None

    def decide(self, traffic: Traffic, said_BV: np.ndarray) -> Decision:
        if self._wanted_B is None or self._tick % self.policy.decide_every == 0:
            self._wanted_B = self.policy.accelerations(traffic)
        self._tick += 1
        meets_B = traffic.open_BVV[:, 0].any(1)
        return Decision(np.where(meets_B, self._wanted_B, ACCELERATIONS[FASTER]), silent(traffic.episodes))


def read_memory(folder: Folder, file: str) -> Memory:
    """A memory of this run."""
    return Memory.load(Path(folder.local(file)))


def store_memory(folder: Folder, name: str, memory: Memory) -> None:
    """Write a memory into a folder, behind whatever URL."""
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / name
        memory.save(path)
        folder.put(name, str(path))
