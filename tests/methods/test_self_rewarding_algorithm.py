"""Self-rewarding without a model: prompts and verdicts, searches as conversations, and how data is built."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.data.arithmetic import draw_problem
from squadron.data.stepwise import is_right, judge, right_step, solution_steps, wrong_step
from squadron.llm.batch.programs import Ask, Program
from squadron.llm.chat import ChatReply, ChatRequest, Sampling
from squadron.llm.rewards.reward import Answered, Score
from squadron.methods.self_rewarding import algorithm, building, evaluation, figures
from squadron.methods.self_rewarding.config import JudgingDataConfig, PromptsConfig, SelfRewardingConfig
from squadron.methods.self_rewarding.conversations import Searched, Searcher, judge_messages
from squadron.methods.self_rewarding.records import BenchmarkResult, Evaluation, JudgeResult
from squadron.methods.self_rewarding.rounds import preference_rows
from squadron.search import StepSearchConfig, TreeSearchConfig
from squadron.train.text.tokenizer import train_tokenizer

PROMPTS = PromptsConfig()
PROPOSING, JUDGING = Sampling(max_tokens=64, temperature=0.5), Sampling(max_tokens=64)


def drive(program: Program[Any], answer: Callable[[str, Any], Any]) -> Any:
    """Run one program, each item answered by itself."""
    replies: Any = None
    while True:
        try:
            ask: Ask = program.send(replies)
        except StopIteration as end:
            return end.value
        replies = [answer(ask.model, item) for item in ask.items]


class World:
    """A policy, a judge and a process reward model that know one problem of the small world."""

    def __init__(self, seed: int, steps: int = 3, skill: float = 0.5, bias: bool = False) -> None:
        self.problem = draw_problem(random.Random(seed), steps)
        self.skill, self.bias, self.asked = skill, bias, Counter[str]()

    def __call__(self, model: str, item: ChatRequest | Answered) -> ChatReply | Score:
        if isinstance(item, Answered):
            self.asked["reward"] += 1
            *before, last = item.response.splitlines()
            return Score("", float(is_right(self.problem, before, last)))
        last = item.messages[-1]
        if "assistant A" in last["content"]:
            self.asked["judge"] += 1
            return ChatReply("", "Both. [[A]]" if self.bias else self._judge(last["content"]))
        self.asked["propose"] += 1
        assert item.sampling.stop == ("\n",) and item.sampling.seed is not None
        before = last["content"].splitlines() if last["role"] == "assistant" else []
        return ChatReply("", self._propose(before, item.sampling.seed))

    def _propose(self, before: Sequence[str], seed: int) -> str:
        draw = random.Random(seed)
        if len(before) >= len(self.problem.steps):  # a step too far: no answer came in time
            return f"Step {len(before) + 1}: 0+0=0, so \\boxed{{0}}."
        right = right_step(self.problem, before)
        return (right if draw.random() < self.skill else wrong_step(draw, right)).text

    def _judge(self, text: str) -> str:
        parts = re.split(r"### .*\n", text)
        steps, first, second = (part.strip() for part in parts[2:])
        before = [] if steps == "(none)" else steps.splitlines()
        over = len(before) >= len(self.problem.steps)
        return "Neither. [[A]]" if over else judge(self.problem, before, first, second)


def searched(world: World, seed: int = 0) -> Searched:
    searcher = Searcher(PROMPTS, StepSearchConfig(), PROPOSING, JUDGING, seed)
    found = drive(searcher("p", world.problem.question), world)
    assert isinstance(found, Searched)
    return found


@given(st.integers(0, 200))
def test_a_right_judge_leads_a_wavering_policy_to_the_right_solution(seed: int) -> None:
    world = World(seed)
    result = searched(world).found
    right = {
        turn.steps
        for turn in result.turns
        if any(t and is_right(world.problem, turn.steps, t) for t in turn.candidates)
    }
    for preference in result.preferences:
        if preference.steps in right:
            assert is_right(world.problem, preference.steps, preference.chosen)
            assert not is_right(world.problem, preference.steps, preference.rejected)
    if result.ended == "finished" and all(result.steps[:place] in right for place in range(len(result.steps))):
        assert result.steps == solution_steps(world.problem)


def test_a_search_is_a_function_of_its_seed_and_its_problem_alone() -> None:
    first, second = searched(World(7)), searched(World(7))
    assert first == second
    assert searched(World(7), seed=1).found.turns[0] != first.found.turns[0]


def test_a_judge_that_always_names_the_first_decides_nothing_and_is_seen_to() -> None:
    result = searched(World(3, bias=True))
    assert result.found.preferences == () and result.found.ended in ("dropped", "iterations")
    contests = figures.contests_of([result])
    assert contests.both > 0 and contests.same_side == contests.both and contests.unreadable == 0


def test_proposals_without_an_end_and_judgements_without_a_verdict_are_counted_and_bounded() -> None:
    def never_ends(model: str, item: Any) -> ChatReply:
        return ChatReply("", "Step 1: 2+2", finish_reason="length")

    def no_verdict(model: str, item: Any) -> ChatReply:
        return ChatReply("", "who knows") if "assistant A" in item.messages[-1]["content"] else World(1)(model, item)  # type: ignore[return-value]

    searcher = Searcher(PROMPTS, StepSearchConfig(width=4), PROPOSING, JUDGING, seed=0)
    question = World(1).problem.question
    cut = drive(searcher("p", question), never_ends)
    assert (cut.cut_off, cut.found.ended, cut.found.preferences) == (4, "dropped", ())
    mute = drive(searcher("p", question), no_verdict)
    assert mute.unreadable > 0 and mute.found.preferences == ()


@given(st.text(max_size=40), st.sampled_from(["[[A]]", "[[B]]"]))
def test_the_last_verdict_holds(text: str, verdict: str) -> None:
    wanted = "first" if verdict == "[[A]]" else "second"
    assert algorithm.read_verdict(f"{text} [[A]] {text} {verdict}") == wanted
    assert algorithm.read_verdict("[A] or B]]") is None


def test_questions_with_braces_are_asked_as_they_are() -> None:
    (turn,) = algorithm.solve_messages(PROMPTS.solve, "Let {x} be \\frac{1}{2}.")
    assert "Let {x} be \\frac{1}{2}." in turn["content"] and "\\boxed{}" in turn["content"]
    asked = judge_messages(PROMPTS, "{q}", (), "{a}", "{b}")[0]["content"]
    assert "(none)" in asked and asked.index("{a}") < asked.index("{b}")


@pytest.mark.parametrize("prompt", ["Solve it.", "{question} {questions}", "{question", "{ question }"])
def test_a_prompt_without_its_places_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError):
        PromptsConfig(solve=prompt)


def test_steps_are_split_and_a_changed_solution_is_noticed() -> None:
    text = "Step 1: Add 2 and 2.\n2 + 2 = 4.\n\n Step 2: So \\boxed{4}."
    steps = algorithm.split_steps(text)
    assert steps == ("Step 1: Add 2 and 2. 2 + 2 = 4.", "Step 2: So \\boxed{4}.")
    assert algorithm.same_content("Add 2 and 2.  2 + 2 = 4. So \\boxed{4}.", steps)
    for changed in ("Add 2 and 2. 2 + 2 = 5. So \\boxed{4}.", "Add 2 and 2. 2 + 2 = 4.", "Add 2 and 2. So \\boxed{4}."):
        assert not algorithm.same_content(changed, steps)


def test_a_splitter_that_changes_the_solution_is_asked_again_and_then_refused() -> None:
    replies = iter(["Step 1: 2+2=5.", "Step 1: 2+2=\nStep 2: 4."])
    steps, error, _ = drive(building.split(Sampling(), "?", "2+2=4."), lambda *_: ChatReply("", next(replies)))
    assert steps == ("Step 1: 2+2=", "Step 2: 4.") and not error
    steps, error, answered = drive(building.split(Sampling(), "?", "2+2=4."), lambda *_: ChatReply("", "Step 1: 5."))
    assert steps == () and "changed" in error and answered


def test_two_judgements_and_the_process_reward_must_agree() -> None:
    assert building.agreement(["first", "second"]) == "kept"
    assert building.agreement(["second", "first"]) == "judge and reward disagree"
    assert building.agreement(["first", "first"]) == "orders disagree"
    assert building.agreement(["first", None]) == "no verdict"


def test_contests_of_a_tree_search_are_right_and_neither_side_is_favoured() -> None:
    config = JudgingDataConfig(search=TreeSearchConfig(iterations=12, width=4, simulation_depth=2, leaves=4))
    contests, count = [], Counter[str]()
    for seed in range(12):
        world = World(seed)
        built = drive(building.build_contests(config, PROMPTS, str(seed), world.problem.question), world)
        assert not built.error
        contests += [(world, one) for one in built.contests]
        count += built.pairs
    assert set(count) == {"kept"} and len(contests) > 30
    for world, one in contests:
        sides = [is_right(world.problem, one["steps"], one[side]) for side in ("first", "second")]
        assert sides == ([True, False] if one["better"] == "A" else [False, True])
        assert one["judgement"].endswith(f"[[{one['better']}]]")
    assert 0.3 < sum(one["better"] == "A" for _, one in contests) / len(contests) < 0.7


def test_a_biased_judge_leaves_no_contest() -> None:
    config = JudgingDataConfig(search=TreeSearchConfig(iterations=6, width=3, leaves=2))
    world = World(1, bias=True)
    built = drive(building.build_contests(config, PROMPTS, "1", world.problem.question), world)
    assert built.contests == [] and set(built.pairs) == {"orders disagree"}


def test_a_reply_that_failed_is_told_and_is_neither_a_cut_off_step_nor_a_missing_verdict() -> None:
    def down(*who: str) -> Callable[[str, Any], Any]:
        world = World(1)

        def answer(model: str, item: Any) -> Any:
            judged = isinstance(item, ChatRequest) and "assistant A" in item.messages[-1]["content"]
            role = "reward" if isinstance(item, Answered) else "judge" if judged else "policy"
            if role not in who:
                return world(model, item)
            error = f"the {role} is down"
            return Score("", None, error) if role == "reward" else ChatReply("", finish_reason="error", error=error)

        return answer

    question = World(1).problem.question
    for who in ("policy", "judge"):
        searcher = Searcher(PROMPTS, StepSearchConfig(), PROPOSING, JUDGING, seed=0)
        result = drive(searcher("p", question), down(who))
        assert result.error == f"the {who} is down"
        assert (result.cut_off, result.unreadable, result.found.preferences) == (0, 0, ())
    config = JudgingDataConfig(search=TreeSearchConfig(iterations=6, width=3, leaves=2))
    for who in ("policy", "reward", "judge"):
        built = drive(building.build_contests(config, PROMPTS, "1", question), down(who))
        assert built.error == f"the {who} is down" and built.contests == []
        assert set(built.pairs) <= {"no reply"}


def test_what_has_no_reply_counts_neither_way() -> None:
    def measured(*right: bool | None) -> Evaluation:
        benchmark = BenchmarkResult(name="b", right=right, unfinished=0, steps=1, step_tokens=1)
        judge = JudgeResult(right=(), right_swapped=(), named_first=0, unreadable=0)
        return Evaluation(model="M", benchmarks=(benchmark,), judge=judge)

    assert measured(True, None, False, True).benchmarks[0].accuracy == pytest.approx(2 / 3)
    assert math.isnan(measured(None).benchmarks[0].accuracy)
    before, after = measured(False, False, None, True), measured(True, None, True, True)
    assert evaluation.gain(before, after).mean == pytest.approx(0.5)  # over the first and the last problem
    with pytest.raises(InputError, match="no problem that both replied to"):
        evaluation.gain(measured(None, True), measured(True, None))


def test_a_preference_is_one_step_after_the_steps_before_it_and_has_no_end(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    train_tokenizer(["Step 1: 2+2=4.", "user", "assistant"], 300, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    record = {"question": "What?", "steps": ["Step 1: 2+2=4."], "chosen": "Step 2: 4*2=8.", "rejected": "Step 2: 5."}
    (row,) = preference_rows(tokenizer, [record], PromptsConfig(solve="{question}"))
    assert tokenizer.decode(row["prompt_ids"]) == "<|turn|>user\nWhat?<|end|>\n<|turn|>assistant\nStep 1: 2+2=4.\n"
    assert tokenizer.decode(row["chosen_ids"]) == record["chosen"]
    assert tokenizer.eos_token_id not in [*row["chosen_ids"], *row["rejected_ids"]]


def test_a_tree_shows_each_text_once_and_what_became_of_it() -> None:
    world = World(0, skill=0.15)
    finds = (searched(world, seed).found for seed in range(100))
    found = next(one for one in finds if any(turn.outcome == "rolled_back" for turn in one.turns))
    panel = figures.tree_panel(world.problem.question, found)
    marks = Counter(node.mark for node in panel.nodes)
    assert marks["rolled_back"] == sum(turn.outcome == "rolled_back" for turn in found.turns)
    assert marks["chosen"] == len(found.steps)
    assert len(panel.nodes) == sum(len(set(turn.candidates) - {None}) for turn in found.turns)


def test_position_bias_is_how_far_verdicts_lean_to_one_side() -> None:
    def result(named_first: int, unreadable: int = 0) -> JudgeResult:
        right = (True,) * 5
        return JudgeResult(right=right, right_swapped=right, named_first=named_first, unreadable=unreadable)

    assert [result(n).position_bias for n in (5, 10, 0)] == [0.0, 1.0, 1.0]
    assert result(4, 2).position_bias == 0.0 and result(0, 10).position_bias == 0.0


def test_a_run_on_ones_own_data_names_what_it_still_needs() -> None:
    with pytest.raises(ValueError, match=r"problems; instruction.path; judging.path"):
        SelfRewardingConfig(base="models/mine")
    with pytest.raises(ValueError, match="only policy is given"):
        JudgingDataConfig.model_validate({"policy": {"provider": "scripted", "name": "p", "otherwise": "x"}})
