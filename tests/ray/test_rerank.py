"""Reranking on a cluster: as in one process, every answer once, and queries that failed told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.llm.settings import Rule, ScriptedModel
from squadron.retrieval.ranking import Ranking
from squadron.retrieval.rerank import open_reranker, rerank, rerank_all
from squadron.retrieval.rerankers import JudgeReranker, ListwiseReranker

TEXTS = [f"text {number}" for number in range(6)]
QUERIES = [f"query {number}" for number in range(4)]
BEFORE = Ranking(np.tile(np.arange(6), (4, 1)), np.tile(6.0 - np.arange(6, dtype=np.float32), (4, 1)))


class Nothing(Config):
    pass


def test_a_cluster_ranks_as_one_process_does_and_asks_nothing_twice(ray_cluster: object, tmp_path: Path) -> None:
    turns = ScriptedModel(name="turns", rules=(Rule(pattern="", reply="[3] > [2] > [1]"),))
    listwise = ListwiseReranker(model=turns, window=3, step=2)
    grader = ScriptedModel(name="grader", rules=(Rule(pattern=r"query [0-2]: text (\d)", reply=r"Score: \1"),))
    judge = JudgeReranker(model=grader, rubric="{instruction}: {response}")
    run = Run("test", Nothing(), Folder(tmp_path), Profile(name="auto"), track=())
    try:
        for _ in range(2):
            stage = Stage(run, "rank", "", {}, run.folder / "stages" / "rank-0")
            stage.begin()
            found = rerank_all(stage, QUERIES, QUERIES, TEXTS, BEFORE, listwise, depth=5)
            with open_reranker(listwise) as reranker:
                here = rerank(QUERIES, TEXTS, BEFORE, reranker, depth=5)
            assert found.ranking.places_QK.tolist() == here.places_QK.tolist() == [[4, 1, 0, 3, 2, 5]] * 4
            assert found.ranking.scores_QK.tolist() == here.scores_QK.tolist() and not found.repaired
            lines = [line for log in (tmp_path / "answers").glob("*/*.jsonl") for line in log.read_text().splitlines()]
            assert len(lines) == 8  # four queries of two windows, also the second time
            graded = rerank_all(stage, QUERIES, QUERIES, TEXTS, BEFORE, judge, depth=3)
            assert graded.ranking.places_QK.tolist() == [[2, 1, 0, 3, 4, 5]] * 3 + [[*range(6)]]
            assert list(graded.failed) == [3] and "no rule" in graded.failed[3]
            assert "query 3" in {failure["item"] for failure in stage.failures()}
    finally:
        run.close()
