"""What a run learns from and what it is measured by do not overlap."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.methods.self_rewarding.config import BenchmarkConfig, ProblemsConfig, SolvedConfig
from squadron.methods.self_rewarding.datasets import _hold_out, read_problems
from squadron.methods.self_rewarding.synthetic_task import TasksConfig


class Nothing(Config):
    pass


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    run = Run("test", Nothing(), Folder(tmp_path / "run"), Profile(name="auto"), track=())
    stage = Stage(run, "read_problems", "", {}, run.folder / "stages" / "read_problems-0")
    stage.begin()
    return stage


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, list[dict[str, Any]]], str]:
    def to_file(name: str, rows: list[dict[str, Any]]) -> str:
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return str(path)

    return to_file


def contests(problems: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {"question": name, "first": f"a {n}", "second": "b"} for name, count in problems.items() for n in range(count)
    ]


def test_a_thousand_problems_of_five_contests() -> None:
    rows = contests({f"What is {n}+2?": 5 for n in range(1000)})
    learned, measured = _hold_out(rows, 500, 0)
    assert (len(learned), len(measured)) == (4500, 500)
    assert len({row["question"] for row in measured}) == 100
    assert not {row["question"] for row in learned} & {row["question"] for row in measured}
    assert _hold_out(rows[::-1], 500, 0) == (learned, measured)
    assert _hold_out(rows, 500, 1) != (learned, measured)


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.integers(1, 9), min_size=2, max_size=20), st.integers(1, 40))
def test_no_problem_is_on_both_sides_and_none_is_lost(problems: dict[str, int], count: int) -> None:
    rows = contests(problems)
    learned, measured = _hold_out(rows, count, 0)
    assert learned and measured
    assert not {row["question"] for row in learned} & {row["question"] for row in measured}
    assert sorted(map(json.dumps, learned + measured)) == sorted(map(json.dumps, rows))
    smallest = min(problems.values())
    assert len(measured) <= max(min(count, len(rows) // 2), smallest)


def test_contests_of_one_problem_are_refused() -> None:
    with pytest.raises(InputError, match="of 1 problems are too few"):
        _hold_out(contests({"only": 50}), 10, 0)


def test_rounds_do_not_ask_what_the_first_model_is_taught(stage: Stage, write: Callable[..., str]) -> None:
    path = write("one.jsonl", [{"problem": f" What is {n}+2? ", "solution": str(n + 2)} for n in range(20)])
    measured = BenchmarkConfig(name="own", path=write("test.jsonl", [{"question": "2+3?", "answer": "5"}]))
    taught = SolvedConfig(path=path, limit=12)
    found = read_problems(stage, ProblemsConfig(path=path), (measured,), taught, TasksConfig(), 4, 0)
    asked = [row["question"] for row in found.training.lines(stage.run.folder)]
    assert asked == [f"What is {n}+2?" for n in range(12, 20)]
    said = dict(stage.folder.read_json("headlines.json")["headlines"])
    assert said["problems left out of the rounds"].startswith("12 of 20")
    with pytest.raises(InputError, match="all 20 problems are also in the instruction data"):
        read_problems(stage, ProblemsConfig(path=path), (measured,), SolvedConfig(path=path), TasksConfig(), 4, 0)


def test_answers_in_a_list_are_read(stage: Stage, write: Callable[..., str]) -> None:
    """As OlympiadBench has them."""
    rows = [{"question": "2x=4?", "final_answer": ["2"]}, {"question": "x²=4?", "final_answer": ["2", "-2"]}]
    measured = BenchmarkConfig(name="listed", path=write("test.jsonl", rows), answer="final_answer")
    problems = ProblemsConfig(path=write("other.jsonl", [{"question": "1+1?"}]))
    found = read_problems(stage, problems, (measured,), SolvedConfig(), TasksConfig(), 1, 0)
    ((_, lines),) = found.benchmarks
    assert [row["reference"] for row in lines.lines(stage.run.folder)] == ["2", "2, -2"]
