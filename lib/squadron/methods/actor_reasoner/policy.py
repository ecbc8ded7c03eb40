"""The pair at the wheel: the Actor decides each tick, the Reasoner's thoughts come when they come.

Letters: B episodes, V cars, E dimensions of a text's vector.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from squadron.methods.actor_reasoner.algorithm import ACCELERATIONS, FASTER, IDLE, View, features, how_safe, see
from squadron.methods.actor_reasoner.baselines import follow
from squadron.methods.actor_reasoner.episodes import Decision, silent
from squadron.methods.actor_reasoner.memory import NOBODY, Memory
from squadron.methods.actor_reasoner.prompts import Situation, Thought, careful, memory_words
from squadron.methods.actor_reasoner.reasoner import Reasoner
from squadron.sim.driving.traffic import Traffic

_BEFORE_S = 1.0
UNTHOUGHT = careful("nobody has thought yet")
"""What holds of a car met until the Reasoner's first thought about it."""


Car = tuple[int, int]
"""An episode, and the number of a car in it."""


class Thoughts(Protocol):
    """Where thoughts come from: on simulated time, or from Reasoners that run beside (`live`)."""

    def wanted(self, tick: int) -> bool:
        """Whether anybody can take up a situation now."""

    def offer(self, tick: int, cars: Sequence[Car], situations: Sequence[Situation]) -> None:
        """Situations as they are now. What was offered before and nobody took up is forgotten."""

    def take(self, tick: int) -> list[tuple[Sequence[Car], Sequence[Thought]]]:
        """Thoughts that have come since."""


Embed = Callable[[Sequence[str]], np.ndarray]
"""Vectors of length 1 of texts."""


class SimulatedThoughts:
    """A Reasoner on simulated time: asked when it is free and `every` ticks have passed, it answers `takes` later."""

    def __init__(self, reasoner: Reasoner, takes: int, every: int) -> None:
        self._reasoner, self._takes, self._every = reasoner, takes, every
        self._free_at = 0
        self._coming: list[tuple[int, Sequence[Car], Sequence[Thought]]] = []
        self.asked = 0
        self.errors: list[str] = []

    def wanted(self, tick: int) -> bool:
        return tick >= self._free_at

    def offer(self, tick: int, cars: Sequence[Car], situations: Sequence[Situation]) -> None:
        thoughts = self._reasoner.think(situations)
        self.asked += len(thoughts)
        self.errors += [thought.error for thought in thoughts if thought.error]
        self._coming.append((tick + self._takes, cars, thoughts))
        self._free_at = tick + max(1, self._every, self._takes)

    def take(self, tick: int) -> list[tuple[Sequence[Car], Sequence[Thought]]]:
        come = [(cars, thoughts) for due, cars, thoughts in self._coming if due <= tick]
        self._coming = [one for one in self._coming if one[0] > tick]
        return come


@dataclass(frozen=True)
class Variant:
    """The method, or the method without one of its parts."""

    name: str = "Actor and Reasoner"
    actor: bool = True
    partition: bool = True
    layers: int = 2
    hears: bool = True
    shows: bool = True
    waits: bool = False  # the world stands still while the Reasoner thinks


class Past:
    """The ticks of the last second, and lowest speeds so far: how the other drove."""

    def __init__(self, scene: str, tick_s: float) -> None:
        self._scene = scene
        self._slowest_BV: np.ndarray | None = None
        self._ticks: deque[Traffic] = deque(maxlen=round(_BEFORE_S / tick_s) + 1)

    def note(self, traffic: Traffic) -> None:
        """Keep this tick."""
        self._ticks.append(traffic)
        known_BV = self._slowest_BV if self._slowest_BV is not None else traffic.speed_BV
        self._slowest_BV = np.minimum(known_BV, traffic.speed_BV)

    def situation(self, row: int, view: View, said: str, last: int, display: str) -> Situation:
        """The situation of one episode at the last tick noted, as the Reasoner is asked about it."""
        assert self._slowest_BV is not None
        before, now, other = self._ticks[0], self._ticks[-1], int(view.other_B[row])
        return Situation(
            scene=self._scene,
            own_m=float(view.own_m_B[row]),
            own_speed=float(view.own_speed_B[row]),
            own_s=float(view.own_s_B[row]),
            other_m=float(view.other_m_B[row]),
            other_speed=float(view.other_speed_B[row]),
            other_s=float(view.other_s_B[row]),
            other_acceleration=float(view.other_acceleration_B[row]),
            slowest=float(self._slowest_BV[row, other]),
            before_speed=float(before.speed_BV[row, other]),
            before_m=float(view.other_m_B[row] + now.arc_BV[row, other] - before.arc_BV[row, other]),
            stood_s=float(now.stood_BV[row, other]),
            caution=int(how_safe(view)[row]),
            said=said,
            last=last,
            display=display,
        )


class PairPolicy:
    """Actor and Reasoner, or the Reasoner alone where the variant has no actor.

    The Reasoner thinks about situations as they are when it takes them up. Meanwhile the Actor goes by its last
    thoughts, and a Reasoner alone by its last decision.
    """

    def __init__(self, scene: str, variant: Variant, thoughts: Thoughts, memory: Memory, embed: Embed) -> None:
        self._scene, self._variant = scene, variant
        self._thoughts, self._memory, self._embed = thoughts, memory, embed
        self._tick = 0
        self._past: Past | None = None
        self._last_B = np.zeros(0, np.int64)
        self._display_B = silent(0)
        self.known: dict[Car, Thought] = {}
        self.trail: list[Thought] = []
        """What was thought at each tick of the first episode, for films."""

    def decide(self, traffic: Traffic, said_BV: np.ndarray) -> Decision:
        if self._past is None:
            self._past = Past(self._scene, traffic.config.tick_s)
            self._last_B = np.full(traffic.episodes, IDLE)
            self._display_B = silent(traffic.episodes)
        self._past.note(traffic)
        view = see(traffic)
        said_B = said_BV[np.arange(traffic.episodes), view.other_B] if self._variant.hears else silent(traffic.episodes)
        self._think(view, said_B)
        self._tick += 1
        thoughts = [self.known.get(car, UNTHOUGHT) for car in enumerate(view.other_B.tolist())]
        self.trail.append(thoughts[0])
        action_B = self._act(traffic, view, thoughts, said_B)
        self._last_B = np.where(view.meets_B, action_B, FASTER)
        self._display_B = self._show(view, thoughts)
        return Decision(ACCELERATIONS[self._last_B], self._display_B)

    def _think(self, view: View, said_B: np.ndarray) -> None:
        assert self._past is not None
        rows = np.flatnonzero(view.meets_B).tolist()
        if rows and self._thoughts.wanted(self._tick):
            cars = [(row, int(view.other_B[row])) for row in rows]
            situations = [
                self._past.situation(row, view, str(said_B[row]), int(self._last_B[row]), str(self._display_B[row]))
                for row in rows
            ]
            self._thoughts.offer(self._tick, cars, situations)
        for known, come in self._thoughts.take(self._tick):
            self.known.update(zip(known, come, strict=True))

    def _act(self, traffic: Traffic, view: View, thoughts: list[Thought], said_B: np.ndarray) -> np.ndarray:
        if self._variant.actor:
            action_B = remember(self._memory, self._embed, self._variant, view, thoughts, said_B)
            unknown_B = action_B == NOBODY
        else:
            action_B = np.array([thought.action for thought in thoughts], np.int64)
            unknown_B = np.array([thought is UNTHOUGHT for thought in thoughts])
        return np.where(unknown_B, nearest_action(follow(view, traffic)), action_B)

    def _show(self, view: View, thoughts: list[Thought]) -> np.ndarray:
        shown_B = silent(len(thoughts))
        if self._variant.shows:
            for row in np.flatnonzero(view.meets_B):
                shown_B[row] = thoughts[row].display
        return shown_B


def remember(
    memory: Memory, embed: Embed, variant: Variant, view: View, thoughts: Sequence[Thought], said_B: np.ndarray
) -> np.ndarray:
    """What the Actor does (B): as it did when things were most alike. `NOBODY` where nothing is remembered, or no car
    is met."""
    action_B = np.full(len(thoughts), NOBODY)
    rows = np.flatnonzero(view.meets_B).tolist()
    if rows:
        words = [memory_words(thoughts[row], str(said_B[row]), variant.hears, variant.shows) for row in rows]
        style_B = np.array([thoughts[row].style for row in rows], np.int64)
        action_B[rows] = memory.recall(style_B, features(view)[rows], embed(words), layers=variant.layers)
    return action_B


def nearest_action(acceleration_B: np.ndarray) -> np.ndarray:
    """The action (B) whose acceleration is the closest."""
    nearest_B: np.ndarray = np.abs(acceleration_B[:, None] - ACCELERATIONS).argmin(1)
    return nearest_B
