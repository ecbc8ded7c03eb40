"""What a run learns from and is measured by: problems, solutions in steps, and judged contests, written as JSON lines.

All of it comes from the small world, or all from the user's files, models and searches.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from squadron.core.errors import InputError
from squadron.core.job import estimated
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.data.arithmetic import Problem
from squadron.data.problems import question_id, read_questions
from squadron.data.problems import read_problems as read_problem_file
from squadron.data.records import read_records
from squadron.data.rows import store_lines
from squadron.data.stepwise import Contest, solution_steps
from squadron.methods.self_rewarding import algorithm, building, plan, scored_data
from squadron.methods.self_rewarding.config import (
    BenchmarkConfig,
    InstructionConfig,
    JudgingDataConfig,
    ProblemsConfig,
    PromptsConfig,
    Rewarding,
    SolvedConfig,
)
from squadron.methods.self_rewarding.records import Lessons, Sources
from squadron.methods.self_rewarding.synthetic_task import TasksConfig, draw, draw_contests

_WORLD = "small world"


def read_problems(
    stage: Stage,
    problems: ProblemsConfig | None,
    benchmarks: tuple[BenchmarkConfig, ...],
    taught: SolvedConfig,
    world: TasksConfig,
    rounds: int,
    seed: int,
) -> Sources:
    """Read every problem, and see to it that the answers of benchmarks can be checked.

    Rounds do not ask what the first model is `taught` the solution of: such problems are left out, and counted.

    Raises InputError for a file without problems, or of nothing but those that are taught, and for a benchmark's
    problem without an answer, naming its place.
    """
    if problems is None:
        drawn = draw(world, seed, rounds)
        return Sources(
            training=store_lines(stage, "training.jsonl", map(_of_world, drawn.rounds)),
            benchmarks=((_WORLD, store_lines(stage, "benchmarks/world.jsonl", map(_of_world, drawn.held_out))),),
        )
    measured = tuple(
        (one.name, store_lines(stage, f"benchmarks/{number}.jsonl", _of_benchmark(one)))
        for number, one in enumerate(benchmarks)
    )
    asked = list(_of_file(problems))
    known = _taught(taught)
    fresh = [row for row in asked if row["id"] not in known]
    if not fresh:
        what = f"all {len(asked):,} problems are also in the instruction data, which teaches their solutions"
        fix = "give other problems, or a lower instruction.limit where both are one file"
        raise InputError(what, where=problems.path, fix=fix)
    if left_out := len(asked) - len(fresh):
        stage.headline(
            "problems left out of the rounds", f"{left_out:,} of {len(asked):,}: M1 is taught their solutions"
        )
    return Sources(training=store_lines(stage, "training.jsonl", fresh), benchmarks=measured)


@estimated(plan.data)
def build_lessons(
    stage: Stage,
    sources: Sources,
    instruction: InstructionConfig,
    judging: JudgingDataConfig,
    prompts: PromptsConfig,
    world: TasksConfig,
    rounds: int,
    seed: int,
    rewarding: Rewarding,
) -> Lessons:
    """Gather solutions in steps and judged pairs of steps, or scored solutions, and keep some out.

    Raises InputError for rows that lack a column, and where nothing is left to learn from.
    """
    if instruction.path is None:
        drawn = draw(world, seed, rounds)
        style = random.Random(f"{seed} solutions")
        solved: Iterable[Mapping[str, Any]] = (
            {"question": problem.question, "steps": solution_steps(problem, style, world.worked)}
            for problem in drawn.solutions
        )
        if rewarding == "outcome":
            judged, measured = scored_data.of_world(drawn, seed, world.worked)
        else:
            contests = draw_contests(drawn, seed, world.worked)
            judged, measured = (list(map(_contest_of_world, some)) for some in contests)
    else:
        building.check(instruction, judging, continues=rewarding == "process")
        solved = building.solutions(stage, instruction, judging.cap_usd)
        judged = _judged(stage, sources, judging, prompts, rounds, rewarding)
        judged, measured = _hold_out(judged, judging.held_out, seed)
        if rewarding == "outcome":
            measured = scored_data.pairs(measured)
    found = Lessons(
        instruction=store_lines(stage, "instruction.jsonl", solved),
        evaluation=store_lines(stage, "evaluation.jsonl", judged),
        held_out=store_lines(stage, "held_out.jsonl", measured),
    )
    kinds = [
        ["solutions in steps", found.instruction.count, None],
        [
            "judged contests" if rewarding == "process" else "scored solutions",
            found.evaluation.count,
            found.held_out.count,
        ],
    ]
    columns = ["lessons", "to tune on", "held out"]
    stage.show(Table(title="What the first model learns from", columns=columns, rows=kinds))
    return found


def _judged(
    stage: Stage,
    sources: Sources,
    judging: JudgingDataConfig,
    prompts: PromptsConfig,
    rounds: int,
    rewarding: Rewarding,
) -> list[dict[str, Any]]:
    """Judged contests or scored solutions, of a file or of models."""
    if rewarding == "process":
        if judging.path:
            return _contests_of_file(judging.path)
        return building.search(stage, sources, judging, prompts, rounds)
    if judging.path:
        return scored_data.of_file(judging.path)
    asked = building.searched_problems(stage, sources, judging.problems, rounds)
    return scored_data.build(stage, asked, judging, prompts)


def _of_benchmark(config: BenchmarkConfig) -> list[dict[str, Any]]:
    found = read_problem_file(config.path, config.split, config.subset, question=config.question, answer=config.answer)
    return [{"id": one.id, "question": one.question, "reference": one.reference} for one in found[: config.limit]]


def _of_file(config: ProblemsConfig) -> Iterator[dict[str, Any]]:
    """Rounds need no answers: the model is its own judge."""
    questions = read_questions(config.path, config.split, config.subset, question=config.question)
    for question in itertools.islice(questions, config.limit):
        yield {"id": question_id(question), "question": question}


def _taught(config: SolvedConfig) -> set[str]:
    """Ids of the questions that the first model is taught the solutions of."""
    if config.path is None:
        return set()
    records = itertools.islice(read_records(config.path, config.split, config.subset), config.limit)
    return {question_id(record.text(config.question, "instruction.question").strip()) for record in records}


def _of_world(problem: Problem) -> dict[str, Any]:
    return {"id": question_id(problem.question), "question": problem.question, "reference": str(problem.answer)}


def _contest_of_world(contest: Contest) -> dict[str, Any]:
    return {
        "question": contest.problem.question,
        "steps": contest.steps,
        "first": contest.first,
        "second": contest.second,
        "judgement": contest.judgement,
        "better": contest.better,
    }


def _contests_of_file(path: str) -> list[dict[str, Any]]:
    rows = []
    for record in read_records(path):
        row = {name: record.text(name) for name in ("question", "first", "second", "judgement", "better")}
        if row["better"] not in ("A", "B"):
            raise InputError(f"better is {row['better']!r}", where=record.where, fix="say A for first, B for second")
        if algorithm.read_verdict(row["judgement"]) != ("first" if row["better"] == "A" else "second"):
            fix = "end each judgement with [[A]] or [[B]], the one that `better` names"
            raise InputError("the judgement does not end with the verdict of `better`", where=record.where, fix=fix)
        steps = record.texts("steps") if record.values.get("steps") else []
        rows.append({**row, "steps": steps})
    if not rows:
        raise InputError("there are no contests here", where=path)
    return rows


def _hold_out(rows: list[dict[str, Any]], count: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows to learn from and rows kept out, about `count` and at most half. All contests of a problem are on one side;
    which problems are kept out goes by the hash of their text."""
    by_problem: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: json.dumps(row, sort_keys=True)):
        by_problem.setdefault(row["question"], []).append(row)
    if len(by_problem) < 2:
        what = f"{len(rows)} judged contests of {len(by_problem)} problems are too few to tune on and to measure by"
        raise InputError(what, where="judging", fix="give contests of more problems")
    ordered = sorted(by_problem, key=lambda question: algorithm.draw_seed(seed, question))
    most, kept = min(count, len(rows) // 2), set[str]()
    for question in ordered:
        if len(by_problem[question]) <= most:
            kept.add(question)
            most -= len(by_problem[question])
    kept = kept or {min(ordered, key=lambda question: len(by_problem[question]))}
    learned = [row for question in ordered if question not in kept for row in by_problem[question]]
    return learned, [row for question in ordered if question in kept for row in by_problem[question]]
