"""The paper's study on one's own people: is an answer right, and how long does it take to tell, with facts highlighted
and without?

Both arms show the same question and the same answer; the plain one leaves out the tags. So the difference is that of
the highlighting alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from squadron.core.artifacts import Artifact
from squadron.core.config import Config
from squadron.core.job import estimated
from squadron.core.json_text import storable, to_json
from squadron.core.panels import Table, Text
from squadron.core.run import Stage
from squadron.evaluate.statistics import cluster_bootstrap_interval
from squadron.methods.hot import plan
from squadron.methods.hot.config import ReaderConfig
from squadron.methods.hot.records import Scored, read_tagged
from squadron.methods.hot.report import PUBLISHED_READERS
from squadron.methods.hot.spans import COLOURS, colours, hue, segments, write_json, write_svg
from squadron.methods.hot.tags import Reply, Tagged
from squadron.serve.annotate import Record, StudyItem, assign, check_items
from squadron.serve.annotate_page import StudyPage, study_file

HIGHLIGHTED, PLAIN = "highlighted", "plain"
RIGHT, WRONG = "right", "wrong"
CHOICES = {RIGHT: "It is right", WRONG: "It is wrong"}
STUDY = "study"
"""The folder of verdicts, in that of the run."""


class ReaderPage(Artifact):
    """A folder with `reader.html`, which works without a server, `items.json`, `spans.jsonl` and drawings."""

    items: int
    config: ReaderConfig


class Published(NamedTuple):
    """What the paper measured with its readers (section on verification by people): seconds an answer, and how many of
    their verdicts were right, in percent, on answers that were right and that were wrong."""

    seconds: float
    on_right: float
    on_wrong: float


_HOT, _COT = zip(*PUBLISHED_READERS.values(), strict=True)
PUBLISHED = {HIGHLIGHTED: Published(*_HOT), PLAIN: Published(*_COT)}
"""The plain arm of the paper is chain of thought by another prompt, ours the same answer without its tags."""


def reader_item(id: str, question: str, reply: Reply, right: bool) -> StudyItem:
    """An answer as readers get it. Where the reply does not repeat the question, it is shown as it was asked."""
    marked = reply if reply.question is not None else Reply(Tagged(question), reply.answer, reply.faults)
    assert marked.question is not None
    bare = Reply(Tagged(marked.question.text), Tagged(marked.answer.text), ())
    shown = {HIGHLIGHTED: _shown(marked), PLAIN: _shown(bare)}
    return StudyItem(id=storable(id), shown=shown, stratum=RIGHT if right else WRONG)


def _shown(reply: Reply) -> dict[str, Any]:
    parts = {"question": reply.question or Tagged(""), "answer": reply.answer}
    texts = {
        name: [(storable(text), facts, ends) for text, facts, ends in segments(part)] for name, part in parts.items()
    }
    return {**texts, "colours": colours(reply)}


def page() -> StudyPage:
    """What is HoT's own on the page: colours, kinds of lines and numbers for facts, and links between them."""
    return StudyPage(
        title="Is this answer right?",
        intro="Read the question and the answer, and judge whether the answer is right. You are timed while this page "
        "is in sight. Facts of the question that an answer relies on may be highlighted in both.",
        choices=CHOICES,
        show=Path(__file__).with_name("reader.js").read_text(encoding="utf-8"),
        style=_style(),
    )


def shade(colour: int) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Hue in degrees, saturation and lightness of what lies under a fact, on light pages and on dark ones."""
    return (hue(colour), 0.85, 0.84), (hue(colour), 0.55, 0.24)


def _style() -> str:
    def hsl(parts: tuple[float, float, float]) -> str:
        return f"hsl({parts[0]:.0f} {parts[1]:.0%} {parts[2]:.0%})"

    rules = [
        ".words { white-space: pre-wrap; overflow-wrap: anywhere; }",
        "mark { color: inherit; border-radius: 3px; padding: 0 .1em; text-decoration: underline 2px; "
        "text-underline-offset: 3px; } mark sup { font-size: .65em; font-weight: bold; user-select: none; }",
        "mark.partner, mark:focus { outline: 3px solid currentColor; }",
        *(
            f"mark.{kind} {{ text-decoration-style: {kind}; }}"
            for kind in ("solid", "dashed", "dotted", "double", "wavy")
        ),
    ]
    for colour in range(COLOURS):
        light, dark = shade(colour)
        rules.append(f"mark.c{colour} {{ background: light-dark({hsl(light)}, {hsl(dark)}); }}")
    return "\n  ".join(rules)


def store_reader_page(stage: Stage, found: Iterable[tuple[StudyItem, Reply]], config: ReaderConfig) -> ReaderPage:
    """Write the page without a server, the items of the page with one, and the spans. Raises InputError as
    `check_items` does: for no items, or an id that stands twice."""
    pairs = _by_turns(list(found))[: config.items]
    items = check_items(item for item, _ in pairs)
    given = {f"reader-{n}": assign(items, f"reader-{n}", config) for n in range(1, config.readers + 1)}
    folder = stage.folder
    folder.write_bytes("page/reader.html", study_file(page(), given).encode())
    folder.write_json("page/items.json", {"items": [item.model_dump(mode="json") for item in items]})
    spans = ({"id": item.id, **write_json(reply)} for item, reply in pairs)
    folder.write_bytes("page/spans.jsonl", b"".join(to_json(one) + b"\n" for one in spans))
    for number, (_, reply) in enumerate(pairs[: config.drawings]):
        folder.write_bytes(f"page/spans-{number}.svg", write_svg(reply).encode())
    stage.show(Text(title="Page for readers", text=_where(stage)))
    return ReaderPage.made(stage, "page", items=len(items), config=config)


@estimated(plan.readers)
def make_reader_page(stage: Stage, scored: tuple[Scored, ...], config: ReaderConfig) -> ReaderPage:
    """The page, of HoT's replies that have facts in both parts and could be read; an empty one without any."""
    found = []
    for one in scored:
        for row in one.replies.rows(stage.run.folder) if one.mode == "hot" else ():
            question, answer = read_tagged(row["question"]), read_tagged(row["answer"])
            if row["outcome"] in (RIGHT, WRONG) and question and question.spans and answer and answer.spans:
                reply = Reply(question, answer, ())
                name = f"{one.model} {row['id']} {row['sample']}"
                found.append((reader_item(name, question.text, reply, row["outcome"] == RIGHT), reply))
    if not found:
        stage.show(Text(title="Page for readers", text="There is none: no reply has facts in question and answer."))
        return ReaderPage(path="", items=0, config=config)
    return store_reader_page(stage, found, config)


def _by_turns(pairs: Sequence[tuple[StudyItem, Reply]]) -> list[tuple[StudyItem, Reply]]:
    """Right and wrong answers by turns, as far as both last."""
    place = {RIGHT: 0, WRONG: 0}
    order = []
    for pair in pairs:
        kind = pair[0].stratum
        order.append((place[kind], kind, pair))
        place[kind] += 1
    return [pair for _, _, pair in sorted(order, key=lambda one: one[:2])]


def _where(stage: Stage) -> str:
    name = stage.folder.file("page/reader.html").removeprefix(stage.run.folder.url).lstrip("/")
    return (
        f"{name} shows answers with their facts highlighted, or plain, and takes verdicts: open it in a browser. What "
        f"it lets one download goes into the folder {STUDY} of this run.\n"
        f"squadron serve {stage.run.folder.name}: the same at /reader, with verdicts written there by the server."
    )


class ArmResult(Config):
    """What was measured of an arm. Intervals are of 95%, over readers; None where there are fewer than two."""

    arm: str
    readers: int
    verdicts: int
    seconds: float | None
    seconds_interval: tuple[float, float] | None
    on_right: float | None
    on_right_interval: tuple[float, float] | None
    on_wrong: float | None
    on_wrong_interval: tuple[float, float] | None


def summarise(items: Sequence[StudyItem], records: Sequence[Record]) -> list[ArmResult]:
    """Time and accuracy of each arm. Records of items that are not among these are left out."""
    truth = {item.id: item.stratum for item in items}
    known = [one for one in records if one.item in truth and one.answer in CHOICES]
    found = []
    for arm in (HIGHLIGHTED, PLAIN):
        mine = [one for one in known if one.arm == arm]
        seconds, seconds_interval = _mean((one.reader, one.seconds) for one in mine)
        hits = {
            kind: _mean((one.reader, float(one.answer == kind)) for one in mine if truth[one.item] == kind)
            for kind in (RIGHT, WRONG)
        }
        found.append(
            ArmResult(
                arm=arm,
                readers=len({one.reader for one in mine}),
                verdicts=len(mine),
                seconds=seconds,
                seconds_interval=seconds_interval,
                on_right=hits[RIGHT][0],
                on_right_interval=hits[RIGHT][1],
                on_wrong=hits[WRONG][0],
                on_wrong_interval=hits[WRONG][1],
            )
        )
    return found


def _mean(values: Iterable[tuple[str, float]]) -> tuple[float | None, tuple[float, float] | None]:
    """The mean of values, and its interval with readers drawn again: verdicts of one reader are alike."""
    groups = defaultdict[str, list[float]](list)
    for reader, value in values:
        groups[reader].append(value)
    if not groups:
        return None, None
    every = [value for group in groups.values() for value in group]
    interval = cluster_bootstrap_interval(list(groups.values())) if len(groups) > 1 else None
    return sum(every) / len(every), interval


def verdict_table(results: Sequence[ArmResult]) -> Table:
    """Each arm with what the paper measured beside it."""
    rows: list[list[Any]] = []
    for one in results:
        paper = PUBLISHED[one.arm]
        rows.append([
            one.arm, one.readers, one.verdicts,
            _with_interval(one.seconds, one.seconds_interval, 1), paper.seconds,
            _with_interval(one.on_right, one.on_right_interval, 100), paper.on_right,
            _with_interval(one.on_wrong, one.on_wrong_interval, 100), paper.on_wrong,
        ])  # fmt: skip
    return Table(
        title="Verdicts of readers",
        columns=["arm", "readers", "verdicts", "seconds", "published", "% right on right answers", "published",
                 "% right on wrong answers", "published"],
        rows=rows,
        note="In brackets 95% intervals, with readers drawn again. Published: arXiv 2503.02003, its own readers and "
        "answers; its plain arm is chain of thought by another prompt.",
    )  # fmt: skip


def _with_interval(value: float | None, interval: tuple[float, float] | None, scale: float) -> str | None:
    if value is None:
        return None
    between = f" ({interval[0] * scale:.1f}–{interval[1] * scale:.1f})" if interval else ""
    return f"{value * scale:.1f}{between}"
