"""A small floor with robots on it, for a rehearsal of coordination where there are no files of the user's."""

from __future__ import annotations

import json

SIDE = 8
_STARTS, _GOALS = (0, 7, 56, 63), (63, 56, 7, 0)


def made_up_map() -> str:
    """An empty floor in MovingAI's format."""
    return "\n".join(["type octile", f"height {SIDE}", f"width {SIDE}", "map", *["." * SIDE] * SIDE, ""])


def made_up_starts() -> str:
    """Robots in the four corners."""
    return "\n".join(map(str, [len(_STARTS), *_STARTS, ""]))


def made_up_tasks() -> str:
    """Each crosses the floor."""
    return "\n".join(map(str, [len(_GOALS), *_GOALS, ""]))


def made_up_routes() -> str:
    """Two routes that cross."""
    routes: list[list[list[float]]] = [[[0, 4], [8, 4]], [[4, 0], [4, 8]]]
    return "".join(f"{json.dumps({'route': route})}\n" for route in routes)
