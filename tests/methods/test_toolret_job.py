"""What the ToolRet job does besides what all jobs do (`tests/contract`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from squadron.core.folder import Folder
from squadron.data.rows import ArrowRows
from squadron.evaluate.rankings import score_rankings
from squadron.methods.toolret.records import Benchmark, Ranked
from tests.contract.record import output, stages

RERANKED, DEPTH = "BM25 + a rule", 4


@pytest.fixture(scope="module")
def finished(smoke_run: Callable[[str], Path]) -> Path:
    return smoke_run("toolret")


def rankings(folder: Path) -> dict[tuple[str, bool], np.ndarray]:
    """The places of every method in either setting."""
    names = ("search_words", "search_vectors", "join_rankings", "rerank_tools")
    found = [Ranked.model_validate(output(stage)) for name in names for stage in stages(folder, name)]
    return {(one.method, one.instructed): one.ranking(Folder(folder)).places_QK for one in found}


def test_reranking_keeps_every_querys_own_tools_and_reads_the_instruction_where_there_is_one(finished: Path) -> None:
    """The official code reads it where there is to be none and the other way round, and puts the scores of the first
    query in the place of the others' tools. The rule swaps the first two where it reads `Instruct:`."""
    found = rankings(finished)
    for told in (False, True):
        first, again = found["BM25", told], found[RERANKED, told]
        assert np.array_equal(first[:, DEPTH:], again[:, DEPTH:])
        assert np.array_equal(np.sort(first[:, :DEPTH], 1), np.sort(again[:, :DEPTH], 1))
        several = first[:, 1] >= 0
        assert several.sum() > 2
        swapped = first[several][:, [1, 0]] if told else first[several][:, :2]
        assert np.array_equal(again[several][:, :2], swapped)


def test_instructions_change_what_is_found(finished: Path) -> None:
    found = rankings(finished)
    assert {method for method, _ in found} == {"BM25", "MiniLM", "hybrid", RERANKED}
    for method in ("BM25", "MiniLM", "hybrid"):
        assert not np.array_equal(found[method, False], found[method, True])


def test_every_value_is_written_down_and_its_averages_are_the_reported_ones(finished: Path) -> None:
    folder = Folder(finished)
    (compared,), (read,) = (stages(finished, name) for name in ("compare", "read_benchmark"))
    bench = Benchmark.model_validate(output(read))
    rows = list(ArrowRows(folder, [output(compared)["values"]["path"]]))
    assert len(rows) == 24 * 4 * 2
    ids = [one.id for one in bench.documents(folder)]
    (stage, *_) = stages(finished, "join_rankings")
    ranked = Ranked.model_validate(output(stage))
    expected = score_rankings(bench.asked(folder), ids, ranked.ranking(folder), ["ndcg@10", "map@5"])
    mine = [row for row in rows if row["method"] == "hybrid" and row["instructed"] == ranked.instructed]
    for name, value_Q in expected.items():
        assert [row[name] for row in mine] == pytest.approx(value_Q.tolist())
    by_category = [np.mean([row["ndcg@10"] for row in mine if row["category"] == one]) for one in bench.categories]
    reported = next(one for one in output(compared)["methods"] if one["method"] == "hybrid")
    assert reported["ndcg"]["mean"] == pytest.approx(np.mean(by_category))
