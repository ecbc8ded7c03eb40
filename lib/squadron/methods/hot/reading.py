"""Questions read and drawn, and demonstrations read and checked."""

from __future__ import annotations

import random
from collections.abc import Sequence

from squadron.core.job import estimated
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.data.arithmetic import problems
from squadron.data.rows import store_rows
from squadron.evaluate.tasks.items import Item
from squadron.methods.hot.config import DrawConfig, TaskConfig
from squadron.methods.hot.demonstrations import (
    Demonstration,
    find_flaws,
    find_leaks,
    read_demonstrations,
    refuse_leaks,
)
from squadron.methods.hot.items import read_items
from squadron.methods.hot.plan import questions
from squadron.methods.hot.records import ITEM_TYPES, SHOWN_TYPES, TaskSet
from squadron.methods.hot.solver_config import WorldConfig

BY_RULE = "word problems"
_DEMONSTRATIONS_SEED = 2**31
_SHOWN_FLAWS = 40


@estimated(questions)
def read_tasks(
    stage: Stage, tasks: tuple[TaskConfig, ...], draw: DrawConfig, leaks: str, world: WorldConfig | None
) -> TaskSet:
    """Read and draw questions; read demonstrations, list what is wrong with them, and look for leaks of the test.

    Raises InputError for questions or demonstrations that cannot be read, two of one id, and a demonstration that shows
    a question of the test, unless such are dropped.
    """
    sets = [_read(one) for one in tasks] or [_made_up(draw, world)]
    flaws, dropped, rows = [], 0, []
    for name, items, shown in sets:
        leaked = find_leaks(shown, {item.id: item.question for item in items})
        if leaks == "refuse":
            refuse_leaks(leaked)
        gone = {id(one) for one, _ in leaked}
        shown[:] = [one for one in shown if id(one) not in gone]
        dropped += len(gone)
        found = find_flaws(shown)
        flaws += [[name, flaw.place, flaw.said] for flaw in found]
        rows.append([name, len(items), len(shown), len(gone), len(found)])
    drawn = [(name, draw_items(items, draw)) for name, items, _ in sets]
    for row, (_, items) in zip(rows, drawn, strict=True):
        row.insert(2, len(items))
    columns = ["task", "questions", "asked", "demonstrations", "left out as leaks", "flaws"]
    stage.show(Table(title="What was read", columns=columns, rows=rows))
    if flaws:
        note = "" if len(flaws) <= _SHOWN_FLAWS else f"The first {_SHOWN_FLAWS} of {len(flaws)}."
        columns = ["task", "where", "what"]
        stage.show(Table(title="Flaws of demonstrations", columns=columns, rows=flaws[:_SHOWN_FLAWS], note=note))
    stage.headline("questions", f"{sum(len(items) for _, items in drawn):,} of {len(sets)} tasks")
    if dropped:
        stage.headline("demonstrations left out because they show a question of the test", str(dropped))
    asked = (one._replace(id=f"{name}: {one.id}")._asdict() for name, some in drawn for one in some)
    examples = ({"task": name, **vars(one)} for name, _, shown in sets for one in shown)
    return TaskSet(
        items=store_rows(stage, "items.arrow", asked, ITEM_TYPES),
        demonstrations=store_rows(stage, "demonstrations.arrow", examples, SHOWN_TYPES),
        tasks=tuple(name for name, _, _ in sets),
        flaws=len(flaws),
        dropped=dropped,
    )


def draw_items(items: Sequence[Item], config: DrawConfig) -> list[Item]:
    """The items that are asked, in their order. Random ones are none of the `count` longest, unless too few are left
    over: then there are so many fewer."""
    if config.how == "full" or (config.how != "random" and len(items) <= config.count):
        return list(items)
    by_length = sorted(range(len(items)), key=lambda number: (len(items[number].question), number))
    if config.how == "shortest":
        places = by_length[: config.count]
    elif config.how == "longest":
        places = by_length[-config.count :]
    else:
        left = sorted(by_length[: -config.count]) if len(items) > config.count else by_length
        places = random.Random(config.seed).sample(left, min(config.count, len(left)))
    return [items[number] for number in sorted(places)]


def _read(task: TaskConfig) -> tuple[str, list[Item], list[Demonstration]]:
    shown = [] if task.demonstrations is None else read_demonstrations(task.demonstrations)
    return task.name, read_items(task.items, task.name), shown


def _made_up(draw: DrawConfig, world: WorldConfig | None) -> tuple[str, list[Item], list[Demonstration]]:
    """Problems by rule with demonstrations; for a solver that is trained here, of its world: it learns other ones."""
    from squadron.methods.hot.rehearsal import made_up_demonstrations
    from squadron.methods.hot.synthetic import draw_world

    asked = problems(2 * draw.count, draw.seed) if world is None else draw_world(world, 2 * draw.count, 0, draw.seed)[0]
    items = [Item(str(number), one.question, (str(one.answer),), "number", BY_RULE) for number, one in enumerate(asked)]
    rows = made_up_demonstrations("", "hot", seed=_DEMONSTRATIONS_SEED + draw.seed)
    shown = [Demonstration(row["question"], row["highlighted"], row["answer"], BY_RULE) for row in rows]
    return BY_RULE, items, shown
