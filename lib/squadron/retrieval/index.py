"""A corpus that can be searched, saved as a folder that takes changes.

    index/
        manifest.json       sealed: which generation holds, its settings, model and sums; written last
        <generation>/       documents.arrow  arrays.safetensors  vocabulary.json  vectors.npy

A change writes another generation beside the one that is read, and then the manifest. Who has the index open goes on
with what it has; a kill leaves the old one or the new one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Literal

import numpy as np

from squadron.core.config import Config
from squadron.core.digests import digest
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.data.rows import ArrowRows
from squadron.llm.embed import AnyEmbedder, Embedder, open_embedder
from squadron.retrieval.bm25 import Bm25, read_words
from squadron.retrieval.dense import Dense
from squadron.retrieval.documents import Document
from squadron.retrieval.formats import Format, document_text, embedder_format, named_format, query_text
from squadron.retrieval.fusion import fuse
from squadron.retrieval.index_files import (
    REBUILD,
    IndexConfig,
    Manifest,
    generation_of,
    read_manifest,
    write_generation,
)
from squadron.retrieval.ranking import Ranking
from squadron.retrieval.vector_cache import model_identity, model_name
from squadron.retrieval.vectors import embed_texts

Mode = Literal["bm25", "dense", "hybrid"]


class Change(Config):
    """What an update has done. `embedded` texts were embedded, the other vectors were there."""

    added: int
    changed: int
    removed: int
    embedded: int


class SearchIndex:
    """An index that is open. It never changes: `update` returns another, and `refresh` what others have written."""

    def __init__(self, folder: Folder, manifest: Manifest, embedder: AnyEmbedder | None) -> None:
        """Use `build` or `open`."""
        self.folder, self._manifest, self._settings = folder, manifest, embedder
        self.config, self.long = manifest.settings, manifest.long
        words, more = read_words(folder / manifest.generation, REBUILD)
        self._long_D = more["long"]
        self._rows = ArrowRows(folder / manifest.generation, ["documents.arrow"] if manifest.documents else [])
        self.ids: list[str] = [name for (name,) in self._rows.columns("id")] if manifest.documents else []
        self._bm25 = Bm25((), self.config.bm25, words=words)
        self._form = _form(self.config, embedder)

    @classmethod
    def build(
        cls,
        folder: Folder,
        documents: Sequence[Document],
        config: IndexConfig | None = None,
        embedder: AnyEmbedder | None = None,
        vectors_DE: np.ndarray | None = None,
    ) -> SearchIndex:
        """Index documents, in a folder in which there may be an index already.

        Vectors are those given, such as `embed_corpus` has made on a cluster, or else computed here, if there is an
        `embedder`. Raises InputError for ids that occur twice and for documents without text.
        """
        config = config or IndexConfig()
        check_documents(documents, str(folder))
        long_D = np.zeros(len(documents), bool)
        if embedder is not None and vectors_DE is None:
            pack, _ = embed_texts([document_text(_form(config, embedder), one.text) for one in documents], embedder)
            vectors_DE, long_D = pack.vectors_NE, pack.long_N
        words = Bm25([one.text for one in documents], config.bm25).words
        write_generation(folder, documents, config, embedder, vectors_DE, words, long_D, before=None)
        return cls.open(folder, embedder)

    @classmethod
    def open(cls, folder: Folder, embedder: AnyEmbedder | None = None) -> SearchIndex:
        """The index in a folder. With the `embedder` that its vectors are of, it is searched by meaning, too.

        Raises InputError for a file that is gone or damaged, and for an embedder of which the vectors are not.
        """
        manifest = read_manifest(folder)
        if embedder is not None:
            _refuse_other_model(folder, manifest, embedder)
        place = folder / manifest.generation
        for name, expected in manifest.files.items():
            if not place.exists(name) or digest(place, name) != expected:
                what = f"{name} {'has changed since it was written' if place.exists(name) else 'is gone'}"
                raise InputError(what, where=place.file(name), fix=REBUILD)
        index = cls(folder, manifest, embedder)
        if not manifest.documents == len(index.ids) == len(index._bm25):
            raise InputError("the files are of different documents", where=str(place), fix=REBUILD)
        return index

    def __len__(self) -> int:
        return len(self.ids)

    def search(
        self, queries: Sequence[str], k: int = 10, mode: Mode = "hybrid", instruction: str | None = None
    ) -> Ranking:
        """The `k` best documents of each query, by words, by vectors, or by both; by words alone, of those that share
        one with it. `instruction` says to models that read one what is looked for.

        Raises InputError for an empty query, and for vectors where there are none.
        """
        if mode == "bm25":
            return self._bm25.search(queries, k, matching=True)
        texts = [query_text(self._form, query, instruction) for query in queries]
        if mode == "dense":
            return self._dense.search(texts, k)
        depth = max(k, self.config.depth)
        both = (self._bm25.search(queries, depth), self._dense.search(texts, depth))
        return fuse(both, self.config.weights, self.config.fusion, min(k, len(self)))

    def document(self, place: int) -> Document:
        """The document at a place of a ranking."""
        return Document(**self._rows[place])

    def update(self, changed: Sequence[Document] = (), removed: Collection[str] = ()) -> tuple[SearchIndex, Change]:
        """The index with some documents added, changed (those whose id is there) or removed, in the folder too. Only
        their texts are read and embedded; they stand behind the others, whose order stays.

        Raises InputError as `build` does and for ids to remove that are not there, ResourceError if somebody else has
        changed the folder meanwhile.
        """
        check_documents(changed, str(self.folder))
        known = set(self.ids)
        if unknown := [name for name in removed if name not in known]:
            what = f"{len(unknown)} documents to remove are not there: {', '.join(unknown[:5])}"
            raise InputError(what, where=str(self.folder), fix="leave them out")
        leaving = set(removed)
        if both := [one.id for one in changed if one.id in leaving]:
            raise InputError(f"to be changed and removed: {', '.join(both[:5])}", fix="decide for one")
        gone = leaving | {one.id for one in changed}
        kept = [place for place, name in enumerate(self.ids) if name not in gone]
        vectors_DE, long_D, embedded = self._changed_vectors(kept, changed)
        rows = list(self._rows.columns("id", "text")) if kept else []
        documents = [*(Document(*rows[place]) for place in kept), *changed]
        words = self._bm25.updated(kept, [one.text for one in changed]).words
        before = self._manifest.generation
        write_generation(self.folder, documents, self.config, self._settings, vectors_DE, words, long_D, before=before)
        replaced = sum(one.id in known for one in changed)
        done = Change(added=len(changed) - replaced, changed=replaced, removed=len(removed), embedded=embedded)
        return self._successor(), done

    def refresh(self) -> SearchIndex:
        """The index as it is in the folder now: itself, if nobody has changed it."""
        same = generation_of(self.folder) == self._manifest.generation
        return self if same else self._successor()

    def _successor(self) -> SearchIndex:
        """The index that is in the folder now, with the model of this one, if that is loaded."""
        found = SearchIndex.open(self.folder, self._settings)
        if "_embedder" in self.__dict__:
            found.__dict__["_embedder"] = self._embedder
        return found

    def close(self) -> None:
        """Let go of the model."""
        if "_embedder" in self.__dict__:
            self._embedder.close()

    def _changed_vectors(
        self, kept: Sequence[int], changed: Sequence[Document]
    ) -> tuple[np.ndarray | None, np.ndarray, int]:
        """The vectors after a change, whether each text is longer than the model reads, and how many were embedded."""
        if self._manifest.model is None:
            return None, np.zeros(len(kept) + len(changed), bool), 0
        if self._settings is None:
            fix = f"open it with {self._manifest.model.name}"
            raise InputError(
                "the index has vectors, and cannot change without their model", where=str(self.folder), fix=fix
            )
        texts = [document_text(self._form, one.text) for one in changed]
        pack, embedded = embed_texts(texts, self._settings, self.__dict__.get("_embedder"))
        parts = [part for part in (np.asarray(self._vectors_DE[kept]), pack.vectors_NE) if len(part)]
        vectors_DE = np.concatenate(parts) if parts else pack.vectors_NE
        return vectors_DE, np.concatenate([self._long_D[kept], pack.long_N]), embedded

    @cached_property
    def _vectors_DE(self) -> np.ndarray:
        place = self.folder / self._manifest.generation
        vectors_DE: np.ndarray = np.load(place.local("vectors.npy"), mmap_mode="r", allow_pickle=False)
        return vectors_DE

    @cached_property
    def _embedder(self) -> Embedder:
        assert self._settings is not None
        return open_embedder(self._settings)

    @cached_property
    def _dense(self) -> Dense:
        if self._manifest.model is None or self._settings is None:
            model = self._manifest.model
            fix = f"open it with {model.name}" if model else "build it with an embedder, or search with mode bm25"
            raise InputError("the index is searched by words alone", where=str(self.folder), fix=fix)
        return Dense(self._vectors_DE, self.config.dense, lambda texts: self._embedder.embed(texts))


def check_documents(documents: Sequence[Document], where: str) -> None:
    """Raise InputError for ids that occur twice, with both places, and for documents without any text."""
    counts = Counter(one.id for one in documents)
    if repeated := [name for name, count in counts.items() if count > 1]:
        first, second = [place for place, one in enumerate(documents) if one.id == repeated[0]][:2]
        what = f"{len(repeated)} ids occur more than once: {repeated[0]!r} at {first} and {second} (counted from 0)"
        raise InputError(what, where=where, fix="give each document an id of its own")
    if empty := [one.id for one in documents if not one.text.strip()]:
        what = f"{len(empty)} documents have no text: {', '.join(empty[:5])}"
        raise InputError(what, where=where, fix="leave them out, or give their names as texts")


def _form(config: IndexConfig, embedder: AnyEmbedder | None) -> Format:
    return named_format("plain") if embedder is None else embedder_format(embedder, config.family)


def _refuse_other_model(folder: Folder, manifest: Manifest, embedder: AnyEmbedder) -> None:
    own, given = manifest.model, model_name(embedder)
    if own is None:
        raise InputError(f"the index has no vectors, of {given} or another", where=str(folder), fix="build it again")
    if own.identity != model_identity(embedder):
        other = f"another {given}" if own.name == given else given
        fix = f"open it with the {own.name} that it was built with, or build it again"
        raise InputError(f"the vectors of the index are of {own.name}, not of {other}", where=str(folder), fix=fix)
