"""What the report of a Rewrite run shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from squadron.core.panels import Curves, Table
from squadron.core.run import Stage
from squadron.evaluate.panels import curve, estimate_bars
from squadron.evaluate.summary import Estimate
from squadron.methods.rewrite.config import EvaluationConfig
from squadron.methods.rewrite.records import Method, Rewrites

if TYPE_CHECKING:
    from squadron.methods.rewrite.sheet import Sheet

LABELS = {
    "cosine": "cosine", "bertscore": "BERTScore F1 (MiniLM)", "rouge1": "ROUGE-1", "rougel": "ROUGE-L",
    "slots": "slots kept", "ndcg": "nDCG of passages", "untouched": "left as they are",
}  # fmt: skip
PUBLISHED: dict[str, dict[str, tuple[float, float] | None]] = {
    "Text Q&A": {"Fusion": (0.826, 0.751), "Rewrite": (0.859, 0.828), "Rewrite + classifier": (0.871, 0.859)},
    "Text-to-Vis long": {"Fusion": (0.820, 0.773), "Rewrite": (0.760, 0.734), "Rewrite + classifier": (0.769, 0.740)},
    "Text-to-Vis short": {"Fusion": (0.925, 0.856), "Rewrite": (0.857, 0.837), "Rewrite + classifier": None},
}
"""Cosine and BERTScore F1 of the paper, whose data are not published."""
_CUT = 160


def show(
    stage: Stage, sheet: Sheet, methods: Sequence[Method], measure: str, recommended: str,
    found: Sequence[tuple[str, Estimate]], rewrites: Sequence[Rewrites], config: EvaluationConfig,
) -> None:  # fmt: skip
    """All panels and headlines of the comparison."""
    stage.show(recommendation(measure, recommended, found))
    stage.show(bars(methods, measure))
    stage.show(strategy_curves(methods, measure))
    for part in methods[0].means if len(methods[0].means) > 2 else list(methods[0].means)[:1]:
        stage.show(by_measure(methods, part))
    stage.show(cost_table(sheet, methods, rewrites))
    if config.shown:
        stage.show(side_by_side(sheet, methods, measure, config.shown))
    stage.show(published())
    stage.headline("recommended for these conversations", recommended)
    best = next(one for one in methods if one.name == recommended).means["all"].get(measure)
    stage.headline(LABELS[measure], (best and best.text(".3f")) or "–")
    for name, one in found[:1]:
        stage.headline(f"more than {name}", one.text("+.3f") or "–")


def recommendation(measure: str, recommended: str, found: Sequence[tuple[str, Estimate]]) -> Table:
    """What to take, and how sure that is."""
    rows = [[recommended, name, one.value("+.3f"), one.interval("+.3f"), _verdict(one)] for name, one in found]
    note = (
        f"By {LABELS[measure]}: chosen on half of the conversations, the differences on the same turns of the others, "
        "with 95% intervals that resample conversations. Where an interval holds 0, take what costs less."
    )
    return Table(
        title="Recommendation for this data", columns=["take", "against", "difference", "95% interval", "verdict"],
        rows=rows or [[recommended, None, None, None, "nothing to compare with"]], note=note,
    )  # fmt: skip


def bars(methods: Sequence[Method], measure: str) -> Any:
    """All methods, the best first."""
    found = {one.name: one.means["all"][measure] for one in methods if measure in one.means["all"]}
    order = sorted((name for name in found if found[name].count), key=lambda name: -found[name].mean)
    return estimate_bars(
        "All settings", LABELS[measure], {name: found[name] for name in order}, note="With 95% intervals."
    )


def strategy_curves(methods: Sequence[Method], measure: str) -> Curves:
    """The measure by k, a curve for each rewriter and strategy, with nothing in front."""
    real = [one for one in methods if one.rewriter and measure in one.means["all"]]
    front = real[0].classifier if real else ""
    names = dict.fromkeys((one.rewriter, one.strategy) for one in real if one.classifier == front)
    series = [
        curve(
            f"{rewriter}, {strategy}",
            [(one.k, one.means["all"][measure]) for one in sorted(real, key=lambda one: one.k)
             if (one.rewriter, one.strategy, one.classifier) == (rewriter, strategy, front)],
        )
        for rewriter, strategy in names
    ]  # fmt: skip
    note = f"k earlier turns are shown; {f'{front} in front' if front else 'nothing in front'}. Bands: 95% intervals."
    return Curves(title="Strategy by k", x_label="k", y_label=LABELS[measure], series=series, note=note)


def by_measure(methods: Sequence[Method], part: str) -> Table:
    """All measures of one set, and how much of the gap between the last query and a person's rewrite is closed."""
    kinds = [kind for kind in LABELS if any(kind in one.means[part] and one.means[part][kind].count for one in methods)]
    raw = methods[0].means[part].get("cosine")
    rows = []
    for one in methods:
        cosine = one.means[part].get("cosine")
        gap = (cosine.mean - raw.mean) / (1 - raw.mean) if cosine and raw and raw.count and raw.mean < 1 else None
        cells = [one.means[part][kind].text(".3f") if kind in one.means[part] else None for kind in kinds]
        rows.append([one.name, *cells, None if gap is None else f"{gap:.0%}"])
    title = "Rewrites against a person's" if part == "all" else f"Rewrites of {part}"
    columns = ["method", *(LABELS[kind] for kind in kinds), "gap closed"]
    note = "Means over turns; in brackets 95% intervals, which resample conversations. Gap: of cosine, from the last "
    note += "query (0%) to a person's rewrite (100%). Slots: the share of those that still hold and stand in the "
    note += "rewrite. Left as they are: of turns whose rewrite by a person is the query itself."
    return Table(title=title, columns=columns, rows=rows, note=note)


def cost_table(sheet: Sheet, methods: Sequence[Method], rewrites: Sequence[Rewrites]) -> Table:
    """How often rewriters were asked, how long rewrites are, and what chat models cost."""
    costs = {f"{one.rewriter}, {cost.setting}": cost for one in rewrites for cost in one.costs}
    rows: list[list[Any]] = []
    for one in methods:
        if cost := costs.get(one.name):
            words = [len(text.split()) for text in sheet.texts[one.name] if text]
            paid = [cost.prompt_tokens, cost.completion_tokens, cost.usd]
            rows.append([one.name, cost.turns, cost.asked, round(float(np.mean(words or [0])), 1), *paid])
    note = "Tokens and prices as if every answer were asked for anew; equal questions of several settings are asked "
    note += "once, and under Fusion turns before those that are measured are asked, too."
    columns = ["method", "turns", "asked", "words of a rewrite", "tokens of prompts", "tokens of answers", "USD"]
    return Table(title="What rewriting takes", columns=columns, rows=rows, note=note)


def side_by_side(sheet: Sheet, methods: Sequence[Method], measure: str, count: int) -> Table:
    """Turns of the first conversations with what the best of each strategy makes of them."""
    best: dict[str, Method] = {}
    for one in methods:
        mean = one.means["all"].get(measure)
        if one.rewriter and mean and (
            one.strategy not in best or mean.mean > best[one.strategy].means["all"][measure].mean
        ):  # fmt: skip
            best[one.strategy] = one
    rows = []
    for place, (talk, number, said) in list(enumerate(sheet.turns))[:count]:
        made = [sheet.texts[one.name][place] for one in best.values()]
        rows.append([f"{talk.id}, {number}", *map(_short, [said.query, *made, said.reference])])
    columns = ["turn", "query", *(one.name for one in best.values()), "a person"]
    return Table(title="Turns side by side", columns=columns, rows=rows, note="By the best setting of each strategy.")


def drift_panels(points: dict[str, list[tuple[int, Estimate, Estimate]]], at: int) -> tuple[Curves, Table]:
    """How far one wrong rewrite carries: by setting, turns after it, the share of rewrites that are others than without
    it, and how much less they have of the slots or of the cosine."""
    series = [curve(name, [(after, changed) for after, changed, _ in some]) for name, some in points.items()]
    note = f"The rewrite of turn {at} and the response to it are those of another conversation. Bands: 95% intervals."
    curves = Curves(
        title="How far one wrong rewrite carries", x_label="turns after it", y_label="share of rewrites that changed",
        series=series, note=note,
    )  # fmt: skip
    rows = [
        [name, after, changed.value(".0%"), changed.interval(".0%"), lost.value("+.3f"), lost.interval("+.3f")]
        for name, some in points.items()
        for after, changed, lost in some
        if after in (1, 4)
    ]
    columns = ["setting", "turns after", "changed", "95% interval", "cosine to a person's", "interval"]
    return curves, Table(title="What it costs", columns=columns, rows=rows, note="The cosine less that without it.")


def published() -> Table:
    """The paper's table."""
    rows = [
        [task, way, *(values or (None, None))] for task, by_way in PUBLISHED.items() for way, values in by_way.items()
    ]
    note = "arXiv 2502.18860, on internal conversations, with an embedder that is not named: other data than here."
    columns = ["task", "way", "cosine", "BERTScore F1"]
    return Table(title="Published", columns=columns, rows=rows, note=note)


def _verdict(one: Estimate) -> str:
    if not one.count:
        return "no values"
    return "better" if one.low > 0 else "worse" if one.high < 0 else "no clear difference"


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= _CUT else f"{text[: _CUT - 1]}…"
