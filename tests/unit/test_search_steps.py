"""Step search equals a naive reading of the paper, and does what was worked out by hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.search import Compare, Found, Preference, Propose, StepSearchConfig, search_steps
from squadron.search.steps import best_and_worst, contests, scores

LAST = "end"
TEXTS = ["a", "b", "c", LAST]
PAIRS = [(one, other) for one in TEXTS for other in TEXTS if one != other]
Judge = Callable[[tuple[str, ...], str, str], str | None]
Log = list[tuple[Propose | Compare, Sequence[Any]]]


def drive(config: StepSearchConfig, answer: Callable[[Any], Sequence[Any]]) -> tuple[Found, Log]:
    search, log = search_steps(config, lambda step: step == LAST), []
    ask = next(search)
    while True:
        log.append((ask, answer(ask)))
        try:
            ask = search.send(log[-1][1])
        except StopIteration as end:
            return end.value, log


def run(config: StepSearchConfig, proposals: Sequence[Sequence[str | None]], judge: Judge) -> tuple[Found, Log]:
    """The search over scripted proposals, one list an iteration, the last of them for ever."""

    def answer(ask: Propose | Compare) -> Sequence[Any]:
        if isinstance(ask, Propose):
            return proposals[min(ask.iteration, len(proposals) - 1)]
        return [judge(ask.steps, first, second) for first, second in ask.contests]

    return drive(config, answer)


def always(verdict: str | None) -> Judge:
    return lambda steps, first, second: verdict


def prefers(*order: str) -> Judge:
    """A judge without position bias that likes what comes earlier in `order`; texts outside it are all the same."""

    def judge(steps: tuple[str, ...], first: str, second: str) -> str | None:
        ranks = [order.index(text) if text in order else len(order) for text in (first, second)]
        return None if ranks[0] == ranks[1] else "first" if ranks[0] < ranks[1] else "second"

    return judge


@st.composite
def scripts(
    draw: st.DrawFn,
) -> tuple[StepSearchConfig, list[list[str | None]], list[dict[tuple[str, str], str | None]]]:
    """A configuration, the candidates of every iteration, and the verdicts after 0, 1, 2… steps."""
    config = StepSearchConfig(
        width=draw(st.integers(2, 5)),
        max_iterations=draw(st.integers(1, 7)),
        credit=draw(st.sampled_from(["each_order", "both_orders"])),
        identical=draw(st.sampled_from(["accept", "roll_back"])),
    )
    texts = st.sampled_from([*draw(st.sampled_from([TEXTS, TEXTS[:3], TEXTS[:1]])), None])
    candidates = st.lists(texts, min_size=config.width, max_size=config.width)
    size = config.max_iterations
    chance = random.Random(draw(st.integers(0, 10**6)))
    outcomes = ["first", "second", "first", "second", None]
    verdicts = [{pair: chance.choice(outcomes) for pair in PAIRS} for _ in range(size)]
    return config, draw(st.lists(candidates, min_size=size, max_size=size)), verdicts


def naive(
    config: StepSearchConfig,
    proposals: list[list[str | None]],
    verdicts: list[dict[tuple[str, str], str | None]],
) -> tuple[list[str], list[tuple[list[str], str, str]], str]:
    """The paper's loop over i and j, with two lists that grow and shrink together."""
    steps: list[str] = []
    pairs: list[tuple[list[str], str, str] | None] = []
    ended = "iterations"
    for row in proposals:
        table = verdicts[len(steps)]
        points = [0] * config.width
        for i in range(config.width):
            for j in range(config.width):
                if i == j or row[i] is None or row[j] is None or row[i] == row[j]:
                    continue
                ahead = table[row[i], row[j]] == "first"
                behind = table[row[j], row[i]] == "second"
                points[i] += int(ahead and behind if config.credit == "both_orders" else ahead)
        valid = [i for i in range(config.width) if row[i] is not None]
        texts = {row[i] for i in valid}
        best = sorted(valid, key=lambda i: (-points[i], i))[:1]
        worst = sorted(valid, key=lambda i: (points[i], i))[:1]
        if len(texts) == 1 and config.identical == "accept":
            pair = None
        elif not valid or points[best[0]] == points[worst[0]]:
            if not steps:
                ended = "dropped"
                break
            steps.pop()
            pairs.pop()
            continue
        else:
            pair = (list(steps), row[best[0]], row[worst[0]])
        steps.append(row[best[0]])
        pairs.append(pair)
        if steps[-1] == LAST:
            ended = "finished"
            break
    return steps, [pair for pair in pairs if pair is not None], ended


@given(scripts())
def test_equals_the_naive_reading(script: Any) -> None:
    config, proposals, verdicts = script
    found, _ = run(config, proposals, lambda steps, first, second: verdicts[len(steps)][first, second])
    pairs = [(list(one.steps), one.chosen, one.rejected) for one in found.preferences]
    assert (list(found.steps), pairs, found.ended) == naive(*script)


@given(scripts())
def test_what_holds_of_every_find(script: Any) -> None:
    config, proposals, verdicts = script
    found, log = run(config, proposals, lambda steps, first, second: verdicts[len(steps)][first, second])
    assert len(found.preferences) <= len(found.steps)
    for one in found.preferences:
        assert found.steps[: len(one.steps) + 1] == (*one.steps, one.chosen)
        assert one.chosen != one.rejected
    assert len({one.steps for one in found.preferences}) == len(found.preferences)
    assert [turn.steps for turn in found.turns] == [ask.steps for ask, _ in log if isinstance(ask, Propose)]
    assert [ask.iteration for ask, _ in log if isinstance(ask, Propose)] == list(range(len(found.turns)))
    assert len(found.turns) <= config.max_iterations
    grown = sum({"step": 1, "same": 1, "rolled_back": -1, "dropped": 0}[turn.outcome] for turn in found.turns)
    assert grown == len(found.steps)


@given(scripts())
def test_recorded_answers_replay_the_search(script: Any) -> None:
    config, proposals, verdicts = script
    found, log = run(config, proposals, lambda steps, first, second: verdicts[len(steps)][first, second])
    answers = iter(answer for _, answer in log)
    again, second_log = drive(config, lambda ask: next(answers))
    assert again == found
    assert second_log == log


@given(scripts())
def test_both_orders_never_credits_more_than_each_order(script: Any) -> None:
    _, proposals, verdicts = script
    for row, table in zip(proposals, verdicts, strict=True):
        strict, loose = scores(row, table, "both_orders"), scores(row, table, "each_order")
        assert all(s <= e for s, e in zip(strict, loose, strict=True) if s is not None and e is not None)
        valid = [text for text in row if text is not None]
        assert sum(s for s in strict if s is not None) <= len(valid) * (len(valid) - 1) // 2


def test_contests_are_ordered_pairs_of_distinct_texts_by_first_occurrence() -> None:
    expected = (("b", "a"), ("b", "c"), ("a", "b"), ("a", "c"), ("c", "b"), ("c", "a"))
    assert contests(["b", None, "a", "b", "c"]) == expected
    assert len(contests("abcdef")) == 6 * 5
    assert contests(["a", None, "a"]) == contests([None, None]) == ()


def test_a_text_that_occurs_twice_counts_twice_for_who_beats_it_and_never_for_itself() -> None:
    verdicts = {("a", "b"): "first", ("b", "a"): "second"}
    for credit in ("each_order", "both_orders"):
        assert scores(["a", "b", None, "b"], verdicts, credit) == (2, 0, None, 0)
        assert scores(["a", "a", "b"], verdicts, credit) == (1, 1, 0)


def test_credit_of_a_verdict_goes_to_the_step_shown_first_alone() -> None:
    """Calls (a,b) and (b,a) that both find for a are one point for a: "second" never credits the one shown second."""
    assert scores(["a", "b"], {("a", "b"): "first", ("b", "a"): "second"}, "each_order") == (1, 0)
    assert scores(["a", "b"], {("a", "b"): "second", ("b", "a"): "second"}, "each_order") == (0, 0)
    assert scores(["a", "b"], {("a", "b"): "first", ("b", "a"): None}, "each_order") == (1, 0)
    assert scores(["a", "b"], {("a", "b"): "first", ("b", "a"): None}, "both_orders") == (0, 0)


def test_ties_go_to_the_lowest_index() -> None:
    assert best_and_worst([1, 3, 3, 0, None, 0]) == (1, 3)
    assert best_and_worst([2, None, 2]) is None
    assert best_and_worst([None, None]) is None
    found, _ = run(StepSearchConfig(width=4), [["c", "b", "a", LAST]], prefers(LAST))
    assert found.preferences == (Preference((), LAST, "c"),)


def test_a_finished_search_by_hand() -> None:
    """a > b > c, no duplicates: scores 2, 1, 0."""
    found, log = run(StepSearchConfig(width=3), [["b", "a", "c"], ["c", LAST, "b"]], prefers("a", LAST, "b", "c"))
    assert found.steps == ("a", LAST)
    assert found.preferences == (Preference((), "a", "c"), Preference(("a",), LAST, "c"))
    assert found.ended == "finished"
    assert found.turns[0].scores == (1, 2, 0)
    assert (found.turns[0].chosen, found.turns[0].rejected, found.turns[0].outcome) == (1, 2, "step")
    assert found.turns[0].contests[:2] == (("b", "a", "second"), ("b", "c", "first"))
    assert [type(ask) for ask, _ in log] == [Propose, Compare] * 2
    assert log[2][0] == Propose(("a",), 3, 1)


def test_a_tie_takes_back_the_last_step_and_its_preference() -> None:
    """Two steps, then a tie: back to one step; the second step is asked for again and another one is found."""
    proposals = [["a", "b"], ["b", "c"], ["x", "y"], ["c", LAST]]
    found, log = run(StepSearchConfig(width=2), proposals, prefers("a", LAST, "b", "c"))
    assert [turn.outcome for turn in found.turns] == ["step", "step", "rolled_back", "step"]
    assert found.turns[2].steps == ("a", "b")
    assert found.turns[2].scores == (0, 0)
    assert found.turns[3].steps == ("a",)
    assert found.steps == ("a", LAST)
    assert found.preferences == (Preference((), "a", "b"), Preference(("a",), LAST, "c"))
    asked = [ask for ask, _ in log if isinstance(ask, Propose) and ask.steps == ("a",)]
    assert [ask.iteration for ask in asked] == [1, 3]


def test_a_tie_at_the_first_step_drops_the_problem() -> None:
    found, _ = run(StepSearchConfig(width=2), [["x", "y"]], prefers("a"))
    assert (found.steps, found.preferences, found.ended) == ((), (), "dropped")
    assert [turn.outcome for turn in found.turns] == ["dropped"]
    found, _ = run(StepSearchConfig(width=2), [["a", "b"], ["x", "y"], ["x", "y"]], prefers("a", "b"))
    assert (found.steps, found.preferences, found.ended) == ((), (), "dropped")
    assert [turn.outcome for turn in found.turns] == ["step", "rolled_back", "dropped"]


@pytest.mark.parametrize("verdict", ["first", "second", None])
@pytest.mark.parametrize("credit", ["each_order", "both_orders"])
def test_a_judge_that_looks_at_the_position_alone_prefers_nothing(credit: Any, verdict: Any) -> None:
    found, _ = run(StepSearchConfig(width=3, credit=credit), [["a", "b", "c"]], always(verdict))
    assert (found.preferences, found.ended) == ((), "dropped")
    full = 2 if (credit, verdict) == ("each_order", "first") else 0
    assert found.turns[0].scores == (full,) * 3


def test_position_bias_and_repeated_texts_prefer_under_each_order_only() -> None:
    """Shown first always wins: a text that occurs once beats three others, one that occurs twice beats two."""
    proposals = [["a", "b", "a", LAST]]
    found, _ = run(StepSearchConfig(width=4, credit="each_order"), proposals, always("first"))
    assert found.turns[0].scores == (2, 3, 2, 3)
    assert found.turns[0].step == "b"
    found, _ = run(StepSearchConfig(width=4, credit="both_orders"), proposals, always("first"))
    assert found.turns[0].scores == (0, 0, 0, 0)
    assert found.ended == "dropped"


def test_after_the_last_iteration_the_preferences_of_surviving_steps_are_kept() -> None:
    proposals = [["a", "b"], ["a", "b"], ["x", "y"]]
    found, _ = run(StepSearchConfig(width=2, max_iterations=3), proposals, prefers("a", "b"))
    assert (found.steps, found.preferences, found.ended) == (("a",), (Preference((), "a", "b"),), "iterations")
    found, _ = run(StepSearchConfig(width=2, max_iterations=5), [["a", "b"]], prefers("a", "b"))
    assert (found.steps, len(found.preferences), found.ended) == (("a",) * 5, 5, "iterations")


@pytest.mark.parametrize("row", [["b", "b"], [None, "b"]])
def test_identical_candidates_are_a_step_without_a_preference_or_a_tie(row: list[str | None]) -> None:
    proposals = [["a", "c"], row, ["c", LAST]]
    found, log = run(StepSearchConfig(width=2), proposals, prefers("a", LAST, "c"))
    assert found.steps == ("a", "b", LAST)
    assert found.preferences == (Preference((), "a", "c"), Preference(("a", "b"), LAST, "c"))
    assert (found.turns[1].outcome, found.turns[1].step, found.turns[1].rejected) == ("same", "b", None)
    assert [type(ask) for ask, _ in log] == [Propose, Compare, Propose, Propose, Compare]
    found, _ = run(StepSearchConfig(width=2, identical="roll_back"), proposals, prefers("a", LAST, "c"))
    assert [turn.outcome for turn in found.turns] == ["step", "rolled_back", "step"]
    assert (found.steps, found.preferences) == ((LAST,), (Preference((), LAST, "c"),))


def test_a_step_without_a_preference_is_taken_back_alone() -> None:
    proposals = [["a", "c"], ["b", "b"], ["x", "y"], ["c", LAST]]
    found, _ = run(StepSearchConfig(width=2), proposals, prefers("a", LAST, "c"))
    assert found.steps == ("a", LAST)
    assert found.preferences == (Preference((), "a", "c"), Preference(("a",), LAST, "c"))


def test_a_last_step_that_all_candidates_agree_on_finishes() -> None:
    found, _ = run(StepSearchConfig(width=2), [[LAST, LAST]], always(None))
    assert (found.steps, found.preferences, found.ended) == ((LAST,), (), "finished")


def test_proposals_that_are_never_usable_end_the_search() -> None:
    found, log = run(StepSearchConfig(width=2), [[None, None]], always("first"))
    assert (found.ended, len(log)) == ("dropped", 1)
    assert found.turns[0].scores == (None, None)
    proposals: list[list[str | None]] = [["a", "b"], [None, None]] * 50
    found, log = run(StepSearchConfig(width=2, max_iterations=20), proposals, prefers("a", "b"))
    assert (found.ended, found.steps, len(found.turns)) == ("iterations", (), 20)


def test_answers_that_do_not_fit_are_refused() -> None:
    config = StepSearchConfig(width=2)
    with pytest.raises(ValueError, match="candidates"):
        run(config, [["a"]], always(None))
    with pytest.raises(ValueError, match="no verdict"):
        run(config, [["a", "b"]], always("A"))
    with pytest.raises(ValueError, match="shorter"):
        drive(config, lambda ask: ["a", "b"] if isinstance(ask, Propose) else ["first"])
