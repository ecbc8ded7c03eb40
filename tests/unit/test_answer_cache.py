"""Answers on disk outlive the process that wrote them, whatever moment it ends at."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.folder import Folder
from squadron.core.seals import seal
from squadron.llm.batch.answer_cache import KeyedLog


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(tmp_path / "log") if request.param == "local" else Folder(f"memory://{tmp_path.name}/log")


def test_an_answer_is_found_by_its_key(folder: Folder) -> None:
    log = KeyedLog(folder)
    with log.writer("a.jsonl") as writer:
        writer.write({"key": "k1", "text": "zwölf\n"})
        writer.write({"key": "k2", "error": "no answer", "cost_usd": 0.5})
    index = log.index()
    assert index.answers("k1") and not index.answers("k2") and not index.answers("k3")
    assert index.cost_usd == 0.5
    with log.reader() as reader:
        assert reader.read(index.places["k1"])["text"] == "zwölf\n"
        assert reader.read(index.places["k2"])["error"] == "no answer"


def test_a_failure_never_replaces_an_answer_and_an_answer_replaces_a_failure(folder: Folder) -> None:
    log = KeyedLog(folder)
    for file, entries in {"a.jsonl": [("x", ""), ("y", "lost")], "b.jsonl": [("x", "lost"), ("y", "")]}.items():
        with log.writer(file) as writer:
            for key, error in entries:
                writer.write({"key": key, "error": error, "text": file})
    index = log.index()
    assert index.answers("x") and index.answers("y")
    with log.reader() as reader:
        assert [reader.read(index.places[key])["text"] for key in "xy"] == ["a.jsonl", "b.jsonl"]


@given(cut=st.integers(0, 200), texts=st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_whatever_a_kill_cuts_off_the_rest_is_read_and_added_to(
    cut: int, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = KeyedLog(Folder(tmp_path_factory.mktemp("log")))
    with log.writer("a.jsonl") as writer:
        for number, text in enumerate(texts):
            writer.write({"key": str(number), "text": text})
    path = Path(log.folder.path, "a.jsonl")
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - cut)])
    whole = [
        number for number, line in enumerate(data.splitlines(keepends=True)) if _end(data, number) <= len(data) - cut
    ]
    with log.writer("a.jsonl") as writer:
        writer.write({"key": "after", "text": "the kill"})
    index = log.index()
    assert {str(number) for number in whole} | {"after"} <= index.places.keys()
    with log.reader() as reader:
        assert [reader.read(index.places[str(number)])["text"] for number in whole] == [texts[n] for n in whole]
        assert reader.read(index.places["after"])["text"] == "the kill"


@given(
    entry=st.dictionaries(
        st.sampled_from(["key", "text", "error", "note", "prompt_tokens", "cost_usd", "value", "more"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud83d") | st.just(10**400)
        | st.lists(st.text()),
    )
)  # fmt: skip
def test_an_entry_is_read_as_it_was_written_or_counts_as_not_there(
    entry: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = KeyedLog(Folder(tmp_path_factory.mktemp("log")))
    with log.writer("a.jsonl") as writer:
        writer.write(entry)
        writer.write({"key": "next", "value": 1.5, "cost_usd": 2})
    index = log.index()
    assert index.answers("next") and 2 <= index.cost_usd < math.inf
    with log.reader() as reader:
        for key, place in index.places.items() - {("next", index.places["next"])}:
            found = reader.read(place)
            assert (
                repr(found) == repr(entry)
                and key == found["key"]
                and key.encode()
                and float(found.get("value") or 0) < math.inf
            )
            assert isinstance(found.get("text", ""), str) and isinstance(found.get("error", ""), str)


@pytest.mark.parametrize(
    "line",
    [b"", b"null", b"[]", b"{",
     b'{"key": 5, "text": ""}', b'{"key": "a"}', b'{"key": "a", "text": null}', b"[" * 100_000,
     b'{"key": "a", "text": "", "cost_usd": "x"}', b'{"key": "a", "text": "", "cost_usd": -1}',
     b'{"key": "a", "text": "", "cost_usd": NaN}', b'{"key": "a", "text": "", "completion_tokens": 1.5}',
     b'{"key": "a", "value": "5"}', b'{"key": "a", "value": 1e999}', b'{"key": "a", "value": %s}' % (b"9" * 5000),
     b'{"key": "a", "error": 5}', b'{"key": "a", "text": "\xff"}', b'{"key": "a", "text": "\\ud83d"}', b"\0\0\0\0"],
)  # fmt: skip
def test_a_line_of_other_types_counts_as_not_there(line: bytes, tmp_path: Path) -> None:
    """Whether or not it was sealed so."""
    sealed = [seal(line)] if line[:1] == b"{" and line[-1:] == b"}" else []
    lines = [line, *sealed, seal(b'{"key": "b", "text": "there", "cost_usd": 1}'), b""]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    log = KeyedLog(Folder(tmp_path))
    assert log.index().places.keys() == {"b"} == log.read("a.jsonl").keys() and log.index().cost_usd == 1


def _end(data: bytes, number: int) -> int:
    """Where a line ends."""
    return sum(len(line) for line in data.splitlines(keepends=True)[: number + 1])
