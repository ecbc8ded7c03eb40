"""What plays in a rehearsal of CrowdSelect: instructions with the responses of a crowd, and a judge's words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from squadron.core.rehearsal import Replies
from squadron.data.arithmetic import problems

COUNT = 48
REPLIES: Replies = (
    ("JSON list of the tags", ('["arithmetic"]', '["arithmetic", "shopping"]', '["travel", "time", "arithmetic"]')),
    ("Score: ", tuple(f"Score: {mark}\nIt is short and clear." for mark in (2, 3, 4, 5))),
)


def made_up(layout: str, columns: dict[str, str], models: Sequence[tuple[str, str | None, float | None]]) -> Iterator[
    dict[str, Any]
]:  # fmt: skip
    """Rows of a pool of this layout. `columns` says which holds the id, the instruction, the reference and, inside a
    model's column, the score; `models` are names, families and sizes."""
    for number, problem in enumerate(problems(COUNT, seed=0)):
        row: dict[str, Any] = {columns["id"]: f"row-{number}", columns["instruction"]: problem.question}
        row[columns["reference"]] = str(problem.answer)
        responses = []
        for place, (name, family, size) in enumerate(models):
            score = (number * 7 + place * place * 3) % 11 / 2 + place / 10
            response = {"model": name, "family": family, "size_b": size, "score": score}
            responses.append(response | {"content": f"{problem.solution} ({name})"})
        if layout == "generator_zoo":
            row |= {str(one["model"]): {"content": one["content"], columns["score"]: one["score"]} for one in responses}
        elif layout == "responses":
            row["responses"] = responses
        yield row
