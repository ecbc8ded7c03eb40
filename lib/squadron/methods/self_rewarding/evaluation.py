"""What a model of a round can do: problems solved greedily, contests judged in both orders, problems searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from squadron.core.errors import InputError
from squadron.core.run import Stage
from squadron.data.answers import is_right
from squadron.evaluate.scores import Scores
from squadron.evaluate.summary import Estimate
from squadron.llm.batch.programs import run_programs
from squadron.llm.chat import ChatReply, Sampling
from squadron.methods.self_rewarding import algorithm, figures
from squadron.methods.self_rewarding.config import (
    EvaluationConfig,
    GenerationConfig,
    JudgementsConfig,
    PromptsConfig,
    ProposalsConfig,
    Rewarding,
)
from squadron.methods.self_rewarding.conversations import (
    MODEL,
    Judged,
    Searched,
    Searcher,
    fail_searches,
    judge_pair,
    solve,
)
from squadron.methods.self_rewarding.records import (
    BenchmarkResult,
    Evaluation,
    JudgeResult,
    Lessons,
    Sources,
)
from squadron.methods.self_rewarding.scoring import Scored, Scorer, score_both
from squadron.methods.self_rewarding.tuning import open_settings
from squadron.train.models.artifact import ModelArtifact


def evaluate(
    stage: Stage,
    model: ModelArtifact,
    sources: Sources,
    lessons: Lessons,
    prompts: PromptsConfig,
    solving: Sampling,
    judging: Sampling | JudgementsConfig,
    generation: GenerationConfig,
) -> Evaluation:
    """Solve the benchmarks and judge the pairs that were kept out: next steps, or whole solutions by their scores.

    A reply that failed counts neither way: it is a failed row of the stage, asked again by the next run. A solution
    that is cut off is wrong.
    """
    models = {MODEL: open_settings(stage, model, generation)}
    contests = lessons.held_out.lines(stage.run.folder)
    benchmarks = [(name, problems.lines(stage.run.folder)) for name, problems in sources.benchmarks]
    programs: dict[str, Any] = {
        f"{name}: {row['id']}": partial(solve, prompts, solving, row["question"])
        for name, rows in benchmarks
        for row in rows
    }
    for number, row in enumerate(contests):
        pair = row["first"], row["second"]
        programs[f"contest {number}"] = (
            partial(score_both, MODEL, prompts, judging, row["question"], pair)
            if isinstance(judging, JudgementsConfig)
            else partial(judge_pair, MODEL, prompts, judging, row["question"], row["steps"], pair)
        )
    answers = run_programs(stage, programs, models, unit="answer", timeout_s=generation.timeout_s)
    results = []
    for name, rows in benchmarks:
        replies = [answers[f"{name}: {row['id']}"] for row in rows]
        for row, reply in zip(rows, replies, strict=True):
            if not reply.ok:
                stage.fail(f"{name}: {row['id']}", reply.error)
        results.append(_benchmark(name, rows, replies))
    judged = []
    for number, row in enumerate(contests):
        verdicts = answers[f"contest {number}"]
        if verdicts.error:
            stage.fail(f"contest {number}", verdicts.error)
        else:
            judged.append((row, verdicts))
    evaluation = Evaluation(model=model.name, benchmarks=tuple(results), judge=_judge(judged))
    figures.show_evaluation(stage, evaluation)
    return evaluation


def scale(
    stage: Stage,
    model: ModelArtifact,
    sources: Sources,
    prompts: PromptsConfig,
    config: EvaluationConfig,
    rounds: ProposalsConfig,
    generation: GenerationConfig,
    seed: int,
    rewarding: Rewarding,
) -> BenchmarkResult:
    """Test-time scaling: the share of problems solved when a model searches, judging its own steps, or takes the best
    of its own solutions by its own scores.

    A search that does not come to an end is wrong; one that lacks a reply counts neither way, and is tried again by the
    next run.
    """
    name, problems = sources.benchmarks[0]
    rows = problems.lines(stage.run.folder)[: config.scaling]
    seed = algorithm.draw_seed(seed, "scale")
    search: Searcher | Scorer = Scorer(prompts, rounds.scoring, seed)
    if rewarding == "process":
        search = Searcher(prompts, config.scaling_search, rounds.proposing, rounds.judging, seed)
    programs: dict[str, Any] = {row["id"]: partial(search, row["id"], row["question"]) for row in rows}
    models = {MODEL: open_settings(stage, model, generation)}
    searched = run_programs(stage, programs, models, timeout_s=generation.timeout_s)
    fail_searches(stage, searched)
    return _searched(name, rows, searched)


def compare(
    stage: Stage,
    results: tuple[Evaluation, ...],
    last: ModelArtifact,
    sources: Sources,
    prompts: PromptsConfig,
    config: EvaluationConfig,
    rounds: ProposalsConfig,
    generation: GenerationConfig,
    seed: int,
    rewarding: Rewarding,
) -> Estimate:
    """Compare the rounds, and let the last model search."""
    searched = None
    if config.scaling:
        searched = scale(stage, last, sources, prompts, config, rounds, generation, seed, rewarding)
    found = gain(results[1], results[-1])
    how = "with a search" if rewarding == "process" else f"by the best score of {rounds.scoring.candidates}"
    figures.show_rounds(stage, results, found, searched, how)
    return found


def gain(first: Evaluation, last: Evaluation) -> Estimate:
    """How much more the last model solves of the first benchmark, over the problems that both replied to."""
    solved = {one: evaluation.benchmarks[0].right for one, evaluation in (("first", first), ("last", last))}
    found = Scores.of_arrays("right", solved).difference("last", "first", "right")
    if not found.count:
        what = f"{first.model} and {last.model} have no problem that both replied to"
        raise InputError(what, fix="see the failed rows of their evaluation")
    return found


def _benchmark(name: str, rows: Sequence[Mapping[str, Any]], said: Sequence[ChatReply]) -> BenchmarkResult:
    counts = [algorithm.number_of_steps(reply.text) for reply in said if reply.ok]
    tokens = sum(reply.completion_tokens for reply in said)
    return BenchmarkResult(
        name=name,
        right=tuple(
            is_right(reply.text, row["reference"]) if reply.ok else None for row, reply in zip(rows, said, strict=True)
        ),
        unfinished=sum(reply.finish_reason == "length" for reply in said),
        steps=sum(counts) / max(1, len(counts)),
        step_tokens=tokens / max(1, sum(counts)),
    )


def _searched(
    name: str, rows: Sequence[Mapping[str, Any]], searched: Mapping[str, Searched | Scored]
) -> BenchmarkResult:
    found = [searched[row["id"]] for row in rows]

    def right(one: Searched | Scored, row: Mapping[str, Any]) -> bool | None:
        return None if one.error else one.answer is not None and is_right(one.answer, row["reference"])

    return BenchmarkResult(
        name=name,
        right=tuple(right(one, row) for one, row in zip(found, rows, strict=True)),
        unfinished=sum(one.answer is None for one in found),
        steps=sum(one.length for one in found) / len(found),
        step_tokens=float("nan"),
    )


def _judge(judged: Sequence[tuple[Mapping[str, Any], Judged]]) -> JudgeResult:
    """From pairs and the verdicts on them, as they stand and with the sides swapped."""
    said = [verdict for _, both in judged for verdict in (both.shown, both.swapped)]
    better = ["first" if pair["better"] == "A" else "second" for pair, _ in judged]
    swapped = {"first": "second", "second": "first"}
    return JudgeResult(
        right=tuple(both.shown == wanted for (_, both), wanted in zip(judged, better, strict=True)),
        right_swapped=tuple(both.swapped == swapped[wanted] for (_, both), wanted in zip(judged, better, strict=True)),
        named_first=said.count("first"),
        unreadable=said.count(None),
    )
