"""What the Reasoner is asked, and how its answer is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from squadron.core.blanks import fill_in
from squadron.llm.parsing import Unreadable
from squadron.methods.actor_reasoner.algorithm import ACTIONS, LONGEST_BETWEEN_S, SLOWER
from squadron.sim.driving.drivers import GO_FIRST, NOTHING, YIELD
from squadron.sim.driving.spec import STYLES

CAUTIONS = (
    "There is room to go first.",
    "Going first may not be safe.",
    "Both would be there at about the same time, which is serious.",
    "The other is there much sooner: going first is a danger.",
    "The other car stands: go on.",
)
"""In the order of `algorithm.how_safe`."""
ALARMS = ("safe", "perhaps", "serious", "danger", "stands")

SITUATION = (
    "Your way meets that of a car with a human driver ({scene}). "
    "You: {own_m} m before the conflict at {own_speed} m/s, there in {own_s}. "
    "The other: {other_m} m before it at {other_speed} m/s, there in {other_s}; "
    "it drives {other_acceleration} m/s² faster every second; a second ago it had {before_m} m to go and "
    "{before_speed} m/s. Its lowest speed so far was {slowest} m/s, and it has stood for {stood} s. "
    "{caution} The driver says: {said}. Your last decision was {last}, and your display says: {display}."
)
"""What there is to see, in words; a negative distance is behind the conflict."""

PROMPT = """{situation}

You share the road with people whose manners differ. Keep everybody safe first, then lose no time, and never trade the \
one for the other. An aggressive driver does not give way, a conservative one does. A display on your car shows the \
driver a message.

Think step by step:
1. What will the driver do next, speed up or slow down?
2. What do its speeds and its words tell of its style?
3. Who of the two should go first?
4. What should your car do now, and what should the driver know of it?

End with these four lines and nothing else on them:
Style: AGGRESSIVE, NORMAL or CONSERVATIVE
Intention: ACCELERATE or DECELERATE
Decision: FASTER, IDLE or SLOWER
Display: at most {words} words for the driver, or nothing"""

BRIEF = "{brief}"
"""The same for the small model, which has learned what is asked of it: see `question`."""

Intention = Literal["ACCELERATE", "DECELERATE"]
INTENTIONS: tuple[Intention, ...] = ("ACCELERATE", "DECELERATE")
ANSWER = "Decision: {decision}\nDisplay: {display}\nIntention: {intention}\nStyle: {style}"
"""Of the small model. What to do comes first, and is learned from what can be seen: behind the driver's true style, it
would be learned from what nobody knows."""

_STYLES = {**{style.upper(): number for number, style in enumerate(STYLES)}, "GENERAL": STYLES.index("normal")}
_SILENT = {"", "nothing", "none", "n/a", "-", "no message"}
_GIVES_WAY = re.compile(
    r"\b(you (may |can |should )?(go|first|pass)|after you|go ahead|yield\w*|wait\w*|please (go|pass))", re.I
)
_TAKES_WAY = re.compile(
    r"\b(i|i'm|i'll|we|we'll)( am| will| are)? (go|going|pass\w*|first)\b|\bgoing first\b|\blet me\b", re.I
)


@dataclass(frozen=True)
class Situation:
    """One situation, in numbers and words, as the Reasoner is asked about it."""

    scene: str
    own_m: float
    own_speed: float
    own_s: float
    other_m: float
    other_speed: float
    other_s: float
    other_acceleration: float
    slowest: float
    before_speed: float
    before_m: float
    stood_s: float
    caution: int
    said: str
    last: int
    display: str

    @property
    def between_s(self) -> float:
        """Seconds by which the other is later at the conflict, within ±`LONGEST_BETWEEN_S`."""
        return min(max(self.other_s - self.own_s, -LONGEST_BETWEEN_S), LONGEST_BETWEEN_S)


EXAMPLE = Situation("merge", 20.0, 7.0, 2.9, 22.0, 6.0, 3.7, 0.0, 6.0, 6.0, 28.0, 0.0, 2, NOTHING, 1, NOTHING)


@dataclass(frozen=True)
class Thought:
    """What the Reasoner thinks: numbers in `STYLES`, `INTENTIONS` and `ACTIONS`, and what the display is to say.
    `error` says why it is no thought of the model's but the safe one in its place."""

    style: int
    intention: int
    action: int
    display: str = NOTHING
    text: str = ""
    error: str = ""


def question(situation: Situation, template: str, words: int) -> str:
    """What the Reasoner is asked: a template with its `fields` filled in."""
    return fill_in(template, **fields(situation, words))


def fields(one: Situation, words: int) -> dict[str, object]:
    """What a template may hold: the fields of `SITUATION`, {situation} for all that, {brief} for the same in few signs,
    and {words}, the most that a display may have."""
    seen: dict[str, object] = {
        "scene": one.scene,
        "own_m": f"{one.own_m:.0f}",
        "own_speed": f"{one.own_speed:.1f}",
        "own_s": _seconds(one.own_s),
        "other_m": f"{one.other_m:.0f}",
        "other_speed": f"{one.other_speed:.1f}",
        "other_s": _seconds(one.other_s),
        "between": f"{one.between_s:+.1f}",
        "alarm": ALARMS[one.caution],
        "other_acceleration": f"{one.other_acceleration:+.1f}",
        "slowest": f"{one.slowest:.1f}",
        "before_m": f"{one.before_m:.0f}",
        "before_speed": f"{one.before_speed:.1f}",
        "stood": f"{one.stood_s:.0f}",
        "caution": CAUTIONS[one.caution],
        "said": one.said or "nothing",
        "last": ACTIONS[one.last],
        "display": one.display or "nothing",
    }
    return {**seen, "situation": fill_in(SITUATION, **seen), "brief": _brief(one), "words": words}


def _brief(one: Situation) -> str:
    """Every number has two digits, and so stands at the same place: times in fifths of a second, metres, and speeds in
    tenths."""
    parts = [
        one.scene,
        ALARMS[one.caution],
        _signed(one.between_s * 5),
        _signed(one.own_m),
        _digits(one.own_speed * 10),
        _digits(one.own_s * 5),
        _signed(one.other_m),
        _digits(one.other_speed * 10),
        _digits(one.other_s * 5),
        _signed(one.other_acceleration * 10),
        _digits(one.before_speed * 10),
        _digits(one.slowest * 10),
        _digits(one.stood_s * 10),
        one.said or "nothing",
        ACTIONS[one.last],
        one.display or "nothing",
    ]
    return " ".join(parts)


def _digits(value: float) -> str:
    return f"{min(max(value, 0.0), 99.0):02.0f}"


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{_digits(abs(value))}"


def answer(thought: Thought) -> str:
    """A thought as the Reasoner writes it: what the small model learns to say."""
    return ANSWER.format(
        style=STYLES[thought.style].upper(),
        intention=INTENTIONS[thought.intention],
        decision=ACTIONS[thought.action],
        display=thought.display or "nothing",
    )


def read_thought(text: str, words: int) -> Thought:
    """The thought that an answer ends with. A display of more than `words` words is not shown.

    Raises Unreadable if a field is missing, names none of its words, or several.
    """
    style = _choose(text, "style", tuple(_STYLES))
    display = _field(text, "display")
    display = "" if display.casefold().strip(" .") in _SILENT or len(display.split()) > words else display
    return Thought(
        _STYLES[style],
        INTENTIONS.index(_choose(text, "intention", INTENTIONS)),
        ACTIONS.index(_choose(text, "decision", ACTIONS)),
        display,
        text.strip(),
    )


def careful(error: str, text: str = "") -> Thought:
    """What is thought where the model gave no answer that can be read: a driver of no known style that goes first."""
    return Thought(STYLES.index("normal"), 0, SLOWER, NOTHING, text, error)


def meaning(display: str) -> str:
    """What drivers take a message to mean: that the car goes first, that it yields, or nothing."""
    gives, takes = bool(_GIVES_WAY.search(display)), bool(_TAKES_WAY.search(display))
    if gives == takes:
        return NOTHING
    return YIELD if gives else GO_FIRST


def memory_words(thought: Thought, said: str, hears: bool = True, shows: bool = True) -> str:
    """The words of a memory, without numbers: what is thought of the driver, what the display says, what it says.
    Without `hears` or `shows` the driver's words or the display are left out."""
    parts = [f"{STYLES[thought.style]} driver; will {INTENTIONS[thought.intention].lower()}"]
    parts += [f"display: {thought.display or 'nothing'}"] if shows else []
    parts += [f"driver says: {said or 'nothing'}"] if hears else []
    return "; ".join(parts) + "."


def _field(text: str, name: str) -> str:
    label = re.compile(rf"[\W_]{{0,20}}(?:\w{{1,40}} )?{name}[\W_]{{0,20}}?[:=]", re.IGNORECASE)
    for line in reversed(text.split("\n")):
        if (found := label.match(line)) is not None:
            return line[found.end() :].strip(" \t\r*_`\"'")
    raise Unreadable(f"no line of the answer says {name}", where=_shown(text))


def _choose(text: str, name: str, choices: tuple[str, ...]) -> str:
    said = _field(text, name)
    named = [choice for choice in choices if re.search(rf"\b{choice}\b", said, re.I)]
    if len(named) != 1:
        what = f"{name} names {'several' if named else 'none'} of {', '.join(choices)}"
        raise Unreadable(what, where=_shown(text))
    return named[0]


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return f"the answer “{line[:200]}{'…' if len(line) > 200 else ''}”" if line else "an empty answer"


def _seconds(seconds: float) -> str:
    return "never" if seconds > 20 else f"{seconds:.1f} s"
