"""What plays in a rehearsal of self-rewarding: problems with solutions, contests, scored solutions, and replies that
fit the prompts.

A careful step and one at random are proposed, and whoever judges prefers the careful one whichever is shown first, and
gives a solution with a step at random fewer points: so there is something to prefer, and the whole programme is played.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from squadron.core.rehearsal import Replies
from squadron.data.arithmetic import problems

COUNT = 48
_CAREFUL, _RANDOM = "Step {n}: Work it out carefully, which gives", "Step {n}: Take a number at random, say"
REPLIES: Replies = (
    (r"(?s)### Solution\n(.*)$", (r"\1",)),
    (r"(?s)### Answer\n.*at random", ("A number at random gives no points. Score: 1",)),
    (r"### Answer\n", ("It is careful. Score: 4",)),
    (r"(?s)at random((?!carefully).)*at random((?!carefully).)*$", ("Neither is better. [[A]]",)),
    (r"(?s)carefully(?!.*carefully).*at random", ("A is careful. [[A]]",)),
    (r"(?s)at random(?!.*at random).*carefully", ("B is careful. [[B]]",)),
    (r"\[\[A\]\]|\nB: ", ("Neither is better. [[A]]",)),
    (
        "",
        (
            f"{_CAREFUL.format(n=1)} \\\\boxed{{7}}.",
            f"{_CAREFUL.format(n=1)} 3.\n{_CAREFUL.format(n=2)} \\\\boxed{{6}}.",
            f"{_RANDOM.format(n=1)} \\\\boxed{{4}}.",
            f"{_RANDOM.format(n=1)} 5.\n{_CAREFUL.format(n=2)} \\\\boxed{{5}}.",
        ),
    ),
)


def made_up_problems(question: str | None, solution: str | None, answer: str | None) -> Iterator[dict[str, Any]]:
    """Problems in columns of these names, with solutions in steps; the usual names where None is given."""
    for problem in problems(COUNT, seed=0):
        lines = problem.solution.splitlines()[:-1] or [problem.solution]
        steps = [f"Step {number}: {line}" for number, line in enumerate(lines, 1)]
        solved = "\n".join([*steps, f"Step {len(steps) + 1}: So it is \\boxed{{{problem.answer}}}."])
        yield {
            question or "question": problem.question,
            solution or "solution": solved,
            answer or "answer": str(problem.answer),
        }


def made_up_scores() -> Iterator[dict[str, Any]]:
    """Scored solutions, two of a problem, as files of them hold."""
    for problem in problems(COUNT // 2, seed=1):
        for step, score in ((_CAREFUL, 4), (_RANDOM, 1)):
            yield {
                "question": problem.question,
                "solution": f"{step.format(n=1)} \\boxed{{{problem.answer}}}.",
                "judgement": f"It is {'careful' if score == 4 else 'at random'}. Score: {score}",
                "score": score,
            }


def made_up_contests() -> Iterator[dict[str, Any]]:
    """Judged contests, as files of them hold."""
    for number, problem in enumerate(problems(COUNT, seed=1)):
        sides = [f"{_CAREFUL.format(n=1)} {problem.answer}.", f"{_RANDOM.format(n=1)} {number}."]
        better = "AB"[number % 2]
        first, second = sides if better == "A" else sides[::-1]
        yield {
            "question": problem.question,
            "steps": [],
            "first": first,
            "second": second,
            "judgement": f"It is careful. [[{better}]]",
            "better": better,
        }
