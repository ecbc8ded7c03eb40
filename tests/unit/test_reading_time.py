"""Whatever a model writes is read in time that grows with its length and no faster, and never ends in a traceback."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import time
from collections.abc import Callable

import pytest

from squadron.data import answers, arithmetic, stepwise, tasks
from squadron.llm.parsing import Unreadable, read_choice, read_json, read_number
from squadron.methods.actor_reasoner.prompts import read_thought
from squadron.methods.crowdselect.judging import read_tags
from squadron.methods.finetune.samples import _shown
from squadron.methods.self_rewarding import algorithm

READERS: dict[str, Callable[[str], object]] = {
    "final_answer": answers.final_answer,
    "is_right": lambda text: answers.is_right(rf"\boxed{{{text}}}", "18"),
    "is_bare": answers.is_bare,
    "arithmetic": lambda text: arithmetic.is_correct(f"#### {text}", "#### 18"),
    "read_step": lambda text: stepwise.read_step(f"Step 1: {text}+1=2."),
    "grade": lambda text: tasks.grade(text, "1 2"),
    "read_json": read_json,
    "read_number": lambda text: read_number(text, 0, 10),
    "read_choice": lambda text: read_choice(text, ["A", "A>B"]),
    "read_tags": read_tags,
    "read_thought": lambda text: read_thought(text, 5),
    "split_steps": algorithm.split_steps,
    "number_of_steps": algorithm.number_of_steps,
    "read_score": lambda text: algorithm.read_score(f"Score: {text}"),
    "same_content": lambda text: algorithm.same_content(text, [text]),
    "shown": _shown,
}
PARTS = (
    *(
        "9",
        "1,",
        ".5",
        "1e",
        "a",
        "abc ",
        " ",
        "\n",
        "\t",
        "*",
        "_",
        "-",
        "%",
        "½",
        "$",
        "\\",
        '"',
        '\\"',
        "'",
        ":",
        "=",
    ),
    *("{", "}", "[", "]", "[[", "(", ")", "{[", '{"a":', "```", "```json\n", r"\boxed", r"\boxed{", r"\(", r"\text{"),
    *("####", "score: ", "score (", "verdict: ", "1 or ", "8/10 ", "Step 1:", "style", "decision: ", "display", "\n-"),
)
"""Whose repetition has made readers slow, or might."""


def _seconds(read: Callable[[str], object], text: str) -> float:
    gc.disable()  # what other tests have left takes seconds to look through
    start = time.thread_time()  # of this thread alone, so that a busy machine and what others have begun are none of it
    with contextlib.suppress(Unreadable):
        read(text)
    seconds = time.thread_time() - start
    gc.enable()
    return seconds


@pytest.mark.parametrize("name", READERS)
def test_any_text_is_read_in_linear_time(name: str) -> None:
    draw = random.Random(name)
    pairs = ["".join(draw.choices(PARTS, k=2)) for _ in range(int(os.environ.get("SQUADRON_FUZZ", "8")))]
    for part in (*PARTS, *pairs):
        for length, most in ((10_000, 0.3), (100_000, 1.5)):
            text = part * (length // len(part))
            assert _seconds(READERS[name], text) < most, (name, part, length)
    for part in draw.sample(PARTS, 3):
        assert _seconds(READERS[name], part * (1_000_000 // len(part))) < 10, (name, part)


@pytest.mark.parametrize("depth", [100, 100_000])
def test_what_is_nested_deeply_is_read_or_refused(depth: int) -> None:
    assert answers.final_answer(r"\boxed{" * depth + "7" + "}" * depth) == "7"
    for nested in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        _seconds(read_json, nested)
