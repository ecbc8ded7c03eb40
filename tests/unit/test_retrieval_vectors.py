"""A text is embedded once for each model, in any process, and what is damaged is never read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from squadron.core.errors import ConfigError, InputError
from squadron.llm.embed import OpenAiEmbedder, PackagedEmbedder, SentenceTransformersEmbedder
from squadron.retrieval.vector_cache import VectorCache, model_identity, read_pack, text_key
from squadron.retrieval.vectors import embed_texts
from tests.llm.server import Server, chat_server, vector


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with chat_server(seconds=0.0) as running:
        yield running


@pytest.fixture
def settings(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenAiEmbedder:
    """One request a text, so that the server's counts are those of texts."""
    monkeypatch.setenv("SQUADRON_CACHE", str(tmp_path / "cache"))
    return OpenAiEmbedder(model="echo", base_url=server.base_url, batch_size=1, normalize=False)


def asked(server: Server, texts: list[str]) -> list[int]:
    counts = server.stats()["asked"]
    return [counts.get(text, 0) for text in texts]


def test_equal_texts_are_embedded_once_and_known_ones_never(server: Server, settings: OpenAiEmbedder) -> None:
    texts = ["a b", "c", "a b", "d e f", "half \ud83d"]
    pack, count = embed_texts(texts, settings)
    assert count == 4 and asked(server, ["a b", "c", "d e f"]) == [1, 1, 1]
    np.testing.assert_allclose(pack.vectors_NE[:4], [vector(text) for text in texts[:4]], atol=1e-6)
    again, count = embed_texts(["d e f", "new", "a b"], settings)
    assert count == 1 and asked(server, ["a b", "d e f", "new"]) == [1, 1, 1]
    np.testing.assert_array_equal(again.vectors_NE[[0, 2]], pack.vectors_NE[[3, 0]])


def test_models_do_not_share_vectors(server: Server, settings: OpenAiEmbedder, tmp_path: Path) -> None:
    embed_texts(["shared?"], settings)
    others = [settings.model_copy(update=change) for change in ({"model": "other"}, {"normalize": True})]
    assert [embed_texts(["shared?"], other)[1] for other in others] == [1, 1]
    assert embed_texts(["shared?"], settings.model_copy(update={"timeout_s": 7.0, "batch_size": 9}))[1] == 0
    for name, content in (("one", "1"), ("two", "2"), ("one-elsewhere", "1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
    one, two, elsewhere = (
        model_identity(SentenceTransformersEmbedder(path=str(tmp_path / name)))
        for name in ("one", "two", "one-elsewhere")
    )
    assert one == elsewhere != two
    assert len({model_identity(PackagedEmbedder(batch_size=n)) for n in (1, 2)} | {one, two}) == 3


def test_the_cache_keeps_what_was_used_last(
    server: Server, settings: OpenAiEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all models. What is removed is embedded again when it is asked for."""
    other = settings.model_copy(update={"model": "other"})
    for place, (text, model) in enumerate([("one", settings), ("two", other), ("three", settings)]):
        embed_texts([text], model)
        for name in (folder := VectorCache(model).folder).ls():
            if text_key(text) in [row.tobytes() for row in read_pack(folder, name).keys_NB]:  # type: ignore[union-attr]
                os.utime(folder.file(name), (1000 + place, 1000 + place))
    embed_texts(["one"], settings)  # used now
    size = sum(VectorCache(settings).folder.size(name) for name in VectorCache(settings).folder.ls()) // 2
    monkeypatch.setenv("SQUADRON_VECTORS_GB", str(2.5 * size / 2**30))
    assert embed_texts(["four"], settings)[1] == 1
    counts = [embed_texts([text], model)[1] for text, model in [("one", settings), ("four", settings)]]
    assert counts == [0, 0] and VectorCache(other).folder.ls() == []
    assert embed_texts(["three"], settings)[1] == 1
    monkeypatch.setenv("SQUADRON_VECTORS_GB", "0")
    pack, count = embed_texts(["five", "six"], settings)
    assert count == 2 and len(pack) == 2 and VectorCache(settings).folder.ls() == []
    for wrong in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv("SQUADRON_VECTORS_GB", wrong)
        with pytest.raises(ConfigError, match="is no size"):
            embed_texts(["seven"], settings)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_damaged_packs_are_computed_again(settings: OpenAiEmbedder, damage: str) -> None:
    texts = [f"text {number}" for number in range(20)]
    before, _ = embed_texts(texts, settings)
    folder = VectorCache(settings).folder
    [name] = folder.ls()
    whole = folder.read_bytes(name)
    middle = len(whole) // 2
    damaged = {
        "flip": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "cut": whole[:middle], "empty": b"", "foreign": b"{}",
    }[damage]  # fmt: skip
    Path(folder.file(name)).write_bytes(damaged)
    after, count = embed_texts(texts, settings)
    assert count == 20
    np.testing.assert_array_equal(after.vectors_NE, before.vectors_NE)
    assert embed_texts(texts, settings)[1] == 0


def test_empty_texts_are_refused_before_any_work(server: Server, settings: OpenAiEmbedder) -> None:
    with pytest.raises(InputError, match=r"text 1 \(counted from 0\) and 1 more is empty"):
        embed_texts(["first of these", " ", ""], settings)
    assert asked(server, ["first of these"]) == [0]
    assert embed_texts([], settings)[1] == 0


def test_texts_longer_than_the_window_are_counted(settings: OpenAiEmbedder) -> None:
    texts = ["word " * 254, "word " * 255, "x", "zxqv " * 200]
    pack, _ = embed_texts(texts, PackagedEmbedder())
    assert pack.long_N.tolist() == [False, True, False, True]
    assert embed_texts(texts, PackagedEmbedder())[0].long_N.tolist() == [False, True, False, True]
    assert len(text_key("x")) == 32
