"""All that a choice of instructions can go by. N instructions, M models, S samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from squadron.core.folder import Folder
from squadron.data.clustering import cluster
from squadron.data.rows import ArrowRows
from squadron.llm.batch.collect import read_answers
from squadron.llm.batch.scoring import Scores, mean_over_samples, read_sample_scores
from squadron.methods.crowdselect import algorithm
from squadron.methods.crowdselect.config import SelectionConfig
from squadron.methods.crowdselect.embedding import read_embeddings
from squadron.methods.crowdselect.records import Collected, Embeddings, Pool


@dataclass(frozen=True)
class Field:
    """Instructions, their answers and scores, what the scores tell of each instruction, and the response that it would
    be trained on: answer `sample_N` of model `model_N`."""

    ids: list[str]
    questions: ArrowRows
    answers: tuple[ArrowRows, ...]
    scores_NM: np.ndarray
    scores_NMS: np.ndarray
    metrics: algorithm.Metrics
    cluster_N: np.ndarray | None
    model_N: np.ndarray
    sample_N: np.ndarray

    def response(self, row: int) -> str | None:
        """The response that a row would be trained on; None where too few answers have a score."""
        if not self.metrics.eligible_N[row]:
            return None
        samples = self.scores_NMS.shape[2]
        text: str | None = self.answers[self.model_N[row]][row * samples + int(self.sample_N[row])]["response"]
        return text

    @property
    def has_responses(self) -> bool:
        """Whether there is any response to train on; a pool may bring scores alone."""
        return any(self.response(row) is not None for row in range(len(self.ids)))

    def score(self, row: int) -> float:
        """What that response scored."""
        return float(self.scores_NMS[row, self.model_N[row], self.sample_N[row]])


def read_field(
    run: Folder,
    pool: Pool,
    collected: Collected,
    scores: Scores,
    embeddings: Embeddings,
    config: SelectionConfig,
    families: list[list[int]],
) -> Field:
    """Read pool, answers and scores, measure them, and choose a response for each instruction.

    `families` are columns of models, small to large. Raises ConfigError or InputError where scores and settings leave
    nothing to choose by.
    """
    questions = pool.questions.rows(run)
    ids = [identifier for (identifier,) in questions.columns("id")]
    scores_NMS = read_sample_scores(run, scores)
    scores_NM = mean_over_samples(scores_NMS)
    metrics = algorithm.measure([scores_NM], families, config.ties, config.min_scores)
    algorithm.validate_crowd(metrics, config.weights, config.count, config.clusters)
    clusters = config.clusters
    vectors = read_embeddings(run, embeddings)
    cluster_N = cluster(vectors, ids, clusters, config.seed) if clusters is not None else None
    model_N = np.zeros(len(ids), np.intp)
    scored = np.flatnonzero(np.isfinite(scores_NM).any(1))
    named = [ids[row] for row in scored]
    model_N[scored] = algorithm.choose_response(scores_NM[scored], named, config.response, config.seed, config.top)
    chosen_NS = scores_NMS[np.arange(len(ids)), model_N]
    sample_N = np.where(np.isfinite(chosen_NS), chosen_NS, -np.inf).argmax(1)
    answers = tuple(read_answers(run, one) for one in collected.answers)
    return Field(ids, questions, answers, scores_NM, scores_NMS, metrics, cluster_N, model_N, sample_N)
