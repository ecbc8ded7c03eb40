"""The Actor's memory, the Reasoner's words, and episodes on simulated time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from squadron.core.errors import InputError
from squadron.llm.parsing import Unreadable
from squadron.methods.actor_reasoner.algorithm import (
    ACCELERATIONS,
    DANGER,
    FASTER,
    PERHAPS,
    SAFE,
    SERIOUS,
    SLOWER,
    STANDS,
    WEIGHTS,
    View,
    features,
    how_safe,
    see,
    worth_keeping,
)
from squadron.methods.actor_reasoner.baselines import OraclePolicy, RulePolicy, Suspects
from squadron.methods.actor_reasoner.benchmark import WAITING
from squadron.methods.actor_reasoner.config import ActorReasonerConfig
from squadron.methods.actor_reasoner.episodes import Decision, Track, outcomes, run_episodes, silent
from squadron.methods.actor_reasoner.memory import NEAREST, NOBODY, Memory
from squadron.methods.actor_reasoner.policy import PairPolicy, Variant
from squadron.methods.actor_reasoner.prompts import (
    ALARMS,
    BRIEF,
    EXAMPLE,
    PROMPT,
    Thought,
    answer,
    meaning,
    memory_words,
    question,
    read_thought,
)
from squadron.methods.actor_reasoner.training_data import Lesson, by_stake, draw_lessons
from squadron.sim.driving.drivers import GO_FIRST, NOTHING, YIELD, drivers_wish
from squadron.sim.driving.scenes import make_scene
from squadron.sim.driving.spec import DriversConfig, SceneName, TrafficConfig
from squadron.sim.driving.traffic import Traffic, draw_traffic, drive

SCENES: tuple[SceneName, ...] = ("intersection", "roundabout", "merge")
DRIVERS = DriversConfig(hears_display=True)
WIDTH = 6
numbers = arrays(np.float64, 5, elements=st.floats(-30, 30, width=16))


def start(scene: SceneName = "intersection", episodes: int = 40, **traffic: int) -> Traffic:
    return draw_traffic(make_scene(scene), TrafficConfig(**traffic), DRIVERS, 0, range(episodes))


def vectors(count: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def filled(
    count: int, capacity: int = 10_000, seed: int = 0
) -> tuple[Memory, list[tuple[int, np.ndarray, np.ndarray, int]]]:
    """A memory of situations too far apart to be alike, and what was written into it."""
    draw, memory = np.random.default_rng(seed), Memory(capacity, WIDTH)
    written = []
    for number, vector in enumerate(vectors(count, seed)):
        row = int(draw.integers(3)), draw.uniform(-40, 40, 5), vector, int(draw.integers(3))
        if memory.write(*row, words=f"memory {number}"):
            written.append(row)
    return memory, written


# Memory


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([1, 2]))
@settings(max_examples=60)
def test_recall_is_what_looking_at_every_memory_finds(seed: int, count: int, layers: int) -> None:
    memory, written = filled(count, seed=seed)
    draw = np.random.default_rng(seed + 1)
    style_B, numbers_B5, vectors_BE = draw.integers(3, size=8), draw.uniform(-40, 40, (8, 5)), vectors(8, seed + 2)
    found = memory.recall(style_B, numbers_B5, vectors_BE, layers=layers)
    for style, situation, vector, action in zip(style_B, numbers_B5, vectors_BE, found, strict=True):
        part = [row for row in written if row[0] == style]
        if not part:  # then those of all styles are looked at, style by style
            part = sorted(written, key=lambda row: row[0])
        apart = [sum(w * abs(a - b) for w, a, b in zip(WEIGHTS, row[1], situation, strict=True)) for row in part]
        near = sorted(range(len(part)), key=lambda n: (apart[n], n))[: NEAREST if layers == 2 else 1]
        best = max(near, key=lambda n: round(float(part[n][2].astype(np.float64) @ vector), 6))
        assert action == part[best][3]


def test_nothing_is_recalled_from_an_empty_memory() -> None:
    assert Memory(5, WIDTH).recall(np.zeros(2, int), np.zeros((2, 5)), vectors(2)).tolist() == [NOBODY, NOBODY]


@given(numbers, st.floats(-3.9, 3.9), st.integers(0, 4))
def test_what_is_like_a_memory_is_not_kept_and_what_differs_is(base: np.ndarray, apart: float, place: int) -> None:
    memory, (one, other) = Memory(9, WIDTH), vectors(2)
    other = other - (other @ one) * one  # as far from the first as vectors of length 1 at right angles are
    other /= np.linalg.norm(other)
    near = base.copy()
    near[place] += apart / WEIGHTS[place]
    assert memory.write(0, base, one, FASTER, "first")
    assert not memory.write(0, near, one, FASTER, "alike in numbers, words and decision")
    assert memory.write(0, near, one, SLOWER, "another decision")
    assert memory.write(1, near, one, SLOWER, "of another style")
    assert memory.write(0, near, other, SLOWER, "in other words")
    far = near.copy()
    far[place] += 8.5 / WEIGHTS[place] * (1 if apart >= 0 else -1)
    assert memory.write(0, far, one, FASTER, "in other numbers")


def test_a_full_part_forgets_its_oldest() -> None:
    memory = Memory(3, WIDTH)
    for number, vector in enumerate(vectors(5)):
        assert memory.write(0, np.full(5, 10.0 * number), vector, number % 3, str(number))
    assert memory.counts == {"aggressive": 3, "normal": 0, "conservative": 0}
    situations = np.repeat(10.0 * np.arange(5)[:, None], 5, axis=1)
    found = memory.recall(np.zeros(5, int), situations, vectors(5), layers=1)
    assert found.tolist() == [2, 2, 2, 0, 1]


def test_a_saved_memory_recalls_the_same_and_goes_on_the_same(tmp_path: Path) -> None:
    memory, _ = filled(300, capacity=60)
    memory.save(tmp_path / "memory.safetensors")
    again = Memory.load(tmp_path / "memory.safetensors")
    asked = (
        np.random.default_rng(5).integers(3, size=50),
        np.random.default_rng(6).uniform(-40, 40, (50, 5)),
        vectors(50, 7),
    )
    for extra in range(40):
        assert memory.recall(*asked).tolist() == again.recall(*asked).tolist()
        row = extra % 3, np.full(5, 100.0 + 9 * extra), vectors(1, extra)[0], extra % 3, "more"
        assert memory.write(*row) == again.write(*row)
    assert memory.counts == again.counts


def test_fewer_memories_are_the_oldest_and_merged_ones_are_all() -> None:
    memory, written = filled(50)
    assert len(memory.first(10)) == 10 and len(memory.merged()) == len(written) == 50
    first, expected = memory.first(10), Memory(99, WIDTH)
    for row in written[:10]:
        expected.write(*row, words="")
    asked = np.arange(3), np.zeros((3, 5)), vectors(3, 3)
    assert first.recall(*asked).tolist() == expected.recall(*asked).tolist()


def test_a_file_that_is_no_memory_of_this_version_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "memory.safetensors"
    filled(5)[0].save(path)
    arrays_ = load_file(path)
    known = {"format": "squadron.actor_memory", "version": 1}
    good = {**known, "memory": {"capacity": 9, "width": 6}, "words": [[], [], []]}
    for about, expected in (
        ({}, "holds no memory of a car"),
        ({**good, "version": 7}, "of version 7, and version 1 is read here"),
        (known, "lacks its description"),
        (good, "do not agree in number"),
    ):
        save_file(arrays_, path, {"about": json.dumps(about)})
        with pytest.raises(InputError, match=expected):
            Memory.load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        Memory.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        Memory.load(tmp_path / "gone")


# What is seen, and what is worth keeping


def view(**values: float) -> View:
    """One situation; what is not given is 10."""
    fields = {name: np.array([values.get(name.removesuffix("_B"), 10.0)]) for name in View._fields}
    return View(**{**fields, "other_B": np.array([1]), "meets_B": np.array([True])})


def test_cautions_go_by_the_seconds_between_and_a_car_that_stands_can_be_passed() -> None:
    for between, expected in (
        (5.1, SAFE),
        (5.0, PERHAPS),
        (1.1, PERHAPS),
        (1.0, SERIOUS),
        (-4.9, SERIOUS),
        (-5.0, DANGER),
    ):
        assert how_safe(view(own_s=20.0, other_s=20.0 + between)) == [expected]
    assert how_safe(view(other_speed=0.1, other_s=1.0)) == [STANDS]


def test_features_are_those_of_the_brief() -> None:
    one = view(own_m=30.0, other_m=12.0, own_speed=6.0, other_speed=7.5, own_s=4.0, other_s=10_000.0)
    assert features(one).tolist() == [[SAFE, 30.0, 20.0, -18.0, 1.5]]


def test_decisions_that_part_the_cars_are_kept_and_those_that_bring_them_together_are_not() -> None:
    first = view(own_m=20.0, own_speed=5.0, own_s=4.0, other_s=5.0, own_acceleration=0.0)
    last = first._replace(own_s_B=np.array([4.0]), other_s_B=np.array([3.0]))
    keeps = {(name, action): bool(worth_keeping(one, np.array([action]), 0.1, 8.0)[0])
             for name, one in (("first", first), ("last", last)) for action in (FASTER, SLOWER)}  # fmt: skip
    assert keeps == {("first", FASTER): True, ("first", SLOWER): True, ("last", FASTER): False, ("last", SLOWER): True}
    assert ACCELERATIONS[SLOWER] == -4, "at −4 the car stops before the conflict and never is there: they part"
    assert worth_keeping(view(own_s=2.0, other_s=8.0), np.array([SLOWER]), 0.1, 8.0).all(), "far apart in time"
    nobody = first._replace(meets_B=np.array([False]))
    assert not worth_keeping(nobody, np.array([FASTER]), 0.1, 8.0).any()


# Words


@pytest.mark.parametrize("style", range(3))
@pytest.mark.parametrize("display", [NOTHING, "you go first", "I go first"])
def test_an_answer_as_it_is_written_is_read_as_it_was_meant(style: int, display: str) -> None:
    for intention, action in ((0, 0), (1, 2), (0, 1)):
        thought = Thought(style, intention, action, display)
        read = read_thought(answer(thought), 8)
        assert (read.style, read.intention, read.action, read.display) == (style, intention, action, display)


def test_answers_of_large_models_are_read_by_their_last_lines() -> None:
    text = """Let me think. The driver's style: it seems AGGRESSIVE or not.

    **HV Style:** *General*
    **Intention**: accelerate.
    - Decision: **SLOWER** (to be safe)
    - Display: "Please go ahead"
    """
    thought = read_thought(text, 8)
    assert (thought.style, thought.intention, thought.action, thought.display) == (1, 0, SLOWER, "Please go ahead")
    assert read_thought(text.replace("ahead", "ahead whenever you are ready to do so my friend"), 8).display == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "an empty answer"),
        ("I think the car should slow down, as the driver may not stop.", "no line of the answer says style"),
        ("Stil: AGGRESSIV\nAbsicht: BESCHLEUNIGEN\nEntscheidung: LANGSAMER", "no line of the answer says style"),
        ("Style: AGGRESSIVE\nIntention: ACCELERATE\nDecision: FASTER or SLOWER\nDisplay: x", "names several"),
        ("Style: AGGRESSIVE\nIntention: stay\nDecision: FASTER\nDisplay: x", "intention names none"),
        ("Style: NORMAL\nIntention: ACCELERATE\nDecision: FASTER", "no line of the answer says display"),
    ],
)
def test_prose_and_other_languages_are_told_from_answers(text: str, expected: str) -> None:
    with pytest.raises(Unreadable, match=expected):
        read_thought(text, 8)


def test_drivers_take_messages_for_what_they_say() -> None:
    for text in (YIELD, "Please go ahead", "after you", "I will wait", "Yielding to you", "you may pass"):
        assert meaning(text) == YIELD, text
    for text in (GO_FIRST, "I'm going first", "I am passing", "we go first", "Let me pass"):
        assert meaning(text) == GO_FIRST, text
    for text in (NOTHING, "hello", "have a nice day"):
        assert meaning(text) == NOTHING, text


def test_questions_say_what_is_seen_and_memories_hold_no_numbers() -> None:
    one = replace(EXAMPLE, said=GO_FIRST, display="you go first", other_s=10_000.0)
    asked = question(one, PROMPT, 8)
    for shown in ("20 m before the conflict at 7.0 m/s", "there in never", GO_FIRST, "at most 8 words", "IDLE"):
        assert shown in asked
    assert len(question(one, BRIEF, 8)) < len(asked) / 4
    words = memory_words(Thought(0, 1, 2, "you go first"), GO_FIRST)
    assert words == "aggressive driver; will decelerate; display: you go first; driver says: I go first."
    assert not any(c.isdigit() for c in words) and "says" not in memory_words(Thought(0, 1, 2), GO_FIRST, hears=False)


@given(
    arrays(np.float64, 11, elements=st.floats(-400, 10_000)),
    st.sampled_from(range(5)),
    st.sampled_from(["", GO_FIRST, YIELD]),
)
def test_briefs_have_every_number_at_the_same_place(figures: np.ndarray, caution: int, said: str) -> None:
    names = ("own_m", "own_speed", "own_s", "other_m", "other_speed", "other_s", "other_acceleration", "slowest",
             "before_speed", "before_m", "stood_s")  # fmt: skip
    one = replace(EXAMPLE, caution=caution, said=said, **dict(zip(names, figures.tolist(), strict=True)))
    brief, pattern = question(one, BRIEF, 8), [len(word) for word in question(EXAMPLE, BRIEF, 8).split()]
    assert [len(word) for word in brief.split()][2:13] == pattern[2:13]
    assert brief.startswith(f"merge {ALARMS[caution]} ") and brief.endswith(f" {said or 'nothing'} IDLE nothing")


# Episodes


class Constant:
    """Goes, or yields while anybody comes."""

    def __init__(self, goes: bool) -> None:
        self.goes = goes

    def decide(self, traffic: Traffic, said_BV: np.ndarray) -> Decision:
        meets_B = traffic.open_BVV[:, 0].any(1)
        return Decision(np.where(meets_B & (not self.goes), -4.0, 2.0), silent(traffic.episodes))


def test_outcomes_of_a_track_written_by_hand() -> None:
    """The own car is at the conflict from 2.0 s to 2.6 s at 8 m/s (a length of 4.8 m), the other comes 1 s later."""
    traffic = start("merge", 1)
    own, other = (float(traffic.scene.conflict_LL[pair]) for pair in ((0, 1), (1, 0)))
    seconds = np.arange(61)[:, None] / 10
    arcs = np.stack([own - 2.4 + 8 * (seconds - 2.0), other - 2.4 + 8 * (seconds - 3.6)], axis=-1)
    track = Track(
        traffic,
        arcs,
        np.full((61, 1, 2), 8.0),
        np.zeros((60, 1)),
        np.full((60, 1), "", object),
        np.zeros((60, 1), bool),
    )
    found = outcomes(track)
    assert found.encroachment_s[0] == pytest.approx(1.0, abs=0.11) and found.first.tolist() == [True]
    assert found.passed_s[0] == pytest.approx(2.0 + (2.4 + 3.0) / 8, abs=0.11)
    assert found.jerk[0] == found.acceleration[0] == found.braking[0] == 0
    hit = outcomes(replace(track, collided_TB=np.arange(60)[:, None] == 20))
    assert hit.collided.all() and np.isnan(hit.passed_s).all() and not hit.succeeded.any()


@pytest.mark.parametrize("scene", SCENES)
def test_the_oracle_is_safer_than_the_rule_and_faster_than_yielding(scene: SceneName) -> None:
    traffic = start(scene, 40)
    policies = {"go": Constant(True), "yield": Constant(False), "rule": RulePolicy(), "oracle": OraclePolicy(DRIVERS)}
    found = {name: outcomes(run_episodes(traffic, DRIVERS, policy)) for name, policy in policies.items()}
    hits = {name: int(one.collided.sum()) for name, one in found.items()}
    assert hits["oracle"] == hits["yield"] == 0 < hits["go"] and hits["rule"] < hits["go"]
    assert found["oracle"].succeeded.all()
    both = np.isfinite(found["yield"].passed_s)
    assert found["oracle"].passed_s[both].mean() < found["yield"].passed_s[both].mean() - 1


def test_styles_that_would_have_done_otherwise_are_ruled_out_and_the_true_one_never_is() -> None:
    traffic = start("roundabout", 40)
    suspects = Suspects(traffic, DRIVERS)
    true_B = traffic.style_BV[:, 1]
    for _ in range(80):
        suspects.note(traffic, silent(40))
        traffic = drive(traffic, drivers_wish(traffic, DRIVERS))
    may_B3 = suspects.may_BV3[:, 1]
    assert may_B3[np.arange(40), true_B].all() and may_B3.sum() < 0.8 * 120


def test_an_oracle_that_must_guess_styles_is_as_safe_as_one_that_knows_them() -> None:
    traffic = start("intersection", 40)
    knows, guesses = (
        outcomes(run_episodes(traffic, DRIVERS, OraclePolicy(DRIVERS, knows=one))) for one in (True, False)
    )
    assert not guesses.collided.any() and guesses.succeeded.all()
    assert knows.passed_s.mean() <= guesses.passed_s.mean() < knows.passed_s.mean() + 1


def test_lessons_say_what_is_so_and_episodes_are_the_same_whatever_runs_beside() -> None:
    world = ActorReasonerConfig().world("merge")
    together, alone = draw_lessons(world, [7, 8, 9], 0.3, 25.0), draw_lessons(world, [8], 0.3, 25.0)
    assert [lesson for lesson in together if lesson.episode == 8] == alone and len(alone) > 3
    styles = draw_traffic(make_scene("merge"), world.traffic, world.drivers, world.seed, [7, 8, 9]).style_BV[:, 1]
    assert all(lesson.thought.style == styles[lesson.episode - 7] for lesson in together)
    assert all(1 <= lesson.styles <= 3 for lesson in together)
    assert all(max(lesson.costs) <= 25.0 for lesson in together) and any(25.0 in lesson.costs for lesson in together)


def test_who_learns_by_stake_learns_the_decision_of_least_cost() -> None:
    """Nine times of ten it is right to go, which saves 2 s; the tenth time it costs 20 s more. Whoever takes the
    commonest decision of the draw waits."""
    go = Lesson(0, EXAMPLE, Thought(1, 0, FASTER), 1, (5.0, 7.0, 7.0))
    wait = Lesson(1, EXAMPLE, Thought(1, 0, SLOWER), 1, (27.0, 27.0, 7.0))
    drawn = by_stake([go] * 9 + [wait], 410, seed=3)
    counts = [sum(lesson.thought.action == action for lesson in drawn) for action in (FASTER, SLOWER)]
    stakes = 9 * (2 + 0.5), 20 + 0.5
    assert counts == [round(410 * stake / sum(stakes)) for stake in stakes]
    assert go.lost_s(FASTER) == wait.lost_s(SLOWER) == 0 and wait.lost_s(FASTER) == 20
    assert by_stake([go, wait], 50, seed=4) == by_stake([go, wait], 50, seed=4)


class Told:
    """Thinks the same of every car, and counts what it is asked."""

    def __init__(self, thought: Thought) -> None:
        self.thought, self.offers = thought, []

    def wanted(self, tick: int) -> bool:
        return tick % 5 == 0

    def offer(self, tick: int, cars: object, situations: list) -> None:
        self.offers.append((tick, list(cars), situations))

    def take(self, tick: int) -> list:
        at, cars, _ = self.offers[-1] if self.offers else (-1, [], [])
        return [(cars, [self.thought] * len(cars))] if at == tick else []


def embed(texts: object) -> np.ndarray:
    return vectors(len(list(texts)))


def test_a_reasoner_alone_is_obeyed_and_its_display_is_shown() -> None:
    traffic = start("intersection", 30)
    for action, display in ((SLOWER, "you go first"), (FASTER, "I go first")):
        told = Told(Thought(0, 0, action, display))
        track = run_episodes(traffic, DRIVERS, PairPolicy("intersection", WAITING, told, Memory(1, WIDTH), embed))
        assert (track.wanted_TB[0] == ACCELERATIONS[action]).all() and (track.display_TB[0] == display).all()
        assert told.offers[0][2][0].scene == "intersection" and [tick for tick, *_ in told.offers[:3]] == [0, 5, 10]


def test_the_actor_decides_as_its_most_alike_memory_did() -> None:
    traffic = start("intersection", 30)
    seen, memory = see(traffic), Memory(99, WIDTH)
    vector = vectors(1)[0]
    for row in range(30):
        memory.write(1, features(seen)[row], vector, row % 3, "words")
    policy = PairPolicy(
        "intersection", Variant(), Told(Thought(1, 0, SLOWER)), memory, lambda texts: np.tile(vector, (len(texts), 1))
    )
    decision = policy.decide(traffic, np.full(traffic.line_BV.shape, NOTHING))
    again = memory.recall(np.ones(30, int), features(seen), np.tile(vector, (30, 1)))
    assert decision.wanted_B.tolist() == ACCELERATIONS[again].tolist()


def test_a_car_that_knows_nothing_drives_by_the_rule() -> None:
    traffic = start("merge", 60)
    policy = PairPolicy("merge", Variant(), Told(Thought(1, 0, SLOWER)), Memory(9, WIDTH), embed)
    alone, ruled = (outcomes(run_episodes(traffic, DRIVERS, one)) for one in (policy, RulePolicy()))
    assert abs(int(alone.collided.sum()) - int(ruled.collided.sum())) <= 4
    assert alone.succeeded.mean() > 0.7
