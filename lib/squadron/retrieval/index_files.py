"""The files of a saved index: which generation holds, its settings and sums, and how another is written."""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Sequence

import numpy as np
from pydantic import Field, ValidationError

from squadron.core.config import Config
from squadron.core.digests import digest
from squadron.core.errors import InputError, ResourceError
from squadron.core.folder import Folder
from squadron.core.json_text import storable
from squadron.data.rows import write_rows
from squadron.llm.embed import AnyEmbedder
from squadron.retrieval.bm25 import Bm25Config, Words, write_words
from squadron.retrieval.dense import DenseConfig
from squadron.retrieval.documents import Document
from squadron.retrieval.formats import Family
from squadron.retrieval.fusion import Method
from squadron.retrieval.vector_cache import model_identity, model_name

MANIFEST, FORMAT = "manifest.json", 1
REBUILD = "restore it from a copy, or build the index again"
_GENERATION = re.compile(r"\d{6}-[0-9a-f]{8}")
_TYPES = {"id": "string", "text": "string"}


class IndexConfig(Config):
    """How a corpus is searched."""

    bm25: Bm25Config = Bm25Config()
    dense: DenseConfig = DenseConfig()
    fusion: Method = "scores"
    weights: tuple[float, float] = Field((1.0, 2.0), description="of words and of vectors, in a hybrid search")
    depth: int = Field(100, ge=1, description="documents of either that a hybrid search looks at")
    family: Family | None = Field(None, description="how the model wants texts written; None: by the model's name")


class StoredModel(Config):
    """What the vectors are of."""

    name: str
    identity: str
    dimensions: int


class Manifest(Config):
    """What `manifest.json` says. `long` documents are longer than the model reads; `files` are SHA-256 by name."""

    format: int
    generation: str
    documents: int
    settings: IndexConfig
    model: StoredModel | None
    long: int
    files: dict[str, str]


def generation_of(folder: Folder) -> str:
    """That of the index in a folder; an empty text where there is none."""
    return read_manifest(folder).generation if folder.exists(MANIFEST) else ""


def read_manifest(folder: Folder) -> Manifest:
    """What the manifest says. Raises InputError if there is none, or it is damaged or of another version."""
    where = folder.file(MANIFEST)
    if not folder.exists(MANIFEST):
        raise InputError("there is no index", where=where, fix="build one, or name the folder of one")
    found = folder.read_json(MANIFEST, REBUILD)
    if found.get("format") != FORMAT:
        raise InputError("the index is of another version", where=where, fix="build it again")
    try:
        return Manifest.model_validate(found)
    except ValidationError as error:
        raise InputError(f"no manifest of an index: {error.errors()[0]['msg']}", where=where, fix=REBUILD) from None


def write_generation(
    folder: Folder,
    documents: Sequence[Document],
    config: IndexConfig,
    embedder: AnyEmbedder | None,
    vectors_DE: np.ndarray | None,
    words: Words,
    long_D: np.ndarray,
    before: str | None,
) -> None:
    """Write a generation, then the manifest, and remove all but this one and the one before. None before: whatever is
    there is replaced."""
    if vectors_DE is not None and embedder is None:
        raise InputError("vectors need the settings of their model", where=str(folder), fix="give the embedder")
    number = int((before or "").partition("-")[0] or 0) + 1
    generation = f"{number:06d}-{uuid.uuid4().hex[:8]}"
    place = folder / generation
    rows = ({"id": storable(one.id), "text": storable(one.text)} for one in documents)
    write_rows(place, "documents.arrow", rows, _TYPES)
    write_words(place, words, long=long_D.astype(bool))
    model = None
    if vectors_DE is not None and embedder is not None:
        if len(vectors_DE) != len(documents):
            raise InputError(f"{len(vectors_DE)} vectors for {len(documents)} documents", where=str(folder))
        stream = io.BytesIO()
        np.save(stream, np.ascontiguousarray(vectors_DE, np.float32))
        place.write_bytes("vectors.npy", stream.getvalue())
        name, identity = model_name(embedder), model_identity(embedder)
        model = StoredModel(name=name, identity=identity, dimensions=vectors_DE.shape[1])
    files = {name: digest(place, name) for name in place.ls()}
    manifest = Manifest(
        format=FORMAT, generation=generation, documents=len(documents), settings=config, model=model,
        long=int(long_D.sum()),
        files=files,
    )  # fmt: skip
    if before is not None and generation_of(folder) != before:
        place.remove()
        fix = "open it again and give the same changes"
        raise ResourceError("somebody else has changed the index meanwhile", where=str(folder), fix=fix)
    folder.write_json(MANIFEST, manifest.model_dump(mode="json"))
    for name in folder.ls():
        if _GENERATION.fullmatch(name) and name not in (generation, before):
            folder.remove(name)
