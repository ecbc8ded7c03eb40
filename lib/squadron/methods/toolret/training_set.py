"""The training set: queries drawn evenly over clusters, an instruction for each, and hard negatives.

Rows are as ToolRet publishes them, `{query, pos, neg, prompt}`, a file of JSON lines.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.data.clustering import cluster
from squadron.data.records import read_records
from squadron.data.rows import RowsFile, store_lines
from squadron.methods.toolret.instructing import generate_instructions
from squadron.methods.toolret.learning_config import NegativesConfig, SamplingConfig, TrainingSetConfig
from squadron.methods.toolret.records import Benchmark
from squadron.methods.toolret.sampling import draw_evenly, fill_negatives, mine, split_by_tool
from squadron.retrieval.bm25 import Bm25
from squadron.retrieval.dense import Dense
from squadron.retrieval.documents import Document, Query
from squadron.retrieval.vectors import embed_corpus

Part = Literal["validation", "unseen"]


class TrainingSet(Config):
    """Rows to learn from, and the ids of queries whose tools stand in none of them: to choose by, and to test by."""

    rows: RowsFile
    parts: RowsFile

    def queries(self, run: Folder, part: Part) -> set[str]:
        """The ids of a part's queries."""
        return {row["id"] for row in self.parts.lines(run) if row["part"] == part}


def build_training_set(stage: Stage, benchmark: Benchmark, config: TrainingSetConfig) -> TrainingSet:
    """Keep tools out, draw queries of the others, and give each an instruction and negatives.

    Of a published training set, the rows that show a tool that is kept out are left out, and counted. An instruction
    that the model did not give is a failed row: it stands in the file without one, and the next run asks again.

    Raises InputError if nothing is left to learn from or to test by.
    """
    documents, queries = benchmark.documents(stage.run.folder), benchmark.asked(stage.run.folder)
    texts = {one.id: one.text for one in documents}
    split = split_by_tool(queries, texts, config.kept_out, config.seed)
    others = [queries[place] for place in split.known]
    inner = split_by_tool(others, texts, config.validation, config.seed + 1)
    known = [others[place] for place in inner.known]
    hidden = split.kept_out | inner.kept_out
    if not split.unseen or not (known or config.path):
        what = f"{len(known)} queries to learn from, {len(split.unseen)} of tools that are kept out"
        raise InputError(what, where="training.rows.kept_out", fix="give more queries, or keep out another share")
    if config.path is not None:
        rows, shown = _published(config, {texts[name] for name in hidden})
    else:
        rows, shown = _built(stage, [one for one in documents if one.id not in hidden], known, config), 0
    if not rows:
        raise InputError("no row is left to learn from", where=str(config.path), fix="keep out fewer tools")
    parts = [{"id": queries[place].id, "part": "unseen"} for place in split.unseen]
    parts += [{"id": others[place].id, "part": "validation"} for place in inner.unseen]
    counts = [
        ["queries of tools to learn from", len(known)],
        ["queries of tools to choose settings by", len(inner.unseen)],
        ["queries of tools kept out", len(split.unseen)],
        ["queries of tools of two kinds, left out", len(split.mixed) + len(inner.mixed)],
        ["published rows that show a tool kept out, left out", shown],
        ["rows", len(rows)],
    ]
    stage.show(Table(title="Training set", columns=["what", "number"], rows=counts))
    stage.headline("rows to learn from", f"{len(rows):,}")
    return TrainingSet(
        rows=store_lines(stage, "training_set.jsonl", rows), parts=store_lines(stage, "parts.jsonl", parts)
    )


def read_training_set(path: str, split: str = "train", limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a published training set, or of one that was built here.

    Raises InputError, with file and line, for a row without a query, a document or a negative.
    """
    for number, record in enumerate(read_records(path, split)):
        if number == limit:
            return
        prompt = record.text("prompt") if record.has("prompt") else ""
        yield {
            "query": record.text("query", blank=False),
            "pos": record.texts("pos"),
            "neg": record.texts("neg"),
            "prompt": prompt or None,
        }


def text_content(text: str) -> str:
    """What a documentation says, however it is written down: published training sets hold Python's dictionaries as
    text, sets of tools JSON, with keys in any order."""
    for read in (json.loads, ast.literal_eval):
        try:
            return json.dumps(read(text), sort_keys=True, default=str)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return " ".join(text.split())


def _published(config: TrainingSetConfig, hidden: set[str]) -> tuple[list[dict[str, Any]], int]:
    """The rows that show no tool that is kept out, and how many others there are."""
    rows = list(read_training_set(str(config.path), config.split, config.limit))
    known = {text_content(text) for text in hidden}
    kept = [row for row in rows if known.isdisjoint(map(text_content, (*row["pos"], *row["neg"])))]
    return kept, len(rows) - len(kept)


def _built(
    stage: Stage, tools: Sequence[Document], known: Sequence[Query], config: TrainingSetConfig
) -> list[dict[str, Any]]:
    text_of = {tool.id: tool.text for tool in tools}
    drawn = _draw(stage, known, config.sampling, config.seed)
    prompts = generate_instructions(stage, drawn, known, text_of, config.instructions)
    negatives = _mine(stage, tools, drawn, config.negatives)
    return [
        {"query": query.text, "pos": [text_of[name] for name in query.relevant], "neg": against, "prompt": prompt}
        for query, against, prompt in zip(drawn, negatives, prompts, strict=True)
        if against
    ]


def _draw(stage: Stage, known: Sequence[Query], config: SamplingConfig, seed: int) -> list[Query]:
    """Queries of all clusters, as evenly as there are enough."""
    if config.count is None or config.count >= len(known):
        return list(known)
    texts = [query.text for query in known]
    vectors_ND = embed_corpus(stage, texts, config.embedder, "drawn").read(stage.run.folder)
    ids = [query.id for query in known]
    distinct = len(set(texts))
    cluster_N = cluster(vectors_ND, ids, min(config.clusters, distinct), seed=seed, redo=4)
    places = draw_evenly(cluster_N, ids, config.count, seed)
    rows = [[int(number), int((cluster_N == number).sum()), int((cluster_N[places] == number).sum())]
            for number in np.unique(cluster_N)]  # fmt: skip
    stage.show(Table(title="Queries drawn", columns=["cluster", "queries", "drawn"], rows=rows))
    return [known[place] for place in places]


def _mine(
    stage: Stage, tools: Sequence[Document], queries: Sequence[Query], config: NegativesConfig
) -> list[list[str]]:
    asked, texts = [query.text for query in queries], [tool.text for tool in tools]
    if config.embedder is None:
        searcher: Any = Bm25(texts, config.bm25)
        above = 0.0  # tools that share no word with a query are listed, too, in the order of the corpus
    else:
        tools_DE = embed_corpus(stage, texts, config.embedder, "mined").read(stage.run.folder)
        asked_QE = embed_corpus(stage, asked, config.embedder, "asked").read(stage.run.folder)
        of_text = dict(zip(asked, asked_QE, strict=True))
        above = -math.inf
        searcher = Dense(tools_DE, encode=lambda some: np.stack([of_text[text] for text in some]))
    negatives = mine(searcher, tools, asked, queries, config.count, config.skip, above)
    text_of: Mapping[str, str] = {tool.id: tool.text for tool in tools}
    answers = [{text_of[name] for name in query.relevant} for query in queries]
    fill_negatives(negatives, texts, answers, config.count)
    return negatives
