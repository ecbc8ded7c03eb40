"""FLAME's mathematics: the network of the public code, behaviour cloning, FedProx, and the maps of actions."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from squadron.methods.flame import algorithm
from squadron.methods.flame.algorithm import (
    BCPolicy,
    Demonstrations,
    Optimisation,
    fit,
    make_optimiser,
    mean_squared_error,
    predict,
    random_shift,
    split_episodes,
    to_environment_range,
    to_policy_range,
)
from squadron.methods.flame.plan import policy_parameters


def _data(steps: int = 40, size: int = 16, seed: int = 0) -> Demonstrations:
    rng = np.random.default_rng(seed)
    return Demonstrations(
        rng.integers(0, 256, (steps, size, size, 3), dtype=np.uint8),
        rng.normal(size=(steps, 8)).astype(np.float32),
        rng.uniform(-1, 1, (steps, 8)).astype(np.float32),
    )


@pytest.mark.parametrize("size", [64, 128])
def test_the_network_is_that_of_the_public_code(size: int) -> None:
    policy = BCPolicy(size)
    shapes = [tuple(parameter.shape) for parameter in policy.parameters() if parameter.dim() > 1]
    flat = 128 * (size // 8) ** 2
    assert shapes == [
        (32, 3, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (256, flat), (256, 8), (128, 256), (512, 384), (8, 512),
    ]  # fmt: skip
    assert sum(p.numel() for p in policy.parameters()) == policy_parameters(size)
    action_BA = policy(torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8), torch.randn(2, 8) * 100)
    assert action_BA.shape == (2, 8) and action_BA.abs().max() <= 1


def test_pixels_are_mapped_to_minus_one_and_one() -> None:
    policy = BCPolicy(16)
    seen: list[torch.Tensor] = []
    policy.vision.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image_BHWC = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    image_BHWC[0, 2, 5, 1] = 255
    policy(image_BHWC, torch.zeros(1, 8))
    assert seen[0].shape == (1, 3, 16, 16) and seen[0][0, 1, 2, 5] == 1 and seen[0].sum() == 2 - 3 * 16 * 16


@given(arrays(np.float32, (5, 8), elements=st.floats(0, 1, width=32)))
def test_action_maps_are_inverse_and_touch_only_the_gripper(action_NA: np.ndarray) -> None:
    scaled_NA = to_policy_range(action_NA)
    assert np.array_equal(scaled_NA[:, :7], action_NA[:, :7])
    assert np.allclose(scaled_NA[:, 7], 2 * action_NA[:, 7] - 1)
    assert np.allclose(to_environment_range(scaled_NA), action_NA, atol=1e-6)


@given(st.integers(2, 1000))
def test_nine_tenths_train_and_at_least_one_episode_validates(episodes: int) -> None:
    train = split_episodes(episodes)
    assert 1 <= train < episodes and train == max(1, min(episodes - 1, math.floor(0.9 * episodes)))


def test_one_step_equals_a_plain_adam_step() -> None:
    data = _data(steps=32)
    policy, reference = BCPolicy(16), BCPolicy(16)
    reference.load_state_dict(policy.state_dict())
    loss = fit(policy, data, Optimisation(epochs=1, batch_size=32), seed=0)

    images = torch.from_numpy(data.images_NHWC).permute(0, 3, 1, 2).float() / 255
    features = torch.cat(
        [reference.vision((images - 0.5) / 0.5), reference.proprioception(torch.from_numpy(data.states_NS))],
        1,
    )
    expected = nn.functional.mse_loss(reference.head(features), torch.from_numpy(data.actions_NA))
    optimiser = torch.optim.Adam(reference.parameters(), lr=1e-3, weight_decay=1e-5)
    expected.backward()
    optimiser.step()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(policy.parameters(), reference.parameters(), strict=True):
        # Adam divides by the gradient's size, so a rounding of a tiny gradient moves a weight by up to 2 lr.
        assert torch.quantile((ours - theirs).abs().flatten()[:100_000], 0.999) < 1e-5


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    def train(seed: int) -> torch.Tensor:
        torch.manual_seed(0)
        policy = BCPolicy(16)
        fit(policy, _data(), Optimisation(epochs=2, batch_size=8, shift_px=2), seed)
        return nn.utils.parameters_to_vector(policy.parameters())

    assert torch.equal(train(1), train(1)) and not torch.equal(train(1), train(2))


def test_the_proximal_term_keeps_weights_near_the_global_model() -> None:
    def distance(mu: float) -> float:
        torch.manual_seed(0)
        policy = BCPolicy(16)
        start = nn.utils.parameters_to_vector(policy.parameters()).detach().clone()
        fit(policy, _data(), Optimisation(epochs=3, batch_size=8, proximal_mu=mu), seed=0)
        return float((nn.utils.parameters_to_vector(policy.parameters()) - start).detach().norm())

    assert distance(10.0) < 0.8 * distance(0.0)


def test_the_proximal_gradient_is_mu_times_the_displacement() -> None:
    layer = nn.Linear(3, 2)
    anchor = [p.detach() - 0.5 for p in layer.parameters()]
    (0.3 / 2 * algorithm._squared_distance(layer, anchor)).backward()  # type: ignore[arg-type]
    for parameter in layer.parameters():
        assert torch.allclose(parameter.grad, torch.full_like(parameter, 0.3 * 0.5))  # type: ignore[arg-type]


def test_max_steps_bounds_a_visit_and_training_goes_on_with_a_given_optimiser() -> None:
    policy = BCPolicy(16)
    optimiser = make_optimiser(policy, Optimisation())
    for _ in range(2):
        fit(policy, _data(), Optimisation(epochs=9, batch_size=8, max_steps=3), seed=0, optimiser=optimiser)
    assert {int(state["step"]) for state in optimiser.state.values()} == {6}


def test_a_policy_learns_what_can_be_learnt() -> None:
    data = _data(64)
    policy = BCPolicy(16)
    before = mean_squared_error(policy, data)
    fit(policy, data, Optimisation(epochs=60, batch_size=16), seed=0)
    assert mean_squared_error(policy, data) < 0.1 * before


def test_predictions_do_not_depend_on_the_batch() -> None:
    policy, data = BCPolicy(16), _data(21)
    whole = predict(policy, data.images_NHWC, data.states_NS)
    assert np.allclose(whole, predict(policy, data.images_NHWC, data.states_NS, batch_size=4), atol=1e-5)


def test_a_shift_moves_each_image_by_whole_pixels_and_repeats_edges() -> None:
    image_BHWC = torch.arange(2 * 6 * 6 * 3, dtype=torch.int32).reshape(2, 6, 6, 3)
    moved = random_shift(image_BHWC, 2, torch.Generator().manual_seed(3))
    for image_HWC, result_HWC in zip(image_BHWC, moved, strict=True):
        matches = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if torch.equal(
                result_HWC,
                image_HWC[(torch.arange(6) + dy).clamp(0, 5)][:, (torch.arange(6) + dx).clamp(0, 5)],
            )
        ]
        assert len(matches) == 1
    assert torch.equal(random_shift(image_BHWC, 0, torch.Generator()), image_BHWC)


def test_the_algorithm_never_imports_ray() -> None:
    tree = ast.parse(Path(algorithm.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name.split(".")[0] in ("ray", "flwr") for name in names)


def test_bf16_trains_float32_weights_to_nearly_the_same_loss() -> None:
    def loss(bf16: bool) -> float:
        torch.manual_seed(0)
        policy = BCPolicy(16)
        value = fit(policy, _data(64), Optimisation(epochs=10, batch_size=16, bf16=bf16), seed=0)
        assert all(p.dtype == torch.float32 for p in policy.parameters())
        return value

    assert loss(True) == pytest.approx(loss(False), rel=0.1)


def test_automatic_precision_is_what_the_processor_has() -> None:
    from squadron.methods.flame.client import multiplies_bf16, optimisation
    from squadron.methods.flame.config import TrainingConfig

    chosen = {
        precision: optimisation(TrainingConfig(precision=precision)).bf16 for precision in ("fp32", "bf16", "auto")
    }
    assert chosen == {"fp32": False, "bf16": True, "auto": multiplies_bf16()}
