"""Rounds a second of Squadron's grid beside Flower's own simulation engine, the same ClientApp on both sides.

    python tests/bench/bench_federated.py                     # both local step counts, three alternating runs each
    python tests/bench/bench_federated.py --venv DIRECTORY    # where the engine's environment is, or shall be made

The engine pins another Ray, so it has an environment of its own, made with pip on first use. `grid` is Flower's
Strategy.start on RayGrid; `federate` is Squadron's round loop, which also saves the whole state after every round.
The bar: `federate` makes 2 times the engine's rounds a second at one local step, and 1.1 times at twenty.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
LIBRARY = HERE.parents[1] / "lib"
SIDES = ("engine", "grid", "federate")
BARS = {1: 2.0, 20: 1.1}
WARM_UP = 2  # rounds in which workers still load their libraries


class _Stopwatch:
    """An evaluate_fn that notes when each round ends."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def __call__(self, *_: Any) -> None:
        self.ticks.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        return [float(second) for second in np.diff(self.ticks)]


def run_engine(local_steps: int, rounds: int) -> list[float]:
    """Flower's simulation engine: its own Ray, two workers. Returns seconds of each round."""
    from federated_app import CLIENTS, app, arguments, strategy
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    watch, server = _Stopwatch(), ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy().start(grid, num_rounds=rounds, evaluate_fn=watch, **arguments(local_steps))

    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 2}}
    run_simulation(server, app, num_supernodes=CLIENTS, backend_config=resources)  # type: ignore[arg-type]
    return watch.seconds


def run_squadron(local_steps: int, rounds: int, saving: bool) -> list[float]:
    """Squadron's grid with two workers. Returns seconds of each round."""
    from federated_app import CLIENTS, arguments, strategy

    from squadron.core.cluster import connect
    from squadron.core.folder import Folder
    from squadron.federated import RayGrid, federate

    connect(cpus=2)
    watch = _Stopwatch()
    with RayGrid("federated_app:app", CLIENTS, max_workers=2) as grid, tempfile.TemporaryDirectory() as folder:
        if saving:
            federate(
                grid,
                strategy(),
                num_rounds=rounds,
                folder=Folder(folder),
                on_round=watch,
                **arguments(local_steps),
            )
            return watch.seconds
        strategy().start(grid, num_rounds=rounds, evaluate_fn=watch, **arguments(local_steps))
    return watch.seconds


def measure(side: str, python: str, local_steps: int, rounds: int) -> float:
    """Rounds a second of one run in a process of its own, warm-up left out."""
    command = [python, __file__, "--side", side, "--local-steps", str(local_steps), "--rounds", str(rounds + WARM_UP)]
    environment = {**os.environ, "PYTHONPATH": f"{LIBRARY}{os.pathsep}{HERE}", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["RAY_ADDRESS"] = "local"  # a Ray of its own, whatever else runs on this machine
    environment["RAY_worker_niceness"] = "0"  # on both sides; Ray's own default lets workers starve on a busy machine
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    seconds = json.loads(done.stdout.strip().splitlines()[-1])[WARM_UP:]
    return 1 / statistics.median(seconds)


def prepare_engine(folder: Path) -> str:
    """The interpreter of the engine's environment, which is made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making the engine's environment in {folder} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        packages = ["flwr[simulation]==1.41.0", "torch==2.13.0", "numpy"]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    return str(python)


def compare(local_steps: int, rounds: int, repeats: int, engine: str) -> bool:
    """Run all sides in turn, print their medians side by side, and say whether the bar is met."""
    pythons = {"engine": engine, "grid": sys.executable, "federate": sys.executable}
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side in SIDES:
            rates[side].append(measure(side, pythons[side], local_steps, rounds))
    medians = {side: statistics.median(values) for side, values in rates.items()}
    print(f"\n{local_steps} local step{'s' if local_steps > 1 else ''}, {rounds} rounds, {repeats} runs a side")
    print(f"{'':10}{'rounds/s':>10}{'s/round':>10}{'x engine':>10}{'best':>8}   runs")
    for side, rate in medians.items():
        runs = " ".join(f"{value:.2f}" for value in rates[side])
        print(
            f"{side:10}{rate:10.2f}{1 / rate:10.3f}{rate / medians['engine']:10.2f}{max(rates[side]):8.2f}   {runs}",
            flush=True,
        )
    met = medians["federate"] >= BARS.get(local_steps, 1.0) * medians["engine"]
    print(f"bar {BARS.get(local_steps, 1.0)}: {'met' if met else 'missed'}", flush=True)
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=SIDES, help="run this side here and print the seconds of its rounds")
    parser.add_argument("--local-steps", type=int, nargs="+", default=[1, 20])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--venv", type=Path, default=HERE.parents[1] / ".venv-flwr-simulation")
    options = parser.parse_args()
    if options.side == "engine":
        print(json.dumps(run_engine(options.local_steps[0], options.rounds)))
    elif options.side:
        print(json.dumps(run_squadron(options.local_steps[0], options.rounds, options.side == "federate")))
    else:
        engine = prepare_engine(options.venv)
        met = [compare(steps, options.rounds, options.repeats, engine) for steps in options.local_steps]
        sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
