"""Panels travel as JSON without loss; the report shows all of a run, leaks nothing and needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from squadron.core import charts
from squadron.core.folder import Folder
from squadron.core.panels import (
    Axis,
    Bar,
    Bars,
    Chain,
    Cloud,
    Curves,
    Film,
    Heatmap,
    Histogram,
    Images,
    Line,
    Panel,
    Parallel,
    Paths,
    Points,
    Sample,
    Series,
    Stop,
    Table,
    Text,
    Tree,
    TreeNode,
    read_panel,
)
from squadron.core.report import FAILURES_SHOWN, RunView, StageView, format_cell, format_duration, render
from tests.html import Page
from tests.pictures import png as picture_that_says

NASTY = '</title></pre></text><script>alert(\'x\')</script>&amp; " onload="a()" $x$ {{ 7*7 }} #0a0b01'


def run_view(folder: Folder, *panels: Panel, text: str = "demo", **changes: object) -> RunView:
    stage = StageView(text, 12.0, "finished", list(panels), folder, purpose=text)
    view = RunView(title=text, summary=text, figures=[(text, text)], stages=[stage], next_commands=[text])
    for name, value in changes.items():
        setattr(view, name, value)
    return view


def png(width: int = 4, height: int = 3) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


numbers = st.floats(allow_nan=False, allow_infinity=False)
cells = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | numbers | st.text()
tables = st.integers(1, 4).flatmap(
    lambda width: st.builds(
        Table,
        title=st.text(),
        columns=st.lists(st.text(), min_size=width, max_size=width),
        rows=st.lists(st.lists(cells, min_size=width, max_size=width), max_size=4),
        note=st.text(),
    )
)
series = st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=5).map(
    lambda rows: Series(
        name="s", **dict(zip(("x", "y", "low", "high"), map(list, zip(*rows, strict=True)), strict=True))
    )
)
gappy = st.lists(st.none() | numbers, min_size=2, max_size=2)
more_charts = st.one_of(
    st.builds(lambda x, v: Heatmap(title=x, rows=[x], columns=["b", "c"], values=[v], label=x), st.text(), gappy),
    st.builds(lambda text, x, y: Points(title=text, groups=[Cloud(name=text, x=x, y=y)]), st.text(), gappy, gappy),
    st.builds(lambda text, value: Bars(title=text, label=text, bars=[Bar(name=text, value=value)]), st.text(), numbers),
    st.builds(lambda x, v: Histogram(title=x, x_label=x, groups=[Sample(name=x, values=v)]), st.text(), gappy),
)
shapes = st.lists(
    st.tuples(st.integers(0, 11), st.sampled_from(["chosen", "rejected", "passed", "rolled_back"])), max_size=8
).map(lambda draws: [(None if draw >= place else draw, mark) for place, (draw, mark) in enumerate(draws)])
trees = st.builds(
    lambda text, shape: Tree(title=text, root=text, nodes=[step(*pair, text, text) for pair in shape], note=text),
    st.text(),
    shapes,
)
names = st.from_regex(r"[a-z0-9_]{1,8}\.(png|gif)", fullmatch=True)
panels = st.one_of(
    tables,
    more_charts,
    st.builds(Curves, title=st.text(), x_label=st.text(), y_label=st.text(), series=st.lists(series, max_size=3)),
    st.builds(Images, title=st.text(), files=st.lists(names, max_size=3)),
    st.builds(Film, title=st.text(), file=names, caption=st.text()),
    st.builds(Text, title=st.text(), text=st.text()),
    trees,
)


@settings(max_examples=50, deadline=None)
@given(panels)
def test_panel_survives_json(panel: Panel) -> None:
    record = json.loads(json.dumps(panel.model_dump(mode="json"), allow_nan=False))
    assert read_panel(record) == panel


def step(parent: int | None, mark: str = "passed", text: str = "s", label: str = "") -> TreeNode:
    return TreeNode.model_validate({"parent": parent, "text": text, "mark": mark, "label": label})


def test_panels_take_numpy_and_turn_what_is_not_finite_into_gaps() -> None:
    curve = Series(name="s", x=np.arange(3), y=np.array([1.5, np.nan, np.inf], dtype=np.float32))
    assert curve.x == [0, 1, 2]
    assert curve.y == [1.5, None, None]
    table = Table(title="t", columns=["a", "b"], rows=[[np.int64(3), float("nan")]])
    assert table.rows == [[3, None]]


@pytest.mark.parametrize(
    "build",
    [
        lambda: Table(title="t", columns=["a"], rows=[[1, 2]]),
        lambda: Series(name="s", x=[1, 2], y=[1]),
        lambda: Series(name="s", x=[1], y=[1], low=[0]),
        lambda: Heatmap(title="t", rows=["a"], columns=["b"], values=[[1, 2]], label="l"),
        lambda: Parallel(title="t", axes=[Axis(name="a")], lines=[]),
        lambda: Parallel(title="t", axes=[Axis(name="a"), Axis(name="b")], lines=[Line(name="l", values=[1])]),
        lambda: Heatmap(title="t", rows=["a", "b"], columns=["c"], values=[[1]], label="l"),
        lambda: Chain(title="t", stops=[]),
        lambda: Cloud(name="g", x=[1, 2], y=[1]),
        lambda: Bar(name="b", value=1, low=0),
        lambda: Bar(name="b", value=1, low=2, high=0),
        lambda: Images(title="t", files=["a.png"], captions=["a", "b"]),
        lambda: Film(title="t", file="../../secret.gif"),
        lambda: Images(title="t", files=["/etc/passwd"]),
        lambda: Tree(title="t", root="r", nodes=[step(0)]),
        lambda: Tree(title="t", root="r", nodes=[step(None), step(2), step(0)]),
        lambda: Tree(title="t", root="r", nodes=[step(None), step(-1)]),
        lambda: TreeNode(parent=None, text="s", mark="doubtful"),
        lambda: read_panel({"kind": "hologram", "title": "t"}),
        lambda: read_panel({"kind": "text", "title": "t", "text": "x", "colour": "red"}),
    ],
)
def test_malformed_panels_are_refused(build: object) -> None:
    with pytest.raises(ValidationError):
        build()  # type: ignore[operator]


def all_kinds(text: str) -> list[Panel]:
    curve = Series(name=text, x=[0, 1, 2], y=[1, 3, 2], low=[0, 2, 1], high=[2, 4, 3])
    return [
        Table(title=text, columns=[text], rows=[[text]], note=text),
        Curves(title=text, x_label=text, y_label=text, series=[curve, curve], note=text),
        Heatmap(title=text, rows=[text], columns=[text], values=[[0.5]], label=text, note=text),
        Parallel(
            title=text, axes=[Axis(name=text), Axis(name=text, names=[text])], lines=[Line(name=text, values=[1, 0])]
        ),
        Paths(
            title=text,
            rows=[Chain(title=text, stops=[Stop(label=text, type=text, relation=text)] * 2, right=True)],
            note=text,
        ),
        Points(title=text, x_label=text, y_label=text, groups=[Cloud(name=text, x=[1], y=[2])] * 2, note=text),
        Bars(title=text, label=text, bars=[Bar(name=text, value=1)], reference=2, reference_name=text, note=text),
        Histogram(title=text, x_label=text, groups=[Sample(name=text, values=[1, 2])] * 2, note=text),
        Images(title=text, files=["a.png"], captions=[text]),
        Film(title=text, file="film.gif", caption=text),
        Text(title=text, text=text),
        Tree(title=text, root=text, nodes=[step(None, "chosen", text, text), step(0, "passed", text, text)], note=text),
    ]


def whole_view(folder: Folder, text: str) -> RunView:
    folder.write_bytes("a.png", png())
    folder.write_bytes("film.gif", png())
    failures = [{"stage": text, "item": text, "error": text}]
    config = f"name: {json.dumps(text)}\n"
    return run_view(folder, *all_kinds(text), text=text, failures=failures, config_yaml=config, manifest={"note": text})


def test_hostile_text_stays_text(folder: Folder) -> None:
    benign, hostile = Page(render(whole_view(folder, "plain"))), Page(render(whole_view(folder, NASTY)))
    assert hostile.tags == benign.tags
    assert {pair[:2] for pair in hostile.attributes} == {pair[:2] for pair in benign.attributes}
    # The text appears as given wherever the harmless one does; only legends, names of rows and boxes may shorten it.
    legends, names, boxes = 2 + 2 + 1 + 2, 2 + 1 + 1, 1 + 2 + 2 + 1
    assert hostile.texts.count(NASTY) == benign.texts.count("plain") - legends - names - boxes > 25


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text())
def test_any_text_leaves_the_structure_alone(folder: Folder, text: str) -> None:
    def view(text: str) -> RunView:
        shown: list[Panel] = [
            Table(title=text, columns=["a"], rows=[[text + "x"]], note="n" + text),
            Text(title=text, text=text),
        ]
        return run_view(folder, *shown, text="t" + text, failures=[{"item": text + "x"}])

    assert [tag for tag in Page(render(view(text))).tags] == Page(render(view(""))).tags


def test_page_reaches_for_nothing(folder: Folder) -> None:
    html = render(whole_view(folder, "plain"))
    page = Page(html)
    assert all(value.startswith("data:") for value in page.values("src"))
    assert all(value.startswith("#") for value in page.values("xlink:href") + page.values("href"))
    assert "script" not in page.tags and "link" not in page.tags
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    policy = page.values("content")
    assert any("default-src 'none'" in value for value in policy)


def test_pictures_are_embedded_byte_for_byte(folder: Folder) -> None:
    picture, film = png(5, 7), png(64, 64)
    folder.write_bytes("a.png", picture)
    folder.write_bytes("film.gif", film)
    page = Page(render(run_view(folder, Images(title="i", files=["a.png"]), Film(title="f", file="film.gif"))))
    embedded = [base64.b64decode(address.partition("base64,")[2]) for address in page.values("src")]
    assert embedded == [picture, film]
    sizes = list(zip(page.values("width"), page.values("height"), strict=True))
    assert ("5", "7") in sizes and ("64", "64") in sizes


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("gone.png", None, "gone.png is missing"),
        ("torn.png", png()[:20], "torn.png is not a readable picture"),
        ("vast.png", picture_that_says(8, 8, said=(60_000, 60_000)), "vast.png is not a readable picture"),
        ("table.csv", b"a,b", "table.csv: a browser cannot show .csv files"),
    ],
)
def test_a_bad_file_is_named_in_its_place(folder: Folder, name: str, data: bytes | None, words: str) -> None:
    if data is not None:
        folder.write_bytes(name, data)
    page = Page(render(run_view(folder, Images(title="i", files=[name]), Text(title="t", text="still here"))))
    assert words in page.text
    assert "still here" in page.text


def test_secrets_never_reach_the_page(folder: Folder) -> None:
    config = "seed: 7\nserver: {api_key: hunter2, url: example}\nhf_token: hunter2\n"
    html = render(run_view(folder, config_yaml=config, manifest={"seed": 7, "password": "hunter2"}))
    assert "hunter2" not in html
    assert "seed: 7" in html and "url: example" in html


def test_order_is_header_stages_failures_how_next(folder: Folder) -> None:
    stages = [
        StageView(name, 1.0, "finished", [Text(title=f"about {name}", text="-")], folder) for name in ("one", "two")
    ]
    view = RunView("the title", "the summary", [("rounds", "30")], stages, [{"item": "row 9", "error": "boom"}])
    view.config_yaml, view.manifest, view.next_commands = (
        "seed: 7\n",
        {"packages": {"ray": "2.60.0"}},
        ["squadron run it"],
    )
    text = Page(render(view)).text.partition("</style>")[2] or Page(render(view)).text
    marks = ["the summary", "30", "about one", "about two", "row 9", "2.60.0", "seed: 7", "squadron run it"]
    places = [text.index(mark, text.index("the summary")) for mark in marks]
    assert places == sorted(places)


def test_an_empty_run_renders(folder: Folder) -> None:
    page = Page(render(RunView("empty", "", [], [])))
    assert "empty" in page.text


def test_many_failures_are_counted_and_cut(folder: Folder) -> None:
    failures = [{"item": f"row-{number}", "error": "e"} for number in range(FAILURES_SHOWN + 7)]
    text = Page(render(run_view(folder, failures=failures))).text
    assert f"{FAILURES_SHOWN + 7} kept, the first {FAILURES_SHOWN} shown" in text
    assert f"row-{FAILURES_SHOWN - 1}" in text and f"row-{FAILURES_SHOWN}" not in text


def chart_points(svg: str, number: int) -> list[np.ndarray]:
    """The pieces of series `number` in drawing coordinates, x to the right and y downwards."""
    (line,) = re.findall(rf'<path d="([^"]*)" clip-path[^>]*stroke: var\(--series-{number}\); stroke-width: 1.8', svg)
    pieces: list[list[tuple[float, float]]] = []
    for command, x, y in re.findall(r"([ML]) (-?[\d.]+) (-?[\d.]+)", line):
        if command == "M":
            pieces.append([])
        pieces[-1].append((float(x), float(y)))
    return [np.array(piece) for piece in pieces]


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=3, max_size=20).filter(lambda values: len(set(values)) > 1))
def test_a_curve_is_its_data_up_to_scale(values: list[int]) -> None:
    x = np.arange(len(values)) * 2.0
    panel = Curves(title="t", x_label="x", y_label="y", series=[Series(name="s", x=x, y=values)])
    (points,) = chart_points(charts.draw(panel), 1)
    for drawn, data, direction in ((points[:, 0], x, 1), (points[:, 1], np.array(values), -1)):
        slope, offset = np.polyfit(data, drawn, 1)
        assert drawn == pytest.approx(slope * data + offset, abs=0.01)
        assert np.sign(slope) == direction
        assert np.ptp(drawn) > 50, "the data fill the drawing"


def test_a_missing_value_is_a_gap_and_curves_keep_apart() -> None:
    y = [1.0, 4.0, None, 2.0, 3.0, 1.0]
    first, second = Series(name="a", x=range(6), y=y), Series(name="_b", x=range(6), y=[2.0, 1, 2, 1, 2, 1])
    svg = charts.draw(Curves(title="t", x_label="step", y_label="loss [nat]", series=[first, second]))
    assert [len(piece) for piece in chart_points(svg, 1)] == [2, 3]
    assert [len(piece) for piece in chart_points(svg, 2)] == [6]
    for words in ("step", "loss [nat]", ">a<", "_b<"):
        assert words in svg


def each_chart() -> list[Panel]:
    curves = [Series(name=f"s{n}", x=[0, 1], y=[n, n + 1], low=[n - 1, n], high=[n + 1, n + 2]) for n in range(8)]
    draw = np.random.default_rng(0)
    clouds = [Cloud(name=f"c{n}", x=draw.normal(size=50), y=draw.normal(size=50), faint=n == 0) for n in range(4)]
    samples = [Sample(name=f"h{n}", values=draw.normal(size=100)) for n in range(3)]
    names = ["a", "b", "c"]
    return [
        Curves(title="t", x_label="x", y_label="y", series=curves),
        Heatmap(title="t", rows=names, columns=names, values=draw.random((3, 3)), label="share"),
        Parallel(
            title="t",
            axes=[Axis(name="rate", log=True), Axis(name="kind", names=names), Axis(name="loss")],
            lines=[Line(name="best", values=[1e-4, 2, 0.1], mark="best"), Line(name="rest", values=[1e-2, 0, 0.9])],
        ),
        Paths(
            title="t",
            rows=[
                Chain(title="1", stops=[Stop(label="a", type="paper", score=2.5), Stop(label="b", relation="cites")]),
                Chain(title="2", stops=[Stop(label="c")], right=True),
            ],
        ),
        Heatmap(title="t", rows=names, columns=[f"{n}" for n in range(20)], values=draw.random((3, 20)), label="share"),
        Points(title="t", x_label="x", y_label="y", groups=clouds),
        Points(title="t", groups=clouds, ticks=False),
        Bars(title="t", label="accuracy [%]", bars=[Bar(name=n, value=3, low=2, high=4) for n in names], reference=1),
        Histogram(title="t", x_label="reward", groups=samples, scale="density"),
    ]


@pytest.mark.parametrize("panel", each_chart(), ids=lambda panel: panel.kind)
def test_charts_follow_the_page_and_are_reproducible(panel: charts.Chart) -> None:
    svg = charts.draw(panel)
    assert not re.findall(r"(?:fill|stroke): #", svg), "a fixed colour would not follow dark mode"
    assert "<image" not in svg
    assert "width=" not in svg.partition(">")[0]
    assert svg == charts.draw(panel)


@pytest.mark.parametrize(
    "panel",
    [
        Heatmap(title="t", rows=[], columns=[], values=[], label="l"),
        Parallel(title="t", axes=[Axis(name="a"), Axis(name="b", names=["x", "y"])], lines=[]),
        Parallel(title="t", axes=[Axis(name="a", log=True), Axis(name="b")], lines=[Line(name="l", values=[2, None])]),
        Heatmap(title="t", rows=["a"], columns=["b"], values=[[None]], label="l"),
        Heatmap(title="t", rows=["a"], columns=["b", "c"], values=[[2.0, 2.0]], label="l"),
        Paths(title="t", rows=[]),
        Paths(title="t", rows=[Chain(title="", stops=[Stop(label="")] * 40)]),
        Points(title="t", groups=[]),
        Points(title="t", groups=[Cloud(name="g", x=[None, 1], y=[1, None])]),
        Bars(title="t", label="l", bars=[]),
        Bars(title="t", label="l", bars=[Bar(name="a", value=None), Bar(name="b", value=-2.0)]),
        Histogram(title="t", x_label="x", groups=[]),
        Histogram(title="t", x_label="x", groups=[Sample(name="g", values=[None])]),
        Histogram(title="t", x_label="x", groups=[Sample(name="g", values=[1.0, math.nextafter(1.0, 2)])]),
    ],
)
def test_charts_of_little_are_drawn(panel: charts.Chart) -> None:
    assert Page(charts.draw(panel)).tags[0] == "svg"


def test_a_heat_map_prints_its_values_and_tints_them_in_order() -> None:
    panel = Heatmap(title="t", rows=["r"], columns=["a", "b", "c", "d"], values=[[0.1, 0.5, None, 0.9]], label="share")
    svg = charts.draw(panel)
    assert [text for text in Page(svg).texts if re.fullmatch(r"0\.\d{3}|–", text)] == ["0.100", "0.500", "–", "0.900"]
    tiles = svg.partition("QuadMesh")[0]
    tints = [float(tint) for tint in re.findall(r"fill: var\(--series-1\); fill-opacity: ([\d.]+)", tiles)][:3]
    assert tints == sorted(set(tints)) and len(tints) == 3
    many = [f"{n}" for n in range(30)]
    crowded = charts.draw(Heatmap(title="t", rows=["r"], columns=many, values=[[0.25] * 30], label="l"))
    assert "0.250" not in Page(crowded).texts


def test_points_are_where_their_values_are() -> None:
    x, y = [0.0, 1.0, 4.0, None], [1.0, 3.0, 2.0, 9.0]
    svg = charts.draw(Points(title="t", groups=[Cloud(name="g", x=x, y=y)]))
    drawn = np.array([[float(place) for place in dot] for dot in re.findall(r"M(-?[\d.]+) (-?[\d.]+)h0", svg)])
    assert drawn.shape == (3, 2)
    for values, places in ((x[:3], drawn[:, 0]), (y[:3], drawn[:, 1])):
        slope, offset = np.polyfit(np.array(values, float), places, 1)
        assert places == pytest.approx(slope * np.array(values, float) + offset, abs=0.2)


def test_many_points_are_thinned_evenly_and_the_note_says_so(folder: Folder) -> None:
    draw = np.random.default_rng(0)
    groups = [
        Cloud(name="all", x=draw.normal(size=20_000), y=draw.normal(size=20_000), faint=True),
        Cloud(name="picked", x=draw.normal(size=100), y=draw.normal(size=100)),
    ]
    panel = Points(title="t", groups=groups, note="A projection.")
    svg = charts.draw(panel)
    dots = [path.count("h0") for path in re.findall(r'<path d="(M[^"]*h0)"', svg)]
    assert dots == [4900, 100], "the small group stays whole"
    assert len(svg) < 100_000
    html = render(run_view(folder, panel))
    assert "A projection. 5,000 of 20,100 points are drawn" in html


def test_bars_show_values_intervals_and_gaps() -> None:
    rows = [Bar(name="ours", value=61.3, low=58, high=64), Bar(name="_base", value=52.0), Bar(name="gone", value=None)]
    svg = charts.draw(Bars(title="t", label="accuracy [%]", bars=rows, reference=50, reference_name="full data"))
    texts = Page(svg).texts
    assert [text for text in texts if text in ("61.3", "52.0", "–")] == ["61.3", "52.0", "–"]
    assert "full data" in texts and "accuracy [%]" in texts
    bars = re.findall(r'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+)[^"]*z\s*" [^>]*fill: var\(--series-1\)', svg)
    widths = [float(end) - float(start) for start, end in bars]
    assert len(widths) == 2 and widths[0] / widths[1] == pytest.approx(61.3 / 52.0, rel=1e-3)


def test_a_histogram_counts_every_value_once() -> None:
    draw = np.random.default_rng(0)
    values = [*draw.normal(size=500), None]
    svg = charts.draw(Histogram(title="t", x_label="x", groups=[Sample(name="g", values=values)]))
    (line,) = re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--series-1\); stroke-width: 1.8', svg)
    places = np.array([[float(x), float(y)] for x, y in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", line)])
    heights = places[:, 1].max() - places[1:-1:2, 1]
    counts, _ = np.histogram(values[:-1], len(heights))
    assert heights / heights.sum() == pytest.approx(counts / 500, abs=1e-4)


class Outline(HTMLParser):
    """The items of the page's tree in order, each as the places of its ancestors, and the words of each."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ancestors: list[tuple[int, ...]] = []
        self.words: list[list[str]] = []
        self._open: list[int] = []
        self.feed(html.partition('class="tree')[2].partition("</article>")[0])
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "li":
            self.ancestors.append(tuple(self._open))
            self._open.append(len(self.words))
            self.words.append([])

    def handle_endtag(self, tag: str) -> None:
        if tag == "li":
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self.words[self._open[-1]].append(data)


FATES = {"chosen": "chosen", "rejected": "rejected", "passed": "passed over", "rolled_back": "rolled back"}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=shapes)
def test_the_outline_nests_as_parents_say_and_tells_marks_in_words(
    folder: Folder, shape: list[tuple[int | None, str]]
) -> None:
    nodes = [step(*pair, f"<step {number}>", f"<{number}>") for number, pair in enumerate(shape)]
    outline = Outline(render(run_view(folder, Tree(title="t", root="r", nodes=nodes))))
    texts = [words[1] for words in outline.words]
    assert sorted(texts) == sorted(node.text for node in nodes), "every step once, as text"
    places = [texts.index(node.text) for node in nodes]
    for node, place in zip(nodes, places, strict=True):
        above = () if node.parent is None else (*outline.ancestors[places[node.parent]], places[node.parent])
        assert outline.ancestors[place] == above
        symbol, *words = outline.words[place]
        assert words == [node.text, FATES[node.mark], node.label]
        assert len(symbol) == 1


def test_siblings_stay_close_and_the_chosen_path_comes_last(folder: Folder) -> None:
    nodes = [
        step(None, "chosen", "went on"),
        step(None, "rolled_back", "given up"),
        step(None, "rejected", "a slip"),
        step(None, "passed", "weaker"),
        step(0, "chosen", "the answer"),
        step(1, "rejected", "a dead end"),
        step(0, "passed", "another answer"),
    ]
    outline = Outline(render(run_view(folder, Tree(title="t", root="r", nodes=nodes))))
    shown = [words[1] for words in outline.words]
    assert shown == ["a slip", "weaker", "given up", "a dead end", "went on", "another answer", "the answer"]


def test_a_long_chain_of_steps_renders(folder: Folder) -> None:
    chain = [step(number - 1 if number else None, "chosen", f"step {number}") for number in range(2000)]
    html = render(run_view(folder, Tree(title="t", root="r", nodes=chain)))
    assert len(Outline(html).ancestors[-1]) == len(chain) - 1


def test_a_tree_without_steps_shows_its_problem(folder: Folder) -> None:
    html = render(run_view(folder, Tree(title="t", root="Nothing was tried.", nodes=[])))
    assert "Nothing was tried." in html and not Outline(html).words


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (True, "yes"),
        (3, "3"),
        (12001, "12,001"),
        (0.123456, "0.1235"),
        (1e-7, "1e-07"),
        ("a", "a"),
        ("", "–"),
    ],
)
def test_cells(value: object, shown: str) -> None:
    assert format_cell(value) == shown


def test_a_column_keeps_one_number_of_decimals_unless_that_hides_values(folder: Folder) -> None:
    rows = [[0.99172, 143.2, 1.0], [1.0, 98.0, 1e-6], [None, None, None]]
    page = Page(render(run_view(folder, Table(title="t", columns=["success", "steps", "loss"], rows=rows))))
    for shown in ("0.992", "1.000", "143.2", "98.0", "1e-06"):
        assert shown in page.texts


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.44, "0.4 s"),
        (12.3, "12 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (3599.6, "1 h 00 min"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown
    assert not math.isnan(seconds)
