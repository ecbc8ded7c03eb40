"""Models trained on what was chosen, and what they score on instructions kept out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from squadron.core.errors import ConfigError
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows
from squadron.evaluate.panels import headline, loss_curves
from squadron.evaluate.scores import Scores
from squadron.evaluate.summary import Estimate, estimate
from squadron.llm.batch.budget import SpendingConfig
from squadron.llm.batch.collect import CollectConfig, collect
from squadron.llm.batch.scoring import read_scores, score
from squadron.llm.rewards.settings import AnyReward
from squadron.llm.settings import HfModel
from squadron.methods.crowdselect import figures
from squadron.methods.crowdselect.config import LearningConfig, StudentsConfig
from squadron.methods.crowdselect.records import (
    Choice,
    Pool,
    ResponseModels,
    Selection,
    Student,
    Students,
    StudentScores,
)
from squadron.train.tuning import Tuning, encode_rows, tune


def train_students(stage: Stage, selection: Selection, crowd: ResponseModels, config: LearningConfig) -> Students:
    """Train a student on each choice, with every seed.

    Arms of equal size see equally many rows. Raises ConfigError or ResourceError as training does.
    """
    assert crowd.base is not None
    if any("response" not in next(iter(choice.rows(stage.run.folder))) for choice in selection.choices):
        what = "the pool brings scores alone: there are no responses to train students on"
        raise ConfigError(what, where="students", fix="set students.seeds: 0, or give responses")
    tokenizer = crowd.base.load_tokenizer(stage.run.folder)
    chosen = [
        (choice, seed) for choice in selection.choices if choice.arm in config.arms for seed in _seeds(choice, config)
    ]
    encoded = {choice.path: _encode(stage, choice, tokenizer, config) for choice, _ in chosen}
    tuned = tune(
        stage,
        [
            Tuning(
                f"{choice.arm}-{seed}",
                crowd.base,
                encoded[choice.path],
                config.training.model_copy(update={"seed": config.training.seed + seed}),
                config.lora,
            )
            for choice, seed in chosen
        ],
    )
    losses = {one.model.name: one.losses for one, (_, seed) in zip(tuned, chosen, strict=True) if seed == 0}
    stage.show(loss_curves("Training loss", losses, note="First seed."))
    stage.headline("students trained", str(len(tuned)))
    students = [
        Student(arm=choice.arm, seed=seed, model=one.model, steps=len(one.losses), loss=float(one.losses[-1]))
        for one, (choice, seed) in zip(tuned, chosen, strict=True)
    ]
    return Students(base=crowd.base, students=tuple(students))


def compare_students(
    stage: Stage,
    students: Students,
    pool: Pool,
    config: StudentsConfig,
    reward: AnyReward,
    spending: SpendingConfig,
) -> StudentScores:
    """Let students answer the instructions kept out, and compare their scores.

    The difference of CrowdSelect's students and random's has a t interval over seeds, which holds for other seeds, and
    a bootstrap interval over instructions, which holds for other instructions; both are shown.
    """
    run = stage.run.folder
    questions = pool.held_out.rows(run)
    asked = [HfModel(name="before training", path=students.base.locate(run), batch_size=config.batch_size)]
    asked += [
        HfModel(name=f"student {one.model.name}", path=one.model.locate(run), batch_size=config.batch_size)
        for one in students.students
    ]
    answers = collect(stage, questions, asked, CollectConfig(sampling=config.sampling))
    scores_QS = read_scores(run, score(stage, questions, answers, reward, spending.cap_usd))
    arms = tuple(dict.fromkeys(one.arm for one in students.students))
    columns = {arm: [1 + n for n, one in enumerate(students.students) if one.arm == arm] for arm in arms}
    scores = Scores.of_arrays("score", {arm: scores_QS[:, at] for arm, at in columns.items()})
    found = {arm: scores.estimate(arm, "score") for arm in arms}
    before = estimate(scores_QS[:, 0]).mean
    difference = scores.difference("crowdselect", "random", "score") if {"crowdselect", "random"} <= {*arms} else None
    if difference is not None:
        _headline_difference(stage, difference)
    figures.show_students(stage, found, before)
    stage.headline("mean score before training", f"{before:.3f}")
    for arm, one in found.items():
        stage.headline(f"mean score, {arm}", f"{one.mean:.3f}")
    if "crowdselect" in found:
        stage.measure(score=found["crowdselect"].mean)
    return StudentScores(arms=found, difference=difference)


def _headline_difference(stage: Stage, difference: Estimate) -> None:
    headline(stage, "CrowdSelect − random", difference, "+.3f", over=" over instructions")
    stage.measure(difference=difference.mean)
    if over_seeds := difference.over_seeds:
        stage.headline("its 95% interval over seeds", "{:+.3f} to {:+.3f}".format(*over_seeds))
        stage.headline("seed by seed", ", ".join(f"{value:+.3f}" for value in difference.by_seed))


def _seeds(choice: Choice, config: LearningConfig) -> list[int]:
    """Random draws anew for every seed; every other arm trains on one choice with every seed."""
    return [choice.seed] if choice.arm == "random" else list(range(config.seeds))


def _encode(stage: Stage, choice: Choice, tokenizer: Any, config: LearningConfig) -> ArrowRows:
    """The choice as token ids; what is over the length that is trained on is cut off, and counted."""
    from squadron.train.text.conversations import encode_conversation

    def rows() -> Iterator[dict[str, Any]]:
        for record in choice.rows(stage.run.folder):
            asked = {"role": "user", "content": record["instruction"]}
            said = {"role": "assistant", "content": record["response"]}
            yield encode_conversation(tokenizer, [asked, said])

    name, where = f"rows/{os.path.basename(choice.path)}", "students.training.max_length"
    return encode_rows(stage, name, rows(), config.training, where, too_long="cut", of=choice.arm)
