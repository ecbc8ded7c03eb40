"""Search over reasoning steps: generators that yield what they need to know, are sent the answers, and return a find.

    from squadron.search import Compare, Propose, StepSearchConfig, search_steps

    search = search_steps(StepSearchConfig(width=6), is_last=lambda step: "boxed" in step)
    answer = None
    try:
        while True:
            match search.send(answer):
                case Propose() as ask: answer = model.propose(ask.steps, ask.count, ask.iteration)
                case Compare() as ask: answer = judge.compare(ask.steps, ask.contests)
    except StopIteration as end:
        found = end.value

A search draws nothing at random and reads no clock: the same answers give the same find, so a log of answers is all
that is needed to resume after a stop. `search_tree` works alike and yields tuples of `Propose`, and `Value`.
"""

from squadron.search.asks import Compare, Preference, Propose, Steps, Value, Verdict
from squadron.search.steps import Found, StepSearchConfig, Turn, search_steps
from squadron.search.tree import Node, Tree, TreeSearchConfig, extreme_pairs, path, search_tree

__all__ = [
    "Compare",
    "Found",
    "Node",
    "Preference",
    "Propose",
    "StepSearchConfig",
    "Steps",
    "Tree",
    "TreeSearchConfig",
    "Turn",
    "Value",
    "Verdict",
    "extreme_pairs",
    "path",
    "search_steps",
    "search_tree",
]
