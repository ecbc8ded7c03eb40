"""The tasks by name."""

from __future__ import annotations

from squadron.sim.manipulation.task import Task
from squadron.sim.manipulation.tasks import (
    close_box,
    insert_onto_square_peg,
    scoop_with_spatula,
    slide_block_to_target,
)

TASKS: dict[str, Task] = {
    "close_box": close_box.TASK,
    "slide_block_to_target": slide_block_to_target.TASK,
    "insert_onto_square_peg": insert_onto_square_peg.TASK,
    "scoop_with_spatula": scoop_with_spatula.TASK,
}
