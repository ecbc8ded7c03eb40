"""A vector for every instruction."""

from __future__ import annotations

import numpy as np

from squadron.core.folder import Folder
from squadron.core.run import Stage
from squadron.methods.crowdselect.config import EmbeddingConfig
from squadron.methods.crowdselect.records import Embeddings, Pool
from squadron.retrieval.vectors import embed_corpus


def embed_instructions(stage: Stage, pool: Pool, config: EmbeddingConfig) -> Embeddings:
    """Compute a vector for every instruction.

    They are one array that can be mapped into memory. Raises WorkerError if a chunk fails, after the others are done.
    """
    texts = [text for (text,) in pool.questions.rows(stage.run.folder).columns("instruction")]
    vectors = embed_corpus(stage, texts, config.model, "embeddings")
    stage.headline("dimensions of an embedding", str(vectors.dimensions))
    return Embeddings(file=vectors.path, dimensions=vectors.dimensions)


def read_embeddings(run: Folder, embeddings: Embeddings) -> np.ndarray:
    """The vectors (instructions, dimensions), mapped into memory."""
    vectors: np.ndarray = np.load(run.local(embeddings.file), mmap_mode="r", allow_pickle=False)
    return vectors
