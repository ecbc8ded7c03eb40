"""CrowdSelect's formulas against scipy and scikit-learn, its selections against shuffles, and the published crowd."""

from __future__ import annotations

import ast
import gzip
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.preprocessing import QuantileTransformer

from squadron.core.errors import ConfigError, InputError
from squadron.data.clustering import cluster, hash_ids, nearest
from squadron.methods.crowdselect import algorithm, baselines
from squadron.methods.crowdselect.algorithm import (
    Metrics,
    Ties,
    choose_response,
    combine,
    difficulty,
    eligible,
    measure,
    percentiles,
    pick,
    separability,
    stability,
    validate_crowd,
    validate_settings,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
ALPACA_EVAL = DATA / "crowdselect" / "alpaca_eval_responses.jsonl.gz"
FAMILIES = [[0, 1, 2], [3, 4], [5, 6, 7], [8, 9, 10], [11, 12, 13], [14, 15, 16, 17, 18]]  # the paper's 19 models
NAN = math.nan


def _ids(rows: int) -> list[str]:
    return [f"instruction-{row}" for row in range(rows)]


def _scores(rows: int, levels: int, gaps: float, seed: int = 0) -> np.ndarray:
    """Rewards on few levels, so that many tie, with a fraction `gaps` missing."""
    rng = np.random.default_rng(seed)
    scores_NM = rng.integers(0, levels, (rows, 19)) / levels * 40 - 20
    scores_NM[rng.random(scores_NM.shape) < gaps] = NAN
    return scores_NM


def _spearman(scores: np.ndarray, ties: Ties) -> float:
    """Spearman's rho of one family's present scores with size, as scipy gives it and as the public script does."""
    if ties == "official":
        best_first = np.argsort(scores, kind="stable")[::-1]
        return float(spearmanr(np.argsort(best_first) + 1, np.arange(len(scores), 0, -1)).statistic)
    return 0.0 if len(set(scores)) == 1 else float(spearmanr(scores, np.arange(len(scores))).statistic)


def _stability(row_M: np.ndarray, families: list[list[int]], ties: Ties) -> float:
    present = [row_M[family][~np.isnan(row_M[family])] for family in families]
    return float(np.mean([_spearman(scores, ties) for scores in present if len(scores) >= 2] or [0.0]))


@pytest.mark.parametrize("ties", ["average", "official"])
@pytest.mark.parametrize(("levels", "gaps"), [(3, 0.0), (3, 0.4), (10**6, 0.0), (10**6, 0.8)])
def test_metrics_equal_the_formulas_row_by_row(levels: int, gaps: float, ties: Ties) -> None:
    scores_NM = _scores(60, levels, gaps)
    scores_NM[0], scores_NM[1] = 0.1, NAN
    present = [row_M[~np.isnan(row_M)] for row_M in scores_NM]
    assert np.isnan(difficulty(scores_NM)[1]) and np.isnan(separability(scores_NM)[1])
    some = [n for n, row in enumerate(present) if len(row)]
    np.testing.assert_allclose(difficulty(scores_NM)[some], [-present[n].mean() for n in some], rtol=0, atol=1e-9)
    np.testing.assert_allclose(separability(scores_NM)[some], [present[n].var() for n in some], rtol=0, atol=1e-9)
    expected = [_stability(row_M, FAMILIES, ties) for row_M in scores_NM]
    np.testing.assert_allclose(stability(scores_NM, FAMILIES, ties), expected, rtol=0, atol=1e-9)
    assert separability(scores_NM)[0] == 0, "equal scores have no variance, whatever the rounding"


def test_known_stabilities() -> None:
    families = [[0, 1, 2], [3, 4]]
    scores_NM = np.array([
        [1, 2, 3, 4, 5],        # both families in order of size
        [3, 2, 1, 5, 4],        # both against it
        [7, 7, 7, 7, 7],        # all alike
        [1, 2, 2, 4, 5],        # two of three alike: rho of (1, 2.5, 2.5) and (1, 2, 3) is 0.866
        [1, NAN, 3, NAN, 5],    # the second family has one score, and is left out
        [1, NAN, NAN, NAN, 5],  # no family has two
    ])  # fmt: skip
    half = math.sqrt(3) / 4
    np.testing.assert_allclose(stability(scores_NM, families), [1, -1, 0, 0.5 + half, 1, 0])
    np.testing.assert_allclose(stability(scores_NM, families, "official"), [1, -1, 1, 1, 1, 0])


@pytest.mark.parametrize(("ties", "published"), [("official", 0.359), ("average", 0.352)])
@pytest.mark.skipif(not ALPACA_EVAL.exists(), reason="the AlpacaEval responses are not here")
def test_mean_stability_of_real_responses(ties: Ties, published: float) -> None:
    with gzip.open(ALPACA_EVAL, "rt") as lines:
        rows: list[list[dict[str, Any]]] = [json.loads(line)["responses"] for line in lines]
    scores_NM = np.array([[response["score"] for response in row] for row in rows])
    names = [response["family"] for response in rows[0]]
    size = [response["size_b"] for response in rows[0]]
    families = [
        sorted((n for n in range(len(names)) if names[n] == name), key=size.__getitem__)
        for name in dict.fromkeys(names)
    ]
    assert scores_NM.shape == (805, 9)
    assert round(float(stability(scores_NM, families, ties).mean()), 3) == published


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=6), st.integers(1, 50), st.integers(-50, 50))
def test_stability_is_bounded_ignores_scale_and_turns_with_the_sizes(row: list[int], scale: int, shift: int) -> None:
    scores_NM, family = np.array([row], dtype=float), list(range(len(row)))
    (value,) = stability(scores_NM, [family])
    assert -1 - 1e-12 <= value <= 1 + 1e-12
    assert stability(scores_NM * scale + shift, [family]) == value
    assert stability(scores_NM, [family[::-1]]) == pytest.approx(-value)
    assert stability(scores_NM, [family], "official") >= value - 1e-12


def test_metrics_do_not_depend_on_shards_their_order_or_their_layout() -> None:
    scores_NM = _scores(500, 5, 0.3)
    whole = measure([scores_NM], FAMILIES)
    for cuts in ([1], [100, 101, 400], [250]):
        parts = measure([np.asfortranarray(part) for part in np.split(scores_NM, cuts)], FAMILIES)
        for ours, theirs in zip(vars(whole).values(), vars(parts).values(), strict=True):
            assert np.array_equal(ours, theirs, equal_nan=True)
    for metric in (difficulty, separability):
        assert np.array_equal(metric(np.asfortranarray(scores_NM)), metric(scores_NM), equal_nan=True)
    assert len(whole) == 500 and whole.eligible_N.sum() < 500
    with pytest.raises(InputError, match="row 501 has an infinite score"):
        measure([scores_NM, np.where(np.arange(2)[:, None] == 1, np.inf, scores_NM[:2])], FAMILIES)
    with pytest.raises(InputError, match="no instruction"):
        measure([], FAMILIES)


def test_an_instruction_needs_enough_scores() -> None:
    scores_NM = np.full((3, 19), NAN)
    scores_NM[0, :10], scores_NM[1, :9] = 1, 1
    assert eligible(scores_NM).tolist() == [True, False, False]
    assert eligible(scores_NM, 0.0).tolist() == [True, True, False], "one score is the least"
    assert eligible(np.where(np.arange(30) < 3, 1.0, NAN)[None], 0.1).all(), "0.1 of 30 is 3"


def test_percentiles_are_those_of_the_quantile_transformer() -> None:
    values_N = np.random.default_rng(0).normal(size=1000)
    transformer = QuantileTransformer(n_quantiles=1000, output_distribution="uniform")
    expected = transformer.fit_transform(values_N[:, None])[:, 0]
    np.testing.assert_allclose(percentiles(values_N, np.ones(1000, bool)), expected, rtol=0, atol=1e-9)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=40))
def test_percentiles_are_average_ranks_of_the_eligible(rows: list[tuple[int, bool]]) -> None:
    values_N, eligible_N = np.array([value for value, _ in rows], float), np.array([use for _, use in rows])
    result = percentiles(values_N, eligible_N)
    n = int(eligible_N.sum())
    assert np.isnan(result[~eligible_N]).all()
    assert np.allclose(result[eligible_N], (rankdata(values_N[eligible_N]) - 1) / (n - 1) if n > 1 else 0.5)
    if len(set(values_N[eligible_N])) == 1:
        assert (result[eligible_N] == 0.5).all()


def test_combine_weighs_percentiles_and_takes_negative_weights() -> None:
    columns = [np.array(column, float) for column in ([1, 2, 3], [9, 8, 7], [0, 5, 1])]
    metrics = Metrics(*columns, np.ones(3, bool))
    assert combine(metrics, (1, 1, 2)).tolist() == [1, 3, 2]
    assert combine(metrics, (1, -1, 0)).tolist() == [-1, 0, 1]
    gapped = combine(replace(metrics, eligible_N=np.array([True, False, True])), (1, 0, 0))
    assert gapped[[0, 2]].tolist() == [0, 1] and np.isnan(gapped[1])
    with pytest.raises(InputError, match="1 eligible"):
        percentiles(np.array([NAN, 1]), np.ones(2, bool))


@given(st.lists(st.one_of(st.just(NAN), st.integers(0, 3)), min_size=1, max_size=30), st.data())
def test_without_clusters_the_best_are_picked_and_hashes_break_ties(scores: list[float], data: st.DataObject) -> None:
    score_N, ids = np.array(scores, float), _ids(len(scores))
    ranked = sorted(
        (n for n in range(len(scores)) if not math.isnan(scores[n])), key=lambda n: (-scores[n], hash_ids([ids[n]])[0])
    )
    count = data.draw(st.integers(0, len(ranked)))
    assert pick(score_N, ids, None, count).tolist() == ranked[:count]
    with pytest.raises(InputError, match=f"{len(ranked)} of {len(scores)} can be"):
        pick(score_N, ids, None, len(ranked) + 1)


def _slow_pick(score_N: np.ndarray, ids: list[str], cluster_N: np.ndarray, count: int, per: int | None) -> list[int]:
    ranked = sorted(
        np.flatnonzero(~np.isnan(score_N)).tolist(), key=lambda n: (-score_N[n], int(hash_ids([ids[n]])[0]))
    )
    by_cluster: dict[int, list[int]] = {}
    for row in ranked:
        by_cluster.setdefault(int(cluster_N[row]), []).append(row)  # in the order of their best rows
    taken: set[int] = set()
    for place, rows in enumerate(by_cluster.values()):
        share = count // len(by_cluster) + (place < count % len(by_cluster))
        taken |= set(rows[: share if per is None else per])
    taken |= set([row for row in ranked if row not in taken][: max(0, count - len(taken))])
    return [row for row in ranked if row in taken][:count]


@given(st.integers(1, 40), st.integers(1, 6), st.one_of(st.none(), st.integers(1, 8)), st.integers(0, 10**6))
def test_clusters_share_the_count_and_the_rest_is_filled(rows: int, K: int, per: int | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    score_N, cluster_N, ids = rng.integers(0, 5, rows).astype(float), rng.integers(0, K, rows), _ids(rows)
    score_N[rng.random(rows) < 0.2] = NAN
    count = int(rng.integers(0, np.sum(~np.isnan(score_N)) + 1))
    if np.isnan(score_N).all():
        return
    picked = pick(score_N, ids, cluster_N, count, per)
    assert picked.tolist() == _slow_pick(score_N, ids, cluster_N, count, per)
    order = rng.permutation(rows)
    shuffled = pick(score_N[order], [ids[n] for n in order], cluster_N[order], count, per)
    assert order[shuffled].tolist() == picked.tolist()


def test_known_picks_from_clusters() -> None:
    score_N = np.array([9, 8, 7, 6, 5, 4, 3, 2, 1.0])
    cluster_N = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
    assert pick(score_N, _ids(9), cluster_N, 3).tolist() == [0, 4, 7]
    assert pick(score_N, _ids(9), cluster_N, 5).tolist() == [0, 1, 4, 5, 7], "the best clusters give one more"
    assert pick(score_N, _ids(9), cluster_N, 8).tolist() == [0, 1, 2, 4, 5, 6, 7, 8], (
        "a small cluster gives what it has"
    )
    assert pick(score_N, _ids(9), cluster_N, 4, per_cluster=2).tolist() == [0, 1, 4, 5], "2 of each, then the best 4"
    assert pick(score_N, _ids(9), cluster_N, 5, per_cluster=1).tolist() == [0, 1, 2, 4, 7], "1 of each, then filled"


def test_the_whole_selection_does_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(1)
    ids, scores_NM = _ids(400), _scores(400, 4, 0.3)
    embeddings_ND = rng.normal(size=(400, 8)).astype(np.float32)

    def select(order: np.ndarray, shards: int) -> list[str]:
        metrics = measure(np.array_split(scores_NM[order], shards), FAMILIES)
        names = [ids[n] for n in order]
        cluster_N = cluster(embeddings_ND[order], names, 5, redo=2, points_per_cluster=20)
        return [names[n] for n in pick(combine(metrics, (1, 1, 2)), names, cluster_N, 50)]

    expected = select(np.arange(400), 1)
    assert len(set(expected)) == 50
    for shards in (2, 7):
        assert select(rng.permutation(400), shards) == expected


def test_responses() -> None:
    rows = 300
    scores_NM, ids = _scores(rows, 4, 0.5), _ids(rows)
    scores_NM[:, 3] = 0.5
    best = choose_response(scores_NM, ids)
    assert best.tolist() == [int(np.nanargmax(row_M)) for row_M in scores_NM], "the first of equals"
    order = np.random.default_rng(0).permutation(rows)
    for rule in ("random", "top_random"):
        chosen = choose_response(scores_NM, ids, rule)  # type: ignore[arg-type]
        assert not np.isnan(scores_NM[np.arange(rows), chosen]).any()
        again = choose_response(scores_NM[order], [ids[n] for n in order], rule)  # type: ignore[arg-type]
        assert again.tolist() == chosen[order].tolist()
        assert choose_response(scores_NM, ids, rule, seed=1).tolist() != chosen.tolist()  # type: ignore[arg-type]
    top = choose_response(scores_NM, ids, "top_random")
    assert all(np.nansum(row_M > row_M[column]) < 5 for row_M, column in zip(scores_NM, top, strict=True))
    assert choose_response(scores_NM, ids, "top_random", k=1).tolist() == best.tolist()
    counts = np.bincount(choose_response(np.zeros((3000, 3)), _ids(3000), "random"))
    assert (abs(counts - 1000) < 150).all()
    with pytest.raises(InputError, match="'instruction-1' has no scored response"):
        choose_response(np.array([[1.0], [NAN]]), _ids(2))


def test_baseline_scores() -> None:
    ids = _ids(1000)
    drawn_N = baselines.random_scores(ids, 0)
    assert 0 <= drawn_N.min() < 0.01 and 0.99 < drawn_N.max() < 1 and abs(drawn_N.mean() - 0.5) < 0.05
    assert np.array_equal(baselines.random_scores(ids[::-1], 0)[::-1], drawn_N)
    assert not np.array_equal(baselines.random_scores(ids, 1), drawn_N)
    assert pick(baselines.length_scores(np.array([3, 9, 5])), ids, None, 2).tolist() == [1, 2]
    scores_NM = np.array([[1, 5], [NAN, 4], [NAN, NAN]])
    assert baselines.reward_scores(scores_NM)[:2].tolist() == [5, 4]
    assert baselines.reward_scores(scores_NM, lowest=True)[:2].tolist() == [-5, -4]
    assert np.isnan(baselines.reward_scores(scores_NM)[2])
    assert pick(baselines.direct_scores(np.array([3.5, NAN, 5])), ids, None, 2).tolist() == [2, 0]
    with pytest.raises(InputError, match="row 1 has an infinite mark"):
        baselines.direct_scores(np.array([0, np.inf]))


def test_ifd_keeps_ratios_below_one() -> None:
    conditioned_N, unconditioned_N = np.array([1.0, 2.0, 2.0, 1.0, NAN]), np.array([2.0, 2.1, 2.0, 0.5, 1.0])
    score_N = baselines.ifd_scores(conditioned_N, unconditioned_N)
    np.testing.assert_allclose(score_N, [math.exp(1) / math.exp(2), math.exp(2) / math.exp(2.1), NAN, NAN, NAN])
    assert pick(score_N, _ids(5), None, 2).tolist() == [1, 0]
    by_loss = baselines.ifd_scores(conditioned_N, unconditioned_N, "loss")
    np.testing.assert_allclose(by_loss, [0.5, 2 / 2.1, NAN, NAN, NAN])


def test_tags_share_the_count_evenly_and_complex_instructions_come_first() -> None:
    tags = [["code"]] * 6 + [["maths", "code"], ["maths"], ["maths", "maths"]] + [["verse", "maths", "code"]] + [[]]
    picked = baselines.pick_by_tags(tags, _ids(11), 4)
    assert picked[:2].tolist() == [9, 6], "code is the most frequent tag, and row 9 has most tags; then maths"
    assert "code" in tags[picked[2]] and tags[picked[3]][0] == "maths", "verse has none left and is passed over"
    order = np.random.default_rng(0).permutation(11)
    shuffled = baselines.pick_by_tags([tags[n] for n in order], [_ids(11)[n] for n in order], 4)
    assert order[shuffled].tolist() == picked.tolist()
    assert sorted(baselines.pick_by_tags(tags, _ids(11), 10).tolist()) == list(range(10))
    with pytest.raises(InputError, match="11 instructions are to be picked, but 10 of 11 have tags"):
        baselines.pick_by_tags(tags, _ids(11), 11)
    even = [[f"tag-{row % 29}"] for row in range(29 * 60)]
    counts = np.bincount(baselines.pick_by_tags(even, _ids(len(even)), 1000) % 29)
    assert set(counts) == {34, 35}, "1000 over 29 tags"


def test_clusters_find_blobs_and_do_not_depend_on_the_order_of_rows() -> None:
    points_ND, truth_N = make_blobs([400, 300, 200, 100], 16, cluster_std=1.0, random_state=0)
    embeddings_ND, ids = points_ND.astype(np.float32), _ids(1000)
    label_N = cluster(embeddings_ND, ids, 4, redo=5, points_per_cluster=100)
    assert label_N.tolist() == truth_N.tolist(), "clusters are numbered by size"
    order = np.random.default_rng(0).permutation(1000)
    shuffled = cluster(embeddings_ND[order], [ids[n] for n in order], 4, redo=5, points_per_cluster=100)
    assert shuffled.tolist() == label_N[order].tolist()


def test_inertia_is_that_of_sklearn() -> None:
    points_ND, _ = make_blobs(3000, 16, centers=25, cluster_std=4.0, random_state=0)
    embeddings_ND = points_ND.astype(np.float32)
    label_N = cluster(embeddings_ND, _ids(3000), 10, points_per_cluster=256)
    inertia = sum(
        float(np.square(points_ND[label_N == k] - points_ND[label_N == k].mean(axis=0)).sum()) for k in range(10)
    )
    assert inertia < 1.02 * KMeans(10, n_init=5, random_state=42).fit(embeddings_ND).inertia_


def test_near_ties_are_settled_alike_whatever_the_block() -> None:
    rng = np.random.default_rng(0)
    centroid_KD = rng.normal(size=(6, 96)).astype(np.float32)
    # Points halfway between two centroids, give or take a rounding.
    row_ND = np.repeat((centroid_KD[:3] + centroid_KD[3:]) / 2, 50, axis=0)
    row_ND += rng.normal(scale=1e-7, size=row_ND.shape).astype(np.float32)
    whole = nearest(row_ND, centroid_KD)
    alone = [int(nearest(row_ND[n : n + 1], centroid_KD)[0]) for n in range(len(row_ND))]
    exact = np.square(row_ND[:, None].astype(float) - centroid_KD).sum(axis=2).argmin(axis=1)
    assert whole.tolist() == alone == exact.tolist() and len(set(alone)) > 3


def test_clusters_read_memory_maps_and_refuse_what_cannot_be(tmp_path: Path) -> None:
    rows_ND, ids = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32), _ids(50)
    np.save(tmp_path / "rows.npy", rows_ND)
    mapped_ND = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert cluster(mapped_ND, ids, 3, redo=2).tolist() == cluster(rows_ND, ids, 3, redo=2).tolist()
    assert cluster(rows_ND[:3], ids[:3], 1).tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="51 clusters cannot be made of 50 rows"):
        cluster(rows_ND, ids, 51)
    with pytest.raises(InputError, match="3 clusters cannot be made of 2 distinct embeddings"):
        cluster(np.repeat(rows_ND[:2], 5, axis=0), ids[:10], 3)
    with pytest.raises(InputError, match="1 of 50 ids occur more than once"):
        cluster(rows_ND, [*ids[:49], ids[0]], 3)
    for wrong in (NAN, np.inf, -np.inf):
        rows_ND[17, 2] = wrong
        for points in (1, 50):
            with pytest.raises(InputError, match="'instruction-17' is not finite"):
                cluster(rows_ND, ids, 3, redo=1, points_per_cluster=points)


def test_settings_that_make_no_sense_are_refused() -> None:
    families = [[0, 1], [2]]
    assert validate_settings(3, families, (1, 1, 2)) == [
        "family 1 has fewer than two models and is left out of stability"
    ]
    assert validate_settings(3, [], (1, 1, 0)) == [] == validate_settings(2, [[1, 0]], (1, 1, -1))
    for columns, weights, what in (
        (families, (1, 1), "not three numbers"),
        (families, (1, NAN, 1), "not three numbers"),
        (families, (0, 0, 0), "all weights are 0"),
        ([[0, 1], [1, 2]], (1, 1, 1), r"columns \[1\]"),
        ([[0, 3]], (1, 1, 1), r"columns \[3\]"),
        ([[0], [1], [2]], (1, 1, 1), "no family has two models"),
    ):
        with pytest.raises(ConfigError, match=what) as caught:
            validate_settings(3, columns, weights)
        assert caught.value.where and caught.value.fix


def test_a_crowd_that_supports_no_selection_is_refused() -> None:
    families = [[0, 1], [2, 3]]
    scores_NM = np.random.default_rng(0).normal(size=(10, 4))
    scores_NM[0, :3] = NAN
    validate_crowd(measure([scores_NM], families), (1, 1, 2), 9, 9)
    for scores, count, clusters, what in (
        (scores_NM, 10, None, "10 instructions are to be picked, but 9 of 10"),
        (scores_NM, 5, 10, "10 clusters are asked for, but 9 of 10"),
        (np.full((5, 4), 0.3), 2, 2, "all 5 instructions have the same metrics"),
    ):
        with pytest.raises(InputError, match=what) as caught:
            validate_crowd(measure([scores], families), (1, 1, 2), count, clusters)
        assert caught.value.where and caught.value.fix
    with pytest.raises(InputError, match="same metrics"):
        validate_crowd(measure([np.tile([1.0, 2, 3, 4], (5, 1)) * np.arange(1, 6)[:, None]], families), (0, 0, 1), 2)


@pytest.mark.parametrize("module", [algorithm, baselines])
def test_the_algorithm_never_imports_ray(module: Any) -> None:
    tree = ast.parse(Path(module.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name.split(".")[0] in ("ray", "faiss", "scipy", "sklearn") for name in names)


def test_only_ids_that_may_be_picked_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    monkeypatch.setattr(algorithm, "hash_ids", lambda ids: hashed.append(len(ids)) or hash_ids(ids))
    rows = 100_000
    score_N = np.random.default_rng(0).permutation(rows).astype(float)
    pick(score_N, [str(n) for n in range(rows)], None, 100)
    assert sum(hashed) == 101
