"""What a HoT run reports: accuracy by mode, differences on the same questions, how good tags are, and their price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from squadron.core.folder import Folder
from squadron.core.panels import Bar, Bars, Panel, Table
from squadron.evaluate.statistics import wilson_interval
from squadron.evaluate.tasks.compare import Paired, compare_paired, holm
from squadron.methods.hot.config import TAGGED, Mode
from squadron.methods.hot.records import Cell, Compared, Scored, TaskSet

PUBLISHED_GAINS: dict[str, tuple[str, float]] = {
    "arithmetic, mean": ("five models", 1.60),
    "question answering, mean": ("five models", 2.58),
    "logical reasoning, mean": ("five models", 2.53),
    "AQUA": ("Gemini-1.5-Flash", 14.64),
    "StrategyQA": ("Llama-3.1-70B", 15.07),
    "r-GSM": ("Gemini-1.5-Pro", 12.73),
    "SpartQA": ("Gemini-1.5-Flash", 11.88),
    "causal judgement": ("GPT-4o", 15.5),
}
"""Of arXiv 2503.02003: by how many percentage points HoT is right more often than CoT."""
PUBLISHED_READERS: dict[str, tuple[float, float]] = {
    "seconds for an answer": (47.26, 62.38),
    "right verdicts on right answers [%]": (84.48, 78.82),
    "right verdicts on wrong answers [%]": (54.83, 72.21),
}
"""Of the paper's study with people, for HoT and for CoT: they are faster, and believe more, of what is wrong too."""
ALL = "all tasks"


@dataclass(frozen=True)
class Shown:
    """All that panels are made of."""

    run: Folder
    tasks: TaskSet
    scored: Sequence[Scored]

    def panels(self) -> Iterator[Panel]:
        """In the order of the report."""
        yield self.accuracy()
        yield self.bars()
        if self.pairs:
            yield self.differences()
        if self.tagged:
            yield self.tags()
            yield self.faults()
        yield self.tokens()
        yield gains()
        yield readers()

    @cached_property
    def replies(self) -> dict[Cell, list[Mapping[str, Any]]]:
        """All replies by model and mode."""
        return {one.cell: list(one.replies.rows(self.run)) for one in self.scored}

    @property
    def first(self) -> Mode:
        """The mode to which others are compared."""
        return self.scored[0].mode

    @property
    def tagged(self) -> list[Cell]:
        """Those whose mode is to have tags."""
        return [cell for cell in self.replies if cell.mode in TAGGED]

    @property
    def groups(self) -> list[str]:
        """The tasks, and all of them where there is more than one."""
        return [*self.tasks.tasks, *([ALL] if len(self.tasks.tasks) > 1 else [])]

    def of(self, cell: Cell, task: str) -> list[Mapping[str, Any]]:
        """The replies of one task, or of all."""
        return [row for row in self.replies[cell] if task in (ALL, row["task"])]

    def values(self, cell: Cell, task: str) -> dict[str, float]:
        """What each question is worth, over its samples; those of which no reply was read are left out."""
        found: dict[str, list[float]] = {}
        for row in self.of(cell, task):
            if row["value"] is not None:
                found.setdefault(row["id"], []).append(row["value"])
        return {name: sum(values) / len(values) for name, values in found.items()}

    @cached_property
    def pairs(self) -> list[tuple[str, Cell, Paired]]:
        """Each mode against the first of the same model, on the questions that could be read in both."""
        found = []
        for task in self.groups:
            for cell in self.replies:
                values, base = self.values(cell, task), self.values(cell._replace(mode=self.first), task)
                both = [name for name in values if name in base]
                if both and cell.mode != self.first:
                    pair = compare_paired([values[name] for name in both], [base[name] for name in both])
                    found.append((task, cell, pair))
        return found

    @cached_property
    def compared(self) -> Compared:
        """The figures that sweeps compare."""
        accuracy: dict[str, float | None] = {}
        unparsed = {}
        for cell, replies in self.replies.items():
            means = (_mean(self.values(cell, task).values()) for task in self.tasks.tasks)
            accuracy[", ".join(cell)] = _mean(one for one in means if one is not None)
            unparsed[", ".join(cell)] = sum(row["outcome"] == "unparsed" for row in replies) / max(1, len(replies))
        last = self.groups[-1]
        gain = _mean(pair.difference for task, cell, pair in self.pairs if (task, cell.mode) == (last, "hot"))
        hot = [cell for cell in self.replies if cell.mode == "hot"]
        right = _mean(one for cell in hot if (one := accuracy[", ".join(cell)]) is not None)
        valid = _mean(row["valid"] for cell in hot for row in self.replies[cell] if row["valid"] is not None)
        return Compared(accuracy=accuracy, unparsed=unparsed, hot=right, gain=gain, valid=valid)

    def accuracy(self) -> Table:
        """The share that is right of the answers that could be read, and how many could not."""
        rows: list[list[Any]] = []
        for task in self.groups:
            for cell in self.replies:
                outcomes = Counter(row["outcome"] for row in self.of(cell, task))
                read = outcomes["right"] + outcomes["wrong"]
                low, high = wilson_interval(outcomes["right"], read) if read else (None, None)
                share = outcomes["right"] / read if read else None
                others = [outcomes["unparsed"], outcomes["failed"]]
                rows.append([task, *cell, _share(share), _interval(low, high), read, *others])
        note = "Unparsed answers count neither as right nor as wrong. Intervals are Wilson's, 95%."
        columns = ["task", "model", "mode", "right", "95%", "read", "unparsed", "failed"]
        return Table(title="Accuracy", columns=columns, rows=rows, note=note)

    def bars(self) -> Bars:
        """The mean accuracy of each model and mode."""
        bars = [Bar(name=name, value=value) for name, value in self.compared.accuracy.items()]
        return Bars(title="Right answers", label="share", bars=bars)

    def differences(self) -> Table:
        """How often each mode is right where the first is not."""
        corrected = holm([pair.p for _, _, pair in self.pairs])
        rows: list[list[Any]] = [
            [task, *cell, f"{100 * pair.difference:+.1f}", f"{100 * pair.low:+.1f} to {100 * pair.high:+.1f}",
             pair.better, pair.worse, pair.questions, f"{pair.p:.3g}", f"{p:.3g}"]
            for (task, cell, pair), p in zip(self.pairs, corrected, strict=True)
        ]  # fmt: skip
        columns = ["task", "model", "mode", "points", "95%", "only it right", f"only {self.first} right", "questions",
                   "p", "p, Holm"]  # fmt: skip
        note = "The same questions, read in both modes. p is McNemar's exact one; Holm's correction is for this table."
        return Table(title=f"Against {self.first}", columns=columns, rows=rows, note=note)

    def tags(self) -> Table:
        """How good the tags of each mode are."""
        rows: list[list[Any]] = []
        for cell in self.tagged:
            replies = [row for row in self.replies[cell] if row["outcome"] != "failed"]
            facts = (
                _mean(len(row[part]["spans"]) for row in replies if row[part] is not None)
                for part in ("question", "answer")
            )
            shares = (
                _mean(row[name] for row in replies if row[name] is not None)
                for name in ("valid", "balanced", "coverage", "fidelity")
            )
            repaired = sum(row["repaired"] for row in replies)
            rows.append([*cell, *map(_share, shares), *map(_round, facts), repaired])
        columns = ["model", "mode", "valid", "balanced", "coverage", "fidelity", "facts in question", "in answer",
                   "repaired tags"]  # fmt: skip
        note = (
            "Valid: facts in question and answer, without any fault. Coverage: facts of the question to which the "
            "answer refers. Fidelity: 1 - edit distance of the repeated question."
        )
        return Table(title="Tags", columns=columns, rows=rows, note=note)

    def faults(self) -> Table:
        """How many replies have a fault of each kind."""
        counts = [Counter(kind for row in self.replies[cell] for kind in row["faults"] or ()) for cell in self.tagged]
        known = sorted(set().union(*counts))
        rows: list[list[Any]] = [[kind, *(one[kind] for one in counts)] for kind in known]
        columns = ["fault", *(", ".join(cell) for cell in self.tagged)]
        return Table(title="Replies with faults of tags", columns=columns, rows=rows)

    def tokens(self) -> Table:
        """What each mode costs."""
        rows: list[list[Any]] = []
        base = {one.model: one.completion_tokens for one in self.scored if one.mode == self.first}
        for one in self.scored:
            asked = max(1, len(self.replies[one.cell]))
            times = one.completion_tokens / base[one.model] if base[one.model] else None
            figures = (one.prompt_tokens / asked, one.completion_tokens / asked, times)
            rows.append([*one.cell, *map(_round, figures), f"{one.cost_usd:.2f}"])
        columns = ["model", "mode", "tokens of a prompt", "of an answer", f"times {self.first}'s", "USD"]
        return Table(title="Price", columns=columns, rows=rows)

    def headlines(self) -> Iterator[tuple[str, str]]:
        """The lines of the run's end."""
        for name, share in self.compared.accuracy.items():
            unparsed = self.compared.unparsed[name]
            unread = f", {unparsed:.1%} unparsed" if unparsed else ""
            yield f"right, {name}", "nothing read" if share is None else f"{share:.1%}{unread}"
        for task, cell, pair in self.pairs:
            if (task, cell.mode) == (self.groups[-1], "hot"):
                interval = f"{100 * pair.low:+.1f} to {100 * pair.high:+.1f}"
                sure = "" if pair.low > 0 or pair.high < 0 else ": no difference that holds"
                yield (
                    f"HoT against {self.first}, {cell.model}",
                    f"{100 * pair.difference:+.1f} points ({interval}){sure}",
                )
        if self.compared.valid is not None:
            yield "HoT replies without any fault of tags", f"{self.compared.valid:.1%}"


def gains() -> Table:
    """The paper's gains, as published."""
    rows: list[list[Any]] = [[name, model, f"{gain:+.2f}"] for name, (model, gain) in PUBLISHED_GAINS.items()]
    note = "arXiv 2503.02003: not measured here. Small models fail to write tags; reasoning models gain nothing."
    return Table(title="Published: HoT against CoT", columns=["task", "model", "points"], rows=rows, note=note)


def readers() -> Table:
    """The paper's study with people, as published."""
    rows: list[list[Any]] = [[name, hot, cot] for name, (hot, cot) in PUBLISHED_READERS.items()]
    note = "arXiv 2503.02003: not measured here. Highlights made people faster, and more trusting of wrong answers."
    return Table(title="Published: readers", columns=["what", "HoT", "CoT"], rows=rows, note=note)


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%}"


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _interval(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"{low:.1%} to {high:.1%}"
