"""Late interaction: as ColBERT reads texts, and as two loops over tokens count it."""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.llm.chat import ModelUnavailable
from squadron.retrieval.late import Late, LateConfig, LateEncoder, TokenFiles, open_late_encoder
from squadron.retrieval.ranking import Ranking
from squadron.retrieval.token_vectors import TokenVectors, write_part
from tests.tiny_bert import make_bert

WORDS = ["find", "the", "weather", "of", "tomorrow", "book", "a", "flight", "to", "rome", "convert", "currency"]
DIMENSIONS = 8


def make_colbert(folder: Path) -> str:
    """A checkpoint of ColBERTv2's format: BERT under `bert.`, and a linear layer without bias."""
    import torch
    from safetensors.torch import load_file, save_file

    make_bert(folder, WORDS)
    file = folder / "model.safetensors"
    weights = {f"bert.{name}": weight for name, weight in load_file(file).items()}
    weights["linear.weight"] = torch.randn(DIMENSIONS, 32, generator=torch.Generator().manual_seed(1))
    save_file(weights, file, {"format": "pt"})
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"BertModel"', '"HF_ColBERT"'))
    return str(folder)


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> LateEncoder:
    return open_late_encoder(LateConfig(path=make_colbert(tmp_path_factory.mktemp("colbert")), batch_size=3))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> LateEncoder:
    return open_late_encoder(LateConfig(path=make_bert(tmp_path_factory.mktemp("plain"), WORDS), batch_size=3))


def texts_of(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices([*WORDS, ",", "!?"], k=draw.randint(1, 30))) for _ in range(count)]


def as_published(path: str, text: str, query: bool) -> np.ndarray:
    """What ColBERT makes of a text: `. ` before it, whose first token gives way to the marker; queries padded to 32
    with [MASK], which is not attended to; no vectors of punctuation in documents."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer, weights = AutoTokenizer.from_pretrained(path), load_file(f"{path}/model.safetensors")
    model = BertModel(BertConfig.from_pretrained(path)).eval()
    model.load_state_dict({name.removeprefix("bert."): weights[name] for name in weights if name != "linear.weight"})
    padding: dict[str, Any] = {"padding": "max_length", "max_length": 32} if query else {"max_length": 64}
    batch = tokenizer([f". {text}"], truncation=True, return_tensors="pt", **padding)
    ids = batch["input_ids"]
    ids[:, 1] = tokenizer.convert_tokens_to_ids("[unused0]" if query else "[unused1]")
    if query:
        ids[ids == tokenizer.pad_token_id] = tokenizer.mask_token_id
    with torch.inference_mode():
        states = model(ids, attention_mask=batch["attention_mask"]).last_hidden_state[0] @ weights["linear.weight"].T
    skipped = {tokenizer.convert_tokens_to_ids(mark) for mark in string.punctuation}
    keep = [query or one not in skipped for one in ids[0].tolist()]
    return torch.nn.functional.normalize(states, dim=-1)[torch.tensor(keep)].numpy()


def test_a_colbert_reads_queries_and_documents_as_its_authors_do(colbert: LateEncoder) -> None:
    path = colbert.config.path
    queries = ["book a flight", "find!", " ".join(["weather"] * 50)]
    found_QTD = colbert.queries(queries)
    assert found_QTD.shape == (3, 32, DIMENSIONS)
    for text, found_TD in zip(queries, found_QTD, strict=True):
        np.testing.assert_allclose(found_TD, as_published(path, text, True), atol=1e-4)
    texts = [*texts_of(8), "convert currency " * 60, "?!"]
    for text, document_TD in zip(texts, colbert.documents(texts), strict=True):
        expected = as_published(path, text, False)
        assert document_TD.dtype == np.float16 and document_TD.shape == expected.shape
        np.testing.assert_allclose(document_TD, expected, atol=2e-3)


def two_loops(query_TD: np.ndarray, document_TD: np.ndarray) -> float:
    total = 0.0
    for token in query_TD.astype(np.float64):
        if token.any():  # zero where a query has no more tokens
            total += max(float(token @ other) for other in document_TD.astype(np.float64))
    return total


@pytest.mark.parametrize("model", ["colbert", "plain"])
@pytest.mark.parametrize("block", [1, 50, 10**6])
def test_search_is_exact_in_any_parts_and_blocks(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, block: int
) -> None:
    encoder, texts, queries = request.getfixturevalue(model), texts_of(20), texts_of(18, seed=1)
    monkeypatch.setattr("squadron.retrieval.token_vectors._SIMILARITIES", block * 32)
    documents = encoder.documents(texts)
    for name, start, end in (("one", 0, 13), ("two", 13, 20)):
        write_part(Folder(tmp_path), name, documents[start:end])
    late = Late(encoder, TokenVectors(Folder(tmp_path), ["one", "two"]))
    queries_QTD = encoder.queries(queries)
    expected = np.array([[two_loops(query, document) for document in documents] for query in queries_QTD])
    found = late.search(queries, 7)
    for row, places in enumerate(found.places_QK):
        np.testing.assert_allclose(found.scores_QK[row], np.sort(expected[row])[::-1][:7], atol=1e-3)
        np.testing.assert_allclose(expected[row][places], found.scores_QK[row], atol=1e-3)
    whole = late.search(queries, 50)
    assert whole.places_QK.shape == (18, 20) and (np.sort(whole.places_QK) == np.arange(20)).all()
    before = Ranking(np.tile([3, 1, 19, 7, -1], (18, 1)), np.tile(np.array([4, 3, 2, 1, -np.inf], np.float32), (18, 1)))
    again = late.rerank(queries, before, depth=3)
    for row, places in enumerate(again.places_QK):
        assert sorted(places[:3]) == [1, 3, 19] and places[3:].tolist() == [7, -1]
        assert (np.diff(expected[row][places[:3]]) <= 1e-3).all()


def test_a_text_has_the_same_vectors_alone_and_in_a_batch(plain: LateEncoder) -> None:
    texts = texts_of(7)
    for text, together in zip(texts, plain.documents(texts), strict=True):
        np.testing.assert_allclose(plain.documents([text])[0], together, atol=2e-3)
    assert len(plain.queries([])) == 0 and plain.documents([]) == []


def test_what_is_damaged_or_of_another_model_is_refused(colbert: LateEncoder, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    write_part(folder / "tokens", "one", colbert.documents(texts_of(3)))
    files = TokenFiles.of(folder, "tokens", parts=("one",), documents=3, model="another")
    with pytest.raises(InputError, match="another model"):
        files.open(folder, colbert.config)
    np.save(tmp_path / "tokens" / "one.lengths.npy", np.array([1, 2], np.int32))
    with pytest.raises(InputError, match="where documents have 3"):
        TokenVectors(folder / "tokens", ["one"])
    with pytest.raises(InputError, match=r"document 1 .* has no token vectors"):
        write_part(folder, "two", [np.ones((1, 2)), np.ones((0, 2))])


def test_an_encoder_without_its_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = make_bert(tmp_path, WORDS)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layer.0.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelUnavailable, match=r"no weights for encoder\.layer\.0\.output\.dense\.weight"):
        open_late_encoder(LateConfig(path=path))
