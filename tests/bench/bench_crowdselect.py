"""Selecting 1000 instructions in 10 clusters, from arrays on disk, beside the same formulas done the official way.

python tests/bench/bench_crowdselect.py

10,000, 100,000 and 1,000,000 instructions with 19 scores, in shards of 50,000 rows, and embeddings of 384 dimensions;
each run has two cores and a process of its own, whose peak memory is given. Files were just written, so that they
are read from the page cache; mapped pages count as memory of the process.

Bars: 100,000 in 10 s and under 2 GB; time per row at 1,000,000 at most 1.5 times that of any smaller size; metrics
equal to the official way's to 1e-9. The official way is per-row Python with scipy, scikit-learn's k-means of 20 starts
and its chain of three scalers, on 10,000 rows, and on 100,000 where ten times as long is less than a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LIB = Path(__file__).resolve().parents[2] / "lib"
SIZES = (10_000, 100_000, 1_000_000)
SHARD_ROWS = 50_000
FAMILY_SIZES = (3, 2, 3, 3, 3, 5)
DIMENSIONS, CLUSTERS, COUNT, WEIGHTS = 384, 10, 1000, (1, 1, 2)
BAR_ROWS, BAR_SECONDS, BAR_BYTES, BAR_GROWTH = 100_000, 10.0, 2e9, 1.5


def write(folder: Path, rows: int) -> None:
    """Scores, embeddings around 40 centres and ids of the largest size; smaller ones read the first rows."""
    rng = np.random.default_rng(0)
    centre_KD = rng.standard_normal((40, DIMENSIONS), dtype=np.float32)
    shape = (rows, DIMENSIONS)
    embeddings_ND = np.lib.format.open_memmap(folder / "embeddings.npy", mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, rows, SHARD_ROWS):
        size = min(SHARD_ROWS, rows - start)
        np.save(folder / f"scores-{start:07}.npy", rng.normal(size=(size, 1)) + rng.normal(size=(size, 19)))
        block_ND = rng.standard_normal((size, DIMENSIONS), dtype=np.float32)
        block_ND += 0.7 * centre_KD[rng.integers(0, 40, size)]
        embeddings_ND[start : start + size] = block_ND / np.linalg.norm(block_ND, axis=1, keepdims=True)
    embeddings_ND.flush()
    (folder / "ids.txt").write_text("\n".join(f"instruction-{row}" for row in range(rows)))


def families() -> list[list[int]]:
    ends = np.cumsum(FAMILY_SIZES)
    return [list(range(end - size, end)) for end, size in zip(ends, FAMILY_SIZES, strict=True)]


def read_ids(folder: Path, rows: int) -> list[str]:
    with open(folder / "ids.txt") as lines:
        return [line.rstrip("\n") for line, _ in zip(lines, range(rows), strict=False)]


def score_shards(folder: Path, rows: int) -> list[np.ndarray]:
    """Memory maps of the first `rows` rows of scores."""
    starts = range(0, rows, SHARD_ROWS)
    return [np.load(folder / f"scores-{start:07}.npy", mmap_mode="r")[: rows - start] for start in starts]


def ours(folder: Path, rows: int) -> dict[str, float]:
    """Seconds of each stage."""
    from squadron.data.clustering import cluster
    from squadron.methods.crowdselect.algorithm import combine, measure, pick

    marks = [time.perf_counter()]
    ids = read_ids(folder, rows)
    metrics = measure(score_shards(folder, rows), families())
    marks.append(time.perf_counter())
    score_N = combine(metrics, WEIGHTS)
    marks.append(time.perf_counter())
    cluster_N = cluster(np.load(folder / "embeddings.npy", mmap_mode="r")[:rows], ids, CLUSTERS)
    marks.append(time.perf_counter())
    picked = pick(score_N, ids, cluster_N, COUNT)
    marks.append(time.perf_counter())
    assert len(set(picked.tolist())) == COUNT
    return dict(zip(("measure", "rank", "cluster", "pick"), np.diff(marks).tolist(), strict=True))


def official(folder: Path, rows: int) -> dict[str, float]:
    """Seconds of each stage of the official formulas, and the largest difference of a metric to ours."""
    from scipy.stats import spearmanr
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler

    from squadron.methods.crowdselect.algorithm import measure

    marks = [time.perf_counter()]
    ids = read_ids(folder, rows)
    metrics_N3 = []
    for row_M in np.concatenate(score_shards(folder, rows)):
        rhos = []
        for family in families():
            best_first = np.argsort(row_M[family])[::-1]
            rhos.append(spearmanr(np.argsort(best_first) + 1, np.arange(len(family), 0, -1))[0])
        metrics_N3.append((-np.mean(row_M), np.var(row_M), np.mean(rhos)))
    marks.append(time.perf_counter())
    score_N = np.zeros(rows)
    for weight, values_N in zip(WEIGHTS, np.array(metrics_N3).T, strict=True):
        column_N1 = MinMaxScaler().fit_transform(StandardScaler().fit_transform(values_N[:, None]))
        quantile_N1 = QuantileTransformer(n_quantiles=min(rows, 1000)).fit_transform(column_N1)
        score_N += weight * quantile_N1[:, 0]
    marks.append(time.perf_counter())
    embeddings_ND = np.load(folder / "embeddings.npy", mmap_mode="r")[:rows]
    label_N = KMeans(CLUSTERS, n_init=20, random_state=42).fit_predict(embeddings_ND)
    marks.append(time.perf_counter())
    by_cluster: list[list[int]] = [[] for _ in range(CLUSTERS)]
    for row in sorted(range(rows), key=lambda row: -score_N[row]):
        by_cluster[label_N[row]].append(row)
    picked = [ids[row] for members in by_cluster for row in members[: COUNT // CLUSTERS]]
    marks.append(time.perf_counter())
    assert len(picked) == COUNT
    seconds = dict(zip(("measure", "rank", "cluster", "pick"), np.diff(marks).tolist(), strict=True))
    metrics = measure(score_shards(folder, rows), families(), "official")
    same_N3 = np.stack([metrics.difficulty_N, metrics.separability_N, metrics.stability_N], axis=1)
    return {**seconds, "difference": float(np.abs(same_N3 - np.array(metrics_N3)).max())}


WAYS: dict[str, Callable[[Path, int], dict[str, float]]] = {"ours": ours, "official": official}


def child(way: str, folder: Path, rows: int) -> None:
    """Run one way on two cores and print its figures as JSON."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    figures = WAYS[way](folder, rows)
    peak_kib = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    print(json.dumps({**figures, "bytes": peak_kib * 1024}))


def run(way: str, folder: Path, rows: int) -> dict[str, Any]:
    """The figures of one way in a process of its own; printed too."""
    command = [sys.executable, __file__, way, str(folder), str(rows)]
    environment = {**os.environ, "PYTHONPATH": str(LIB), "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)
    stages = {name: figures[name] for name in ("measure", "rank", "cluster", "pick")}
    figures["seconds"] = sum(stages.values())
    detail = ", ".join(f"{name} {taken:.2f}" for name, taken in stages.items())
    peak = f"{figures['bytes'] / 1e9:.2f} GB"
    print(f"{way:8} {rows:>9,} rows  {figures['seconds']:7.2f} s  {peak}  ({detail})", flush=True)
    return figures  # type: ignore[no-any-return]


def main() -> bool:
    """Run everything; True where a bar is missed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, max(SIZES))
        results = {rows: run("ours", folder, rows) for rows in SIZES}
        theirs = {SIZES[0]: run("official", folder, SIZES[0])}
        if 10 * theirs[SIZES[0]]["seconds"] < 60:
            theirs[SIZES[1]] = run("official", folder, SIZES[1])
    for rows, figures in theirs.items():
        print(f"ours is {figures['seconds'] / results[rows]['seconds']:.0f} times as fast on {rows:,} rows")
    bar = results[BAR_ROWS]
    per_row = {rows: figures["seconds"] / rows for rows, figures in results.items()}
    growth = per_row[max(SIZES)] / min(per_row[rows] for rows in SIZES[:-1])
    more = (results[SIZES[2]]["seconds"] - results[SIZES[1]]["seconds"]) / (SIZES[2] - SIZES[1])
    difference = max(figures["difference"] for figures in theirs.values())
    print(f"{BAR_ROWS:,} rows: {bar['seconds']:.2f} s (bar {BAR_SECONDS:g} s), {bar['bytes'] / 1e9:.2f} GB (bar 2 GB)")
    print(f"time per row at {max(SIZES):,}: {growth:.2f} of the least at smaller sizes (bar {BAR_GROWTH:g});", end=" ")
    print(f"each row beyond {SIZES[1]:,} takes {more * 1e6:.1f} µs")
    print(f"largest difference of a metric to the official way: {difference:.1e} (bar 1e-9)")
    missed = bar["seconds"] > BAR_SECONDS or bar["bytes"] > BAR_BYTES or growth > BAR_GROWTH or difference > 1e-9
    return bool(missed)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        child(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        sys.exit(main())
