"""Conversations read and checked before anything is rewritten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from squadron.core.errors import InputError
from squadron.core.job import estimated
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.data.clustering import hash_ids
from squadron.data.rows import store_rows
from squadron.methods.rewrite import plan
from squadron.methods.rewrite.config import LogsConfig, WorldConfig
from squadron.methods.rewrite.datasets import read_conversations, read_passages
from squadron.methods.rewrite.records import TURN_TYPES, Conversation, Logs, rows_of, same_text
from squadron.methods.rewrite.synthetic import make_world

PASSAGE_TYPES = {"set": "string", "id": "string", "text": "string"}


@estimated(plan.logs)
def read_logs(stage: Stage, logs: tuple[LogsConfig, ...], world: WorldConfig) -> Logs:
    """Read and check all conversations.

    Raises InputError for records that are none, passages that turns name and that are not there, and where no turn is
    left to measure.
    """
    sets = [list(read_conversations(one)) for one in logs] or [list(make_world(world))]
    measured, learned, rows = list[Conversation](), list[Conversation](), []
    for number, found in enumerate(sets):
        parts = _split(found, logs[number]) if logs else (found[: world.conversations], found[world.conversations :])
        measured += parts[0]
        learned += parts[1]
        rows.append(_row(found, *parts))
    passages = list(_passages(logs, measured))
    if not any(said.measured for one in measured for said in one.turns):
        fix = "give at least one set with use=measure or use=both"
        raise InputError("no turn is left to measure rewrites on", where="logs", fix=fix)
    columns = ["set", "conversations", "turns", "longest", "with rewrite", "need none", "with passages", "measured on",
               "learned from"]  # fmt: skip
    note = "A turn needs no rewrite where a person's is the query itself."
    stage.show(Table(title="What was read", columns=columns, rows=rows, note=note))
    return Logs(
        measured=store_rows(stage, "measured.arrow", rows_of(measured), TURN_TYPES),
        learned=store_rows(stage, "learned.arrow", rows_of(learned), TURN_TYPES),
        passages=store_rows(stage, "passages.arrow", passages, PASSAGE_TYPES),
        sets=tuple(dict.fromkeys(one.set for one in measured)),
    )


def _split(found: Sequence[Conversation], config: LogsConfig) -> tuple[list[Conversation], list[Conversation]]:
    """Those to measure on and those to learn from. Which ones depends on their names alone."""
    if config.use != "both":
        return (list(found), []) if config.use == "measure" else ([], list(found))
    order = hash_ids([one.id for one in found], "held out ").argsort(kind="stable")
    held = {found[place].id for place in order[: max(1, round(config.held_out * len(found)))]}
    return [one for one in found if one.id in held], [one for one in found if one.id not in held]


def _passages(logs: Sequence[LogsConfig], measured: Sequence[Conversation]) -> Iterator[dict[str, str]]:
    for config in logs:
        if config.passages is None:
            continue
        passages = read_passages(config)
        for one in measured:
            named = [name for said in one.turns if one.set == config.name for name in said.passages]
            if gone := sorted(set(named) - set(passages)):
                what = f"conversation {one.id} names {gone[0]}, which is no passage"
                raise InputError(what, where=str(config.passages), fix="give every passage that a turn names")
        yield from ({"set": config.name, "id": name, "text": text} for name, text in passages.items())


def _row(
    found: Sequence[Conversation], measured: Sequence[Conversation], learned: Sequence[Conversation]
) -> list[str | int | float | bool | None]:
    said = [turn for one in found for turn in one.turns if turn.measured]
    rewritten = [turn for turn in said if turn.reference is not None]
    same = sum(same_text(turn.query, turn.reference or "") for turn in rewritten)
    longest = max((len(one.turns) for one in found), default=0)
    named = sum(bool(turn.passages) for turn in said)
    name = found[0].set if found else "–"
    return [name, len(found), len(said), longest, len(rewritten), same, named, len(measured), len(learned)]
