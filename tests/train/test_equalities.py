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
STEPS, SAVED, CUT = 6, 3, 5
LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}
QLORA = {**LORA, "quantize": "nf4"}


def spec(zero: int, micro: int = 2, batch: int = 4, **settings: Any) -> dict[str, Any]:
    return {
        "steps": STEPS,
        "batch_size": batch,
        "micro_batch_size": micro,
        "optimizer": {"learning_rate": 1e-2, "weight_decay": 0.01},
        "sharding": {"zero": zero},
        "checkpoint": {"every": SAVED, "keep_last": 5},
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
"""What is cut off at step CUT and gone on with from the checkpoint of step SAVED."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def scenario(stores: Path, tiny_model: str) -> Any:
    def make(name: str, **settings: Any) -> dict[str, Any]:
        return {"name": name, "store": str(stores / name), "model": tiny_model, **settings}

    return make


def dealt_out(workers: int) -> dict[str, dict[str, Any]]:
    """Eight rows a step, at once and one by one, under every ZeRO stage."""
    cases = itertools.product(range(4), (1, 8 // workers))
    name = "{} workers, zero {}, {} rows at once".format
    return {name(workers, zero, micro): {"spec": spec(zero, micro, batch=8)} for zero, micro in cases}


SHARDED_QLORA = {f"qlora zero {zero}": {"spec": spec(zero), "lora": QLORA} for zero in range(4)}
MEASURED_STEPS = 10
MEASURED = {
    "spec": spec(
        1,
        steps=MEASURED_STEPS,
        checkpoint={"every": 2, "keep_last": 1, "keep_best": True},
        evaluate_every=3,
        optimizer={"learning_rate": 0.3},
        schedule={"kind": "constant", "warmup_ratio": 0.9},
    )
}


@pytest.fixture(scope="module")
def answers(run_group: RunGroup, scenario: Any, stores: Path) -> Answers:
    """Every variant whole on one worker; cut off on one and gone on with on one, and on two; and the other runs.

    One group of each size: a process takes longer to start than a run.
    """
    variants = VARIANTS.items()
    one = [scenario(f"whole {name}", **given) for name, given in variants]
    one += [scenario(f"cut {name}", cut_at=CUT, **given) for name, given in variants]
    one += [scenario(f"{name} 1", begins_with=str(stores / f"cut {name}"), **given) for name, given in variants]
    one += [scenario(name, **given) for name, given in dealt_out(1).items()]
    one.append(scenario("measured", **MEASURED))
    two = [scenario(f"{name} 2", begins_with=str(stores / f"cut {name}"), **given) for name, given in variants]
    two += [scenario(name, **given) for name, given in (dealt_out(2) | SHARDED_QLORA).items()]
    return run_group(1, one) | run_group(2, two)


def losses(answer: dict[str, Any]) -> list[float]:
    return [answer["steps"][str(step)]["loss"] for step in range(1, STEPS + 1)]


def weights(stores: Path, store: str) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(stores / store / "weights.pt", weights_only=True)
    return loaded


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_gone_on_with_ends_as_if_it_had_not_stopped(answers: Answers, stores: Path, name: str) -> None:
    assert "Cut" in answers[f"cut {name}"]["error"]
    assert list(answers[f"{name} 1"]["steps"]) == [str(step) for step in range(SAVED + 1, STEPS + 1)]
    whole = weights(stores, f"whole {name}")
    for weight, value in weights(stores, f"{name} 1").items():
        torch.testing.assert_close(value, whole[weight], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_so_does_one_that_goes_on_with_other_workers(answers: Answers, stores: Path, name: str) -> None:
    assert not answers[f"{name} 2"]["error"]
    assert list(answers[f"{name} 2"]["steps"]) == [str(step) for step in range(SAVED + 1, STEPS + 1)]
    whole = weights(stores, f"whole {name}")
    for weight, value in weights(stores, f"{name} 2").items():
        torch.testing.assert_close(value, whole[weight], rtol=0, atol=1e-4)


def test_the_loss_does_not_depend_on_sharding_workers_or_accumulation(answers: Answers) -> None:
    """Eight rows a step of different lengths: ZeRO 0 to 3, one and two workers, 1×8 and 8×1 (4×1 on two workers)."""
    reference = losses(answers["1 workers, zero 0, 8 rows at once"])
    assert reference[-1] < reference[0] - 0.1
    for name in dealt_out(1) | dealt_out(2):
        assert losses(answers[name]) == pytest.approx(reference, abs=1e-4), name


def test_qlora_does_not_depend_on_sharding(answers: Answers) -> None:
    """bitsandbytes and ZeRO 3 do not go together; the 4-bit weights are kept out of it."""
    first, *others = (losses(answers[name]) for name in SHARDED_QLORA)
    for values in others:
        assert values == pytest.approx(first, abs=1e-4)


def test_in_bf16_the_stages_begin_alike_and_stay_close(answers: Answers) -> None:
    """Rotary frequencies stay float32, which DeepSpeed rounds at one stage and transformers at another."""
    two, three = (answers[f"whole bf16 zero {zero}"]["steps"] for zero in (2, 3))
    assert two["1"]["loss"] == pytest.approx(three["1"]["loss"], abs=1e-6)
    assert two[str(STEPS)]["loss"] == pytest.approx(three[str(STEPS)]["loss"], abs=0.02)


def test_held_out_loss_and_average_do_not_depend_on_workers(answers: Answers, stores: Path) -> None:
    one = answers["whole zero 2"]["steps"][str(STEPS)]["held_out_loss"]
    two = answers["zero 2 2"]["steps"][str(STEPS)]["held_out_loss"]
    assert one == pytest.approx(two, abs=1e-5)
    from squadron.core.folder import Folder
    from squadron.train.checkpoints.checkpoint import AVERAGE, Reader

    averages = []
    for store in ("whole zero 2", "zero 2 2", "zero 3 2"):
        with Reader(Folder(stores / store), STEPS) as reader:
            averages.append(dict(reader.tensors(AVERAGE)))
    plain = weights(stores, "whole zero 2")
    for name, value in averages[0].items():
        assert not torch.equal(value, plain[name])
        for other in averages[1:]:
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-4)


def test_the_best_checkpoint_is_the_one_that_was_measured_best(answers: Answers, stores: Path) -> None:
    from squadron.core.folder import Folder
    from squadron.train.checkpoints.commits import best_step, complete_steps

    steps = answers["measured"]["steps"]
    measured = {step: steps[str(step)]["held_out_loss"] for step in range(2, MEASURED_STEPS + 1, 2)}
    best = min(measured, key=lambda step: measured[step])
    assert best < MEASURED_STEPS, "the learning rate rises until it does harm"
    store = Folder(stores / "measured")
    assert best_step(store) == best and complete_steps(store) == [best, MEASURED_STEPS]
    assert "held_out_loss" in steps["3"] and "held_out_loss" not in steps["5"]
