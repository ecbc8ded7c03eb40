"""A vector for every instruction, computed on the cluster in chunks that a restart keeps."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np

from squadron.core.errors import WorkerError
from squadron.core.folder import Folder, relative
from squadron.core.marker import START_OVER
from squadron.core.rows import map_rows
from squadron.core.run import Stage
from squadron.core.sealed_files import read_sealed, write_sealed
from squadron.data.rows import ArrowRows
from squadron.llm.embed import AnyEmbedder, Embedder, open_embedder
from squadron.llm.providers import card_share
from squadron.methods.crowdselect.config import EmbeddingConfig
from squadron.methods.crowdselect.records import Embeddings, Pool

CHUNK = 1024
"""Instructions of one task."""


def embed_instructions(stage: Stage, pool: Pool, config: EmbeddingConfig) -> Embeddings:
    """Compute a vector for every instruction.

    They are one array that can be mapped into memory. Raises WorkerError if a chunk fails, after the others are done.
    """
    chunks: list[dict[str, Any]] = [
        {"id": f"{start:09d}", "start": start, "stop": min(start + CHUNK, pool.questions.count)}
        for start in range(0, pool.questions.count, CHUNK)
    ]
    shared: dict[str, Any] = {
        "questions": pool.questions.rows(stage.run.folder),
        "settings": config.model,
        "folder": stage.folder,
    }
    share = card_share(stage.run.profile, None)
    answers = map_rows(stage, chunks, embed_chunk, unit="chunk", timeout_s=3600, resources=share, **shared)
    if failures := stage.failures():
        what = f"{len(failures)} of {len(chunks)} chunks of instructions have no embeddings: {failures[0]['error']}"
        raise WorkerError(what, where=str(stage.folder), fix="fix the cause and give the same command")
    dimensions = answers[0]["dimensions"]
    stage.folder.put("embeddings.npy", _joined(stage.folder, chunks, pool.questions.count, dimensions))
    stage.headline("dimensions of an embedding", str(dimensions))
    return Embeddings(file=relative(stage.folder, stage.run.folder, "embeddings.npy"), dimensions=dimensions)


def read_embeddings(run: Folder, embeddings: Embeddings) -> np.ndarray:
    """The vectors (instructions, dimensions), mapped into memory."""
    vectors: np.ndarray = np.load(run.local(embeddings.file), mmap_mode="r", allow_pickle=False)
    return vectors


def embed_chunk(chunk: dict[str, Any], questions: ArrowRows, settings: AnyEmbedder, folder: Folder) -> dict[str, Any]:
    """Embed some instructions into a file of their own. Runs on a worker."""
    texts = [question["instruction"] for question in questions[chunk["start"] : chunk["stop"]]]
    vectors = _opened(settings).embed(texts)
    stream = io.BytesIO()
    np.save(stream, vectors.astype(np.float32))
    write_sealed(folder, f"parts/{chunk['id']}.npy", stream.getvalue())
    return {"dimensions": int(vectors.shape[1])}


@functools.lru_cache(maxsize=1)
def _opened(settings: AnyEmbedder) -> Embedder:
    """Ray reuses a task's process for the next chunk: the model is loaded once."""
    return open_embedder(settings)


def _joined(folder: Folder, chunks: list[dict[str, Any]], count: int, dimensions: int) -> str:
    """A temporary file with all chunks one after the other; never more than one of them in memory."""
    import tempfile

    path = tempfile.mkstemp(suffix=".npy")[1]
    whole = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, dimensions))
    for chunk in chunks:
        part = np.load(io.BytesIO(read_sealed(folder, f"parts/{chunk['id']}.npy", START_OVER)), allow_pickle=False)
        whole[chunk["start"] : chunk["stop"]] = part
    whole.flush()
    return path
