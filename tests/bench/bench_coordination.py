"""Coordination: validity of random plans, solvers against each other, speed, ratios by size, labels a second.

    python tests/bench/bench_coordination.py [validity] [solvers] [speed] [demo] [labels] [maps] [ratios] [costs]

All parts, unless some are named. `demo` runs `squadron run coordination`, minutes; `ratios` runs `squadron run
coordination full`, an hour, and `costs` that for each of the four costs. `speed` and `maps` use the network of `ratios`
where it is there, else one that has learned nothing, which is as fast. `maps` needs the competition's data.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from squadron.core.folder import Folder
from squadron.methods.coordination import algorithm, baselines, density_limits, exact, planner
from squadron.methods.coordination.algorithm import COSTS, Plans
from squadron.methods.coordination.config import (
    EvaluationConfig,
    FleetConfig,
    FloorLimits,
    ModelConfig,
    ProblemsConfig,
    SamplingConfig,
    SolverName,
    published_sampling,
)
from squadron.methods.coordination.fleet import read_fleet
from squadron.methods.coordination.graph import build_graph
from squadron.methods.coordination.problems import training_problem, unseen_problem
from squadron.methods.coordination.training import Build, save_planner
from squadron.sim.fleet.spec import FloorConfig
from squadron.sim.fleet.worlds import random_routes

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "runs" / "bench" / "coordination"
GRAPHS, DECODES, PROBLEMS, SPEED_BAR_S = 10_000, 100, 200, 1.0
FLEETS = (("room-64-64-16", "room-example_250", 250), ("random-64-64-10", "random-example_400", 400))
RATIO_BARS = {5: 0.985, 25: 0.96, 100: 0.94, 250: 0.93}


def validity() -> bool:
    """Random decodes of random graphs: circles, limits passed. Bar: none of either."""
    circles = passed = plans_seen = 0
    for number in range(GRAPHS):
        draw = np.random.default_rng(number)
        floor = FloorConfig(area_per_robot_m2=float(draw.uniform(8, 60)))
        limits = FloorLimits(density=int(draw.integers(1, 4)))
        graph = build_graph(random_routes(floor, int(draw.integers(2, 13)), limits.radius_m, draw), limits)
        if not graph.edges:
            continue
        plans, order_SN = algorithm.from_ranks(
            graph, *planner.propose_at_random(graph, SamplingConfig(samples=DECODES), draw)
        )
        place_SN = np.argsort(order_SN, axis=1)
        u_E, v_E = graph.edge_E2.T
        inner = graph.before_N >= 0
        along = place_SN[:, graph.before_N[inner]] < place_SN[:, inner]
        across = (place_SN[:, u_E] < place_SN[:, v_E]) == plans.first_SE
        circles += int((~(along.all(1) & across.all(1))).sum())  # an order that all waits follow proves there is none
        passed += sum(bool(density_limits.over_limit(graph, following_E)) for following_E in plans.following_SE)
        plans_seen += DECODES
    print(f"{plans_seen:,} plans of {GRAPHS:,} graphs: {circles} with a circle, {passed} limits passed; bar 0 and 0")
    return circles == passed == 0


def solvers() -> bool:
    """HiGHS and CP-SAT: optima, and the cost of each plan against the objective that it was found with."""
    problems = ProblemsConfig(robots=(2, 6))
    worst = {"optima": 0.0, "objective": 0.0}
    seconds: dict[SolverName, list[float]] = {"cpsat": [], "highs": []}
    proven = 0
    for number in range(PROBLEMS):
        graph = training_problem(problems, FloorLimits(), number)
        for cost in COSTS:
            values = []
            for name in seconds:
                started = time.perf_counter()
                found = exact.make_programme(graph, cost, name).minimise(600)
                seconds[name].append(time.perf_counter() - started)
                assert found is not None
                plans = Plans(found.first_E[None], found.following_E[None])
                value = float(COSTS[cost](graph, algorithm.entry_times(graph, plans))[0])
                worst["objective"] = max(worst["objective"], abs(value - found.objective))
                proven += found.optimal
                values.append(value)
            worst["optima"] = max(worst["optima"], abs(values[0] - values[1]))
    times = ", ".join(f"{name} {np.mean(taken):.3f} s" for name, taken in seconds.items())
    print(f"{PROBLEMS} problems, four costs: {proven} of {2 * len(COSTS) * PROBLEMS} proven; optima differ by at most")
    print(f"  {worst['optima']:.1e} s, objectives and costs by {worst['objective']:.1e} s; means {times}")
    return worst["optima"] < 1e-3 and worst["objective"] < 1e-3


def speed() -> bool:
    """A hundred samples for 250 robots, decoded and scored."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = network() or untrained(Folder(scratch))
        propose = planner.learned(folder)
        config = EvaluationConfig()
        taken, searched, built = [], [], []
        for number in range(7):
            routes, _ = unseen_problem(config.model_copy(update={"maps": 0.0}), FloorLimits(), 250, number)
            started = time.perf_counter()
            graph = build_graph(routes, FloorLimits())
            built.append(time.perf_counter() - started)
            planner.plan_graph(graph, "average_completion", propose, published_sampling(SamplingConfig()))
            taken.append(time.perf_counter() - started - built[-1])
            planner.plan_graph(graph, "average_completion", propose)
            searched.append(time.perf_counter() - started - built[-1] - taken[-1])
    print(
        f"250 robots: {median(taken):.2f} s for 100 samples (bar {SPEED_BAR_S:g}), {median(searched):.2f} s with the "
        f"search around the best, {median(built):.2f} s for the graph"
    )
    return median(taken) <= SPEED_BAR_S


def labels() -> bool:
    """Problems labelled a second with one worker and with two: of the whole stage, and from the first batch on, which
    leaves the start of workers out."""
    rates, net = {}, {}
    for workers in (1, 2):
        target = RUN.with_name(f"coordination-labels-{workers}")
        shutil.rmtree(target, ignore_errors=True)
        words = [
            "problems.count=1000",
            "training.steps=1",
            "training.batch_size=256",
            "evaluation.problems=1",
            "evaluation.robots=[2]",
        ]
        run("full", target, *words, "--workers", str(workers))
        (done,) = target.glob("stages/label_problems-*/done.json")
        rates[workers] = 1000 / json.loads(done.read_text())["seconds"]
        written = sorted((part.stat().st_mtime, _answered(part)) for part in done.parent.glob("rows/*.jsonl"))
        net[workers] = sum(count for _, count in written[1:]) / (written[-1][0] - written[0][0])
    for what, rate in (("start of workers included", rates), ("from the first labels on", net)):
        print(f"problems labelled a second, {what}: {rate[1]:.2f} with one worker, {rate[2]:.2f} with two")
    return net[2] > 1.7 * net[1]


def _answered(part: Path) -> int:
    """Rows that a file of answers holds."""
    return sum(len(json.loads(line)["ids"]) for line in part.read_text().splitlines())


def demo() -> bool:
    """The demo: a small network on problems of up to 25 robots. No bar."""
    target = RUN.with_name("coordination-demo")
    run("demo", target)
    return _tell_ratios(target, {})


def ratios() -> bool:
    """The network on problems that it has not seen, by size."""
    run("full", RUN)
    return _tell_ratios(RUN, RATIO_BARS)


def costs() -> bool:
    """The same for every cost, each with a network of its own."""
    target = RUN.with_name("coordination-costs")
    run("full", target, f"costs=[{', '.join(COSTS)}]")
    return _tell_ratios(target, RATIO_BARS)


def _tell_ratios(target: Path, bars: dict[int, float]) -> bool:
    """Every method by cost, world and size. Whether the network's average time of arrival keeps to the bars."""
    met = True
    for done in sorted(target.glob("stages/compare-*/done.json")):
        output = json.loads(done.read_text())["output"]
        for row in output["ratios"]:
            barred = row["method"] == "graph VAE" and output["cost"] == "average_completion"
            bar = bars.get(row["robots"]) if barred else None
            shown = f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f}), {row['seconds']:.2f} s"
            place = f"{output['cost']}, {row['world']}, {row['robots']} robots, {row['method']}"
            print(f"{place}: {shown}{f'; bar {bar}' if bar else ''}")
            met &= bar is None or row["mean"] >= bar
    return met


def maps() -> bool:
    """The competition's fleets, all of their robots: mean arrival by the network and by what needs none."""
    folder = ROOT.parent / "shared" / "data" / "coordination"
    if not folder.is_dir():
        print("skipped: the competition's maps are not here")
        return True
    valid, limits = True, FloorLimits()
    with tempfile.TemporaryDirectory() as scratch:
        propose = planner.learned(network() or untrained(Folder(scratch)))
        for name, example, robots in FLEETS:
            files = {"starts": f"{folder}/{example}.agents", "tasks": f"{folder}/{example}.tasks"}
            routes, _ = read_fleet(FleetConfig(map=f"{folder}/{name}.map", robots=robots, **files))
            started = time.perf_counter()
            graph = build_graph(routes, limits)
            print(
                f"{name}, {robots} robots: {graph.edges:,} encounters, found in {time.perf_counter() - started:.1f} s"
            )
            started = time.perf_counter()
            schedule = planner.plan_graph(graph, "average_completion", propose)
            print(f"{name}, {robots} robots: planned in {time.perf_counter() - started:.1f} s")
            schedules = {
                "network": schedule,
                "100 random": planner.plan_graph(
                    graph, "average_completion", planner.propose_at_random, published_sampling(SamplingConfig())
                ),
                "first come": baselines.first_come_first_served(graph),
            }
            for method, one in schedules.items():
                valid &= not exact.find_circle(graph, one.first_E) and not density_limits.over_limit(
                    graph, one.following_E
                )
                mean = float(algorithm.average_completion(graph, one.enter_N[None])[0])
                print(f"{name}, {robots} robots, {method}: {mean:,.0f} s")
    return valid


def run(config: str, target: Path, *words: str) -> None:
    command = [sys.executable, "-m", "squadron.core.cli", "run", "coordination", config, "--run", str(target), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def network() -> Folder | None:
    """The network of `ratios`, if it has been run."""
    found = sorted(RUN.glob("stages/train_planners-*/graph-VAE/model"))
    return Folder(found[0]) if found else None


def untrained(folder: Folder) -> Folder:
    config = ModelConfig()
    save_planner(folder, config, Build(config, 0)().state_dict())
    return folder


if __name__ == "__main__":
    parts = (validity, solvers, speed, demo, labels, maps, ratios, costs)
    checks: dict[str, Any] = {one.__name__: one for one in parts}
    results = [checks[name]() for name in sys.argv[1:] or checks]
    sys.exit(not all(results))
