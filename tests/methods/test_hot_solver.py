"""What the house's solver learns from: right answers, with each fact where it comes from, alike in all modes."""

from __future__ import annotations

import pytest

from squadron.evaluate.tasks.items import Item
from squadron.evaluate.tasks.scorers import score
from squadron.methods.hot.config import MODES, DrawConfig, HotConfig
from squadron.methods.hot.prompts import write_prompt
from squadron.methods.hot.solver_config import SolverConfig, WorldConfig
from squadron.methods.hot.synthetic import draw_world, learned_modes, lessons, write_answer
from squadron.methods.hot.tags import read_reply

WORLD = WorldConfig(most_steps=3, largest=40)
NUMBERS = {"twice": "2", "three times": "3", "four times": "4"}


def test_no_question_is_learned_and_asked() -> None:
    asked, learned = draw_world(WORLD, 50, 400, seed=3)
    assert (len(asked), len(learned)) == (50, 400)
    assert len({one.question for one in (*asked, *learned)}) == 450
    assert draw_world(WORLD, 50, 0, seed=3)[0] == asked  # as the questions are drawn, before anything is learned


def test_every_answer_to_learn_is_right_and_its_tags_are_whole() -> None:
    for problem in draw_world(WORLD, 0, 200, seed=1)[1]:
        item = Item("1", problem.question, (str(problem.answer),), "number")
        for mode in learned_modes(MODES):
            reply = read_reply(write_answer(mode, problem), problem.question)
            assert score(reply.answer.text, item).outcome == "right"
        reply = read_reply(write_answer("hot", problem), problem.question)
        assert reply.valid and reply.coverage == 1 and reply.fidelity(problem.question) == 1
        assert reply.question is not None
        told = {span.id: reply.question.text[span.start : span.end] for span in reply.question.spans}
        for span in reply.answer.spans:
            assert reply.answer.text[span.start : span.end] == NUMBERS.get(told[span.id], told[span.id])


def test_all_modes_learn_from_the_same_problems_and_no_prompt_has_two_answers() -> None:
    learned = draw_world(WORLD, 0, 60, seed=0)[1]
    rows = list(lessons(SolverConfig(sums=7), MODES, learned))
    assert len(rows) == 7 + 60 * len(learned_modes(MODES))
    asked = [row for row in rows if row.prompt]
    assert len({row.prompt for row in asked}) == len(asked)
    for mode in learned_modes(MODES):
        assert {write_prompt(mode, one.question, ()) for one in learned} <= {row.prompt for row in asked}


def test_a_run_asks_some_model() -> None:
    with pytest.raises(ValueError, match="no model is asked"):
        HotConfig(draw=DrawConfig(), solver=None)
    assert HotConfig().solver is not None
