"""Groups of texts of like meaning: k-means on their embeddings.

Shapes: N instructions, D dimensions of an embedding, K clusters, S rows that train the clusters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from squadron.core.errors import InputError

_BLOCK_BYTES = 2**24


def cluster(
    embeddings_ND: np.ndarray,
    ids: Sequence[str],
    clusters: int,
    seed: int = 42,
    redo: int = 20,
    iterations: int = 50,
    points_per_cluster: int = 512,
) -> np.ndarray:
    """The cluster of each row, int64 `[N]`; cluster 0 is the largest.

    k-means from `redo` starts by k-means++, of which the best stays (the paper: 30 clusters, 20 starts), on the
    `points_per_cluster · clusters` rows whose ids hash lowest; then every row joins its nearest centroid. The labels
    of given ids do not depend on the order of rows. `embeddings_ND` may be a memory map; it is read in blocks.

    Raises InputError for more clusters than rows or distinct rows, ids that occur twice, and embeddings that are not
    finite.
    """
    rows = len(embeddings_ND)
    if not 1 <= clusters <= rows:
        what = f"{clusters} clusters cannot be made of {rows} rows"
        raise InputError(what, where="clusters", fix="ask for 1 to as many clusters as there are rows")
    hash_N = hash_ids(ids)
    if len(np.unique(hash_N)) < rows:
        raise InputError(f"{rows - len(np.unique(hash_N))} of {rows} ids occur more than once", fix="make ids unique")

    sample_S = np.argsort(hash_N)[: points_per_cluster * clusters]
    sample_SD = np.ascontiguousarray(embeddings_ND[sample_S], dtype=np.float32)
    _refuse_infinite(sample_SD, [ids[row] for row in sample_S])
    distinct = len({row_D.tobytes() for row_D in sample_SD + 0.0})  # adding 0 turns -0 into 0
    if distinct < clusters:
        what = f"{clusters} clusters cannot be made of {distinct} distinct embeddings among {len(sample_S)}"
        raise InputError(what, where="clusters", fix="ask for fewer clusters, or remove duplicate rows")

    centroid_KD = _train(sample_SD, clusters, seed, redo, iterations)
    # Some order that does not depend on where the search began: nearest ties go to the first.
    centroid_KD = centroid_KD[np.lexsort(centroid_KD.T[::-1])]
    label_N = np.empty(rows, dtype=np.int64)
    block = max(1, _BLOCK_BYTES // (4 * max(clusters, embeddings_ND.shape[1])))
    for start in range(0, rows, block):
        block_ND = np.asarray(embeddings_ND[start : start + block], dtype=np.float32)
        _refuse_infinite(block_ND, ids[start : start + block])
        label_N[start : start + block] = nearest(block_ND, centroid_KD)
    size_K = np.bincount(label_N, minlength=clusters)
    rank_K = np.empty(clusters, dtype=np.int64)
    rank_K[np.argsort(-size_K, kind="stable")] = np.arange(clusters)
    labels_N: np.ndarray = rank_K[label_N]
    return labels_N


def nearest(row_ND: np.ndarray, centroid_KD: np.ndarray) -> np.ndarray:
    """The nearest centroid of each float32 row, `[N]`; the same for a row whatever rows stand beside it.

    A matrix product rounds a row differently by its place in the block, which can swap two centroids that are nearly
    as near. Rows where the product cannot tell are measured again, each on its own, in float64.
    """
    square_K = np.square(centroid_KD, dtype=np.float64).sum(axis=1)
    length_N = np.sqrt(np.einsum("nd,nd->n", row_ND, row_ND))
    distance_NK = square_K.astype(np.float32) - 2 * (row_ND @ centroid_KD.T)  # less the row's own square
    # Four times the bound on the error of one product of vectors: two of them, doubled, in either direction.
    longest = np.sqrt(square_K.max())
    error_N = 4 * row_ND.shape[1] * np.finfo(np.float32).eps * longest * np.maximum(length_N, longest)
    label_N = distance_NK.argmin(axis=1)
    close_NK = distance_NK <= (distance_NK.min(axis=1) + error_N)[:, None]
    unsure_n = np.flatnonzero(close_NK.sum(axis=1) > 1)
    if len(unsure_n):
        unsure_nD = row_ND[unsure_n].astype(np.float64)
        exact_Kn = np.stack([np.square(unsure_nD - centroid_D).sum(axis=1) for centroid_D in centroid_KD])
        label_N[unsure_n] = exact_Kn.argmin(axis=0)
    return label_N


def _train(sample_SD: np.ndarray, clusters: int, seed: int, redo: int, iterations: int) -> np.ndarray:
    import faiss

    threads = faiss.omp_get_max_threads()
    # One thread adds in one order on every machine, and on so few points it is no slower than many.
    faiss.omp_set_num_threads(1)
    try:
        kmeans = faiss.Kmeans(
            sample_SD.shape[1],
            clusters,
            niter=iterations,
            nredo=redo,
            seed=seed,
            init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
            min_points_per_centroid=1,
            max_points_per_centroid=len(sample_SD),
        )
        kmeans.train(sample_SD)
    finally:
        faiss.omp_set_num_threads(threads)
    return np.asarray(kmeans.centroids)


def _refuse_infinite(block_ND: np.ndarray, ids: Sequence[str]) -> None:
    # A sum of squares is finite only where all its terms are, and takes no array of N · D booleans.
    wrong_n = np.flatnonzero(~np.isfinite(np.einsum("nd,nd->n", block_ND, block_ND)))
    if len(wrong_n):
        what = f"the embedding of {ids[wrong_n[0]]!r} is not finite, or too large for float32"
        raise InputError(what, where="embeddings", fix="embed it again, or leave it out")


def hash_ids(ids: Sequence[str], salt: str = "") -> np.ndarray:
    """The first 64 bits of the SHA-256 of `salt` and each id, uint64 `[N]`: an order that no shuffling changes."""
    digests = (hashlib.sha256(f"{salt}{id}".encode()).digest()[:8] for id in ids)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)
