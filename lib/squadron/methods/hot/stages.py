"""The steps of a HoT run: questions asked in each mode, replies read and scored, modes compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows, store_rows, write_rows
from squadron.evaluate.tasks.scorers import score
from squadron.llm.batch.budget import SpendingConfig
from squadron.llm.batch.collect import QUESTION_TYPES, Answers, CollectConfig, collect, read_answers
from squadron.llm.chat import Sampling
from squadron.llm.settings import HfModel
from squadron.methods.hot.config import AskedModel, Mode
from squadron.methods.hot.demonstrations import Demonstration
from squadron.methods.hot.learning import train_solver
from squadron.methods.hot.plan import calls
from squadron.methods.hot.prompts import write_prompt
from squadron.methods.hot.reader_page import make_reader_page
from squadron.methods.hot.reading import read_tasks
from squadron.methods.hot.records import READ_TYPES, Compared, Scored, TaskSet, kinds, write_tagged
from squadron.methods.hot.tagging import tag_demonstrations
from squadron.methods.hot.tags import Repair, read_reply
from squadron.train.models.artifact import ModelArtifact

__all__ = [
    "ask",
    "ask_solver",
    "compare",
    "make_reader_page",
    "read_replies",
    "read_tasks",
    "tag_demonstrations",
    "train_solver",
]


@estimated(calls)
def ask(
    stage: Stage, tasks: TaskSet, asked: AskedModel, mode: Mode, samples: int, seed: int, spending: SpendingConfig
) -> Answers:
    """Ask a model all questions in one mode."""
    return _ask(stage, tasks, tasks.shown(stage.run.folder), asked, mode, samples, seed, spending)


def _ask(
    stage: Stage,
    tasks: TaskSet,
    shown: Mapping[str, Sequence[Demonstration]],
    asked: AskedModel,
    mode: Mode,
    samples: int,
    seed: int,
    spending: SpendingConfig,
) -> Answers:
    items = tasks.asked(stage.run.folder)
    prompts = (
        {"id": item.id, "instruction": write_prompt(mode, item.question, shown.get(item.task, ()), seed)}
        for item in items
    )
    write_rows(stage.folder, "asked.arrow", prompts, QUESTION_TYPES)
    config = CollectConfig(**spending.model_dump(), sampling=asked.sampling, samples=samples)
    (answers,) = collect(stage, ArrowRows(stage.folder, ["asked.arrow"]), [asked.model], config)
    return answers


@estimated(calls)
def ask_solver(
    stage: Stage, tasks: TaskSet, solver: ModelArtifact, sampling: Sampling, mode: Mode, seed: int, samples: int
) -> Answers:
    """Ask the model that this run trained. It has learned from prompts without demonstrations, and is shown none."""
    model = HfModel(name=solver.name, path=solver.locate(stage.run.folder))
    asked = AskedModel(model=model, sampling=sampling)
    return _ask(stage, tasks, {}, asked, mode, samples, seed, SpendingConfig())


def read_replies(stage: Stage, tasks: TaskSet, answers: Answers, mode: Mode, repair: Repair) -> Scored:
    """Read each reply: its parts, its tags and their faults, and whether its answer is right."""
    items = {item.id: item for item in tasks.asked(stage.run.folder)}

    def rows() -> Iterator[dict[str, Any]]:
        for row in read_answers(stage.run.folder, answers):
            item = items[row["id"]]
            if row["response"] is None:
                yield {"id": item.id, "task": item.task, "sample": row["sample"], "outcome": "failed"}
                continue
            reply = read_reply(row["response"], item.question, repair)
            verdict = score(reply.answer.text, item)
            yield {
                "id": item.id, "task": item.task, "sample": row["sample"], "outcome": verdict.outcome,
                "value": verdict.value, "read": verdict.read, "reply": row["response"],
                "question": write_tagged(reply.question), "answer": write_tagged(reply.answer),
                "faults": list(kinds(reply)), "valid": reply.valid, "balanced": reply.balanced,
                "coverage": reply.coverage, "fidelity": reply.fidelity(item.question),
                "repaired": reply.answer.repaired + (reply.question.repaired if reply.question else 0),
            }  # fmt: skip

    stored = store_rows(stage, "replies.arrow", rows(), READ_TYPES)
    return Scored(
        mode=mode, model=answers.model, replies=stored, prompt_tokens=answers.prompt_tokens,
        completion_tokens=answers.completion_tokens, cost_usd=answers.cost_usd,
    )  # fmt: skip


def compare(stage: Stage, tasks: TaskSet, scored: tuple[Scored, ...]) -> Compared:
    """Compare modes on the same questions, and show what their tags are like and what they cost."""
    from squadron.methods.hot.report import Shown

    shown = Shown(stage.run.folder, tasks, scored)
    for panel in shown.panels():
        stage.show(panel)
    found = shown.compared
    known = {"accuracy": found.hot, "gain": found.gain, "valid": found.valid}
    stage.measure(**{name: value for name, value in known.items() if value is not None})
    for label, value in shown.headlines():
        stage.headline(label, value)
    return found
