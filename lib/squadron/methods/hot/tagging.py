"""Demonstrations get their tags by a chat model: first the question, then the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows, store_rows, write_rows
from squadron.llm.batch.collect import QUESTION_TYPES, collect, read_answers
from squadron.methods.hot.config import TaggingConfig
from squadron.methods.hot.demonstrations import Demonstration
from squadron.methods.hot.records import SHOWN_TYPES, TaskSet
from squadron.methods.hot.tags import read_tags, similarity, split_reply

QUESTION = """\
Mark the question below: put tags such as <fact1>…</fact1>, <fact2>…</fact2> around its key phrases. A phrase is key \
if the answer would change were it replaced by the closest alternative. Mark phrases as short as possible, and keep \
every word as it is. Write nothing but the marked question.

Question: {question}"""
ANSWER = """\
Mark the answer below: put tags around the phrases that refer to what is marked in the question. The same number means \
the same thing in both. Use no number that the question lacks, and keep every word as it is. Write nothing but the \
marked answer.

Question: {question}
Answer: {answer}"""


def tag_demonstrations(stage: Stage, tasks: TaskSet, config: TaggingConfig) -> TaskSet:
    """Ask the model for the tags of the demonstrations that have none in their question. What it returns counts if its
    tags are as they should be and its words have stayed; what does not is a failed row and stays without tags."""
    shown = [(name, one) for name, some in tasks.shown(stage.run.folder).items() for one in some]
    plain = [(n, one) for n, (_, one) in enumerate(shown) if one.highlighted is None]
    questions = _ask(stage, "questions", [QUESTION.format(question=one.question) for _, one in plain], config)
    marked = [
        (n, one, question)
        for (n, one), text in zip(plain, questions, strict=True)
        if (question := _checked(text, one.question, None, config.fidelity)) is not None
    ]
    asked = [ANSWER.format(question=question, answer=one.answer) for _, one, question in marked]
    done: dict[int, Demonstration] = {}
    for (n, one, question), text in zip(marked, _ask(stage, "answers", asked, config), strict=True):
        answer = _checked(text, one.answer, read_tags(question).ids, config.fidelity)
        if answer is not None:
            done[n] = replace(one, highlighted=question, answer=answer)
    for n, one in plain:
        if n not in done:
            stage.fail(
                f"{shown[n][0]}: {one.question[:60]}", "the model did not mark it as it was asked to", retry=False
            )
    columns = ["task", "question", "answer"]
    rows = [[shown[n][0], one.highlighted, one.answer] for n, one in done.items()]
    stage.show(Table(title="Demonstrations that got tags", columns=columns, rows=rows))
    stage.headline("demonstrations that got tags", f"{len(done)} of {len(plain)}")
    kept = ({"task": name, **vars(done.get(n, one))} for n, (name, one) in enumerate(shown))
    return tasks.model_copy(update={"demonstrations": store_rows(stage, "demonstrations.arrow", kept, SHOWN_TYPES)})


def _ask(stage: Stage, what: str, prompts: Sequence[str], config: TaggingConfig) -> list[str | None]:
    """One reply to each."""
    if not prompts:
        return []
    rows = [{"id": f"{what} {number}", "instruction": prompt} for number, prompt in enumerate(prompts)]
    write_rows(stage.folder, f"{what}.arrow", rows, QUESTION_TYPES)
    (answers,) = collect(stage, ArrowRows(stage.folder, [f"{what}.arrow"]), [config.model], config.collect)
    return [row["response"] for row in read_answers(stage.run.folder, answers)]


def _checked(text: str | None, plain: str, known: frozenset[str] | None, fidelity: float) -> str | None:
    """The marked text if it has facts, no fault, no number but the known ones, and the words of the plain one."""
    marked = split_reply((text or "").removeprefix("Question:"))[1]
    tagged = read_tags(marked)
    right = tagged.spans and not tagged.faults and (known is None or tagged.ids <= known)
    return marked if right and similarity(tagged.text, plain) >= fidelity else None
