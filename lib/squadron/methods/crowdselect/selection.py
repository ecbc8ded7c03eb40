"""Which instructions each way of choosing takes, and with which responses. N instructions, M models, S samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from squadron.core import console
from squadron.core.errors import ConfigError
from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.data.rows import store_rows
from squadron.llm.batch.budget import SpendingConfig
from squadron.llm.batch.scoring import Scores
from squadron.methods.crowdselect import algorithm, baselines, figures, plan
from squadron.methods.crowdselect.config import Arm, SelectionConfig
from squadron.methods.crowdselect.embedding import read_embeddings
from squadron.methods.crowdselect.field import Field, read_field
from squadron.methods.crowdselect.judging import ask_marks, ask_tags, ifd_losses
from squadron.methods.crowdselect.records import (
    Choice,
    Collected,
    Embeddings,
    Pool,
    ResponseModel,
    ResponseModels,
    Selection,
)

_NEED_RESPONSES: frozenset[Arm] = frozenset({"direct_score", "ifd"})
_METRIC_WEIGHTS = {"difficulty": (1, 0, 0), "separability": (0, 1, 0), "stability": (0, 0, 1)}


@estimated(plan.training)
def select(
    stage: Stage,
    pool: Pool,
    crowd: ResponseModels,
    collected: Collected,
    scores: Scores,
    embeddings: Embeddings,
    config: SelectionConfig,
    seeds: int,
    spending: SpendingConfig,
) -> Selection:
    """Choose instructions and responses, by CrowdSelect and by what it is compared with.

    Each choice is written as rows of `id`, `instruction`, `response`, `model`, `score`; without `response` where the
    pool brings scores alone.

    Raises ConfigError or InputError where scores and settings leave nothing to choose by.
    """
    families = families_of(collected.crowd)
    notes = algorithm.validate_settings(len(collected.crowd), families, config.weights)
    for note in notes:
        console.say(f"  {console.plain(note)}")
    field = read_field(stage.run.folder, pool, collected, scores, embeddings, config, families)
    with_responses = field.has_responses
    if not with_responses and (needing := sorted(_NEED_RESPONSES & set(config.arms))):
        what = f"{' and '.join(needing)} read responses, and the pool brings scores alone"
        raise ConfigError(what, where="selection.arms", fix="leave them out, or give responses")
    figures.show_crowd(stage, field, collected.crowd)
    choices: list[Choice] = []
    rows_by_arm: dict[str, np.ndarray] = {}
    for arm in config.arms:
        for seed in range(max(1, seeds) if arm == "random" else 1):
            picked = _pick(stage, field, crowd, config, arm, seed, spending.cap_usd)
            choices.append(_write(stage, field, collected.crowd, arm, seed, picked, with_responses))
            rows_by_arm.setdefault(arm, picked)
    figures.show_choices(stage, field, rows_by_arm, config)
    if "crowdselect" in rows_by_arm:
        figures.show_map(stage, field, read_embeddings(stage.run.folder, embeddings), rows_by_arm["crowdselect"])
        figures.show_examples(stage, field, rows_by_arm["crowdselect"])
    unscored = int((~field.metrics.eligible_N).sum())
    stage.headline("mean stability", f"{field.metrics.stability_N[field.metrics.eligible_N].mean():.3f}")
    stage.headline("instructions with scores enough", f"{len(field.ids) - unscored:,} of {len(field.ids):,}")
    return Selection(choices=tuple(choices))


def families_of(crowd: Sequence[ResponseModel]) -> list[list[int]]:
    """The columns of each family, small to large; models without a family or a size are in none."""
    named: dict[str, list[int]] = {}
    for column, model in enumerate(crowd):
        if model.family is not None and model.size_b is not None:
            named.setdefault(model.family, []).append(column)
    return [sorted(columns, key=lambda column: crowd[column].size_b or 0.0) for columns in named.values()]


def _pick(
    stage: Stage,
    field: Field,
    crowd: ResponseModels,
    config: SelectionConfig,
    arm: Arm,
    seed: int,
    cap_usd: float | None,
) -> np.ndarray:
    """The rows that one arm takes, best first."""
    eligible_N = field.metrics.eligible_N
    if arm == "everything":
        return np.flatnonzero(eligible_N)
    if arm == "tags":
        tags = ask_tags(stage, field.questions, config, cap_usd)
        return baselines.pick_by_tags(
            [names if fits else [] for names, fits in zip(tags, eligible_N, strict=True)], field.ids, config.count
        )
    clusters = field.cluster_N if arm == "crowdselect" else None
    score_N = np.where(eligible_N, _arm_score(stage, field, crowd, config, arm, seed, cap_usd), np.nan)
    return algorithm.pick(score_N, field.ids, clusters, config.count, config.per_cluster)


def _arm_score(
    stage: Stage,
    field: Field,
    crowd: ResponseModels,
    config: SelectionConfig,
    arm: Arm,
    seed: int,
    cap_usd: float | None,
) -> np.ndarray:
    """What an arm goes by, high first."""
    match arm:
        case "crowdselect":
            return algorithm.combine(field.metrics, config.weights)
        case "difficulty" | "separability" | "stability":
            return algorithm.combine(field.metrics, _METRIC_WEIGHTS[arm])
        case "random":
            return baselines.random_scores(field.ids, config.seed + seed)
        case "length":
            return baselines.length_scores(_words(field))
        case "reward" | "reward_lowest":
            return baselines.reward_scores(field.scores_NM, lowest=arm == "reward_lowest")
        case "direct_score":
            return baselines.direct_scores(ask_marks(stage, field.questions, field.response, config, cap_usd))
        case "ifd":
            return baselines.ifd_scores(*ifd_losses(stage, field.questions, field.response, crowd))
        case _:
            raise AssertionError(arm)


def _words(field: Field) -> np.ndarray:
    """Words of instruction and response: a count that no tokenizer decides."""
    texts = (f"{question['instruction']} {field.response(row) or ''}" for row, question in enumerate(field.questions))
    return np.array([len(text.split()) for text in texts])


def _write(
    stage: Stage,
    field: Field,
    crowd: Sequence[ResponseModel],
    arm: Arm,
    seed: int,
    picked: np.ndarray,
    with_responses: bool,
) -> Choice:
    def rows() -> Iterator[dict[str, Any]]:
        for row in picked.tolist():
            question = field.questions[row]
            yield {
                "id": question["id"],
                "instruction": question["instruction"],
                **({"response": field.response(row)} if with_responses else {}),
                "model": crowd[field.model_N[row]].name,
                "score": field.score(row),
            }

    columns = ("id", "instruction", *(("response",) if with_responses else ()), "model")
    types = dict.fromkeys(columns, "string") | {"score": "float64"}
    kept = store_rows(stage, f"choices/{arm}-{seed}.arrow", rows(), types)
    return Choice(arm=arm, seed=seed, **kept.model_dump())
