"""Models trained on what was chosen, and what they score on instructions kept out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from squadron.core.folder import relative
from squadron.core.panels import Curves, Series
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows, write_rows
from squadron.evaluate.statistics import cluster_bootstrap_interval, mean_t_interval
from squadron.llm.batch.collect import CollectConfig, collect
from squadron.llm.batch.scoring import read_scores, score
from squadron.llm.rewards.settings import AnyReward
from squadron.llm.settings import HfModel
from squadron.methods.crowdselect import figures
from squadron.methods.crowdselect.config import LearningConfig, StudentsConfig
from squadron.methods.crowdselect.records import (
    ArmResult,
    Choice,
    Comparison,
    Pool,
    ResponseModels,
    Selection,
    Student,
    Students,
)


def train(stage: Stage, selection: Selection, crowd: ResponseModels, config: LearningConfig) -> Students:
    """Train a student of each arm and seed on its choice; equal arms of equal size see equally many rows.

    Raises ConfigError or ResourceError as training does.
    """
    from transformers import AutoTokenizer

    from squadron.train.models.builders import Pretrained, local_folder
    from squadron.train.multi_run import TrainJob, train_several
    from squadron.train.objectives.language import SupervisedFineTuning

    assert crowd.base is not None
    base = stage.run.folder.file(crowd.base) if crowd.base_inside_run else crowd.base
    tokenizer = AutoTokenizer.from_pretrained(local_folder(base), trust_remote_code=False)
    build = Pretrained(base, precision=config.training.precision, lora=config.lora, fused=config.training.fused_kernels)
    chosen = [
        (choice, seed) for choice in selection.choices if choice.arm in config.arms for seed in _seeds(choice, config)
    ]
    encoded = {choice.file: _encode(stage, choice, tokenizer, config) for choice, _ in chosen}
    lessons = [
        TrainJob(
            name=f"{choice.arm}-{seed}",
            build=build,
            objective=SupervisedFineTuning(config.training.loss_chunk),
            rows=encoded[choice.file],
            spec=config.training.model_copy(update={"seed": config.training.seed + seed}),
            tokenizer=base,
        )
        for choice, seed in chosen
    ]
    learned = train_several(stage, lessons)
    curves = [
        Series(name=one.name, x=list(range(1, len(one.losses) + 1)), y=list(one.losses))
        for one in learned
        if one.name.endswith("-0")
    ]
    stage.show(Curves(title="Training loss", x_label="step", y_label="loss", series=curves, note="First seed."))
    stage.headline("students trained", str(len(learned)))
    students = [
        Student(
            name=one.name, arm=choice.arm, seed=seed, path=one.path, steps=len(one.losses), loss=float(one.losses[-1])
        )
        for one, (choice, seed) in zip(learned, chosen, strict=True)
    ]
    return Students(base=crowd.base, base_inside_run=crowd.base_inside_run, students=tuple(students))


def compare(
    stage: Stage, students: Students, pool: Pool, config: StudentsConfig, reward: AnyReward, cap_usd: float | None
) -> Comparison:
    """Let every student answer the instructions kept out, score the answers, and compare the arms.

    The difference of CrowdSelect's students and random's has a t interval over seeds, which holds for other seeds, and
    a bootstrap interval over instructions, which holds for other instructions; both are shown.
    """
    run = stage.run.folder
    questions = ArrowRows(run, [pool.held_out])
    base = run.file(students.base) if students.base_inside_run else students.base
    asked = [HfModel(name="before training", path=base, batch_size=config.batch_size)]
    asked += [
        HfModel(name=f"student {one.name}", path=run.file(one.path), batch_size=config.batch_size)
        for one in students.students
    ]
    answers = collect(stage, questions, asked, CollectConfig(sampling=config.sampling))
    scores_QS = read_scores(run, score(stage, questions, answers, reward, cap_usd))
    base_score = float(np.nanmean(scores_QS[:, 0]))
    by_arm: dict[str, np.ndarray] = {
        arm: np.stack([scores_QS[:, 1 + n] for n, one in enumerate(students.students) if one.arm == arm], axis=1)
        for arm in dict.fromkeys(one.arm for one in students.students)
    }
    results = tuple(
        ArmResult(arm=arm, means=tuple(np.nanmean(scores, axis=0).tolist())) for arm, scores in by_arm.items()
    )
    result = _against_random(stage, Comparison(results=results), by_arm)
    intervals = {arm: _over_questions(scores) for arm, scores in by_arm.items()}
    figures.show_students(stage, result, base_score, intervals)
    stage.headline("mean score before training", f"{base_score:.3f}")
    for arm in results:
        stage.headline(f"mean score, {arm.arm}", f"{float(np.mean(arm.means)):.3f}")
        if arm.arm == "crowdselect":
            stage.measure(score=float(np.mean(arm.means)))
    return result


def _against_random(stage: Stage, result: Comparison, by_arm: dict[str, np.ndarray]) -> Comparison:
    if not {"crowdselect", "random"} <= by_arm.keys():
        return result
    difference_QS = by_arm["crowdselect"] - by_arm["random"]
    by_seed = np.nanmean(difference_QS, axis=0)
    low, high = _over_questions(difference_QS)
    mean = float(by_seed.mean())
    stage.headline("CrowdSelect − random", f"{mean:+.3f}")
    stage.measure(difference=mean)
    stage.headline("its 95% interval over instructions", f"{low:+.3f} to {high:+.3f}")
    if len(by_seed) > 1:
        t_low, t_high = mean_t_interval(by_seed.tolist())
        stage.headline("its 95% interval over seeds", f"{t_low:+.3f} to {t_high:+.3f}")
        stage.headline("seed by seed", ", ".join(f"{value:+.3f}" for value in by_seed))
    return result.model_copy(update={"difference": mean, "low": low, "high": high})


def _over_questions(scores_QS: np.ndarray) -> tuple[float, float]:
    """Bootstrap interval of the mean, over questions: the seeds' answers to one question are alike."""
    return cluster_bootstrap_interval([row[np.isfinite(row)].tolist() for row in scores_QS])


def _seeds(choice: Choice, config: LearningConfig) -> list[int]:
    """Random draws anew for every seed; every other arm trains on one choice with every seed."""
    return [choice.seed] if choice.arm == "random" else list(range(config.seeds))


def _encode(stage: Stage, choice: Choice, tokenizer: Any, config: LearningConfig) -> ArrowRows:
    """The choice as token ids; what is over the length that is trained on is cut off, and counted."""
    from squadron.train.text.conversations import encode_conversation

    limit = config.training.max_length
    cut = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal cut
        for record in ArrowRows(stage.run.folder, [choice.file]):
            asked = {"role": "user", "content": record["instruction"]}
            said = {"role": "assistant", "content": record["response"]}
            row = encode_conversation(tokenizer, [asked, said])
            if limit is not None and row["length"] > limit:
                cut += 1
                row = {name: row[name][:limit] for name in ("input_ids", "labels")} | {"length": limit}
            yield row

    name = f"rows/{os.path.basename(choice.file)}"
    write_rows(stage.folder, name, rows())
    if cut:
        stage.headline(f"rows cut to {limit} tokens, {choice.arm}", f"{cut:,} of {choice.count:,}")
    return ArrowRows(stage.run.folder, [relative(stage.folder, stage.run.folder, name)])
