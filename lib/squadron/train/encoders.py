"""Sentence encoders trained contrastively: from queries with their documents to a folder that any embedder loads.

    encoder = find_encoder("intfloat/e5-small")
    rows = store_pairs(stage, "rows.arrow", [{"query": …, "pos": […], "neg": […]}], encoder, negatives=7)
    tuned = tune_encoder(stage, "mine", encoder, rows, ContrastiveConfig())
    open_embedder(tuned.model.embedder(stage.run.folder))

The text of a query is what is embedded: an instruction, if there is to be one, is part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from squadron.core.config import Config
from squadron.core.errors import ConfigError, InputError
from squadron.core.folder import Folder
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows, write_rows
from squadron.llm.embed import SentenceTransformersEmbedder
from squadron.train.models.artifact import ModelArtifact
from squadron.train.models.encoders import SentenceEncoder, encode_texts, export_encoder, open_sentence_model
from squadron.train.objectives.layout import IDS
from squadron.train.spec import ContrastiveConfig, TrainSpec
from squadron.train.tuning import open_rows

_TYPES = {
    "query_ids": IDS, "positive_ids": IDS, "negative_ids": "json", "document_keys": IDS, "relevant_keys": IDS,
}  # fmt: skip
_AT_ONCE = 512


class Encoder(ModelArtifact):
    """A sentence encoder that was trained."""

    def embedder(self, run: Folder, **settings: Any) -> SentenceTransformersEmbedder:
        """What opens it, as any embedder is opened."""
        return SentenceTransformersEmbedder.model_validate({"path": self.locate(run), **settings})


class TunedEncoder(Config):
    """A trained encoder, and what each step came to."""

    model: Encoder
    metrics: tuple[dict[str, float | None], ...]


def store_pairs(
    stage: Stage, name: str, rows: Iterable[Mapping[str, Any]], encoder: SentenceEncoder, negatives: int, seed: int = 0
) -> ArrowRows:
    """Write queries and documents as token ids, a row for each document that answers a query.

    Rows hold `query`, as it is to be embedded, `pos` and `neg`, texts of documents. Of a row's negatives so many are
    drawn anew for each of its documents; where it has fewer, they come again. No document of `pos` counts against its
    query. Texts beyond the window are cut, and counted.

    Raises InputError for a row without a query, a document or, where there are to be any, a negative.
    """
    import random

    model = open_sentence_model(encoder.path)
    draw = random.Random(seed)
    cut: set[str] = set()

    def pairs() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(rows):
            if not row["query"].strip() or not row["pos"] or (negatives and not row["neg"]):
                what = "a row lacks its query, a document that answers it, or a negative"
                raise InputError(what, where=f"row {number}", fix="leave it out")
            for positive in row["pos"]:
                yield {**row, "positive": positive, "drawn": _draw(draw, row["neg"], negatives)}

    def encoded() -> Iterator[dict[str, Any]]:
        for some in _chunks(pairs(), _AT_ONCE):
            texts = list(dict.fromkeys(text for one in some for text in (one["query"], one["positive"], *one["drawn"])))
            ids = dict(zip(texts, encode_texts(model, texts, encoder.max_length), strict=True))
            cut.update(text for text in texts if len(ids[text]) == encoder.max_length)
            for one in some:
                documents = (one["positive"], *one["drawn"])
                yield {
                    "query_ids": ids[one["query"]],
                    "positive_ids": ids[one["positive"]],
                    "negative_ids": [ids[text] for text in one["drawn"]],
                    "document_keys": [text_key(text) for text in documents],
                    "relevant_keys": [text_key(text) for text in one["pos"]],
                }

    if not write_rows(stage.folder, name, encoded(), _TYPES):
        raise InputError("there are no rows to train on", fix="give at least one query with a document that answers it")
    if cut:
        stage.headline(f"texts cut at the window of {encoder.max_length} tokens", f"{len(cut):,}")
    return open_rows(stage, name)


def tune_encoder(
    stage: Stage,
    name: str,
    encoder: SentenceEncoder,
    rows: ArrowRows,
    config: ContrastiveConfig,
    held_out: Sequence[Mapping[str, Any]] = (),
) -> TunedEncoder:
    """Train the encoder by InfoNCE into the stage's folder of this name, and export it; resumes where it was.

    Raises ConfigError, ResourceError or WorkerError as `train_several` does.
    """
    from squadron.train.multi_run import TrainJob, train_several
    from squadron.train.objectives.contrastive import Contrastive

    tokenizer = open_sentence_model(encoder.path).tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    objective = Contrastive(int(pad or 0), config.temperature, encoder.pooling, config.texts_at_once)
    identity = f"{encoder.path} {encoder.pooling} {encoder.max_length} {encoder.lora} {config.temperature}"
    job = TrainJob(
        name, encoder, objective, rows, _whole_batches(stage, config.training), held_out=held_out, length=None,
        identity=identity, export=partial(_export, encoder),
    )  # fmt: skip
    (result,) = train_several(stage, [job])
    model = Encoder.made(stage, f"{name}/model", name=name, context=encoder.max_length, pad_token_id=int(pad or 0))
    return TunedEncoder(model=model, metrics=tuple(dict(row) for row in result.metrics))


def text_key(text: str) -> int:
    """A number that stands for a text: what a query counts as one document, wherever it comes from."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def _whole_batches(stage: Stage, spec: TrainSpec) -> TrainSpec:
    """The settings with one pass a step on each worker, so that every query meets all documents of the batch."""
    from squadron.train.multi_run import one_process_each
    from squadron.train.planning.allocation import place

    if spec.packing:
        raise ConfigError("queries and documents cannot be packed", where="training.packing", fix="set it to false")
    workers, share = place(stage, spec.model_copy(update={"micro_batch_size": 1}))
    if one_process_each(stage, [share]):
        workers = 1
    return spec.model_copy(update={"micro_batch_size": spec.batch_size // workers})


def _export(encoder: SentenceEncoder, reader: Any, folder: Any) -> None:
    export_encoder(encoder, reader, folder)


def _draw(draw: Any, texts: Sequence[str], count: int) -> list[str]:
    """So many of the texts in any order; all of them again where there are fewer."""
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += draw.sample(list(texts), min(len(texts), count - len(drawn)))
    return drawn


def _chunks(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    from itertools import islice

    stream = iter(rows)
    while some := list(islice(stream, size)):
        yield some
