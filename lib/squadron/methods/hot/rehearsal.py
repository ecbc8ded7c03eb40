"""Questions, demonstrations and replies made up: by rule, where no task is given, and for a rehearsal."""

from __future__ import annotations

import re

from squadron.core.rehearsal import Replies
from squadron.data.arithmetic import Problem, problems
from squadron.methods.hot.tags import Span, Tagged

ROWS = 12
_TAGGED = "Reformatted Question: There are <fact1>3 boys</fact1> and <fact2>4 girls</fact2>. How many?\nAnswer: "
REPLIES: Replies = (
    ("Mark the answer", ("Answer: <fact1>3</fact1> + <fact2>4</fact2> = 7. The answer is {7}.",)),
    ("Mark the question", ("There are <fact1>3 boys</fact1> and <fact2>4 girls</fact2>. How many?",)),
    ("Reformatted Question", (
        f"{_TAGGED}<fact1>3</fact1> + <fact2>4</fact2> = 7. The answer is {{7}}.",
        f"{_TAGGED}<fact1>3 + <fact3>4</fact3> = 7. So it is \\boxed{{A}}.",
    )),
    ("Answer:", ("3 + 4 = 7. The answer is {7}.", "I cannot say.")),
)  # fmt: skip


def made_up_problems() -> list[tuple[str, int]]:
    """Word problems and what they come to."""
    return [(one.question, one.answer) for one in problems(ROWS, seed=0)]


def made_up_demonstrations(dataset: str, mode: str, count: int = 4, seed: int = 1) -> list[dict[str, str]]:
    """Other word problems with each number a fact, as rows of `{question, highlighted, answer}` that also say for which
    data set and mode they are."""
    rows = []
    for one in problems(count, seed, fewest_steps=1, most_steps=2):
        question, answer = highlight(one)
        row = {"question": one.question, "highlighted": question.write(), "answer": answer.write()}
        rows.append(row | {"dataset": dataset, "mode": mode})
    return rows


def highlight(problem: Problem) -> tuple[Tagged, Tagged]:
    """The question with each quantity that is told as a fact, and the worked answer with those quantities as the same
    facts."""
    spans = [found.span() for found in _QUANTITY.finditer(problem.question)]
    question = Tagged(problem.question, tuple(Span(str(n), *span) for n, span in enumerate(spans, start=1)))
    text, facts = "", []
    for number, step in enumerate(problem.steps):
        left, operator, right, _, result = step.split()
        text += f"{left} {operator} "
        if number == 0:
            facts.append(Span("1", 0, len(left)))
        facts.append(Span(str(number + 2), len(text), len(text) + len(right)))
        text += f"{right} = {result}. "
    return question, Tagged(f"{text}The answer is {{{problem.answer}}}.", tuple(facts))


_QUANTITY = re.compile(r"\b(?:\d+|twice|three times|four times)\b")
