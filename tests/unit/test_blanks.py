"""Formats and prompts in settings: what is named is filled in, other braces are text, and typing errors are said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from squadron.core.blanks import check_blanks, fill_in
from squadron.llm.rewards.settings import JudgeReward, LabelTokenReward
from squadron.methods.actor_reasoner.config import ReasonerConfig
from squadron.methods.finetune.config import DataConfig
from squadron.methods.self_rewarding.config import PromptsConfig

words = st.text("{}[]\\ab \"':,0!", max_size=12)


@given(words, words, st.text("{}ab x") | st.just("{prompt}"))
def test_only_the_blank_is_replaced(before: str, behind: str, value: str) -> None:
    assert fill_in(f"{before}{{prompt}}{behind}", prompt=value) == f"{before}{value}{behind}"


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda text: DataConfig(prompt_format=text).prompt_format, "{prompt}"),
        (lambda text: PromptsConfig(solve=text).solve, "{question}"),
        (lambda text: PromptsConfig(judge=text).judge, "{question} {steps} {first} {second}"),
        (lambda text: PromptsConfig(score=text).score, "{question} {solution}"),
        (lambda text: ReasonerConfig(template=text).template, "{situation}"),
        (lambda text: LabelTokenReward(path="m", template=text).template, "{instruction} {response}"),
        (
            lambda text: (
                JudgeReward.model_validate(
                    {
                        "model": {"provider": "scripted", "name": "j", "rules": [{"pattern": ".", "reply": "1"}]},
                        "rubric": text,
                    }
                ).rubric
            ),
            "{instruction} {response}",
        ),
    ],
    ids=["prompt_format", "solve", "judge", "score", "reasoner", "template", "rubric"],
)
def test_every_format_takes_braces_as_text_and_asks_for_its_blanks(build: Any, text: str) -> None:
    for around in (
        json.dumps({"result": {"n": 1}}),
        r"\boxed{} \frac{a}{b} {0} {x!r} {x:>{y}} }} {{",
        "{ {prompts } }",
    ):
        assert build(f"{around} {text}") == f"{around} {text}"
    first = text.split()[0]
    with pytest.raises(ValidationError, match="needs"):
        build("no blank {}")
    with pytest.raises(ValidationError, match="nothing to fill in"):
        build(f"{text} {first[:-1]}s}}")


def test_what_is_nearly_a_blank_is_said_with_what_is_meant() -> None:
    with pytest.raises(ValueError, match=r"\{Prompt\} is nothing to fill in; write \{prompt\}"):
        check_blanks("{Prompt}", ("prompt",))
    assert check_blanks("{prompt} {answer}", ("prompt",)) == "{prompt} {answer}"
