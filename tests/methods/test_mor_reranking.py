"""The reranker: features of a path by hand, the published network in numbers, and what stands below what."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.methods.mor.algorithm import Candidates
from squadron.methods.mor.features import extract_features, path_codes, type_strings
from squadron.methods.mor.network import Reranker, first_is_right
from squadron.methods.mor.reranker import (
    BuildReranker,
    DrawnRows,
    NetworkSettings,
    _export,
    judge,
    open_reranker,
    order_by,
)
from squadron.methods.mor.reranker_config import EVERY_FEATURE, Feature
from squadron.retrieval.graph import Edge, KnowledgeBase, Node
from squadron.train.batching.batches import RowSource
from squadron.train.checkpoints.checkpoint import Reader
from squadron.train.multi_run import train_in_process
from squadron.train.objectives import per_row
from squadron.train.spec import CheckpointConfig, OptimizerConfig, TrainSpec

GRAPH = KnowledgeBase.build(
    [Node("a", "author", "a", "ada"), Node("p", "paper", "p", "engines"), Node("q", "paper", "q", "poems")],
    [Edge("a", "writes", "p"), Edge("p", "cites", "q")],
)
FOUND = Candidates(
    place_C=np.array([1, 2, 1]),
    path_CT=np.array([[-1, 0, 1], [0, 1, 2], [-1, -1, 1]]),
    score_CT=np.array([[0.0, 4.0, 2.0], [4.0, 2.0, 1.0], [0.0, 0.0, 7.0]]),
    dense_C=np.array([0.5, 0.25, 0.75]),
    routed_C=np.array([True, True, False]),
)


def test_features_of_paths_of_each_length() -> None:
    kinds = type_strings(GRAPH.schema, ["paper"], 3)
    found = extract_features(GRAPH, FOUND, {kind: number for number, kind in enumerate(kinds)})
    assert found.score_CS.tolist() == [[0, 4, 2, 0.5], [4, 2, 1, 0.25], [0, 0, 7, 0.75]]
    assert found.code_CT.tolist() == [[2, 0, 1], [0, 1, 1], [2, 2, 0]]
    strings = ["padding author paper", "author paper paper", "padding padding paper"]
    assert [kinds[number] for number in found.kind_C] == strings


def test_strings_of_types_are_all_walks_to_a_target() -> None:
    expected = {
        "padding padding paper", "padding author paper", "padding paper paper", "paper author paper",
        "author paper paper", "paper paper paper",
    }  # fmt: skip
    assert set(type_strings(GRAPH.schema, ["paper"], 3)) == expected


def test_codes_are_those_of_the_published_code() -> None:
    assert path_codes(np.array([3, 2, 1]), 3).tolist() == [[0, 1, 1], [2, 0, 1], [2, 2, 0]]


def _network(features: tuple[Feature, ...] = EVERY_FEATURE, kinds: int = 5, dimensions: int = 768) -> Reranker:
    torch.manual_seed(0)
    return Reranker(torch.randn(kinds, dimensions), 3, 256, features)


def test_the_network_has_the_published_size() -> None:
    """Linear 4 to 256, Linear 768 to 256, three embeddings of 3 by 256; 1,280 numbers to 1, and 1 to 1."""
    parts = (4 * 256 + 256) + (768 * 256 + 256) + 3 * 3 * 256 + (1280 + 1) + (1 + 1)
    assert sum(weight.numel() for weight in _network().parameters()) == parts == 201_731


@pytest.mark.parametrize(
    "features", [EVERY_FEATURE, ("types", "codes"), ("scores", "codes"), ("scores", "types"), ("scores",)]
)
def test_the_network_is_the_one_that_puts_its_features_side_by_side(features: tuple[Feature, ...]) -> None:
    network, draw = _network(features), np.random.default_rng(1)
    score_CS = draw.normal(0, 10, (7, 4)).astype(np.float32)
    kind_C, code_CT = draw.integers(0, 5, 7), draw.integers(0, 3, (7, 3))
    weight = {name: one.detach().numpy() for name, one in network.state_dict().items()}
    parts = []
    if "scores" in features:
        parts.append(score_CS @ weight["scores.weight"].T + weight["scores.bias"])
    if "types" in features:
        parts.append(weight["types_KE"][kind_C] @ weight["types.weight"].T + weight["types.bias"])
    if "codes" in features:
        parts += [weight[f"codes.{place}.weight"][code_CT[:, place]] for place in range(3)]
    side_by_side = np.maximum(np.concatenate(parts, 1), 0)
    joined = side_by_side @ weight["joined.weight"].T + weight["joined.bias"]
    expected = (joined @ weight["scaled.weight"].T + weight["scaled.bias"])[:, 0]
    given_ = (torch.tensor(one)[None] for one in (score_CS, kind_C, code_CT))
    np.testing.assert_allclose(network(*given_)[0].detach().numpy(), expected, atol=1e-4)


def test_what_was_not_scored_stands_below_what_was_even_if_all_logits_are_negative() -> None:
    """The published evaluator gives 0 to whatever was not retrieved: there the best would be any other node."""
    score_C = np.array([-9.0, -3.0, -5.0])
    published_N = np.zeros(6)
    published_N[[4, 1, 2]] = score_C
    assert published_N.argmax() not in (4, 1, 2)
    order_C, new_C = order_by(score_C, 2)
    assert order_C.tolist() == [1, 0, 2]
    assert new_C.tolist() == [-3, -9, -10]


@given(st.lists(st.floats(-1e6, 1e6), max_size=30), st.integers(1, 40))
def test_the_first_are_ordered_and_the_others_keep_their_order_below(scores: list[float], depth: int) -> None:
    order_C, new_C = order_by(np.array(scores), depth)
    assert sorted(order_C) == list(range(len(scores)))
    assert order_C[depth:].tolist() == list(range(depth, len(scores)))
    assert (np.diff(new_C) <= 0).all()
    assert (new_C[depth:] < min(scores[:depth], default=math.inf)).all()


def _rows() -> tuple[DrawnRows, list[tuple[object, np.ndarray]]]:
    draw = np.random.default_rng(0)
    kinds = {kind: number for number, kind in enumerate(type_strings(GRAPH.schema, ["paper"], 3))}
    features, right = [], []
    for _ in range(6):
        found = Candidates(
            np.tile([1, 2, 1], 4), np.tile(FOUND.path_CT, (4, 1)), draw.random((12, 3)), draw.random(12),
            np.ones(12, bool),
        )  # fmt: skip
        features.append(extract_features(GRAPH, found, kinds))
        right.append(np.arange(12) == found.dense_C.argmax())
    return DrawnRows(tuple(features), tuple(right), 4, 9, 3), list(zip(features, right, strict=True))


def test_a_row_is_one_right_candidate_and_wrong_ones_drawn_with_replacement() -> None:
    rows, known = _rows()
    assert len(rows) == 24
    for number, row in enumerate(rows):
        features, right_C = known[number % 6]
        first = features.score_CS[right_C][0]  # type: ignore[attr-defined]
        assert row["scores"].shape == (10, 4)
        np.testing.assert_array_equal(row["scores"][0], first)
        assert not (row["scores"][1:] == first).all(1).any()
    again = [rows[number]["scores"].tolist() for number in (0, 6)]
    assert again[0] == rows[0]["scores"].tolist()
    assert again[0] != again[1]


def test_training_that_was_cut_off_goes_on_to_the_same_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")
    rows, held = _rows()
    kinds = type_strings(GRAPH.schema, ["paper"], 3)
    vectors_KE = np.random.default_rng(0).random((len(kinds), 5), np.float32)
    build = BuildReranker(
        NetworkSettings(kinds=kinds, places=3, width=8, features=EVERY_FEATURE), vectors_KE, seed=1
    )  # fmt: skip
    spec = TrainSpec(
        steps=6, batch_size=4, micro_batch_size=4, checkpoint=CheckpointConfig(every=2, keep_last=9),
        optimizer=OptimizerConfig(learning_rate=1e-2),
    )  # fmt: skip
    train = partial(train_in_process, per_row(first_is_right), build, RowSource(rows), spec, identity=build.identity())

    def cut(step: int, metrics: dict[str, float]) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Folder(tmp_path / "cut"), on_step=cut)
    for name in ("cut", "whole"):
        step = train(Folder(tmp_path / name))
        (tmp_path / name / "model").mkdir()
        with Reader(Folder(tmp_path / name), step) as reader:
            _export(build, Folder(tmp_path / name), held, 100, reader, tmp_path / name / "model")  # type: ignore[arg-type]
    files = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("cut", "whole")]
    assert files[0] == files[1]
    opened = open_reranker(str(tmp_path / "whole" / "model"))
    places, scores = opened.rerank(GRAPH, FOUND, 100)
    assert sorted(places) == [1, 1, 2]
    assert (np.diff(scores) <= 0).all()
    with pytest.raises(InputError, match="it was trained on 3"):
        opened.score(
            GRAPH, Candidates(FOUND.place_C, FOUND.path_CT[:, 1:], FOUND.score_CT[:, 1:], FOUND.dense_C, FOUND.routed_C)
        )
    other = KnowledgeBase.build([Node("x", "venue", "x", "x"), Node("y", "paper", "y", "y")], [Edge("x", "holds", "y")])
    with pytest.raises(InputError, match="padding venue paper"):
        opened.score(
            other, Candidates(np.array([1]), np.array([[-1, 0, 1]]), np.zeros((1, 3)), np.zeros(1), np.ones(1, bool))
        )


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="it is no reranker"):
        open_reranker(str(tmp_path))


def test_right_are_the_candidates_at_the_places_of_answers() -> None:
    assert judge(FOUND, [2, 5]).right_C.tolist() == [False, True, False]
