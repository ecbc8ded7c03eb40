"""What ToolRet computes: who searches what, shared words, macro averages; truly no instruction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from squadron.evaluate.statistics import paired_randomization_test
from squadron.evaluate.summary import macro_estimate
from squadron.methods.toolret.algorithm import macro_p, search_groups, shared_words
from squadron.methods.toolret.config import HybridRetriever, ToolRetConfig, WorldConfig
from squadron.methods.toolret.searching import WORDS_ALONE
from squadron.methods.toolret.synthetic import make_world
from squadron.retrieval.bm25 import Bm25
from squadron.retrieval.documents import Query
from squadron.retrieval.formats import FORMATS, named_format, query_texts

TEXTS = [f"tool number{n} {'even' if n % 2 == 0 else 'odd'} word{n % 5}" for n in range(20)]
ASKED = ["even word3", "odd word1 number7", "nothing known", "word2"]


def groups(sizes: list[tuple[list[int], list[int]]]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.array(some_D), np.array(some_Q)) for some_D, some_Q in sizes]


def index(some_D: np.ndarray) -> Bm25:
    return Bm25([TEXTS[place] for place in some_D])


def test_together_all_tools_are_searched_by_all() -> None:
    found = search_groups(groups([(list(range(20)), list(range(4)))]), index, ASKED, 6)
    whole = Bm25(TEXTS).search(ASKED, 6)
    assert np.array_equal(found.places_QK, whole.places_QK) and np.array_equal(found.scores_QK, whole.scores_QK)


def test_apart_each_category_is_a_benchmark_of_its_own() -> None:
    parts = [([*range(1, 20, 2)], [1, 3]), ([*range(0, 20, 2)], [0, 2])]
    found = search_groups(groups(parts), index, ASKED, 12)
    assert found.places_QK.shape == (4, 12)
    for some_D, some_Q in parts:
        alone = Bm25([TEXTS[n] for n in some_D]).search([ASKED[n] for n in some_Q], 12)
        for row, query in enumerate(some_Q):
            there = alone.places_QK[row][alone.places_QK[row] >= 0]
            listed = found.places_QK[query][found.places_QK[query] >= 0]
            assert listed.tolist() == [some_D[place] for place in there]


def test_shared_words_are_those_of_the_query() -> None:
    texts = {"a": "converts money between currencies", "b": "sends money", "c": "draws"}
    asked = [Query("1", "send the money abroad", {"b": 1}), Query("2", "money, currencies!", {"a": 1, "b": 1}),
             Query("3", "of the", {"c": 1})]  # fmt: skip
    # Words are not stemmed: of send, money and abroad, b has money; a has both of 2's words, b one of them.
    assert shared_words(asked, texts).tolist() == pytest.approx([1 / 3, 0.75, 0])


def test_the_test_of_a_macro_average_weighs_categories_alike() -> None:
    draw = np.random.default_rng(0)
    difference = draw.normal(0.2, 1, 30)
    assert macro_p(difference, ["x"] * 30) == paired_randomization_test(difference.tolist(), [0.0] * 30)
    # A hundred small differences up and three large ones down: of the mean that is up, of the macro average down.
    mixed, kinds = np.array([0.02] * 100 + [-0.9] * 3), ["big"] * 100 + ["small"] * 3
    assert macro_estimate(mixed, kinds).mean < 0 < np.array([0.02] * 100).mean()
    assert macro_p(np.array([0.5] * 12 + [np.nan]), ["x"] * 12 + ["y"]) == pytest.approx(2 / 2**12)
    assert macro_p(np.array([np.nan]), ["x"]) == 1.0


@pytest.mark.parametrize("family", sorted(FORMATS))
def test_without_instruction_nothing_of_it_is_left(family: str) -> None:
    """The official code passes '' where there is none, so most models still read `Instruct: \\nQuery: `."""
    told = [Query("1", "what is 1 + 1?", {"a": 1}, "find tools that add")]
    never, empty = [Query("1", "what is 1 + 1?", {"a": 1})], [Query("1", "what is 1 + 1?", {"a": 1}, "")]
    form = named_format(family)
    without = query_texts(form, told, False)
    assert without == query_texts(form, never, True) == query_texts(form, empty, True)
    assert "nstruct" not in without[0] and "Query:" not in without[0]
    assert "find tools that add" in query_texts(form, told, True)[0]


def test_words_alone_get_the_instruction_before_the_query() -> None:
    query = [Query("1", "add", {}, "find tools")]
    assert query_texts(named_format(WORDS_ALONE), query, True) == ["find tools add"]
    assert query_texts(named_format(WORDS_ALONE), query, False) == ["add"]


def test_the_made_up_world_is_one_and_the_same_and_every_query_has_its_tools() -> None:
    first, second = (list(make_world(WorldConfig(tools=100, queries=50, seed=3))) for _ in range(2))
    assert first == second != list(make_world(WorldConfig(tools=100, queries=50, seed=4)))
    assert sum(len(tools) for _, tools, _ in first) == 100 and sum(len(asked) for *_, asked in first) == 50
    for _, tools, asked in first:
        ids = {tool.id for tool in tools}
        assert len(ids) == len(tools) and all(set(one.labels) <= ids and one.labels for one in asked)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"retrievers": [{"kind": "bm25"}, {"kind": "bm25"}]}, "more than one is called BM25"),
        ({"retrievers": [{"kind": "hybrid"}, {"kind": "bm25"}, {"kind": "dense"}]}, "no retriever before it"),
        ({"retrievers": [{"kind": "bm25"}, {"kind": "dense"}, {"kind": "hybrid", "weights": [1]}]}, "1 weights for 2"),
        ({"rerankers": [{"name": "r", "first": "x", "model": {"provider": "cross_encoder", "path": "m"}}]}, "of x"),
        ({"evaluation": {"measures": ["ndgc"]}}, "ndgc is no measure"),
        ({"evaluation": {"ks": [0]}}, "1 or more"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ToolRetConfig.model_validate(settings)


def test_a_hybrid_takes_twice_the_weight_on_what_is_no_search_by_words() -> None:
    """Unless it has weights of its own, whatever its retrievers are called and however many they are."""
    kinds: list[dict[str, object]] = [
        {"kind": "dense", "name": "a"}, {"kind": "bm25", "name": "b"}, {"kind": "dense", "name": "c"},
        {"kind": "hybrid", "of": ["a", "b", "c"]},
        {"kind": "hybrid", "name": "own", "of": ["b", "a"], "weights": [3, 1]},
    ]  # fmt: skip
    config = ToolRetConfig.model_validate({"retrievers": kinds})
    hybrids = [one for one in config.retrievers if isinstance(one, HybridRetriever)]
    assert [config.weighted(one).weights for one in hybrids] == [(2, 1, 2), (3, 1)]


def test_late_interaction_with_some_tools_is_that_with_all_but_for_the_others(tmp_path: Path) -> None:
    from squadron.core.folder import Folder
    from squadron.methods.toolret.searching import SomeTokens
    from squadron.retrieval.late import Late, LateConfig, open_late_encoder
    from squadron.retrieval.token_vectors import TokenVectors, write_part
    from tests.tiny_bert import make_bert

    words = sorted({word for text in TEXTS for word in text.split()})
    with open_late_encoder(LateConfig(path=make_bert(tmp_path / "model", words))) as encoder:
        write_part(Folder(str(tmp_path)), "part", encoder.documents(TEXTS))
        vectors = TokenVectors(Folder(str(tmp_path)), ["part"])
        some = [3, 4, 11, 17]
        whole = Late(encoder, vectors).search(ASKED, len(TEXTS))
        found = SomeTokens(encoder, vectors, np.array(some)).search(ASKED, 3)
    for places, row in zip(whole.places_QK.tolist(), found.places_QK.tolist(), strict=True):
        assert [some[place] for place in row] == [place for place in places if place in some][:3]
