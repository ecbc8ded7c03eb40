"""A saved index: what a change leaves is what a rebuild gives, and what cannot be right is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from squadron.core.errors import InputError, ResourceError
from squadron.core.folder import Folder
from squadron.llm.embed import OpenAiEmbedder
from squadron.retrieval.documents import Document
from squadron.retrieval.index import SearchIndex
from squadron.retrieval.index_files import MANIFEST, IndexConfig
from tests.llm.server import Server, chat_server

WORDS = ["red", "green", "blue", "fast", "slow", "car", "bike", "plane", "price", "route"]
MODES = ["bm25", "dense", "hybrid"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with chat_server(seconds=0.0) as running:
        yield running


@pytest.fixture
def embedder(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenAiEmbedder:
    monkeypatch.setenv("SQUADRON_CACHE", str(tmp_path / "cache"))
    return OpenAiEmbedder(model="echo", base_url=server.base_url, batch_size=1)


def corpus(count: int, seed: int = 0) -> list[Document]:
    draw = np.random.default_rng(seed)
    return [Document(f"d{n}", " ".join(draw.choice(WORDS, 5)) + f" {seed}x{n}") for n in range(count)]


def results(index: SearchIndex, mode: str) -> tuple[list[list[str]], list[list[float]]]:
    found = index.search(["fast red car", "price of a plane", "0x3"], 7, mode)  # type: ignore[arg-type]
    return found.ids(index.ids), found.scores_QK.tolist()


def test_it_opens_as_it_was_built(embedder: OpenAiEmbedder, tmp_path: Path) -> None:
    documents = corpus(50)
    built = SearchIndex.build(Folder(tmp_path / "index"), documents, embedder=embedder)
    opened = SearchIndex.open(Folder(tmp_path / "index"), embedder)
    for mode in MODES:
        assert results(built, mode) == results(opened, mode)
    assert [opened.document(place) for place in range(50)] == documents
    exact = opened.search([documents[7].text], 1, "dense")
    assert exact.ids(opened.ids) == [["d7"]] and abs(exact.scores_QK[0, 0] - 1) < 1e-5


def test_a_change_embeds_what_changed_and_is_a_rebuild(
    server: Server, embedder: OpenAiEmbedder, tmp_path: Path
) -> None:
    documents = corpus(200)
    index = SearchIndex.build(Folder(tmp_path / "index"), documents, embedder=embedder)
    before = server.stats()["requests"]
    changed = [Document("d5", "a new blue bike"), Document("e1", "a plane 0x3"), documents[9]]
    updated, change = index.update(changed, ["d11"])
    assert server.stats()["requests"] - before == 2
    assert change.model_dump() == {"added": 1, "changed": 2, "removed": 1, "embedded": 2}
    kept = [one for one in documents if one.id not in ("d5", "d9", "d11")]
    rebuilt = SearchIndex.build(Folder(tmp_path / "other"), kept + changed, embedder=embedder)
    for mode in MODES:
        assert results(updated, mode) == results(rebuilt, mode)
    assert results(index, "hybrid")  # who has the old one open goes on with it
    assert index.refresh().ids == updated.ids and updated.refresh() is updated


def test_of_two_who_change_it_the_second_is_refused(embedder: OpenAiEmbedder, tmp_path: Path) -> None:
    one = SearchIndex.build(Folder(tmp_path), corpus(10))
    other = SearchIndex.open(Folder(tmp_path))
    one.update([Document("new", "text")])
    with pytest.raises(ResourceError, match="somebody else has changed"):
        other.update(removed=["d1"])
    other.refresh().update(removed=["d1"])
    assert len(SearchIndex.open(Folder(tmp_path))) == 10


def test_a_kill_before_the_manifest_leaves_the_old_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = SearchIndex.build(Folder(tmp_path), corpus(10))

    def killed(self: Folder, name: str, value: object) -> None:
        if name == MANIFEST:
            raise KeyboardInterrupt
        return original(self, name, value)  # type: ignore[arg-type]

    original = Folder.write_json
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Folder, "write_json", killed)
        index.update(removed=["d1"])
    assert len(SearchIndex.open(Folder(tmp_path))) == 10
    index.update(removed=["d1"])
    assert len(SearchIndex.open(Folder(tmp_path))) == 9
    assert (
        len([name for name in Folder(tmp_path).ls() if name != MANIFEST]) == 2
    )  # the one before stays for its readers


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    SearchIndex.build(Folder(tmp_path), corpus(5)).update(removed=["d1"])[0].update(removed=["d2"])
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_an_index_of_another_model_is_refused_by_name(embedder: OpenAiEmbedder, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "index")
    SearchIndex.build(folder, corpus(5), embedder=embedder)
    with pytest.raises(InputError, match=r"are of echo at http.*, not of other at http"):
        SearchIndex.open(folder, embedder.model_copy(update={"model": "other"}))
    words_alone = SearchIndex.open(folder)
    assert results(words_alone, "bm25")
    with pytest.raises(InputError, match="open it with echo"):
        words_alone.search(["car"], 3, "dense")
    with pytest.raises(InputError, match="cannot change without their model"):
        words_alone.update(removed=["d1"])
    SearchIndex.build(folder, corpus(5))
    with pytest.raises(InputError, match="has no vectors"):
        SearchIndex.open(folder, embedder)
    with pytest.raises(InputError, match="vectors need the settings"):
        SearchIndex.build(folder, corpus(5), vectors_DE=np.ones((5, 4)))


@pytest.mark.parametrize("name", ["documents.arrow", "arrays.safetensors", "vocabulary.json", "vectors.npy", MANIFEST])
def test_damaged_files_are_refused_by_path_and_can_be_built_again(
    embedder: OpenAiEmbedder, tmp_path: Path, name: str
) -> None:
    folder = Folder(tmp_path / "index")
    SearchIndex.build(folder, corpus(20), embedder=embedder)
    [path] = (tmp_path / "index").rglob(name)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(InputError) as caught:
        SearchIndex.open(folder, embedder)
    assert str(path) in str(caught.value) and "build the index again" in caught.value.fix
    path.unlink()
    with pytest.raises(InputError, match=r"is gone|there is no index"):
        SearchIndex.open(folder, embedder)
    assert len(SearchIndex.build(folder, corpus(20), embedder=embedder)) == 20


def test_bad_documents_are_refused_by_name(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with pytest.raises(InputError, match=r"1 ids occur more than once: 'a' at 0 and 2"):
        SearchIndex.build(folder, [Document("a", "x"), Document("b", "y"), Document("a", "z")])
    with pytest.raises(InputError, match=r"2 documents have no text: b, c"):
        SearchIndex.build(folder, [Document("a", "x"), Document("b", " "), Document("c", "")])
    index = SearchIndex.build(folder, corpus(5))
    with pytest.raises(InputError, match=r"1 documents to remove are not there: zz"):
        index.update(removed=["zz", "d1"])
    with pytest.raises(InputError, match="to be changed and removed: d1"):
        index.update([Document("d1", "x")], ["d1"])


def test_an_empty_index_and_its_first_document(embedder: OpenAiEmbedder, tmp_path: Path) -> None:
    index = SearchIndex.build(Folder(tmp_path / "index"), [], IndexConfig(depth=5), embedder)
    assert index.search(["car"], 3).places_QK.shape == (1, 0)
    index, _ = index.update([Document("a", "fast car")])
    assert index.search(["car"], 3).ids(index.ids) == [["a"]]
    index, _ = index.update(removed=["a"])
    assert len(index) == 0
