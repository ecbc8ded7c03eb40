"""What CrowdSelect is compared with: other scores for `pick`, and a choice by tags.

Shapes: N instructions, M models. Every `…_scores` function gives float64 `[N]`, best highest, NaN where there is none,
for `algorithm.pick`, which breaks ties and refuses to pick more than have a score.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from typing import Literal

import numpy as np

from squadron.core.errors import InputError
from squadron.data.clustering import hash_ids


def random_scores(ids: Sequence[str], seed: int) -> np.ndarray:
    """A number in [0, 1) for each id that depends on `seed` and the id alone."""
    # Floats hold 53 bits.
    return (hash_ids(ids, f"random {seed} ") >> np.uint64(11)) * 2.0**-53


def length_scores(tokens_N: np.ndarray) -> np.ndarray:
    """The number of tokens, longest first.

    The paper ranks by the tokens of the instruction and trains on its longest response; other counts, such as
    instruction and response together, go as well.
    """
    return np.asarray(tokens_N, dtype=np.float64)


def reward_scores(scores_NM: np.ndarray, lowest: bool = False) -> np.ndarray:
    """The reward of each instruction's best response, or minus it to pick those that are answered worst."""
    best_N = np.where(np.isnan(scores_NM), -np.inf, scores_NM).max(axis=1)
    best_N[np.isneginf(best_N)] = np.nan
    return -best_N if lowest else best_N


def direct_scores(judged_N: np.ndarray) -> np.ndarray:
    """What a judge gave each instruction, best first; NaN for a judge's failure, which is never a low mark.

    Raises InputError for an infinite mark.
    """
    judged_N = np.asarray(judged_N, dtype=np.float64)
    if np.isinf(judged_N).any():
        what = f"row {int(np.isinf(judged_N).argmax())} has an infinite mark"
        raise InputError(what, fix="give the mark as a finite number, or as missing")
    return judged_N


def ifd_scores(
    conditioned_N: np.ndarray, unconditioned_N: np.ndarray, ratio: Literal["perplexity", "loss"] = "perplexity"
) -> np.ndarray:
    """Instruction-following difficulty (arXiv 2308.12032): how little an instruction helps to foresee its response.

    The response's perplexity, exp of the mean loss, after the instruction over that without it; "loss" divides the
    mean losses themselves, as Cherry_LLM's scripts do. From 1 on the instruction does not help at all; such rows are
    left out (NaN), and so are those without both losses.
    """
    if ratio == "perplexity":
        score_N = np.exp(np.asarray(conditioned_N, dtype=np.float64) - unconditioned_N)
    else:
        score_N = np.asarray(conditioned_N, dtype=np.float64) / unconditioned_N
    return np.where(score_N < 1, score_N, np.nan)


def pick_by_tags(tags: Sequence[Sequence[str]], ids: Sequence[str], count: int) -> np.ndarray:
    """The rows of `count` instructions that share out evenly over all tags, complex ones first (arXiv 2308.07074).

    Tags take turns, the most frequent first; at its turn a tag gives the instruction of most distinct tags that no
    tag has given yet, and among equals the one whose id hashes lowest. A tag that has none left is passed over.
    Instructions without tags are never picked. Returned in the order of picking.

    Raises InputError where fewer than `count` instructions have tags.
    """
    distinct = [set(names) for names in tags]
    tagged = sum(map(bool, distinct))
    if count > tagged:
        what = f"{count} instructions are to be picked, but {tagged} of {len(tags)} have tags"
        raise InputError(what, fix="pick fewer, or tag more instructions")
    hash_N = hash_ids(ids)
    waiting: dict[str, list[int]] = defaultdict(list)
    for row in sorted(range(len(tags)), key=lambda row: (-len(distinct[row]), hash_N[row])):
        for name in distinct[row]:
            waiting[name].append(row)
    queues = [iter(waiting[name]) for name in sorted(waiting, key=lambda name: (-len(waiting[name]), name))]
    picked: dict[int, None] = {}  # a set that keeps its order
    while len(picked) < count:
        for queue in queues:
            for row in queue:
                if row not in picked:
                    picked[row] = None
                    break
    return np.fromiter(islice(picked, count), dtype=np.intp, count=count)
