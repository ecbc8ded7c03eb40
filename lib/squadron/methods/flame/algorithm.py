"""The policy of FLAME and how one client trains it: pure PyTorch, no Ray, no Flower.

Shapes: B batch, H image height, W image width, C colour channels, S state size, A action size.
`images` are uint8 with channels last, as a camera delivers them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


class BCPolicy(nn.Module):
    """Image and joint state in, action out: the network of FLAME's public code (`BCPolicy`).

    Three 3×3 convolutions of stride 2 (32, 64, 128 channels), flattened into 256; the state through 256 and 128; both
    concatenated, through 512, to the action. The last activation is a tanh, so actions lie in [-1, 1].
    """

    def __init__(self, image_size: int = 64, state_size: int = 8, action_size: int = 8) -> None:
        super().__init__()
        side = image_size
        for _ in range(3):
            side = (side + 1) // 2
        self.vision = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128 * side * side, 256),
            nn.ReLU(),
        )
        self.proprioception = nn.Sequential(
            nn.Linear(state_size, 256),
            nn.ReLU(),
            nn.Linear(256, 128),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Linear(256 + 128, 512), nn.ReLU(), nn.Linear(512, action_size), nn.Tanh())

    def forward(self, image_BHWC: Tensor, state_BS: Tensor) -> Tensor:
        """Actions `[B, A]` in [-1, 1] for uint8 images `[B, H, W, 3]` and float states `[B, S]`."""
        # The images stay channels-last in memory: a sixth of a training step in bfloat16 against a copy of them.
        image_BCHW = (image_BHWC.float() / 127.5 - 1.0).permute(0, 3, 1, 2)
        features = torch.cat([self.vision(image_BCHW), self.proprioception(state_BS)], dim=1)
        action_BA: Tensor = self.head(features)
        return action_BA


@dataclass(frozen=True)
class Demonstrations:
    """Steps of one or more homes: uint8 images, float32 states, float32 actions in the policy's range [-1, 1]."""

    images_NHWC: np.ndarray
    states_NS: np.ndarray
    actions_NA: np.ndarray

    def __len__(self) -> int:
        return len(self.actions_NA)


@dataclass(frozen=True)
class Optimisation:
    """How a policy is fitted: Adam, mean squared error; optional proximal term, random shifts, bf16 multiplication."""

    epochs: int = 5
    max_steps: int | None = None
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    shift_px: int = 0
    proximal_mu: float = 0.0
    bf16: bool = False


def to_policy_range(action_NA: np.ndarray) -> np.ndarray:
    """Environment actions (velocities in [-1, 1], gripper in [0, 1]) as targets of the tanh: gripper to [-1, 1].

    The public code leaves the gripper at 0 or 1 in training and maps it back at evaluation, so that a closed gripper
    is learnt as 0.5; here both directions use the same map.
    """
    scaled_NA = np.array(action_NA, dtype=np.float32)
    scaled_NA[..., 7] = 2 * scaled_NA[..., 7] - 1
    return scaled_NA


def to_environment_range(action_NA: np.ndarray) -> np.ndarray:
    """The inverse of `to_policy_range`."""
    scaled_NA = np.array(action_NA, dtype=np.float32)
    scaled_NA[..., 7] = (scaled_NA[..., 7] + 1) / 2
    return scaled_NA


def split_episodes(episodes: int) -> int:
    """How many of a home's episodes train; the last tenth, and at least one, validates (public code: 0.9)."""
    return max(1, min(episodes - 1, math.floor(0.9 * episodes)))


def make_optimiser(policy: nn.Module, settings: Optimisation) -> torch.optim.Optimizer:
    """Adam with FLAME's learning rate and weight decay."""
    return torch.optim.Adam(
        policy.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )


def fit(
    policy: nn.Module,
    data: Demonstrations,
    settings: Optimisation,
    seed: int,
    optimiser: torch.optim.Optimizer | None = None,
) -> float:
    """Behaviour cloning on `data`; trains `policy` in place and returns the mean loss over all batches.

    The loss is the mean squared error, plus FedProx's `mu / 2 * ||w - w_0||²` (arXiv 1812.06127, equation 2) where
    `proximal_mu` is set. Without an `optimiser` a new one is made, as the public code does at each visit. The same
    seed gives the same weights on the same number of threads.
    """
    device = next(policy.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    anchor = [parameter.detach().clone() for parameter in policy.parameters()] if settings.proximal_mu else []
    optimiser = optimiser or make_optimiser(policy, settings)
    policy.train()
    total, steps = 0.0, 0
    for image_BHWC, state_BS, action_BA in _batches(data, settings, generator, device):
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
            predicted_BA = policy(image_BHWC, state_BS)
        loss = nn.functional.mse_loss(predicted_BA.float(), action_BA)
        total, steps = total + loss.item(), steps + 1
        if anchor:
            loss = loss + settings.proximal_mu / 2 * _squared_distance(policy, anchor)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return total / max(1, steps)


@torch.inference_mode()
def predict(policy: nn.Module, images_NHWC: np.ndarray, states_NS: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Actions in environment range, `[N, A]` float32."""
    device = next(policy.parameters()).device
    policy.eval()
    parts = [
        policy(
            torch.from_numpy(np.ascontiguousarray(images_NHWC[i : i + batch_size])).to(device),
            torch.from_numpy(np.ascontiguousarray(states_NS[i : i + batch_size], dtype=np.float32)).to(device),
        )
        for i in range(0, len(images_NHWC), batch_size)
    ]
    return to_environment_range(torch.cat(parts).cpu().numpy())


def mean_squared_error(policy: nn.Module, data: Demonstrations) -> float:
    """Mean squared error over all steps and action dimensions, in the policy's range (the training loss)."""
    predicted_NA = to_policy_range(predict(policy, data.images_NHWC, data.states_NS))
    return float(np.mean(np.square(predicted_NA - data.actions_NA, dtype=np.float64)))


def random_shift(image_BHWC: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Each image moved by its own whole number of pixels, up to `pixels` in each direction, edges repeated."""
    B, H, W, _ = image_BHWC.shape
    starts = torch.randint(0, 2 * pixels + 1, (B, 2), generator=generator).tolist()
    rows, columns = (torch.arange(-pixels, side + pixels).clamp(0, side - 1) for side in (H, W))
    padded_BHWC = image_BHWC.index_select(1, rows).index_select(2, columns)
    return torch.stack([image[y : y + H, x : x + W] for image, (y, x) in zip(padded_BHWC, starts, strict=True)])


def _batches(
    data: Demonstrations, settings: Optimisation, generator: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    images, states, actions = (torch.from_numpy(a) for a in (data.images_NHWC, data.states_NS, data.actions_NA))
    taken = 0
    for _ in range(settings.epochs):
        for index_B in torch.randperm(len(data), generator=generator).split(settings.batch_size):
            if taken == settings.max_steps:
                return
            taken += 1
            image_BHWC = images[index_B]
            if settings.shift_px:
                image_BHWC = random_shift(image_BHWC, settings.shift_px, generator)
            yield image_BHWC.to(device), states[index_B].to(device), actions[index_B].to(device)


def _squared_distance(policy: nn.Module, anchor: list[Tensor]) -> Tensor:
    return torch.stack([(p - a).square().sum() for p, a in zip(policy.parameters(), anchor, strict=True)]).sum()
