"""A score for every collected answer: resumable, with failures kept as failures.

Scores are kept in the run folder under the content of what was judged (the reward model, the question, the answer), so
that an answer is judged once, however often it is collected.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from squadron.core import console
from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder, relative
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows
from squadron.llm.batch.answer_cache import SCORES, Entry, KeyedLog, spent_usd
from squadron.llm.batch.budget import Budget
from squadron.llm.batch.collect import Answers, read_answers
from squadron.llm.batch.model_client import (
    TALKS,
    answer,
    check_served,
    item_key,
    log_folder,
    reward_identity,
    reward_resources,
)
from squadron.llm.batch.pools import Pool, Work, refuse_stopped, run_pools
from squadron.llm.providers import open_model
from squadron.llm.rewards.open import open_reward
from squadron.llm.rewards.reward import Answered, RewardModel
from squadron.llm.rewards.settings import AnyReward, ColumnReward

_PART = 1024


class Scores(Config):
    """The scores of a run: an array (questions, models, samples), NaN where there is none, as a .npy file."""

    file: str
    models: tuple[str, ...]
    scored: int
    failed: int
    cost_usd: float


@dataclass(frozen=True)
class Judged:
    """A reward model and the answers that it scores, as it travels to workers. A row is a model's answer to a question,
    models one after the other."""

    settings: AnyReward
    questions: ArrowRows
    answers: tuple[ArrowRows, ...]
    samples: int

    @property
    def name(self) -> str:
        return f"reward ({self.settings.provider})"

    def open(self, budget: Budget) -> contextlib.AbstractContextManager[RewardModel]:
        return contextlib.closing(open_reward(self.settings, lambda model: open_model(model, budget)))

    def keys(self, rows: Sequence[int]) -> list[str]:
        judge = reward_identity(self.settings)
        return [item_key(judge, self.row(row, "")) for row in rows]

    def answer(self, opened: RewardModel, rows: Sequence[int]) -> Iterator[Entry]:
        keys = self.keys(rows)
        return answer(opened, [self.row(row, key) for row, key in zip(rows, keys, strict=True)])

    def row(self, row: int, key: str) -> Answered:
        """What is judged in a row; an answer that is missing has no text."""
        model, place = divmod(row, len(self.questions) * self.samples)
        question, answer = self.questions[place // self.samples], self.answers[model][place]
        return Answered(
            key, question["instruction"], answer["response"], question.get("reference"), answer.get("score")
        )


def score(
    stage: Stage,
    questions: ArrowRows,
    answers: Sequence[Answers],
    reward: AnyReward,
    cap_usd: float | None = None,
) -> Scores:
    """Score every answer and write the array of scores into the stage folder.

    `questions` are rows with `id`, `instruction` and, where the reward needs it, `reference`. Scores that answers came
    with (`column`) are taken as they are. An answer that failed has no score; neither has one whose judgement failed,
    which is a failed row of the stage and tried again by the next run.

    `cap_usd` bounds what answers and scores of this run folder cost together. Raises as `collect` does.
    """
    if isinstance(reward, ColumnReward):
        return _given(stage, answers)
    check_served(reward)
    store = log_folder(stage.run.folder / SCORES, reward)
    log = KeyedLog(store)
    index = log.index()
    samples = answers[0].samples
    judged = Judged(reward, questions, tuple(read_answers(stage.run.folder, one) for one in answers), samples)
    total = len(answers) * len(questions) * samples
    there = np.array([judged.row(row, "").response is not None for row in range(total)], bool)
    rows = np.flatnonzero(there)
    keys = dict(zip(rows.tolist(), judged.keys(rows.tolist()), strict=True))
    firsts = {key: row for row, key in reversed(keys.items()) if not index.answers(key)}
    missing = np.array(sorted(firsts.values()), np.int64)
    if len(missing) < len(rows):
        console.say(f"  {len(rows) - len(missing):,} of {len(rows):,} scores were there before or are repeats")
    if len(missing):
        pool = _pool(stage, Work(judged, missing, store, _PART), reward)
        done = len(rows) - len(missing)
        spent = 0.0 if cap_usd is None else spent_usd(stage.run.folder)
        result = run_pools(stage, [[pool]], unit="score", done=done, cap_usd=cap_usd, spent_usd=spent)
        index = log.index()
        refuse_stopped(result, lambda: sum(not index.answers(key) for key in set(keys.values())))
    return _compile(stage, judged, [one.model for one in answers], keys, log)


def read_scores(run: Folder, scores: Scores) -> np.ndarray:
    """The scores (questions, models), the mean over the samples that have one; NaN where none has."""
    return mean_over_samples(read_sample_scores(run, scores))


def read_sample_scores(run: Folder, scores: Scores) -> np.ndarray:
    """The scores (questions, models, samples)."""
    values: np.ndarray = np.load(run.local(scores.file), allow_pickle=False)
    return values


def mean_over_samples(scores_NMS: np.ndarray) -> np.ndarray:
    """The mean over the samples that have a score; NaN where none has."""
    there = np.isfinite(scores_NMS)
    count = there.sum(-1)
    total = np.where(there, scores_NMS, 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _given(stage: Stage, answers: Sequence[Answers]) -> Scores:
    """The scores that answers came with, or that came without the answers. Raises InputError where there is none."""
    columns = [read_answers(stage.run.folder, one).columns("score") for one in answers]
    values = [[np.nan if score is None else score for (score,) in column] for column in columns]
    if np.isnan(values).all():
        raise InputError("no answer came with a score", where="reward: column", fix="name a reward that scores answers")
    return _write(stage, np.array(values, np.float64)[:, :, None], [one.model for one in answers], 0, 0.0)


def _pool(stage: Stage, work: Work, reward: AnyReward) -> Pool:
    share = reward_resources(reward, stage.run.profile)
    if share is None:
        return Pool((Work(work.member, work.rows, work.log, len(work.rows)),), TALKS, 1)
    parts = -(-len(work.rows) // work.part_size)
    return Pool((work,), share, stage.claim_workers(f"{stage.name} (scores)", parts, share))


def _compile(stage: Stage, judged: Judged, models: Sequence[str], keys: dict[int, str], log: KeyedLog) -> Scores:
    questions, index = len(judged.questions), log.index()
    values = np.full(len(models) * questions * judged.samples, np.nan)
    cost = 0.0
    seen: set[str] = set()
    failed = 0
    with log.reader() as reader:
        for row, key in keys.items():
            place = index.places.get(key)
            entry: Entry = reader.read(place) if place else {"error": "never scored"}
            if key not in seen:
                cost += entry.get("cost_usd", 0.0)
                seen.add(key)
            if entry.get("error"):
                failed += 1
                model, place_in = divmod(row, questions * judged.samples)
                identifier = judged.questions[place_in // judged.samples]["id"]
                stage.fail(f"{models[model]}: {identifier}", entry["error"])
            else:
                values[row] = entry["value"]
    scores_MNS = values.reshape(len(models), questions, judged.samples)
    return _write(stage, scores_MNS, models, failed, cost)


def _write(stage: Stage, scores_MNS: np.ndarray, models: Sequence[str], failed: int, cost_usd: float) -> Scores:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(scores_MNS.transpose(1, 0, 2)))
    stage.folder.write_bytes("scores.npy", stream.getvalue())
    return Scores(
        file=relative(stage.folder, stage.run.folder, "scores.npy"),
        models=tuple(models),
        scored=int(np.isfinite(scores_MNS).sum()),
        failed=failed,
        cost_usd=cost_usd,
    )
