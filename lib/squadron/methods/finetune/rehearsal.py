"""Records of every kind that fine-tuning reads, made up where a rehearsal has none of the user's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from squadron.data.arithmetic import problems

COUNT = 32


def made_up(objective: str, columns: dict[str, str | None]) -> Iterator[dict[str, Any]]:
    """Records for an objective; `columns` says which column holds what, by the names of the settings."""
    named = {setting: column or setting for setting, column in columns.items()}
    for number, problem in enumerate(problems(COUNT, seed=0)):
        question, right, wrong = problem.question, problem.solution, f"I do not know.\n#### {number}"
        turns = [("user", question), ("assistant", right), ("user", "Thank you."), ("assistant", "You are welcome.")]
        messages = [{"role": role, "content": content} for role, content in turns]
        match objective:
            case "dpo" | "reward":
                record: dict[str, Any] = {"prompt": question, "chosen": right, "rejected": wrong}
            case "process_reward":
                record = {"prompt": question, "steps": [right, wrong], "labels": [True, False]}
            case "classification":
                record = {"text": right if number % 2 else wrong, "label": number % 2}
            case _:
                record = {"prompt": question, "completion": right, "messages": messages, "text": f"{question}\n{right}"}
        yield {named[setting]: value for setting, value in record.items()}
