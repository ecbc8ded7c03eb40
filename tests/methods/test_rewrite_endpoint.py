"""The rewriter behind an address: conversations by their ids, one client's hidden from others."""

from __future__ import annotations

import pytest

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.work import Work, doing
from squadron.methods.rewrite.config import JoinRewriter, Strategy
from squadron.methods.rewrite.endpoint import Load, RewriteAnswer, RewriteRequest, RewriteServer
from squadron.methods.rewrite.rewriters import open_rewriter
from squadron.serve.sessions import LocalSessions, SessionLimits

FOLDER = Folder("runs/none")


def server(strategy: Strategy = "fusion", k: int = 1, classifier: str = "") -> RewriteServer:
    """One that joins what it is shown."""
    load = Load(FOLDER, JoinRewriter(), strategy, k, classifier, "passed")
    return RewriteServer(load, open_rewriter(JoinRewriter(), FOLDER), LocalSessions(SessionLimits(items=k + 1)))


def ask(one: RewriteServer, query: str, client: str = "a", **words: object) -> RewriteAnswer:
    """What it answers a client."""
    with doing(Work(client)):
        return one.rewrite(RewriteRequest.model_validate({"model": "run", "query": query, **words}))


def test_fusion_goes_on_from_its_own_rewrite() -> None:
    one = server()
    first = ask(one, "a")
    assert (first.rewrite, first.turn, first.asked, first.shown) == ("a", 1, False, 0)
    ask(one, "b", conversation=first.conversation)
    third = ask(one, "c", conversation=first.conversation)
    assert (third.rewrite, third.turn, third.shown) == ("a b c", 3, 1)


def test_rewrite_is_shown_the_response_to_the_query_before() -> None:
    one = server("rewrite", k=2)
    name = ask(one, "q1").conversation
    assert ask(one, "q2", conversation=name, response="r1").rewrite == "q1 r1 q2"
    assert ask(one, "q3", conversation=name, response="r2").rewrite == "q1 r1 q2 r2 q3"
    assert ask(one, "q4", conversation=name).rewrite == "q2 r2 q3 q4"


def test_a_conversation_of_one_client_is_nothing_to_another() -> None:
    one = server()
    name = ask(one, "secret", client="a").conversation
    other = ask(one, "b", client="b", conversation=name)
    assert (other.turn, other.rewrite, other.shown) == (1, "b", 0)
    assert ask(one, "c", client="a", conversation=name).rewrite == "secret c"


def test_a_turn_that_is_asked_again_takes_its_own_place() -> None:
    one = server()
    name = ask(one, "a").conversation
    again = [ask(one, "b", conversation=name, turn=2) for _ in range(3)]
    assert {(found.turn, found.rewrite) for found in again} == {(2, "a b")}
    assert ask(one, "c", conversation=name).rewrite == "a b c"


@pytest.mark.parametrize("turn", [1, 4])
def test_a_turn_out_of_order_is_refused(turn: int) -> None:
    one = server()
    name = ask(one, "a").conversation
    ask(one, "b", conversation=name)
    with pytest.raises(InputError, match="of which 2 are known"):
        ask(one, "c", conversation=name, turn=turn)


def test_two_turns_at_the_same_time_are_not_both_taken() -> None:
    sessions = LocalSessions(SessionLimits())

    class Meanwhile:
        """While it rewrites, another request of the conversation is answered."""

        def rewrite(self, turns: object) -> list[str]:
            known = sessions.read("a", "x")
            sessions.put("a", "x", known._replace(length=known.length + 1), known.length)
            return ["rewritten"]

    load = Load(FOLDER, JoinRewriter(), "fusion", 1, "", "asked")
    with pytest.raises(InputError, match="came in between"):
        ask(RewriteServer(load, Meanwhile(), sessions), "a", conversation="x")


def test_a_query_that_stands_by_itself_passes_with_the_classifier_in_front() -> None:
    one = server(classifier="rules")
    name = ask(one, "What is throat cancer?").conversation
    assert not ask(one, "What causes lung cancer?", conversation=name).asked
    assert ask(one, "Is it rare?", conversation=name).rewrite == "What causes lung cancer? Is it rare?"
