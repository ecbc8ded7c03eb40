"""Settings of a training run, and what DeepSpeed makes of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.errors import ConfigError
from squadron.train.batching.batches import RowSource, in_order
from squadron.train.engine import deepspeed_config
from squadron.train.guard import LossGuard
from squadron.train.spec import TrainSpec


def test_deepspeeds_own_schema_takes_every_kind_of_sharding(tmp_path: Any) -> None:
    """Offloading to NVMe cannot be run without its driver; its configuration can be checked."""
    from deepspeed.runtime.config import DeepSpeedConfig

    shardings: list[dict[str, Any]] = [{"zero": zero} for zero in range(4)]
    shardings += [{"zero": 2, "offload_optimizer": "cpu"}]
    shardings += [{"zero": 3, "offload_optimizer": place, "offload_weights": place} for place in ("cpu", "nvme")]
    for sharding in shardings:
        spec = TrainSpec.model_validate({"sharding": {**sharding, "nvme_path": str(tmp_path)}, "batch_size": 16})
        config = DeepSpeedConfig(deepspeed_config(spec, 1, cuda=True))
        assert config.zero_config.stage == sharding["zero"] and config.gradient_accumulation_steps == 2
        offload = config.zero_config.offload_optimizer
        assert (str(getattr(offload.device, "value", offload.device)) if offload else "none") == sharding.get(
            "offload_optimizer", "none"
        )


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 9))
def test_a_batch_is_dealt_out_evenly_or_what_would_work_is_said(micro: int, size: int, workers: int) -> None:
    spec = TrainSpec(batch_size=micro * size, micro_batch_size=size)
    if micro % workers == 0:
        assert spec.accumulation(workers) * workers * size == spec.batch_size
        return
    with pytest.raises(ConfigError) as refused:
        spec.accumulation(workers)
    words = refused.value.fix.replace(",", "").split()
    larger, fewer = int(words[words.index("to") + 1]), int(words[-1])
    TrainSpec(batch_size=larger, micro_batch_size=size).accumulation(workers)
    assert spec.accumulation(fewer) and larger < spec.batch_size + workers * size


def test_the_learning_rate_warms_up_and_decays_to_its_last() -> None:
    spec = TrainSpec.model_validate(
        {"optimizer": {"learning_rate": 1.0}, "schedule": {"warmup_ratio": 0.1, "final_ratio": 0.2}}
    )
    rates = [spec.learning_rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] == pytest.approx(0.2)
    middle = 10 + (99 - 10) / 2
    assert spec.learning_rate(54, 100) == pytest.approx(0.6 + 0.4 * math.cos(math.pi * (54 - 10) / 89), abs=1e-9)
    assert spec.learning_rate(int(middle), 100) == pytest.approx(0.6, abs=0.02)


@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 4), st.integers(0, 30))
def test_every_row_is_seen_once_an_epoch_whatever_the_workers(rows: int, size: int, workers: int, start: int) -> None:
    spec = TrainSpec(batch_size=size * workers * 2, micro_batch_size=size)
    source = RowSource([{"n": n} for n in range(rows)])
    streams = [source.read(spec, rank, workers, start) for rank in range(workers)]
    alone = source.read(spec, 0, 1, start)
    seen: list[int] = []
    for _ in range(6):
        dealt = [next(stream) for stream in streams]
        whole = next(alone)
        assert [dealt[n % workers][n // workers] for n in range(2 * workers)] == whole
        seen += [int(row["n"]) for micro in whole for row in micro]
    skip = -(start * spec.batch_size) % rows
    epochs = [seen[n : n + rows] for n in range(skip, len(seen) - rows + 1, rows)]
    assert all(sorted(epoch) == list(range(rows)) for epoch in epochs)
    begun = [seen[:skip], *(seen[n : n + rows] for n in range(skip, len(seen), rows))]
    assert all(len(set(part)) == len(part) for part in begun), "also the epochs that were seen in part"


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 4))
def test_held_out_rows_count_once_and_workers_make_equally_many_passes(rows: int, size: int, workers: int) -> None:
    data = [{"n": n} for n in range(rows)]
    passes = [list(in_order(data, size, rank, workers)) for rank in range(workers)]
    assert len({len(own) for own in passes}) == 1
    counted = [row["n"] for own in passes for part, counts in own if counts for row in part]
    assert sorted(counted) == list(range(rows))


def test_a_loss_goes_wrong_when_it_is_no_number_or_ten_times_what_it_began_with() -> None:
    guard = LossGuard(10.0)
    assert guard.problem(float("nan")) and guard.problem(float("inf"))
    assert not any(guard.problem(2.0 + n / 10) for n in range(12))
    assert not guard.problem(20.0) and "more than 10 times" in str(guard.problem(30.0))
    assert not LossGuard(None, guard.first).problem(1e9) and LossGuard(10.0, guard.first).problem(1e9)
