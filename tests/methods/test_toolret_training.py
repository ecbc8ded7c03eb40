"""What ToolRet's training set and agent are made of: splits by tool, even draws, negatives, instructions, calls."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.llm.parsing import Unreadable
from squadron.methods.toolret.agent import Question, call_by_words, write_question
from squadron.methods.toolret.calls import Call, gold_calls, normal, read_calls, right_calls, right_tools
from squadron.methods.toolret.instructing import SEEDS, read_instruction
from squadron.methods.toolret.instructing import write_question as write_task
from squadron.methods.toolret.learning_config import PAPER_TRAINING, LearningConfig
from squadron.methods.toolret.sampling import draw_evenly, fill_negatives, mine, split_by_tool
from squadron.methods.toolret.training_set import read_training_set, text_content
from squadron.retrieval.bm25 import Bm25
from squadron.retrieval.documents import Document, Query
from squadron.train.spec import TrainSpec
from tests.conftest import REAL_DATA

QUERIES = st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=3, unique=True), min_size=1, max_size=30)


@given(labels=QUERIES, share=st.floats(0.05, 0.95), seed=st.integers(0, 3), twins=st.integers(1, 3))
def test_no_tool_that_is_kept_out_stands_in_what_is_learned_from(
    labels: list[list[int]], share: float, seed: int, twins: int
) -> None:
    """Nor one of the same text; queries of tools of both kinds are in neither part, and none is lost."""
    queries = [Query(str(n), "", {f"t{one}": 1 for one in some}) for n, some in enumerate(labels)]
    texts = {f"t{n}": f"text {n // twins}" for n in range(12)}
    split = split_by_tool(queries, texts, share, seed)
    hidden = {texts[name] for name in split.kept_out}
    of = {place: {texts[name] for name in query.relevant} for place, query in enumerate(queries)}
    assert all(not of[place] & hidden for place in split.known)
    assert all(of[place] <= hidden for place in split.unseen)
    assert all(of[place] & hidden and of[place] - hidden for place in split.mixed)
    assert sorted((*split.known, *split.unseen, *split.mixed)) == list(range(len(queries)))
    turned = split_by_tool(queries[::-1], texts, share, seed)
    assert turned.kept_out == split.kept_out


@given(clusters=st.lists(st.integers(0, 4), min_size=1, max_size=40), count=st.integers(1, 50), seed=st.integers(0, 2))
def test_clusters_are_drawn_from_evenly(clusters: list[int], count: int, seed: int) -> None:
    """No cluster gives two more than another that has some left; all are drawn where there are fewer."""
    ids = [f"q{n}" for n in range(len(clusters))]
    drawn = draw_evenly(np.array(clusters), ids, count, seed)
    assert len(set(drawn.tolist())) == len(drawn) == min(count, len(ids))
    given_, there = Counter(clusters[place] for place in drawn), Counter(clusters)
    unspent = [given_[one] for one in there if given_[one] < there[one]]
    assert not unspent or max(given_.values()) <= min(unspent) + 1
    order = np.random.default_rng(seed).permutation(len(ids))
    again = draw_evenly(np.array(clusters)[order], [ids[n] for n in order], count, seed)
    assert {ids[n] for n in drawn} == {ids[order[n]] for n in again}


TOOLS = [
    Document("rain", "weather forecast of a city: rain and wind"),
    Document("rain again", "weather forecast of a city: rain and wind"),
    Document("tides", "weather at sea, tides and wind"),
    Document("history", "weather of past years in a city"),
    Document("money", "converts money"),
]


def test_negatives_are_the_best_that_do_not_answer() -> None:
    """By words: a tool with the text of one that answers is none, whatever it is called, and each text comes once."""
    queries = [Query("1", "weather forecast rain wind in my city", {"rain": 1})]
    found = mine(Bm25([tool.text for tool in TOOLS]), TOOLS, [queries[0].text], queries, 2, skip=0)
    assert found == [[TOOLS[3].text, TOOLS[2].text]] or found == [[TOOLS[2].text, TOOLS[3].text]]
    skipped = mine(Bm25([tool.text for tool in TOOLS]), TOOLS, [queries[0].text], queries, 2, skip=1)
    assert skipped[0][0] == found[0][1] and found[0][0] not in skipped[0]
    words, query = Bm25([tool.text for tool in TOOLS]), Query("2", "tides", {"history": 1})
    assert mine(words, TOOLS, [query.text], [query], 4, skip=0, above=0.0) == [[TOOLS[2].text]]
    fill_negatives(skipped, [tool.text for tool in TOOLS], [{TOOLS[0].text}], 3)
    assert len(set(skipped[0])) == 3 and TOOLS[0].text not in skipped[0]


def test_what_a_model_is_asked_for_an_instruction() -> None:
    """Tools, and examples that are never the query itself; equal queries are asked equally."""
    query = Query("7", SEEDS[0][0], {"rain": 1})
    asked = write_task(query, {"rain": TOOLS[0].text}, SEEDS, examples=3, characters=16)
    assert asked.count("\nInstruction: ") == 3 and SEEDS[0][1] not in asked
    assert "- weather forecast\n" in asked and asked.endswith("Instruction:")
    assert asked == write_task(query, {"rain": TOOLS[0].text}, SEEDS, examples=3, characters=16)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("Given a city, retrieve tools that forecast.", "Given a city, retrieve tools that forecast."),
        ('\n**Instruction:** "Given a city."\nMore.', "Given a city."),
        ("   \n", None),
        ("x" * 900, None),
    ],
)
def test_an_instruction_is_one_line_or_none(reply: str, found: str | None) -> None:
    assert read_instruction(reply, 800) == found


def test_a_training_set_is_read_as_it_is_published(tmp_path: Path) -> None:
    row = {"query": "rain?", "pos": ["{'name': 'rain'}"], "neg": ["a", "b"], "prompt": "Given a city, …"}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps({**row, "prompt": None}) + "\n")
    assert list(read_training_set(str(file))) == [row, {**row, "prompt": None}]
    file.write_text(json.dumps({**row, "neg": []}))
    with pytest.raises(InputError, match="'neg' holds a list, not a list of at least one item"):
        list(read_training_set(str(file)))


def test_a_tool_is_known_however_it_is_written_down() -> None:
    """The published training set writes tools as Python does; one that is kept out must not slip in by that."""
    tool = {"name": "rain", "parameters": {"city": None, "days": [1, 2]}, "description": "It's rain"}
    turned = dict(reversed(tool.items()))
    assert (
        text_content(repr(tool)) == text_content(json.dumps(turned, indent=1)) != text_content(repr({**tool, "a": 1}))
    )
    assert text_content("plain  words") == text_content("plain words")


def test_the_published_training() -> None:
    """FlagEmbedding 1.3.3, e5-small on four cards: 4 rows each, groups of 8, two epochs."""
    spec: TrainSpec = PAPER_TRAINING.training
    assert (PAPER_TRAINING.temperature, 1 + PAPER_TRAINING.negatives) == (0.02, 8)
    assert (spec.batch_size, spec.epochs, spec.max_length) == (4 * 4, 2, 512)
    assert (spec.optimizer.learning_rate, spec.schedule.kind, spec.schedule.warmup_ratio) == (1e-6, "linear", 0.1)
    assert (
        LearningConfig().pooling is None
    )  # the model's own: the published script takes the first token of a mean model


GOLD = [
    {"api": "create", "parameters": {"name": "Nexus", "size": 3}, "responses": ["API_call_0", "API_call_1"]},
    {"api": "add", "parameters": {"project": "API_call_0", "task": "Clean  the house"}, "responses": ["API_call_2"]},
    {"api": "add", "parameters": {"project": "API_call_1", "task": "cook"}, "responses": ["API_call_3"]},
]


def test_calls_are_right_in_any_order() -> None:
    """Texts without case and spaces, numbers also as texts, results by the tool that gives them."""
    said = [
        {"name": "add", "arguments": {"task": "Cook", "project": "API_call_1"}},
        {"name": "create", "arguments": {"size": "3.0", "name": " nexus "}},
        {"function": {"name": "add", "arguments": '{"project": "API_call_1", "task": "clean the house"}'}},
    ]
    found = read_calls(f"Here they are:\n```json\n{json.dumps(said)}\n```")
    assert right_tools(found, gold_calls(GOLD)) and right_calls(found, gold_calls(GOLD))


@pytest.mark.parametrize(
    ("call", "change"),
    [
        (0, {"size": 4}), (0, {"more": 1}), (1, {"task": "cook"}), (1, {"project": "API_call_2"}),
        (2, {"project": "Nexus"}),
    ],
)  # fmt: skip
def test_calls_with_other_arguments_are_wrong(call: int, change: dict[str, object]) -> None:
    gold = gold_calls(GOLD)
    found = list(gold)
    found[call] = Call(gold[call].name, {**gold[call].arguments, **change})
    assert right_tools(found, gold) and not right_calls(found, gold)
    del found[call]
    assert not right_tools(found, gold) and not right_calls(found, gold)


@given(
    st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text("aB 1", max_size=4), st.lists, max_leaves=4)
)
def test_a_value_is_equal_to_itself_as_json(value: object) -> None:
    assert normal(value) == normal(json.loads(json.dumps(value)))


@pytest.mark.parametrize("text", ["", "none", "[1]", '[{"arguments": {}}]', '[{"name": "a", "arguments": "x"}]', "3"])
def test_an_answer_without_calls_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        read_calls(text)


def test_the_rule_calls_the_tool_with_the_rarest_shared_words() -> None:
    """What plays an agent in the demo: it sees what is shown and nothing else."""
    tools = [
        Document("a", json.dumps({"name": "play", "description": "plays a song", "parameters": {"song": {}}})),
        Document("b", json.dumps({"name": "find", "description": "finds a song by its words", "parameters": {}})),
    ]
    query = Query("1", "play the song 'Blue'", {"a": 1})
    both, other = (Question("", query, (Call("play", {"song": "blue"}),), shown) for shown in ((0, 1), (1,)))
    assert right_calls(read_calls(call_by_words(both, tools, ["play", "find"])), both.gold)
    assert not right_tools(read_calls(call_by_words(other, tools, ["play", "find"])), other.gold)
    assert tools[0].text not in write_question(other, tools, 4000) and tools[1].text in write_question(
        other, tools, 4000
    )


@pytest.mark.skipif(not REAL_DATA.exists(), reason=f"no data in {REAL_DATA}")
def test_gold_calls_of_seal_tools_are_right_as_they_stand() -> None:
    """All 700, in either order; and none of them without its last argument."""
    import gzip

    with gzip.open(REAL_DATA / "toolret" / "sealtools_test_in_domain.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 700
    for row in rows:
        gold = gold_calls(row["calling"])
        said = json.dumps([{"name": call.name, "arguments": call.arguments} for call in gold])
        assert right_calls(read_calls(said), gold)
        filled = [place for place, call in enumerate(gold) if call.arguments]
        if filled:
            call = gold[filled[-1]]
            fewer = dict(list(call.arguments.items())[:-1])
            assert not right_calls([*gold[: filled[-1]], Call(call.name, fewer), *gold[filled[-1] + 1 :]], gold)
