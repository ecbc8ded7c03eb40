"""Evaluation data where whole solutions are rewarded: `{question, solution, judgement, score}`, of the small world, of
a file, or made by models; and pairs of solutions, to measure judging by.

Self-Rewarding Language Models (arXiv 2401.10020) keeps a judgement where the order of the scores is that of human
rankings. Here a reward model stands for the rankings, as in the process-based method.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from squadron.core.errors import InputError
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.data.records import read_records
from squadron.data.stepwise import Graded, graded, graded_pairs
from squadron.llm.batch.programs import Ask, Program, run_programs
from squadron.llm.rewards.reward import Answered, Score
from squadron.methods.self_rewarding import algorithm
from squadron.methods.self_rewarding.config import JudgingDataConfig, PromptsConfig, ScoringConfig
from squadron.methods.self_rewarding.conversations import fail_searches
from squadron.methods.self_rewarding.scoring import judge_solutions, propose_solutions, score_of, solution_of
from squadron.methods.self_rewarding.synthetic_task import Drawn
from squadron.search.steps import best_and_worst

Row = dict[str, Any]
_FATES = ("kept", "judge and reward disagree", "equal rewards", "no score", "no reply")


@dataclass(frozen=True)
class Built:
    """The scored solutions of one problem, what became of it, and why a reply failed if one did."""

    rows: list[Row]
    became: str
    error: str = ""


def of_world(drawn: Drawn, seed: int, worked: float) -> tuple[list[Row], list[Row]]:
    """Scored solutions to tune on, and pairs of solutions that are held out."""
    learned = [_of_world(one) for one in graded(drawn.contests, seed, worked)]
    pairs = graded_pairs(drawn.held_out_contests, seed + 1, worked)
    return learned, [_pair(_of_world(first), _of_world(second)) for first, second in pairs]


def of_file(path: str) -> list[Row]:
    """Scored solutions of a file. Raises InputError for a judgement that does not end with its score."""
    rows = []
    for record in read_records(path):
        question, solution = (record.text(name, blank=False) for name in ("question", "solution"))
        judgement, score = record.text("judgement"), record.number("score")
        if algorithm.read_score(judgement) != score:
            fix = f'end each judgement with "Score: " and the number in `score`, 0 to {algorithm.HIGHEST_SCORE}'
            raise InputError("the judgement does not end with the score of `score`", where=record.where, fix=fix)
        rows.append({"question": question, "solution": solution, "judgement": judgement, "score": score})
    if not rows:
        raise InputError("there are no scored solutions here", where=path)
    return rows


def build(stage: Stage, rows: Sequence[Row], config: JudgingDataConfig, prompts: PromptsConfig) -> list[Row]:
    """Scored solutions of these problems, made by models; those of problems that lack a reply are failed rows, which
    the next run tries again. Raises InputError where none is kept."""
    assert config.policy is not None and config.reward is not None and config.judge is not None
    programs = {row["id"]: partial(build_scores, config.scoring, prompts, row["id"], row["question"]) for row in rows}
    models = {"policy": config.policy, "reward": config.reward, "judge": config.judge}
    found = run_programs(stage, programs, models, cap_usd=config.cap_usd)
    fail_searches(stage, found)
    count = Counter(one.became for one in found.values())
    table = [[name, count[name]] for name in _FATES]
    stage.show(Table(title="Scored problems", columns=["what became of them", "problems"], rows=table))
    kept = level([row for one in found.values() for row in one.rows])
    if not kept:
        what = "no scored solution was kept: " + ", ".join(f"{name} {count[name]:,}" for name in _FATES[1:])
        raise InputError(what, where="judging", fix="look whether the judge and the reward model fit the problems")
    return kept


def build_scores(config: ScoringConfig, prompts: PromptsConfig, identifier: str, question: str) -> Program[Built]:
    """Propose solutions of one problem, judge the best and the worst by reward, and keep the judgements if the scores
    are in the same order."""
    errors: list[str] = []
    replies = yield from propose_solutions("policy", prompts, config, 0, identifier, question, errors)
    texts = list(dict.fromkeys(text for text in map(solution_of, replies) if text is not None))
    rewards: list[float | None] = []
    if texts:
        scores = yield Ask("reward", tuple(Answered("", question, text) for text in texts))
        rewards = [cast(Score, score).value for score in scores]
        errors += [cast(Score, score).error for score in scores if cast(Score, score).error]
    places = best_and_worst(rewards)
    if places is None:
        return Built([], "no reply" if errors else "equal rewards", "".join(errors[:1]))
    pair = [texts[place] for place in places]
    judged = yield from judge_solutions("judge", prompts, config, 0, question, pair, errors)
    points = [[score_of(reply) for reply in said] for said in judged]
    means = [algorithm.mean_score(one) for one in points]
    if errors or None in means:
        return Built([], "no reply" if errors else "no score", "".join(errors[:1]))
    if algorithm.higher(means) != "first":
        return Built([], "judge and reward disagree")
    rows = [
        {"question": question, "solution": text, "judgement": reply.text, "score": score}
        for text, said, scores_said in zip(pair, judged, points, strict=True)
        for reply, score in zip(said, scores_said, strict=True)
        if score is not None
    ]
    return Built(rows, "kept")


def level(rows: Sequence[Row]) -> list[Row]:
    """The rows without some of those that have the most common score: as many are left as have the next most common.
    Which are left goes by the hash of their text, and their order stays."""
    by_score: dict[float, list[Row]] = {}
    for row in rows:
        by_score.setdefault(row["score"], []).append(row)
    if len(by_score) < 2:
        return list(rows)
    most, second, *_ = sorted(by_score.values(), key=len, reverse=True)
    drawn = sorted(most, key=lambda row: algorithm.draw_seed(row["question"], row["solution"], row["judgement"]))
    out = {id(row) for row in drawn[len(second) :]}
    return [row for row in rows if id(row) not in out]


def pairs(rows: Sequence[Row]) -> list[Row]:
    """Every two solutions of a problem whose scores differ, as rows to judge.

    Raises InputError if there are none.
    """
    by_problem: dict[str, list[Row]] = {}
    for row in rows:
        by_problem.setdefault(row["question"], []).append(row)
    found = [
        _pair(first, second)
        for some in by_problem.values()
        for first, second in itertools.combinations(some, 2)
        if first["score"] != second["score"]
    ]
    if not found:
        what = "no held-out problem has two solutions with different scores, by which judging is measured"
        raise InputError(what, where="judging", fix="give several scored solutions of a problem")
    return found


def _pair(first: Row, second: Row) -> Row:
    return {
        "question": first["question"],
        "steps": [],
        "first": first["solution"],
        "second": second["solution"],
        "better": "A" if first["score"] > second["score"] else "B",
    }


def _of_world(one: Graded) -> Row:
    solution = "\n".join(one.steps)
    return {
        "question": one.problem.question,
        "solution": solution,
        "judgement": one.judgement,
        "score": float(one.score),
    }
