"""Chains of boxes, as the report draws them."""

from __future__ import annotations

import re

import numpy as np

from squadron.core import charts
from squadron.core.masking import remember_secret
from squadron.core.panels import Chain, Paths, Stop
from tests.html import Page


def chain(*labels: str, right: bool = False, relation: str = "cites") -> Chain:
    stops = [Stop(label=label, type="paper", score=1.234 + place, relation=relation if place else "")
             for place, label in enumerate(labels)]  # fmt: skip
    return Chain(title="row", stops=stops, right=right)


def shown(*rows: Chain) -> list[str]:
    """The texts of a drawing, in its order."""
    return [
        text.strip() for text in Page(charts.draw(Paths(title="t", rows=list(rows)))).texts if text.strip("\u200b \n")
    ]


def boxes(svg: str) -> np.ndarray:
    """Left and right end of each box."""
    found = re.findall(r'<path d="([^"]*)"[^>]*fill: var\(--card\)', svg)
    xs = [[float(x) for x in re.findall(r"(-?[\d.]+) -?[\d.]+ ", path)] for path in found]
    return np.array([(min(x), max(x)) for x in xs])


def test_each_box_has_its_label_type_and_score_and_each_arrow_its_relation() -> None:
    assert sorted(shown(chain("a", "b", "c"))) == sorted(
        ["row", "a", "b", "c", *["paper"] * 3, "1.23", "2.23", "3.23", "cites", "cites"]
    )


def test_boxes_stand_in_the_order_of_the_chain_and_never_meet_or_leave_the_page() -> None:
    for count in (1, 2, 3, 7, 12):
        svg = charts.draw(Paths(title="t", rows=[chain(*(f"n{number}" for number in range(count)))]))
        ends = boxes(svg)
        (width,) = (float(one) for one in re.findall(r'viewBox="0 0 ([\d.]+) ', svg))
        assert len(ends) == count
        assert (ends[1:, 0] > ends[:-1, 1]).all() and ends.min() > 0 and ends.max() < width


def test_only_a_chain_with_a_right_end_says_so_in_words_and_by_its_frame() -> None:
    panel = Paths(title="t", rows=[chain("a", "b"), chain("c", "d", right=True)])
    svg = charts.draw(panel)
    assert Page(svg).texts.count("✓ right") == 1
    assert svg.count("stroke: var(--series-1)") == 1
    assert charts.describe(panel) == "t: row: a –cites→ b; row: c –cites→ d (right)"
    assert charts.is_wide(panel)


def test_a_long_label_goes_on_in_the_next_line_and_ends_with_dots_where_that_is_full() -> None:
    words = [f"word{number}" for number in range(40)]
    label = " ".join(words)
    lines = [text for text in shown(chain(label)) if "word" in text]
    assert len(lines) == 2 and lines[-1].endswith("…")
    assert label.startswith(" ".join(lines).rstrip("…"))
    assert len([text for text in shown(chain("x" * 500)) if "x" in text]) == 2


def test_a_secret_is_masked_before_a_line_could_part_it() -> None:
    secret = "hunter2-" * 8
    remember_secret(secret)
    assert not any("hunter2" in text for text in shown(chain(f"the key is {secret}")))


def test_markup_in_a_label_stays_text() -> None:
    assert "<b>&amp;" in shown(chain("<b>&amp;"))
    assert "<b>" not in charts.draw(Paths(title="t", rows=[chain("<b>&amp;")]))
