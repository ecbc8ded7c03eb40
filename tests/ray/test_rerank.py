"""Reranking and token vectors on a cluster: as in one process, every answer once, and what failed told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.llm.settings import Rule, ScriptedModel
from squadron.retrieval.late import LateConfig, embed_tokens, open_late_encoder
from squadron.retrieval.ranking import Ranking
from squadron.retrieval.rerank import open_reranker, rerank, rerank_all
from squadron.retrieval.rerankers import JudgeReranker, ListwiseReranker
from tests.tiny_bert import make_bert

TEXTS = [f"text {number}" for number in range(6)]
QUERIES = [f"query {number}" for number in range(4)]
BEFORE = Ranking(np.tile(np.arange(6), (4, 1)), np.tile(6.0 - np.arange(6, dtype=np.float32), (4, 1)))


class Nothing(Config):
    pass


def make_run(folder: Path) -> Run:
    return Run("test", Nothing(), Folder(folder), Profile(name="auto"), track=())


def begin(run: Run, name: str) -> Stage:
    stage = Stage(run, name, "", {}, run.folder / "stages" / f"{name}-0")
    stage.begin()
    return stage


def test_a_cluster_ranks_as_one_process_does_and_asks_nothing_twice(ray_cluster: object, tmp_path: Path) -> None:
    turns = ScriptedModel(name="turns", rules=(Rule(pattern="", reply="[3] > [2] > [1]"),))
    listwise = ListwiseReranker(model=turns, window=3, step=2)
    grader = ScriptedModel(name="grader", rules=(Rule(pattern=r"query [0-2]: text (\d)", reply=r"Score: \1"),))
    judge = JudgeReranker(model=grader, rubric="{instruction}: {response}")
    run = make_run(tmp_path)
    try:
        for _ in range(2):
            stage = begin(run, "rank")
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


def test_a_corpus_is_encoded_in_chunks_each_once(ray_cluster: object, tmp_path: Path) -> None:
    config = LateConfig(path=make_bert(tmp_path / "model", ["text"]))
    run = make_run(tmp_path / "run")
    try:
        texts = [*TEXTS, *TEXTS[:2]]  # the last chunk is the first again
        files = embed_tokens(begin(run, "encode"), texts, config, chunk=2)
        written = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.npy")}
        assert embed_tokens(begin(run, "encode"), texts, config, chunk=2) == files
    finally:
        run.close()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.npy")} == written
    assert len(written) == 6 and files.documents == 8
    corpus = files.open(run.folder, config)
    with open_late_encoder(config) as encoder:
        for place, vectors_TD in enumerate(encoder.documents(texts)):
            np.testing.assert_allclose(corpus.document(place), vectors_TD, atol=2e-3)
