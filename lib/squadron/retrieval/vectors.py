"""Vectors of a corpus: embedded on the cluster, or here, each text once for each model.

Texts of like lengths are embedded together, so that little is padding. U distinct texts, D documents, E dimensions.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from squadron.core.artifacts import Artifact
from squadron.core.config import Config
from squadron.core.errors import InputError, WorkerError
from squadron.core.folder import Folder
from squadron.core.json_text import storable
from squadron.core.rows import map_rows
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows, RowsFile, store_rows
from squadron.llm.embed import AnyEmbedder, Embedder, open_embedder
from squadron.llm.providers import card_share
from squadron.retrieval.vector_cache import Pack, VectorCache, as_array, joined, read_pack, split, text_key, write_pack

CHUNK = 256
"""Texts of one task: as much as a kill costs."""


class Vectors(Artifact):
    """A .npy file of vectors, a row a text; `long` of the texts are longer than what the model reads."""

    count: int
    dimensions: int
    long: int = 0

    def read(self, run: Folder) -> np.ndarray:
        """The vectors (texts, dimensions), mapped into memory. Raises InputError if they are not what was written."""
        self.locate(run)
        vectors_DE: np.ndarray = np.load(run.local(self.path), mmap_mode="r", allow_pickle=False)
        return vectors_DE


class _Plan(Config):
    """What a stage has to embed: texts that the cache did not have, the longest first; and whether it had any."""

    texts: RowsFile
    cached: bool


def embed_corpus(stage: Stage, texts: Sequence[str], settings: AnyEmbedder, name: str = "vectors") -> Vectors:
    """Compute a vector for every text on the cluster, and leave them as `name`.npy in the stage's folder.

    Texts that any run of this user has embedded by this model are taken from its cache. A restart goes on where the
    last chunk was written. Raises InputError for texts that are empty, before work starts, and WorkerError if a chunk
    fails, after the others are done.
    """
    refuse_empty(texts, "texts")
    keys = [text_key(text) for text in texts]
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    cache, parts = VectorCache(settings), stage.folder / name / "parts"
    plan = _plan(stage, name, texts, first, cache, parts)
    chunks = _embed(stage, plan, settings, parts, name)
    new = [chunk["id"] for chunk in chunks]
    cache.add(_part(parts, one) for one in new)
    with tempfile.TemporaryDirectory() as scratch:
        file = f"{scratch}/{name}.npy"
        names = [*(["cached"] if plan.cached else []), *new]
        dimensions, long = _join((_part(parts, one) for one in names), keys, first, file)
        stage.folder.put(f"{name}.npy", file)
    if long:
        stage.headline("texts longer than the model reads", f"{long:,} of {len(texts):,}")
    return Vectors.made(stage, f"{name}.npy", count=len(texts), dimensions=dimensions, long=long)


def embed_texts(texts: Sequence[str], settings: AnyEmbedder, embedder: Embedder | None = None) -> tuple[Pack, int]:
    """The vectors of texts, in their order, embedded in this process where the cache does not have them; and how many
    were. `embedder` is that of the settings, if it is open. Raises InputError for texts that are empty."""
    refuse_empty(texts, "texts")
    keys = [text_key(text) for text in texts]
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    cache = VectorCache(settings)
    packs = [pack for _, pack in cache.find(first)]
    known = {key for pack in packs for key in split(pack.keys_NB)}
    new = _longest_first([storable(texts[place]) for key, place in first.items() if key not in known])
    for start in range(0, len(new), CHUNK):
        packs.append(_pack(new[start : start + CHUNK], embedder or _opened(settings)))
        cache.add(packs[-1:])
    if not packs:
        return Pack(as_array(()), np.empty((0, 0), np.float32), np.empty(0, bool)), 0
    rows = {key: (pack, row) for pack in packs for row, key in enumerate(split(pack.keys_NB))}
    found = [rows[key] for key in keys]
    vectors_DE = np.stack([pack.vectors_NE[row] for pack, row in found])
    return Pack(as_array(keys), vectors_DE, np.array([pack.long_N[row] for pack, row in found], bool)), len(new)


def refuse_empty(texts: Sequence[str], where: str) -> None:
    """Raise InputError if a text is empty: it has no vector."""
    if empty := [number for number, text in enumerate(texts) if not text.strip()]:
        more = f" and {len(empty) - 1:,} more" if len(empty) > 1 else ""
        fix = "leave out what has no text, or give its name as the text"
        raise InputError(f"text {empty[0]} (counted from 0){more} is empty", where=where, fix=fix)


def _plan(
    stage: Stage, name: str, texts: Sequence[str], first: dict[bytes, int], cache: VectorCache, parts: Folder
) -> _Plan:
    """What is to be embedded, written down by the first attempt: later ones have the same chunks."""
    if stage.folder.exists(f"{name}/plan.json"):
        return _Plan.model_validate(stage.folder.read_json(f"{name}/plan.json"))
    found = [pack for _, pack in cache.find(first)]
    if found:
        write_pack(parts, "cached", joined(found))
    known = {key for pack in found for key in split(pack.keys_NB)}
    new = _longest_first([texts[place] for key, place in first.items() if key not in known])
    rows = store_rows(stage, f"{name}/texts.arrow", ({"text": storable(text)} for text in new), {"text": "string"})
    plan = _Plan(texts=rows, cached=bool(found))
    stage.folder.write_json(f"{name}/plan.json", plan.model_dump(mode="json"))
    return plan


def _longest_first(texts: Sequence[str]) -> list[str]:
    """What needs most memory comes first, and the last chunks of all workers end at nearly the same time."""
    return sorted(texts, key=lambda text: (-len(text), text))


def _embed(stage: Stage, plan: _Plan, settings: AnyEmbedder, parts: Folder, name: str) -> list[dict[str, Any]]:
    """Embed what is to be embedded, chunk by chunk, and return the chunks."""
    starts = range(0, plan.texts.count, CHUNK)
    chunks: list[dict[str, Any]] = [
        {"id": f"{name}-{start:09d}", "start": start, "stop": min(start + CHUNK, plan.texts.count)} for start in starts
    ]
    if chunks:
        shared: dict[str, Any] = {"texts": plan.texts.rows(stage.run.folder), "settings": settings, "parts": parts}
        share = card_share(stage.run.profile, None)
        map_rows(stage, chunks, embed_chunk, unit="chunk", timeout_s=3600, resources=share, **shared)
    if failures := [row for row in stage.failures() if row["item"].startswith(f"{name}-")]:
        what = f"{len(failures)} of {len(chunks)} chunks of texts have no vectors: {failures[0]['error']}"
        raise WorkerError(what, where=str(stage.folder), fix="fix the cause and give the same command")
    return chunks


def embed_chunk(chunk: dict[str, Any], texts: ArrowRows, settings: AnyEmbedder, parts: Folder) -> dict[str, Any]:
    """Embed some texts into a file of their own, unless a worker that was killed then has. Runs on a worker."""
    if read_pack(parts, chunk["id"]) is None:
        rows = texts[chunk["start"] : chunk["stop"]]
        write_pack(parts, chunk["id"], _pack([row["text"] for row in rows], _opened(settings)))
    return {}


def _pack(texts: Sequence[str], embedder: Embedder) -> Pack:
    keys_NB = as_array([text_key(text) for text in texts])
    return Pack(keys_NB, embedder.embed(texts), np.array(embedder.too_long(texts), bool))


@functools.lru_cache(maxsize=1)
def _opened(settings: AnyEmbedder) -> Embedder:
    """Ray reuses a task's process for the next chunk: the model is loaded once."""
    return open_embedder(settings)


def _part(parts: Folder, name: str) -> Pack:
    pack = read_pack(parts, name)
    if pack is None:
        fix = "remove the folder of its stage and give the same command again"
        raise InputError("the vectors are damaged or gone", where=parts.file(name), fix=fix)
    return pack


def _join(packs: Iterable[Pack], keys: Sequence[bytes], first: dict[bytes, int], path: str) -> tuple[int, int]:
    """Write the vector of each key into a file; return the dimensions, and how many texts are too long. Never more than
    one pack is in memory."""
    whole_DE, long_D = np.empty((0, 0), np.float32), np.zeros(len(keys), bool)
    for pack in packs:
        if not whole_DE.size:
            shape = (len(keys), pack.vectors_NE.shape[1])
            whole_DE = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        places = [first[key] for key in split(pack.keys_NB)]
        whole_DE[places], long_D[places] = pack.vectors_NE, pack.long_N
    if not whole_DE.size:
        np.save(path, whole_DE)
        return 0, 0
    first_D = np.array([first[key] for key in keys])
    again = np.flatnonzero(first_D != np.arange(len(keys)))
    whole_DE[again], long_D[again] = whole_DE[first_D[again]], long_D[first_D[again]]
    assert isinstance(whole_DE, np.memmap)
    whole_DE.flush()
    return whole_DE.shape[1], int(long_D.sum())
