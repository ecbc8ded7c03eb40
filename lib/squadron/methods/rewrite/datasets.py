"""Conversations as people publish and log them, each turn with the file and line where it stands.

| format | a record | its rewrite |
|---|---|---|
| plain | `{conversation, turns: [{query, response?, rewrite?, passages?}]}`, or a line a turn | `rewrite` |
| canard | `{History, QuAC_dialog_id, Question, Question_no, Rewrite}` | `Rewrite` |
| cast | `{number, turn: [{number, raw_utterance, manual_rewritten_utterance?}]}` | there, or a table `31_1<tab>text` |
| mtrag | `{id, history: [{speaker, text}], query, rewrite?, passages}` | `rewrite` |
| sparc | `{id, turns: [{utterance, sql}], goal}` | `goal`, of the last turn |
| qrecc | `{Conversation_no, Turn_no, Question, Rewrite, Answer, Context, …}` | `Rewrite` |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.data.records import Record, read_records
from squadron.methods.rewrite.config import LogsConfig
from squadron.methods.rewrite.records import Conversation, Said
from squadron.methods.rewrite.sql_slots import kept_slots

_FIX = "give {conversation, turns: [{query, response, rewrite}]}; README.md lists the other formats"


def read_conversations(config: LogsConfig) -> Iterator[Conversation]:
    """The conversations of a set, in the order of its file. Raises InputError, with file and line, for a record that is
    none, a conversation that occurs twice, and turns that are out of order."""
    readers = {
        "plain": _plain, "canard": _canard, "cast": _cast, "mtrag": _mtrag, "sparc": _sparc, "qrecc": _qrecc,
    }  # fmt: skip
    records = read_records(str(config.path), config.split)
    seen: dict[str, str] = {}
    for number, (where, identifier, turns) in enumerate(readers[config.format](records, config)):
        if number == config.limit:
            return
        if identifier in seen:
            what = f"{identifier!r} stands for two conversations: first in {seen[identifier]}"
            raise InputError(what, where=where, fix="give each a name of its own, and its turns together")
        seen[identifier] = where
        yield Conversation(config.name, identifier, tuple(turns))


def read_passages(config: LogsConfig) -> dict[str, str]:
    """The passages of a set by their ids; none where it has none. Raises InputError for an id that occurs twice."""
    passages: dict[str, str] = {}
    for record in read_records(str(config.passages)) if config.passages else ():
        identifier = str(record.label("id"))
        if identifier in passages:
            raise InputError(f"{identifier!r} stands for two passages", where=record.where, fix="name each once")
        passages[identifier] = record.text("text", blank=False)
    return passages


_Read = tuple[str, str, list[Said]]
"""Where a conversation begins, its name, and its turns."""


def _plain(records: Iterator[Record], config: LogsConfig) -> Iterator[_Read]:
    where, name, turns = "", "", list[Said]()
    for record in records:
        identifier = str(record.label("conversation", fix=_FIX))
        if record.has("turns"):
            yield record.where, identifier, [_turn(one) for one in record.records("turns", fix=_FIX)]
            continue
        if turns and identifier != name:
            yield where, name, turns
            turns = []
        where, name = (where if turns else record.where), identifier
        turns.append(_turn(record))
        if record.has("number") and record.number("number") != len(turns):
            fix = "number the turns of a conversation from 1, in their order"
            raise InputError(
                f"turn {record.number('number'):g}, where {len(turns)} follows", where=record.where, fix=fix
            )
    if turns:
        yield where, name, turns


def _turn(record: Record) -> Said:
    response = record.text("response") if record.has("response") else ""
    rewrite = record.text("rewrite", blank=False) if record.has("rewrite") else None
    passages = tuple(map(str, record.labels("passages"))) if record.values.get("passages") else ()
    return Said(record.text("query", fix=_FIX, blank=False), response, rewrite, passages)


def _canard(records: Iterator[Record], config: LogsConfig) -> Iterator[_Read]:
    """Each question is a record with the whole history, which begins with the article's title and section. Questions of
    one dialogue are put together: the history of the last one has all answers but its own."""
    by_dialogue: dict[str, tuple[str, dict[int, Said], list[str]]] = {}
    for record in records:
        name, number = record.text("QuAC_dialog_id"), int(record.number("Question_no"))
        history = record.texts("History")
        if len(history) != 2 * number or number < 1:
            what = f"question {number} has a history of {len(history)} texts, not {2 * number}"
            raise InputError(what, where=record.where, fix="give title and section, then each question and its answer")
        where, asked, longest = by_dialogue.setdefault(name, (record.where, {}, []))
        if number in asked:
            raise InputError(f"question {number} of {name} stands there twice", where=record.where)
        asked[number] = Said(record.text("Question", blank=False), "", record.text("Rewrite", blank=False))
        if len(history) > len(longest):
            longest[:] = history
    for name, (where, asked, history) in by_dialogue.items():
        turns = [Said(history[0], history[1], history[0], measured=False)]
        for number in range(1, max(asked) + 1):
            query, response = history[2 * number : 2 * number + 2] or (asked[number].query, "")
            reference = asked[number].reference if number in asked else None
            turns.append(Said(query, response, reference, measured=number in asked))
        yield where, name, turns


def _cast(records: Iterator[Record], config: LogsConfig) -> Iterator[_Read]:
    resolved = _resolved(config)
    for record in records:
        name, turns = str(record.label("number")), list[Said]()
        for one in record.records("turn"):
            key = f"{name}_{one.label('number')}"
            rewrite = resolved.get(key)
            if one.has("manual_rewritten_utterance"):
                rewrite = one.text("manual_rewritten_utterance", blank=False)
            turns.append(Said(one.text("raw_utterance", blank=False).strip(), "", rewrite and rewrite.strip()))
        yield record.where, name, turns


def _resolved(config: LogsConfig) -> Mapping[str, str]:
    """A table of `topic_turn<tab>text`."""
    if config.resolved is None:
        return {}
    place, _, name = str(config.resolved).rpartition("/")
    found: dict[str, str] = {}
    for number, line in enumerate(
        Folder(place or ".").read_bytes(name).decode("utf-8", "replace").splitlines(), start=1
    ):
        key, tab, text = line.partition("\t")
        if not tab or not text.strip():
            fix = "a line is `31_1`, a tab, and the query"
            raise InputError("no resolved query", where=f"{config.resolved}:{number}", fix=fix)
        found[key] = text
    return found


def _mtrag(records: Iterator[Record], config: LogsConfig) -> Iterator[_Read]:
    """Each record is the last turn of a conversation, with what was said before."""
    for record in records:
        turns = list[Said]()
        for one in record.records("history") if record.values.get("history") else ():
            speaker, text = one.text("speaker"), one.text("text")
            if speaker == "user":
                turns.append(Said(text, measured=False))
            elif not turns or turns[-1].response:
                raise InputError("an answer that follows no question", where=one.where, fix="let them take turns")
            else:
                turns[-1] = Said(turns[-1].query, text, measured=False)
        rewrite = record.text("rewrite", blank=False) if record.has("rewrite") else None
        passages = tuple(map(str, record.labels("passages")))
        turns.append(Said(record.text("query", blank=False), "", rewrite, passages))
        yield record.where, record.text("id"), turns


def _sparc(records: Iterator[Record], config: LogsConfig) -> Iterator[_Read]:
    for record in records:
        said = record.records("turns")
        queries, sql = [one.text("utterance", blank=False) for one in said], [one.text("sql") for one in said]
        turns = []
        for place, query in enumerate(queries):
            kept = kept_slots(queries[:place], sql[place - 1], sql[place]) if place else ()
            goal = record.text("goal", blank=False) if place == len(said) - 1 and record.has("goal") else None
            turns.append(Said(query, "", goal, kept=kept))
        yield record.where, record.text("id"), turns


def _qrecc(records: Iterator[Record], config: LogsConfig) -> Iterator[_Read]:
    where, name, turns = "", "", list[Said]()
    for record in records:
        identifier, number = str(record.label("Conversation_no")), int(record.number("Turn_no"))
        if turns and identifier != name:
            yield where, name, turns
            turns = []
        if number != len(turns) + 1:
            fix = "keep the turns of a conversation together, in their order"
            raise InputError(f"turn {number}, where {len(turns) + 1} follows", where=record.where, fix=fix)
        where, name = (where if turns else record.where), identifier
        answer = record.text("Answer") if record.has("Answer") else ""
        turns.append(Said(record.text("Question", blank=False), answer, record.text("Rewrite", blank=False)))
    if turns:
        yield where, name, turns
