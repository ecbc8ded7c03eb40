"""Metrics of translations: their speed over workers, and how well they agree with experts.

    python tests/bench/bench_translation.py                  # 100,000 pairs, two workers; some 15 minutes
    python tests/bench/bench_translation.py --pairs 10000 --only speed
    python tests/bench/bench_translation.py --only experts   # learns the weights of the embedding metric anew

Speed: the same pairs of Swiss law through BLEU, chrF and TER by two workers with `measure`, which writes every
segment's statistics to disk, and by a plain loop in one process, one after the other in the same run. Bar: 1.8 times.

Experts: WMT23 from English to German. BLEU and chrF computed here are those recorded, and the embedding metric's tau-b
per source is above chrF's: on the documents that its weights did not learn from, and cross-fitted.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from squadron.core.cluster import connect
from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.evaluate.translation.agreement import kendall_by_source, pairs_of_systems
from squadron.evaluate.translation.embedding import WEIGHTS, EmbeddingScore, learn_weights, learns_from
from squadron.evaluate.translation.measuring import measure
from squadron.evaluate.translation.metrics import open_metric
from squadron.evaluate.translation.segments import Segment
from squadron.evaluate.translation.settings import BleuMetric, ChrfMetric, EmbeddingMetric, TerMetric

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "swiltra"
BAR, WORKERS, LONGEST = 1.8, 2, 20
METRICS = (BleuMetric(), ChrfMetric(), TerMetric())


def read_rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def law_pairs(count: int) -> list[Segment]:
    """Clauses of 20 words at most: their words with one in ten dropped and two parts changed about."""
    texts = [text.split() for row in read_rows("swiss_law_de_fr_it.jsonl.gz") for text in (row["de"], row["fr"])]
    draw, found = np.random.default_rng(0), []
    for number in range(count):
        words = texts[number % len(texts)]
        start = int(draw.integers(max(len(words) - LONGEST, 0) + 1))
        words = words[start : start + LONGEST]
        said = [word for word in words if draw.random() > 0.1]
        cut = int(draw.integers(max(len(said), 1)))
        found.append(Segment(str(number), "", " ".join(said[cut:] + said[:cut]), " ".join(words), "it", "de"))
    return found


def over_workers(segments: list[Segment]) -> tuple[list[np.ndarray], float]:
    with tempfile.TemporaryDirectory() as scratch:
        run = Run("bench", Config(), Folder(scratch), Profile(name="auto"), track=())
        stage = Stage(run, "measure", "", {}, run.folder / "stages" / "measure-0")
        stage.begin()
        started = time.perf_counter()
        found = [measure(stage, segments, settings).statistics_NK for settings in METRICS]
        return found, time.perf_counter() - started


def plain_loop(segments: list[Segment]) -> tuple[list[np.ndarray], float]:
    started = time.perf_counter()
    found = [np.concatenate([open_metric(settings).statistics([one]) for one in segments]) for settings in METRICS]
    return found, time.perf_counter() - started


def bench_speed(pairs: int) -> bool:
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own default lets workers starve on a busy machine
    connect(cpus=WORKERS)
    segments = law_pairs(pairs)
    over_workers(segments[:1000])  # workers start and import
    plain_loop(segments[:200])
    ours, seconds = over_workers(segments)
    theirs, alone = plain_loop(segments)
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))
    print(f"\n{pairs:,} pairs through BLEU, chrF and TER, load {os.getloadavg()[0]:.1f} at the end")
    print(f"{WORKERS} workers {seconds:.1f} s, a plain loop {alone:.1f} s, equal statistics")
    print(f"{alone / seconds:.2f} times as fast; bar {BAR}: {'met' if alone / seconds >= BAR else 'missed'}")
    return alone / seconds >= BAR


def bench_experts() -> bool:
    rows = read_rows("wmt23_en-de_mqm.jsonl.gz")
    systems = sorted(set(rows[0]["systems"]) - {"refA"})
    segments = [Segment(str(row["segment"]), row["source"], row["systems"][name]["text"], row["reference"], "en", "de")
                for name in systems for row in rows]  # fmt: skip
    human_SN = np.array([[row["systems"][name]["mqm"] for row in rows] for name in systems], float)
    masked_N = np.array(["@user" in row["reference"] for row in rows])  # a name that was masked after scoring
    equal = True
    for settings, recorded in zip(METRICS[:2], ("BLEU", "chrF"), strict=True):
        metric = open_metric(settings)
        ours_SN = metric.scores(metric.statistics(segments)).reshape(human_SN.shape)
        theirs_SN = np.array([[row["systems"][name]["metrics"][recorded] for row in rows] for name in systems])
        apart = np.abs(ours_SN - theirs_SN)[:, ~masked_N].max()
        equal &= bool(apart < 1e-5)
        print(f"{recorded} {describe(ours_SN, human_SN)}; {apart:.0e} from the recorded at most, "
              f"without {masked_N.sum()} source with a masked name")  # fmt: skip
    chrf_SN, documents = ours_SN, [str(row["document"]) for row in rows]
    faults_SNF = EmbeddingScore(EmbeddingMetric()).faults(segments).reshape(*human_SN.shape, -1)
    learned_N = np.array([learns_from(one) for one in documents])
    weights = [learn_weights(faults_SNF[:, half], human_SN[:, half]) for half in (learned_N, ~learned_N)]
    print(f"weights learned anew are within {np.abs(weights[0] - np.array(WEIGHTS)).max():.0e} of those shipped")
    crossed_SN = -np.where(learned_N, faults_SNF @ weights[1], faults_SNF @ weights[0])
    shipped_SN = -faults_SNF @ np.array(WEIGHTS)
    above = True
    for name, values_SN, some_N in (("on the half not learned from", shipped_SN, ~learned_N),
                                    ("cross-fitted over all", crossed_SN, np.ones(len(rows), bool))):  # fmt: skip
        print(f"embedding {name}: {describe(values_SN[:, some_N], human_SN[:, some_N])}; "
              f"chrF there: {describe(chrf_SN[:, some_N], human_SN[:, some_N])}")  # fmt: skip
        gap_N = kendall_by_source(values_SN, human_SN) - kendall_by_source(chrf_SN, human_SN)
        mean, low, high = by_document(
            gap_N[some_N], [one for one, is_in in zip(documents, some_N, strict=True) if is_in]
        )
        print(f"  above chrF by {mean:.4f}, 95% interval over documents {low:.4f} to {high:.4f}")
        above &= mean > 0
    return equal and above


def describe(values_SN: np.ndarray, human_SN: np.ndarray) -> str:
    right, pairs = pairs_of_systems(values_SN, human_SN)
    return f"tau-b per source {np.nanmean(kendall_by_source(values_SN, human_SN)):.4f}, pairs {right}/{pairs}"


def by_document(gap_N: np.ndarray, documents_N: np.ndarray) -> tuple[float, float, float]:
    """The mean gap and its 95% interval by bootstrap over documents."""
    known_N = np.isfinite(gap_N)
    _, place_N = np.unique(documents_N, return_inverse=True)
    sums_D, counts_D = np.bincount(place_N[known_N], gap_N[known_N]), np.bincount(place_N[known_N])
    picks_RD = np.random.default_rng(0).integers(len(sums_D), size=(5000, len(sums_D)))
    low, high = np.quantile(sums_D[picks_RD].sum(1) / counts_D[picks_RD].sum(1), [0.025, 0.975])
    return float(gap_N[known_N].mean()), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--only", choices=["speed", "experts"])
    options = parser.parse_args()
    met = [
        *([bench_experts()] if options.only != "speed" else []),
        *([bench_speed(options.pairs)] if options.only != "experts" else []),
    ]
    sys.exit(not all(met))


if __name__ == "__main__":
    main()
