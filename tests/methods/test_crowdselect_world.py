"""The small world: what is asked is never learned, and a crowd is trained once."""

from __future__ import annotations

from squadron.data.tasks import UNANSWERABLE
from squadron.methods.crowdselect.synthetic_task import WorldConfig, held_out_tasks, lesson_tasks, pool_tasks

WORLD = WorldConfig(pool=300, held_out=60, unanswerable=0.5)


def test_nothing_that_is_asked_is_learned_or_asked_twice() -> None:
    pool, held_out = list(pool_tasks(WORLD)), list(held_out_tasks(WORLD))
    asked = [task.instruction for task in (*pool, *held_out)]
    assert len(held_out) == 60 and len(asked) == len(set(asked))
    for family in (*WORLD.families, WORLD.base):
        few = family.model_copy(update={"lessons": 3000})
        learned = list(lesson_tasks(WORLD, few))
        assert len(learned) == 3000 and not {task.instruction for task in learned} & set(asked)
        assert {task.kind for task in learned} == set(family.kinds)


def test_the_pool_alone_holds_what_nobody_can_answer() -> None:
    pool = list(pool_tasks(WORLD))
    share = sum(task.answer == UNANSWERABLE for task in pool) / len(pool)
    assert 0.35 < share < 0.55
    assert all(task.answer != UNANSWERABLE for task in held_out_tasks(WORLD))
    assert not any("___" in task.instruction for task in lesson_tasks(WORLD, WORLD.base))


def test_another_seed_is_another_world() -> None:
    other = WORLD.model_copy(update={"seed": 1})
    here, there = ({task.instruction for task in pool_tasks(world)} for world in (WORLD, other))
    assert here == {task.instruction for task in pool_tasks(WORLD)} and len(here & there) < len(here) / 2
