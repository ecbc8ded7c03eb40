"""The learned map of questions' vectors: it finds a rotation, changes nothing where that is best, and resumes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.methods.mor.question_map import (
    BuildMap,
    DrawnPairs,
    Example,
    OpenedMap,
    QuestionMap,
    _export,
    nearest_is_right,
)
from squadron.retrieval.vectors import Vectors
from squadron.train.batching.batches import RowSource
from squadron.train.checkpoints.checkpoint import Reader
from squadron.train.multi_run import train_in_process
from squadron.train.objectives import per_row
from squadron.train.spec import CheckpointConfig, OptimizerConfig, ScheduleConfig, TrainSpec

DIMENSIONS, NODES, QUESTIONS = 6, 40, 120


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _world(folder: Path, *, turned: bool) -> tuple[Vectors, Vectors, list[Example]]:
    """Nodes in all directions, and questions near a node each, turned by one rotation or not."""
    draw = np.random.default_rng(0)
    nodes_DE = _unit(draw.normal(size=(NODES, DIMENSIONS)))
    answer_Q = draw.integers(0, NODES, QUESTIONS)
    rotation_EE = np.linalg.qr(draw.normal(size=(DIMENSIONS, DIMENSIONS)))[0] if turned else np.eye(DIMENSIONS)
    near_QE = nodes_DE[answer_Q] + 0.05 * draw.normal(size=(QUESTIONS, DIMENSIONS))
    np.save(folder / "nodes.npy", nodes_DE)
    np.save(folder / "questions.npy", _unit(near_QE @ rotation_EE))
    run, known = Folder(folder), {"dimensions": DIMENSIONS}
    nodes = Vectors.of(run, "nodes.npy", count=NODES, **known)
    questions = Vectors.of(run, "questions.npy", count=QUESTIONS, **known)
    every = np.arange(NODES)
    return nodes, questions, [Example(row, every, np.array([one])) for row, one in enumerate(answer_Q)]


def _learn(folder: Path, name: str, *, turned: bool, rate: float = 0.1, cut_at: int | None = None) -> dict[str, float]:
    nodes, questions, examples = _world(folder, turned=turned)
    run, build = Folder(folder), BuildMap(DIMENSIONS)
    rows = DrawnPairs(run, nodes, questions, tuple(examples[:80]), 6, 15, seed=0)
    spec = TrainSpec(
        steps=30, batch_size=16, micro_batch_size=16, optimizer=OptimizerConfig(learning_rate=rate),
        schedule=ScheduleConfig(kind="constant", warmup_ratio=0.0), checkpoint=CheckpointConfig(every=10, keep_last=9),
    )  # fmt: skip
    store = Folder(folder / name)

    def cut(step: int, metrics: dict[str, float]) -> None:
        if step == cut_at:
            raise KeyboardInterrupt

    train = partial(train_in_process, per_row(partial(nearest_is_right, 20.0)), build, RowSource(rows), spec, store)
    if cut_at is not None:
        with pytest.raises(KeyboardInterrupt):
            train(on_step=cut)
    step = train()
    model = folder / name / "model"
    model.mkdir()
    with Reader(store, step) as reader:
        _export(build, store, run, nodes, questions, examples[80:], reader, model)
    hits: dict[str, float] = json.loads((model / "chosen.json").read_text())["hits"]
    return hits


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training here sets what DeepSpeed reads; the tests that follow are not to see it."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")


def test_it_finds_the_rotation_and_a_training_that_was_cut_off_finds_the_same(tmp_path: Path) -> None:
    hits = _learn(tmp_path, "whole", turned=True)
    assert hits["0"] < 0.3
    assert max(hits.values()) > 0.5
    assert _learn(tmp_path, "cut", turned=True, cut_at=15) == hits
    files = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    opened = QuestionMap.of(Folder(tmp_path), "whole/model").open(Folder(tmp_path))
    with pytest.raises(InputError, match="it maps 6"):
        opened.apply(np.zeros((1, 5), np.float32))


def test_nothing_is_changed_where_that_is_best(tmp_path: Path) -> None:
    """Training at a rate that spoils everything: the unchanged vectors are among what validation chooses from."""
    hits = _learn(tmp_path, "spoilt", turned=False, rate=30.0)
    assert hits["0"] == max(hits.values()) > 0.9
    opened = QuestionMap.of(Folder(tmp_path), "spoilt/model").open(Folder(tmp_path))
    vectors_QE = np.load(tmp_path / "questions.npy")
    np.testing.assert_allclose(opened.apply(vectors_QE), vectors_QE, atol=1e-6)


def test_a_row_has_a_right_node_and_wrong_ones_of_the_same_types(tmp_path: Path) -> None:
    nodes, questions, _ = _world(tmp_path, turned=False)
    allowed_D, right_D = np.array([3, 5, 7, 9]), np.array([5, 9])
    rows = DrawnPairs(Folder(tmp_path), nodes, questions, (Example(2, allowed_D, right_D),), 20, 8, seed=1)
    nodes_DE = np.load(tmp_path / "nodes.npy")
    place = {one.tobytes(): number for number, one in enumerate(nodes_DE)}
    drawn = [[place[vector.tobytes()] for vector in row["nodes"]] for row in rows]
    assert {row[0] for row in drawn} == {5, 9}
    assert {one for row in drawn for one in row[1:]} == {3, 7}
    assert rows[4]["nodes"].tobytes() == rows[4]["nodes"].tobytes()


def test_mapped_vectors_have_length_one() -> None:
    draw = np.random.default_rng(0)
    mapped = OpenedMap(draw.normal(size=(4, 4))).apply(draw.normal(size=(9, 4)))
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1, atol=1e-6)
