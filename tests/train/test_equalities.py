"""The same training, however it is sharded, dealt out, accumulated, cut off and gone on with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

Answers = dict[str, dict[str, Any]]
RunGroup = Callable[[int, Sequence[dict[str, Any]]], Answers]
STEPS = 20
LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}
QLORA = {**LORA, "quantize": "nf4"}


def spec(zero: int, micro: int = 2, batch: int = 4, **settings: Any) -> dict[str, Any]:
    return {
        "steps": STEPS,
        "batch_size": batch,
        "micro_batch_size": micro,
        "optimizer": {"learning_rate": 1e-2, "weight_decay": 0.01},
        "sharding": {"zero": zero},
        "checkpoint": {"every": 10, "keep_last": 5},
        **settings,
    }


VARIANTS: dict[str, dict[str, Any]] = {
    **{f"zero {zero}": {"spec": spec(zero, ema_decay=0.9)} for zero in range(4)},
    "bf16 zero 2": {"spec": spec(2, precision="bf16")},
    "bf16 zero 3": {"spec": spec(3, precision="bf16")},
    "lora": {"spec": spec(3), "lora": LORA},
    "qlora": {"spec": spec(2), "lora": QLORA},
    "packed": {"spec": spec(1, packing=True, max_length=64)},
    "chunks and recomputation": {"spec": spec(3, activation_checkpointing=True, loss_chunk=16)},
    "optimiser offloaded": {"spec": spec(2) | {"sharding": {"zero": 2, "offload_optimizer": "cpu"}}},
    "all offloaded": {
        "spec": spec(3) | {"sharding": {"zero": 3, "offload_optimizer": "cpu", "offload_weights": "cpu"}}
    },
    "dpo": {"spec": spec(3), "objective": "dpo"},
    "reward": {"spec": spec(2), "objective": "reward"},
    "classification": {"spec": spec(3), "objective": "classification"},
    "contrastive": {"spec": spec(1), "objective": "contrastive"},
}
"""What is cut off at step 13 and gone on with from the checkpoint of step 10."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def scenario(stores: Path, tiny_model: str) -> Any:
    def make(name: str, store: str | None = None, **settings: Any) -> dict[str, Any]:
        return {"name": name, "store": str(stores / (store or name)), "model": tiny_model, **settings}

    return make


@pytest.fixture(scope="module")
def cut_and_resumed(run_group: RunGroup, scenario: Any) -> dict[str, Answers]:
    """Every variant whole on one worker; cut off on one and gone on with on one; and cut off on one, then on two."""
    variants = VARIANTS.items()
    first = [scenario(f"whole {name}", **given) for name, given in variants]
    first += [scenario(f"cut {name} {n}", f"{name} {n}", cut_at=13, **v) for name, v in variants for n in (1, 2)]
    first += [scenario(f"{name} 1", f"{name} 1", **given) for name, given in variants]
    one = run_group(1, first)
    two = run_group(2, [scenario(f"{name} 2", f"{name} 2", **given) for name, given in variants])
    return {"one": one, "two": two}


def weights(stores: Path, store: str) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(stores / store / "weights.pt", weights_only=True)
    return loaded


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_gone_on_with_ends_as_if_it_had_not_stopped(
    cut_and_resumed: dict[str, Answers], stores: Path, name: str
) -> None:
    assert "Cut" in cut_and_resumed["one"][f"cut {name} 1"]["error"]
    assert list(cut_and_resumed["one"][f"{name} 1"]["steps"]) == [str(step) for step in range(11, STEPS + 1)]
    whole = weights(stores, f"whole {name}")
    for weight, value in weights(stores, f"{name} 1").items():
        torch.testing.assert_close(value, whole[weight], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_so_does_one_that_goes_on_with_other_workers(
    cut_and_resumed: dict[str, Answers], stores: Path, name: str
) -> None:
    assert not cut_and_resumed["two"][f"{name} 2"]["error"]
    whole = weights(stores, f"whole {name}")
    for weight, value in weights(stores, f"{name} 2").items():
        torch.testing.assert_close(value, whole[weight], rtol=0, atol=1e-4)


def test_the_loss_does_not_depend_on_sharding_workers_or_accumulation(run_group: RunGroup, scenario: Any) -> None:
    """Eight rows a step of different lengths: ZeRO 0 to 3, one and two workers, 1×8 and 8×1 (4×1 on two workers)."""
    losses: dict[str, list[float]] = {}
    for workers in (1, 2):
        cases = [
            scenario(f"{workers} workers, zero {zero}, {micro} rows at once", spec=spec(zero, micro, batch=8))
            for zero, micro in itertools.product(range(4), (1, 8 // workers))
        ]
        answers = run_group(workers, cases)
        losses |= {
            name: [answer["steps"][str(n)]["loss"] for n in range(1, STEPS + 1)] for name, answer in answers.items()
        }
    reference = losses["1 workers, zero 0, 8 rows at once"]
    assert reference[-1] < reference[0] - 0.1
    for name, values in losses.items():
        assert values == pytest.approx(reference, abs=1e-4), name


def test_qlora_does_not_depend_on_sharding(run_group: RunGroup, scenario: Any) -> None:
    """bitsandbytes and ZeRO 3 do not go together; the 4-bit weights are kept out of it."""
    cases = [scenario(f"qlora zero {zero}", spec=spec(zero), lora=QLORA) for zero in range(4)]
    answers = run_group(2, cases)
    losses = [[answers[case["name"]]["steps"][str(n)]["loss"] for n in range(1, STEPS + 1)] for case in cases]
    for values in losses[1:]:
        assert values == pytest.approx(losses[0], abs=1e-4)


def test_in_bf16_the_stages_begin_alike_and_stay_close(cut_and_resumed: dict[str, Answers]) -> None:
    """Rotary frequencies stay float32, which DeepSpeed rounds at one stage and transformers at another."""
    two, three = (cut_and_resumed["one"][f"whole bf16 zero {zero}"]["steps"] for zero in (2, 3))
    assert two["1"]["loss"] == pytest.approx(three["1"]["loss"], abs=1e-6)
    assert two[str(STEPS)]["loss"] == pytest.approx(three[str(STEPS)]["loss"], abs=0.02)


def test_held_out_loss_and_average_do_not_depend_on_workers(cut_and_resumed: dict[str, Answers], stores: Path) -> None:
    one = cut_and_resumed["one"]["whole zero 2"]["steps"][str(STEPS)]["held_out_loss"]
    two = cut_and_resumed["two"]["zero 2 2"]["steps"][str(STEPS)]["held_out_loss"]
    assert one == pytest.approx(two, abs=1e-5)
    from squadron.core.folder import Folder
    from squadron.train.checkpoint import AVERAGE, Reader

    averages = []
    for store in ("whole zero 2", "zero 2 2", "zero 3 2"):
        with Reader(Folder(stores / store), STEPS) as reader:
            averages.append(dict(reader.tensors(AVERAGE)))
    plain = weights(stores, "whole zero 2")
    for name, value in averages[0].items():
        assert not torch.equal(value, plain[name])
        for other in averages[1:]:
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-4)


def test_the_best_checkpoint_is_the_one_that_was_measured_best(
    run_group: RunGroup, scenario: Any, stores: Path
) -> None:
    from squadron.core.folder import Folder
    from squadron.train.checkpoint import best_step, complete_steps

    keep = {"every": 4, "keep_last": 1, "keep_best": True}
    rising = {"kind": "constant", "warmup_ratio": 0.9}
    fast = spec(1, checkpoint=keep, evaluate_every=3, optimizer={"learning_rate": 0.3}, schedule=rising)
    steps = run_group(1, [scenario("best", spec=fast)])["best"]["steps"]
    measured = {step: steps[str(step)]["held_out_loss"] for step in range(4, STEPS + 1, 4)}
    best = min(measured, key=lambda step: measured[step])
    assert best < STEPS, "the learning rate rises until it does harm"
    store = Folder(stores / "best")
    assert best_step(store) == best and complete_steps(store) == [best, STEPS]
    assert "held_out_loss" in steps["3"] and "held_out_loss" not in steps["5"]
