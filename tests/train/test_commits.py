"""Weights and the numbers reported of them are there together or not at all, whatever ends a training and whatever
happens to its files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.drivers import LIB
from tests.train import cuts


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = str(tmp_path_factory.mktemp("cuts"))
    environment = {**os.environ, "PYTHONPATH": f"{LIB}:{LIB.parent}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.cuts", folder], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ends: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return ends


def test_a_training_that_is_cut_off_anywhere_ends_with_the_same_weights_and_numbers(found: dict[str, Any]) -> None:
    whole = found["undisturbed"]
    assert [row["step"] for row in whole["curve"]] == list(range(1, cuts.STEPS + 1))
    assert [row["step"] for row in whole["curve"] if "held_out_loss" in row] == [2, 4, 6]
    ends = {name: end for name, end in found.items() if name.startswith("cut ")}
    assert found["writes, False"] == found["writes, True"] >= 9
    assert len(ends) == cuts.STEPS + 2 * found["writes, True"]
    assert {name for name, end in ends.items() if end != whole} == set()


def test_a_damaged_checkpoint_is_passed_over_with_a_warning_that_names_the_file(found: dict[str, Any]) -> None:
    whole = found["undisturbed"]
    for file in ("rank-00-of-01.safetensors", "curve.jsonl", "complete.json"):
        for damage in cuts.DAMAGES:
            end = found[f"{file} {damage}"]
            warned = end.pop("warned")
            assert end == whole, (file, damage)
            if (file, damage) != ("complete.json", "gone"):  # that is no checkpoint
                assert len(warned) == 1 and file in warned[0] and "from step 4" in warned[0], (file, damage)


def test_where_all_checkpoints_are_damaged_training_does_not_begin_anew_by_itself(found: dict[str, Any]) -> None:
    refused = found["all damaged"]["refused"]
    assert "step-000006/rank-00-of-01.safetensors" in refused and "to train from the beginning" in refused
