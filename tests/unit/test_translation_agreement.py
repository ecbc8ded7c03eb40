"""Metrics of translations held against people, and systems ranked: against plain loops, scipy, sacrebleu and the
recorded scores of WMT23."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Sequence

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sacrebleu.significance import PairedTest
from scipy import stats

from squadron.core.errors import InputError
from squadron.evaluate.translation.agreement import agreement, kendall_by_source, pairs_of_systems, pairwise_accuracy
from squadron.evaluate.translation.segments import Segment
from squadron.evaluate.translation.systems import Ranked, rank_systems
from tests.conftest import REAL_DATA

WMT23 = REAL_DATA / "swiltra" / "wmt23_en-de_mqm.jsonl.gz"
RECORDED = {
    "BLEU": (0.231, 0.864),
    "chrF": (0.241, 0.818),
    "BERTscore": (0.263, 0.894),
    "COMET": (0.366, 0.970),
    "XCOMET-Ensemble": (0.380, 0.939),
    "GEMBA-MQM": (0.399, 1.000),
}
SCORES = arrays(float, (4, 6), elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, np.nan]))


class Mean:
    """A metric that is a mean of scores."""

    name = "mean"
    needs_reference = False

    def __init__(self, higher_is_better: bool = True) -> None:
        self.higher_is_better = higher_is_better

    def statistics(self, segments: Sequence[Segment]) -> np.ndarray:
        return np.array([[len(one.translation), 1.0] for one in segments])

    def scores(self, statistics_NK: np.ndarray) -> np.ndarray:
        return self.corpus(statistics_NK)

    def corpus(self, sums_RK: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            mean: np.ndarray = sums_RK[:, 0] / sums_RK[:, 1]
        return mean


class SacreBleu(Mean):
    """Corpus BLEU from the statistics that sacrebleu itself extracts and sums."""

    name = "bleu"

    def __init__(self) -> None:
        super().__init__()
        self.bleu = sacrebleu.BLEU()

    def corpus(self, sums_RK: np.ndarray) -> np.ndarray:
        return np.array([self.bleu._compute_score_from_stats([int(x) for x in row]).score for row in sums_RK])


def with_counts(scores: np.ndarray) -> np.ndarray:
    return np.stack([scores, np.ones(len(scores))], axis=1)


@pytest.mark.skipif(not WMT23.exists(), reason="the recorded scores are not here: shared/data/swiltra")
@pytest.mark.parametrize("metric", RECORDED)
def test_recorded_scores_of_wmt23(metric: str) -> None:
    with gzip.open(WMT23, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line)["systems"] for line in stream]
    systems = sorted(set(rows[0]) - {"refA"})
    human = np.array([[row[name]["mqm"] for row in rows] for name in systems])
    found = agreement(np.array([[row[name]["metrics"][metric] for row in rows] for name in systems]), human)
    assert (len(systems), len(rows), found.pairs) == (12, 460, 66)
    assert (round(found.kendall_by_source, 3), round(found.pairs_right, 3)) == RECORDED[metric]


@settings(max_examples=60, deadline=None)
@given(SCORES, SCORES)
def test_agreement_is_scipys_and_that_of_plain_loops(metric: np.ndarray, human: np.ndarray) -> None:
    found = agreement(metric, human)
    known = ~(np.isnan(metric) | np.isnan(human))
    varies = len(set(metric[known])) > 1 and len(set(human[known])) > 1
    for mine, theirs in (
        (found.pearson, stats.pearsonr), (found.spearman, stats.spearmanr), (found.kendall, stats.kendalltau)
    ):  # fmt: skip
        if varies:
            assert mine == pytest.approx(theirs(metric[known], human[known]).statistic, nan_ok=True)
        else:
            assert np.isnan(mine)
    taus = [tau_b(metric[known[:, n], n], human[known[:, n], n]) for n in range(metric.shape[1])]
    assert kendall_by_source(metric, human) == pytest.approx(taus, nan_ok=True)
    defined = [tau for tau in taus if not np.isnan(tau)]
    assert found.sources == len(defined)
    assert found.kendall_by_source == pytest.approx(np.mean(defined) if defined else np.nan, nan_ok=True)
    accuracies = {epsilon: plain_accuracy(metric, human, epsilon) for epsilon in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)}
    for epsilon, accuracy in accuracies.items():
        assert pairwise_accuracy(metric, human, epsilon)[0] == pytest.approx(accuracy, nan_ok=True)
    assert found.accuracy == pytest.approx(max(accuracies.values()), nan_ok=True)  # these are all gaps that there are
    if not np.isnan(found.accuracy):
        assert found.epsilon == next(e for e, a in accuracies.items() if a >= found.accuracy - 1e-12)


def test_accuracy_of_a_worked_example() -> None:
    """People: a = b > c. The metric puts a .1 above b: a tie only where .1 counts as one, as it does at best."""
    metric, human = np.array([[0.9], [0.8], [0.2]]), np.array([[1.0], [1.0], [0.0]])
    assert pairwise_accuracy(metric, human, 0.0) == (pytest.approx(2 / 3), 0.0)
    assert pairwise_accuracy(metric, human) == (pytest.approx(1.0), pytest.approx(0.1))
    assert pairwise_accuracy(metric, human, 1.0) == (pytest.approx(1 / 3), 1.0)


def test_agreement_of_nothing() -> None:
    nothing = agreement(np.full((2, 3), np.nan), np.ones((2, 3)))
    assert (nothing.sources, nothing.pairs) == (0, 0)
    assert np.isnan([nothing.pearson, nothing.kendall_by_source, nothing.accuracy, nothing.pairs_right]).all()
    assert pairs_of_systems(np.array([[1.0], [2.0], [np.nan]]), np.array([[3.0], [4.0], [5.0]])) == (1, 1)
    with pytest.raises(ValueError, match="shape"):
        agreement(np.ones((2, 3)), np.ones((3, 2)))


def test_equal_systems_differ_significantly_in_3_to_7_of_100() -> None:
    draw = np.random.default_rng(0)
    false = 0
    for comparison in range(1000):
        hard = draw.normal(size=60)  # what segments have in common
        systems = {name: with_counts(hard + draw.normal(size=60)) for name in ("a", "b")}
        p = rank_systems(systems, Mean(), resamples=199, seed=comparison)[0].p
        assert p is not None
        false += p <= 0.05
    assert 30 <= false <= 70


def test_p_values_and_intervals_are_sacrebleus_paired_tests() -> None:
    draw = np.random.default_rng(0)
    words = "das Gericht hat die Klage der Firma gegen den Kanton am Montag abgewiesen"
    references = [" ".join(draw.permutation(words.split(" "))) for _ in range(80)]
    spoilt = {name: [spoil(text, share, draw) for text in references] for name, share in (("a", 0.2), ("b", 0.22))}
    metric = SacreBleu()
    statistics = {name: np.array(metric.bleu._extract_corpus_statistics(texts, [references]))
                  for name, texts in spoilt.items()}  # fmt: skip
    _, theirs = PairedTest(
        list(spoilt.items()), {"BLEU": sacrebleu.BLEU()}, [references], "ar", n_samples=2000, n_ar_confidence=2000
    )()
    first, second = sorted(rank_systems(statistics, metric, resamples=2000), key=lambda one: one.system)
    p = first.p if first.p is not None else second.p
    assert 0.02 < theirs["BLEU"][1].p_value < 0.98
    assert p == pytest.approx(theirs["BLEU"][1].p_value, abs=0.04)
    for mine, expected in zip((first, second), theirs["BLEU"], strict=True):
        assert mine.score == pytest.approx(expected.score)
        assert (mine.high - mine.low) / 2 == pytest.approx(expected.ci, rel=0.1)


def test_order_of_systems_does_not_matter_and_clusters() -> None:
    draw = np.random.default_rng(1)
    quality = {"best": 1.0, "as good": 1.0, "middle": 0.5, "as middling": 0.5, "last": -1.0}
    hard = draw.normal(size=400)
    systems = {name: with_counts(mean + hard + 0.5 * draw.normal(size=400)) for name, mean in quality.items()}
    ranked = rank_systems(systems, Mean())
    for names in itertools.islice(itertools.permutations(systems), 0, 120, 40):
        assert rank_systems({name: systems[name] for name in names}, Mean()) == ranked
    assert [one.cluster for one in ranked] == [1, 1, 2, 2, 3]
    assert {one.system for one in ranked[:2]} == {"best", "as good"}
    assert all(one.low < one.score < one.high for one in ranked)
    assert ranked[-1].p is None
    turned = rank_systems({name: one * [-1, 1] for name, one in systems.items()}, Mean(higher_is_better=False))
    assert [(one.system, -one.score, one.cluster, one.p) for one in turned] == [
        (one.system, pytest.approx(one.score), one.cluster, one.p) for one in ranked
    ]


def test_a_cluster_begins_below_all_of_the_one_above() -> None:
    """Three systems on a stair: the last is significantly worse than the first, not than the second: one cluster."""
    noise = np.random.default_rng(3).normal(size=(3, 1500))
    noise = (noise - noise.mean(1, keepdims=True)) / noise.std(1, keepdims=True)
    systems = {str(step): with_counts(noise[step] - 0.055 * step) for step in range(3)}  # 1.5 standard errors each
    ranked = rank_systems(systems, Mean())
    first_to_last = rank_systems({one.system: systems[one.system] for one in (ranked[0], ranked[2])}, Mean())[0].p
    assert first_to_last is not None and first_to_last < 0.05
    assert ranked[1].p is not None and ranked[1].p >= 0.05
    assert [one.cluster for one in ranked] == [1, 1, 1]


def test_what_cannot_be_ranked() -> None:
    with pytest.raises(InputError, match="a 3, b 2"):
        rank_systems({"a": np.ones((3, 2)), "b": np.ones((2, 2))}, Mean())
    with pytest.raises(InputError, match="no system"):
        rank_systems({}, Mean())
    unscored = rank_systems({"a": np.zeros((3, 2)), "b": np.ones((3, 2))}, Mean())
    assert [one.system for one in unscored] == ["b", "a"] and np.isnan(unscored[1].score)
    assert rank_systems({"only": np.ones((3, 2))}, Mean()) == (Ranked("only", 1.0, 1.0, 1.0, 1, None),)


def spoil(text: str, share: float, draw: np.random.Generator) -> str:
    """Some words of a text replaced."""
    return " ".join("sic" if draw.random() < share else word for word in text.split())


def tau_b(metric: np.ndarray, human: np.ndarray) -> float:
    """By its definition, over all pairs."""
    pairs = list(itertools.combinations(zip(metric, human, strict=True), 2))
    signs = [(np.sign(m - n), np.sign(h - g)) for (m, h), (n, g) in pairs]
    both = np.sqrt(sum(m != 0 for m, _ in signs)) * np.sqrt(sum(h != 0 for _, h in signs))
    return sum(m * h for m, h in signs) / both if both else np.nan


def plain_accuracy(metric: np.ndarray, human: np.ndarray, epsilon: float) -> float:
    """By its definition, source by source."""
    shares = []
    for metric_S, human_S in zip(metric.T, human.T, strict=True):
        known = [(m, h) for m, h in zip(metric_S, human_S, strict=True) if not np.isnan(m + h)]
        right = []
        for (m, h), (n, g) in itertools.combinations(known, 2):
            tied = abs(m - n) <= epsilon
            right.append(tied if h == g else not tied and (m > n) == (h > g))
        if right:
            shares.append(np.mean(right))
    return float(np.mean(shares)) if shares else np.nan
