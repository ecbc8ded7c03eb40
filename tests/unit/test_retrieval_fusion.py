"""Fusion of rankings, against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.retrieval.fusion import Method, fuse
from squadron.retrieval.ranking import Ranking, best


def one(places: list[int], scores: list[float]) -> Ranking:
    return Ranking(np.array([places]), np.array([scores], np.float32))


FIRST, SECOND = one([7, 3, 5, -1], [9, 5, 1, -np.inf]), one([3, 8, 7, 1], [0.8, 0.6, 0.5, 0.4])


def test_reciprocal_ranks() -> None:
    found = fuse([FIRST, SECOND], method="rrf", k=5)
    assert found.places_QK.tolist() == [[3, 7, 8, 5, 1]]
    np.testing.assert_allclose(
        found.scores_QK[0], [1 / 62 + 1 / 61, 1 / 61 + 1 / 63, 1 / 62, 1 / 63, 1 / 64], rtol=1e-6
    )


def test_scores_between_the_least_and_the_best() -> None:
    found = fuse([FIRST, SECOND], method="scores", k=5)
    assert found.places_QK.tolist() == [[3, 7, 8, 1, 5]]
    np.testing.assert_allclose(found.scores_QK[0], [0.5 + 1, 1 + 0.25, 0.5, 0, 0], rtol=1e-6, atol=1e-6)
    weighted = fuse([FIRST, SECOND], weights=(1, 3), k=2)
    np.testing.assert_allclose(weighted.scores_QK[0], [0.5 + 3, 1 + 0.75], rtol=1e-6)


def test_standard_deviations() -> None:
    found = fuse([FIRST, SECOND], method="z_scores", k=2)
    z = {place: (score - 5) / np.std([9, 5, 1]) for place, score in ((7, 9), (3, 5))}
    y = {place: (score - 0.575) / np.std([0.8, 0.6, 0.5, 0.4]) for place, score in ((7, 0.5), (3, 0.8))}
    assert found.places_QK.tolist() == [[3, 7]]
    np.testing.assert_allclose(found.scores_QK[0], [z[3] + y[3], z[7] + y[7]], rtol=1e-5)


@pytest.mark.parametrize("method", ["rrf", "scores", "z_scores"])
@given(seed=st.integers(0, 1000))
def test_of_one_ranking_or_of_equal_ones_it_is_that_ranking(method: Method, seed: int) -> None:
    scores_QD = np.random.default_rng(seed).permutation(30).reshape(3, 10).astype(np.float32)
    alone = best(scores_QD, 6)
    for rankings in ([alone], [alone, alone], [Ranking.empty(3, 4), alone]):
        assert fuse(rankings, method=method, k=6).places_QK.tolist() == alone.places_QK.tolist()


def test_queries_without_any_document() -> None:
    assert (fuse([Ranking.empty(2, 3), Ranking.empty(2, 4)], k=3).places_QK == -1).all()
