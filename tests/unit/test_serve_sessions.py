"""Sessions of a service: bounded in number, length, size and age, each client's for itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from squadron.serve.sessions import EMPTY, LocalSessions, Session, SessionLimits


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def add(sessions: LocalSessions, client: str, name: str, text: str = "x") -> Session:
    """One more item."""
    known = sessions.read(client, name)
    assert sessions.put(client, name, Session(known.length + 1, (*known.items, (text,))), known.length)
    return sessions.read(client, name)


def test_a_session_holds_its_last_items_and_how_many_there_were() -> None:
    sessions = LocalSessions(SessionLimits(items=2))
    for text in "abc":
        add(sessions, "one", "s", text)
    assert sessions.read("one", "s") == Session(3, (("b",), ("c",)))


def test_clients_with_the_same_name_for_a_session_have_one_each() -> None:
    sessions = LocalSessions(SessionLimits())
    add(sessions, "one", "s", "mine")
    assert sessions.read("other", "s") == EMPTY
    add(sessions, "other", "s", "theirs")
    assert sessions.read("one", "s").items == (("mine",),)


def test_of_two_that_add_at_the_same_time_the_second_is_refused() -> None:
    sessions = LocalSessions(SessionLimits())
    add(sessions, "one", "s", "a")
    assert sessions.put("one", "s", Session(2, (("a",), ("b",))), after=1)
    assert not sessions.put("one", "s", Session(2, (("a",), ("c",))), after=1)
    assert sessions.read("one", "s").items == (("a",), ("b",))
    assert sessions.put("one", "s", Session(2, (("a",), ("d",))), after=2)


def test_sessions_expire_and_those_that_go_on_stay() -> None:
    clock = Clock()
    sessions = LocalSessions(SessionLimits(idle_s=10), clock)
    add(sessions, "one", "old")
    add(sessions, "one", "live")
    clock.now = 9.0
    add(sessions, "one", "live")
    clock.now = 12.0
    assert sessions.read("one", "old") == EMPTY and sessions.read("one", "live").length == 2
    assert len(sessions) == 1


def test_a_client_with_many_sessions_loses_its_own_oldest_and_nobody_elses() -> None:
    sessions = LocalSessions(SessionLimits(sessions=10, sessions_per_client=3))
    add(sessions, "quiet", "s")
    for number in range(20):
        add(sessions, "loud", str(number))
    assert sessions.read("quiet", "s").length == 1
    assert [number for number in range(20) if sessions.read("loud", str(number)).length] == [17, 18, 19]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("stuvw"), st.text(max_size=9)), max_size=60),
    st.integers(1, 4), st.integers(1, 6), st.integers(1, 3), st.integers(1, 40),
)  # fmt: skip
def test_all_bounds_hold_at_all_times(
    puts: list[tuple[str, str, str]], items: int, most: int, each: int, characters: int
) -> None:
    limits = SessionLimits(items=items, sessions=most, sessions_per_client=each, characters=characters)
    sessions = LocalSessions(limits)
    for client, name, text in puts:
        known = sessions.read(client, name)
        assert sessions.put(client, name, Session(known.length + 1, (*known.items, (text,))), known.length)
        found = {(one, other): sessions.read(one, other) for one in "ab" for other in "stuvw"}
        live = {key: session for key, session in found.items() if session.length}
        assert len(sessions) == len(live) <= most
        assert all(len(session.items) <= items for session in live.values())
        assert all(sum(one == client for one, _ in live) <= each for client in "ab")
        assert sum(len(text) for session in live.values() for item in session.items for text in item) <= characters
