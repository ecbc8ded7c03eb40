"""Monte Carlo tree search over reasoning steps, guided by a process reward model.

Selection is UCT (Kocsis and Szepesvári 2006). Several leaves are selected together, each leaving a virtual loss on its
path (Chaslot et al. 2008), so that a model is asked for many steps at once. With `leaves=1` it is the sequential
search of the textbook.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import Field

from squadron.core.config import Config
from squadron.core.rehearsal import AtMost
from squadron.search.asks import Preference, Propose, Steps, Value
from squadron.search.steps import best_and_worst

ROOT = 0
T = TypeVar("T")
IsOver = Callable[[Steps], bool]
Asking = Generator[tuple[Propose, ...] | Value, Sequence[Any], T]


class TreeSearchConfig(Config):
    """How long, how wide and how deep to search."""

    iterations: Annotated[int, AtMost(6)] = Field(100, ge=1, description="simulations of one problem")
    width: Annotated[int, AtMost(3)] = Field(4, ge=2, description="steps proposed where a node is expanded")
    simulation_depth: Annotated[int, AtMost(1)] = Field(
        3, ge=0, description="most steps that a simulation goes beyond the tree"
    )
    exploration: float = Field(1.4, ge=0, description="weight of UCT's exploration term; values lie in [0, 1]")
    leaves: int = Field(8, ge=1, description="most leaves selected together; 1 is the sequential search")
    max_depth: Annotated[int, AtMost(3)] = Field(20, ge=1, description="most steps of a solution")


@dataclass
class Node:
    """A step in the tree; the root is the problem itself and has no step.

    `reward` is the step's own process reward, None where there is none. `visits` counts the iterations that went
    through the node, `valued` those of them that brought a value, and `total` is the sum of these values.
    """

    parent: int | None
    depth: int
    step: str
    reward: float | None = None
    visits: int = 0
    valued: int = 0
    total: float = 0.0
    children: list[int] = field(default_factory=list)


@dataclass
class Tree:
    """The nodes in the order of their making: the root first, every parent before its children."""

    nodes: list[Node] = field(default_factory=lambda: [Node(parent=None, depth=0, step="")])


def search_tree(config: TreeSearchConfig, is_last: Callable[[str], bool]) -> Asking[Tree]:
    """Grow the tree of one problem, `iterations` simulations in all.

    A tuple of `Propose` is answered by the sequence of their answers, a `Value` by one number or None a path.

    An iteration selects a leaf, expands it (equal proposals are one child, None is none), and simulates from the new
    child of the highest process reward. The simulation takes single proposals as they come, and its value is the
    process reward of the last step reached. Where no child could be added it starts at the leaf. A solution that has
    ended, by `is_last` or by `max_depth`, is visited again at its own process reward.

    A value that is None is not zero: the visit counts, and means are taken over the visits that brought a value.

    Raises ValueError where an answer does not fit what was asked.
    """

    def is_over(steps: Steps) -> bool:
        return len(steps) >= config.max_depth or (len(steps) > 0 and is_last(steps[-1]))

    tree = Tree()
    done = 0
    while done < config.iterations:
        leaves = select_leaves(tree, min(config.leaves, config.iterations - done), config.exploration)
        yield from _expand(tree, leaves, done, config, is_over)
        starts = [_start(tree, leaf, config.exploration) for leaf in leaves]
        values = yield from _simulate(tree, starts, done, config, is_over)
        for start, value in zip(starts, values, strict=True):
            back_up(tree, start, value)
        done += len(leaves)
    return tree


def extreme_pairs(tree: Tree) -> list[Preference]:
    """At every expanded node, the child of the highest process reward over that of the lowest, the first among equals.

    Nodes whose children's rewards do not differ, or are missing, give no pair.
    """
    pairs = []
    for index, node in enumerate(tree.nodes):
        children = [tree.nodes[child] for child in node.children]
        extremes = best_and_worst([child.reward for child in children])
        if extremes is not None:
            best, worst = extremes
            pairs.append(Preference(path(tree, index), children[best].step, children[worst].step))
    return pairs


def path(tree: Tree, index: int) -> Steps:
    """The steps from the root to a node, its own included."""
    return tuple(tree.nodes[place].step for place in reversed(_lineage(tree, index)[:-1]))


def select_leaves(tree: Tree, count: int, exploration: float) -> list[int]:
    """Up to `count` different leaves, one descent each.

    Every descent leaves a virtual loss on its path, a visit of value 0, that steers the next ones elsewhere. One that
    still ends at a leaf selected before gives its loss and no leaf.
    """
    losses: Counter[int] = Counter()
    leaves: dict[int, None] = {}
    for _ in range(count):
        leaf = ROOT
        while tree.nodes[leaf].children:
            leaf = best_child(tree, leaf, losses, exploration)
        leaves[leaf] = None
        losses.update(_lineage(tree, leaf))
    return list(leaves)


def best_child(tree: Tree, index: int, losses: Mapping[int, int], exploration: float) -> int:
    """The child of highest UCT, virtual losses included.

    Children that were never visited come before all others. Equals are ordered by process reward, then by position.
    """
    parent = tree.nodes[index]
    parent_mean = _mean(parent, losses.get(index, 0), 0.0)
    log_visits = math.log(max(1, parent.visits + losses.get(index, 0)))

    def rank(child: int) -> tuple[float, float]:
        node, loss = tree.nodes[child], losses.get(child, 0)
        reward = -1.0 if node.reward is None else node.reward
        visits = node.visits + loss
        if visits == 0:
            return math.inf, reward
        # Of a child that no value came from, no more is known than of its parent.
        return _mean(node, loss, parent_mean) + exploration * math.sqrt(log_visits / visits), reward

    return max(parent.children, key=rank)


def back_up(tree: Tree, index: int, value: float | None) -> None:
    """Count a visit, and its value if there is one, at a node and at all above it."""
    for place in _lineage(tree, index):
        node = tree.nodes[place]
        node.visits += 1
        if value is not None:
            node.valued += 1
            node.total += value


def _expand(tree: Tree, leaves: list[int], done: int, config: TreeSearchConfig, is_over: IsOver) -> Asking[None]:
    """Give each leaf, unless its solution has ended, the children that are proposed, and the children their rewards."""
    asks = {
        leaf: Propose(path(tree, leaf), config.width, done + turn)
        for turn, leaf in enumerate(leaves)
        if not is_over(path(tree, leaf))
    }
    answers = yield from _propose(tuple(asks.values()))
    made = []
    for leaf, proposals in zip(asks, answers, strict=True):
        for step in dict.fromkeys(step for step in proposals if step is not None):
            tree.nodes.append(Node(parent=leaf, depth=tree.nodes[leaf].depth + 1, step=step))
            tree.nodes[leaf].children.append(len(tree.nodes) - 1)
            made.append(len(tree.nodes) - 1)
    rewards = yield from _value(tuple(path(tree, child) for child in made))
    for child, reward in zip(made, rewards, strict=True):
        tree.nodes[child].reward = reward


def _start(tree: Tree, leaf: int, exploration: float) -> int:
    return best_child(tree, leaf, {}, exploration) if tree.nodes[leaf].children else leaf


def _simulate(
    tree: Tree, starts: list[int], done: int, config: TreeSearchConfig, is_over: IsOver
) -> Asking[list[float | None]]:
    """The value of a simulation from each start: the process reward of the last step that it reached."""
    reached = [path(tree, start) for start in starts]
    running = list(range(len(starts)))
    for _ in range(config.simulation_depth):
        running = [turn for turn in running if not is_over(reached[turn])]
        answers = yield from _propose(tuple(Propose(reached[turn], 1, done + turn) for turn in running))
        steps = {turn: step for turn, (step,) in zip(running, answers, strict=True) if step is not None}
        for turn, step in steps.items():
            reached[turn] += (step,)
        running = list(steps)
    beyond = [turn for turn, start in enumerate(starts) if len(reached[turn]) > tree.nodes[start].depth]
    values = [tree.nodes[start].reward for start in starts]
    for turn, value in zip(beyond, (yield from _value(tuple(reached[turn] for turn in beyond))), strict=True):
        values[turn] = value
    return values


def _propose(asks: tuple[Propose, ...]) -> Asking[Sequence[Sequence[str | None]]]:
    if not asks:
        return ()
    answers = yield asks
    if [len(answer) for answer in answers] != [ask.count for ask in asks]:
        raise ValueError(f"the proposals do not fit the {len(asks)} asks")
    return answers


def _value(paths: tuple[Steps, ...]) -> Asking[Sequence[float | None]]:
    if not paths:
        return ()
    values = yield Value(paths)
    if len(values) != len(paths):
        raise ValueError(f"{len(values)} values where {len(paths)} were asked for")
    wrong = [value for value in values if value is not None and not 0 <= value <= 1]
    if wrong:
        raise ValueError(f"a process reward lies in [0, 1], not at {wrong[0]}")
    return values


def _mean(node: Node, losses: int, unknown: float) -> float:
    counted = node.valued + losses
    return node.total / counted if counted else unknown


def _lineage(tree: Tree, index: int) -> list[int]:
    """A node and all above it, the root last."""
    lineage = [index]
    while (parent := tree.nodes[lineage[-1]].parent) is not None:
        lineage.append(parent)
    return lineage
