"""The reader's page: what it shows, what it records, and that no answer of a model can do anything on it."""

from __future__ import annotations

import colorsys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.methods.hot.endpoint import Load, SummaryRequest, reader_service
from squadron.methods.hot.reader_page import (
    CHOICES,
    STUDY,
    ReaderConfig,
    ReaderPage,
    reader_item,
    shade,
    store_reader_page,
    summarise,
    verdict_table,
)
from squadron.methods.hot.spans import COLOURS, colours, segments, write_json, write_svg
from squadron.methods.hot.tags import Tagged, read_reply, read_tags
from squadron.serve.annotate import Record, read_records
from squadron.serve.gateway import make_app
from squadron.serve.spec import ServeSpec
from tests.browser import CHROMIUM, run_in_page

browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt install chromium")
ATTACKS = (
    "</script><script>window.hit=1</script>", "<img src=x onerror=window.hit=1>", "]]><svg onload=window.hit=1>",
    "<!--", "\u2028\u0000\ud800", "&lt;b&gt;", "javascript:window.hit=1", '" autofocus onfocus="window.hit=1',
)  # fmt: skip


def reply(number: int) -> Any:
    attack = ATTACKS[number % len(ATTACKS)]
    text = (
        f"Reformatted Question: Mia has <fact1>{number} shells</fact1> and <fact2>finds {attack} 3 more</fact2>. How"
        f" many?\nAnswer: She begins with <fact1>{number}</fact1>, then <fact2>3 more <fact1>{attack}</fact1></fact2>"
        f": {{{number + 3}}}"
    )
    return read_reply(text)


def reader_page(folder: Path, **settings: Any) -> ReaderPage:
    def make_reader_page(stage: Stage) -> ReaderPage:
        pairs = [(reader_item(f"q{n} {ATTACKS[n % 8]}", "?", one := reply(n), n % 2 == 0), one) for n in range(8)]
        return store_reader_page(stage, pairs, ReaderConfig(**settings))

    run = Run("hot", Config(), Folder(folder), Profile(name="auto"), track=())
    return run.stage(make_reader_page)


@given(st.lists(st.sampled_from(["a", " ", "\n", "<fact1>", "</fact1>", "<fact2>", "</fact2>", "<", "漢", "\u0301"])))
def test_segments_are_the_text_and_carry_each_span_once(text: list[str]) -> None:
    tagged = read_tags("".join(text))
    found = segments(tagged)
    assert "".join(one.text for one in found) == tagged.text
    assert sorted(end for one in found for end in one.ends) == sorted(span.id for span in tagged.spans)
    place = 0
    for one in found:
        over = [span.id for span in tagged.spans if span.start <= place and span.end >= place + len(one.text)]
        assert sorted(one.facts) == sorted(over)
        place += len(one.text)


def test_spans_as_json_point_into_the_texts_and_the_drawing_links_them() -> None:
    found = write_json(reply(0))
    for fact, words in zip(found["facts"], ("0 shells", "finds"), strict=True):
        (start, end), *_ = fact["question"]
        assert found["question"][start:end].startswith(words)
        assert fact["answer"]
    for number in range(len(ATTACKS)):
        drawing = ElementTree.fromstring(write_svg(reply(number)))
        kinds = [one.tag.rpartition("}")[2] for one in drawing.iter()]
        assert set(kinds) == {"svg", "rect", "title", "path", "text"}
        assert kinds.count("path") == 3
        assert not any(name.startswith("on") for one in drawing.iter() for name in one.attrib)


def test_a_drawing_has_every_word_once_in_lines_that_fit() -> None:
    words = " ".join(f"word{n}" for n in range(200)) + " " + "x" * 300 + "\n漢" * 3
    drawing = ElementTree.fromstring(
        write_svg(read_reply(f"Reformatted Question: {words}\nAnswer: a <fact1>b</fact1>"))
    )
    lines = [one.text or "" for one in drawing.iter() if one.tag.endswith("}text")]
    assert "".join("".join(lines).split()).startswith("".join(words.split()))
    assert max(map(len, lines)) <= 88


def test_facts_are_told_apart_by_colour_and_can_be_read_on_it() -> None:
    many = Tagged("x" * 40, tuple(reply(0).answer.spans[0]._replace(id=str(n), start=n, end=n + 1) for n in range(40)))
    found = colours(read_reply("Answer: none").__class__(many, Tagged(""), ()))
    assert len(found) == 40 and set(found.values()) == set(range(COLOURS)) and COLOURS <= 19
    assert len({shade(colour)[0][0] for colour in range(COLOURS)}) == COLOURS
    for colour in range(COLOURS):
        for (hue, saturation, lightness), ink in zip(shade(colour), ("16262b", "e6eeee"), strict=True):
            under = colorsys.hls_to_rgb(hue / 360, lightness, saturation)
            over = tuple(int(ink[at : at + 2], 16) / 255 for at in (0, 2, 4))
            bright, dark = sorted((luminance(under), luminance(over)), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2, AA


def luminance(colour: tuple[float, ...]) -> float:
    parts = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_verdicts_are_summed_up_by_arm_beside_the_published() -> None:
    items = [reader_item(f"q{n}", "?", reply(n), right=n < 2) for n in range(4)]

    def said(reader: str, item: str, arm: str, answer: str, seconds: float) -> Record:
        return Record(reader=reader, item=item, arm=arm, answer=answer, seconds=seconds)

    records = [
        said("a", "q0", "highlighted", "right", 10), said("a", "q2", "highlighted", "right", 20),
        said("b", "q1", "highlighted", "wrong", 30), said("b", "q3", "plain", "wrong", 50),
        said("b", "gone", "plain", "right", 1),
    ]  # fmt: skip
    marked, plain = summarise(items, records)
    assert (marked.readers, marked.verdicts, marked.seconds, marked.on_right, marked.on_wrong) == (2, 3, 20, 0.5, 0.0)
    assert marked.seconds_interval == (15.0, 30.0)  # of the means of either reader alone
    assert (plain.verdicts, plain.seconds, plain.on_right, plain.on_wrong, plain.seconds_interval) == (
        1,
        50,
        None,
        1,
        None,
    )
    table = verdict_table([marked, plain])
    assert table.rows[0][3:] == ["20.0 (15.0–30.0)", 47.26, "50.0 (0.0–100.0)", 84.48, "0.0", 54.83]
    assert table.rows[1][3:] == ["50.0", 62.38, None, 78.82, "100.0", 72.21]


WAIT = """
const until = async test => { for (let i = 0; i < 400 && !test(); i++) await new Promise(go => setTimeout(go, 25));
  if (!test()) throw new Error("waited in vain for " + test); };
const find = id => document.getElementById(id);
const press = key => document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const begin = async name => {
  find("reader").value = name; find("start").requestSubmit(); await until(() => !find("item").hidden); };
const judged = () => +find("state").textContent.match(/(\\d+) judged/)[1];
"""
READ = """
const marks = () => [...document.querySelectorAll("mark")];
while (!marks().length) press("j");
const one = marks()[0], partners = () => marks().filter(mark => mark.classList.contains("partner")).length;
one.dispatchEvent(new MouseEvent("mouseenter")); const hovered = partners();
one.dispatchEvent(new MouseEvent("mouseleave")); const left = partners();
one.focus(); const focused = partners(); one.blur();
const looks = marks().map(one => getComputedStyle(one));
const styles = new Set(looks.map(one => one.backgroundColor + one.textDecorationStyle));
return {hovered, left, focused, styles: styles.size, label: one.querySelector("sup").textContent};
"""
SAFE = """
const seen = [];
for (let n = 0; n < 8; n++) press("k");
for (let n = 0; n < 8; n++) { seen.push(find("item").textContent); press("j"); }
await new Promise(go => setTimeout(go, 300));
const odd = document.querySelectorAll("#item img, #item svg, #item script, [onerror], [onfocus]").length;
return {hit: window.hit ?? 0, odd,
  told: seen.filter(text => text.includes("onerror=window.hit=1>")).length};
"""


class Here:
    """What stands for Ray Serve: the study, in this process."""

    def __init__(self, study: Any) -> None:
        self.study = study

    async def ask(self, service: str, method: str, request: BaseModel, client: str) -> Any:
        return getattr(self.study, method)(request)

    async def ready(self) -> list[str]:
        return []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReaderPage]:
    folder = tmp_path_factory.mktemp("readers") / "run"
    return folder, reader_page(folder)


@pytest.fixture
def url(run: tuple[Path, ReaderPage]) -> Iterator[str]:
    folder, found = run
    service = reader_service(Folder(folder), found)
    app = make_app([service], Here(Load(Folder(folder), found)()), ServeSpec(names=("127.0.0.1",)), [])  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/reader"
    server.should_exit = True
    thread.join()


@browser
def test_readers_judge_answers_on_the_servers_page(run: tuple[Path, ReaderPage], url: str) -> None:
    folder, found = run
    begun = 'await begin("mia"); return find("state").textContent;'
    timed = """
      press("2"); await until(() => judged() === 1);
      const before = performance.now(); await new Promise(go => setTimeout(go, 400)); press("1");
      await until(() => judged() === 2); const took = performance.now() - before;
      for (let n = 2; n < 8; n++) press("1");
      await until(() => judged() === 8 && !find("state").textContent.includes("not sent"));
      const buttons = [...document.querySelectorAll("#choices button")];
      return [find("state").textContent, took, buttons.every(one => one.disabled)];
    """
    again = 'location.hash = "x"; find("item").hidden = true; await begin("mia"); press("1"); return judged();'
    state, read, safe, (end, took, disabled), later = run_in_page(
        url, [WAIT + script for script in (begun, READ, SAFE, timed, again)]
    )
    assert state.startswith("1 of 8, 0 judged")
    assert (
        read["hovered"] == read["focused"] >= 2 and read["left"] == 0 and read["styles"] == 2 and read["label"] in "12"
    )
    assert safe == {"hit": 0, "odd": 0, "told": 1}
    assert "thank you" in end and disabled and later == 8
    records = read_records(Folder(folder) / STUDY)
    assert sorted(one.position for one in records) == list(range(8))
    second = sorted(records, key=lambda one: one.at)[1]
    assert 0.4 <= second.seconds <= took / 1000 + 30  # with what it was looked at before
    assert {one.arm for one in records} == {"highlighted", "plain"} and {one.answer for one in records} == set(CHOICES)
    summary = Load(Folder(folder), found)().summary(SummaryRequest())
    assert summary.verdicts == 8 and sum(arm.verdicts for arm in summary.arms) == 8


@browser
def test_the_page_without_a_server_gives_a_log_that_is_read_like_any(
    run: tuple[Path, ReaderPage], tmp_path: Path
) -> None:
    folder, found = run
    page = Path(folder / found.path / "reader.html").as_uri()
    judge = 'await begin("reader-2"); for (let n = 0; n < 8; n++) press("1"); return [judged(), log()];'
    unknown = (
        'find("reader").value = "tom"; find("start").requestSubmit(); await until(() => find("state").textContent);'
        'return find("state").textContent;'
    )
    told, (done, log) = run_in_page(page, [WAIT + unknown, WAIT + judge])
    assert told.startswith("this page has items for reader-1, reader-2")
    assert done == 8
    (tmp_path / "records-reader-2.jsonl").write_text(log, encoding="utf-8")
    records = read_records(Folder(tmp_path))
    assert len(records) == 8 and {one.reader for one in records} == {"reader-2"}
    study = Load(Folder(folder), found)()
    assert [(one.item, one.arm) for one in records] == [
        (one.item, one.arm) for one in study.open(request("reader-2")).items
    ]


def request(reader: str) -> Any:
    from squadron.serve.annotate import OpenRequest

    return OpenRequest(reader=reader)
