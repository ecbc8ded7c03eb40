"""Conversations as they are published, made up, and refused; slots of questions and of SQL; measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.evaluate.translation.tokens import match_tokens
from squadron.methods.rewrite.config import Format, LogsConfig, WorldConfig
from squadron.methods.rewrite.datasets import read_conversations
from squadron.methods.rewrite.measures import rouge
from squadron.methods.rewrite.records import Conversation, Pair, Said, turns_of
from squadron.methods.rewrite.referring import points_elsewhere, rewrite_by_rule
from squadron.methods.rewrite.slots import Slots, read_slots, share_said, write
from squadron.methods.rewrite.sql_slots import kept_slots, sql_slots
from squadron.methods.rewrite.synthetic import make_world
from tests.conftest import REAL_DATA
from tests.methods.test_rewrite_algorithm import GOLDEN

DATA = REAL_DATA / "rewrite"
REAL = {
    "canard_dev.json.gz": ("canard", 490, 3430, 3430),
    "cast2019_topics.json": ("cast", 50, 479, 479),
    "cast2020_topics.json": ("cast", 25, 216, 216),
    "mtrag_rewrites.jsonl.gz": ("mtrag", 116, 116, 116),
    "mtrag_un_turns.jsonl.gz": ("mtrag", 155, 155, 0),
    "sparc_dev.jsonl.gz": ("sparc", 422, 1203, 422),
}
"""Format, conversations, turns that are measured, rewrites."""


def read(path: Path, kind: Format, *rows: Any) -> list[Conversation]:
    """Rows as a file, read."""
    file = path / ("rows.json" if kind in ("canard", "qrecc", "cast") else "rows.jsonl")
    file.write_text(json.dumps(rows) if file.suffix == ".json" else "".join(f"{json.dumps(row)}\n" for row in rows))
    return list(read_conversations(LogsConfig.model_validate({"name": "own", "path": str(file), "format": kind})))


@pytest.mark.skipif(not DATA.exists(), reason="the data folder is not there")
@pytest.mark.parametrize("name", REAL)
def test_published_conversations_are_read_whole(name: str) -> None:
    kind, conversations, measured, rewrites = REAL[name]
    resolved = str(DATA / "cast2019_resolved.tsv") if "2019" in name else None
    settings = {"name": "own", "path": str(DATA / name), "format": kind, "resolved": resolved}
    found = list(read_conversations(LogsConfig.model_validate(settings)))
    turns = list(turns_of(found))
    assert (len(found), len(turns)) == (conversations, measured)
    assert sum(turn.reference is not None for turn in turns) == rewrites


def test_a_turn_a_line_and_a_conversation_a_line_are_the_same(tmp_path: Path) -> None:
    turns = [{"query": "a", "response": "b", "rewrite": "c", "passages": ["p", 7]}, {"query": "d"}]
    together = read(tmp_path, "plain", {"conversation": 1, "turns": turns})
    lines = [{"conversation": 1, "number": number, **turn} for number, turn in enumerate(turns, start=1)]
    assert together == read(tmp_path, "plain", *lines)
    assert together[0].turns == (Said("a", "b", "c", ("p", "7")), Said("d"))


def test_questions_of_canard_are_put_together_to_a_dialogue(tmp_path: Path) -> None:
    history = ["Tea", "Making", "What is it?", "a drink", "Who makes it?", "people"]
    rows = [
        {"History": history[: 2 * n], "QuAC_dialog_id": "d", "Question": question, "Question_no": n, "Rewrite": f"w{n}"}
        for n, question in ((1, "What is it?"), (3, "Why?"))
    ]
    (found,) = read(tmp_path, "canard", *rows)
    first, last = turns_of([found])
    assert (first.number, first.history) == (2, (Pair("Tea", "Making", "Tea"),))
    assert [pair[:2] for pair in last.history] == [
        ("Tea", "Making"),
        ("What is it?", "a drink"),
        ("Who makes it?", "people"),
    ]
    assert (last.query, last.reference) == ("Why?", "w3")


def test_qrecc_as_it_is_published(tmp_path: Path) -> None:
    rows = [
        {"Context": [], "Question": q, "Rewrite": w, "Answer": a, "Conversation_no": c, "Turn_no": n}
        for c, n, q, w, a in ((1, 1, "a", "A", "x"), (1, 2, "b", "B", ""), (2, 1, "c", "C", "z"))
    ]
    first, second = read(tmp_path, "qrecc", *rows)
    assert first.turns == (Said("a", "x", "A"), Said("b", "", "B")) and second.turns == (Said("c", "z", "C"),)


@pytest.mark.parametrize(
    ("kind", "rows", "said"),
    [
        ("plain", [{"conversation": "a", "turns": [{"query": " "}]}], "'query' is empty"),
        ("plain", [{"conversation": "a", "turns": []}], "a list of at least one item"),
        ("plain", [{"turns": [{"query": "x"}]}], "'conversation' is missing"),
        ("plain", [{"conversation": "a", "query": "x"}, {"conversation": "b", "query": "x"},
                   {"conversation": "a", "query": "x"}], "two conversations"),
        ("canard", [{"History": ["x"], "QuAC_dialog_id": "d", "Question": "q", "Question_no": 1, "Rewrite": "r"}],
         "a history of 1 texts, not 2"),
        ("mtrag", [{"id": "a", "history": [{"speaker": "agent", "text": "x"}], "query": "q", "passages": ["p"]}],
         "an answer that follows no question"),
        ("qrecc", [{"Question": "q", "Rewrite": "r", "Conversation_no": 1, "Turn_no": 2}], "turn 2, where 1 follows"),
    ],
)  # fmt: skip
def test_what_is_no_conversation_is_refused_by_its_place(
    tmp_path: Path, kind: Format, rows: list[Any], said: str
) -> None:
    with pytest.raises(InputError, match=said) as error:
        read(tmp_path, kind, *rows)
    assert "rows.json" in str(error.value.where)


def test_a_made_up_chat_says_what_its_reference_holds() -> None:
    world = list(make_world(WorldConfig(conversations=20, turns=12, seed=3)))
    assert world == list(make_world(WorldConfig(conversations=20, turns=12, seed=3)))
    for said in (said for one in world for said in one.turns):
        assert said.reference is not None and share_said(said.kept, said.reference) == 1.0


@given(
    st.builds(
        Slots, st.sampled_from([("revenue",), ("visits", "orders")]), st.sampled_from(["", "marketing channel"]),
        st.sampled_from(["", "monthly", "month over month"]), st.sampled_from(["", "this month", "last quarter"]),
        st.sampled_from([0, 3, 10]), st.sampled_from(["", "line chart", "table"]),
    )
)  # fmt: skip
def test_slots_that_are_written_are_read_again(slots: Slots) -> None:
    assert read_slots(write(slots))[0] == slots


def test_each_reference_of_the_ten_turn_chat_is_its_own_slots() -> None:
    assert [write(read_slots(rewrite)[0]) for _, rewrite in GOLDEN] == [rewrite for _, rewrite in GOLDEN]


@pytest.mark.parametrize(
    ("query", "earlier", "rewrite"),
    [("Is it treatable?", "What is throat cancer?", "Is throat cancer treatable?"),
     ("What are its symptoms?", "Tell me about lung cancer.", "What are lung cancer's symptoms?"),
     ("What causes lung cancer?", "What is throat cancer?", "What causes lung cancer?")],
)  # fmt: skip
def test_a_pronoun_is_replaced_by_what_was_named_last(query: str, earlier: str, rewrite: str) -> None:
    (turn,) = list(turns_of([Conversation("s", "c", (Said(earlier, measured=False), Said(query)))]))
    assert rewrite_by_rule(turn) == rewrite
    assert points_elsewhere(turn) == (rewrite != query)


def test_slots_of_a_query_are_names_values_and_how_they_are_put_together() -> None:
    sql = (
        "SELECT T1.Name , count(*) FROM airlines AS T1 JOIN flights AS T2 ON T1.id = T2.airline "
        "WHERE T1.Country = 'USA' AND T2.year > 2010 GROUP BY T1.Name ORDER BY count(*) DESC LIMIT 3"
    )
    assert sql_slots(sql) == {
        ("select", "name"), ("aggregate", "count"), ("table", "airlines"), ("table", "flights"), ("where", "country"),
        ("value", "usa"), ("where", "year"), ("value", "2010"), ("group", "name"), ("direction", "desc"),
        ("limit", "3"),
    }  # fmt: skip


def test_a_slot_is_to_be_kept_if_both_turns_have_it_and_somebody_named_it() -> None:
    before = "SELECT name FROM airlines WHERE country = 'USA'"
    now = "SELECT abbreviation FROM airlines WHERE country = 'USA'"
    assert set(kept_slots(["Which airlines are from the USA?"], before, now)) == {("airlines",), ("usa",)}
    assert kept_slots(["Show me some."], before, now) == ()


def test_rouge_has_known_answers() -> None:
    # By hand: 5 of 6 words in common; longest common subsequence "police the gunman" is 2 of 4 in Lin's example.
    assert rouge("the cat sat on the mat", "the cat was on the mat") == (pytest.approx(10 / 12), pytest.approx(10 / 12))
    assert rouge("the gunman kill police", "police killed the gunman") == (pytest.approx(0.75), pytest.approx(0.5))
    assert rouge("", "a") == (0.0, 0.0)


def test_bertscore_is_its_formula_term_by_term() -> None:
    draw = np.random.default_rng(0)
    for tokens, others in ((1, 1), (3, 5), (7, 2)):
        first, second = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in
                         (draw.normal(size=(tokens, 4)), draw.normal(size=(others, 4))))  # fmt: skip
        precision = sum(max(float(x @ y) for y in second) for x in first) / tokens
        recall = sum(max(float(x @ y) for x in first) for y in second) / others
        both = precision + recall
        assert match_tokens(first, second) == pytest.approx(2 * precision * recall / both if both > 0 else 0.0)
    assert match_tokens(first, first) == pytest.approx(1.0)
