"""Intervals for what a run measured."""

from __future__ import annotations

import math
from collections.abc import Sequence


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Score interval of a proportion, 95% by default (Wilson 1927). Raises ValueError without trials.

    Unlike the normal approximation it stays inside [0, 1] and is right at 0 and at all successes.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials")
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    margin = z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return max(0.0, centre - margin), min(1.0, centre + margin)


def cluster_bootstrap_interval(
    groups: Sequence[Sequence[float]], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over all values when values of one group are alike.

    Groups (environments, say) are drawn with replacement and keep all their values, so that ten episodes in one home
    do not count as ten independent trials. Raises ValueError without values.
    """
    import numpy as np

    sums = np.array([math.fsum(group) for group in groups if len(group)])
    counts = np.array([len(group) for group in groups if len(group)])
    if not len(counts):
        raise ValueError("no values")
    picks = np.random.default_rng(seed).integers(len(counts), size=(resamples, len(counts)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def mean_t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of a few independent values, such as one a seed.

    Raises ValueError for fewer than two.
    """
    from scipy.stats import t

    if len(values) < 2:
        raise ValueError("an interval needs two values at least")
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    margin = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * spread
    return mean - margin, mean + margin


def stratified_bootstrap_interval(
    strata: Sequence[Sequence[float]], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the unweighted mean of the strata's means; each stratum is resampled by itself.

    Raises ValueError without values in any stratum.
    """
    import numpy as np

    if not strata or not all(len(stratum) for stratum in strata):
        raise ValueError("a stratum without values")
    draw = np.random.default_rng(seed)
    means_R = np.zeros(resamples)
    for stratum in strata:
        values_N = np.asarray(stratum, float)
        for one in range(resamples):  # one at a time: all resamples of thousands of values fill hundreds of megabytes
            means_R[one] += values_N[draw.integers(len(values_N), size=len(values_N))].mean() / len(strata)
    low, high = np.quantile(means_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def paired_randomization_test(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> float:
    """The two-sided p-value of the mean difference of two methods on the same problems (Fisher's randomisation test).

    Under the null hypothesis the two values of any problem could be exchanged. All exchanges are tried where there are
    at most 10,000, else 9,999 random ones. Raises ValueError for no problems, or for different numbers of them.
    """
    import numpy as np
    from scipy.stats import permutation_test

    differences_N = np.asarray(first, float) - np.asarray(second, float)
    if not len(differences_N) or len(first) != len(second):
        raise ValueError(f"{len(first)} values to compare with {len(second)}")
    if not differences_N.any():
        return 1.0
    found = permutation_test(
        (differences_N,), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True, batch=256,
        n_resamples=9_999, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)
