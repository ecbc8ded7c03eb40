"""Plans are read as literals, whatever a model writes; what is none falls back to text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.methods.mor.plans import EMPTY, Plan, PlanError, Route, parse_plan, validate_plan, write_plan
from squadron.retrieval.graph import Relation, Schema

MAG = Schema(
    ("paper", "author", "field_of_study"),
    (Relation("author", "writes", "paper"), Relation("paper", "has_topic", "field_of_study"),
     Relation("paper", "cites", "paper")),
)  # fmt: skip


def test_the_two_written_forms_of_the_paper() -> None:
    written = (
        "{'Metapath': 'paper -> author -> paper <- field_of_study', 'Restriction': {'author': ['Ada'], 'paper': []}}"
    )
    plan = parse_plan(f"Here it is:\n{written}")
    assert plan.routes == (Route.of("paper", "author", "paper"), Route.of("field_of_study", "paper"))
    assert plan.restriction == {"author": ("Ada",)} and plan.known("author") == "Ada" and plan.known("paper") == ""
    prime = parse_plan("{'Metapath': [['pathway','interacts with','gene/protein','expression absent','anatomy']]}")
    schema = Schema(
        ("pathway", "gene/protein", "anatomy"),
        (
            Relation("pathway", "interacts with", "gene/protein"),
            Relation("anatomy", "expression absent", "gene/protein"),
        ),
    )
    kept, reasons = validate_plan(prime, schema, ["anatomy"])
    assert kept.routes == (
        Route(("pathway", "gene/protein", "anatomy"), ("interacts with", "expression absent")),
    ) and not reasons  # fmt: skip


@pytest.mark.parametrize(
    ("arrows", "routes"),
    [
        ("A", [["A"]]), ("A -> B", [["A", "B"]]), ("A <- B", [["B", "A"]]), ("A->B<-C", [["A", "B"], ["C", "B"]]),
        ("A -> B -> C <- D <- E", [["A", "B", "C"], ["E", "D", "C"]]),
    ],
)  # fmt: skip
def test_runs_of_arrows_are_routes_that_end_at_the_answer(arrows: str, routes: list[list[str]]) -> None:
    assert [list(one.types) for one in parse_plan(str({"metapath": arrows})).routes] == routes


def test_a_unique_relation_is_filled_in_and_routes_are_cut_at_their_start() -> None:
    plan = Plan((Route.of("author", "paper", "author", "paper"), Route.of("paper", "paper")))
    kept, reasons = validate_plan(plan, MAG, ["paper"])
    assert kept.routes == (
        Route(("paper", "author", "paper"), ("writes", "writes")), Route(("paper", "paper"), ("cites",)),
    )  # fmt: skip
    assert not reasons


@pytest.mark.parametrize(
    ("types", "reason"),
    [
        (("author", "field_of_study", "paper"), "nothing leads from 'author' to 'field_of_study'"),
        (("writer", "paper"), "no type 'writer'"), (("paper", "author"), "ends at 'author', not at paper"),
    ],
)  # fmt: skip
def test_a_route_that_cannot_be_followed_is_left_out_alone(types: tuple[str, ...], reason: str) -> None:
    good = Route.of("author", "paper")
    kept, reasons = validate_plan(Plan((Route.of(*types), good)), MAG, ["paper"])
    assert [one.types for one in kept.routes] == [good.types] and len(reasons) == 1 and reason in reasons[0]


@pytest.mark.parametrize(
    "text",
    [
        "", "no plan", "{", "{}", "[]", "{'routes': __import__('os').system('true')}", "{'routes': [[[['paper']]]]}",
        "{'routes': " + "[" * 5000 + "]" * 5000 + "}", "{'routes': 'paper ->'}", "{'routes': [[]]}", "{'routes': 5}",
        "{'routes': [['paper']], 'restriction': 7}", "{'routes': [['a']]" + " " * 30_000 + "}",
        "{'routes': [" + "['paper']," * 40 + "]}", "{'a': 1 + 1}", "{'routes': {1, 2}}", "{1: 2}", "{'routes': b'x'}",
    ],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_what_is_no_plan_is_said_to_be_none(text: str) -> None:
    with pytest.raises(PlanError):
        parse_plan(text)


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.text(max_size=300), st.text(alphabet="{}[]()'\":,->< \\ab1", max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["routes", "x"]), inner),
            max_leaves=20,
        ).map(lambda value: repr({"Metapath": value, "Restriction": value})),
    )
)  # fmt: skip
def test_nothing_that_is_written_does_more_than_to_be_no_plan(text: str) -> None:
    try:
        plan = parse_plan(text)
    except PlanError:
        plan = EMPTY
    kept, _ = validate_plan(plan, MAG, ["paper"])
    assert all(set(route.types) <= set(MAG.types) and route.types[-1] == "paper" for route in kept.routes)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(MAG.types), min_size=1, max_size=3), min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(MAG.types), st.lists(st.text(min_size=1).filter(str.strip), min_size=1)),
)  # fmt: skip
def test_what_is_written_is_read_again(routes: list[list[str]], known: dict[str, list[str]]) -> None:
    plan = Plan(
        tuple(dict.fromkeys(Route.of(*one) for one in routes)), {kind: tuple(some) for kind, some in known.items()}
    )
    assert parse_plan(write_plan(plan)) == plan
    kept, _ = validate_plan(plan, MAG, ["paper"])
    assert not kept.routes or validate_plan(parse_plan(write_plan(kept)), MAG, ["paper"])[0] == kept
