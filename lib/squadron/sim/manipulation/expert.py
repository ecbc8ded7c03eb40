"""Demonstrations: a scripted expert acts, and what it saw and did is kept.

Legend: T steps, H, W pixels, C RGB, S the 8 numbers of the state, A the 8 numbers of an action.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from squadron.sim.manipulation.env import ManipulationEnv

_MEMORY = 0.85
"""Share of the disturbance that remains from one step of 50 ms to the next: it lasts for about 0.3 s."""


@dataclass(frozen=True)
class Episode:
    """One demonstration of T steps.

    Step t saw `images_THWC[t]` (uint8) and `states_TS[t]` (float32), and the expert's answer was
    `actions_TA[t]` (float32). Of what followed the last action, only `success` is kept.
    """

    images_THWC: np.ndarray
    states_TS: np.ndarray
    actions_TA: np.ndarray
    success: bool


def rollout(env: ManipulationEnv, episode_seed: int, action_noise: float = 0.0) -> Episode:
    """Let the expert play one episode, to success or to the environment's last step.

    With `action_noise` above 0, the joint velocities that are executed are the expert's plus a disturbance of
    this standard deviation (in units of the action, correlated over time), while the expert's own answer is
    what is kept: the demonstrations then also show how to come back to the path (DART, Laskey et al. 2017).
    """
    rng = np.random.default_rng((env.spec.seed, env.spec.client_id, episode_seed, 1))
    observation, done, reward = env.reset(episode_seed), False, 0.0
    disturbance_7 = rng.normal(0.0, action_noise, 7)
    images, states, actions = [], [], []
    while not done:
        action_A = env.task.expert(env.scene)
        images.append(observation.image_HWC)
        states.append(observation.state_S)
        actions.append(action_A.astype(np.float32))
        executed_A = action_A.copy()
        executed_A[:7] += disturbance_7
        observation, reward, done = env.step(executed_A)
        fresh_7 = rng.normal(0.0, action_noise, 7)
        disturbance_7 = _MEMORY * disturbance_7 + np.sqrt(1.0 - _MEMORY**2) * fresh_7
    return Episode(
        images_THWC=np.stack(images),
        states_TS=np.stack(states),
        actions_TA=np.stack(actions),
        success=bool(reward > 0.0),
    )
