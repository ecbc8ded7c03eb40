"""What many models' rewards say about an instruction, and which instructions to keep: pure NumPy, no Ray.

Shapes: N instructions, M models that answered, K clusters. Scores are rewards, float64 `[N, M]`, NaN where missing.
Everything is the same whatever the order of the rows or the shards they come in: metrics read one row at a time,
percentiles are exact over all rows, and ties are broken by the hash of an instruction's id.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from squadron.core.errors import ConfigError, InputError
from squadron.data.clustering import hash_ids

Families = Sequence[Sequence[int]]  # the columns of each family of models, from its smallest model to its largest
Ties = Literal["average", "official"]
Rule = Literal["best", "random", "top_random"]

METRICS = ("difficulty", "separability", "stability")
_BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Metrics:
    """The three metrics of N instructions, float64, and which instructions have scores enough to be picked."""

    difficulty_N: np.ndarray
    separability_N: np.ndarray
    stability_N: np.ndarray
    eligible_N: np.ndarray

    def __len__(self) -> int:
        return len(self.eligible_N)


def difficulty(scores_NM: np.ndarray) -> np.ndarray:
    """Minus the mean of the scores present, `[N]`; NaN where none is."""
    scores_NM, present_NM, count_N = _present(scores_NM)
    with np.errstate(invalid="ignore"):
        return -np.where(present_NM, scores_NM, 0.0).sum(axis=1) / count_N


def separability(scores_NM: np.ndarray) -> np.ndarray:
    """The population variance of the scores present, `[N]`; exactly 0 where they are equal, NaN where none is."""
    scores_NM, present_NM, count_N = _present(scores_NM)
    with np.errstate(invalid="ignore"):
        # Equal scores minus their mean are not always 0 in floating point; minus their smallest they are.
        lowest_N1 = np.where(present_NM, scores_NM, np.inf).min(axis=1, initial=np.inf, keepdims=True)
        above_NM = np.where(present_NM, scores_NM - lowest_N1, 0.0)
        mean_N1 = above_NM.sum(axis=1, keepdims=True) / count_N[:, None]
        return np.square(np.where(present_NM, above_NM - mean_N1, 0.0)).sum(axis=1) / count_N


def stability(scores_NM: np.ndarray, families: Families, ties: Ties = "average") -> np.ndarray:
    """How far larger models of a family score higher, `[N]` in [-1, 1]: Spearman's rho, averaged over families.

    Ties "average": equal scores share the mean of their ranks, and a family whose scores are all equal counts 0.
    Ties "official": the public code's argsort puts the larger of two equal models first, so equal scores count +1.

    Missing scores leave their models out, and a family with fewer than two scores is left out of the mean. An
    instruction with no family left has stability 0, as one whose models all score alike: nothing speaks for or
    against larger models. NaN would drop it for the sake of one metric out of three, although its scores suffice for
    the others. A crowd without any family of two models has no stability at all; `validate_settings` refuses it.
    """
    scores_NM, present_NM, _ = _present(scores_NM)
    total_N, families_N = np.zeros(len(scores_NM)), np.zeros(len(scores_NM))
    for family in families:
        # Twice a rank less the mean rank is the sum over the other models of the signs of the differences to them.
        score_FN, present_FN = scores_NM.T[list(family)].copy(), present_NM.T[list(family)].copy()
        by_score_FN, by_size_FN = np.zeros_like(score_FN), np.zeros_like(score_FN)
        for large in range(len(family)):
            for small in range(large):
                up_N = score_FN[large] >= score_FN[small] if ties == "official" else score_FN[large] > score_FN[small]
                sign_N = up_N.astype(np.float64) - (score_FN[large] < score_FN[small])
                both_N = present_FN[large] & present_FN[small]
                by_score_FN[large] += sign_N
                by_score_FN[small] -= sign_N
                by_size_FN[large] += both_N
                by_size_FN[small] -= both_N
        spread_N = np.sqrt((by_score_FN**2).sum(axis=0) * (by_size_FN**2).sum(axis=0))
        total_N += (by_score_FN * by_size_FN).sum(axis=0) / np.where(spread_N == 0, 1.0, spread_N)
        families_N += present_FN.sum(axis=0) >= 2
    stability_N: np.ndarray = total_N / np.maximum(families_N, 1)
    return stability_N


def eligible(scores_NM: np.ndarray, min_scores: float = 0.5) -> np.ndarray:
    """Which instructions at least a fraction `min_scores` of the models, and at least one, have scored: bool `[N]`."""
    _, present_NM, count_N = _present(scores_NM)
    # The small constant keeps 0.1 · 30, which is a little more than 3, from asking for four scores.
    eligible_N: np.ndarray = count_N >= max(1, math.ceil(min_scores * present_NM.shape[1] - 1e-9))
    return eligible_N


def measure(
    shards: Iterable[np.ndarray], families: Families, ties: Ties = "average", min_scores: float = 0.5
) -> Metrics:
    """The metrics of all rows of `shards`, each an array or memory map `[n, M]`, read a block of rows at a time.

    Raises InputError for an infinite score.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    rows = 0
    for shard_NM in shards:
        for start in range(0, len(shard_NM), _BLOCK_ROWS):
            block_NM = np.ascontiguousarray(shard_NM[start : start + _BLOCK_ROWS], dtype=np.float64)
            infinite_N = np.isinf(block_NM).any(axis=1)
            if infinite_N.any():
                what = f"row {rows + int(infinite_N.argmax())} has an infinite score"
                raise InputError(what, fix="give the score as a finite number, or as missing")
            rows += len(block_NM)
            metrics = difficulty(block_NM), separability(block_NM), stability(block_NM, families, ties)
            parts.append((*metrics, eligible(block_NM, min_scores)))
    if not parts:
        raise InputError("no instruction has scores to select by", fix="give at least one shard with rows")
    return Metrics(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def percentiles(values_N: np.ndarray, eligible_N: np.ndarray) -> np.ndarray:
    """The exact percentile of each eligible value among the eligible, `[N]` in [0, 1]; NaN for the rest.

    (rank - 1) / (n - 1) with average ranks for ties; 0.5 where there is one value only. The public code's
    standardising and min-max scaling change no rank, and its quantile transform is the same up to 1000 rows and
    interpolated beyond.

    Raises InputError where an eligible value is NaN.
    """
    values_n = values_N[eligible_N]
    if np.isnan(values_n).any():
        raise InputError(f"{int(np.isnan(values_n).sum())} eligible instructions have no value to rank")
    _, place_n, count_U = np.unique(values_n, return_inverse=True, return_counts=True)
    below_U = np.cumsum(count_U) - count_U + (count_U - 1) / 2
    percentile_N = np.full(len(values_N), np.nan)
    percentile_N[eligible_N] = below_U[place_n] / (len(values_n) - 1) if len(values_n) > 1 else 0.5
    return percentile_N


def combine(metrics: Metrics, weights: Sequence[float]) -> np.ndarray:
    """The weighted sum of the metrics' percentiles, `[N]`; NaN for instructions that are not eligible.

    Weights are in the order difficulty, separability, stability; a negative one prefers low values. The paper's best
    is (1, 1, 2).
    """
    score_N = np.where(metrics.eligible_N, 0.0, np.nan)
    for weight, values_N in zip(weights, _columns(metrics), strict=True):
        if weight:
            score_N += weight * percentiles(values_N, metrics.eligible_N)
    return score_N


def pick(
    score_N: np.ndarray,
    ids: Sequence[str],
    cluster_N: np.ndarray | None,
    count: int,
    per_cluster: int | None = None,
) -> np.ndarray:
    """The rows of `count` instructions, best first: by score, and among equal scores by the hash of the id.

    A NaN score is never picked, and ids are unique. With clusters each gives its best: `per_cluster` of them, or an
    even share of `count`, and one more from the clusters with the best instructions where it does not divide. Where
    that makes too few, because clusters are small, the best of all that is left fill up; where it makes too many, the
    best of them stay. The paper's 34 of each of 30 clusters, and the best 1000 of those, is `per_cluster=34`.

    Raises InputError where fewer than `count` rows have a score.
    """
    row_n = np.flatnonzero(~np.isnan(score_N))
    if count > len(row_n):
        what = f"{count} instructions are to be picked, but {len(row_n)} of {len(score_N)} can be"
        raise InputError(what, fix="pick fewer, or lower min_scores if scores are missing")
    if cluster_N is None:
        return _top(score_N, ids, row_n, count)

    row_n = row_n[np.argsort(cluster_N[row_n], kind="stable")]
    members = np.split(row_n, np.flatnonzero(np.diff(cluster_N[row_n])) + 1)
    if per_cluster is None:
        # Clusters by their best instruction; the first of them take what an even share leaves over.
        best_K = np.concatenate([_top(score_N, ids, member_n, 1) for member_n in members])
        place = {int(row): n for n, row in enumerate(_top(score_N, ids, best_K, len(best_K)))}
        share, over = divmod(count, len(members))
        quotas = [share + (place[int(row)] < over) for row in best_K]
    else:
        quotas = [per_cluster] * len(members)
    taken_n = np.concatenate([_top(score_N, ids, *part) for part in zip(members, quotas, strict=True)])
    if len(taken_n) < count:
        left_n = np.setdiff1d(row_n, taken_n)
        taken_n = np.concatenate([taken_n, _top(score_N, ids, left_n, count - len(taken_n))])
    return _top(score_N, ids, taken_n, count)


def choose_response(
    scores_NM: np.ndarray, ids: Sequence[str], rule: Rule = "best", seed: int = 42, k: int = 5
) -> np.ndarray:
    """The column of the response to train on, int `[N]`; never one whose score is missing.

    "best" takes the highest score, the first column among equals; "random" any; "top_random" any of the `k` best.
    What is drawn depends on `seed` and the row's id alone.

    Raises InputError for a row without any score.
    """
    scores_NM, present_NM, count_N = _present(scores_NM)
    if not count_N.all():
        what = f"instruction {ids[int(count_N.argmin())]!r} has no scored response to choose from"
        raise InputError(what, fix="choose responses for eligible instructions alone")
    # Missing scores come last in either order, so that the first `count` columns are the present ones.
    order_NM = np.argsort(~present_NM if rule == "random" else -scores_NM, axis=1, kind="stable")
    limit_N = {"best": np.ones_like(count_N), "random": count_N, "top_random": np.minimum(k, count_N)}[rule]
    drawn_N = hash_ids(ids, f"response {seed} ") % limit_N.astype(np.uint64)
    column_N: np.ndarray = np.take_along_axis(order_NM, drawn_N.astype(np.intp)[:, None], axis=1)[:, 0]
    return column_N


def validate_settings(models: int, families: Families, weights: Sequence[float]) -> list[str]:
    """Refuse settings that no scores could make sense of; returns what the user should know, as sentences.

    Raises ConfigError for weights that are not three finite numbers or all zero, for families that name a column
    twice or one that is not there, and for a weight on stability without a family of two models.
    """
    if len(weights) != len(METRICS) or not all(map(math.isfinite, weights)):
        what = f"weights are {list(weights)}, not three numbers"
        raise ConfigError(what, where="weights", fix=f"give one each for {', '.join(METRICS)}, such as [1, 1, 2]")
    if not any(weights):
        raise ConfigError("all weights are 0", where="weights", fix="weigh at least one metric, such as [1, 1, 2]")
    columns = [column for family in families for column in family]
    wrong = sorted({column for column in columns if not 0 <= column < models or columns.count(column) > 1})
    if wrong:
        what = f"families name columns {wrong} twice, or outside the {models} columns of scores"
        raise ConfigError(what, where="families", fix="put each model in one family at most")
    if weights[2] and not any(len(family) >= 2 for family in families):
        what = "stability has a weight, but no family has two models to compare"
        raise ConfigError(what, where="families", fix="add models of one family in several sizes, or weigh it 0")
    alone = [number for number, family in enumerate(families) if len(family) < 2]
    return [f"family {number} has fewer than two models and is left out of stability" for number in alone]


def validate_crowd(metrics: Metrics, weights: Sequence[float], count: int, clusters: int | None = None) -> None:
    """Refuse a selection that the scores cannot support.

    Raises InputError for more picks or clusters than eligible instructions, and where all metrics that have a weight
    are the same for all of them, so that chance alone would decide.
    """
    rows = int(metrics.eligible_N.sum())
    have = f"{rows} of {len(metrics)} instructions have scores enough"
    if count > rows:
        fix = "pick fewer, add instructions, or lower min_scores"
        raise InputError(f"{count} instructions are to be picked, but {have}", where="count", fix=fix)
    if clusters is not None and clusters > rows:
        what = f"{clusters} clusters are asked for, but {have}"
        raise InputError(what, where="clusters", fix="ask for fewer clusters, or add instructions")
    weighted = zip(weights, _columns(metrics), strict=True)
    values = [values_N[metrics.eligible_N] for weight, values_N in weighted if weight]
    if rows > 1 and all((values_n == values_n[0]).all() for values_n in values):
        what = f"all {rows} instructions have the same metrics, so that nothing tells them apart"
        raise InputError(what, where="scores", fix="check that the scores are rewards of responses, not a constant")


def _present(scores_NM: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Contiguous rows are summed in one order, whatever the layout that they were given in.
    scores_NM = np.ascontiguousarray(scores_NM, dtype=np.float64)
    present_NM = ~np.isnan(scores_NM)
    return scores_NM, present_NM, present_NM.sum(axis=1)


def _columns(metrics: Metrics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return metrics.difficulty_N, metrics.separability_N, metrics.stability_N


def _top(score_N: np.ndarray, ids: Sequence[str], row_n: np.ndarray, count: int) -> np.ndarray:
    """The best `count` of the rows `row_n`, or all if fewer, in order of score and then of the id's hash."""
    if count < len(row_n):
        first_out = -np.partition(-score_N[row_n], count)[count]
        row_n = row_n[score_N[row_n] >= first_out]  # whatever ties with it stays, for the hash to decide
    hash_n = hash_ids([ids[row] for row in row_n])
    return row_n[np.lexsort((hash_n, -score_N[row_n]))][:count]
