"""Rows streamed from Parquet: the same in every step for any number of workers, and from any step on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from squadron.core.errors import ConfigError, InputError, WorkerError
from squadron.core.folder import Folder
from squadron.train.batching.batches import Row
from squadron.train.batching.stream import Columns, ParquetStream, open_stream
from squadron.train.spec import CheckpointConfig, GuardConfig, OptimizerConfig, ScheduleConfig, TrainSpec

SIZES = ((4, 1), (4, 3), (3,), (4, 4, 1))
"""Rows of the row groups of four files: 24 in all, in groups that no batch fits."""
SPEC = TrainSpec(batch_size=8, micro_batch_size=2, seed=3)


def write_shards(folder: Path, sizes: tuple[tuple[int, ...], ...] = SIZES) -> Folder:
    """Files whose rows are numbered through; lists differ in length."""
    folder.mkdir()
    number = 0
    for place, groups in enumerate(sizes):
        ids = np.arange(number, number + sum(groups))
        number += len(ids)
        lists = [list(range(n % 3)) for n in ids]
        table = pa.table({"id": ids, "x": ids / 7, "list": lists, "text": [f"row {n}" for n in ids]})
        with pq.ParquetWriter(folder / f"{place}.parquet", table.schema) as writer:
            start = 0
            for rows in groups:
                writer.write_table(table.slice(start, rows))
                start += rows
    return Folder(folder)


def expected_order(stream: ParquetStream, seed: int, epochs: int) -> list[int]:
    """Ids in the order that the module's docstring states, written out in full."""
    ends = np.cumsum([group.rows for group in stream.groups])
    groups = [np.arange(end - group.rows, end) for end, group in zip(ends, stream.groups, strict=True)]
    order: list[int] = []
    for epoch in range(epochs):
        for place in np.random.default_rng([seed, epoch]).permutation(len(groups)):
            shuffle = np.random.default_rng([seed, epoch, place]).permutation(len(groups[place]))
            order += groups[place][shuffle].tolist()
    return order


def read_ids(stream: ParquetStream, spec: TrainSpec, rank: int, workers: int, start: int, steps: int) -> Any:
    """Ids of one worker: `[steps][micro-batches][rows]`."""
    read = stream.read(spec, rank, workers, start)
    return [[[int(row["id"]) for row in part] for part in step] for step in islice(read, steps)]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_step_has_the_same_rows_in_the_same_micro_batches(ray_cluster: object, tmp_path: Path, workers: int) -> None:
    stream = open_stream(write_shards(tmp_path / "data"))
    steps = 7  # two epochs and a third of one
    expected = np.reshape(expected_order(stream, SPEC.seed, 3)[: steps * 8], (steps, 4, 2))
    for rank in range(workers):
        assert read_ids(stream, SPEC, rank, workers, 0, steps) == expected[:, rank::workers].tolist()


def slowly(columns: Columns) -> Columns:
    time.sleep(3)
    return columns


def test_rows_may_take_longer_than_ray_data_waits_for_a_block(ray_cluster: object, tmp_path: Path) -> None:
    import ray.data

    context = ray.data.DataContext.get_current()
    before, context.execution_no_progress_timeout_s = context.execution_no_progress_timeout_s, 1
    try:
        stream = open_stream(write_shards(tmp_path / "data", ((8,),)), prepare=slowly)
        assert len(read_ids(stream, SPEC, 0, 1, 0, 1)[0]) == 4
    finally:
        context.execution_no_progress_timeout_s = before


@pytest.mark.parametrize("start", [1, 3, 5, 6000])
def test_reading_goes_on_from_any_step(ray_cluster: object, tmp_path: Path, start: int) -> None:
    """From within an epoch, from the first row of the second, from within it, and from epoch 2000."""
    stream = open_stream(write_shards(tmp_path / "data"))
    order = expected_order(stream, SPEC.seed, start // 3 + 2)
    expected = np.reshape(order[start * 8 : start * 8 + 24], (3, 4, 2))
    for rank in range(2):
        assert read_ids(stream, SPEC, rank, 2, start, 3) == expected[:, rank::2].tolist()


def test_each_epoch_has_every_row_once_in_an_order_of_its_own(ray_cluster: object, tmp_path: Path) -> None:
    stream = open_stream(write_shards(tmp_path / "data"))
    assert stream.steps(SPEC) == 3 and stream.steps(SPEC.model_copy(update={"epochs": 2.5})) == 8
    first, second = np.reshape(read_ids(stream, SPEC, 0, 1, 0, 6), (2, 24)).tolist()
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second
    other = SPEC.model_copy(update={"seed": 4})
    assert np.ravel(read_ids(stream, other, 0, 1, 0, 3)).tolist() != first


def test_more_row_groups_than_one_execution_plans(
    ray_cluster: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squadron.train.batching.stream._PLANNED", 5)
    stream = open_stream(write_shards(tmp_path / "data"))
    assert np.ravel(read_ids(stream, SPEC, 0, 1, 0, 6)).tolist() == expected_order(stream, SPEC.seed, 2)


def prepare(columns: Columns) -> Columns:
    squares = np.stack([np.full((2, 2), n, np.float32) for n in columns["id"]])
    return {"id": columns["id"], "image": squares, "tokens": columns["list"]}


def test_rows_are_numpy_values_as_prepared(ray_cluster: object, tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "data")
    stream = open_stream(folder, prepare, ("id", "list"))
    for row in rows_of(stream.read(SPEC, 0, 1, 0), 3):
        assert list(row) == ["id", "image", "tokens"]
        assert row["image"].dtype == np.float32 and (row["image"] == np.full((2, 2), row["id"])).all()
        assert isinstance(row["tokens"], np.ndarray) and row["tokens"].tolist() == list(range(row["id"] % 3))
    for row in rows_of(open_stream(folder).read(SPEC, 0, 1, 0), 3):
        assert row["x"] == row["id"] / 7 and row["text"] == f"row {row['id']}"
        assert isinstance(row["list"], np.ndarray) and row["list"].tolist() == list(range(row["id"] % 3))


def rows_of(read: Iterator[list[list[Row]]], steps: int) -> list[Row]:
    return [row for step in islice(read, steps) for part in step for row in part]


def test_files_before_the_cursor_are_not_read(ray_cluster: object, tmp_path: Path) -> None:
    stream = open_stream(write_shards(tmp_path / "data", ((8,), (8,), (8,), (8,))))
    order = expected_order(stream, SPEC.seed, 1)
    victim = stream.groups[order[0] // 8].name
    (tmp_path / "data" / victim).write_bytes(b"no longer Parquet")
    steps = np.reshape(order[8:], (3, 1, 4, 2)).tolist()
    assert read_ids(stream, SPEC, 0, 1, 1, 3) == [step[0] for step in steps]
    with pytest.raises(InputError, match="cannot be read as Parquet") as caught:
        read_ids(stream, SPEC, 0, 1, 0, 1)
    assert caught.value.where.endswith(victim)


@dataclass
class Squares:
    """Least squares, as a function of model and batch, that fails at one of its calls."""

    fails_at: int | None = None
    calls: int = 0

    def __call__(self, model: Any, batch: dict[str, Any]) -> Any:
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("the machine is gone")
        return ((model(batch["x"])[:, 0] - batch["y"]) ** 2).mean()


def build_line() -> Any:
    import torch

    return torch.nn.Linear(2, 1)


def to_line(columns: Columns) -> Columns:
    """Points of a plane, as (x, y)."""
    x = np.stack([columns["x"], np.sin(columns["x"])], axis=1).astype(np.float32)
    return {"x": x, "y": x @ np.array([2, -1], np.float32)}


def plain_torch(stream: ParquetStream, spec: TrainSpec, steps: int) -> dict[str, Any]:
    """The weights after some steps on the whole batches, by PyTorch alone."""
    import torch

    torch.manual_seed(spec.seed)
    model, settings = build_line(), spec.optimizer
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, settings.betas, weight_decay=0)
    order = np.reshape(expected_order(stream, spec.seed, 2)[: steps * 8], (steps, 8))
    for ids in order:
        batch = {name: torch.as_tensor(values) for name, values in to_line({"x": ids / 7}).items()}
        optimizer.zero_grad()
        Squares()(model, batch).backward()
        optimizer.step()
    return dict(model.state_dict())


@pytest.mark.slow
def test_a_run_cut_off_and_resumed_ends_at_the_weights_of_a_whole_one(ray_cluster: object, tmp_path: Path) -> None:
    """Cut off in the third step of one worker, resumed by two, through the end of the first epoch.

    Two workers on a cluster of two CPUs: reading gets along without any of its own.
    """
    import torch

    from squadron.train import fit, per_row
    from squadron.train.checkpoints.checkpoint import Reader

    stream = open_stream(write_shards(tmp_path / "data"), to_line, ("x",))
    spec = TrainSpec(
        steps=4,
        batch_size=8,
        micro_batch_size=4,
        checkpoint=CheckpointConfig(every=2),
        guard=GuardConfig(max_restarts=0, explode_factor=None),
        optimizer=OptimizerConfig(learning_rate=0.05, max_grad_norm=0),
        schedule=ScheduleConfig(kind="constant", warmup_ratio=0),
    )
    store, seen = Folder(tmp_path / "run"), []
    with pytest.raises(WorkerError, match="the machine is gone"):
        fit(per_row(Squares(fails_at=5)), build_line, stream, spec, store, workers=1)
    fit(per_row(Squares()), build_line, stream, spec, store, workers=2, on_step=lambda step, _: seen.append(step))
    assert seen == [3, 4]
    expected = plain_torch(stream, spec, 4)
    with Reader(store, 4) as reader:
        found = {name.removeprefix("model."): tensor for name, tensor in reader.tensors()}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


def drop_one(columns: Columns) -> Columns:
    return {"id": columns["id"][1:]}


def divide(columns: Columns) -> Columns:
    raise ZeroDivisionError("by none")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [(drop_one, r"prepare made \d of \d rows in column 'id'"), (divide, r"prepare failed in .*: by none")],
)
def test_a_prepare_that_fails_is_named(
    ray_cluster: object, tmp_path: Path, prepare: Callable[[Columns], Columns], message: str
) -> None:
    stream = open_stream(write_shards(tmp_path / "data"), prepare)
    with pytest.raises(InputError, match=message) as caught:
        read_ids(stream, SPEC, 0, 1, 0, 1)
    assert caught.value.where.endswith(".parquet")


def test_a_file_that_changed_is_named(ray_cluster: object, tmp_path: Path) -> None:
    stream = open_stream(write_shards(tmp_path / "data", ((8,),)))
    pq.write_table(pa.table({name: [0] * 7 for name in stream.columns}), tmp_path / "data" / "0.parquet")
    with pytest.raises(InputError, match="has 7 rows; it had 8 when training began"):
        read_ids(stream, SPEC, 0, 1, 0, 1)


def test_bad_files_are_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"there are no \.parquet files"):
        open_stream(Folder(tmp_path / "empty"))
    folder = write_shards(tmp_path / "data")
    with pytest.raises(InputError, match="no column 'texts'") as caught:
        open_stream(folder, columns=("id", "texts"))
    assert caught.value.fix == "did you mean text?" and caught.value.where.endswith("0.parquet")
    path = tmp_path / "data" / "2.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read as Parquet") as caught:
        open_stream(folder)
    assert caught.value.where == str(path)
    pq.write_table(pa.table({"id": pa.array([], pa.int64())}), tmp_path / "empty" / "0.parquet")
    with pytest.raises(InputError, match="hold no rows"):
        open_stream(Folder(tmp_path / "empty"))


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    stream = open_stream(write_shards(tmp_path / "data"))
    packed = TrainSpec(packing=True, max_length=16)
    with pytest.raises(ConfigError, match="cannot be packed"):
        stream.steps(packed)
    with pytest.raises(ConfigError, match="cannot be packed"):
        stream.read(packed, 0, 1, 0)
    with pytest.raises(ConfigError, match="dealt out evenly"):
        stream.read(SPEC, 0, 3, 0)
