"""Chats about figures made up by rule: the first query names three slots, each later one changes one or two.

The reference of a turn is the question that has all slots as they then are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from squadron.methods.rewrite.config import WorldConfig
from squadron.methods.rewrite.records import Conversation, Said
from squadron.methods.rewrite.slots import CHARTS, DIMENSIONS, GRAINS, METRICS, PERIODS, Slots, write

Edit = tuple[str, Slots]
"""What is said, and the slots after it."""
_RESPONSES = (
    "Here it is: the highest is {0}, the lowest {1}.",
    "{0} leads, {1} comes last.",
    "Done. {0} is well above {1} in this {chart}.",
)


def make_world(config: WorldConfig) -> Iterator[Conversation]:
    """The conversations, each with rewrites: those to measure on, and then those to learn from."""
    draw = random.Random(config.seed)
    for number in range(config.conversations + config.learned):
        yield Conversation("made up", f"chat-{number}", tuple(_chat(config.turns, draw)))


def _chat(turns: int, draw: random.Random) -> Iterator[Said]:
    slots = Slots((draw.choice(METRICS),), draw.choice(DIMENSIONS), draw.choice(GRAINS[:5]))
    yield _said(f"Show me {slots.grain} {slots.metrics[0]} by {slots.dimension}.", slots, draw)
    for _ in range(turns - 1):
        query, slots = draw.choice(_EDITS)(slots, draw)
        yield _said(query, slots, draw)


def _said(query: str, slots: Slots, draw: random.Random) -> Said:
    low, high = sorted(draw.sample(range(10, 999), 2))
    response = draw.choice(_RESPONSES).format(high, low, chart=slots.chart or "view")
    return Said(query, response, write(slots), kept=slots.texts())


def _other(options: tuple[str, ...], now: str, draw: random.Random) -> str:
    return draw.choice([one for one in options if one != now])


def _grain(slots: Slots, draw: random.Random) -> Edit:
    grain = _other(GRAINS, slots.grain, draw)
    asked = draw.choice(["Make it {0}.", "And {0}?", "I would rather see it {0}."])
    return asked.format(grain), replace(slots, grain=grain)


def _chart(slots: Slots, draw: random.Random) -> Edit:
    chart = _other(CHARTS, slots.chart, draw)
    return draw.choice(["Show this as a {0}.", "Draw a {0} instead."]).format(chart), replace(slots, chart=chart)


def _dimension(slots: Slots, draw: random.Random) -> Edit:
    dimension = _other(DIMENSIONS, slots.dimension, draw)
    asked = draw.choice(["By {0} instead.", "What about {0}?", "Break it down by {0}."])
    return asked.format(dimension), replace(slots, dimension=dimension)


def _grain_and_chart(slots: Slots, draw: random.Random) -> Edit:
    grain, chart = _other(GRAINS, slots.grain, draw), _other(CHARTS, slots.chart, draw)
    return f"Compare it {grain} in a {chart}.", replace(slots, grain=grain, chart=chart)


def _metric(slots: Slots, draw: random.Random) -> Edit:
    metric = draw.choice([one for one in METRICS if one not in slots.metrics])
    asked = draw.choice(["Replace it with {0}.", "Now {0}.", "The same for {0}, please."])
    return asked.format(metric), replace(slots, metrics=(metric,))


def _top(slots: Slots, draw: random.Random) -> Edit:
    top = draw.choice([one for one in (3, 5, 10) if one != slots.top])
    return draw.choice(["Only the top {0}.", "Limit it to the top {0}."]).format(top), replace(slots, top=top)


def _period(slots: Slots, draw: random.Random) -> Edit:
    period = _other(PERIODS, slots.period, draw)
    return draw.choice(["Just {0}.", "Only for {0}."]).format(period), replace(slots, period=period)


def _more(slots: Slots, draw: random.Random) -> Edit:
    metric = draw.choice([one for one in METRICS if one not in slots.metrics] or list(METRICS))
    metrics = tuple(dict.fromkeys((*slots.metrics, metric)))
    return draw.choice(["Add {0}.", "Show {0} as well."]).format(metric), replace(slots, metrics=metrics)


_EDITS: tuple[Callable[[Slots, random.Random], Edit], ...] = (
    _grain, _chart, _dimension, _grain_and_chart, _metric, _top, _period, _more,
)  # fmt: skip
