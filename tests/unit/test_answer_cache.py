"""Answers on disk outlive the process that wrote them, whatever moment it ends at."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.folder import Folder
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


def _end(data: bytes, number: int) -> int:
    """Where a line ends."""
    return sum(len(line) for line in data.splitlines(keepends=True)[: number + 1])
