"""The model of costs grows as the code does; the rest of it is held by `tests/ray/test_scale.py`."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from squadron.cluster.scale import PARTS, Cost, _in_python, rounds, rows, training
from squadron.core import registry
from squadron.core.json_text import from_json, to_json

SHAPES: list[dict[str, Any]] = [
    {"n": 3}, {"text": "x" * 500},
    {"messages": [{"role": "user", "content": "y" * 200}, {"role": "assistant", "content": "z" * 400}]},
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: next(iter(shape)))
def test_what_rows_take_in_memory_is_within_a_factor_of_two(shape: dict[str, Any]) -> None:
    count = 2000
    text = to_json([{"id": str(number), **shape} for number in range(count)])
    tracemalloc.start()
    kept = from_json(text)
    used = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    assert len(kept) == count and used / 2 < _in_python(len(text) / count) < 2 * used


def test_of_more_nodes_the_driver_does_the_same_for_a_task() -> None:
    few, many = (rows(10_000, 100, 100, workers, batch_size=1) for workers in (8, 8000))
    assert few == many
    few, many = (rounds(400, 10, 1e6, nodes) for nodes in (1, 1000))
    assert few.driver_s == many.driver_s and few.driver_bytes == many.driver_bytes
    assert many.network_bytes - few.network_bytes == 10 * 999 * 4e6, "the model, once to each node and round"


def test_what_each_stage_grows_with() -> None:
    assert rows(2000, 10, 10, 4, 1).files == 2 * rows(1000, 10, 10, 4, 1).files == 4000
    assert rows(1_000_000, 10, 10, 2).files == 2 * 123  # as measured: 246 files for a million rows
    assert rounds(800, 5, 1e6, 4).driver_bytes == pytest.approx(2 * rounds(400, 5, 1e6, 4).driver_bytes, rel=0.01)
    assert training(1e9, 1, 10, 1).network_bytes == 0
    assert training(1e9, 64, 10, 1).driver_s == training(7e10, 64, 1000, 1).driver_s


def test_stages_after_each_other_add_up_but_for_what_is_held() -> None:
    both = Cost(1, 2, 3, 40, 5) + Cost(10, 20, 30, 4, 50)
    assert both == Cost(11, 22, 33, 40, 55)


def test_every_job_is_made_of_these() -> None:
    assert PARTS.keys() == registry.list_jobs().keys()
    assert {part for parts in PARTS.values() for part in parts} == {"rows", "rounds", "training"}
