"""Rewriters that are trained: what a person took up becomes tags, tags become the rewrite, and a tagger learns."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.methods.rewrite.ambiguity import ambiguity_row, kind_by_rule
from squadron.methods.rewrite.config import Seq2SeqRewriter as Seq2SeqSettings
from squadron.methods.rewrite.config import TaggerRewriter
from squadron.methods.rewrite.learning import (
    AmbiguityConfig,
    Seq2SeqConfig,
    TaggerConfig,
    ambiguity_rows,
    as_query,
    is_same,
    tagger_rows,
    train_seq2seq,
    train_tagger,
    usable,
)
from squadron.methods.rewrite.records import Pair, Turn
from squadron.methods.rewrite.rewriters import open_rewriter
from squadron.methods.rewrite.seq2seq import Seq2SeqRewriter, conversation_text
from squadron.methods.rewrite.terms import TAGS, Thresholds, align, compose, find_phrases, lay_out, split
from squadron.train.checkpoints.checkpoint import Reader
from squadron.train.models.seq2seq import Seq2Seq, export_seq2seq, store_small_seq2seq
from squadron.train.objectives.layout import IGNORED
from squadron.train.objectives.seq2seq import SequenceToSequence
from squadron.train.spec import OptimizerConfig, TrainSpec
from tests.parity.test_train_losses import assert_same, value_and_gradients
from tests.tiny_bert import make_bert, make_tokenizer
from tests.train.store import write_checkpoint

ZAPPA = (Pair("Frank Zappa", "Disbandment"), Pair("What group disbanded?", "Zappa and the Mothers of Invention"))


def a_turn(query: str, reference: str, history: tuple[Pair, ...] = ZAPPA) -> Turn:
    return Turn("c", len(history) + 1, history, query, reference)


def certain(tags: list[str]) -> np.ndarray:
    """Probabilities of 1 for these tags."""
    return np.eye(len(TAGS))[[TAGS.index(tag) for tag in tags]]


def carried_out(turn: Turn, phrases: int = 3) -> str:
    return compose(lay_out(turn), certain(align(turn)), Thresholds(phrases=phrases), turn.query)


@pytest.mark.parametrize(
    ("query", "rewrite"),
    [
        ("Why did he break up?", "Why did Frank Zappa break up?"),
        ("What did his group play?", "What did Frank Zappa's group play?"),
        ("Why did they break up?", "Why did Zappa and the Mothers of Invention break up?"),
        ("Did he like them?", "Did Frank Zappa like them?"),
        ("What was the album?", "What was the Frank Zappa album?"),
        ("What is jazz?", "What is jazz?"),
    ],
)
def test_the_tags_of_a_rewrite_give_that_rewrite(query: str, rewrite: str) -> None:
    assert carried_out(a_turn(query, rewrite)) == rewrite


def test_what_was_never_said_is_not_taken_and_function_words_alone_are_not() -> None:
    for rewrite in ("Why did the Beatles break up?", "Why did the of and break up?"):
        assert set(align(a_turn("Why did they break up?", rewrite))) == {"leave"}
    assert carried_out(a_turn("Where?", "Where in Disbandment?", ZAPPA[:1])) == "Where Disbandment?"


WORDS = st.text(st.sampled_from(string.ascii_letters + " ?.'|é"), max_size=30)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=3), WORDS, WORDS, st.randoms(use_true_random=False))
def test_any_tags_make_a_text_of_words_that_were_said(
    history: list[tuple[str, str]], query: str, rewrite: str, draw: object
) -> None:
    """Whatever a model says: and where it takes nothing, the query stays exactly as it is."""
    turn = a_turn(query, rewrite, tuple(Pair(*pair) for pair in history))
    laid = lay_out(turn)
    assert len(align(turn)) == len(laid.words)
    probabilities = np.array([[draw.random() for _ in TAGS] for _ in laid.words]).reshape(-1, len(TAGS))  # type: ignore[attr-defined]
    made = compose(laid, probabilities, Thresholds(), query)
    assert set("".join(split(made))) <= set("".join([*laid.words, *split(query), "'s"]))
    probabilities[: laid.query] = np.nan
    assert compose(laid, probabilities, Thresholds(), query) == query


def test_phrases_come_by_likelihood_each_once_and_no_more_than_asked_for() -> None:
    laid = lay_out(a_turn("What happened?", ""))
    probabilities = np.zeros((len(laid.words), len(TAGS)))
    for word, likely in (("Frank", 0.6), ("Zappa", 0.7), ("Mothers", 0.9), ("Disbandment", 0.8)):
        for place, other in enumerate(laid.words):
            if other == word:
                probabilities[place, TAGS.index("take")] = likely
    found = [" ".join(one) for one in find_phrases(laid, probabilities, Thresholds(phrases=9))]
    assert found == ["Mothers", "Frank Zappa"]  # the earlier response, Disbandment, is not looked at
    assert len(find_phrases(laid, probabilities, Thresholds(phrases=1))) == 1


def test_rewrites_are_shown_as_queries_that_need_nothing() -> None:
    turns = [a_turn("Why did he break up?", "Why did Frank Zappa break up?"), a_turn("What is jazz?", "what is jazz")]
    assert [is_same(turn) for turn in turns] == [False, True] and is_same(as_query(turns[0]))
    rows = list(ambiguity_rows(turns, AmbiguityConfig()))
    assert [row["label"] for row in rows] == ["needs", "stands", "stands"]
    every = list(tagger_rows(turns, TaggerConfig(standing=1.0, headless=1.0)))
    assert [set(row["tags"]) for row in every[1::2]] == [{"leave"}, {"leave"}]
    assert "Disbandment" not in every[0]["words"]
    assert ambiguity_row(turns[0])["second"] == "points: Why did he break up?"
    assert kind_by_rule(a_turn("How does photosynthesis of algae work?", "")) == "whole"
    with pytest.raises(InputError, match="no turn has a history and a rewrite"):
        usable([a_turn("Who?", "", ())])


def test_the_loss_of_writing_is_the_entropy_of_each_token(tmp_path: Path) -> None:
    """In value and gradients, on a T5 of random weights, which then is written and loaded as it was."""
    folder = tmp_path / "tokenizer"
    make_tokenizer(["why", "did", "zappa"]).save_pretrained(folder)
    stage = a_stage(tmp_path / "run")
    start = store_small_seq2seq(stage, "untrained", str(folder), 16, 1, 0)
    build = Seq2Seq(start.locate(stage.run.folder))
    model, objective = build().eval(), SequenceToSequence(0)
    rows = [{"input_ids": [9, 8, 7], "labels": [12, 5]}, {"input_ids": [20, 21], "labels": [30, 31, 32, 5]}]
    batch = objective.collate(rows)
    logits = model(**batch).logits
    entropy = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED)
    assert objective.weight(batch) == 6
    expected = value_and_gradients(entropy, model)
    model.zero_grad()
    assert_same(value_and_gradients(objective(model, batch)[0], model), expected)
    write_checkpoint(Folder(str(tmp_path / "store")), model)
    with Reader(Folder(str(tmp_path / "store")), 1) as reader:
        export_seq2seq(build, reader, tmp_path / "model")
    turns = [a_turn("Why did he?", ""), a_turn("Who?", "", ())]
    plain, copying = (Seq2SeqRewriter(str(tmp_path / "model"), beams=2, copies=copies) for copies in (0.0, 1e6))
    assert plain.rewrite(turns, batch_size=1) == plain.rewrite(turns) and plain.rewrite(turns)[1] == "Who?"
    tokenizer = make_tokenizer(["why", "did", "zappa"])
    read = set(tokenizer.tokenize(conversation_text(turns[0])))
    assert set(copying.rewrite(turns)[0].split()) <= read


def test_a_tagger_learns_to_take_what_was_named(ray_cluster: object, tmp_path: Path) -> None:
    """A tiny encoder on a dozen conversations, whose every rewrite names the topic in place of a pronoun."""
    topics = ["jazz", "rust", "paris", "chess", "tea", "mars"]
    queries = [("is it old?", "is {} old?"), ("who likes it?", "who likes {}?"), ("is water wet?", "is water wet?")]
    turns = [
        a_turn(query, rewrite.format(topic), (Pair(f"what is {topic}?", ""),))
        for topic in topics
        for query, rewrite in queries
    ]
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    words = ["is", "it", "old", "who", "likes", "water", "wet", "what", *topics]
    encoder = make_bert(tmp_path / "bert", words, **off)
    training = TrainSpec(
        steps=60, batch_size=18, micro_batch_size=18, optimizer=OptimizerConfig(learning_rate=2e-3)
    )  # fmt: skip
    config = TaggerConfig(path=encoder, max_length=32, headless=0.0, training=training)  # type: ignore[arg-type]
    stage = a_stage(tmp_path)
    trained = train_tagger(stage, turns, turns, config)
    tagger = trained.open(stage.run.folder)
    assert [made.lower() for made in tagger.rewrite(turns)] == [turn.reference for turn in turns]
    assert tagger.rewrite([a_turn("is it old?", "", ())]) == ["is it old?"]
    named = {"take": trained.take, "put": trained.put, "phrases": trained.phrases}
    settings = TaggerRewriter(path=trained.model.locate(stage.run.folder), **named)  # type: ignore[arg-type]
    assert open_rewriter(settings, stage.run.folder).rewrite(turns) == tagger.rewrite(turns)


def test_a_small_model_is_trained_to_write_and_its_bias_is_chosen(ray_cluster: object, tmp_path: Path) -> None:
    turns = [a_turn("Why did he break up?", "Why did Frank Zappa break up?")] * 4
    training = TrainSpec(steps=3, batch_size=4, micro_batch_size=4, optimizer=OptimizerConfig(learning_rate=1e-2))
    config = Seq2SeqConfig(width=16, layers=1, beams=1, copies=(0.0, 1.0), training=training)
    stage = a_stage(tmp_path)
    trained = train_seq2seq(stage, turns, turns[:1], config)
    assert trained.copies in config.copies
    settings = Seq2SeqSettings(
        path=trained.model.locate(stage.run.folder), max_length=config.max_length, beams=1, copies=trained.copies
    )  # type: ignore[call-arg]
    assert open_rewriter(settings, stage.run.folder).rewrite(turns) == trained.open(stage.run.folder).rewrite(turns)


def a_stage(folder: Path) -> Stage:
    run = Run("learning", Config(), Folder(folder), Profile(name="auto"), track=())
    stage = Stage(run, "train", "", {}, run.folder / "stages" / "train-0")
    stage.begin()
    return stage
