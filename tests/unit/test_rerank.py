"""Reranking: what a model says orders the first documents, and nothing is lost or made up."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from squadron.core.errors import InputError, ResourceError
from squadron.core.run import Stage
from squadron.llm.chat import ModelUnavailable
from squadron.llm.rewards.settings import CrossEncoderReward
from squadron.llm.settings import Rule, ScriptedModel
from squadron.retrieval.listwise import read_order, window_starts
from squadron.retrieval.ranking import Ranking
from squadron.retrieval.rerank import open_reranker, reorder, rerank, rerank_all
from squadron.retrieval.rerankers import AnyReranker, JudgeReranker, LabelTokenReranker, ListwiseReranker
from tests.tiny_bert import make_bert

WORDS = ["find", "the", "weather", "of", "tomorrow", "book", "a", "flight", "to", "rome", "convert", "currency"]


def texts_of(count: int, longest: int = 20, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))) for _ in range(count)]


def ranking_of(rows: Sequence[Sequence[int]], k: int) -> Ranking:
    """These places, the best first, with scores that fall from 10."""
    places_QK = np.full((len(rows), k), -1, np.int64)
    scores_QK = np.full((len(rows), k), -np.inf, np.float32)
    for row, places in enumerate(rows):
        places_QK[row, : len(places)], scores_QK[row, : len(places)] = places, 10 - np.arange(len(places))
    return Ranking(places_QK, scores_QK)


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_bert(tmp_path_factory.mktemp("cross"), WORDS, "BertForSequenceClassification", num_labels=1)


def test_a_cross_encoder_scores_as_sentence_transformers_does(cross_encoder: str) -> None:
    """Also pairs that are longer than the model reads."""
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    queries, texts = texts_of(3, 8, seed=1), texts_of(30, 90)
    rows = [random.Random(seed).sample(range(30), 12) for seed in range(3)]
    before = ranking_of(rows, 14)
    with open_reranker(CrossEncoderReward(path=cross_encoder, batch_size=5)) as reranker:
        found = rerank(queries, texts, before, reranker, depth=9)
    assert before.places_QK.tolist() == ranking_of(rows, 14).places_QK.tolist()
    model = CrossEncoder(cross_encoder, activation_fn=Identity(), device="cpu")
    for row, places in enumerate(rows):
        scores = model.predict([(queries[row], texts[place]) for place in places[:9]])
        order = np.argsort(-scores, kind="stable")
        np.testing.assert_allclose(found.scores_QK[row, :9], scores[order], atol=1e-4)
        assert found.places_QK[row].tolist() == [*np.array(places)[:9][order], *places[9:], -1, -1]
    assert np.ptp(found.scores_QK[:, :9]) > 0.1


@pytest.mark.parametrize(
    ("head", "labels", "words"),
    [("BertForSequenceClassification", 3, "3 outputs"), ("BertModel", 1, r"no weights for classifier\.bias")],
)
def test_what_is_no_cross_encoder_is_refused(tmp_path: Path, head: str, labels: int, words: str) -> None:
    path = make_bert(tmp_path, WORDS, head, num_labels=labels)
    with pytest.raises(ModelUnavailable, match=words):
        open_reranker(CrossEncoderReward(path=path))


def make_causal(folder: Path) -> str:
    """A random Llama whose tokens are characters, `Y` among them."""
    import torch

    from squadron.train.models.builders import FromConfig
    from squadron.train.text.tokenizer import train_tokenizer

    known = train_tokenizer(WORDS, 300, folder)
    model = FromConfig(known, 32, 2, 2, 2, 64, context=128, tie_embeddings=False)
    config = model.config()
    config.initializer_range = 0.3
    torch.manual_seed(0)
    from transformers import LlamaForCausalLM

    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def test_a_label_token_is_read_as_a_logit_and_long_documents_are_cut_at_their_end(tmp_path: Path) -> None:
    """As bge-reranker-gemma is read: the logit of the label behind the prompt, of a text that fits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path, texts = make_causal(tmp_path), [*texts_of(5, 4), "rome " * 60]
    label = LabelTokenReranker(path=path, template="A: {instruction}\nB: {response}\n?", positive="Y", max_length=60)
    with open_reranker(label) as reranker:
        found = rerank(["book"], texts, ranking_of([range(6)], 6), reranker)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)

    def logit(text: str) -> float:
        ids = tokenizer(f"A: book\nB: {text}\n?", add_special_tokens=False)["input_ids"]
        assert len(ids) <= 60
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0, -1, tokenizer.convert_tokens_to_ids("Y")].item()

    fits = max(n for n in range(300) if len(tokenizer(f"A: book\nB: {texts[5][:n]}\n?")["input_ids"]) <= 60)
    expected = {place: logit(text) for place, text in enumerate([*texts[:5], texts[5][:fits]])}
    assert dict(zip(found.places_QK[0].tolist(), found.scores_QK[0].tolist(), strict=True)) == pytest.approx(
        expected, abs=1e-4
    )


ranks = st.integers(1, 6).flatmap(
    lambda k: st.tuples(
        st.lists(st.permutations(range(k)).flatmap(lambda p: st.integers(0, k).map(lambda n: p[:n])), min_size=1),
        st.just(k),
    )
)


@given(ranks, st.integers(0, 7), st.data())
def test_reordering_keeps_every_document_and_scores_fall(
    given_: tuple[list[list[int]], int], depth: int, data: st.DataObject
) -> None:
    rows, k = given_
    numbers = st.floats(-1e3, 1e3, width=16)
    scores = [data.draw(st.lists(numbers, min_size=(n := min(depth, len(row))), max_size=n)) for row in rows]
    before = ranking_of(rows, k)
    found = reorder(before, scores)
    for row, places in enumerate(rows):
        order = sorted(range(len(scores[row])), key=lambda one: -scores[row][one])  # stable
        assert (
            found.places_QK[row].tolist()
            == [places[one] for one in order] + before.places_QK[row, len(order) :].tolist()
        )
        there = found.scores_QK[row, : len(places)]
        assert np.isfinite(there).all() and (np.diff(there) < 0).all()
        assert (found.scores_QK[row, len(places) :] == -np.inf).all()
    assert before.places_QK.tolist() == ranking_of(rows, k).places_QK.tolist()


@given(st.integers(0, 60), st.integers(2, 25), st.data())
def test_windows_cover_all_documents_and_overlap(count: int, window: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(1, window - 1))
    starts = window_starts(count, window, step)
    covered = {place for start in starts for place in range(start, min(start + window, count))}
    assert covered == (set(range(count)) if count > 1 else set())
    assert starts == sorted(starts, reverse=True)
    assert all(later + step >= earlier for earlier, later in itertools.pairwise(starts))


def test_windows_are_those_of_the_paper() -> None:
    assert window_starts(100, 20, 10) == [80, 70, 60, 50, 40, 30, 20, 10, 0]
    assert window_starts(15, 20, 10) == [0] and window_starts(25, 20, 10) == [5, 0]


@given(st.text(), st.integers(1, 8))
def test_any_answer_gives_an_order_of_all(text: str, count: int) -> None:
    assert sorted(read_order(text, count)[0]) == list(range(count))


@given(st.permutations(range(1, 9)), st.sampled_from([" > ", ">", " >\n"]))
def test_an_order_is_read_as_it_is_written(numbers: list[int], between: str) -> None:
    text = f"Document [3] fits best. [1] > [2] is wrong.\n{between.join(f'[{number}]' for number in numbers)}."
    assert read_order(text, 8) == ([number - 1 for number in numbers], True)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("[3] > [1]", [2, 0, 1, 3]),  # two are missed
        ("[3] > [3] > [1] > [2] > [4]", [2, 0, 1, 3]),  # one comes twice
        ("[9] > [4] > [0] > [2] > [1] > [3]", [3, 1, 0, 2]),  # two are none of these
        ("2 > 1 > 3 > 4", [0, 1, 2, 3]),
        ("[2]", [0, 1, 2, 3]),
        ("", [0, 1, 2, 3]),
    ],
)
def test_an_answer_that_is_no_order_is_completed_in_the_old_one(text: str, order: list[int]) -> None:
    assert read_order(text, 4) == (order, False)


def sorter(longest: int) -> ScriptedModel:
    """A model that orders up to so many documents of `x`s, the longest first."""
    rules = []
    for size in range(longest, 1, -1):
        for order in itertools.permutations(range(1, size + 1)):
            longer = "".join(
                rf"(?=.*\[{low}\] (x+)(?!x).*)(?=.*\[{high}\] \{number}x+)"
                for number, (high, low) in enumerate(itertools.pairwise(order), 1)
            )
            rules.append(Rule(pattern=rf"\A(?=.*\[{size}\] x){longer}", reply=" > ".join(f"[{n}]" for n in order)))
    return ScriptedModel(name="sorter", rules=tuple(rules))


SORTER = sorter(4)


@settings(max_examples=50)
@given(st.integers(0, 9).flatmap(lambda n: st.permutations(range(n))), st.integers(2, 4), st.data())
def test_a_model_that_sorts_gives_the_true_order(places: list[int], window: int, data: st.DataObject) -> None:
    """By one pass the best `window - step`, by each further pass as many more; with enough passes all of them."""
    step, passes = data.draw(st.integers(1, window - 1)), data.draw(st.integers(1, 9))
    texts = ["x" * (20 - place) for place in range(9)]
    sorts = ListwiseReranker(model=SORTER, window=window, step=step, passes=passes, prompt="{query}\n{documents}")
    with open_reranker(sorts) as reranker:
        found = rerank(["q"], texts, ranking_of([places], 9), reranker).places_QK[0].tolist()
        assert reranker.repaired == 0
    right = min(len(places), passes * (window - step)) if window < len(places) else len(places)
    assert found[:right] == sorted(places)[:right]
    assert sorted(found[: len(places)]) == sorted(places)


def test_answers_that_are_no_order_are_counted_and_documents_stay() -> None:
    model = ScriptedModel(name="m", rules=(Rule(pattern="good", reply="[2] > [1]"),), otherwise="I cannot tell.")
    before = ranking_of([[0, 1], [1, 0], [0]], 2)
    with open_reranker(ListwiseReranker(model=model)) as reranker:
        found = rerank(["good", "bad", "one"], ["a", "b"], before, reranker)
        assert found.places_QK.tolist() == [[1, 0], [1, 0], [0, -1]]
        assert reranker.repaired == 1


GRADER = ScriptedModel(
    name="grader",
    rules=(Rule(pattern=r"DOC\s*(\d)", reply=r"Score: \1"), Rule(pattern="mumbles", reply="Well, well.")),
)


def grades(texts: Sequence[str]) -> tuple[list[int], int]:
    with open_reranker(JudgeReranker(model=GRADER, rubric="{instruction} DOC {response}", max_words=1)) as reranker:
        places = [*range(len(texts))]
        return rerank(["q"], texts, ranking_of([places], len(places)), reranker).places_QK[
            0
        ].tolist(), reranker.repaired


def test_a_chat_model_grades_one_by_one_and_equal_grades_keep_their_order() -> None:
    assert grades(["3 9", "5", "3", "9 cut"]) == ([3, 1, 0, 2], 0)


def test_a_grade_that_cannot_be_read_leaves_a_document_next_to_its_neighbour() -> None:
    assert grades(["3", "8", "mumbles", "5"]) == ([1, 2, 3, 0], 1)
    assert grades(["mumbles", "8", "9"]) == ([2, 0, 1], 1)


@pytest.mark.parametrize("texts", [["3", "no rule for this"], ["mumbles", "mumbles"]])
def test_a_query_whose_documents_have_no_grade_is_an_error_by_name(texts: list[str]) -> None:
    with pytest.raises(ResourceError, match=r"(?s)1 of 1 queries were not reranked.*query 0"):
        grades(texts)


def test_settings_are_told_apart_and_those_that_make_no_sense_are_refused() -> None:
    read = TypeAdapter[AnyReranker](AnyReranker).validate_python
    model = json.loads(GRADER.model_dump_json())
    assert isinstance(read({"provider": "label_token", "path": "a/b"}), LabelTokenReranker)
    assert isinstance(read({"provider": "judge", "model": model}), JudgeReranker)
    assert read({"provider": "cross_encoder", "path": "a/b"}) == CrossEncoderReward(path="a/b")
    wrong: list[dict[str, Any]] = [
        {"window": 10, "step": 10}, {"window": 1, "step": 1}, {"prompt": "{query}"}, {"passes": 0},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(ValidationError):
            read({"provider": "listwise", "model": model, **options})


def test_queries_of_one_id_are_refused_before_work_starts() -> None:
    judge, stage = JudgeReranker(model=GRADER), cast(Stage, None)
    with pytest.raises(InputError, match="1 ids of queries occur more than once"):
        rerank_all(stage, ["a", "b", "a"], ["q"] * 3, ["t"], ranking_of([[0]] * 3, 1), judge)


def test_published_defaults() -> None:
    """RankGPT: windows of 20, steps of 10, 300 words a passage; bge-reranker-gemma: the logit of Yes, 1,024 tokens."""
    ours = ListwiseReranker(model=GRADER)
    assert (ours.window, ours.step, ours.passes, ours.max_words) == (20, 10, 1, 300)
    gemma = LabelTokenReranker(path="BAAI/bge-reranker-v2-gemma")
    assert (gemma.positive, gemma.negative, gemma.max_length) == ("Yes", None, 1024)
