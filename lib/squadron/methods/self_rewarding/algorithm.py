"""Process-based self-rewarding (Zhang et al. 2025, arXiv 2503.03746) as pure functions on strings: prompts, steps,
verdicts; and its baseline, Self-Rewarding Language Models (Yuan et al. 2024, arXiv 2401.10020): scores. The search
itself, best of w candidates by the number of wins with its rollback, is `squadron.search.steps`; the loss is
`squadron.train.objectives.language.DirectPreference`, on one step given the steps before, or on whole solutions.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Literal

from squadron.core.blanks import fill_in
from squadron.llm.chat import Message, user

Verdict = Literal["first", "second"]

SOLVE = """\
Solve the following problem step by step. Write each step on a line of its own that begins with "Step n: ", where n
counts the steps, and put the final answer into \\boxed{} in the last step.

{question}"""

JUDGE = """\
Two assistants go on with the same partial solution of a problem, by one step each. Decide which of the two next steps
is better: correct first of all, and helpful towards the answer. Judge impartially; which one is shown first, how long
they are and what the assistants are called must not matter. Explain first, briefly, what speaks for and against each.
Then end with your verdict on a line of its own: [[A]] if assistant A's step is better, [[B]] if assistant B's is.

### Problem
{question}

### Steps so far
{steps}

### Next step of assistant A
{first}

### Next step of assistant B
{second}"""

SCORE = """\
Judge an answer to a question by points that add up, at most five. Give one point for each of these that holds:

- The answer is about the question and says something that helps, even if parts of it are missing or beside the point.
- It deals with a good part of the question, even if it does not settle it.
- It answers what the question is mainly about, in a way that can be used.
- It speaks to the question directly and in full, is well ordered and helpful; little could be improved.
- It is just right for this question: expert, correct in every part, and without anything that is not needed.

Say briefly which points you give and why. Then end with the sum on a line of its own: "Score: " and a number from 0
to 5.

### Question
{question}

### Answer
{solution}"""

SPLIT = """\
Below are a problem and its solution. Write the solution again, split into steps: each on a line of its own that begins
with "Step n: ", where n counts the steps. Change nothing of what it says: leave nothing out, add nothing, correct
nothing, and keep the boxed answer. Write the steps and nothing else.

### Problem
{question}

### Solution
{solution}"""

NO_STEPS = "(none)"
HIGHEST_SCORE = 5
_VERDICT = re.compile(r"\[\[([AB])\]\]")
_SCORE = re.compile(r"\bscore[*_`]*\s*:", re.IGNORECASE)
_POINTS = re.compile(r"[\s*_`<(\[]*([-+]?\d+(?:\.\d+)?)(?![-–,.]?\d)(?!\s*/\s*(?!5\b)\d)")
"""A number that is no part of a longer one or of a range, and no share of another scale than 5."""
_STEP = re.compile(r"Step\s+\d+\s*:", re.IGNORECASE)


def solve_messages(template: str, question: str) -> tuple[Message, ...]:
    """The conversation that asks for a whole solution. `template` holds {question}; other braces are text."""
    return user(fill_in(template, question=question))


def step_messages(template: str, question: str, steps: Sequence[str]) -> tuple[Message, ...]:
    """The conversation that asks for the step after `steps`: the solution so far is the answer that is gone on with."""
    asked = solve_messages(template, question)
    return (*asked, {"role": "assistant", "content": "".join(f"{step}\n" for step in steps)}) if steps else asked


def judge_messages(
    template: str, question: str, steps: Sequence[str], first: str, second: str, none: str
) -> tuple[Message, ...]:
    """The conversation that asks which of two next steps is better. `template` holds {question}, {steps}, {first} and
    {second}; `none` stands for no steps."""
    so_far = "\n".join(steps) or none
    return user(fill_in(template, question=question, steps=so_far, first=first, second=second))


def score_messages(template: str, question: str, solution: str) -> tuple[Message, ...]:
    """The conversation that asks how many points a whole solution gets. `template` holds {question}, {solution}."""
    return user(fill_in(template, question=question, solution=solution))


def split_messages(question: str, solution: str) -> tuple[Message, ...]:
    """The conversation that asks a chat model to split a solution into steps."""
    return user(fill_in(SPLIT, question=question, solution=solution))


def read_verdict(judgement: str) -> Verdict | None:
    """The verdict that a judgement ends with; None if there is none, which is no verdict for anybody."""
    found = _VERDICT.findall(judgement)
    return None if not found else "first" if found[-1] == "A" else "second"


def read_score(judgement: str) -> float | None:
    """The score that a judgement ends with, between 0 and 5; None if there is none, which is not 0."""
    *before, last = _SCORE.split(judgement)
    found = _POINTS.match(last) if before else None
    score = float(found[1]) if found else math.nan
    return score if 0 <= score <= HIGHEST_SCORE else None


def mean_score(scores: Sequence[float | None]) -> float | None:
    """The mean of the judgements that gave a score; None if none did. The order of judgements changes no bit of it."""
    there = [score for score in scores if score is not None]
    return math.fsum(there) / len(there) if there else None


def higher(scores: Sequence[float | None]) -> Verdict | None:
    """Which of two solutions has the higher score; None if they are equal or one has none."""
    first, second = scores
    if first is None or second is None or first == second:
        return None
    return "first" if first > second else "second"


def read_step(text: str) -> str | None:
    """The step that a reply holds: its first line that is not empty. None if there is none."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else None


def is_last(step: str) -> bool:
    """The stop test: a step that gives the boxed answer ends its solution."""
    return "\\boxed{" in step


def split_steps(solution: str) -> tuple[str, ...]:
    """The steps of a solution, a line each that begins with `Step n:`; lines without it belong to the step before."""
    steps: list[str] = []
    for line in filter(None, map(str.strip, solution.splitlines())):
        if steps and not _STEP.match(line):
            steps[-1] += f" {line}"
        else:
            steps.append(line)
    return tuple(steps)


def number_of_steps(solution: str) -> int:
    """How many steps a solution has; lines count where none is marked."""
    return len(_STEP.findall(solution)) or len([line for line in solution.splitlines() if line.strip()])


def same_content(solution: str, steps: Sequence[str]) -> bool:
    """Whether steps say what the solution says and nothing else: letters, digits and signs agree once spaces and the
    marks `Step n:` are left out."""
    return _bare(solution) == _bare(" ".join(steps))


def draw_seed(*parts: object) -> int:
    """A seed that is a function of what it is for, and of nothing else."""
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()[:4])


def _bare(text: str) -> str:
    return re.sub(r"[\s*#]+", "", _STEP.sub("", text))
