"""The numbers that the papers and their public code state, written out by hand, next to what this code uses.

Nothing here is imported from where it is checked: a constant that is changed by mistake is found. `tests/parity/
mutate_constants.py` changes them one by one and sees that each is.
"""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from squadron.core import registry
from squadron.core.config import load_config


class Constant(NamedTuple):
    """`where`: `module:NAME`, or `job/preset:setting`, with `-` for the defaults of a job's configuration."""

    where: str
    value: Any
    source: str


SELF_REWARDING = [
    Constant("self_rewarding/paper:base", "Qwen/Qwen2.5-Math-7B", "arXiv 2503.03746, experiments: base models"),
    Constant(
        "self_rewarding/paper:evaluation.benchmarks.name",
        ("GSM8K", "MATH-500", "GaoKao2023En", "OlympiadBench", "AIME24", "AMC23"),
        "evaluation: benchmarks; of MATH 500 problems",
    ),
    Constant("self_rewarding/paper:instruction.limit", 28_889, "initialisation: instruction data"),
    Constant("self_rewarding/paper:judging.search.simulation_depth", 3, "evaluation data: tree search"),
    Constant("self_rewarding/paper:judging.search.iterations", 100, "evaluation data: tree search"),
    Constant("self_rewarding/paper:judging.proposing.temperature", 0.7, "evaluation data: tree search"),
    Constant("self_rewarding/paper:judging.proposing.top_p", 0.95, "evaluation data: tree search"),
    Constant("self_rewarding/paper:judging.held_out", 500, "evaluation data: contests to test by"),
    Constant("self_rewarding/paper:tuning.epochs", 3, "training: supervised"),
    Constant("self_rewarding/paper:tuning.optimizer.learning_rate", 1e-6, "training: supervised"),
    Constant("self_rewarding/paper:tuning.batch_size", 32, "training: supervised"),
    Constant("self_rewarding/paper:rounds.questions", (400, 800, 1200), "training: problems of M2, M3, M4"),
    Constant("self_rewarding/paper:rounds.search.width", 6, "step-wise preference data: w"),
    Constant("self_rewarding/paper:rounds.search.max_iterations", 20, "step-wise preference data"),
    Constant("self_rewarding/paper:rounds.proposing.temperature", 0.5, "step-wise preference data"),
    Constant("self_rewarding/paper:rounds.proposing.top_p", 0.95, "step-wise preference data"),
    Constant("self_rewarding/paper:rounds.training.epochs", 1, "training: preferences"),
    Constant("self_rewarding/paper:rounds.training.optimizer.learning_rate", 5e-7, "training: preferences"),
    Constant("self_rewarding/paper:rounds.training.batch_size", 32, "training: preferences"),
    Constant("self_rewarding/paper:rounds.training.schedule.warmup_ratio", 0.0, "training: none is given"),
    Constant("self_rewarding/paper:rounds.beta", 0.4, "Step-DPO's public code; the paper gives none"),
    Constant("self_rewarding/paper:evaluation.sampling.temperature", 0.0, "evaluation: greedy"),
    Constant("self_rewarding/-:rounds.beta", 0.4, "Step-DPO's public code; the paper gives none"),
    Constant("self_rewarding/-:rounds.search.width", 6, "step-wise preference data: w"),
    Constant("self_rewarding/-:rounds.search.max_iterations", 20, "step-wise preference data"),
    Constant("self_rewarding/-:rounds.questions", (400, 800, 1200), "training: problems of M2, M3, M4"),
    Constant("self_rewarding/-:rounds.proposing.temperature", 0.5, "step-wise preference data"),
    Constant("self_rewarding/-:rounds.proposing.top_p", 0.95, "step-wise preference data"),
    Constant("self_rewarding/-:rounds.training.optimizer.learning_rate", 5e-7, "training: preferences"),
    Constant("self_rewarding/-:tuning.optimizer.learning_rate", 1e-6, "training: supervised"),
    Constant("self_rewarding/-:judging.search.simulation_depth", 3, "evaluation data: tree search"),
    Constant("self_rewarding/-:judging.proposing.temperature", 0.7, "evaluation data: tree search"),
]
SRLM = [
    Constant("self_rewarding/paper-srlm:rewarding", "outcome", "arXiv 2401.10020: whole responses are scored"),
    Constant("self_rewarding/paper-srlm:base", "Qwen/Qwen2.5-Math-7B", "arXiv 2503.03746, experiments: base models"),
    Constant(
        "self_rewarding/paper-srlm:evaluation.benchmarks.name",
        ("GSM8K", "MATH-500", "GaoKao2023En", "OlympiadBench", "AIME24", "AMC23"),
        "arXiv 2503.03746, evaluation: benchmarks; of MATH 500 problems",
    ),
    Constant("self_rewarding/paper-srlm:instruction.limit", 28_889, "arXiv 2503.03746, initialisation"),
    Constant("self_rewarding/paper-srlm:tuning.epochs", 3, "arXiv 2503.03746, training: supervised"),
    Constant(
        "self_rewarding/paper-srlm:tuning.optimizer.learning_rate", 1e-6, "arXiv 2503.03746, training: supervised"
    ),
    Constant("self_rewarding/paper-srlm:tuning.batch_size", 32, "arXiv 2503.03746, training: supervised"),
    Constant(
        "self_rewarding/paper-srlm:rounds.questions", (400, 800, 1200), "arXiv 2503.03746: problems of M2, M3, M4"
    ),
    Constant("self_rewarding/paper-srlm:rounds.training.epochs", 1, "arXiv 2503.03746, training: preferences"),
    Constant(
        "self_rewarding/paper-srlm:rounds.training.optimizer.learning_rate", 5e-7, "arXiv 2503.03746, preferences"
    ),
    Constant("self_rewarding/paper-srlm:rounds.training.batch_size", 32, "arXiv 2503.03746, training: preferences"),
    Constant("self_rewarding/paper-srlm:rounds.training.schedule.warmup_ratio", 0.0, "arXiv 2503.03746 gives none"),
    Constant("self_rewarding/paper-srlm:rounds.scoring.candidates", 4, "arXiv 2401.10020: N"),
    Constant("self_rewarding/paper-srlm:rounds.scoring.proposing.temperature", 0.7, "arXiv 2401.10020: candidates"),
    Constant("self_rewarding/paper-srlm:rounds.scoring.proposing.top_p", 0.9, "arXiv 2401.10020: candidates"),
    Constant("self_rewarding/paper-srlm:rounds.scoring.judgements", 3, "arXiv 2401.10020: evaluations, averaged"),
    Constant("self_rewarding/paper-srlm:rounds.scoring.judging.temperature", 0.7, "arXiv 2401.10020: evaluations"),
    Constant("self_rewarding/paper-srlm:rounds.scoring.judging.top_p", 0.9, "arXiv 2401.10020: evaluations"),
    Constant("self_rewarding/paper-srlm:rounds.beta", 0.1, "arXiv 2401.10020: DPO"),
    Constant("self_rewarding/paper-srlm:evaluation.sampling.temperature", 0.0, "arXiv 2503.03746, evaluation: greedy"),
    Constant("self_rewarding/-:rewarding", "process", "arXiv 2503.03746: the method; SRLM is its baseline"),
    Constant("self_rewarding/-:rounds.scoring.candidates", 4, "arXiv 2401.10020: N"),
    Constant("self_rewarding/-:rounds.scoring.judgements", 3, "arXiv 2401.10020: evaluations, averaged"),
    Constant("self_rewarding/-:rounds.scoring.proposing.temperature", 0.7, "arXiv 2401.10020: candidates"),
    Constant("self_rewarding/-:rounds.scoring.judging.temperature", 0.7, "arXiv 2401.10020: evaluations"),
    Constant("squadron.methods.self_rewarding.algorithm:HIGHEST_SCORE", 5, "arXiv 2401.10020: scores from 0 to 5"),
]
CROWDSELECT = [
    Constant("crowdselect/paper:pool.score", "Skywork-Reward-Llama-3.1-8B", "public code: default reward model"),
    Constant("crowdselect/paper:selection.weights", (1.0, 1.0, 2.0), "arXiv 2503.01836, ablation of weights: the best"),
    Constant("crowdselect/paper:selection.count", 1000, "experiments: data budget"),
    Constant("crowdselect/paper:selection.clusters", 10, "public code: 100 of each of 10 clusters"),
    Constant("crowdselect/paper:selection.per_cluster", 100, "public code: 100 of each of 10 clusters"),
    Constant("crowdselect/paper:selection.ties", "official", "public code: argsort"),
    Constant("crowdselect/paper:selection.response", "best", "experiments: response choice"),
    Constant("crowdselect/paper:selection.seed", 42, "public code: k-means"),
    Constant("crowdselect/paper:students.training.optimizer.learning_rate", 1e-5, "appendix: fine-tuning"),
    Constant("crowdselect/paper:students.training.epochs", 3, "appendix: fine-tuning"),
    Constant("crowdselect/paper:students.training.batch_size", 2, "appendix: one row a card, two accumulated"),
    Constant("crowdselect/paper:students.training.max_length", 2048, "appendix: fine-tuning"),
    Constant("crowdselect/paper:students.training.schedule.kind", "cosine", "appendix: fine-tuning"),
    Constant("crowdselect/paper:students.training.schedule.warmup_ratio", 0.1, "appendix: 150 steps of 1,500"),
    Constant("crowdselect/-:selection.weights", (1.0, 1.0, 2.0), "ablation of weights: the best"),
    Constant("crowdselect/-:selection.count", 1000, "experiments: data budget"),
    Constant("crowdselect/-:selection.clusters", 10, "public code: 100 of each of 10 clusters"),
    Constant("crowdselect/-:selection.seed", 42, "public code: k-means"),
]
ACTOR_REASONER = [
    Constant("squadron.methods.actor_reasoner.algorithm:WEIGHTS", (10, 1, 1, 1, 1), "public code: memory retrieval"),
    Constant("squadron.methods.actor_reasoner.algorithm:ACCELERATIONS", (2, 0, -4), "public code: controller"),
    Constant("squadron.methods.actor_reasoner.memory:NEAREST", 10, "public code: memory retrieval, first layer"),
    Constant("squadron.methods.actor_reasoner.memory:SAME_NUMBERS", 4, "public code: memories that are alike"),
    Constant("squadron.methods.actor_reasoner.memory:SAME_WORDS", 0.8, "public code: memories that are alike"),
    Constant("actor_reasoner/-:traffic.tick_s", 0.1, "public code: simulator"),
    Constant("actor_reasoner/-:traffic.ticks", 200, "public code: simulator"),
    Constant("actor_reasoner/-:traffic.start_speed", (6, 9), "public code: simulator"),
    Constant("actor_reasoner/-:traffic.top_speed", 8, "public code: simulator"),
    Constant("actor_reasoner/-:traffic.over_after_m", 3, "public code: end of a conflict"),
    Constant("actor_reasoner/-:traffic.brakes_within_m", 25, "public code: simulator"),
    Constant("actor_reasoner/-:drivers.accelerations", (0, 2, -2, -4), "public code: drivers' actions"),
    Constant("actor_reasoner/-:drivers.prior", (0.14, 0.41, 0.45), "public code: drivers' beliefs"),
    Constant("actor_reasoner/-:drivers.aggressive.weights", (1.56, 0, 8.33, 3.69), "public code: drivers' rewards"),
    Constant("actor_reasoner/-:drivers.normal.weights", (1.72, 0, 8.2, 5.7), "public code: drivers' rewards"),
    Constant("actor_reasoner/-:drivers.conservative.weights", (2.1, 0, 7.79, 8.44), "public code: drivers' rewards"),
    Constant("actor_reasoner/-:drivers.aggressive.short_s", 2, "public code: drivers' rewards"),
    Constant("actor_reasoner/-:drivers.normal.short_s", 6, "public code: drivers' rewards"),
    Constant("actor_reasoner/-:drivers.conservative.short_s", 7, "public code: drivers' rewards"),
    Constant("actor_reasoner/paper:drivers.hears_display", False, "public code: drivers do not heed the display"),
    Constant("actor_reasoner/paper:drivers.conservative.weights", (2.1, 0, 7.79, 8.44), "public code: rewards"),
    Constant("actor_reasoner/paper:reasoner.model.model", "llama3", "public code: Ollama"),
    Constant("actor_reasoner/paper:memory.episodes", 50, "public code: train.py"),
    Constant("actor_reasoner/paper:evaluation.episodes", 100, "public code: test.py, seeds 0 to 99"),
]
COORDINATION = [
    Constant("coordination/paper:problems.count", 10_000, "arXiv 2503.02954, data"),
    Constant("coordination/paper:problems.robots", (2, 8), "data"),
    Constant("coordination/paper:problems.max_intervals", 14, "data"),
    Constant("coordination/paper:labels.count", 10, "data: the best ten plans"),
    Constant("coordination/paper:model.hidden", 256, "network"),
    Constant("coordination/paper:model.layers", 4, "network"),
    Constant("coordination/paper:training.optimizer.learning_rate", 3e-4, "training: Adam"),
    Constant("coordination/paper:training.batch_size", 128, "training"),
    Constant("coordination/paper:sampling.samples", 100, "inference"),
    Constant("coordination/paper:loss.order", 1, "training: α1"),
    Constant("coordination/paper:loss.following", 1, "training: α2"),
    Constant("coordination/paper:loss.divergence", 0.01, "training: α3, weight of the KL divergence"),
    Constant("coordination/paper:loss.margin", 0.1, "training: γ of the hinge"),
    Constant("coordination/-:loss.divergence", 0.01, "training: α3, weight of the KL divergence"),
    Constant("coordination/-:loss.margin", 0.1, "training: γ of the hinge"),
    Constant("coordination/-:problems.count", 10_000, "data"),
    Constant("coordination/-:labels.count", 10, "data: the best ten plans"),
    Constant("coordination/-:sampling.samples", 100, "inference"),
    Constant("coordination/-:training.optimizer.learning_rate", 3e-4, "training: Adam"),
    Constant("coordination/-:training.batch_size", 128, "training"),
]
FLAME = [
    Constant("flame/paper:homes.clients", 64, "arXiv 2503.01729, summaries of the experiments"),
    Constant("flame/paper:federation.clients_per_round", 10, "summaries of the experiments"),
    Constant("flame/paper:federation.rounds", 100, "summaries of the experiments"),
    Constant("flame/paper:training.local_epochs", 5, "summaries of the experiments"),
    Constant("flame/paper:demos.image_size", 64, "summaries of the experiments"),
    Constant("flame/paper:demos.per_home", 100, "data: 100 demonstrations of each environment"),
    Constant("flame/official:homes.clients", 400, "public code: pyproject"),
    Constant("flame/official:federation.clients_per_round", 20, "public code: fraction_fit 0.05 of 400"),
    Constant("flame/official:federation.rounds", 100, "public code: pyproject"),
    Constant("flame/official:training.local_epochs", 50, "public code: pyproject"),
    Constant("flame/official:training.learning_rate", 1e-3, "public code: Adam"),
    Constant("flame/official:training.weight_decay", 1e-5, "public code: Adam"),
    Constant("flame/official:training.batch_size", 32, "public code: data loader"),
    Constant("flame/official:demos.image_size", 128, "public code: front camera"),
    Constant("flame/official:evaluation.episodes_per_home", 5, "public code: online evaluation"),
    Constant("flame/official:evaluation.max_steps", 300, "public code: online evaluation"),
]
FINETUNE = [
    Constant(f"finetune/{preset}:training.{setting}", value, "arXiv 2503.00865, supervised fine-tuning")
    for preset in ("babel-9b", "babel-83b")
    for setting, value in {"optimizer.learning_rate": 4e-6, "schedule.warmup_ratio": 0.1, "max_length": 4096}.items()
]
TOOLRET = [
    Constant("toolret/paper:sets.name", ("web", "code", "customized"), "arXiv 2503.01763, table 1: categories"),
    Constant("toolret/paper:sets.tools.path", ("mangopy/ToolRet-Tools",) * 3, "public code: config"),
    Constant("toolret/paper:corpus", "together", "public code: the tools of all categories are one corpus"),
    Constant("toolret/paper:instructions", (False, True), "tables: without and with instructions"),
    Constant("toolret/paper:top", 100, "public code: top_k"),
    Constant("toolret/-:top", 100, "public code: top_k"),
    Constant("toolret/paper:evaluation.ks", (5, 10, 20), "public code: trec_eval"),
    Constant("toolret/paper:evaluation.k", 10, "tables: N@10, C@10"),
    Constant(
        "toolret/paper:evaluation.measures",
        ("ndcg", "map", "recall", "precision", "completeness"),
        "public code: trec_eval",
    ),
    Constant("toolret/paper:rerankers.first", ("NV-Embed",) * 3, "rerankers order the first 100 of NV-Embed-v1"),
    Constant("toolret/paper:rerankers.depth", (100,) * 3, "rerankers order the first 100 of NV-Embed-v1"),
]
HOT = [
    Constant("hot/paper:draw.how", "random", "arXiv 2503.02003, setup: random ones are none of the longest"),
    Constant("hot/paper:draw.count", 200, "setup: 200 items of each data set"),
    Constant("hot/paper:draw.seed", 0, "public code: seed"),
    Constant("hot/paper:models.sampling.temperature", (1.0, 1.0, 1.0, 0.6), "setup: Gemini and GPT 1.0, Llama 0.6"),
    Constant("hot/paper:models.sampling.top_p", (1.0, 1.0, 1.0, 0.9), "setup: Llama 0.9"),
    Constant("hot/paper:models.sampling.max_tokens", (1024,) * 4, "public code: max_tokens"),
]

MOR = [
    Constant("mor/paper:planners.lora.rank", (16,), "arXiv 2502.20317, public code: planning, LoRA"),
    Constant("mor/paper:planners.lora.alpha", (16.0,), "public code: planning, LoRA"),
    Constant("mor/paper:planners.training.optimizer.learning_rate", (2e-4,), "public code: planning"),
    Constant("mor/paper:planners.training.batch_size", (32,), "public code: planning, 4 rows, 8 accumulated"),
    Constant("mor/paper:planners.training.micro_batch_size", (4,), "public code: planning"),
    Constant("mor/paper:planners.training.steps", (1000,), "public code: planning"),
    Constant("mor/paper:planners.collect.sampling.temperature", (1.5,), "public code: planning, inference"),
    Constant("mor/paper:planners.collect.sampling.max_tokens", (128,), "public code: planning, inference"),
    Constant("mor/paper:traversal.seeds", 5, "public code: reasoning"),
    Constant("mor/paper:traversal.hits", 10, "public code: reasoning"),
    Constant("mor/paper:traversal.top", 100, "public code: reasoning"),
    Constant("mor/paper:reranker.width", 256, "public code: reranking"),
    Constant("mor/paper:reranker.negatives", 100, "public code: reranking"),
    Constant("mor/paper:reranker.passes", 100, "public code: reranking, epochs"),
    Constant("mor/paper:reranker.top", 50, "public code: reranking, MAG and Prime; Amazon has all 100"),
    Constant("mor/paper:reranker.training.batch_size", 5, "public code: reranking, MAG; Amazon has 64, Prime 256"),
    Constant("mor/paper:reranker.training.optimizer.learning_rate", 1e-4, "public code: MAG, Amazon; Prime has 3e-5"),
]
CONSTANTS = [
    *SELF_REWARDING,
    *SRLM,
    *CROWDSELECT,
    *ACTOR_REASONER,
    *COORDINATION,
    *FLAME,
    *FINETUNE,
    *TOOLRET,
    *HOT,
    *MOR,
]


def find(where: str) -> Any:
    """What the code or a preset has there."""
    place, _, path = where.partition(":")
    job, _, preset = place.partition("/")
    if not preset:
        return getattr(importlib.import_module(place), path)
    config = _resolve(job, preset)
    for name in path.split("."):
        config = tuple(getattr(one, name) for one in config) if isinstance(config, tuple) else getattr(config, name)
    return config


@functools.cache
def _resolve(job: str, preset: str) -> Any:
    path = None if preset == "-" else registry.find_config(job, preset)
    return load_config(registry.load_job(job).config_type, path)


def is_kept(constant: Constant) -> bool:
    """Whether the code has the published value."""
    found = find(constant.where)
    return bool(np.array_equal(np.asarray(found), np.asarray(constant.value)))


def recall_weighs_the_first_feature_tenfold() -> bool:
    """A memory that is 9 away in the other numbers is nearer than one that is 1 away in the first."""
    return _recalled([[1, 0, 0, 0, 0], [0, 9, 0, 0, 0]]) == 1 and _recalled([[1, 0, 0, 0, 0], [0, 0, 0, 0, 11]]) == 0


def recall_reads_ten() -> bool:
    """The tenth nearest in numbers is compared in words, and the eleventh is not."""
    from squadron.methods.actor_reasoner.memory import Memory

    found = []
    for place in (10, 11):
        memory = Memory(100, 2)
        for distance in range(1, 12):
            alike = np.array([1.0, 0.0] if distance == place else [-1.0, 0.0], np.float32)
            memory.write(0, np.array([0, 10.0 * distance, 0, 0, 0]), alike, int(distance == place), "words")
        found.append(int(memory.recall(np.zeros(1, int), np.zeros((1, 5)), np.array([[1.0, 0.0]], np.float32))[0]))
    return found == [1, 0]


def cautions_change_at_the_published_seconds() -> bool:
    """More than 5 is safe, down to 1 perhaps not, down to −5 serious, less a danger."""
    from squadron.methods.actor_reasoner.algorithm import View, how_safe

    between_B = np.array([5.1, 4.9, 1.1, 0.9, -4.9, -5.1])
    none_B, fast_B = np.zeros(6), np.full(6, 5.0)
    view = View(none_B, none_B, none_B, none_B, fast_B, fast_B, none_B, none_B, none_B, between_B)
    return how_safe(view).tolist() == [0, 1, 1, 2, 2, 3]


def crowdselect_weighs_stability_twice() -> bool:
    """In the order difficulty, separability, stability."""
    from squadron.methods.crowdselect.algorithm import Metrics, combine

    metrics = Metrics(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.array([True, True]))
    return bool(np.allclose(combine(metrics, find("crowdselect/-:selection.weights")), [2.0, 2.0]))


def toolret_has_the_tasks_of_each_category() -> bool:
    """35 in all: 19 of web, 7 of code, 9 customized."""
    sets = _resolve("toolret", "paper").sets
    tasks = [task for one in sets for queries in one.queries for task in queries.subsets]
    sizes = [sum(len(queries.subsets) for queries in one.queries) for one in sets]
    return sizes == [19, 7, 9] and len(set(tasks)) == 35 and {"toollens", "gorilla-tensor", "metatool"} <= set(tasks)


def toolret_writes_queries_as_the_public_code() -> bool:
    """Per family of models, with an instruction; documents have no prefix, even of E5."""
    from squadron.retrieval.formats import FORMATS, document_text, query_text

    written = {
        "plain": "find q",
        "minilm": "Instruct: find\nQuery: q",
        "bge": "Instruct: find\nQuery: q",
        "e5-mistral": "Instruct: find\nQuery: q",
        "e5-toolret": "Instruct: find\nquery: q",
        "nv-embed": "Instruct: find\nQuery: q</s>",
    }
    said = {name: query_text(FORMATS[name], "q", "find") for name in written}
    return said == written and all(document_text(FORMATS[name], "d") == "d" for name in written)


def toolret_averages_categories_as_published() -> bool:
    """BM25s without instructions: 22.32 is the mean of 18.98, 21.20 and 26.76, whatever the sizes of categories."""
    from squadron.evaluate.summary import macro_estimate
    from squadron.methods.toolret.report import PUBLISHED

    web, code, customized, average, _ = PUBLISHED[False]["BM25s"]
    found = macro_estimate([web, web, code, customized], ["web", "web", "code", "customized"])
    return (web, code, customized, average) == (18.98, 21.20, 26.76, 22.32) and abs(found.mean - 22.32) < 0.01


EFFECTS: list[Callable[[], bool]] = [
    toolret_has_the_tasks_of_each_category,
    toolret_writes_queries_as_the_public_code,
    toolret_averages_categories_as_published,
    recall_weighs_the_first_feature_tenfold,
    recall_reads_ten,
    cautions_change_at_the_published_seconds,
    crowdselect_weighs_stability_twice,
]


def _recalled(numbers: list[list[float]]) -> int:
    """Which of some memories, of a decision each, is the nearest to zeros."""
    from squadron.methods.actor_reasoner.memory import Memory

    memory = Memory(10, 2)
    for action, one in enumerate(numbers):
        memory.write(0, np.array(one, float), np.array([1.0, 0.0], np.float32), action, "words")
    vector = np.array([[1.0, 0.0]], np.float32)
    return int(memory.recall(np.zeros(1, int), np.zeros((1, 5)), vector, layers=1)[0])


def wrong() -> Iterator[str]:
    """What differs from what is published, one by one."""
    yield from (one.where for one in CONSTANTS if not is_kept(one))
    yield from (effect.__name__ for effect in EFFECTS if not effect())


@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda one: one.where)
def test_the_code_has_the_published_value(constant: Constant) -> None:
    assert is_kept(constant), f"{constant.source}: {constant.value}, here {find(constant.where)}"


@pytest.mark.parametrize("effect", EFFECTS)
def test_the_published_value_takes_effect(effect: Callable[[], bool]) -> None:
    assert effect()


def test_a_change_of_a_published_value_is_found() -> None:
    script = Path(__file__).parents[1] / "parity/mutate_constants.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
