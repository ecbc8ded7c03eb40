"""Tree search equals a recursive one of the textbook when sequential, and keeps its promises when it is not."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.search import Preference, Propose, Tree, TreeSearchConfig, Value, extreme_pairs, path, search_tree
from squadron.search.tree import Node, back_up, best_child, select_leaves

Steps = tuple[str, ...]
Log = list[tuple[Any, Sequence[Any]]]


@dataclass(frozen=True)
class World:
    """Steps and process rewards that depend on the path alone: letters, some of them last, some missing."""

    seed: int
    letters: str = "abcd"
    missing_steps: float = 0.0
    missing_values: float = 0.0

    def propose(self, steps: Steps, count: int, iteration: int) -> list[str | None]:
        drawn = [self.number("step", steps, count, iteration, place) for place in range(count)]
        return [None if one < self.missing_steps else self.letters[int(one * 1e6) % len(self.letters)] for one in drawn]

    def value(self, steps: Steps) -> float | None:
        if not steps or self.number("missing", steps) < self.missing_values:
            return None
        return self.number("value", steps)

    def number(self, *what: Any) -> float:
        return zlib.crc32(repr((self.seed, what)).encode()) / 2**32


def is_last(step: str) -> bool:
    return step == "d"


def answer(ask: Any, world: Any) -> Sequence[Any]:
    if isinstance(ask, Value):
        return [world.value(steps) for steps in ask.paths]
    return [world.propose(one.steps, one.count, one.iteration) for one in ask]


def drive(
    config: TreeSearchConfig, reply: Callable[[Any], Sequence[Any]], last: Callable[[str], bool] = is_last
) -> tuple[Tree, Log]:
    search, log = search_tree(config, last), []
    try:
        ask = next(search)
        while True:
            log.append((ask, reply(ask)))
            ask = search.send(log[-1][1])
    except StopIteration as end:
        return end.value, log


def run(config: TreeSearchConfig, world: Any) -> tuple[Tree, Log]:
    return drive(config, lambda ask: answer(ask, world))


@dataclass
class Naive:
    """A node of the textbook's search: selection, expansion, simulation and backup by recursion."""

    config: TreeSearchConfig
    world: Any
    steps: Steps = ()
    reward: float | None = None
    visits: int = 0
    values: list[float] = field(default_factory=list)
    children: list[Naive] = field(default_factory=list)

    def visit(self, iteration: int) -> float | None:
        if self.children:
            value = max(self.children, key=self.rank).visit(iteration)
        elif self.ended(self.steps):
            value = self.reward
        else:
            self.expand(iteration)
            if self.children:
                start = max(self.children, key=lambda child: -1 if child.reward is None else child.reward)
                value = start.simulate(iteration)
                start.record(value)
            else:
                value = self.simulate(iteration)
        self.record(value)
        return value

    def record(self, value: float | None) -> None:
        self.visits += 1
        self.values += [] if value is None else [value]

    def expand(self, iteration: int) -> None:
        for step in self.world.propose(self.steps, self.config.width, iteration):
            if step is not None and step not in [child.steps[-1] for child in self.children]:
                steps = (*self.steps, step)
                self.children.append(Naive(self.config, self.world, steps, self.world.value(steps)))

    def simulate(self, iteration: int) -> float | None:
        steps = self.steps
        for _ in range(self.config.simulation_depth):
            step = None if self.ended(steps) else self.world.propose(steps, 1, iteration)[0]
            if step is None:
                break
            steps = (*steps, step)
        return self.world.value(steps)

    def ended(self, steps: Steps) -> bool:
        return len(steps) == self.config.max_depth or steps[-1:] == ("d",)

    def rank(self, child: Naive) -> tuple[float, float]:
        reward = -1.0 if child.reward is None else child.reward
        if child.visits == 0:
            return math.inf, reward
        values = child.values or self.values or [0.0]
        bonus = self.config.exploration * math.sqrt(math.log(self.visits) / child.visits)
        return sum(values) / len(values) + bonus, reward

    def summary(self) -> dict[Steps, tuple[float | None, int, int, float]]:
        own = {self.steps: (self.reward, self.visits, len(self.values), float(sum(self.values)))}
        for child in self.children:
            own |= child.summary()
        return own


def summary(tree: Tree) -> dict[Steps, tuple[float | None, int, int, float]]:
    return {
        path(tree, index): (node.reward, node.visits, node.valued, node.total) for index, node in enumerate(tree.nodes)
    }


worlds = st.builds(
    World,
    seed=st.integers(0, 10**6),
    letters=st.sampled_from(["abcd", "abc", "abcabcabcd", "d"]),
    missing_steps=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    missing_values=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
)
configs = st.builds(
    TreeSearchConfig,
    iterations=st.integers(1, 60),
    width=st.integers(2, 4),
    simulation_depth=st.integers(0, 3),
    exploration=st.sampled_from([0.0, 0.3, 1.4]),
    leaves=st.integers(1, 8),
    max_depth=st.integers(1, 6),
)


@given(config=configs, world=worlds)
def test_one_leaf_at_a_time_equals_the_textbook(config: TreeSearchConfig, world: World) -> None:
    config = config.model_copy(update={"leaves": 1})
    naive = Naive(config, world)
    for iteration in range(config.iterations):
        naive.visit(iteration)
    assert summary(run(config, world)[0]) == naive.summary()


@given(config=configs, world=worlds)
def test_what_holds_of_every_tree(config: TreeSearchConfig, world: World) -> None:
    tree, log = run(config, world)
    assert tree.nodes[0].visits == config.iterations
    assert len(set(summary(tree))) == len(tree.nodes), "children of one node differ"
    for index, node in enumerate(tree.nodes):
        children = [tree.nodes[child] for child in node.children]
        assert all(child > index and tree.nodes[child].parent == index for child in node.children)
        assert all(child.depth == node.depth + 1 <= config.max_depth for child in children)
        assert len(children) <= config.width
        assert not (children and is_last(node.step))
        assert 0 <= node.valued <= node.visits
        assert 0 <= node.total <= node.valued
        through = sum(child.visits for child in children)
        assert through <= node.visits
        if children and world.missing_steps == 0:
            # One visit more where a simulation began at the node before it was expanded.
            assert node.visits - through in ((0,) if index == 0 else (0, 1))
    asks = [one for ask, _ in log if not isinstance(ask, Value) for one in ask]
    assert len(set(asks)) == len(asks), "a seed made of an ask is used once"
    assert {one.iteration for one in asks} <= set(range(config.iterations))


@given(config=configs, world=worlds)
def test_leaves_selected_together_differ(config: TreeSearchConfig, world: World) -> None:
    _, log = run(config, world)
    for ask, _ in log:
        paths = ask.paths if isinstance(ask, Value) else [one.steps for one in ask]
        assert len(set(paths)) == len(paths) > 0
        if not isinstance(ask, Value):
            assert len(ask) <= config.leaves
            assert len({one.iteration for one in ask}) == len(ask)


@given(config=configs, world=worlds)
def test_recorded_answers_replay_the_search(config: TreeSearchConfig, world: World) -> None:
    tree, log = run(config, world)
    answers = iter([reply for _, reply in log])
    assert drive(config, lambda ask: next(answers)) == (tree, log)


class Lock:
    """Digits are tried in order; a path is worth the share of the code that it gets right before its first mistake."""

    code: Steps = ("2", "0", "1", "2")

    def propose(self, steps: Steps, count: int, iteration: int) -> list[str | None]:
        if count == 1:
            return [str((len(steps) + iteration) % 3)]
        return ["0", "1", "2", "1"]

    def value(self, steps: Steps) -> float:
        right = 0
        while right < len(steps) and steps[right] == self.code[right]:
            right += 1
        return right / len(self.code)


@pytest.mark.parametrize("leaves", [1, 8])
def test_finds_the_best_leaf_of_a_known_tree(leaves: int) -> None:
    config = TreeSearchConfig(iterations=400, exploration=0.5, leaves=leaves, max_depth=4)
    tree, log = drive(config, lambda ask: answer(ask, Lock()), last=lambda step: False)
    place = 0
    while tree.nodes[place].children:
        place = max(tree.nodes[place].children, key=lambda child: tree.nodes[child].visits)
    assert path(tree, place) == Lock.code
    rounds = len({one.iteration for ask, _ in log if not isinstance(ask, Value) for one in ask if one.count > 1})
    batches = sum(not isinstance(ask, Value) and ask[0].count > 1 for ask, _ in log)
    assert batches == rounds if leaves == 1 else batches < rounds / 3


def grown(*children: tuple[float, int]) -> Tree:
    """A root and its children of (mean, visits), and unvisited grandchildren x and y under the first one."""
    tree = Tree()
    for mean, visits in children:
        tree.nodes.append(Node(0, 1, f"s{len(tree.nodes)}", mean))
        tree.nodes[0].children.append(len(tree.nodes) - 1)
        for _ in range(visits):
            back_up(tree, len(tree.nodes) - 1, mean)
    for step, reward in (("x", 0.2), ("y", 0.9)):
        tree.nodes.append(Node(1, 2, step, reward))
        tree.nodes[1].children.append(len(tree.nodes) - 1)
    return tree


def test_uct_by_hand() -> None:
    """Means 0.9 and 0.5 after 4 and 2 of 6 visits: 0.9 + c·0.669 against 0.5 + c·0.947, which cross at c = 1.44."""
    tree = grown((0.9, 4), (0.5, 2))
    assert tree.nodes[0].total == pytest.approx(4.6)
    assert best_child(tree, 0, {}, 1.43) == 1
    assert best_child(tree, 0, {}, 1.45) == 2
    assert best_child(tree, 1, {}, 1.4) == 4, "of the unvisited, the one of the higher process reward"
    tree.nodes[3].reward = 0.9
    assert best_child(tree, 1, {}, 1.4) == 3, "among equals the first"


def test_virtual_loss_turns_the_next_descent_elsewhere() -> None:
    """A loss is a visit of value 0, the parent's too, whose visits raise all bonuses.

    c = 0.5. First 0.9 + 0.5·0.669 beats 0.5 + 0.5·0.947. After a loss: 3.6/5 + 0.5·0.624 = 1.032 against
    0.5 + 0.5·0.986 = 0.993. After two: 3.6/6 + 0.5·0.589 = 0.894 against 0.5 + 0.5·1.020 = 1.010."""
    tree = grown((0.9, 4), (0.5, 2))
    before = summary(tree)
    assert best_child(tree, 0, {0: 1, 1: 1}, 0.5) == 1
    assert best_child(tree, 0, {0: 2, 1: 2}, 0.5) == 2
    assert best_child(tree, 0, {}, 1.2) == 1
    assert best_child(tree, 0, {0: 20}, 1.2) == 2, "0.9 + 1.2·0.902 against 0.5 + 1.2·1.276"
    assert select_leaves(tree, 1, 0.5) == [4]
    assert select_leaves(tree, 2, 0.5) == [4, 3]
    assert select_leaves(tree, 3, 0.5) == [4, 3, 2]
    assert select_leaves(tree, 30, 0.5) == [4, 3, 2], "no leaf twice"
    assert summary(tree) == before, "losses are gone with the selection"


def test_batches_are_full_once_the_tree_is_wide_enough() -> None:
    class Even(World):
        def value(self, steps: Steps) -> float:
            return 0.5

        def propose(self, steps: Steps, count: int, iteration: int) -> list[str | None]:
            return list("abce"[:count])

    _, log = run(TreeSearchConfig(iterations=101, leaves=8), Even(0))
    sizes = [len(ask) for ask, _ in log if not isinstance(ask, Value) and ask[0].count == 4]
    assert sum(sizes) == 101
    assert sizes[0] == 1
    assert sizes[2:-1] == [8] * len(sizes[2:-1])


def test_a_visit_without_a_value_is_not_a_value_of_zero() -> None:
    """A child visited without a value stands at its parent's mean, not below one that is worth little."""
    tree = grown((0.1, 1), (0.9, 0))
    back_up(tree, 2, None)
    assert (tree.nodes[2].visits, tree.nodes[2].valued, tree.nodes[2].total) == (1, 0, 0.0)
    assert (tree.nodes[0].visits, tree.nodes[0].valued) == (2, 1)
    assert best_child(tree, 0, {}, 1.0) == 2, "same mean, same visits, higher process reward"
    tree.nodes[2].reward = None
    assert best_child(tree, 0, {}, 1.0) == 1, "a missing process reward comes last among equals"
    back_up(tree, 2, 0.3)
    assert tree.nodes[2].total / tree.nodes[2].valued == 0.3


@pytest.mark.parametrize(("steps", "values"), [(1.0, 0.0), (0.0, 1.0)])
def test_models_that_never_answer_end_the_search(steps: float, values: float) -> None:
    tree, log = run(TreeSearchConfig(iterations=20), World(3, missing_steps=steps, missing_values=values))
    assert (tree.nodes[0].visits, tree.nodes[0].valued, tree.nodes[0].total) == (20, 0, 0.0)
    assert extreme_pairs(tree) == []
    assert (len(tree.nodes) == 1) == (steps == 1.0)
    assert len(log) <= 20 * 6


def test_a_failed_expansion_is_tried_again() -> None:
    class Stutters(World):
        def propose(self, steps: Steps, count: int, iteration: int) -> list[str | None]:
            return [None] * count if iteration == 0 else super().propose(steps, count, iteration)

    tree, log = run(TreeSearchConfig(iterations=2), Stutters(1))
    assert [ask[0] for ask, _ in log[:3]] == [Propose((), 4, 0), Propose((), 1, 0), Propose((), 4, 1)]
    assert tree.nodes[0].visits == 2
    assert tree.nodes[0].valued == 1
    assert tree.nodes[0].children


def test_extreme_pairs_by_hand() -> None:
    tree = Tree()
    for parent, step, reward in [
        (0, "a", 0.4),
        (0, "b", 0.9),
        (0, "c", 0.1),
        (0, "d", None),
        (0, "e", 0.9),
        (0, "f", 0.1),
        (2, "g", 0.5),
        (2, "h", 0.5),
        (1, "i", 0.0),
        (1, "j", 0.2),
        (7, "k", 0.7),
        (7, "l", None),
    ]:
        tree.nodes.append(Node(parent, tree.nodes[parent].depth + 1, step, reward))
        tree.nodes[parent].children.append(len(tree.nodes) - 1)
    assert extreme_pairs(tree) == [Preference((), "b", "c"), Preference(("a",), "j", "i")]


@settings(max_examples=30)
@given(config=configs, world=worlds)
def test_extreme_pairs_are_the_extremes(config: TreeSearchConfig, world: World) -> None:
    tree, _ = run(config, world)
    rewards = {steps: reward for steps, (reward, *_) in summary(tree).items()}
    pairs = extreme_pairs(tree)
    for pair in pairs:
        siblings = [
            reward
            for steps, reward in rewards.items()
            if len(steps) == len(pair.steps) + 1 and steps[:-1] == pair.steps and reward is not None
        ]
        assert rewards[(*pair.steps, pair.chosen)] == max(siblings)
        assert rewards[(*pair.steps, pair.rejected)] == min(siblings) < max(siblings)
    parents = [steps[:-1] for steps, reward in rewards.items() if steps and reward is not None]
    assert {pair.steps for pair in pairs} == {steps for steps in parents if parents.count(steps) > 1}


def test_answers_that_do_not_fit_are_refused() -> None:
    config = TreeSearchConfig(width=2)
    with pytest.raises(ValueError, match="do not fit"):
        drive(config, lambda ask: [["a"]])
    with pytest.raises(ValueError, match="values where"):
        drive(config, lambda ask: [0.5] if isinstance(ask, Value) else [["a", "b"]])
    for wrong in (1.5, math.nan):
        with pytest.raises(ValueError, match="lies in"):
            drive(config, lambda ask, wrong=wrong: [wrong, 0.5] if isinstance(ask, Value) else [["a", "b"]])
