"""Studies: who reads what, what is recorded, and what of it counts."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.serve.annotate import (
    OpenRequest,
    Record,
    Study,
    StudyConfig,
    StudyItem,
    assign,
    check_items,
    read_records,
)
from squadron.serve.annotate_page import StudyPage, study_file
from squadron.serve.auth_limits import read_key
from squadron.serve.gateway import make_app
from squadron.serve.service import Context, Event, Page, Service, pages
from squadron.serve.spec import ServeSpec

ITEMS = [
    StudyItem(id=f"i{n}", shown={"marked": {"text": f"<{n}>"}, "plain": {"text": str(n)}}, stratum="ab"[n % 3 == 0])
    for n in range(12)
]


@given(st.integers(0, 10_000), st.text("abc-", min_size=1, max_size=5), st.none() | st.integers(1, 12))
def test_each_reader_sees_each_item_once_and_each_arm_as_often(seed: int, reader: str, count: int | None) -> None:
    config = StudyConfig(seed=seed, per_reader=count)
    found = assign(ITEMS, reader, config)
    assert found == assign(list(ITEMS), reader, config)
    assert len({one.item.id for one in found}) == len(found) == (count or len(ITEMS))
    strata = Counter(one.item.stratum for one in found)
    fewest = min(4, (count or 12) // 2)  # there are four of stratum b
    assert min(strata["a"], strata["b"]) >= fewest
    for stratum in "ab":
        arms = Counter(one.arm for one in found if one.item.stratum == stratum)
        assert abs(arms["marked"] - arms["plain"]) <= 1


def test_a_reader_of_one_arm_sees_no_other_and_readers_differ() -> None:
    config = StudyConfig(arms="per reader")
    seen = [assign(ITEMS, f"reader-{n}", config) for n in range(40)]
    arms = [{one.arm for one in found} for found in seen]
    assert all(len(one) == 1 for one in arms) and {"marked"} in arms and {"plain"} in arms
    assert len({tuple(one.item.id for one in found) for found in seen}) > 35


def record(study: Study, reader: str, place: int = 0, **more: object) -> Record:
    one = study.open(OpenRequest(reader=reader)).items[place]
    given = {"reader": reader, "item": one.item, "arm": one.arm, "answer": "yes", "seconds": 2.5}
    return Record.model_validate(given | more)


def test_the_first_record_of_a_reader_for_an_item_holds_whichever_process_takes_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    study, other = (Study(ITEMS, folder, StudyConfig(), ("yes", "no")) for _ in range(2))
    first = record(study, "mia")
    assert study.record(first).kept
    assert not study.record(first.model_copy(update={"answer": "no"})).kept
    other.record(first.model_copy(update={"answer": "no"}))  # it has not looked again yet
    (held,) = read_records(folder)
    assert (held.answer, held.seconds, held.position) == ("yes", 2.5, 0)
    assert [one.done for one in Study(ITEMS, folder, StudyConfig()).open(OpenRequest(reader="mia")).items][:2] == [
        True,
        False,
    ]


def test_what_a_reader_cannot_say_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    study = Study(ITEMS, Folder(tmp_path), StudyConfig(most_readers=1), ("yes", "no"))
    whole = record(study, "mia")
    other = "plain" if whole.arm == "marked" else "marked"
    for wrong in ({"arm": other}, {"item": "nothing"}, {"answer": "perhaps"}):
        with pytest.raises(InputError):
            study.record(whole.model_copy(update=wrong))
    assert read_records(Folder(tmp_path)) == []
    assert study.record(whole).kept
    with pytest.raises(InputError, match="1 readers"):
        study.open(OpenRequest(reader="tom"))
    for settings in ({"reader": "../x"}, {"seconds": -1}, {"seconds": float("nan")}, {"details": {"a b": 1}}):
        with pytest.raises(ValueError):
            Record.model_validate(whole.model_dump() | settings)


def test_only_readers_who_are_done_are_summed_up(tmp_path: Path) -> None:
    study = Study(ITEMS, Folder(tmp_path), StudyConfig(per_reader=2))
    for reader, count in (("mia", 2), ("tom", 1)):
        for place in range(count):
            study.record(record(study, reader, place))
    assert {one.reader for one in study.finished()} == {"mia"}


def test_a_damaged_log_and_bad_items_are_told_by_their_place(tmp_path: Path) -> None:
    study = Study(ITEMS, Folder(tmp_path), StudyConfig())
    study.record(record(study, "mia"))
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text().replace('"yes"', '"nay"'))
    with pytest.raises(InputError, match="line 1 is damaged"):
        read_records(Folder(tmp_path))
    with pytest.raises(InputError, match="twice"):
        check_items([ITEMS[0], ITEMS[0]])
    with pytest.raises(InputError, match="arms"):
        check_items([ITEMS[0], StudyItem(id="x", shown={"plain": {}})])
    with pytest.raises(InputError, match="nothing"):
        check_items([])


def test_nothing_of_an_item_leaves_the_data_of_a_file() -> None:
    attack = "</script><script>alert(1)</script><!--"
    page = StudyPage("T <b>", "I & me", {"yes": "Yes"}, "make('p', shown.text, parent);")
    items = [StudyItem(id=attack, shown={"a": {"text": attack + "__TITLE__"}})]
    text = study_file(page, {"reader-1": assign(items, "reader-1", StudyConfig())})
    assert text.count("<script") == text.count("</script>") == 2 and "<!--" not in text
    held = text.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(held)["shown"] == [[attack, "a", {"text": attack + "__TITLE__"}]]
    assert "T &lt;b&gt;" in text and "__" not in text.replace("__TITLE__", "", 1)


class Nobody:
    """What stands for Ray Serve where nothing is asked."""

    async def ask(self, service: str, method: str, request: BaseModel, client: str) -> BaseModel:
        raise AssertionError

    def stream(self, service: str, method: str, request: BaseModel, context: Context) -> AsyncIterator[list[Event]]:
        raise AssertionError

    async def ready(self) -> list[str]:
        return []


def test_pages_need_no_key_and_two_of_one_path_have_their_own() -> None:
    services = [Service(name, dict, (), pages=(Page("/p", "a page", f"<p>{name}"),)) for name in ("one", "two")]
    assert list(pages(services)) == ["/p", "/one/p", "/two/p"]
    app = make_app(services, Nobody(), ServeSpec(without_keys=True), [read_key("a-key")])

    async def visit() -> dict[str, httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000") as client:
            return {path: await client.get(path) for path in ("/p", "/two/p", "/stats")}

    answers = asyncio.run(visit())
    assert [one.status_code for one in answers.values()] == [200, 200, 401]
    assert (
        "<p>two" in answers["/two/p"].text and "default-src 'none'" in answers["/p"].headers["content-security-policy"]
    )
