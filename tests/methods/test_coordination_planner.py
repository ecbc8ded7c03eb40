"""Proposals, what is made of them, baselines, and the network."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.inputs import InputPath
from squadron.methods.coordination import algorithm, baselines, density_limits, exact, planner, search
from squadron.methods.coordination.algorithm import COSTS, Plans
from squadron.methods.coordination.config import (
    CostName,
    EvaluationConfig,
    FleetConfig,
    FloorLimits,
    LossConfig,
    ModelConfig,
    ProblemsConfig,
    SamplingConfig,
)
from squadron.methods.coordination.features import features, join
from squadron.methods.coordination.fleet import passing, read_fleet
from squadron.methods.coordination.graph import Graph, build_graph
from squadron.methods.coordination.model import GraphVae, route_ranks
from squadron.methods.coordination.problems import training_problem, unseen_problem
from squadron.methods.coordination.schedule import Schedule
from squadron.methods.coordination.training import PlanLoss, load_planner, save_planner
from squadron.sim.fleet.spec import FloorConfig
from squadron.sim.fleet.worlds import random_routes
from squadron.sim.routes import make_route
from tests.conftest import REAL_DATA

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small are slower on two threads, by much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SMALL = ModelConfig(hidden=8, layers=2, heads=2, latent=3)


def random_graph(seed: int, robots: int, area: float = 30.0) -> Graph:
    floor = FloorConfig(area_per_robot_m2=area)
    return build_graph(random_routes(floor, robots, 0.4, np.random.default_rng(seed)), FloorLimits())


def value(schedule: Schedule, cost: CostName) -> float:
    return float(COSTS[cost](schedule.graph, schedule.enter_N[None])[0])


def check(schedule: Schedule) -> None:
    """A schedule is a valid plan, and its times are those of the plan."""
    graph = schedule.graph
    assert not exact.find_circle(graph, schedule.first_E)
    assert not density_limits.over_limit(graph, schedule.following_E)
    times = algorithm.entry_times(graph, Plans(schedule.first_E[None], schedule.following_E[None]))[0]
    assert schedule.enter_N == pytest.approx(times, abs=1e-9)


# Planning


def drive(graph: Graph, samples: int, seed: int = 0, regrants: int = 0) -> search.Driven:
    sampling = SamplingConfig(samples=samples)
    return search.drive(graph, planner.propose_at_random(graph, sampling, np.random.default_rng(seed)), regrants)


def schedule_of(graph: Graph, best: search.Driven) -> Schedule:
    return Schedule(graph, best.plans.first_SE[0], best.plans.following_SE[0], best.enter_SN[0])


@given(seeds, st.integers(2, 25), st.sampled_from(list(COSTS)))
@settings(max_examples=40)
def test_a_plan_by_parts_is_valid_and_never_costs_more(seed: int, robots: int, cost: CostName) -> None:
    graph = random_graph(seed, robots, area=60)
    if not graph.edges:
        return
    driven = drive(graph, 20, seed)
    whole, parts = (schedule_of(graph, search.choose(graph, cost, driven, by_parts)) for by_parts in (False, True))
    check(whole)
    check(parts)
    assert value(parts, cost) <= value(whole, cost) + 1e-9


def test_by_parts_is_the_best_of_all_combinations_where_costs_are_sums_or_maxima() -> None:
    graph = random_graph(3, 9, area=90)
    part_R = search.parts(graph)
    count = int(part_R.max()) + 1
    assert 2 <= count <= 6
    driven = drive(graph, 5)
    part_N = part_R[graph.robot_N]
    for cost in ("average_completion", "maximum_completion", "average_delay"):
        combined = [
            float(COSTS[cost](graph, driven.enter_SN[np.array(choice)[part_N], np.arange(graph.nodes)][None])[0])
            for choice in itertools.product(range(5), repeat=count)
        ]
        best = search.choose(graph, cost, driven, by_parts=True)
        assert value(schedule_of(graph, best), cost) == pytest.approx(min(combined))


@given(seeds, st.integers(3, 12))
@settings(max_examples=25)
def test_what_is_lost_without_following_is_what_driving_it_says(seed: int, robots: int) -> None:
    """Taking one edge's following away delays its second robot by what `lost` says, where that is the wait that counts;
    an edge that nobody would notice has nothing to lose."""
    graph = random_graph(seed, robots, area=15)
    driven = drive(graph, 1, seed)
    lost_E = search.lost(graph, driven)[0]
    first_E, following_E = driven.plans.first_SE[0], driven.plans.following_SE[0]
    for edge in np.flatnonzero(following_E):
        without = following_E.copy()
        without[edge] = False
        enter_N = algorithm.entry_times(graph, Plans(first_E[None], without[None]))[0]
        second = graph.edge_E2[edge, 1 if first_E[edge] else 0]
        assert enter_N[second] - driven.enter_SN[0, second] == pytest.approx(max(0.0, lost_E[edge]), abs=1e-9)


@given(seeds, st.integers(2, 15), st.sampled_from(list(COSTS)))
@settings(max_examples=25)
def test_looking_around_the_best_never_costs_more_and_stays_valid(seed: int, robots: int, cost: CostName) -> None:
    graph = random_graph(seed, robots, area=15)
    values = []
    for rounds, regrants in ((0, 0), (0, 2), (3, 2)):
        sampling = SamplingConfig(samples=10, rounds=rounds, regrants=regrants, seed=seed)
        schedule = planner.plan_graph(graph, cost, planner.propose_at_random, sampling)
        check(schedule)
        values.append(value(schedule, cost))
    assert values[0] + 1e-9 >= values[1] and values[1] + 1e-9 >= values[2]


@given(seeds, st.integers(3, 12), st.sampled_from(list(COSTS)))
@settings(max_examples=40)
def test_blame_is_what_a_shorter_wait_would_save(seed: int, robots: int, cost: CostName) -> None:
    """Against a tenth of a millisecond more and less at one encounter after the other, where all may follow. Where the
    two do not agree, waits end together, and share the blame."""
    routes = random_routes(FloorConfig(area_per_robot_m2=15), robots, 0.4, np.random.default_rng(seed))
    graph = build_graph(routes, FloorLimits(density=robots))
    if not graph.edges:
        return
    driven = drive(graph, 1, seed)
    assert driven.plans.following_SE.all()
    blame_E, _ = search.blame(graph, cost, driven)
    for edge in range(graph.edges):
        times = [driven.enter_SN]
        for longer in (1e-4, -1e-4):
            ends_E2 = graph.zone_end_E2.copy()
            ends_E2[edge, 0 if driven.plans.first_SE[0, edge] else 1] += longer
            times.append(algorithm.entry_times(replace(graph, zone_end_E2=ends_E2), driven.plans))
        now, more, less = search.strain(graph, cost, np.concatenate(times)).sum(1)
        if more - now == pytest.approx(now - less, abs=1e-6):
            assert (more - less) / 2e-4 == pytest.approx(blame_E[edge], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("cost", ["average_completion", "average_delay"])
def test_strain_rises_with_a_cost_that_is_a_sum_as_the_cost_itself(cost: CostName) -> None:
    graph = random_graph(5, 9, area=20)
    driven = drive(graph, 3)
    strain_S = search.strain(graph, cost, driven.enter_SN).sum(1)
    cost_S = (
        COSTS[cost](graph, driven.enter_SN) * {"average_completion": graph.robots, "average_delay": graph.nodes}[cost]
    )
    rise_S = cost_S - cost_S[0]
    assert strain_S - strain_S[0] == pytest.approx(rise_S)


@given(seeds, st.integers(3, 15), st.sampled_from(list(COSTS)))
@settings(max_examples=25)
def test_a_step_goes_to_the_least_strained_plan_that_is_another(seed: int, robots: int, cost: CostName) -> None:
    graph = random_graph(seed, robots, area=15)
    if not graph.edges:
        return
    now, near = drive(graph, 1, seed), drive(graph, 8, seed + 1)
    near = search.stack([now, near])
    gone = search.step(graph, cost, now, near, by_parts=False)
    check(schedule_of(graph, gone))
    check(schedule_of(graph, search.step(graph, cost, now, near, by_parts=True)))
    strains = search.strain(graph, cost, np.concatenate([now.enter_SN, gone.enter_SN, near.enter_SN])).sum(1)
    others = [value for value in strains[2:] if value != pytest.approx(strains[0], rel=1e-9, abs=0)]
    assert strains[1] == pytest.approx(min(others, default=strains[0]))


def test_for_the_spread_whoever_arrives_first_is_sent_behind_others() -> None:
    """The first of two has a short way, and waits for nobody; nothing but its waiting brings the two together."""
    routes = [make_route([(0, 0), (10, 0)]), make_route([(5, -5), (5, 30)])]
    graph = build_graph(routes, FloorLimits())
    driven = search.drive(graph, search.Proposals(np.array([[1.0, 2.0]]), np.zeros((1, 1))))
    near = search.around(graph, "synchronous_completion", driven, 8, 1, np.random.default_rng(0))
    turned = search.drive(graph, near)
    assert not turned.plans.first_SE.any()
    spread_S = COSTS["synchronous_completion"](graph, turned.enter_SN)
    assert (spread_S < COSTS["synchronous_completion"](graph, driven.enter_SN)).all()


@given(seeds, st.integers(3, 14), st.integers(1, 60))
@settings(max_examples=25)
def test_of_very_many_edges_only_the_most_confident_are_granted(seed: int, robots: int, at_most: int) -> None:
    graph = random_graph(seed, robots, area=12)
    confidence_SE = np.random.default_rng(seed).normal(size=(3, graph.edges))
    limited_E = density_limits.limited(graph)
    every_SE = algorithm.choose_following(graph, confidence_SE)
    some_SE = algorithm.choose_following(graph, confidence_SE, at_most)
    for confidence_E, every_E, some_E in zip(confidence_SE, every_SE, some_SE, strict=True):
        asked = np.flatnonzero(limited_E)[np.argsort(-confidence_E[limited_E])][:at_most]
        expected_E = ~limited_E
        expected_E[asked] = every_E[asked]
        assert some_E.tolist() == expected_E.tolist()


def test_samples_are_driven_the_same_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = random_graph(8, 12, area=15)
    whole = drive(graph, 10)
    monkeypatch.setattr(search, "_CELLS_AT_ONCE", 3 * graph.edges)
    parts = drive(graph, 10)
    assert parts.enter_SN.tolist() == whole.enter_SN.tolist()
    assert parts.plans.following_SE.tolist() == whole.plans.following_SE.tolist()


def test_a_flip_turns_the_encounter_that_the_cost_hangs_on() -> None:
    routes = [make_route([(0, 0), (10, 0)]), make_route([(5, -5), (5, 30)])]
    graph = build_graph(routes, FloorLimits())
    driven = search.drive(graph, search.Proposals(np.array([[1.0, 2.0]]), np.zeros((1, 1))))
    assert search.blame(graph, "average_completion", driven)[0].tolist() == [1]
    near = search.around(graph, "average_completion", driven, 8, 1, np.random.default_rng(0))
    assert not algorithm.from_ranks(graph, *near)[0].first_SE.any()


def test_following_goes_to_those_who_would_lose_by_waiting() -> None:
    """Three cross the same place, of whom only the first two come at the same time: whatever a network is confident of,
    these two follow each other after one look at the times."""
    routes = [
        make_route([(-5, 0), (5, 0)]),
        make_route([(0, -5), (0, 5)]),
        make_route([(30, 30.2), (0.1, 0.3), (-5, -5)]),
    ]
    graph = build_graph(routes, FloorLimits())
    assert graph.edges == 3 and density_limits.limited(graph).all()
    met = next(e for e in range(3) if set(graph.robot_N[graph.edge_E2[e]]) == {0, 1})
    confidence_SE = np.ones((1, 3))
    confidence_SE[0, met] = -1
    rank_SN = np.array([[0.0, 1.0, 2.0]])[:, graph.robot_N]
    driven = search.drive(graph, search.Proposals(rank_SN, confidence_SE), regrants=1)
    assert driven.plans.following_SE[:, met].tolist() == [False, True]
    assert driven.enter_SN[1].sum() < driven.enter_SN[0].sum()


def test_robots_that_meet_nobody_need_no_proposal() -> None:
    graph = build_graph([make_route([(0, 0), (3, 0)]), make_route([(0, 50), (5, 50)])], FloorLimits())

    def never(graph: Graph, sampling: SamplingConfig, draw: np.random.Generator) -> search.Proposals:
        raise AssertionError("asked")

    assert value(planner.plan_graph(graph, "average_completion", never), "average_completion") == 4


def test_a_seed_plans_the_same_again() -> None:
    graph = random_graph(1, 12)
    one, same = (
        planner.plan_graph(graph, "average_delay", planner.propose_at_random, SamplingConfig(samples=9, seed=4))
        for _ in range(2)
    )
    assert one.first_E.tolist() == same.first_E.tolist() and one.enter_N.tolist() == same.enter_N.tolist()


# What the network is compared with


@given(seeds, st.integers(2, 12))
@settings(max_examples=25)
def test_baselines_give_valid_plans_with_the_times_they_claim(seed: int, robots: int) -> None:
    graph = random_graph(seed, robots, area=20)
    check(baselines.first_come_first_served(graph))
    check(planner.plan_graph(graph, "average_delay", baselines.propose_priorities, SamplingConfig(samples=5)))
    found = baselines.back_track(graph, "average_completion", 0.05)
    assert found is not None
    check(found)


def test_whoever_comes_first_is_served_first() -> None:
    routes = [make_route([(0, 0), (10, 0)]), make_route([(6, -9), (6, 9)]), make_route([(3, -1), (3, 9)])]
    schedule = baselines.first_come_first_served(build_graph(routes, FloorLimits()))
    pairs = schedule.graph.robot_N[schedule.graph.edge_E2].tolist()
    assert pairs == [[0, 2], [0, 1]] and schedule.first_E.tolist() == [False, True]


@pytest.mark.parametrize("cost", COSTS)
def test_back_tracking_with_time_enough_finds_the_optimum(cost: CostName) -> None:
    for seed in range(4):
        graph = random_graph(seed, 4, area=20)
        best = exact.solve(graph, cost)
        found = baselines.back_track(graph, cost, 60)
        assert best is not None and found is not None
        assert value(found, cost) == pytest.approx(best.cost, abs=1e-5)


def test_evolution_comes_close_on_a_small_problem_and_keeps_to_its_time() -> None:
    import time

    import cma  # noqa: F401 - its import is not what is timed

    graph = random_graph(2, 5, area=20)
    best = exact.solve(graph, "average_completion")
    started = time.monotonic()
    found = baselines.evolve(graph, "average_completion", 2.0)
    assert time.monotonic() - started < 60
    check(found)
    assert best is not None and best.cost - 1e-6 <= value(found, "average_completion") <= 1.1 * best.cost


# The network


def batch_of(graphs: list[Graph], seed: int = 0) -> tuple[dict[str, torch.Tensor], list[dict[str, object]]]:
    draw = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for graph in graphs:
        flat = {name: np.asarray(values).ravel() for name, values in features(graph).items()}
        plan = {name: draw.integers(0, 2, graph.edges) for name in ("first", "following")}
        rows.append({**flat, "robot": graph.robot_N, **plan})
    return PlanLoss(LossConfig()).collate(rows), rows


def test_graphs_in_one_batch_know_nothing_of_each_other() -> None:
    torch.manual_seed(0)
    model = GraphVae(SMALL).eval()
    graphs = [random_graph(seed, 2 + seed) for seed in range(4)]
    together, rows = batch_of(graphs)
    latent = torch.randn(4, 3)
    mean, spread = model.encode(together)
    decoded = model.decode(together, latent)
    loss = PlanLoss(LossConfig())
    bids, confidences = [], []
    for number, row in enumerate(rows):
        alone = loss.collate([row])
        one = model.decode(alone, latent[number : number + 1])
        bids.append(one.bid_N)
        confidences.append(one.confidence_E)
        assert torch.allclose(model.encode(alone)[0][0], mean[number], atol=1e-5)
        assert torch.allclose(model.encode(alone)[1][0], spread[number], atol=1e-5)
    assert torch.allclose(torch.cat(bids), decoded.bid_N, atol=1e-5)
    assert torch.allclose(torch.cat(confidences), decoded.confidence_E, atol=1e-5)
    assert (decoded.bid_N > 0).all()


def test_which_robot_is_named_first_changes_nothing() -> None:
    """Robots in another order: the same bids for the same intervals, the same confidences for the same encounters."""
    torch.manual_seed(0)
    model = GraphVae(SMALL).eval()
    routes = random_routes(FloorConfig(area_per_robot_m2=25), 6, 0.4, np.random.default_rng(5))
    order = np.random.default_rng(1).permutation(6)
    graphs = [build_graph(routes, FloorLimits()), build_graph([routes[robot] for robot in order], FloorLimits())]
    latent = torch.randn(1, 3)
    found = []
    for graph, names in zip(graphs, (np.arange(6), order), strict=True):
        joined = {name: torch.as_tensor(values) for name, values in join([features(graph)]).items()}
        with torch.no_grad():
            decoded = model.decode(joined, latent)
        keys = [
            (int(names[robot]), round(float(enter), 3))
            for robot, enter in zip(graph.robot_N, graph.enter_N, strict=True)
        ]
        bids = dict(zip(keys, decoded.bid_N.tolist(), strict=True))
        edges = [frozenset((keys[u], keys[v])) for u, v in graph.edge_E2]
        found.append((bids, dict(zip(edges, decoded.confidence_E.tolist(), strict=True))))
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys()
        assert [one[key] for key in one] == pytest.approx([other[key] for key in one], abs=1e-5)


def test_ranks_of_a_batch_are_those_of_planning() -> None:
    graphs = [random_graph(seed, 6, area=20) for seed in range(3)]
    batch, _ = batch_of(graphs)
    bids = torch.rand(len(batch["robot"]), dtype=torch.float64) + 0.01
    found = route_ranks(bids, batch["robot"])
    parts = torch.split(bids, [graph.nodes for graph in graphs])
    expected = [algorithm.ranks(graph, part[None].numpy())[0] for graph, part in zip(graphs, parts, strict=True)]
    assert found.numpy() == pytest.approx(np.concatenate(expected))


def test_the_loss_is_what_the_paper_says() -> None:
    """Hinge, cross-entropy and divergence once more, in plain arithmetic."""
    torch.manual_seed(0)
    graphs = [random_graph(seed, 5) for seed in range(2)]
    batch, _ = batch_of(graphs)
    model = GraphVae(SMALL)
    config = LossConfig(order=2.0, margin=0.3, following=3.0, divergence=0.5)
    torch.manual_seed(1)
    loss, parts = PlanLoss(config)(model, batch)
    torch.manual_seed(1)
    mean, log_spread = model.encode(batch)
    decoded = model.decode(batch, mean + log_spread.exp() * torch.randn_like(mean))
    rank = route_ranks(decoded.bid_N, batch["robot"])
    hinge, entropy = [], []
    for e in range(batch["edges"].shape[1]):
        u, v = batch["edges"][:, e].tolist()
        ahead = rank[v] - rank[u] if batch["first"][e] else rank[u] - rank[v]
        hinge.append(max(0.0, 0.3 - ahead.item()))
        p = torch.sigmoid(decoded.confidence_E[e]).item()
        entropy.append(-np.log(p if batch["following"][e] else 1 - p))
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, log_spread.exp()), torch.distributions.Normal(0, 1)
    )
    divergence = kl.sum(1).mean().item()
    assert parts["order"].item() == pytest.approx(np.mean(hinge), abs=1e-5)
    assert parts["following"].item() == pytest.approx(np.mean(entropy), abs=1e-5)
    assert parts["divergence"].item() == pytest.approx(divergence, abs=1e-5)
    assert loss.item() == pytest.approx(2 * np.mean(hinge) + 3 * np.mean(entropy) + 0.5 * divergence, abs=1e-4)
    loss.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_a_network_learns_an_order_and_proposes_it(tmp_path: Path) -> None:
    """On crossings where the second robot has the longer way to go, it goes first: easy to learn, and checked on new
    ones."""

    def crossing(seed: int) -> Graph:
        draw = np.random.default_rng(seed)
        far = draw.uniform(15, 30)
        swap = draw.random() < 0.5
        lengths = (far, 10.0) if swap else (10.0, far)
        return build_graph(
            [make_route([(0, 0), (lengths[0], 0)]), make_route([(5, -5), (5, lengths[1] - 5)])], FloorLimits()
        )

    def rows(seeds: range) -> list[dict[str, object]]:
        graphs = [crossing(seed) for seed in seeds]
        _, rows = batch_of(graphs)
        for graph, row in zip(graphs, rows, strict=True):
            row["first"] = np.array([graph.length_R[0] > graph.length_R[1]] * graph.edges)
            row["following"] = np.ones(graph.edges, int)
        return rows

    torch.manual_seed(0)
    model, loss = GraphVae(SMALL), PlanLoss(LossConfig())
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    batch = loss.collate(rows(range(40)))
    for _ in range(80):
        optimizer.zero_grad()
        value, _ = loss(model, batch)
        value.backward()
        optimizer.step()
    save_planner(Folder(tmp_path), SMALL, model.state_dict())
    propose = planner.learned(Folder(tmp_path))
    right = 0
    for seed in range(100, 120):
        graph = crossing(seed)
        proposals = propose(graph, SamplingConfig(samples=1), np.random.default_rng(0))
        plans, _ = algorithm.from_ranks(graph, *proposals)
        right += plans.first_SE[0, 0] == (graph.length_R[0] > graph.length_R[1])
    assert right >= 19


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="file not found"):
        load_planner(Folder(tmp_path))
    save_planner(Folder(tmp_path), SMALL, GraphVae(SMALL).state_dict())
    (tmp_path / "config.json").write_text(SMALL.model_copy(update={"hidden": 16}).model_dump_json())
    with pytest.raises(InputError, match="no planner can be loaded"):
        load_planner(Folder(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(InputError, match="no planner can be loaded"):
        load_planner(Folder(tmp_path))


def test_problems_are_functions_of_their_number() -> None:
    config = ProblemsConfig(count=5, robots=(2, 5))
    one, same, other = (training_problem(config, FloorLimits(), number) for number in (3, 3, 4))
    assert one.enter_N.tolist() == same.enter_N.tolist() != other.enter_N.tolist()
    assert one.edges and one.nodes <= config.max_intervals and 2 <= one.robots <= 5
    contest = EvaluationConfig(robots=(6,), problems=2, maps=0.5)
    (routes, grid), (open_routes, none) = (unseen_problem(contest, FloorLimits(), 6, n) for n in (0, 1))
    assert grid is not None and none is None and len(routes) == len(open_routes) == 6


def test_robots_that_stand_are_driven_around(tmp_path: Path) -> None:
    """Robot 0 crosses a floor of three rows; robot 1 ends in its way, robot 2 has no task and stands in the middle row.
    Where robot 2 stands, nobody can be sent."""
    (tmp_path / "map").write_text("type octile\nheight 3\nwidth 5\nmap\n" + ".....\n" * 3)
    (tmp_path / "starts").write_text("3\n0\n14\n7\n")
    (tmp_path / "tasks").write_text("2\n4\n2\n")
    files = {name: InputPath(tmp_path / name) for name in ("map", "starts", "tasks")}
    routes, grid = read_fleet(FleetConfig(**files))
    assert grid is not None and not grid.free_HW[1, 2] and len(routes) == 2
    assert [route.length for route in routes] == [8, 4] and passing(routes, 0.4) == 0
    assert len(read_fleet(FleetConfig(robots=1, **files))[0]) == 1  # only the first is there
    (tmp_path / "tasks").write_text("2\n4\n7\n")
    with pytest.raises(InputError, match="robot 1 is to drive to a place where a robot without a task stands"):
        read_fleet(FleetConfig(**files))


def test_routes_past_another_robots_end_are_counted() -> None:
    routes = [make_route(points) for points in ([(0, 0), (9, 0)], [(5, 5), (5, 0.5)], [(0, 2), (9, 2)])]
    assert passing(routes, 0.4) == 1


@pytest.mark.parametrize("activation", ["elu", "relu"])
def test_the_activation_is_the_one_that_is_set(activation: Literal["elu", "relu"]) -> None:
    kinds = {type(part).__name__ for part in GraphVae(SMALL.model_copy(update={"activation": activation})).modules()}
    assert kinds & {"ELU", "ReLU"} == {{"elu": "ELU", "relu": "ReLU"}[activation]}


@pytest.mark.parametrize(("name", "robots"), [("random-64-64-10", 400), ("room-64-64-16", 250)])
def test_the_competitions_fleets_are_planned_validly(name: str, robots: int) -> None:
    folder = REAL_DATA / "coordination"
    if not folder.is_dir():
        pytest.skip("the competition's maps are not here: shared/data/coordination")
    example = str(folder / f"{name.split('-')[0]}-example_{robots}")
    fleet = FleetConfig(map=str(folder / f"{name}.map"), starts=f"{example}.agents", tasks=f"{example}.tasks")
    routes, grid = read_fleet(fleet)
    assert grid is not None and len(routes) == robots
    graph = build_graph(routes, FloorLimits())
    schedule = planner.plan_graph(
        graph, "average_completion", planner.propose_at_random, SamplingConfig(samples=10, rounds=1)
    )
    assert not exact.find_circle(graph, schedule.first_E) and not density_limits.over_limit(graph, schedule.following_E)
