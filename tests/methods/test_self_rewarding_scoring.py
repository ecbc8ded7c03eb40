"""Rewarding by outcome, the baseline SRLM: scores that are read, pairs that come of them, and where data comes from."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.data.arithmetic import draw_problem, problems
from squadron.data.stepwise import grade, graded, graded_pairs, is_right, solution_steps, wrong_step
from squadron.data.stepwise import right_step as next_step
from squadron.llm.batch.programs import Ask, Program
from squadron.llm.chat import ChatReply, ChatRequest, Sampling
from squadron.llm.rewards.reward import Answered, Score
from squadron.methods.self_rewarding import algorithm, evaluation, scored_data
from squadron.methods.self_rewarding.config import PromptsConfig, ScoringConfig
from squadron.methods.self_rewarding.rounds import preference_rows
from squadron.methods.self_rewarding.scored_data import build_scores, level, pairs
from squadron.methods.self_rewarding.scoring import Scored, Scorer, score_both
from squadron.train.text.tokenizer import train_tokenizer

PROMPTS = PromptsConfig(score="{question}\n{solution}\nScore?")
DRAWN = Sampling(max_tokens=64, temperature=0.7, top_p=0.9)
Points = Sequence[float | None]


def config(candidates: int, judgements: int) -> ScoringConfig:
    return ScoringConfig(candidates=candidates, judgements=judgements, proposing=DRAWN, judging=DRAWN)


def drive(program: Program[Any], answer: Callable[[str, Any], Any]) -> Any:
    """Run one program, each item answered by itself."""
    replies: Any = None
    while True:
        try:
            ask: Ask = program.send(replies)
        except StopIteration as end:
            return end.value
        replies = [answer(ask.model, item) for item in ask.items]


class Models:
    """A model that proposes these solutions in turn, and judges that draw these points for each; None: no score."""

    def __init__(self, solutions: Sequence[str | None], points: dict[str, Points]) -> None:
        self.proposed, self.points = iter(solutions), points
        self.asked: list[ChatRequest] = []

    def __call__(self, model: str, item: ChatRequest) -> ChatReply:
        self.asked.append(item)
        said = item.messages[-1]["content"]
        if not said.endswith("Score?"):
            text = next(self.proposed)
            return ChatReply("", text or "Step 1: 2+2", finish_reason="stop" if text else "length")
        points = self.points[said.splitlines()[1]]
        drawn = Counter(one.messages[-1]["content"] for one in self.asked)[said] - 1
        score = points[drawn]
        return ChatReply("", "I cannot say." if score is None else f"Some points. Score: {score:g}")


def scored(solutions: Sequence[str | None], points: dict[str, Points]) -> Scored:
    count = max([len(some) for some in points.values()], default=1)
    scorer = Scorer(PROMPTS, config(len(solutions), count), seed=0)
    found = drive(scorer("p", "What is 2+2?"), Models(solutions, points))
    assert isinstance(found, Scored)
    return found


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("Good. Score: 4", 4), ("**Score:** 3", 3), ("**Score: 5**", 5), ("score: 2/5", 2), ("Score: 3.5", 3.5),
        ("Score: 0", 0), ("Score: 2. No more.", 2), ("Score: 1\nScore: 4", 4), ("Score: <5>", 5), ("Score: 4 of 5", 4),
        ("4", None), ("", None), ("Score: six", None), ("Score: 6", None), ("Score: -1", None), ("Score: 45", None),
        ("Score: 3-4", None), ("Score: 3.5-4", None), ("Score: 4/10", None), ("Score: 3\nScore: none", None),
        ("underscore: 4", None),
    ],
)  # fmt: skip
def test_the_last_score_holds_and_what_is_none_is_not_guessed(said: str, score: float | None) -> None:
    assert algorithm.read_score(said) == score


@given(st.text(max_size=30), st.integers(0, 50).map(lambda tenths: tenths / 10), st.text(alphabet=" .\n*", max_size=3))
def test_a_score_is_read_whatever_stands_before_it(before: str, score: float, behind: str) -> None:
    assert algorithm.read_score(f"{before} Score: {score:g}{behind}") == score


def test_pairs_of_known_scores() -> None:
    found = scored(["a", "b", "c", "b"], {"a": (5, 2, 5), "b": (1, 1, 4), "c": (4, 5, 4)})
    assert found.scores == (4, 2, pytest.approx(13 / 3), 2)
    assert found.pair == ("c", "b") and found.answer == "c"
    assert found.judged == 9, "equal solutions are judged once"
    assert scored(["a", "b"], {"a": (5, 1), "b": (3, 3)}).pair is None, "equal means"
    assert scored(["a", "a"], {"a": (5, 1)}).pair is None


def test_what_cannot_be_read_is_counted_and_left_out_and_is_never_nought() -> None:
    found = scored(["a", "b", "c"], {"a": (None, 1), "b": (None, None), "c": (3, 4)})
    assert found.scores == (1, None, 3.5) and found.unreadable == 3
    assert found.pair == ("c", "a"), "no score is not the lowest"
    assert scored(["a", "b"], {"a": (None,), "b": (2,)}).pair is None
    cut = scored([None, "a", None], {"a": (2,)})
    assert (cut.cut_off, cut.scores, cut.pair, cut.answer) == (2, (None, 2, None), None, "a")
    nothing = scored([None, None], {})
    assert (nothing.cut_off, nothing.pair, nothing.answer, nothing.judged) == (2, None, None, 0)


TEXTS = st.lists(st.sampled_from("abcdef"), min_size=2, max_size=6)
POINT = st.none() | st.integers(0, 10).map(lambda halves: halves / 2)


@given(TEXTS, st.data())
def test_the_order_of_candidates_and_of_judgements_does_not_matter(texts: list[str], data: st.DataObject) -> None:
    points: dict[str, Points] = {
        text: data.draw(st.lists(POINT, min_size=3, max_size=3), text) for text in sorted(set(texts))
    }
    shuffled = data.draw(st.permutations(texts))
    others = {text: data.draw(st.permutations(some)) for text, some in points.items()}
    one, other = scored(texts, points), scored(shuffled, others)
    means = dict(zip(texts, one.scores, strict=True))
    assert means == dict(zip(shuffled, other.scores, strict=True))
    for text, mean in means.items():
        there = [Fraction(point) for point in points[text] if point is not None]
        assert mean == (float(sum(there) / len(there)) if there else None)
    known = sorted(mean for mean in means.values() if mean is not None)
    for found in (one, other):
        if not known or known[0] == known[-1]:
            assert found.pair is None
        else:
            assert found.pair is not None
            assert [means[text] for text in found.pair] == [known[-1], known[0]]
    if len(known) > 1 and known.count(known[0]) == known.count(known[-1]) == 1:
        assert one.pair == other.pair


def test_every_draw_has_a_seed_of_its_own_that_its_text_alone_decides() -> None:
    def asked(solutions: list[str]) -> list[ChatRequest]:
        models = Models(solutions, dict.fromkeys(solutions, (1, 2, 3)))
        drive(Scorer(PROMPTS, config(len(solutions), 3), seed=0)("p", "What?"), models)
        return models.asked

    requests = asked(["a", "b", "a"])
    assert len(requests) == 3 + 2 * 3 and len({one.sampling.seed for one in requests}) == 9
    assert all(one.sampling.temperature == 0.7 for one in requests)
    judged = [set(map(str, asked(some)[2:])) for some in (["a", "b"], ["b", "a"])]
    assert judged[0] == judged[1]


def test_a_pair_is_judged_right_by_the_higher_score_and_its_order_does_not_matter() -> None:
    points: dict[str, Points] = {"good": (4, 5), "bad": (1, 5), "same": (3, 3), "mute": (None, None)}

    def judged(*pair: str) -> Any:
        return drive(score_both("m", PROMPTS, config(2, 2), "What?", (pair[0], pair[1])), Models([], points))

    assert (judged("good", "bad").shown, judged("good", "bad").swapped) == ("first", "second")
    assert (judged("bad", "good").shown, judged("bad", "good").swapped) == ("second", "first")
    assert judged("bad", "same").shown is None and judged("good", "mute").shown is None
    rows = [{"better": "A"}, {"better": "A"}, {"better": "B"}, {"better": "B"}]
    pairs_judged = [("good", "bad"), ("bad", "good"), ("bad", "good"), ("bad", "same")]
    result = evaluation._judge([(row, judged(*pair)) for row, pair in zip(rows, pairs_judged, strict=True)])
    assert result.right == result.right_swapped == (True, False, True, False)
    assert (result.unreadable, result.accuracy, result.position_bias) == (2, 0.5, 0)


def test_a_reply_that_failed_is_told() -> None:
    def down(model: str, item: ChatRequest) -> ChatReply:
        if item.messages[-1]["content"].endswith("Score?"):
            return ChatReply("", finish_reason="error", error="the judge is down")
        return ChatReply("", "a", finish_reason="stop")

    found = drive(Scorer(PROMPTS, config(2, 2), seed=0)("p", "What?"), down)
    assert (found.error, found.unreadable, found.pair) == ("the judge is down", 0, None)


class Makers:
    """A policy that proposes these solutions, their rewards, and the points that a judge gives each."""

    def __init__(self, rewards: dict[str, float | None], points: dict[str, Points]) -> None:
        self.rewards, self.models = rewards, Models(list(rewards), points)

    def __call__(self, model: str, item: Any) -> Any:
        if isinstance(item, Answered):
            value = self.rewards[item.response]
            return Score("", value, "" if value is not None else "the reward is down")
        return self.models(model, item)


def test_judgements_are_kept_where_the_scores_are_in_the_order_of_the_rewards() -> None:
    def built(rewards: dict[str, float | None], points: dict[str, Points]) -> scored_data.Built:
        program = build_scores(config(len(rewards), 1), PROMPTS, "p", "What?")
        found = drive(program, Makers(rewards, points))
        assert isinstance(found, scored_data.Built)
        return found

    kept = built({"a": 0.9, "b": 0.5, "c": 0.1}, {"a": (4,), "c": (1,)})  # b is not judged
    assert kept.became == "kept" and not kept.error
    assert [(row["solution"], row["score"]) for row in kept.rows] == [("a", 4), ("c", 1)]
    assert all(algorithm.read_score(row["judgement"]) == row["score"] for row in kept.rows)
    for points in ((1,), (4,)), ((3,), (3,)):
        assert built({"a": 0.9, "c": 0.1}, dict(zip("ac", points, strict=True))).became == "judge and reward disagree"
    assert built({"a": 0.5, "c": 0.5}, {}).became == "equal rewards"
    assert built({"a": 0.9, "c": 0.1}, {"a": (4,), "c": (None,)}).became == "no score"
    failed = built({"a": None, "b": 0.2, "c": 0.1}, {"b": (4,), "c": (1,)})
    assert (failed.became, failed.error, failed.rows) == ("no reply", "the reward is down", [])


def row(number: int, score: float, question: str = "") -> dict[str, Any]:
    return {"question": question or str(number), "solution": f"s{number}", "judgement": "", "score": score}


@given(st.lists(st.integers(0, 5), max_size=30), st.randoms(use_true_random=False))
def test_the_most_common_score_is_cut_down_to_the_next(scores: list[int], draw: random.Random) -> None:
    rows = [row(number, score) for number, score in enumerate(scores)]
    left = level(rows)
    before, after = Counter(scores), Counter(one["score"] for one in left)
    counts = [count for _, count in before.most_common()]
    assert sorted(after.values(), reverse=True) == [*counts[1:2], *counts[1:]] if len(counts) > 1 else left == rows
    assert left == [one for one in rows if one in left], "the order stays"
    if len(counts) < 2 or counts[0] > counts[1]:
        shuffled = draw.sample(rows, len(rows))
        assert sorted(map(json.dumps, level(shuffled))) == sorted(map(json.dumps, left))


def test_held_out_pairs_are_of_one_problem_and_of_different_scores() -> None:
    rows = [row(1, 4, "x"), row(2, 1, "x"), row(3, 4, "x"), row(4, 2, "y"), row(5, 5, "y"), row(6, 3, "z")]
    found = [(one["question"], one["first"], one["second"], one["better"]) for one in pairs(rows)]
    assert found == [("x", "s1", "s2", "A"), ("x", "s2", "s3", "B"), ("y", "s4", "s5", "B")]
    with pytest.raises(InputError, match="no held-out problem has two solutions with different scores"):
        pairs([row(1, 4, "x"), row(2, 4, "x"), row(3, 1, "y")])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": 4}, "does not end with the score"), ({"score": "3"}, "'score' holds a text, not a finite number"),
        ({"judgement": "Fine."}, "does not end with the score"), ({"solution": " "}, "'solution' is empty"),
    ],
)  # fmt: skip
def test_scored_solutions_of_a_file_are_checked(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    good = {"question": "What?", "solution": "a", "judgement": "Fair. Score: 3", "score": 3}
    path = tmp_path / "scores.jsonl"
    path.write_text(json.dumps(good) + "\n")
    assert scored_data.of_file(str(path)) == [good]
    path.write_text(f"{json.dumps(good)}\n{json.dumps(good | change)}\n")
    with pytest.raises(InputError, match=said) as raised:
        scored_data.of_file(str(path))
    assert "scores.jsonl" in str(raised.value) and "2" in str(raised.value)


def test_the_small_world_scores_the_steps_before_the_first_mistake() -> None:
    problem = draw_problem(random.Random(3), 3)
    steps = solution_steps(problem)
    assert [grade(problem, steps[:count])[1] for count in range(4)] == [0, 1, 3, 5]
    for place in range(3):
        wrong = wrong_step(random.Random(0), next_step(problem, steps[:place])).text
        assert grade(problem, [*steps[:place], wrong, *steps[place + 1 :]])[1] == 5 * place // 3
    asked = list(problems(60, 0))
    for one in graded(asked, 0, 0.5):
        assert algorithm.read_score(one.judgement) == one.score == grade(one.problem, one.steps)[1]
        right = [is_right(one.problem, one.steps[:place], step) for place, step in enumerate(one.steps)]
        assert (one.score == 5) == (all(right) and len(right) == len(one.problem.steps))
    both = list(graded_pairs(asked, 0, 0.5))
    assert all(first.problem == second.problem and first.score != second.score for first, second in both)
    assert 0.3 < sum(first.score > second.score for first, second in both) / len(both) < 0.7
    assert list(itertools.islice(graded(asked, 0), 5)) == list(itertools.islice(graded(asked, 0), 5))


def test_whole_solutions_end_where_a_turn_does(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    train_tokenizer(["Step 1: 2+2=4.", "user", "assistant"], 300, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    record = {"question": "What?", "steps": [], "chosen": "Step 1: 2+2=4.\nStep 2: 4.", "rejected": "Step 1: 5."}
    (whole,) = preference_rows(tokenizer, [record], PROMPTS, whole=True)
    (step,) = preference_rows(tokenizer, [record], PROMPTS)
    assert whole["prompt_ids"] == step["prompt_ids"]
    for side in ("chosen", "rejected"):
        assert whole[f"{side}_ids"][0] == step[f"{side}_ids"][0]
        assert tokenizer.eos_token_id in whole[f"{side}_ids"] and tokenizer.eos_token_id not in step[f"{side}_ids"]
        assert record[side] in tokenizer.decode(whole[f"{side}_ids"])
