"""Rewriters that need no large model, trained on CANARD: on conversations of it that were kept out, on CAsT and MTRAG.

    python tests/bench/bench_rewrite.py

Bars: the tagger closes half of the gap in cosine between the raw query and a person's rewrite; on MTRAG, whose turns
name the passages that answer them, no rewriter has a lower nDCG@5 by BM25 than the last turn, and 95% of the turns that
a person left as they are pass untouched. Whole conversations of CANARD are kept out: a tenth to choose thresholds by, a
fifth to measure on. Intervals are of 2,000 resamples of conversations. The run folder stays: given again after any end,
it goes on where it was.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.core.profile import Profile, WorkerResources
from squadron.core.run import Run, Stage
from squadron.data.records import read_records
from squadron.evaluate.rankings import score_rankings
from squadron.llm.embed import PackagedEmbedder
from squadron.methods.rewrite.config import LogsConfig
from squadron.methods.rewrite.datasets import read_conversations
from squadron.methods.rewrite.learning import (
    AmbiguityConfig,
    Seq2SeqConfig,
    TaggerConfig,
    TrainedAmbiguity,
    TrainedSeq2Seq,
    TrainedTagger,
    is_same,
    train_ambiguity,
    train_seq2seq,
    train_tagger,
)
from squadron.methods.rewrite.measures import cosines
from squadron.methods.rewrite.records import Turn, same_text, turns_of
from squadron.retrieval.bm25 import Bm25
from squadron.retrieval.documents import Query

ROOT = Path(__file__).resolve().parents[2]
DATA, RUNS = ROOT.parent / "shared" / "data" / "rewrite", ROOT / "runs" / "bench" / "rewrite"
SAMPLES = 2000
MODELS = ("tagger", "ambiguity", "seq2seq")


def logs(name: str, file: str, kind: str, resolved: str | None = None) -> list[Turn]:
    """The turns of a file that have a rewrite, by conversation in a fixed order of chance."""
    settings = {"name": name, "path": str(DATA / file), "format": kind, "resolved": resolved and str(DATA / resolved)}
    conversations = list(read_conversations(LogsConfig.model_validate(settings)))
    random.Random(0).shuffle(conversations)
    return [turn for turn in turns_of(conversations) if turn.reference]


def split(turns: Sequence[Turn]) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """Turns to learn from, to choose by and to measure on, by whole conversations: 70%, 10%, 20%."""
    names = list(dict.fromkeys(turn.conversation for turn in turns))
    part = {name: int(10 * place / len(names)) for place, name in enumerate(names)}
    ranges = (range(7), range(7, 8), range(8, 10))
    learn, choose, measure = ([turn for turn in turns if part[turn.conversation] in some] for some in ranges)
    return learn, choose, measure


def train(name: str) -> tuple[Folder, Any]:
    """One of the models, trained or found in its run folder."""
    learn, choose, _ = split(logs("canard", "canard_dev.json.gz", "canard"))

    def learn_tagger(stage: Stage, config: TaggerConfig) -> TrainedTagger:
        return train_tagger(stage, learn, choose, config)

    def learn_ambiguity(stage: Stage, config: AmbiguityConfig) -> TrainedAmbiguity:
        return train_ambiguity(stage, learn, choose, config)

    def learn_seq2seq(stage: Stage, config: Seq2SeqConfig) -> TrainedSeq2Seq:
        return train_seq2seq(stage, learn, choose, config)

    functions: dict[str, tuple[Any, Config]] = {
        "tagger": (learn_tagger, TaggerConfig()),
        "ambiguity": (learn_ambiguity, AmbiguityConfig()),
        "seq2seq": (learn_seq2seq, Seq2SeqConfig()),
    }
    profile = Profile(name="auto", trainer=WorkerResources(cpus=1))
    run = Run("bench", Config(), Folder(RUNS / name), profile, track=())
    run.open()
    function, config = functions[name]
    model = run.stage(function, config)
    run.close()
    return run.folder, model


def rewrites(turns: Sequence[Turn]) -> dict[str, list[str]]:
    """What each rewriter makes of turns, alone and behind the classifier."""
    folder, ambiguity = train("ambiguity")
    needed = ambiguity.open(folder).need(turns)
    raw = [turn.query for turn in turns]
    made = {"raw query": raw, "person": [turn.reference or "" for turn in turns]}
    for name in ("tagger", "seq2seq"):
        folder, model = train(name)
        made[name] = model.open(folder).rewrite(turns)
        kept = zip(made[name], raw, needed, strict=True)
        made[f"{name} behind classifier"] = [new if asked else old for new, old, asked in kept]
    return made


def interval(turns: Sequence[Turn], values_N: np.ndarray) -> str:
    """The mean over turns, with its 95% interval."""
    names = list(dict.fromkeys(turn.conversation for turn in turns))
    place = {name: number for number, name in enumerate(names)}
    sums_C, counts_C = np.zeros(len(names)), np.zeros(len(names))
    for turn, value in zip(turns, values_N, strict=True):
        sums_C[place[turn.conversation]] += value
        counts_C[place[turn.conversation]] += 1
    drawn_SC = np.random.default_rng(0).integers(0, len(names), (SAMPLES, len(names)))
    low, high = np.quantile(sums_C[drawn_SC].sum(1) / counts_C[drawn_SC].sum(1), (0.025, 0.975))
    return f"{values_N.mean():.3f} [{low:.3f}, {high:.3f}]"


def compare(name: str, turns: Sequence[Turn]) -> None:
    """Print cosine, the share of the gap that is closed, and how many of the turns that need nothing pass."""
    made, people = rewrites(turns), [turn.reference or "" for turn in turns]
    values = {rewriter: cosines(texts, people, PackagedEmbedder()) for rewriter, texts in made.items()}
    same_N = np.array([is_same(turn) for turn in turns])
    print(f"\n{name}, {len(turns)} turns, {int(same_N.sum())} left as they are by a person")
    raw = values["raw query"].mean()
    for rewriter, found_N in values.items():
        kept = [same_text(text, turn.query) for text, turn in zip(made[rewriter], turns, strict=True)]
        closed = (found_N.mean() - raw) / (1 - raw)
        untouched = np.array(kept)[same_N].mean() if same_N.any() else np.nan
        print(f"  {rewriter:28} cosine {interval(turns, found_N)}  gap {closed:5.1%}  untouched {untouched:.1%}")


def find_passages(turns: Sequence[Turn]) -> None:
    """Print nDCG@5 of MTRAG's passages by BM25, and how many of the turns that need nothing pass."""
    rows = [record.values for record in read_records(str(DATA / "mtrag_passages.jsonl.gz"))]
    index, ids = Bm25([row["text"] for row in rows]), [row["id"] for row in rows]
    same_N = np.array([is_same(turn) for turn in turns])
    made = rewrites(turns)
    made["all questions"] = [" ".join([*(pair.query for pair in turn.history), turn.query]) for turn in turns]
    print(f"\nMTRAG, {len(turns)} turns, {int(same_N.sum())} left as they are by a person")
    scores = {}
    for rewriter, texts in made.items():
        queries = [
            Query(str(place), text, dict.fromkeys(turn.passages, 1))
            for place, (text, turn) in enumerate(zip(texts, turns, strict=True))
        ]
        scores[rewriter] = score_rankings(queries, ids, index.search(texts, 5), ("ndcg@5",))["ndcg@5"]
        kept = [same_text(text, turn.query) for text, turn in zip(texts, turns, strict=True)]
        more = interval(turns, scores[rewriter] - scores["raw query"])
        untouched = interval([t for t, same in zip(turns, same_N, strict=True) if same], np.array(kept)[same_N] * 1.0)
        print(f"  {rewriter:28} nDCG@5 {interval(turns, scores[rewriter])}  against raw {more}  untouched {untouched}")


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        train(name)
    if not sys.argv[1:]:
        compare("CANARD, kept out", split(logs("canard", "canard_dev.json.gz", "canard"))[2])
        compare("CAsT 2019", logs("cast2019", "cast2019_topics.json", "cast", "cast2019_resolved.tsv"))
        compare("CAsT 2020", logs("cast2020", "cast2020_topics.json", "cast"))
        find_passages(logs("mtrag", "mtrag_rewrites.jsonl.gz", "mtrag"))
