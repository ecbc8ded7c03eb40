"""How often the scripted expert succeeds, and how fast the simulation runs.

python -m squadron.sim.manipulation.check --task close_box --environments 50
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from squadron.evaluate.statistics import wilson_interval
from squadron.sim.manipulation.env import ManipulationEnv
from squadron.sim.manipulation.expert import rollout
from squadron.sim.manipulation.spec import sample_environment
from squadron.sim.manipulation.tasks import TASKS


def main() -> None:
    """Play episodes in many environments, without a camera, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(TASKS), default="close_box")
    parser.add_argument("--environments", type=int, default=50)
    parser.add_argument("--episodes", type=int, default=1, help="episodes in each environment")
    parser.add_argument("--first", type=int, default=0, help="client id of the first environment")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--action-noise", type=float, default=0.0)
    options = parser.parse_args()

    steps, successes, failures, seconds = [], [], [], 0.0
    for client_id in range(options.first, options.first + options.environments):
        env = ManipulationEnv(sample_environment(options.task, client_id, options.seed), image_size=0)
        for episode_seed in range(options.episodes):
            start = time.perf_counter()
            episode = rollout(env, episode_seed, options.action_noise)
            seconds += time.perf_counter() - start
            steps.append(len(episode.actions_TA))
            successes.append(episode.success)
            if not episode.success:
                failures.append((client_id, episode_seed))
    low, high = wilson_interval(sum(successes), len(successes))
    done = np.array(steps)[successes]
    print(f"{options.task}: {sum(successes)} of {len(successes)} episodes succeed", end=" ")
    print(f"({100 * np.mean(successes):.1f} %, 95 % interval {100 * low:.1f} to {100 * high:.1f})")
    if done.size:
        print(f"steps to success: mean {done.mean():.1f}, from {done.min()} to {done.max()}")
    print(f"{sum(steps) / seconds:.0f} steps/s with the expert, without the camera")
    if failures:
        print("failed (client id, episode seed):", *failures[:20])


if __name__ == "__main__":
    main()
