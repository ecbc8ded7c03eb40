"""Plans by construction, their times and costs, and optimal plans by two solvers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.methods.coordination import algorithm, density_limits, exact
from squadron.methods.coordination.algorithm import COSTS, Plans
from squadron.methods.coordination.config import Area, CostName, FloorLimits, SolverName
from squadron.methods.coordination.graph import Graph, build_graph
from squadron.methods.coordination.interference import find_zones
from squadron.methods.coordination.schedule import Schedule
from squadron.sim.fleet.maps import shortest_routes
from squadron.sim.fleet.spec import FloorConfig
from squadron.sim.fleet.worlds import random_map, random_routes, random_visits
from squadron.sim.routes import Route, make_route

seeds = st.integers(0, 2**32 - 1)


def random_world(seed: int, robots: int, area: float = 25.0) -> list[Route]:
    return random_routes(FloorConfig(area_per_robot_m2=area), robots, 0.4, np.random.default_rng(seed))


def random_graph(seed: int, robots: int, area: float = 25.0, density: int = 2) -> Graph:
    return build_graph(random_world(seed, robots, area), FloorLimits(density=density))


def random_plans(graph: Graph, seed: int, samples: int) -> tuple[Plans, np.ndarray]:
    draw = np.random.default_rng(seed)
    bids_SN = draw.exponential(size=(samples, graph.nodes)) + 1e-9
    return algorithm.decode(graph, bids_SN, draw.normal(size=(samples, graph.edges)))


def crowded(graph: Graph, following_E: np.ndarray) -> bool:
    """Whether more intervals may be entered one behind the other than the least of their densities, by looking at all
    maximal groups of them."""
    follows = nx.Graph([tuple(nodes) for nodes in graph.edge_E2[following_E].tolist()])
    for nodes in nx.find_cliques(follows):
        density = graph.density_N[nodes]
        if any((density >= limit).sum() > limit for limit in density.tolist()):
            return True
    return False


# What is in each other's way


def test_two_routes_that_cross_share_a_stretch() -> None:
    routes = [make_route([(0, 0), (10, 0)]), make_route([(5, -4), (5, 4)])]
    graph = build_graph(routes, FloorLimits(radius_m=0.5))
    assert graph.robot_N.tolist() == [0, 1] and graph.edge_E2.tolist() == [[0, 1]]
    # Discs touch where the one is at 5 - 1 and the other in the crossing.
    assert graph.enter_N.tolist() == [4, 3] and graph.leave_N.tolist() == [6, 5]


def test_lanes_as_wide_as_robots_are_not_in_each_others_way() -> None:
    lanes = [make_route([(2 * y, y), (20, y)]) for y in (0.0, 1.0, 2.0)]
    assert not len(find_zones(lanes, 0.5).robots_Z2)
    assert find_zones(lanes, 0.5001).robots_Z2.tolist() == [[0, 1], [1, 2]]


def test_one_behind_the_other_along_a_lane_share_all_of_it() -> None:
    zones = find_zones([make_route([(0, 0), (4, 0), (4, 6)]), make_route([(2, 0), (4, 0), (4, 6), (9, 6)])], 0.5)
    assert zones.robots_Z2.tolist() == [[0, 1]]
    assert zones.start_Z2 == pytest.approx(np.array([[1.0, 0.0]])) and zones.end_Z2 == pytest.approx(
        np.array([[10.0, 9.0]])
    )


@given(seeds, st.booleans())
@settings(max_examples=25)
def test_zones_end_where_discs_part(seed: int, on_map: bool) -> None:
    """A robot at an end of a zone touches the other's stretch, or is at an end of its route: zones are not too wide."""
    draw = np.random.default_rng(seed)
    grid = random_map(8, 8, 0.2, draw)
    routes = shortest_routes(grid, random_visits(grid, 4, draw)) if on_map else random_world(seed, 4, area=15)
    zones = find_zones(routes, 0.4)
    for robots, starts, ends in zip(*zones, strict=True):
        for side in (0, 1):
            route, other = routes[robots[side]], routes[robots[1 - side]]
            arcs = np.linspace(starts[1 - side], ends[1 - side], 3000)
            for at in (starts[side], ends[side]):
                if 0 < at < route.length - 1e-9:
                    distance = np.linalg.norm(other.at(arcs) - route.at(at), axis=1).min()
                    assert distance == pytest.approx(0.8, abs=2e-3)


@given(seeds)
@settings(max_examples=25)
def test_outside_of_zones_no_two_robots_touch(seed: int) -> None:
    routes = random_world(seed, 4, area=15)
    graph = build_graph(routes, FloorLimits())
    for one, other in itertools.combinations(range(4), 2):
        arcs = [np.linspace(0, routes[robot].length, 160) for robot in (one, other)]
        places = [routes[robot].at(arc) for robot, arc in zip((one, other), arcs, strict=True)]
        touching = np.argwhere(np.linalg.norm(places[0][:, None] - places[1], axis=-1) < 0.8)
        edges = [e for e, nodes in enumerate(graph.edge_E2) if graph.robot_N[nodes].tolist() == [one, other]]
        for a, b in touching:
            at = np.array([arcs[0][a], arcs[1][b]])
            assert any(
                ((graph.zone_start_E2[e] <= at + 1e-9) & (at <= graph.zone_end_E2[e] + 1e-9)).all() for e in edges
            )


def test_zones_of_a_robot_that_overlap_are_one_interval() -> None:
    crossing = [make_route([(x, -4), (x, 4)]) for x in (4.0, 5.5, 9.0)]
    graph = build_graph([make_route([(0, 0), (12, 0)]), *crossing], FloorLimits(radius_m=0.5))
    assert graph.robot_N.tolist() == [0, 0, 1, 2, 3]
    assert graph.edge_E2.tolist() == [[0, 2], [0, 3], [1, 4]]
    assert graph.enter_N[0] == graph.zone_start_E2[0, 0] and graph.leave_N[0] == graph.zone_end_E2[1, 0]


def test_starts_that_overlap_and_floors_without_robots_are_refused() -> None:
    routes = [make_route([(0, 0), (5, 0)]), make_route([(9, 9), (1, 1)]), make_route([(0.5, 0), (0, 5)])]
    with pytest.raises(InputError, match="robots 0 and 2 overlap at their starts"):
        build_graph(routes, FloorLimits(radius_m=0.4))
    with pytest.raises(InputError, match="there is no route"):
        build_graph([], FloorLimits())


def test_a_graph_that_memory_would_not_hold_is_refused_before_it_is_built() -> None:
    draw = np.random.default_rng(0)
    routes = [make_route([(robot, 0), *draw.uniform(5, 6, (4000, 2))]) for robot in range(10)]
    with pytest.raises(InputError, match=r"pairs of pieces of routes are close .* GB"):
        build_graph(routes, FloorLimits())


# Plans are valid


@given(seeds, st.integers(2, 14), st.integers(1, 4))
@settings(max_examples=60)
def test_whatever_is_decoded_has_no_circle_and_keeps_the_limits(seed: int, robots: int, density: int) -> None:
    graph = random_graph(seed, robots, area=12, density=density)
    plans, order_SN = random_plans(graph, seed, 5)
    for first_E, following_E, order_N in zip(*plans, order_SN, strict=True):
        assert not exact.find_circle(graph, first_E)
        assert not crowded(graph, following_E) and not density_limits.over_limit(graph, following_E)
        place = np.argsort(order_N)
        waits = algorithm.waits_for(graph, first_E)
        assert all(place[before] < place[node] for node, others in waits.items() for before in others)


@given(seeds, st.integers(1, 3))
@settings(max_examples=15)
def test_robots_that_drive_a_plan_never_touch_and_never_crowd(seed: int, density: int) -> None:
    routes = random_world(seed, 8, area=10)
    graph = build_graph(routes, FloorLimits(density=density))
    plans, order_SN = random_plans(graph, seed, 1)
    schedule = Schedule(
        graph, plans.first_SE[0], plans.following_SE[0], algorithm.entry_times(graph, plans, order_SN)[0]
    )
    times_T = np.linspace(0, schedule.end_s + 1, 600)
    arc_TR, on_TR = schedule.arcs(times_T), schedule.on_floor(times_T)
    assert (np.diff(arc_TR, axis=0) <= np.diff(times_T)[:, None] + 1e-6).all() and (
        np.diff(arc_TR, axis=0) >= -1e-9
    ).all()
    assert arc_TR[-1] == pytest.approx(graph.length_R, abs=1e-6)
    place_TR2 = np.stack([route.at(arc) for route, arc in zip(routes, arc_TR.T, strict=True)], axis=1)
    for one, other in itertools.combinations(range(8), 2):
        both = on_TR[:, one] & on_TR[:, other]
        apart = np.linalg.norm(place_TR2[both, one] - place_TR2[both, other], axis=-1)
        assert apart.min(initial=np.inf) >= 0.8
    inside_TN = (arc_TR[:, graph.robot_N] > graph.enter_N + 1e-6) & (arc_TR[:, graph.robot_N] < graph.leave_N - 1e-6)
    meet = nx.Graph([tuple(nodes) for nodes in graph.edge_E2.tolist()])
    for nodes in nx.find_cliques(meet):
        assert inside_TN[:, nodes].sum(1).max() <= density


def test_a_limit_of_an_area_counts_for_the_intervals_that_touch_it() -> None:
    crossing = [make_route([(x, -4), (x, 4)]) for x in (4.0, 9.0)]
    routes = [make_route([(0, 0), (12, 0)]), *crossing]
    area = Area(x_m=(8.0, 10.0), y_m=(-1.0, 1.0), density=1)
    graph = build_graph(routes, FloorLimits(density=2, areas=(area,)))
    assert graph.density_N.tolist() == [2, 1, 2, 1]
    assert [edges.tolist() for edges in density_limits.crowds(graph)] == [[1]]
    assert density_limits.limited(graph).tolist() == [False, True]


def meeting(edge_E2: list[list[int]], density_N: list[int]) -> Graph:
    """A graph in which nothing but who meets whom is of interest."""
    zeros_N, zeros_E2 = np.zeros(len(density_N)), np.zeros((len(edge_E2), 2))
    robots = np.arange(len(density_N))
    return Graph(zeros_N, robots, zeros_N, zeros_N, np.array(density_N), np.array(edge_E2), zeros_E2, zeros_E2)


def test_a_crowd_is_one_more_than_the_least_density_allows() -> None:
    edge_E2 = [[0, 1], [0, 2], [1, 2], [2, 3]]
    assert [edges.tolist() for edges in density_limits.crowds(meeting(edge_E2, [2, 2, 3, 3]))] == [[0, 1, 2]]
    assert density_limits.crowds(meeting(edge_E2, [3, 3, 3, 3])) == []
    assert [edges.tolist() for edges in density_limits.crowds(meeting(edge_E2, [3, 3, 3, 1]))] == [[3]]


@given(seeds, st.integers(3, 7))
@settings(max_examples=40)
def test_an_edge_is_granted_if_and_only_if_nothing_is_crowded_then(seed: int, nodes: int) -> None:
    """Against looking at all groups, with densities that differ; and what solvers are told says the same."""
    draw = np.random.default_rng(seed)
    pairs = [[u, v] for u, v in itertools.combinations(range(nodes), 2) if draw.random() < 0.8] or [[0, 1]]
    graph = meeting(pairs, draw.integers(1, 4, nodes).tolist())
    following_E = np.zeros(graph.edges, bool)
    state = density_limits.Crowding(graph)
    crowds = density_limits.crowds(graph)
    for edge in draw.permutation(graph.edges).tolist():
        following_E[edge] = True
        expected = not crowded(graph, following_E)
        assert expected == (not any(following_E[edges].all() for edges in crowds))
        assert expected == (not density_limits.over_limit(graph, following_E))
        following_E[edge] = state.ask(edge)
        assert following_E[edge] == expected
    of_crowds = np.isin(np.arange(graph.edges), np.concatenate([*crowds, np.zeros(0, int)]))
    limited_E = density_limits.limited(graph)
    assert not (of_crowds & ~limited_E).any()
    if len(set(graph.density_N.tolist())) == 1:
        assert limited_E.tolist() == of_crowds.tolist()


def test_the_more_confident_edges_follow() -> None:
    graph = meeting([[0, 1], [0, 2], [1, 2], [2, 3]], [2, 2, 2, 2])
    confidence = np.array([[0.1, 0.9, 0.5, -9.0], [0.5, 0.5, 0.5, -9.0]])
    chosen = algorithm.choose_following(graph, confidence)
    assert chosen.tolist() == [[False, True, True, True], [True, True, False, True]]


def test_bids_that_rounding_swallows_leave_the_plan_without_a_circle() -> None:
    graph = random_graph(5, 6, area=10)
    bids_SN = np.where(np.arange(graph.nodes) % 2 == 0, 1e16, 1e-9)[None]
    plans, order_SN = algorithm.decode(graph, bids_SN, np.zeros((1, graph.edges)))
    assert not exact.find_circle(graph, plans.first_SE[0])
    assert np.isfinite(algorithm.entry_times(graph, plans, order_SN)).all()
    with pytest.raises(ValueError, match="positive"):
        algorithm.decode(graph, bids_SN * 0, np.zeros((1, graph.edges)))


# Times and costs


def longest_paths(graph: Graph, first_E: np.ndarray, following_E: np.ndarray) -> list[float]:
    """Entry times by the definition, one node after the other."""
    waits = nx.MultiDiGraph()
    waits.add_nodes_from(range(graph.nodes))
    for node, before in enumerate(graph.before_N):
        if before >= 0:
            waits.add_edge(before, node, wait=graph.enter_N[node] - graph.enter_N[before])
    for e, (u, v) in enumerate(graph.edge_E2):
        one, other = (u, v) if first_E[e] else (v, u)
        column = 0 if first_E[e] else 1
        if following_E[e]:
            leaves = graph.zone_end_E2[e, column] - graph.enter_N[one]
            wait = leaves - (graph.zone_start_E2[e, 1 - column] - graph.enter_N[other])
        else:
            wait = graph.leave_N[one] - graph.enter_N[one]
        waits.add_edge(one, other, wait=wait)
    enter = list(graph.enter_N)
    for node in nx.topological_sort(waits):
        for before, _, wait in waits.in_edges(node, data="wait"):
            enter[node] = max(enter[node], enter[before] + wait)
    return enter


@given(seeds, st.integers(2, 10))
@settings(max_examples=40)
def test_entry_times_are_the_longest_paths(seed: int, robots: int) -> None:
    graph = random_graph(seed, robots, area=12)
    plans, order_SN = random_plans(graph, seed, 4)
    enter_SN = algorithm.entry_times(graph, plans, order_SN)
    for first_E, following_E, enter_N in zip(*plans, enter_SN, strict=True):
        assert enter_N.tolist() == pytest.approx(longest_paths(graph, first_E, following_E), abs=1e-9)
    assert algorithm.entry_times(graph, plans) == pytest.approx(enter_SN, abs=1e-9)


def test_costs_of_a_crossing_worked_out_by_hand() -> None:
    routes = [make_route([(0, 0), (10, 0)]), make_route([(4, -4), (4, 12)])]
    graph = replace(
        build_graph(routes, FloorLimits(radius_m=0.5)),
        enter_N=np.array([3.0, 3.0]), leave_N=np.array([5.0, 5.0]), length_R=np.array([10.0, 16.0]),
        zone_start_E2=np.array([[3.0, 3.0]]), zone_end_E2=np.array([[5.0, 5.0]]),
    )  # fmt: skip
    first = Plans(np.array([[True], [False]]), np.array([[True], [True]]))
    enter_SN = algorithm.entry_times(graph, first)
    assert enter_SN.tolist() == [[3, 5], [5, 3]]  # whoever goes second waits for two seconds
    assert algorithm.completion_times(graph, enter_SN).tolist() == [[10, 18], [12, 16]]
    expected = {
        "average_completion": [14, 14], "maximum_completion": [18, 16],
        "synchronous_completion": [8, 4], "average_delay": [1, 1],
    }  # fmt: skip
    assert {name: cost(graph, enter_SN).tolist() for name, cost in COSTS.items()} == expected


def test_robots_that_meet_nobody_count() -> None:
    routes = [make_route([(0, 0), (3, 0)]), make_route([(0, 50), (5, 50)])]
    graph = build_graph(routes, FloorLimits())
    enter_SN = np.zeros((1, 0))
    assert graph.nodes == 0 and algorithm.average_completion(graph, enter_SN).tolist() == [4]
    assert algorithm.average_delay(graph, enter_SN).tolist() == [0]
    schedule = Schedule(graph, np.zeros(0, bool), np.zeros(0, bool), np.zeros(0))
    assert schedule.arcs(np.array([1.0, 9.0])).tolist() == [[1, 1], [3, 5]] and schedule.on_floor(np.zeros(1)).all()


def test_a_plan_in_a_circle_is_refused() -> None:
    # Three robots, each of which waits for the next where their ways cross in a triangle.
    routes = [make_route([(0, 0), (10, 0)]), make_route([(9, -1), (3, 8)]), make_route([(7, 8), (1, -1)])]
    graph = build_graph(routes, FloorLimits(radius_m=0.3))
    assert graph.edges == 3
    circles = 0
    for first in itertools.product([False, True], repeat=3):
        first_E = np.array(first)
        if circle := exact.find_circle(graph, first_E):
            circles += 1
            assert len(circle) >= 2
            with pytest.raises(InputError, match="wait for each other in a circle"):
                algorithm.entry_times(graph, Plans(first_E[None], np.ones((1, 3), bool)))
    assert 0 < circles < 8


# Optimal plans


def every_plan(graph: Graph) -> Plans:
    """All plans without a circle that keep the limits."""
    values = np.array(list(itertools.product([False, True], repeat=graph.edges)))
    orders = [first_E for first_E in values if not exact.find_circle(graph, first_E)]
    modes = [following_E for following_E in values if not crowded(graph, following_E)]
    pairs = list(itertools.product(orders, modes))
    return Plans(np.array([one for one, _ in pairs]), np.array([other for _, other in pairs]))


@pytest.mark.parametrize("solver", ["cpsat", "highs"])
@pytest.mark.parametrize("cost", COSTS)
def test_the_best_plans_are_those_that_trying_all_finds(cost: CostName, solver: SolverName) -> None:
    tried = 0
    for seed in range(40):
        graph = random_graph(seed, 4, area=14, density=1 + seed % 2)
        if not 2 <= graph.edges <= 5:
            continue
        tried += 1
        plans = every_plan(graph)
        costs = np.sort(COSTS[cost](graph, algorithm.entry_times(graph, plans)))
        found = exact.solve_best(graph, cost, 5, solver)
        assert [one.cost for one in found] == pytest.approx(costs[:5].tolist(), abs=1e-5)
        assert all(one.optimal and one.gap == 0 for one in found)
        assert len({(one.first_E.tobytes(), one.following_E.tobytes()) for one in found}) == min(5, len(costs))
        if tried == 4:
            return
    pytest.fail("too few small graphs among the seeds")


@pytest.mark.parametrize("cost", COSTS)
def test_both_solvers_agree_and_their_objective_is_the_cost_of_the_plan(cost: CostName) -> None:
    for seed in range(6):
        graph = random_graph(seed, 2 + seed % 5, area=20)
        results = []
        for solver in ("cpsat", "highs"):
            found = exact.make_programme(graph, cost, solver).minimise(60)
            assert found is not None and found.optimal and not exact.find_circle(graph, found.first_E)
            plans = Plans(found.first_E[None], found.following_E[None])
            value = float(COSTS[cost](graph, algorithm.entry_times(graph, plans))[0])
            assert found.objective == pytest.approx(value, abs=1e-4)
            assert not crowded(graph, found.following_E)
            results.append(value)
        assert results[0] == pytest.approx(results[1], abs=1e-4)


def test_no_random_plan_is_better_than_the_optimal_one_on_a_map() -> None:
    draw = np.random.default_rng(7)
    grid = random_map(9, 9, 0.2, draw)
    graph = build_graph(shortest_routes(grid, random_visits(grid, 6, draw)), FloorLimits())
    plans, order_SN = random_plans(graph, 7, 300)
    enter_SN = algorithm.entry_times(graph, plans, order_SN)
    for name, cost in COSTS.items():
        best = exact.solve(graph, name, time_limit_s=60)
        assert best is not None and best.optimal and best.cost <= cost(graph, enter_SN).min() + 1e-6


def test_all_plans_of_a_small_graph_are_found_and_then_no_more() -> None:
    graph = build_graph([make_route([(0, 0), (10, 0)]), make_route([(5, -4), (5, 4)])], FloorLimits())
    assert len(exact.solve_best(graph, "maximum_completion", 9)) == 4  # two orders, of two types each


def test_distinct_orders_are_the_best_of_each_order() -> None:
    graph = random_graph(3, 4, area=14)
    assert 2 <= graph.edges <= 6 and density_limits.limited(graph).any()
    plans = every_plan(graph)
    costs = algorithm.average_completion(graph, algorithm.entry_times(graph, plans))
    orders = [first_E.tobytes() for first_E in plans.first_SE]
    best = sorted(min(cost for cost, order in zip(costs, orders, strict=True) if order == one) for one in set(orders))
    found = exact.solve_best(graph, "average_completion", 4, distinct="order")
    assert [one.cost for one in found] == pytest.approx(best[:4], abs=1e-5)
    assert len({one.first_E.tobytes() for one in found}) == 4
    near = exact.solve_best(graph, "average_completion", 99, distinct="order", within=0.1)
    assert [one.cost for one in near] == pytest.approx([cost for cost in best if cost <= 1.1 * best[0]], abs=1e-5)
    assert 0 < len(near) < len(best)


def test_a_time_that_is_too_short_gives_no_plan_or_one_with_its_gap() -> None:
    graph = random_graph(1, 30, area=12)
    found = exact.solve(graph, "average_completion", time_limit_s=2.0)
    assert found is None or (0 <= found.gap <= 1 and found.bound <= found.cost + 1e-6)
