"""Rankings: the best first, ties by place, and shards together what one index would give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from squadron.retrieval.ranking import Ranking, best, merge

FEW = st.sampled_from([-np.inf, -1, 0, 0.5, 3])
"""So few that there are ties, at the border too."""
SCORES = arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(0, 30)), elements=FEW)


def by_sorting(scores_QD: np.ndarray, k: int) -> list[list[tuple[int, float]]]:
    rows = [sorted(enumerate(row.tolist()), key=lambda pair: (-pair[1], pair[0])) for row in scores_QD]
    return [[pair for pair in row[:k] if pair[1] > -np.inf] for row in rows]


def pairs(ranking: Ranking) -> list[list[tuple[int, float]]]:
    rows = zip(ranking.places_QK.tolist(), ranking.scores_QK.tolist(), strict=True)
    return [[(place, score) for place, score in zip(*row, strict=True) if place >= 0] for row in rows]


@given(SCORES, st.integers(0, 40))
def test_the_best_are_those_that_sorting_gives(scores_QD: np.ndarray, k: int) -> None:
    found = best(scores_QD, k)
    assert pairs(found) == by_sorting(scores_QD, k)
    assert found.places_QK.shape == found.scores_QK.shape == (len(scores_QD), min(k, scores_QD.shape[1]))
    assert (np.isneginf(found.scores_QK) == (found.places_QK < 0)).all()


@pytest.mark.parametrize("levels", [3, 10**6])
@pytest.mark.parametrize("k", [1, 100, 30_000])
def test_in_long_rows_too(levels: int, k: int) -> None:
    draw = np.random.default_rng(levels + k)
    scores_QD = draw.integers(0, levels, (3, 50_001)).astype(np.float32)
    assert pairs(best(scores_QD, k)) == by_sorting(scores_QD, k)


@given(SCORES, st.integers(0, 40), st.data())
def test_shards_merge_to_what_one_index_gives(scores_QD: np.ndarray, k: int, data: st.DataObject) -> None:
    documents = scores_QD.shape[1]
    ends = sorted(data.draw(st.lists(st.integers(0, documents), max_size=3)))
    starts, stops = [0, *ends], [*ends, documents]
    shards = [best(scores_QD[:, start:stop], k) for start, stop in zip(starts, stops, strict=True)]
    assert pairs(merge(shards, starts, k)) == pairs(best(scores_QD, k))


def test_documents_by_their_names() -> None:
    found = best(np.array([[0.0, 2.0, 1.0], [-np.inf, 0.0, -np.inf]]), 2)
    assert found.ids(["a", "b", "c"]) == [["b", "c"], ["b"]]
