"""Rewrite and Fusion: what a rewriter is shown, in which order, and the ten-turn chat of the paper."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.folder import Folder
from squadron.llm.batch.programs import Ask
from squadron.llm.chat import ChatReply
from squadron.methods.rewrite.algorithm import context, rewrite_conversation, run_together
from squadron.methods.rewrite.config import ChatRewriter, Setting
from squadron.methods.rewrite.records import Conversation, Pair, Said, Turn
from squadron.methods.rewrite.rewriters import ByRule, Joined, open_classifier, read_reply
from squadron.methods.rewrite.rewriting import ask_in_turn

GOLDEN = [
    ("Show me monthly revenue by country.", "Show monthly revenue by country."),
    ("Make it yearly.", "Show yearly revenue by country."),
    ("Show this as a line chart.", "Show yearly revenue by country as a line chart."),
    ("Use marketing channel instead of that.", "Show yearly revenue by marketing channel as a line chart."),
    ("Compare month over month in a bar chart.", "Show month over month revenue by marketing channel as a bar chart."),
    ("Replace it with pageviews.", "Show month over month pageviews by marketing channel as a bar chart."),
    ("Only the top 3.", "Show month over month pageviews for the top 3 marketing channel as a bar chart."),
    ("Make that the top five.", "Show month over month pageviews for the top 5 marketing channel as a bar chart."),
    ("Just this month.",
     "Show month over month pageviews for the top 5 marketing channel in this month as a bar chart."),
    ("Add revenue.",
     "Show month over month pageviews and revenue for the top 5 marketing channel in this month as a bar chart."),
]  # fmt: skip
"""The edits of the paper's first table: each changes a slot or two, and all others persist."""
CHAT = Conversation("golden", "1", tuple(Said(query, "Here it is.", rewrite) for query, rewrite in GOLDEN))
FUSION = Setting(strategy="fusion", k=1)


def rewrites(conversation: Conversation, setting: Setting, **words: object) -> list[str]:
    """By the rule."""
    (outcomes,) = run_together([rewrite_conversation(conversation, setting, **words)], ByRule().rewrite)  # type: ignore[arg-type]
    return [one.rewrite for one in outcomes]


def test_fusion_keeps_every_slot_of_the_ten_turn_chat_with_one_turn_shown() -> None:
    assert rewrites(CHAT, FUSION, first_turn="asked") == [rewrite for _, rewrite in GOLDEN]


def test_the_first_turn_passes_unless_it_is_asked() -> None:
    assert rewrites(CHAT, FUSION)[0] == GOLDEN[0][0]
    assert rewrites(CHAT, FUSION)[1:] == [rewrite for _, rewrite in GOLDEN[1:]]


def test_rewrite_has_lost_what_stands_further_back_than_k_turns() -> None:
    assert rewrites(CHAT, Setting(strategy="rewrite", k=9))[9] == GOLDEN[9][1]
    short = rewrites(CHAT, Setting(strategy="rewrite", k=2))[9]
    assert "revenue" in short and "top 5" in short and "marketing channel" not in short


@given(st.lists(st.tuples(st.text(), st.text()), max_size=12), st.integers(1, 20))
def test_exactly_the_last_pairs_are_shown_the_earliest_first(pairs: list[tuple[str, str]], k: int) -> None:
    shown = context([one for one, _ in pairs], [other for _, other in pairs], k)
    assert len(shown) == min(k, len(pairs))
    assert [one[:2] for one in shown] == pairs[len(pairs) - min(k, len(pairs)) :]


@given(st.integers(0, 9), st.integers(1, 12), st.sampled_from(["rewrite", "fusion"]))
def test_every_turn_is_shown_what_its_strategy_feeds_back(turns: int, k: int, strategy: str) -> None:
    conversation = Conversation("s", "c", tuple(Said(f"q{n}", f"r{n}") for n in range(turns)))
    asked: list[Turn] = []

    def rewrite(some: Sequence[Turn]) -> list[str | None]:
        asked.extend(some)
        return [f"w{turn.number - 1}" for turn in some]

    setting = Setting.model_validate({"strategy": strategy, "k": k})
    (outcomes,) = run_together([rewrite_conversation(conversation, setting, "asked")], rewrite)
    back = "r" if strategy == "rewrite" else "w"
    assert [turn.number for turn in asked] == list(range(1, turns + 1))
    assert [one.rewrite for one in outcomes] == [f"w{n}" for n in range(turns)]
    for place, turn in enumerate(asked):
        assert turn.history == tuple(Pair(f"q{n}", f"{back}{n}") for n in range(max(0, place - k), place))


@given(st.lists(st.integers(0, 6), max_size=8), st.integers(0, 2**32))
def test_conversations_keep_their_order_whatever_the_others_do(lengths: list[int], seed: int) -> None:
    order: dict[str, list[int]] = {}

    def rewrite(some: Sequence[Turn]) -> list[str | None]:
        for turn in random.Random(seed).sample(some, len(some)):
            order.setdefault(turn.conversation, []).append(turn.number)
        return [f"{turn.conversation} {turn.number}" for turn in some]

    talks = [Conversation("s", str(n), (Said("q"),) * length) for n, length in enumerate(lengths)]
    found = run_together([rewrite_conversation(one, FUSION, "asked") for one in talks], rewrite)
    for talk, outcomes in zip(talks, found, strict=True):
        numbers = list(range(1, len(talk.turns) + 1))
        assert [one.rewrite for one in outcomes] == [f"{talk.key} {number}" for number in numbers]
        assert order.get(talk.key, []) == numbers


def test_rewrite_asks_only_about_measured_turns_and_fusion_about_those_before_them() -> None:
    turns = (Said("a", measured=False), Said("b", measured=False), Said("c"), Said("d", measured=False))
    talk, counts = Conversation("s", "c", turns), {}
    for strategy in ("rewrite", "fusion"):
        asked: list[int] = []

        def rewrite(some: Sequence[Turn], asked: list[int] = asked) -> list[str | None]:
            asked.extend(turn.number for turn in some)
            return ["x"] * len(some)

        setting = Setting.model_validate({"strategy": strategy, "k": 1})
        (outcomes,) = run_together([rewrite_conversation(talk, setting, "asked")], rewrite)
        assert [one.number for one in outcomes] == [3]
        counts[strategy] = asked
    assert counts == {"rewrite": [3], "fusion": [1, 2, 3]}


def test_a_query_that_stands_by_itself_passes_and_feeds_back_as_it_is() -> None:
    talk = Conversation(
        "s", "c", (Said("What is throat cancer?"), Said("What causes lung cancer?"), Said("Is it rare?"))
    )
    needs = open_classifier("rules", Folder("runs/none"))
    (outcomes,) = run_together([rewrite_conversation(talk, FUSION)], Joined().rewrite, needs)
    assert [one.asked for one in outcomes] == [False, False, True]
    assert outcomes[2].rewrite == "What causes lung cancer? Is it rare?"


def test_without_an_answer_the_query_stands_in_and_the_turn_has_failed() -> None:
    talk = Conversation("s", "c", (Said("a"), Said("b"), Said("c")))
    shown = []

    def rewrite(some: Sequence[Turn]) -> list[str | None]:
        shown.extend(turn.history for turn in some)
        return [None if turn.number == 2 else "x" for turn in some]

    (outcomes,) = run_together([rewrite_conversation(talk, FUSION)], rewrite)
    assert [(one.rewrite, one.failed) for one in outcomes] == [("a", False), ("b", True), ("x", False)]
    assert shown[1] == (Pair("b", "b"),)


def test_a_wrong_turn_carries_on_under_fusion_and_ends_after_k_turns_under_rewrite() -> None:
    talk = Conversation("s", "c", tuple(Said(f"q{n}", f"r{n}") for n in range(1, 7)))
    wrong = {2: Pair("WRONG", "WRONG")}
    for setting, carried in ((FUSION, [3, 4, 5, 6]), (Setting(strategy="rewrite", k=1), [3])):
        (outcomes,) = run_together([rewrite_conversation(talk, setting, wrong=wrong)], Joined().rewrite)
        assert [one.number for one in outcomes if "WRONG" in one.rewrite] == [2, *carried]


def test_a_chat_model_is_asked_one_turn_at_a_time_with_what_it_said_before() -> None:
    scripted = {"provider": "scripted", "name": "x", "otherwise": "y"}
    rewriter = ChatRewriter.model_validate({"name": "chat", "model": scripted, "prompt": "{history}|{query}"})
    talk = Conversation("s", "c", (Said("a", "ra"), Said("b", "rb"), Said("c", "rc")))
    program = ask_in_turn(rewriter, rewrite_conversation(talk, FUSION))
    said, asks = "", []
    ask: Ask = next(program)
    with pytest.raises(StopIteration) as end:
        while True:
            asks.append(ask.items[0].messages[-1]["content"])  # type: ignore[union-attr]
            said = f"full {len(asks)}"
            ask = program.send([ChatReply("", text=f"Rewritten query: {said}", prompt_tokens=2, cost_usd=0.5)])
    assert asks == ["Query: a\nAnswer: a\n\n|b", "Query: b\nAnswer: full 1\n\n|c"]
    told = end.value.value
    assert [one.rewrite for one in told.outcomes] == ["a", "full 1", "full 2"]
    assert (told.prompt_tokens, told.usd, told.errors) == (4, 1.0, [])


@pytest.mark.parametrize(
    ("reply", "rewrite"),
    [("What is tea?", "What is tea?"), ('"What is tea?"\nI kept it.', "What is tea?"),
     ("\n Rewritten query: What is tea?", "What is tea?"), ("Tea: what is it?", "Tea: what is it?"), (" \n", "")],
)  # fmt: skip
def test_a_rewrite_is_read_from_what_models_write_around_it(reply: str, rewrite: str) -> None:
    assert read_reply(reply) == rewrite
